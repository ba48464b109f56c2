//! flanneld's flags for etcd against a real etcd that wants a certificate, a user and a password: whoever has all
//! of them works, and whoever has one of them wrong is told which.
//!
//! Everything runs in a lab of its own, whose topology is written here, because the certificates are.

use std::{fmt::Write, fs, process::Command};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};

#[test]
fn certificate_user_and_password_open_etcd_and_what_is_wrong_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("flanneld-tls.yaml");
    fs::write(&file, topology()).unwrap();
    let out = Command::new(env!("CARGO_BIN_EXE_russet"))
        .args(["lab", "run"])
        .arg(&file)
        .output()
        .unwrap();
    let (told, more) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{told}\n{more}");
}

fn topology() -> String {
    let ours = Authority::new();
    let strangers = Authority::new();
    let server = ours.sign(&["192.168.1.11", "127.0.0.1"], ExtendedKeyUsagePurpose::ServerAuth);
    let client = ours.sign(&["node"], ExtendedKeyUsagePurpose::ClientAuth);
    let stranger = strangers.sign(&["node"], ExtendedKeyUsagePurpose::ClientAuth);
    let mut text = HEAD.to_owned();
    node(
        &mut text,
        "n1",
        ETCD,
        &[("ca", &ours.pem()), ("server", &server.0), ("server-key", &server.1)],
        SETUP,
    );
    for (name, password, ca, identity) in [
        ("n2", "pw", &ours, &client),
        ("n3", "pw", &ours, &client),
        ("n4", "wrong", &ours, &client),
        ("n5", "pw", &strangers, &client),
        ("n6", "pw", &ours, &stranger),
    ] {
        let files =
            [("ca", ca.pem()), ("client", identity.0.clone()), ("client-key", identity.1.clone())];
        let files: Vec<_> = files.iter().map(|(name, pem)| (*name, pem.as_str())).collect();
        node(&mut text, name, FLANNELD, &files, password);
    }
    text + STEPS
}

/// A node with a program, its certificates, and one file more.
fn node(text: &mut String, name: &str, program: &str, files: &[(&str, &str)], more: &str) {
    let quoted = |pem: &str| serde_json::to_string(pem).unwrap();
    let _ = writeln!(text, "  - name: {name}\n    runs: [{program}]\n    files:");
    for (file, pem) in files {
        let _ = writeln!(text, "      /etc/lab/{file}.pem: {}", quoted(pem));
    }
    let _ = writeln!(text, "      /etc/lab/more: {}", quoted(more));
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate and its key.
    fn sign(&self, names: &[&str], purpose: ExtendedKeyUsagePurpose) -> (String, String) {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        // etcd's gateway is a client of its own server with the server's certificate.
        params.extended_key_usages = vec![purpose, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

const HEAD: &str = r"
name: flanneld-tls
summary: flanneld's flags open an etcd that wants a certificate, a user and a password.
needs: [vxlan, etcd]
underlay:
  subnets:
    - {name: rack, ipv4: 192.168.1.0/24}
nodes:
";
const ETCD: &str = r"{name: etcd, command: [etcd, --data-dir, /run/etcd, --listen-client-urls, 'https://192.168.1.11:2379',
      --advertise-client-urls, 'https://192.168.1.11:2379', --listen-peer-urls, 'http://127.0.0.1:2380', --client-cert-auth,
      --trusted-ca-file, /etc/lab/ca.pem, --cert-file, /etc/lab/server.pem, --key-file, /etc/lab/server-key.pem]}";
const FLANNELD: &str = r#"{name: flanneld, env: {FLANNELD_ETCD_USERNAME: node}, command: [sh, -c,
      'until [ -e /run/go ]; do sleep 0.05; done;
      export FLANNELD_ETCD_PASSWORD=$(cat /etc/lab/more) NODE_NAME={node};
      exec "$0" flanneld "$@" > /run/flanneld.log 2>&1', '{russet}', -etcd-endpoints,
      'https://192.168.1.11:2379', -etcd-prefix, /net, -etcd-cafile, /etc/lab/ca.pem, -etcd-certfile, /etc/lab/client.pem,
      -etcd-keyfile, /etc/lab/client-key.pem]}"#;
/// The user may do nothing outside the network's folder.
const SETUP: &str = r#"set -e
export ETCDCTL_API=3
ctl() { etcdctl --endpoints https://192.168.1.11:2379 --cacert /etc/lab/ca.pem --cert /etc/lab/server.pem --key /etc/lab/server-key.pem "$@"; }
until ctl endpoint health; do sleep 0.1; done
ctl put /net/config '{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}'
ctl user add root:rootpw
ctl user grant-role root root
ctl role add net
ctl role grant-permission --prefix=true net readwrite /net/
ctl user add node:pw
ctl user grant-role node net
ctl auth enable
"#;
const STEPS: &str = r"
steps:
  - exec: {on: n1, command: [sh, /etc/lab/more]}
  # Before it, etcd asked nobody for a password.
  - exec: {on: n2, command: [touch, /run/go]}
  - exec: {on: n3, command: [touch, /run/go]}
  - exec: {on: n4, command: [touch, /run/go]}
  - exec: {on: n5, command: [touch, /run/go]}
  - exec: {on: n6, command: [touch, /run/go]}
  - expect: {output: {on: n2, command: [russet, status], contains: 'in sync'}, within: 30s}
  - expect: {output: {on: n3, command: [russet, get, leases], contains: 192.168.1.12}, within: 30s}
  - expect: {output: {on: n2, command: [russet, get, leases], contains: 192.168.1.13}, within: 30s}
  - expect: {output: {on: n2, command: [cat, /run/flannel/subnet.env], contains: 'FLANNEL_MTU=1450'}}
  - expect: {output: {on: n4, command: [sh, -c, 'russet status; true'], contains: 'password'}, within: 30s}
  - expect: {output: {on: n4, command: [cat, /run/flanneld.log], contains: 'password'}}
  - expect: {output: {on: n5, command: [sh, -c, 'russet status; true'], contains: 'certificate'}, within: 30s}
  - expect: {output: {on: n5, command: [cat, /run/flanneld.log], contains: 'certificate'}}
  - expect: {output: {on: n6, command: [sh, -c, 'russet status; true'], contains: 'BadCertificate'}, within: 30s}
  - exec: {on: n2, command: [cat, /run/flanneld.log], lacks: ' pw'}
  - exec: {on: n4, command: [sh, -c, 'ip link; echo end'], lacks: flannel}
";
