//! Our own graceful restart (RFC 4724 §4.1): nobody is told anything before the peers have told all.
//!
//! After a restart our peers keep what we told them before, and packets go on. If we told the first routes that
//! come in, the rest would count as gone once we end with the end marker. So telling a family is deferred
//! until every peer that can say so has said that its table is told, or until a time is over.
//!
//! Feed each [`Input`], then drain [`Deferral::poll_output`] to `None`, then wait until
//! [`Deferral::poll_timeout`] or the next input. What a peer's restart means for *its* routes is the speaker's
//! to see to, with [`crate::rib::Rib::lose_session`] and [`crate::rib::Rib::sweep`].

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    time::Instant,
};

use crate::wire::{Capabilities, Family, FamilySet};

/// Which families must not be told yet, and what is waited for.
#[derive(Debug)]
pub struct Deferral {
    stage: Stage,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
enum Stage {
    /// What each peer still has to tell.
    Waiting {
        until: Instant,
        expected: BTreeMap<IpAddr, FamilySet>,
    },
    Over,
}

#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// A session is up, with what the peer said that it can.
    Up {
        peer: IpAddr,
        capabilities: &'a Capabilities,
    },
    /// The end marker of a family.
    Told {
        peer: IpAddr,
        family: Family,
    },
    /// The peer is not configured any more.
    Forgotten {
        peer: IpAddr,
    },
    Timeout,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// Begin to tell this family, to all peers.
    Tell(Family),
}

impl Deferral {
    /// A start that is no restart: nothing is deferred.
    pub const fn none() -> Self {
        Self { stage: Stage::Over, outputs: VecDeque::new() }
    }

    /// Waits for these peers, each with the families that are configured for it, but not longer than `until`
    /// (the RFC's `Selection_Deferral_Timer`).
    pub fn begin(peers: impl IntoIterator<Item = (IpAddr, FamilySet)>, until: Instant) -> Self {
        let expected = peers.into_iter().collect();
        let mut deferral =
            Self { stage: Stage::Waiting { until, expected }, outputs: VecDeque::new() };
        deferral.release(Family::ALL.into_iter().collect());
        deferral
    }

    /// Whether a family must not be told yet.
    pub fn defers(&self, family: Family) -> bool {
        match &self.stage {
            Stage::Waiting { expected, .. } => is_expected(expected, family),
            Stage::Over => false,
        }
    }

    pub fn handle(&mut self, input: Input<'_>, now: Instant) {
        let Stage::Waiting { until, expected } = &mut self.stage else { return };
        let before = deferred(expected);
        match input {
            Input::Up { peer, capabilities } => {
                if let Some(families) = expected.get_mut(&peer) {
                    *families = families.both(promised(capabilities));
                }
            }
            Input::Told { peer, family } => {
                if let Some(families) = expected.get_mut(&peer) {
                    *families = families.iter().filter(|other| *other != family).collect();
                }
            }
            Input::Forgotten { peer } => _ = expected.remove(&peer),
            Input::Timeout if *until <= now => expected.clear(),
            Input::Timeout => {}
        }
        self.release(before);
    }

    #[must_use]
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    #[must_use]
    pub const fn poll_timeout(&self) -> Option<Instant> {
        match self.stage {
            Stage::Waiting { until, .. } => Some(until),
            Stage::Over => None,
        }
    }

    /// Lets those families be told of which nothing is expected any more.
    fn release(&mut self, before: FamilySet) {
        let Stage::Waiting { expected, .. } = &self.stage else { return };
        let now = deferred(expected);
        let free = before.iter().filter(|family| !now.contains(*family));
        self.outputs.extend(free.map(Output::Tell));
        if now.is_empty() {
            self.stage = Stage::Over;
        }
    }
}

/// The families that a peer will end with a marker. One that restarts itself waits for us, and one that knows
/// nothing of restarts sends none.
fn promised(capabilities: &Capabilities) -> FamilySet {
    match &capabilities.graceful_restart {
        Some(restart) if !restart.flags.restarted => capabilities.family_set(),
        _ => FamilySet::EMPTY,
    }
}

