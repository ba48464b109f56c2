//! What the operator's commands are asked to do (flannel's `extension`), and when: a machine without I/O.
//!
//! [`wanted`] reads from the calculation what should have been done; [`Errands`] knows what has been, and says what is
//! to be run next. A peer is *visited*: a command adds it, and when it has left, or what its lease says has changed,
//! another takes away what the first one made.
//!
//! ```text
//!   PreStartupCommand ─▶ its output is in our lease ─▶ PostStartupCommand ─▶ SubnetAddCommand, peer by peer
//! ```
//!
//! What has been begun is kept ([`Errands::take_kept`]) *before* it is run, so that whoever starts after a crash knows
//! whom to take away. It knows no more than that, so it adds again those that are there: commands must bear to be run
//! twice, as with flannel. A command that fails is tried again after a pause that grows, and holds up nobody else.

mod machine;
mod words;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use russet_net::Family;

pub use self::{
    machine::{Errand, Errands, Kept, Problem, Run},
    words::words,
};
use crate::{
    calc::{Calc, Standing},
    model::{Backend, ExtensionConfig, Flag, Lease, LeaseKey, NetworkConfig, TransportConfig},
};

/// One run of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    pub command: Arc<str>,
    /// What it finds in its environment besides the agent's own.
    pub environment: Arc<BTreeMap<String, String>>,
    /// What it reads.
    pub input: Arc<str>,
}

/// What is run for a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Visit {
    pub add: Option<Task>,
    /// Undoes what `add` made.
    pub remove: Option<Task>,
}

/// What should have been run on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// `PreStartupCommand`s: of the configuration in force, and of the one that waits for it.
    pub prepare: BTreeSet<Arc<str>>,
    /// `PostStartupCommand`, for the lease that is held.
    pub start: Option<Task>,
    pub visits: BTreeMap<LeaseKey, Visit>,
    /// Whether a peer that is not in `visits` has left: all that is wanted has been told.
    pub sweeps: Flag,
}

impl Default for Wanted {
    fn default() -> Self {
        Self { prepare: BTreeSet::new(), start: None, visits: BTreeMap::new(), sweeps: Flag::Off }
    }
}

/// What should have been run, by what is known now: O(peers), and other than before only at another
/// [`Calc::generation`].
pub fn wanted(calc: &Calc) -> Wanted {
    let world = calc.world();
    if !world.settings.commands.is_on() {
        // Not even what an earlier life was allowed is undone by one.
        return Wanted::default();
    }
    let present = world.config();
    let known = [present.as_ref(), world.in_force().map(|footing| &footing.config)];
    let prepare = known.into_iter().flatten().filter_map(extension);
    let mut wanted = Wanted {
        prepare: prepare.filter_map(|extension| extension.pre_startup.clone()).collect(),
        sweeps: Flag::from(calc.is_complete()),
        ..Wanted::default()
    };
    let Some(me) = world.me() else { return wanted };
    let config = &me.footing.config;
    let Some(extension) = extension(config) else { return wanted };
    let Some(own) = me.own.lease() else { return wanted };
    let ours = environment(config, own, &me.footing.advertise());
    wanted.start = task(extension.post_startup.as_ref(), ours, "".into());
    let peers = calc.peers().filter(|peer| peer.standing == Standing::Extension);
    wanted.visits = peers
        .filter_map(|peer| Some((peer.key, visit(config, extension, peer.key, &peer.lease?))))
        .collect();
    wanted
}

fn extension(config: &NetworkConfig) -> Option<&ExtensionConfig> {
    match config.transport() {
        TransportConfig::Extension(extension) => Some(extension),
        _ => None,
    }
}

fn visit(
    config: &NetworkConfig,
    extension: &ExtensionConfig,
    key: LeaseKey,
    lease: &Lease,
) -> Visit {
    let input = match &lease.backend {
        Backend::Extension(Some(data)) => Arc::clone(data),
        _ => "".into(),
    };
    let environment = environment(config, key, lease);
    Visit {
        add: task(extension.subnet_add.as_ref(), Arc::clone(&environment), Arc::clone(&input)),
        remove: task(extension.subnet_remove.as_ref(), environment, input),
    }
}

fn task(
    command: Option<&Arc<str>>,
    environment: Arc<BTreeMap<String, String>>,
    input: Arc<str>,
) -> Option<Task> {
    Some(Task { command: Arc::clone(command?), environment, input })
}

/// flannel's variables. A family that is not there has none of its own.
fn environment(
    config: &NetworkConfig,
    key: LeaseKey,
    lease: &Lease,
) -> Arc<BTreeMap<String, String>> {
    let of = |family: Family| {
        let [network, subnet, public] = match family {
            Family::V4 => ["NETWORK", "SUBNET", "PUBLIC_IP"],
            Family::V6 => ["IPV6NETWORK", "IPV6SUBNET", "PUBLIC_IPV6"],
        };
        let pool = config.pool(family).map(|pool| pool.network().to_string());
        [
            (network, pool),
            (subnet, key.of(family).map(|subnet| subnet.to_string())),
            (public, lease.public(family).map(|ip| ip.to_string())),
        ]
    };
    let all = Family::BOTH.into_iter().flat_map(of);
    Arc::new(all.filter_map(|(name, value)| Some((name.to_owned(), value?))).collect())
}
