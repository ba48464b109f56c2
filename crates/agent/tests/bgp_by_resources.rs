//! Two speakers by resources as parts of their nodes, in one process: what is here at one is learned by the other.
//!
//! They have addresses of the loopback that no other run of this test has.

use std::{net::IpAddr, path::Path, sync::Arc, time::Duration};

use russet_agent::bgp::{
    Feed, Learned, Node, join_by_resources,
    resources::{Base, Documents, Folder, Resources},
};
use russet_net::{At, Dst, Prefix, Reach, Router};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

#[test]
fn what_is_here_at_one_node_is_learned_by_the_other_until_its_node_is_gone() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let folder = tempfile::tempdir().unwrap();
        let both = [node("a", 1), node("b", 2), pool("Never"), settings()];
        // One knows nothing of itself at first, and begins when it does.
        let mut one = Part::start("a", folder.path(), &[]);
        let two = Part::start("b", folder.path(), &both);
        let block = "10.66.0.64/26".parse().unwrap();
        two.here.send_replace(vec![Reach { dst: Dst::Prefix(block), at: At::Here }]);
        one.tell(&both);
        assert_eq!(one.learns(block).await, Some(Router::from(addr(2))));

        // In a pool of VXLAN the store says who has what.
        one.tell(&[node("a", 1), node("b", 2), pool("Always"), settings()]);
        assert_eq!(one.learns(block).await, None);
        one.tell(&both);
        assert_eq!(one.learns(block).await, Some(Router::from(addr(2))));

        // Another AS has to wait for a new start, and keeps nothing else back.
        let mut of_another_as = settings();
        of_another_as["spec"]["asNumber"] = 65_001.into();
        one.tell(&[node("a", 1), node("b", 2), pool("Always"), of_another_as.clone()]);
        assert_eq!(one.learns(block).await, None);
        one.tell(&[node("a", 1), node("b", 2), pool("Never"), of_another_as]);
        assert_eq!(one.learns(block).await, Some(Router::from(addr(2))));

        one.tell(&[node("a", 1), pool("Never"), settings()]);
        assert_eq!(one.learns(block).await, None);
    });
}

/// A speaker, and the node that it is part of.
struct Part {
    name: &'static str,
    resources: watch::Sender<Arc<Resources>>,
    here: watch::Sender<Vec<Reach>>,
    learned: mpsc::Receiver<Learned>,
}

impl Part {
    fn start(name: &'static str, folder: &Path, documents: &[Value]) -> Self {
        let (resources, news) = watch::channel(Arc::new(read(name, documents)));
        let (here, announced) = watch::channel(Vec::new());
        let (teach, learned) = mpsc::channel(16);
        let admin_socket = folder.join(name).with_extension("sock");
        let base = Base { admin_socket, http: None, announced: Vec::new() };
        let feed = Feed { resources: news, base, secrets: Folder(None) };
        tokio::spawn(join_by_resources(feed, Node { here: announced, learned: teach }));
        Self { name, resources, here, learned }
    }

    fn tell(&self, documents: &[Value]) {
        self.resources.send_replace(Arc::new(read(self.name, documents)));
    }

    /// What is next said of a prefix.
    async fn learns(&mut self, prefix: Prefix) -> Option<Router> {
        let said = async {
            loop {
                let Some(learned) = self.learned.recv().await else { panic!("the speaker ended") };
                let Learned::Changed(changed) = learned else { continue };
                if let Some((_, router)) = changed.into_iter().find(|(dst, _)| *dst == prefix) {
                    return router;
                }
            }
        };
        tokio::time::timeout(PATIENCE, said).await.expect("something of the prefix in time")
    }
}

fn read(name: &str, documents: &[Value]) -> Resources {
    let mut read = Documents::new(name.parse().unwrap(), None);
    for document in documents {
        read.read(document).unwrap();
    }
    read.done()
}

fn node(name: &str, last: u8) -> Value {
    object("Node", name, &json!({"bgp": {"ipv4Address": format!("{}/24", addr(last))}}))
}

fn addr(last: u8) -> IpAddr {
    let [_, _, high, low] = std::process::id().to_be_bytes();
    IpAddr::from([127, high | 1, low, last])
}

fn pool(vxlan: &str) -> Value {
    object("IPPool", "pods", &json!({"cidr": "10.66.0.0/16", "vxlanMode": vxlan}))
}

fn settings() -> Value {
    object("BGPConfiguration", "default", &json!({"listenPort": 17_900, "bindMode": "NodeIP"}))
}

fn object(kind: &str, name: &str, spec: &Value) -> Value {
    let version = "projectcalico.org/v3";
    json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec})
}

const PATIENCE: Duration = Duration::from_secs(30);
