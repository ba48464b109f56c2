//! Addresses out of blocks on a real etcd and on our own store: nodes that contend, die and come back, and a store
//! that goes away.

#[path = "ipam/node.rs"]
mod node;
#[path = "ipam/store.rs"]
mod store;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use node::{Node, Owners};
use russet_agent::ipam::{What, Wish};
use russet_api::{
    calico::{Layout, Stored},
    cni::Code,
};
use russet_core::model::calico::IpamBlock;
use russet_store::EtcdClient;
use store::{Etcd, Ours, eventually};

/// A small pool, so that nodes meet, borrow and run out.
const POOL: &str = r#""cidr":"10.1.0.0/25","blockSize":28"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_that_contend_and_die_give_no_address_twice_and_lose_none() {
    let etcd = Etcd::start().await;
    contend(&etcd.client()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_on_our_own_store() {
    let ours = Ours::start();
    contend(&ours.client()).await;
}

async fn contend(client: &EtcdClient) {
    prepare(client, POOL, &["n0", "n1", "n2"]).await;
    let owners = Owners::default();
    let mut nodes = Vec::new();
    for n in 0..3 {
        let node = Node::new(client.clone(), &format!("n{n}"), owners.clone());
        nodes.push(tokio::spawn(node.churn(u64::from(n + 1_u32), Duration::from_secs(8))));
    }
    let mut alive = Vec::new();
    let (mut given, mut kills) = (0, 0);
    for node in nodes {
        let node = node.await.unwrap();
        given += node.given;
        kills += node.kills;
        alive.push(node);
    }
    assert!(given > 100 && kills > 3, "{given} given, {kills} kills: it tested nothing");
    // What crashes have left is freed, and what is in use is not.
    let what = "held is what is used";
    eventually(what, Duration::from_secs(40), || async {
        let (held, used) = (held(client).await, owners.all());
        for (addr, handle) in &used {
            assert_eq!(held.get(addr), Some(handle), "{addr} was taken from {handle}");
        }
        held == used
    })
    .await;
    for node in &mut alive {
        node.free_all().await;
    }
    eventually("nothing is held", Duration::from_secs(20), || async {
        held(client).await.is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_etcd_down_an_add_is_refused_soon_and_a_release_is_done_when_it_is_back() {
    let mut etcd = Etcd::start().await;
    let client = etcd.client();
    prepare(&client, r#""cidr":"10.1.0.0/16""#, &["n0"]).await;
    let mut node = Node::new(client.clone(), "n0", Owners::default());
    node.start();
    let kept = node.give("net.kept").await.unwrap();
    node.give("net.gone").await.unwrap();
    etcd.kill();
    // Whatever is asked, now or when the break has been noticed.
    for n in 0..3 {
        let begun = Instant::now();
        let denied = node.give(&format!("net.new{n}")).await.unwrap_err();
        assert_eq!(denied.code(), Code::TRY_AGAIN, "{denied}");
        assert!(begun.elapsed() < Duration::from_secs(11), "{:?}", begun.elapsed());
    }
    let begun = Instant::now();
    node.give("net.late").await.unwrap_err();
    assert!(begun.elapsed() < Duration::from_secs(4), "the break is known: {:?}", begun.elapsed());
    let ticket = node.ask_free("net.gone");
    etcd.start_again();
    assert!(matches!(node.answer(ticket).await, What::Freed));
    // The same container gets the same address, and another one an address again.
    assert_eq!(node.give("net.kept").await.unwrap(), kept);
    eventually("addresses are given again", Duration::from_secs(20), || async { true }).await;
    node.give("net.more").await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_gone_leaves_nothing_behind() {
    let etcd = Etcd::start().await;
    let client = etcd.client();
    prepare(&client, POOL, &["n0", "n1"]).await;
    let mut gone = Node::new(client.clone(), "n1", Owners::default());
    gone.start();
    gone.give("net.pod").await.unwrap();
    drop(gone);
    let mut node = Node::new(client.clone(), "n0", Owners::default());
    node.start();
    let kept = node.give("net.kept").await.unwrap();
    let object = "/calico/resources/v3/projectcalico.org/nodes/n1";
    let found = client.get(object.as_bytes()).await.unwrap().unwrap();
    client.delete_if(object.as_bytes(), found.modified).await.unwrap();
    eventually("its addresses are freed", Duration::from_secs(40), || async {
        held(&client).await.len() == 1
    })
    .await;
    assert!(held(&client).await.contains_key(&kept[0]));
    eventually("its claims are gone", Duration::from_secs(40), || async {
        client.range_prefix(b"/calico/ipam/v2/host/n1/", None).await.unwrap().entries.is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_pods_at_once_get_their_addresses_together() {
    let etcd = Etcd::start().await;
    let client = etcd.client();
    prepare(&client, r#""cidr":"10.1.0.0/16""#, &["n0"]).await;
    let mut node = Node::new(client.clone(), "n0", Owners::default());
    node.start();
    node.give("net.first").await.unwrap();
    let tickets: Vec<_> =
        (0..100).map(|n| node.ask_give(&format!("net.c{n}"), Wish::default())).collect();
    let mut all = BTreeSet::new();
    for ticket in tickets {
        let What::Given(given) = node.answer(ticket).await else { panic!("refused") };
        all.extend(given);
    }
    assert_eq!(all.len(), 100);
}

/// A pool and the nodes' objects.
async fn prepare(client: &EtcdClient, pool: &str, nodes: &[&str]) {
    let object = |kind: &str, plural: &str, name: &str, spec: &str| {
        let text = format!(
            r#"{{"kind":"{kind}","apiVersion":"projectcalico.org/v3","metadata":{{"name":"{name}"}},"spec":{{{spec}}}}}"#
        );
        (format!("/calico/resources/v3/projectcalico.org/{plural}/{name}"), text)
    };
    let nodes = nodes.iter().map(|name| object("Node", "nodes", name, ""));
    for (key, text) in nodes.chain([object("IPPool", "ippools", "a", pool)]) {
        client.put(key.as_bytes(), text.as_bytes()).await.unwrap();
    }
}

/// Every address that is somebody's, as the store has it.
async fn held(client: &EtcdClient) -> BTreeMap<IpAddr, String> {
    let listing = client.range_prefix(b"/calico/ipam/v2/assignment/", None).await.unwrap();
    let mut all = BTreeMap::new();
    for kv in listing.entries {
        let stored = Stored::<IpamBlock>::read(&kv.value, Layout::Bare).unwrap();
        for (given, by) in stored.value().held() {
            let other = all.insert(given.addr, by.unwrap().to_string());
            assert!(other.is_none(), "{} is in two blocks", given.addr);
        }
    }
    all
}
