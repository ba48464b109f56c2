use super::*;
use crate::resources::calicoctl::{Place, Said};

const HEAD: &str = "apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nmetadata:\n";

fn said(text: &str) -> anyhow::Result<Said> {
    let source = Source { name: "c.cfg".into(), octets: text.into() };
    Said::of(Some(source), |name| Some(format!("http://{name}:1")))
}

/// What is told of a file whose form is refused.
fn told(text: &str) -> String {
    let err = said(text).err().unwrap_or_else(|| panic!("taken: {text}"));
    assert!(err.is::<Refused>(), "{err:#}");
    format!("{err:#}")
}

/// What is told of a file that is well formed and has no store that can be asked.
fn unusable(spec: &str) -> String {
    match said(&format!("{HEAD}{spec}")).unwrap().place {
        Place::Unusable(err) if err.is::<Refused>() => format!("{err:#}"),
        _ => panic!("{spec}: it can be used"),
    }
}

#[test]
fn a_file_says_all_and_no_variable_fills_what_it_leaves_out() {
    let yaml = format!(
        "{HEAD}spec:\n  datastoreType: 'etcdv3'\n  etcdEndpoints: \"https://a:1, https://b:2\"\n  etcdUsername: root\n  etcdPassword: p\n  etcdKeyFile: /k\n  etcdCertFile:\n  etcdCACertFile: /ca\n  k8sClientQPS: 7\n"
    );
    let said_ = said(&yaml).unwrap();
    assert!(matches!(said_.place, Place::At(all) if all == ["https://a:1", "https://b:2"]));
    assert_eq!((said_.username.as_deref(), said_.password.as_deref()), (Some("root"), Some("p")));
    assert_eq!((said_.key_file.as_deref(), said_.ca_file.as_deref()), (Some("/k"), Some("/ca")));
    assert_eq!(said_.cert_file, None);
    // Without a type it is one of etcd when endpoints are said; JSON is YAML.
    let json = r#"{"apiVersion":"projectcalico.org/v3","kind":"CalicoAPIConfig","spec":{"etcdEndpoints":"http://a:1"}}"#;
    assert!(matches!(said(json).unwrap().place, Place::At(all) if all == ["http://a:1"]));
}

#[test]
fn what_is_malformed_is_told_with_line_and_column() {
    for (text, wanted) in [
        ("", "c.cfg:1:1: a CalicoAPIConfig is wanted"),
        ("just a text", "c.cfg:1:1: a CalicoAPIConfig is wanted"),
        ("- kind: CalicoAPIConfig\n", "c.cfg:1:1: a CalicoAPIConfig is wanted"),
        (
            "kind: IPPool\napiVersion: projectcalico.org/v3\nspec: {cidr: 10.0.0.0/8}\n",
            "c.cfg:1:7: kind: CalicoAPIConfig is wanted, and it says \"IPPool\"\n    1 | kind: IPPool\n      |       ^^^^^^\n1 fault; no store was asked",
        ),
        ("kind: CalicoAPIConfig\n", "c.cfg:1:1: apiVersion: projectcalico.org/v3 is wanted"),
        ("apiVersion: v1\nkind: calicoApiConfig\n", "2 faults; no store was asked"),
        ("apiVersion: projectcalico.org/v3\nspec: {\n", "unclosed"),
    ] {
        let told = told(text);
        assert!(told.contains(wanted), "{wanted} is not in\n{told}");
    }
    for (tail, wanted) in [
        ("spec:\n\tdatastoreType: etcdv3\n", "c.cfg:5:2: tabs"),
        ("spec: etcdv3\n", "c.cfg:4:7: spec: an object is wanted"),
        ("spec: {etcdEndpoint: 'http://a:1'}\n", "c.cfg:4:8: unknown field `spec.etcdEndpoint`"),
        ("specs: {}\n", "c.cfg:4:1: unknown field `specs`"),
        ("spec: {etcdEndpoints: [a, b]}\n", "c.cfg:4:23: spec.etcdEndpoints: a text is wanted"),
        ("spec: {etcdUsername: 7}\n", "c.cfg:4:22: spec.etcdUsername: a text is wanted"),
        ("spec: {etcdCACert: x}\n", "name that as etcdCACertFile"),
        ("---\nkind: CalicoAPIConfig\n", "c.cfg:5:1: one document is wanted"),
        ("spec: {etcdUsername: a, etcdUsername: b}\n", "is there already"),
    ] {
        let told = told(&format!("{HEAD}{tail}"));
        assert!(told.contains(wanted), "{wanted} is not in\n{told}");
    }
}

#[test]
fn a_store_that_cannot_be_asked_is_told_with_line_and_column() {
    for (spec, wanted) in [
        (
            "spec:\n  datastoreType: kubernetes\n  kubeconfig: /k\n",
            "c.cfg:5:18: spec.datastoreType: kubernetes: Calico's objects in Kubernetes' API are not read yet",
        ),
        (
            "spec: {datastoreType: etcdv2, etcdEndpoints: 'http://a:1'}\n",
            "c.cfg:4:23: spec.datastoreType: \"etcdv2\" is no type of datastore",
        ),
        ("spec: {etcdDiscoverySrv: a.example}\n", "c.cfg:4:26: spec.etcdDiscoverySrv: "),
        ("spec:\n  datastoreType: etcdv3\n", "c.cfg:4:1: spec.etcdEndpoints: it is missing"),
        ("spec:\n", "c.cfg:4:5: spec.etcdEndpoints: it is missing"),
    ] {
        let told = unusable(spec);
        assert!(told.contains(wanted), "{wanted} is not in\n{told}");
        assert!(told.contains(" | spec:") || told.contains(" |   datastoreType"), "{told}");
    }
}

#[test]
fn no_line_is_shown_of_a_file_with_a_secret() {
    for spec in [
        "spec: {etcdPassword: hunter2, etcdUsernam: root}\n",
        "spec: {etcdPasword: hunter2}\n",
        "spec:\n  etcdPassword: 2\n  etcdPassword: hunter2\n",
        "spec:\n  etcdKey: |\n    -----BEGIN PRIVATE KEY-----\n   hunter2\n",
        "spec: {k8sAPIToken: hunter2, etcdPass",
    ] {
        let told = told(&format!("{HEAD}{spec}"));
        assert!(told.contains("c.cfg:") && !told.contains("hunter2"), "{told}");
    }
    let told = unusable("spec: {datastoreType: hunter3, etcdPassword: hunter2}\n");
    assert!(!told.contains("hunter2"), "{told}");
}
