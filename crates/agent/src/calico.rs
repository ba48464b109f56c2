//! What runs with preset calico beside what every preset has.
//!
//! ```text
//!              ┌─────────────▶ owner ── wanted tunnels ─▶ ipam
//!  resources ──┼─────────────▶ ipam ◀── asks ── attach lane
//!   (watch)    │                │
//!              │                └─ tunnels' addresses ─▶ (the node's own Node)
//!              ├─▶ routers ─▶ BGP speaker
//!              └─ accept ◀── owner
//! ```

mod routers;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use russet_core::{Source, model, world::World};
use russet_net::Family;
use russet_store::EtcdClient;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

use crate::{
    bgp::resources::Resources,
    cni,
    config::BlockSettings,
    ipam::{self, Tunnel},
    owner::Input,
    resources::{self, News, Seen},
};

/// What the owner sends to.
#[derive(Debug)]
pub struct Outlets {
    /// Takes the store as it is for the truth, by the operator's word.
    pub accept: resources::Accept,
    /// The tunnels that want an address of this node's.
    pub tunnels: watch::Sender<BTreeSet<Tunnel>>,
}

/// The other ends, for what is started later than the owner.
#[derive(Debug)]
pub struct Pending {
    accepted: mpsc::Receiver<()>,
    tunnels: watch::Receiver<BTreeSet<Tunnel>>,
}

/// What others do with what was started.
#[derive(Debug)]
pub struct Running {
    /// What the BGP speaker goes by.
    pub routers: watch::Receiver<Arc<Resources>>,
    /// The tunnels that have an address, and which.
    pub held: watch::Receiver<BTreeMap<Tunnel, IpAddr>>,
}

pub fn outlets() -> (Outlets, Pending) {
    let (accept, accepted) = mpsc::channel(1);
    let (tell_tunnels, tunnels) = watch::channel(BTreeSet::new());
    (Outlets { accept, tunnels: tell_tunnels }, Pending { accepted, tunnels })
}

impl Pending {
    pub fn start(
        self,
        settings: &BlockSettings,
        client: &EtcdClient,
        seen: Seen,
        inputs: &mpsc::Sender<Input>,
        tasks: &mut JoinSet<()>,
    ) -> (cni::Line, Running) {
        let BlockSettings { node, cooldown } = settings;
        let (tell_ipam, news) = mpsc::channel(resources::NEWS);
        let (asks, asked) = mpsc::channel(ipam::MOST_ASKS);
        let (tell, told) = mpsc::channel(ipam::MOST_ASKS);
        let (hold, held) = watch::channel(BTreeMap::new());
        let (tell_owner, for_owner) = mpsc::channel(resources::NEWS);
        tasks.spawn(pass(for_owner, inputs.clone()));
        let (tell_routers, for_routers) = mpsc::channel(resources::NEWS);
        let (route, routers) = watch::channel(Arc::new(Resources::of(node.clone())));
        tasks.spawn(routers::follow(node.clone(), for_routers, route));
        let listeners = vec![tell_owner, tell_ipam, tell_routers];
        let (client, node) = (client.clone(), node.clone());
        tasks.spawn(resources::serve(client.clone(), node.clone(), seen, listeners, self.accepted));
        let settings =
            ipam::Settings { cooldown: *cooldown, ..ipam::Settings::new(node, crate::seed()) };
        let lines =
            ipam::Lines { news, asks: asked, told: tell, tunnels: self.tunnels, held: hold };
        tasks.spawn(ipam::serve(client, settings, lines));
        (cni::Line { asks, told }, Running { routers, held })
    }
}

/// Passes on to the owner what the datastore says. While the owner is busy the watch waits.
async fn pass(mut news: mpsc::Receiver<News>, inputs: mpsc::Sender<Input>) {
    while let Some(news) = news.recv().await {
        if inputs.send(Input::Resources(news)).await.is_err() {
            return;
        }
    }
}

/// The tunnels whose ends this node should announce, once it is known who is there. None before that: a node that starts
/// knows too little to say that it needs one no more.
pub fn wanted_tunnels(world: &World) -> Option<BTreeSet<Tunnel>> {
    let known = world.in_sync.contains(&Source::Store) && world.in_force().is_some();
    known.then(|| world.tunnels().into_iter().filter_map(tunnel).collect())
}

const fn tunnel((tunnel, family): (model::Tunnel, Family)) -> Option<Tunnel> {
    match (tunnel, family) {
        (model::Tunnel::Ipip, Family::V4) => Some(Tunnel::Ipip),
        (model::Tunnel::Ipip, Family::V6) => None,
        (model::Tunnel::Vxlan, Family::V4) => Some(Tunnel::Vxlan),
        (model::Tunnel::Vxlan, Family::V6) => Some(Tunnel::VxlanV6),
        (model::Tunnel::Wireguard, Family::V4) => Some(Tunnel::Wireguard),
        (model::Tunnel::Wireguard, Family::V6) => Some(Tunnel::WireguardV6),
    }
}
