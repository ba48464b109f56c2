//! Which store is meant: our flags, calicoctl's file, its variables.

use std::process::Command;

use crate::{errors, on_both};

#[test]
fn calicoctl_s_variables_say_which_store() {
    on_both(|lab| {
        lab.put_calico();
        let get = |endpoints: &str| {
            let out = Command::new(env!("CARGO_BIN_EXE_russet"))
                .args(["get", "nodes", "-o", "name"])
                .env_remove("RUSSET_ENDPOINTS")
                .env("ETCD_ENDPOINTS", endpoints)
                .output()
                .unwrap();
            (String::from_utf8_lossy(&out.stdout).into_owned(), errors(&out))
        };
        assert_eq!(get(&lab.url).0, "node/node-1\n");
        let told = get("http://127.0.0.1:1").1;
        assert!(told.contains("127.0.0.1:1") && !told.contains("no store was named"), "{told}");
    });
}

#[test]
fn calicoctl_s_file_says_which_store_before_its_variables_do() {
    on_both(|lab| {
        lab.put_calico();
        let config = |spec: &str| {
            format!(
                "apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nmetadata:\nspec:\n{spec}"
            )
        };
        let etcd =
            |url: &str| config(&format!("  datastoreType: etcdv3\n  etcdEndpoints: {url}\n"));
        lab.file("c.cfg", &etcd(&lab.url));
        let get = |words: &[&str], variables: &[(&str, &str)]| {
            Command::new(env!("CARGO_BIN_EXE_russet"))
                .args(["get", "nodes", "-o", "name", "--allow-version-mismatch"])
                .args(words)
                .env_remove("RUSSET_ENDPOINTS")
                .envs(variables.iter().copied())
                .current_dir(lab.home.path())
                .output()
                .unwrap()
        };
        let nowhere = "http://127.0.0.1:1";
        for variables in
            [&[("ETCD_ENDPOINTS", nowhere)][..], &[("DATASTORE_TYPE", "kubernetes")], &[]]
        {
            let out = get(&["-c", "c.cfg"], variables);
            assert_eq!(String::from_utf8_lossy(&out.stdout), "node/node-1\n", "{}", errors(&out));
        }
        lab.file("away.cfg", &etcd(nowhere));
        let out = get(&["--config", "away.cfg", "--endpoint", &lab.url], &[]);
        assert!(out.status.success(), "{}", errors(&out));
        let out = get(&["--config", "away.cfg"], &[("ETCD_ENDPOINTS", &lab.url)]);
        assert!(errors(&out).contains("127.0.0.1:1"), "{}", errors(&out));

        lab.file("kubernetes.cfg", &config("  datastoreType: kubernetes\n"));
        lab.file("slip.cfg", &config("  etcdEndpoint: http://a:1\n"));
        for (words, variables, code, wanted) in [
            (&["-c", "missing.cfg"][..], &[][..], 1, "read missing.cfg: No such file"),
            (&["-c", "slip.cfg"], &[], 65, "slip.cfg:5:3: unknown field `spec.etcdEndpoint`"),
            (&["-c", "kubernetes.cfg"], &[], 65, "kubernetes.cfg:5:18: spec.datastoreType: "),
            (&[], &[("DATASTORE_TYPE", "kubernetes")], 64, "DATASTORE_TYPE: kubernetes: "),
        ] {
            let out = get(words, variables);
            assert_eq!(out.status.code(), Some(code), "{}", errors(&out));
            assert!(errors(&out).contains(wanted), "{}", errors(&out));
        }
        let told = lab.refuses(&["get", "leases", "-c", "c.cfg"], "", 1);
        assert!(told.contains("--config"), "{told}");
        lab.says(&["ipam", "show", "-c", "c.cfg", "--allow-version-mismatch"]);
    });
}
