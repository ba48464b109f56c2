//! TLS with certificates on both sides, against both servers.

use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use russet_store::{
    ClientConfig, ClientSettings, EtcdClient, WatchEvent, WatchRequest,
    server::{Exposure, MutualTls, ServerConfig},
};

use crate::backend::{Etcd, Ours, next, wait_ready, write_file};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_server_takes_a_client_with_a_certificate_and_no_other() {
    let files = Files::new();
    let tls = MutualTls::read(&files.server.0, &files.server.1, &files.ca).unwrap();
    let exposure = Exposure::MutualTls(tls);
    let ours = Ours::start(ServerConfig { exposure, ..ServerConfig::default() });
    let endpoint = format!("https://{}", ours.address);

    works(&files.client(&endpoint, Some(&files.client))).await;
    refused(&files.client(&endpoint, None)).await;
    let foreign = Files::new();
    refused(&files.client(&endpoint, Some(&foreign.client))).await;
    refused(&foreign.client(&endpoint, Some(&files.client))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_takes_a_client_with_a_certificate_and_no_other() {
    let files = Files::new();
    let flags = [
        "--client-cert-auth".to_owned(),
        format!("--trusted-ca-file={}", files.ca.display()),
        format!("--cert-file={}", files.server.0.display()),
        format!("--key-file={}", files.server.1.display()),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let etcd = Etcd::start_unready("https", &flags);
    let endpoint = format!("https://{}", etcd.address);
    let client = files.client(&endpoint, Some(&files.client));
    wait_ready(&client).await;

    works(&client).await;
    refused(&files.client(&endpoint, None)).await;
}

#[test]
fn files_that_hold_something_else_are_told_by_name() {
    let files = Files::new();
    let settings = ClientSettings {
        endpoints: vec!["https://127.0.0.1:1".to_owned()],
        ca_file: Some(files.server.1.clone()),
        cert_file: Some(files.server.0.clone()),
        key_file: Some(files.ca.clone()),
        ..ClientSettings::default()
    };

    let faults = ClientConfig::read(&settings).unwrap_err().0;

    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(faults[0].contains("server.key") && faults[0].contains("no certificate"));
    assert!(faults[1].contains("ca.pem") && faults[1].contains("no private key"));
}

async fn works(client: &EtcdClient) {
    let revision = client.put(b"/k", b"v").await.unwrap();
    assert_eq!(client.get(b"/k").await.unwrap().unwrap().modified, revision);
    let mut watch =
        client.watch(WatchRequest { prefixes: vec![b"/".to_vec()], ..WatchRequest::default() });
    assert!(matches!(next(&mut watch).await, WatchEvent::Snapshot(_)));
    client.put(b"/k", b"w").await.unwrap();
    assert!(matches!(next(&mut watch).await, WatchEvent::Changes { .. }));
}

async fn refused(client: &EtcdClient) {
    let err = client.status().await.unwrap_err();
    assert!(err.is_unavailable(), "{err:?}");
}

/// An authority with a server's and a client's certificate, in a directory of its own.
struct Files {
    dir: tempfile::TempDir,
    ca: PathBuf,
    server: (PathBuf, PathBuf),
    client: (PathBuf, PathBuf),
}

impl Files {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let ca = write_file(&dir, "ca.pem", &issuer.pem());
        let server = signed(&dir, &issuer, "server", ExtendedKeyUsagePurpose::ServerAuth);
        let client = signed(&dir, &issuer, "client", ExtendedKeyUsagePurpose::ClientAuth);
        Self { dir, ca, server, client }
    }

    /// Returns a client that trusts this authority and shows `identity`.
    fn client(&self, endpoint: &str, identity: Option<&(PathBuf, PathBuf)>) -> EtcdClient {
        assert!(self.dir.path().exists());
        let settings = ClientSettings {
            endpoints: vec![endpoint.to_owned()],
            ca_file: Some(self.ca.clone()),
            cert_file: identity.map(|(cert, _)| cert.clone()),
            key_file: identity.map(|(_, key)| key.clone()),
            ..ClientSettings::default()
        };
        EtcdClient::new(&ClientConfig::read(&settings).unwrap())
    }
}

fn signed(
    dir: &tempfile::TempDir,
    issuer: &CertifiedIssuer<'_, KeyPair>,
    name: &str,
    purpose: ExtendedKeyUsagePurpose,
) -> (PathBuf, PathBuf) {
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    // etcd's gateway is a client of its own server with the server's certificate.
    params.extended_key_usages = vec![purpose, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let cert = params.signed_by(&key, issuer).unwrap();
    let cert = write_file(dir, &format!("{name}.pem"), &cert.pem());
    (cert, write_file(dir, &format!("{name}.key"), &key.serialize_pem()))
}
