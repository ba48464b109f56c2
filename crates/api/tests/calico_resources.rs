//! Objects of any kind as commands handle them: read from where they lie, shown, and written back.

use russet_api::calico::{Born, Group, Key, Kind, Layout, Resource, StoreKey, Stored, export};
use russet_core::model::calico::Node;
use serde_json::{Value, json};

#[test]
fn what_is_read_from_the_store_is_written_back_byte_for_byte() {
    let mut kinds = Vec::new();
    for (key, value) in rows() {
        let StoreKey::Known(known) = Key::read(key.as_bytes()) else { panic!("{key}") };
        let resource = Resource::at_key(&known, value.as_bytes()).unwrap().unwrap();
        assert_eq!(resource.key().unwrap().to_string(), key);
        kinds.push(resource.kind());
        if resource.kind().is_written_by_hand() {
            let meta = resource.meta().unwrap();
            let born = Born {
                uid: meta.uid.clone().unwrap_or_default(),
                created: meta.created.clone().unwrap_or_default(),
            };
            assert_eq!(resource.stored(&born, Some(value.as_bytes())).unwrap(), value, "{key}");
        }
        // What is shown can be read again, in both groups where the group has it.
        let shown = resource.object().clone();
        assert_eq!(Resource::read(resource.kind(), shown).unwrap().object(), resource.object());
    }
    kinds.sort_unstable();
    kinds.dedup();
    let mut all = Kind::HANDLED;
    all.sort_unstable();
    assert_eq!(kinds, all);
}

#[test]
fn what_is_new_is_completed_as_calico_does_it() {
    let object = json!({
        "apiVersion": "crd.projectcalico.org/v1", "kind": "IPPool",
        "metadata": {"name": "web", "resourceVersion": "7", "selfLink": "/x", "labels": {"a": "1"}},
        "spec": {"cidr": "10.9.0.0/16", "zeal": 7},
    });
    let pool = Resource::read(Kind::IpPool, object).unwrap();
    assert_eq!(pool.version(), Some("7"));
    let text = pool.stored(&born(), None).unwrap();
    assert_eq!(
        text,
        r#"{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{"name":"web","uid":"u","creationTimestamp":"t","labels":{"a":"1"}},"#
            .to_owned()
            + r#""spec":{"cidr":"10.9.0.0/16","vxlanMode":"Never","ipipMode":"Never","blockSize":26,"nodeSelector":"all()","#
            + r#""allowedUses":["Workload","Tunnel"],"assignmentMode":"Automatic","zeal":7}}"#
    );
}

#[test]
fn a_status_that_is_not_said_anew_stays() {
    let node = |extra: Value| {
        let mut object = json!({"apiVersion": "projectcalico.org/v3", "kind": "Node", "metadata": {"name": "n"}, "spec": {}});
        if !extra.is_null() {
            object["status"] = extra;
        }
        Resource::read(Kind::Node, object).unwrap()
    };
    let there = br#"{"status":{"podCIDRs":["10.0.0.0/24"]}}"#;
    assert!(node(Value::Null).stored(&born(), Some(there)).unwrap().contains("10.0.0.0/24"));
    let said = node(json!({"podCIDRs": ["10.1.0.0/24"]})).stored(&born(), Some(there)).unwrap();
    assert!(said.contains("10.1.0.0/24") && !said.contains("10.0.0.0/24"), "{said}");
}

#[test]
fn what_others_say_of_an_object_outlives_a_write_over_it() {
    let there = concat!(
        r#"{"kind":"Node","apiVersion":"projectcalico.org/v3","metadata":{"name":"n","uid":"u","generation":3,"creationTimestamp":"t","#,
        r#""labels":{"a":"1"},"annotations":{"b":"2"},"ownerReferences":[{"name":"n","uid":"o","apiVersion":"v1","kind":"Node"}],"#,
        r#""finalizers":["x.io/guard"],"whim":{"deep":[1]}},"spec":{},"status":{}}"#
    );
    let id = "/calico/resources/v3/projectcalico.org/nodes/n";
    let StoreKey::Known(key) = Key::read(id.as_bytes()) else { panic!("{id}") };
    let read = Resource::at_key(&key, there.as_bytes()).unwrap().unwrap();
    assert_eq!(read.stored(&born(), Some(there.as_bytes())).unwrap(), there);
    // The agent writes fields of its own.
    let mut node = Stored::<Node>::read(there.as_bytes(), Layout::Resource).unwrap();
    node.set(node.value().clone());
    assert_eq!(node.text(), there);

    // An operator's document says nothing of all that.
    let document = |metadata: Value| {
        let object = json!({
            "apiVersion": "projectcalico.org/v3", "kind": "Node", "metadata": metadata, "spec": {},
        });
        let resource = Resource::read(Kind::Node, object).unwrap();
        let text = resource.stored(&born(), Some(there.as_bytes())).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()["metadata"].clone()
    };
    let mut all = serde_json::from_str::<Value>(there).unwrap()["metadata"].clone();
    for whole in ["labels", "annotations"] {
        all.as_object_mut().unwrap().remove(whole);
    }
    assert_eq!(document(json!({"name": "n"})), all);
    // What it does say holds.
    all["finalizers"] = json!([]);
    assert_eq!(document(json!({"name": "n", "finalizers": []})), all);
    // One that was read, and is written back without something, means it.
    let read = json!({"name": "n", "resourceVersion": "7", "generation": 3});
    let gone = json!({"name": "n", "uid": "u", "creationTimestamp": "t", "generation": 3});
    assert_eq!(document(read), gone);
}

#[test]
fn the_configuration_of_ipam_keeps_what_nobody_knows_in_it() {
    let object = json!({
        "apiVersion": Group::V3.api_version(), "kind": "IPAMConfiguration", "metadata": {"name": "default"},
        "spec": {"strictAffinity": true, "autoAllocateBlocks": true, "maxBlocksPerHost": 4},
    });
    let config = Resource::read(Kind::IpamConfiguration, object).unwrap();
    let fresh = r#"{"strict_affinity":true,"auto_allocate_blocks":true,"maxBlocksPerHost":4}"#;
    assert_eq!(config.stored(&born(), None).unwrap(), fresh);
    let there = br#"{"auto_allocate_blocks":true,"kubeVirtVMAddressPersistence":"Enabled"}"#;
    let kept = config.stored(&born(), Some(there)).unwrap();
    assert!(
        kept.contains("kubeVirtVMAddressPersistence") && kept.contains("strict_affinity"),
        "{kept}"
    );
}

#[test]
fn an_export_has_nothing_of_its_store() {
    let mut object = json!({"metadata": {"name": "n", "uid": "u", "creationTimestamp": "t", "resourceVersion": "1", "labels": {"uid": "x"}}});
    export(&mut object);
    assert_eq!(object, json!({"metadata": {"name": "n", "labels": {"uid": "x"}}}));
}

#[test]
fn kinds_that_are_not_handled_yet_say_so() {
    let err = Resource::read(Kind::NetworkPolicy, json!({})).unwrap_err();
    assert!(
        err.to_string().contains("NetworkPolicy: commands do not handle this kind yet"),
        "{err}"
    );
}

fn born() -> Born {
    Born { uid: "u".into(), created: "t".into() }
}

/// Key and value by turns.
fn rows() -> Vec<(&'static str, &'static str)> {
    let lines: Vec<_> = include_str!("calico/etcd.txt").lines().collect();
    lines.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect()
}
