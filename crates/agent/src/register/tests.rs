//! The node's objects in a real store: made, kept, refused.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use russet_core::model::calico::{NodeReport, OnSubnet};
use russet_store::{
    ClientConfig, ClientSettings,
    server::{ServerConfig, serve},
};
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};

use super::*;
use crate::{node::Found, resources};

/// Calico's own, of a cluster with etcd.
const THEIRS: &str = r#"{"kind":"Node","apiVersion":"projectcalico.org/v3","metadata":{"name":"n1","uid":"5c0c52a1","creationTimestamp":"2026-03-01T08:00:00Z","labels":{"rack":"7"}},"spec":{"bgp":{"asNumber":64513,"ipv4Address":"192.168.77.9/24","ipv4IPIPTunnelAddr":"10.244.3.64","routeReflectorClusterID":"224.0.0.1"},"ipv4VXLANTunnelAddr":"10.244.3.65","vxlanTunnelMACAddr":"66:0a:1b:2c:3d:4e","orchRefs":[{"nodeName":"n1","orchestrator":"k8s"}],"addresses":[{"address":"192.168.77.9/24","type":"CalicoNodeIP"},{"address":"203.0.113.9","type":"ExternalIP"}],"somebodys":{"own":1}},"status":{"podCIDRs":["10.244.0.0/24"]}}"#;

const POOL: &str = r#"{"kind":"IPPool","apiVersion":"projectcalico.org/v3","metadata":{"name":"a"},"spec":{"cidr":"10.244.0.0/16"}}"#;

