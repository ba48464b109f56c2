//! What runs with preset calico beside what every preset has.
//!
//! ```text
//!              ┌─────────────▶ owner ── wanted tunnels ─▶ ipam
//!  resources ──┼─────────────▶ ipam ◀── asks ── attach lane
//!   (watch)    │                │ tunnels' addresses; whether the object is put back ─▶ register
//!              │     owner ─▶ ends ─▶ register ─▶ the node's own object in the store
//!              │       observer ─ addresses ┘   └─ how it stands ─▶ owner
//!              │  attach lane ─▶ endpoints ─▶ the pods' own objects in the store
//!              ├─▶ routers ─▶ BGP speaker ─ report ─▶ whoever asks for the node's status
//!              └─ accept ◀── owner
//! ```

mod ends;
mod report;
mod routers;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use russet_core::{
    Source,
    model::{self, calico::Name},
    world::World,
};
use russet_net::Family;
use russet_store::EtcdClient;
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};

pub use self::ends::Announced;
use crate::{
    bgp::resources::Resources,
    cni,
    config::{BlockSettings, Config},
    disk::checkpoint::{Checkpoint, Objects},
    endpoints::{self, Standing},
    ipam::{self, Mine, Tunnel},
    node::OwnAddresses,
    owner::Input,
    register::{self, Ends, Others, Registered},
    resources::{self, News, Seen},
};

/// What the owner sends to.
#[derive(Debug)]
pub struct Outlets {
    /// Takes the store as it is for the truth, by the operator's word.
    pub accept: resources::Accept,
    /// The tunnels that want an address of this node's.
    pub tunnels: watch::Sender<BTreeSet<Tunnel>>,
    /// The ends that others may be told of.
    pub announced: watch::Sender<Option<Announced>>,
    /// How the node's own object stands, for whoever asks.
    pub registered: watch::Receiver<Registered>,
}

/// The other ends, for what is started later than the owner.
#[derive(Debug)]
pub struct Pending {
    accepted: mpsc::Receiver<()>,
    tunnels: watch::Receiver<BTreeSet<Tunnel>>,
    announced: watch::Receiver<Option<Announced>>,
    registered: watch::Sender<Registered>,
}

/// What an earlier life knew.
#[derive(Debug, Default)]
pub struct Before {
    pub seen: Seen,
    pub kept: Option<Arc<Objects>>,
}

impl Before {
    pub fn of(kept: &Checkpoint) -> Self {
        Self { seen: Seen::of(kept), kept: kept.calico.clone() }
    }
}

/// What others do with what was started.
#[derive(Debug)]
pub struct Running {
    /// What the BGP speaker goes by.
    pub routers: watch::Receiver<Arc<Resources>>,
    /// Who hears what addresses the node has.
    pub addresses: watch::Sender<Option<OwnAddresses>>,
}

pub fn outlets() -> (Outlets, Pending) {
    let (accept, accepted) = mpsc::channel(1);
    let (tell_tunnels, tunnels) = watch::channel(BTreeSet::new());
    let (announce, announced) = watch::channel(None);
    let (tell_registered, registered) = watch::channel(Registered::default());
    let outlets = Outlets { accept, tunnels: tell_tunnels, announced: announce, registered };
    (outlets, Pending { accepted, tunnels, announced, registered: tell_registered })
}

