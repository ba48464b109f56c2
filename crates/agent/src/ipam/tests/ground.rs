//! What the cluster's objects make of a node's addresses.

use russet_core::addressing::blocks::machine::Refusal;

use super::*;

#[tokio::test]
async fn what_a_reservation_keeps_is_given_to_nobody_while_it_is_there() {
    let shelf = FakeShelf::default();
    node_object(&shelf, "n1");
    pool(&shelf, "a", "10.1.0.0/29", r#","blockSize":29"#);
    object(
        &shelf,
        "ipreservations",
        "IPReservation",
        "r",
        "{}",
        r#"{"reservedCIDRs":["10.1.0.0/30","10.1.0.7"]}"#,
    );
    let mut node = Node::start(&shelf, "n1");
    let mut given = BTreeSet::new();
    for n in 0..3 {
        given.extend(node.give(&format!("net.c{n}"), Wish::default()).await.unwrap());
    }
    let wanted = [4, 5, 6].map(|last| IpAddr::from([10, 1, 0, last]));
    assert_eq!(given, BTreeSet::from(wanted));
    let more = node.give("net.more", Wish::default()).await.unwrap_err();
    assert!(matches!(more, Deny::Refused { refusal: Refusal::Exhausted(_), .. }), "{more}");
    let named = Wish { ips: vec![[10, 1, 0, 1].into()], ..Wish::default() };
    let named = node.give("net.named", named).await.unwrap_err();
    assert!(named.to_string().contains("10.1.0.1 is reserved"), "{named}");
    shelf.delete("/calico/resources/v3/projectcalico.org/ipreservations/r");
    node.pass_on().await;
    node.give("net.more", Wish::default()).await.unwrap();
}

#[tokio::test]
async fn a_pool_gives_to_the_nodes_that_its_selector_chooses_by_their_labels() {
    let shelf = FakeShelf::default();
    let zone = |node: &str, zone: &str| {
        object(&shelf, "nodes", "Node", node, &format!(r#"{{"zone":"{zone}"}}"#), "{}");
    };
    zone("n1", "west");
    zone("n2", "east");
    pool(&shelf, "east", "10.1.0.0/24", r#","nodeSelector":"zone == 'east'""#);
    pool(&shelf, "west", "10.2.0.0/24", r#","nodeSelector":"zone == 'west'""#);
    let mut node = Node::start(&shelf, "n1");
    let given = node.give("net.c1", Wish::default()).await.unwrap();
    assert!(given[0].to_string().starts_with("10.2."), "{given:?}");
    // A label that changes chooses another, and whoever has an address keeps it.
    zone("n1", "east");
    node.pass_on().await;
    let later = node.give("net.c2", Wish::default()).await.unwrap();
    assert!(later[0].to_string().starts_with("10.1."), "{later:?}");
    assert_eq!(held(&shelf)[&given[0]], "net.c1");
    zone("n1", "north");
    node.pass_on().await;
    let none = node.give("net.c3", Wish::default()).await.unwrap_err();
    assert_eq!(none.code(), russet_api::cni::Code::NO_ADDRESS, "{none}");
}

#[tokio::test]
async fn a_node_has_as_many_blocks_as_the_cluster_lets_it_and_none_of_its_own_accord_where_it_may_not()
 {
    let config = "/calico/ipam/v2/config";
    let says = |most: u32, automatic: bool| {
        format!(
            r#"{{"strict_affinity":true,"auto_allocate_blocks":{automatic},"maxBlocksPerHost":{most}}}"#
        )
    };
    let shelf = FakeShelf::default();
    node_object(&shelf, "n1");
    pool(&shelf, "a", "10.1.0.0/24", r#","blockSize":30"#);
    shelf.put(config, &says(2, true));
    let mut node = Node::start(&shelf, "n1");
    for n in 0..8 {
        node.give(&format!("net.c{n}"), Wish::default()).await.unwrap();
    }
    let over = node.give("net.over", Wish::default()).await.unwrap_err();
    assert!(over.to_string().contains("as many blocks as it may (2)"), "{over}");
    shelf.put(config, &says(3, true));
    node.pass_on().await;
    node.give("net.over", Wish::default()).await.unwrap();

    let shelf = cluster();
    shelf.put(config, &says(20, false));
    let mut node = Node::start(&shelf, "n1");
    node.give("net.c1", Wish::default()).await.unwrap_err();
    assert!(shelf.keys("/calico/ipam/v2/assignment/").is_empty());
    shelf.put(config, &says(20, true));
    node.pass_on().await;
    node.give("net.c1", Wish::default()).await.unwrap();
}

fn object(shelf: &FakeShelf, plural: &str, kind: &str, name: &str, labels: &str, spec: &str) {
    let text = format!(
        r#"{{"kind":"{kind}","apiVersion":"projectcalico.org/v3","metadata":{{"name":"{name}","labels":{labels}}},"spec":{spec}}}"#
    );
    shelf.put(&format!("/calico/resources/v3/projectcalico.org/{plural}/{name}"), &text);
}
