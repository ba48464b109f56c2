//! The figures: one file for each subject of measurement.

mod bgp;
mod burst;
mod calico;
mod calico_bgp;
mod calico_path;
mod calico_pods;
mod cni;
mod engine;
mod flannel;
mod foreign;
mod memory;
mod path;
mod repair;
mod scale;
mod store;

pub use self::{burst::be_bare, calico_pods::be_bare_routed};

use std::fmt;

use anyhow::Result;
use clap::ValueEnum;

use crate::{program::Programs, report::Figure};

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Name {
    /// TCP streams and round trips between pods on two nodes
    Path,
    /// CNI ADD and DEL, 100 in a row
    Cni,
    /// 20 ADDs at once
    CniBurst,
    /// 10,000 remote nodes, and one change
    Scale,
    /// A node on a real etcd with 5,000 leases: start, memory, the return of etcd
    Flannel,
    /// A node of a cluster of Calico's with 5,000 nodes and 20,000 blocks: start, memory, one block more, idle
    Calico,
    /// A block of Calico's that appears on a remote node, by way of a route reflector
    CalicoBgp,
    /// 100 pods at once, with addresses out of blocks in a real etcd
    CalicoPods,
    /// TCP streams and round trips between routed pods on two nodes
    CalicoPath,
    /// 30,000 routes of others', of which 1,000 change each second
    Foreign,
    /// The agent's resident memory
    Memory,
    /// The agent's idle time on a core
    Idle,
    /// How long a tampered object stays away
    Repair,
    /// The userspace transport beside a packet-at-a-time loop and vxlan
    Engine,
    /// `russet store` beside etcd: puts, ranges, watchers, memory, start
    Store,
    /// `russet bgp` beside BIRD 2 and FRR: a route reflector with 10 to 500 peers
    Bgp,
}

/// What every figure needs to know.
#[derive(Clone, Debug)]
pub struct Setup {
    pub effort: Effort,
    pub programs: Programs,
}

/// How often things are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    Quick,
    Full,
}

impl Effort {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Full => "full",
        }
    }

    pub const fn choose(self, quick: usize, full: usize) -> usize {
        match self {
            Self::Quick => quick,
            Self::Full => full,
        }
    }
}

impl Name {
    /// Those that are asked for, or all.
    pub fn chosen(asked: &[Self]) -> &[Self] {
        if asked.is_empty() { Self::value_variants() } else { asked }
    }

    pub fn measure(self, setup: &Setup) -> Result<Figure> {
        match self {
            Self::Path => path::measure(setup),
            Self::Cni => cni::measure(setup),
            Self::CniBurst => burst::measure(setup),
            Self::Scale => scale::measure(setup),
            Self::Flannel => flannel::measure(setup),
            Self::Calico => calico::measure(setup),
            Self::CalicoBgp => calico_bgp::measure(setup),
            Self::CalicoPods => calico_pods::measure(setup),
            Self::CalicoPath => calico_path::measure(setup),
            Self::Foreign => foreign::measure(setup),
            Self::Memory => memory::measure(setup),
            Self::Idle => memory::measure_idle(setup),
            Self::Repair => repair::measure(setup),
            Self::Engine => engine::measure(setup),
            Self::Store => store::measure(setup),
            Self::Bgp => bgp::measure(setup),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        f.write_str(value.as_ref().map_or("?", |value| value.get_name()))
    }
}

/// The order of a round: what is compared takes turns in being first, and the direction changes, so that
/// nobody always comes after the same other one and pays for what that leaves behind.
fn rotation(round: usize, len: usize) -> impl Iterator<Item = usize> {
    let backwards = !round.is_multiple_of(2);
    (0..len).map(move |n| if backwards { (round + len - n) % len } else { (n + round) % len })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everyone_is_first_in_turn_and_follows_others_in_turn() {
        let orders: Vec<Vec<usize>> = (0..4).map(|round| rotation(round, 4).collect()).collect();
        assert_eq!(orders, [[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1], [3, 2, 1, 0]]);
    }

    #[test]
    fn no_name_means_all() {
        assert_eq!(Name::chosen(&[]).len(), Name::value_variants().len());
    }
}
