//! What the attach lane asks of addresses, and what it is told.

use std::{collections::BTreeMap, net::IpAddr};

use russet_api::cni::Code;
use russet_core::{
    addressing::blocks::{
        HandleId,
        block::TakeError,
        machine::{Fill, Refusal},
    },
    model::calico::Name,
};
use russet_net::ParseError;

use super::wish::{Tunnel, Wish, WishError};

/// What the attach lane asks.
#[derive(Clone, Debug)]
pub enum Ask {
    /// What this node's records say that handles have. Told once, before anything is asked; nothing is freed for
    /// others before.
    Recorded(BTreeMap<HandleId, Vec<IpAddr>>),
    /// An address of each family that is wanted. Whoever is given some records them, or frees them.
    Give { ticket: u64, handle: HandleId, pod: Option<(String, String)>, wish: Wish },
    /// All that a handle has. It is tried until it is done, and told then, if somebody waits.
    Free { ticket: Option<u64>, handle: HandleId },
}

/// An answer, to whoever holds the ticket.
#[derive(Clone, Debug)]
pub struct Told {
    pub ticket: u64,
    pub what: What,
}

#[derive(Clone, Debug)]
pub enum What {
    Given(Vec<IpAddr>),
    Denied(Deny),
    Freed,
    /// Not of addresses: a pod's endpoint is not in the datastore any more.
    Unlisted,
}

/// Why no address is given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Deny {
    #[error(transparent)]
    Wish(#[from] WishError),
    #[error("{refusal}{}", filled(fill))]
    Refused { refusal: Refusal, fill: Vec<Fill> },
    #[error("the datastore has not been read yet")]
    Starting,
    #[error("the datastore is away: {0}")]
    Away(String),
    #[error("the datastore is not believed: {0}; see russet status")]
    Doubted(String),
    #[error("the datastore has not answered in time{}", .0.as_ref().map(|why| format!(": {why}")).unwrap_or_default())]
    Late(Option<String>),
}

fn filled(fill: &[Fill]) -> String {
    let shown = |f: &Fill| format!("{} ({} of {} blocks are taken)", f.pool, f.blocks, f.most);
    let all: Vec<_> = fill.iter().map(shown).collect();
    if all.is_empty() { String::new() } else { format!("; pools: {}", all.join(", ")) }
}

impl Deny {
    /// What the container runtime is told.
    pub const fn code(&self) -> Code {
        match self {
            Self::Wish(WishError::NoPool(_)) => Code::NO_ADDRESS,
            Self::Wish(_) => Code::BAD_CONFIG,
            Self::Starting | Self::Away(_) | Self::Doubted(_) | Self::Late(_) => Code::TRY_AGAIN,
            Self::Refused { refusal, .. } => match refusal {
                Refusal::Busy
                | Refusal::NoAnswer
                | Refusal::CalledOff
                | Refusal::Take(TakeError::Cooling { .. }) => Code::TRY_AGAIN,
                _ => Code::NO_ADDRESS,
            },
        }
    }
}

/// The handle of an attachment, as Calico's plugin has it: `k8s-pod-network.<container>`. A second interface of the
/// same container, which Calico does not know, has its own.
///
/// # Errors
///
/// When the names are too long for a key.
pub fn handle_of(network: &str, container: &str, ifname: &str) -> Result<HandleId, ParseError> {
    let second = if ifname == "eth0" { String::new() } else { format!(".{ifname}") };
    format!("{network}.{container}{second}").parse()
}

/// The handle of a node's tunnel.
///
/// # Errors
///
/// When the name is too long for a key.
pub fn tunnel_handle(tunnel: Tunnel, node: &Name) -> Result<HandleId, ParseError> {
    format!("{}-{node}", tunnel.handle()).parse()
}

/// How many asks may be out at once, and so how many answers may wait for the lane.
pub const MOST_ASKS: usize = 4_096;
