//! What was taken from the pools: shown, checked, given back, and a pool that is cut up.

use serde_json::Value;

use crate::{Lab, RESOURCES, etcdctl, on_both};

const BLOCK: &str = "/calico/ipam/v2/assignment/ipv4/block/10.9.0.0-30";
const HANDLE: &str = "/calico/ipam/v2/handle/";

/// A pool with one block of four addresses: a pod's, a gone node's, one without a handle, and a free one.
fn cluster(lab: &Lab) {
    lab.apply(
        "apiVersion: projectcalico.org/v3\nkind: List\nitems:\n\
         - {apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {name: web, labels: {a: b}}, spec: {cidr: 10.9.0.0/16, blockSize: 30, natOutgoing: true}}\n\
         - {apiVersion: projectcalico.org/v3, kind: Node, metadata: {name: n}, spec: {}}\n\
         - {apiVersion: projectcalico.org/v3, kind: ClusterInformation, metadata: {name: default}, spec: {clusterGUID: abc}}\n\
         - {apiVersion: projectcalico.org/v3, kind: WorkloadEndpoint, metadata: {name: w, namespace: default}, spec: {orchestrator: k8s, node: n, endpoint: eth0, interfaceName: cali1, ipNetworks: [10.9.0.0/32]}}\n",
    );
    lab.put(BLOCK, r#"{"cidr":"10.9.0.0/30","affinity":"host:n","allocations":[0,1,2,null],"unallocated":[3],"attributes":[{"handle_id":"pod","secondary":{"node":"n","pod":"w","namespace":"default"}},{"handle_id":"gone","secondary":{"node":"m"}},{"secondary":{"node":"n"}}],"sequenceNumber":7,"sequenceNumberForAllocation":{"0":1,"1":2,"2":3},"deleted":false,"zeal":1}"#);
    lab.put(
        "/calico/ipam/v2/host/n/ipv4/block/10.9.0.0-30",
        r#"{"state":"confirmed","deleted":false}"#,
    );
    for handle in ["pod", "gone"] {
        lab.put(&format!("{HANDLE}{handle}"), r#"{"block":{"10.9.0.0/30":1},"deleted":false}"#);
    }
}

fn block(lab: &Lab) -> Value {
    serde_json::from_str(&lab.value(BLOCK)).unwrap()
}

#[test]
fn pools_blocks_and_single_addresses_are_shown() {
    on_both(|lab| {
        cluster(lab);
        let shown = lab.says(&["ipam", "show", "--show-blocks"]);
        for row in [
            "IP Pool   10.9.0.0/16  65536      3 (0%)      65533 (100%)",
            "Block     10.9.0.0/30  4          3 (75%)     1 (25%)",
        ] {
            assert!(shown.contains(row), "{row}\n{shown}");
        }
        let one = lab.says(&["ipam", "show", "--ip=10.9.0.0"]);
        for line in
            ["IP 10.9.0.0 is in use", "Handle: pod", "Used by: workload default/w", "  pod: w"]
        {
            assert!(one.contains(line), "{line}\n{one}");
        }
        assert!(
            lab.says(&["ipam", "show", "--ip", "10.9.0.3"])
                .contains("10.9.0.3 is not assigned; it lies in block")
        );
        assert!(lab.says(&["ipam", "show", "--ip", "192.0.2.1"]).contains("it lies in no pool"));
        let borrowed = lab.says(&["ipam", "show", "--show-borrowed"]);
        assert!(borrowed.contains("10.9.0.1  m               10.9.0.0/30  n"), "{borrowed}");
        assert!(
            lab.says(&["ipam", "show", "--show-configuration"])
                .contains("StrictAffinity      false")
        );
    });
}

#[test]
fn what_calico_left_adds_up_as_far_as_it_does() {
    on_both(|lab| {
        cluster(lab);
        let out = lab.run(&[
            "ipam",
            "check",
            "--show-problem-ips",
            "--show-all-ips",
            "-o",
            "report.json",
        ]);
        assert_eq!(out.status.code(), Some(1));
        let said = String::from_utf8_lossy(&out.stdout);
        for line in [
            "address 10.9.0.2 is taken without a handle",
            "address 10.9.0.1 belongs to node m, which does not exist",
            "10.9.0.0: pod; workload default/w",
            "10.9.0.1: gone; given to node m",
            "2 can be released",
            "Check complete; found 2 problems.",
        ] {
            assert!(said.contains(line), "{line}\n{said}");
        }
        let report = std::fs::read(lab.home.path().join("report.json")).unwrap();
        let report: Value = serde_json::from_slice(&report).unwrap();
        assert_eq!(report["clusterGUID"], "abc");
        assert_eq!(report["allocations"]["10.9.0.0"][0]["inUse"], true);
        assert_eq!(report["allocations"]["10.9.0.1"][0]["sequenceNumber"], 2);
        // What is mended adds up.
        lab.says(&["ipam", "release", "--from-report", "report.json"]);
        assert!(lab.says(&["ipam", "check"]).contains("found 0 problems"));
        let (before, after) =
            (block(lab)["allocations"].clone(), block(lab)["unallocated"].clone());
        assert_eq!(
            (before, after),
            (serde_json::json!([0, null, null, null]), serde_json::json!([3, 1, 2]))
        );
        assert_eq!(block(lab)["zeal"], 1);
        assert_eq!(lab.value(&format!("{HANDLE}gone")), "", "a handle of nothing goes");
        assert!(!lab.value(&format!("{HANDLE}pod")).is_empty());
    });
}

#[test]
fn an_address_that_was_given_anew_since_the_report_stays() {
    on_both(|lab| {
        cluster(lab);
        lab.run(&["ipam", "check", "-o", "report.json"]);
        // The same address, the same handle even, and another allocation.
        let again = lab.value(BLOCK).replace(r#""1":2"#, r#""1":8"#);
        lab.put(BLOCK, &again);
        let told = lab.refuses(&["ipam", "release", "--from-report", "report.json"], "", 1);
        assert!(
            told.contains("10.9.0.1: not released: it was given to another since the report"),
            "{told}"
        );
        assert_eq!(block(lab)["allocations"], serde_json::json!([0, 1, null, null]));
        // A report of another cluster.
        lab.says(&["patch", "clusterinfo", "default", "-p", "{spec: {clusterGUID: other}}"]);
        let told = lab.refuses(&["ipam", "release", "--from-report", "report.json"], "", 1);
        assert!(told.contains("the report is of cluster \"abc\""), "{told}");
        lab.file("bad.json", "{\"allocations\":");
        assert!(
            lab.refuses(&["ipam", "release", "--from-report", "bad.json"], "", 1)
                .contains("read the report bad.json")
        );
    });
}

#[test]
fn an_address_whose_node_is_back_since_the_report_stays() {
    on_both(|lab| {
        cluster(lab);
        lab.run(&["ipam", "check", "-o", "report.json"]);
        lab.apply("apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {name: m}\nspec: {}\n");
        let told = lab.refuses(&["ipam", "release", "--from-report", "report.json"], "", 1);
        assert!(told.contains("10.9.0.1: not released: node m has it again; --force"), "{told}");
        // The one without a handle went.
        assert_eq!(block(lab)["allocations"], serde_json::json!([0, 1, null, null]));
        lab.says(&["ipam", "release", "--force", "--ip", "10.9.0.1"]);
        assert_eq!(block(lab)["allocations"], serde_json::json!([0, null, null, null]));
    });
}

#[test]
fn a_pod_without_a_workload_is_named_and_keeps_its_address() {
    on_both(|lab| {
        cluster(lab);
        lab.says(&["delete", "wep", "w"]);
        let said = lab.run(&["ipam", "check", "--show-all-ips"]).stdout;
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(said.contains("10.9.0.0: pod; given to pod default/w on node n\n"), "{said}");
        let told = lab.refuses(&["ipam", "release", "--ip", "10.9.0.0"], "", 1);
        assert!(
            told.contains("10.9.0.0: not released: pod default/w on node n has it; --force"),
            "{told}"
        );
    });
}

#[test]
fn an_address_in_use_is_only_released_by_force() {
    on_both(|lab| {
        cluster(lab);
        let told = lab.refuses(
            &["ipam", "release", "--ip", "10.9.0.0", "--ip", "10.9.0.3", "--ip", "192.0.2.1"],
            "",
            1,
        );
        for why in [
            "workload default/w uses it",
            "10.9.0.3: not released: nobody has it",
            "it lies in no block",
        ] {
            assert!(told.contains(why), "{why}\n{told}");
        }
        lab.says(&["ipam", "release", "--ip", "10.9.0.0", "--force"]);
        assert_eq!(block(lab)["allocations"][0], Value::Null);
        assert_eq!(lab.value(&format!("{HANDLE}pod")), "");
    });
}

#[test]
fn a_pool_is_split_while_it_is_in_use_at_one_revision() {
    on_both(|lab| {
        cluster(lab);
        let told = lab.refuses(&["ipam", "split", "--cidr", "10.9.0.0/16", "3"], "", 1);
        assert!(told.contains("use 4"), "{told}");
        lab.refuses(&["ipam", "split", "--cidr", "10.8.0.0/16", "2"], "", 1);
        let before = block(lab);
        lab.says(&["ipam", "split", "--cidr=10.9.0.0/16", "4"]);
        assert_eq!(lab.says(&["get", "ipp", "-o", "name"]).lines().count(), 4);
        let mut revisions = std::collections::BTreeSet::new();
        for (i, cidr) in
            ["10.9.0.0/18", "10.9.64.0/18", "10.9.128.0/18", "10.9.192.0/18"].iter().enumerate()
        {
            let key = format!("{RESOURCES}ippools/split-web-{i}");
            let pool: Value = serde_json::from_str(&lab.value(&key)).unwrap();
            assert_eq!(pool["spec"]["cidr"], *cidr);
            assert_eq!(
                (&pool["spec"]["natOutgoing"], &pool["metadata"]["labels"]["a"]),
                (&Value::Bool(true), &"b".into())
            );
            let fields = etcdctl(&lab.address, &["get", &key, "-w", "json"]);
            let fields: Value = serde_json::from_str(&fields).unwrap();
            revisions.insert(fields["kvs"][0]["mod_revision"].as_u64());
        }
        assert_eq!(revisions.len(), 1, "all at one revision");
        assert_eq!(block(lab), before);
        assert!(lab.says(&["ipam", "show"]).contains("10.9.0.0/18"));
        // A block that was made before pools had small ones.
        lab.put("/calico/ipam/v2/assignment/ipv4/block/10.9.0.0-24", &format!(r#"{{"cidr":"10.9.0.0/24","affinity":null,"allocations":[{}],"unallocated":[],"attributes":[]}}"#, vec!["null"; 256].join(",")));
        let told = lab.refuses(&["ipam", "split", "--name", "split-web-0", "64"], "", 0);
        assert_eq!(told, "");
        let told = lab.refuses(&["ipam", "split", "--name", "split-split-web-0-0", "2"], "", 1);
        assert!(told.contains("block 10.9.0.0/24 would lie in several pools"), "{told}");
    });
}