fn deferred(expected: &BTreeMap<IpAddr, FamilySet>) -> FamilySet {
    Family::ALL.into_iter().filter(|family| is_expected(expected, *family)).collect()
}

fn is_expected(expected: &BTreeMap<IpAddr, FamilySet>, family: Family) -> bool {
    expected.values().any(|families| families.contains(family))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::wire::{GracefulRestart, RestartFlags};

    const V4: Family = Family::Ipv4Unicast;
    const V6: Family = Family::Ipv6Unicast;

    #[test]
    fn a_family_is_told_once_every_peer_has_ended_it() {
        let (mut deferral, now) = waiting();
        assert_eq!(outputs(&mut deferral), [Output::Tell(Family::L2vpnEvpn)]);
        for peer in [1, 2] {
            let capabilities = able(RestartFlags::default());
            deferral.handle(Input::Up { peer: addr(peer), capabilities: &capabilities }, now);
        }
        deferral.handle(Input::Told { peer: addr(1), family: V4 }, now);
        deferral.handle(Input::Told { peer: addr(1), family: V6 }, now);
        assert_eq!(outputs(&mut deferral), []);
        assert!(deferral.defers(V4) && deferral.defers(V6));

        deferral.handle(Input::Told { peer: addr(2), family: V4 }, now);
        assert_eq!(outputs(&mut deferral), [Output::Tell(V4)]);
        assert!(!deferral.defers(V4) && deferral.defers(V6));
        deferral.handle(Input::Told { peer: addr(2), family: V6 }, now);
        assert_eq!(outputs(&mut deferral), [Output::Tell(V6)]);
        assert_eq!(deferral.poll_timeout(), None);
    }

    #[test]
    fn nobody_waits_for_a_peer_that_sends_no_marker() {
        let (mut deferral, now) = waiting();
        outputs(&mut deferral);
        let unable = Capabilities { graceful_restart: None, ..able(RestartFlags::default()) };
        deferral.handle(Input::Up { peer: addr(1), capabilities: &unable }, now);
        let restarts = able(RestartFlags { restarted: true, ..RestartFlags::default() });
        deferral.handle(Input::Up { peer: addr(2), capabilities: &restarts }, now);
        assert_eq!(outputs(&mut deferral), [Output::Tell(V4), Output::Tell(V6)]);
    }

    #[test]
    fn the_wait_has_an_end() {
        let (mut deferral, now) = waiting();
        outputs(&mut deferral);
        deferral.handle(Input::Timeout, now + WAIT.mul_f32(0.99));
        assert_eq!(outputs(&mut deferral), []);
        deferral.handle(Input::Timeout, now + WAIT);
        assert_eq!(outputs(&mut deferral), [Output::Tell(V4), Output::Tell(V6)]);
        assert_eq!(deferral.poll_timeout(), None);
        deferral.handle(Input::Told { peer: addr(1), family: V4 }, now + WAIT);
        assert_eq!(outputs(&mut deferral), []);
    }

    #[test]
    fn a_peer_that_is_forgotten_is_waited_for_no_more() {
        let (mut deferral, now) = waiting();
        outputs(&mut deferral);
        deferral.handle(Input::Forgotten { peer: addr(1) }, now);
        deferral.handle(Input::Forgotten { peer: addr(2) }, now);
        assert_eq!(outputs(&mut deferral).len(), 2);
        assert!(!Deferral::none().defers(V4));
    }

    /// Two peers with IPv4 and IPv6.
    fn waiting() -> (Deferral, Instant) {
        let now = Instant::now();
        let families = FamilySet::EMPTY.with(V4).with(V6);
        (Deferral::begin([1, 2].map(|peer| (addr(peer), families)), now + WAIT), now)
    }

    fn able(flags: RestartFlags) -> Capabilities {
        Capabilities {
            families: [V4, V6].map(Family::wire).to_vec(),
            graceful_restart: Some(GracefulRestart { flags, time_s: 120, families: Vec::new() }),
            ..Capabilities::default()
        }
    }

    fn outputs(deferral: &mut Deferral) -> Vec<Output> {
        std::iter::from_fn(|| deferral.poll_output()).collect()
    }

    fn addr(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    const WAIT: Duration = Duration::from_mins(1);
}