impl Pending {
    pub fn start(
        self,
        config: &Config,
        client: &EtcdClient,
        before: Before,
        inputs: &mpsc::Sender<Input>,
        tasks: &mut JoinSet<()>,
    ) -> Option<(cni::Line, Running)> {
        let BlockSettings { node, cooldown, ahead } = config.blocks()?;
        let Before { seen, kept } = before;
        let (wish, put_back) = watch::channel(false);
        let (tell_ipam, news) = mpsc::channel(resources::NEWS);
        let (asks, asked) = mpsc::channel(ipam::MOST_ASKS);
        let (tell, told) = mpsc::channel(ipam::MOST_ASKS);
        let (says, said) = mpsc::channel(ipam::MOST_ASKS);
        let (hold, held) = watch::channel(BTreeMap::new());
        let (believe, believed) = watch::channel(false);
        let (tell_ends, ends) = watch::channel(Ends::default());
        tasks.spawn(ends::join(self.announced, held, tell_ends));
        let (observe, addresses) = watch::channel(None);
        let (reach, reachable) = watch::channel(true);
        let (stand, standing) = watch::channel(Standing::default());
        let of_pods = endpoints::Lines { says: said, told: tell.clone(), standing };
        let pace = endpoints::Pace::default();
        tasks.spawn(endpoints::keep(client.clone(), node.clone(), pace, of_pods));
        let last = kept.as_ref().and_then(|kept| kept.now.get(&register::key_of(node)));
        let (tell_others, others) =
            watch::channel(Others::recalled(last.map(|text| text.as_bytes().into())));
        let in_store = believed.clone();
        let own =
            register::Inputs { addresses, ends, others, believed: in_store, reachable, put_back };
        tasks.spawn(register::keep(client.clone(), node.clone(), own, self.registered));
        let (ask_report, reports_asked) = mpsc::channel(1);
        tasks.spawn(report::serve(config.paths.bgp_socket(), reports_asked));
        tasks.spawn(register::answer(client.clone(), node.clone(), ask_report, believed));
        let (tell_owner, for_owner) = mpsc::channel(resources::NEWS);
        let registry = Registry { node: node.clone(), others: tell_others, believe, reach, stand };
        tasks.spawn(pass(for_owner, inputs.clone(), registry));
        let mut listeners = vec![tell_owner, tell_ipam];
        let (route, routers) = watch::channel(Arc::new(Resources::of(node.clone())));
        // Who speaks no BGP need not keep all nodes once more.
        if config.bgp_by_resources() {
            let (tell_routers, for_routers) = mpsc::channel(resources::NEWS);
            tasks.spawn(routers::follow(node.clone(), for_routers, route));
            listeners.push(tell_routers);
        }
        let (client, node) = (client.clone(), node.clone());
        tasks.spawn(resources::serve(client.clone(), node.clone(), seen, listeners, self.accepted));
        let mine = kept.map(|kept| Mine::recalled(&node, &kept)).unwrap_or_default();
        let settings = ipam::Settings {
            cooldown: *cooldown,
            ahead: *ahead,
            mine,
            ..ipam::Settings::new(node, crate::seed())
        };
        let (tunnels, held) = (self.tunnels, hold);
        let lines = ipam::Lines { news, asks: asked, told: tell, tunnels, held, put_back: wish };
        tasks.spawn(ipam::serve(client, settings, lines));
        Some((cni::Line { asks, says, told }, Running { routers, addresses: observe }))
    }
}

/// What is told to those who write into the datastore.
struct Registry {
    node: Name,
    others: watch::Sender<Others>,
    /// Whether the datastore is believed.
    believe: watch::Sender<bool>,
    /// Whether it is there, for whoever may write before it is believed.
    reach: watch::Sender<bool>,
    stand: watch::Sender<Standing>,
}

impl Registry {
    fn tell(&self, news: &News) {
        // What a store says that is not believed is said to nobody who believes it.
        if matches!(news, News::Doubted { .. }) {
            self.believe.send_replace(false);
        }
        self.others.send_if_modified(|others| others.take(&self.node, news));
        // And only now, so that no address is written that is known to be another's.
        match news {
            News::All { .. } => _ = self.believe.send_replace(true),
            News::Away(_) => _ = self.reach.send_replace(false),
            _ => {}
        }
        // Only when it is known whether it is believed.
        if matches!(news, News::All { .. } | News::Doubted { .. } | News::Back) {
            self.reach.send_replace(true);
        }
        self.stand(news);
    }

    fn stand(&self, news: &News) {
        let believed = *self.believe.borrow();
        self.stand.send_if_modified(|known| {
            let before = *known;
            match news {
                News::All { .. } => {
                    *known = Standing { may_write: true, epoch: before.epoch + 1 };
                }
                News::Changed { changes, .. } if changes.iter().any(|it| self.is_own_end(it)) => {
                    known.epoch += 1;
                }
                News::Doubted { .. } | News::Away(_) => known.may_write = false,
                News::Back => known.may_write = believed,
                News::Changed { .. } | News::Aside { .. } => {}
            }
            *known != before
        });
    }

    /// Whether it says that this node's own object was deleted: whoever does that deletes its endpoints first.
    fn is_own_end(&self, change: &resources::Change) -> bool {
        register::is_own(&self.node, &change.key) && change.known.is_none()
    }
}

/// Passes on to the owner what the datastore says, and to whoever writes there. While the owner is busy the watch waits.
async fn pass(mut news: mpsc::Receiver<News>, inputs: mpsc::Sender<Input>, registry: Registry) {
    while let Some(news) = news.recv().await {
        registry.tell(&news);
        if inputs.send(Input::Resources(news)).await.is_err() {
            return;
        }
    }
}

/// The ends that this node should announce, once it is known who is there. None before that: a node that starts knows too
/// little to say that it needs one no more.
pub fn announced(world: &World) -> Option<Announced> {
    let footing = world.in_force().filter(|_| world.in_sync.contains(&Source::Store))?;
    let named = |(it, family): (model::Tunnel, Family)| {
        Some((tunnel((it, family))?, footing.link_of(it, family)))
    };
    Some(Announced {
        tunnels: world.tunnels().into_iter().filter_map(named).collect(),
        mac_v4: footing.own_mac(Family::V4),
        mac_v6: footing.own_mac(Family::V6),
        key: world.settings.key,
    })
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