#[tokio::test]
async fn a_node_registers_itself_and_its_cluster() {
    let store = Store::start().await;
    let (node, _inputs) = store.keep("n1", "192.168.77.1/24");
    assert_eq!(node.reached().await, Registered::Done);
    let text = store.text("nodes/n1").await;
    assert!(text.contains(r#""bgp":{"ipv4Address":"192.168.77.1/24"}"#), "{text}");
    assert!(
        text.contains(r#""addresses":[{"address":"192.168.77.1/24","type":"CalicoNodeIP"}]"#),
        "{text}"
    );
    assert!(text.contains(r#""kind":"Node","apiVersion":"projectcalico.org/v3""#), "{text}");
    let cluster = store.text("clusterinformations/default").await;
    assert!(
        cluster.contains(r#""datastoreReady":true"#) && cluster.contains("clusterGUID"),
        "{cluster}"
    );

    // What goes comes back.
    let key = resource("nodes/n1");
    let at = store.client.get(&key).await.unwrap().unwrap().modified;
    store.client.delete_if(&key, at).await.unwrap();
    store.eventually("nodes/n1", |text| text.contains("192.168.77.1/24")).await;
}

#[tokio::test]
async fn an_object_of_calico_s_keeps_what_is_not_ours() {
    let store = Store::start().await;
    store.put("nodes/n1", THEIRS).await;
    let ready = r#"{"kind":"ClusterInformation","apiVersion":"projectcalico.org/v3","metadata":{"name":"default","creationTimestamp":null},"spec":{"clusterGUID":"ab","clusterType":"kubeadm","datastoreReady":false}}"#;
    store.put("clusterinformations/default", ready).await;
    let (node, inputs) = store.keep("n1", "192.168.77.1/24");
    assert_eq!(node.reached().await, Registered::Done);
    let wanted = THEIRS.replace("192.168.77.9", "192.168.77.1");
    assert_eq!(store.text("nodes/n1").await, wanted, "tunnels that nobody speaks of yet stay");
    assert_eq!(store.text("clusterinformations/default").await, ready);

    let vxlan = VxlanEnd { addr: Some([10, 244, 3, 70].into()), mac: None };
    inputs.ends.send_replace(Ends {
        ipip: Said::None,
        vxlan_v4: Said::This(vxlan),
        ..Ends::default()
    });
    store
        .eventually("nodes/n1", |text| text.contains(r#""ipv4VXLANTunnelAddr":"10.244.3.70""#))
        .await;
    let text = store.text("nodes/n1").await;
    assert!(!text.contains("IPIPTunnel") && !text.contains("MACAddr"), "{text}");
    assert!(text.contains(r#""somebodys":{"own":1}"#), "{text}");
}

#[tokio::test]
async fn an_address_that_another_node_has_is_not_written() {
    let store = Store::start().await;
    let other = THEIRS.replace("\"n1\"", "\"n9\"");
    store.put("nodes/n9", &other).await;
    let (node, inputs) = store.keep("n1", "192.168.77.9/24");
    let taken = Registered::Taken { addr: [192, 168, 77, 9].into(), by: "n9".parse().unwrap() };
    assert_eq!(node.reached().await, taken);
    assert!(store.client.get(&resource("nodes/n1")).await.unwrap().is_none());
    inputs.addresses.send_replace(Some(own("192.168.77.10/24")));
    store.eventually("nodes/n1", |text| text.contains("192.168.77.10/24")).await;
}

#[tokio::test]
async fn an_address_is_written_as_soon_as_no_other_node_has_it() {
    let store = Store::start().await;
    store.put("nodes/n9", &THEIRS.replace("\"n1\"", "\"n9\"")).await;
    let (node, _inputs) = store.keep("n1", "192.168.77.9/24");
    assert!(matches!(node.reached().await, Registered::Taken { .. }));
    store.put("nodes/n9", &THEIRS.replace("\"n1\"", "\"n9\"").replace("77.9/", "77.8/")).await;
    store.eventually("nodes/n1", |text| text.contains("192.168.77.9/24")).await;
    // Who comes later with the same address does not oust it.
    store.put("nodes/n9", &THEIRS.replace("\"n1\"", "\"n9\"")).await;
    let key = resource("nodes/n1");
    let at = store.client.get(&key).await.unwrap().unwrap().modified;
    store.client.delete_if(&key, at).await.unwrap();
    store.eventually("nodes/n1", |text| text.contains("192.168.77.9/24")).await;
}

#[tokio::test]
async fn what_was_found_in_a_store_that_was_not_believed_since_is_looked_at_again() {
    let store = Store::start().await;
    let (node, inputs) = store.keep("n1", "192.168.77.1/24");
    assert_eq!(node.reached().await, Registered::Done);
    // Another store came in its place: it has no name, and the address in it is another node's.
    inputs.believed.send_replace(false);
    let key = resource("clusterinformations/default");
    let at = store.client.get(&key).await.unwrap().unwrap().modified;
    store.client.delete_if(&key, at).await.unwrap();
    store.put("nodes/n9", &THEIRS.replace("\"n1\"", "\"n9\"").replace("77.9/", "77.1/")).await;
    inputs
        .others
        .clone()
        .wait_for(|others| others.taken(&own("192.168.77.1/24")).is_some())
        .await
        .unwrap();
    inputs.believed.send_replace(true);
    store.eventually("clusterinformations/default", |text| text.contains("clusterGUID")).await;
    let taken = Registered::Taken { addr: [192, 168, 77, 1].into(), by: "n9".parse().unwrap() };
    let mut state = node.state.clone();
    let told = tokio::time::timeout(Duration::from_secs(10), state.wait_for(|now| *now == taken));
    told.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_node_that_a_store_has_lost_is_put_back_as_it_was_and_its_cluster_is_not_named() {
    let store = Store::start().await;
    let (node, inputs) = store.keep_in_doubt("n1", "192.168.77.1/24", Some(THEIRS));
    inputs.put_back.send_replace(true);
    assert_eq!(node.reached().await, Registered::Done);
    let wanted = THEIRS.replace("192.168.77.9", "192.168.77.1");
    assert_eq!(store.text("nodes/n1").await, wanted, "as it was, and where it is now");
    assert_eq!(store.text("clusterinformations/default").await, "");

    // It is not kept before the store is believed: only put back.
    store.put("nodes/n1", THEIRS).await;
    inputs.ends.send_replace(Ends { ipip: Said::None, ..Ends::default() });
    sleep(LULL * 2).await;
    assert_eq!(store.text("nodes/n1").await, THEIRS);
    inputs.believed.send_replace(true);
    store.eventually("nodes/n1", |text| text.contains("192.168.77.1/24")).await;
    store.eventually("clusterinformations/default", |text| text.contains("clusterGUID")).await;
}

#[tokio::test]
async fn a_node_is_not_put_back_unasked_nor_with_another_s_address_nor_in_another_cluster() {
    let store = Store::start().await;
    let (_node, inputs) = store.keep_in_doubt("n1", "192.168.77.1/24", None);
    sleep(LULL * 2).await;
    assert_eq!(store.text("nodes/n1").await, "", "its blocks have no pool yet");
    store.put("nodes/n9", &THEIRS.replace("\"n1\"", "\"n9\"").replace("77.9/", "77.1/")).await;
    let own_addr = own("192.168.77.1/24");
    let mut others = inputs.others.clone();
    others.wait_for(|others| others.taken(&own_addr).is_some()).await.unwrap();
    inputs.put_back.send_replace(true);
    sleep(LULL * 2).await;
    assert_eq!(store.text("nodes/n1").await, "", "another node has its address");
    let other = r#"{"kind":"ClusterInformation","apiVersion":"projectcalico.org/v3","metadata":{"name":"default","creationTimestamp":null},"spec":{"clusterGUID":"other"}}"#;
    store.put("clusterinformations/default", other).await;
    others.wait_for(|others| others.lost().is_none()).await.unwrap();
    inputs.addresses.send_replace(Some(own("192.168.77.2/24")));
    sleep(LULL * 2).await;
    assert_eq!(store.text("nodes/n1").await, "", "the store is another cluster's");
}

#[tokio::test]
async fn a_store_that_comes_back_is_not_written_to_before_it_is_judged() {
    let store = Store::start().await;
    let (node, inputs) = store.keep("n1", "192.168.77.1/24");
    assert_eq!(node.reached().await, Registered::Done);
    inputs.reach.send_replace(false);
    // It has lost the object, and the node has other addresses to write.
    let key = resource("nodes/n1");
    let at = store.client.get(&key).await.unwrap().unwrap().modified;
    store.client.delete_if(&key, at).await.unwrap();
    inputs.addresses.send_replace(Some(own("192.168.77.2/24")));
    sleep(LULL * 3).await;
    assert!(store.client.get(&key).await.unwrap().is_none());
    inputs.reach.send_replace(true);
    store.eventually("nodes/n1", |text| text.contains("192.168.77.2/24")).await;
}

#[tokio::test]
async fn requests_for_this_node_s_status_are_answered_again_and_again() {
    let store = Store::start().await;
    let request = |name: &str, node: &str, period: u32| {
        format!(
            r#"{{"kind":"CalicoNodeStatus","apiVersion":"projectcalico.org/v3","metadata":{{"name":"{name}","creationTimestamp":null}},"spec":{{"node":"{node}","classes":["Agent","BGP","Routes"],"updatePeriodSeconds":{period}}}}}"#
        )
    };
    store.put("caliconodestatuses/other", &request("other", "n2", 1)).await;
    store.put("caliconodestatuses/once", &request("once", "n1", 0)).await;
    let report = NodeReport { ready: true, version: "1".into(), ..NodeReport::default() };
    let (say, reports) = watch::channel(report);
    let (asks, mut asked) = mpsc::channel::<AskReport>(1);
    let mut tasks = JoinSet::new();
    tasks.spawn(answer(store.client.clone(), "n1".parse().unwrap(), asks, believed()));
    let times = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&times);
    tasks.spawn(async move {
        while let Some(ask) = asked.recv().await {
            counted.fetch_add(1, Ordering::SeqCst);
            ask.send(reports.borrow().clone()).unwrap();
        }
    });
    store.eventually("caliconodestatuses/once", |text| text.contains("lastUpdated")).await;
    sleep(Duration::from_millis(1_500)).await;
    assert_eq!(times.load(Ordering::SeqCst), 1, "nobody is asked while nothing is due");
    store.put("caliconodestatuses/mine", &request("mine", "n1", 1)).await;
    for name in ["mine", "once"] {
        let answered =
            |text: &str| text.contains(r#""state":"Ready""#) && text.contains("lastUpdated");
        store.eventually(&format!("caliconodestatuses/{name}"), answered).await;
    }
    say.send_replace(NodeReport { router_id: "192.168.77.1".into(), ..NodeReport::default() });
    store.eventually("caliconodestatuses/mine", |text| text.contains("192.168.77.1")).await;
    let version = |kv: Option<KeyValue>| kv.unwrap().version;
    let of = |name: &str| resource(&format!("caliconodestatuses/{name}"));
    assert_eq!(version(store.client.get(&of("once")).await.unwrap()), 2, "written, answered once");
    assert_eq!(version(store.client.get(&of("other")).await.unwrap()), 1, "another node's");
}

/// A store in this process, and whoever speaks to it.
struct Store {
    client: EtcdClient,
}

/// A node that is being kept; it ends when dropped.
struct Kept {
    state: watch::Receiver<Registered>,
    _tasks: JoinSet<()>,
}

struct Say {
    addresses: watch::Sender<Option<OwnAddresses>>,
    ends: watch::Sender<Ends>,
    others: watch::Receiver<Others>,
    believed: watch::Sender<bool>,
    reach: watch::Sender<bool>,
    put_back: watch::Sender<bool>,
}

impl Store {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(serve(ServerConfig::default(), listener, std::future::pending()));
        let settings = ClientSettings { endpoints: vec![endpoint], ..ClientSettings::default() };
        let store = Self { client: EtcdClient::new(&ClientConfig::read(&settings).unwrap()) };
        // Without a pool nobody believes it.
        store.put("ippools/a", POOL).await;
        store
    }

    fn keep(&self, name: &str, addr: &str) -> (Kept, Say) {
        self.keep_after(resources::Seen::default(), true, Others::default(), name, addr)
    }

    /// One that saw this store when it had a name.
    fn keep_in_doubt(&self, name: &str, addr: &str, last: Option<&str>) -> (Kept, Say) {
        let cluster_id = Some("ours".into());
        let seen = resources::Seen { cluster_id, revision: 1, configured: true };
        let last = Others::recalled(last.map(|text| text.as_bytes().into()));
        self.keep_after(seen, false, last, name, addr)
    }

    fn keep_after(
        &self,
        seen: resources::Seen,
        is_believed: bool,
        last: Others,
        name: &str,
        addr: &str,
    ) -> (Kept, Say) {
        let (addresses, hear_addresses) = watch::channel(None);
        let (ends, hear_ends) = watch::channel(Ends::default());
        let (believed, hear_believed) = watch::channel(is_believed);
        let (put_back, hear_put_back) = watch::channel(false);
        let (reach, reachable) = watch::channel(true);
        let (told, state) = watch::channel(Registered::default());
        let name: Name = name.parse().unwrap();
        let (others, mut tasks) = self.others(&name, seen, last);
        let inputs = Inputs {
            addresses: hear_addresses,
            ends: hear_ends,
            others: others.clone(),
            believed: hear_believed,
            reachable,
            put_back: hear_put_back,
        };
        tasks.spawn(keep(self.client.clone(), name, inputs, told));
        addresses.send_replace(Some(own(addr)));
        (Kept { state, _tasks: tasks }, Say { addresses, ends, others, believed, reach, put_back })
    }

    /// What the other nodes have, as it is read of the store.
    fn others(
        &self,
        node: &Name,
        seen: resources::Seen,
        last: Others,
    ) -> (watch::Receiver<Others>, JoinSet<()>) {
        let (tell, mut news) = mpsc::channel(resources::NEWS);
        let (hear, others) = watch::channel(last);
        let (accept, accepted) = mpsc::channel(1);
        let reading =
            resources::serve(self.client.clone(), node.clone(), seen, vec![tell], accepted);
        let mut tasks = JoinSet::new();
        tasks.spawn(reading);
        let node = node.clone();
        tasks.spawn(async move {
            let _accept = accept;
            while let Some(news) = news.recv().await {
                hear.send_if_modified(|others| others.take(&node, &news));
            }
        });
        (others, tasks)
    }

    async fn put(&self, rest: &str, text: &str) {
        self.client.put(&resource(rest), text.as_bytes()).await.unwrap();
    }

    async fn text(&self, rest: &str) -> String {
        let kv = self.client.get(&resource(rest)).await.unwrap();
        kv.map(|kv| String::from_utf8(kv.value).unwrap()).unwrap_or_default()
    }

    async fn eventually(&self, rest: &str, is_so: impl Fn(&str) -> bool) {
        for _ in 0..200 {
            if is_so(&self.text(rest).await) {
                return;
            }
            sleep(Duration::from_millis(50)).await;
        }
        panic!("not within 10 s: {}", self.text(rest).await);
    }
}

impl Kept {
    async fn reached(&self) -> Registered {
        let mut state = self.state.clone();
        let reached = state.wait_for(|state| *state != Registered::Waiting);
        let reached = tokio::time::timeout(Duration::from_secs(10), reached).await;
        reached.unwrap().unwrap().clone()
    }
}

fn resource(rest: &str) -> Vec<u8> {
    format!("{}{rest}", Key::RESOURCES).into_bytes()
}

fn own(addr: &str) -> OwnAddresses {
    let addr: OnSubnet = addr.parse().unwrap();
    OwnAddresses { v4: Some(Found { link: None, addr }), v6: None }
}

/// A store that is believed.
fn believed() -> watch::Receiver<bool> {
    watch::channel(true).1
}
