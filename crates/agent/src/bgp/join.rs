//! What passes between a speaker and the node that it is part of, in the words of [`Reach`]: what is here goes out as
//! announcements, what peers teach comes in as facts for the core.
//!
//! The node never makes the routes' thread wait: what it has no room for is kept by prefix, the newest only, and
//! said a moment later. [`Learned::All`] is said once, when every peer has told all that it has or has had its
//! time, so that the node keeps until then what an earlier life of it has learned.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use russet_bgp::{
    rib::Source,
    speaker::{PeerAddr, Speaker},
    wire::{Family, NlriKey},
};
use russet_net::{Prefix, Reach, Router};
use tokio::sync::{mpsc, watch};

use super::config::BgpConfig;

/// The node's side of its speaker.
#[derive(Clone, Debug)]
pub struct Node {
    /// What is announced.
    pub here: watch::Receiver<Vec<Reach>>,
    pub learned: mpsc::Sender<Learned>,
}

/// What a node is told by its speaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Learned {
    /// Where these are now; `None` when nobody says any more.
    Changed(Vec<(Prefix, Option<Router>)>),
    /// All is told.
    All,
}

/// What the node knows better than its peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Guide {
    /// Ways that nobody teaches.
    gateways: BTreeMap<Prefix, IpAddr>,
    /// Nothing in there is told.
    withheld: Vec<Prefix>,
}

impl Guide {
    pub(super) fn of(config: &BgpConfig) -> Self {
        Self { gateways: config.gateways.clone(), withheld: config.withheld.clone() }
    }

    fn withholds(&self, prefix: Prefix) -> bool {
        self.withheld.iter().any(|pool| pool.covers(prefix))
    }
}

/// The thread of the routes has one that tells the node.
#[derive(Debug)]
pub(super) struct Follower {
    learned: mpsc::Sender<Learned>,
    unsaid: BTreeMap<Prefix, Option<Router>>,
    guide: Guide,
    /// Who has to tell all, and until when it is waited for; `None` once that was said.
    awaited: Option<(BTreeSet<PeerAddr>, Instant)>,
    /// Whether there may be peers that nobody names: for them only time tells.
    open_ended: bool,
}

impl Follower {
    pub(super) fn new(
        learned: mpsc::Sender<Learned>,
        awaited: BTreeSet<PeerAddr>,
        open_ended: bool,
        now: Instant,
    ) -> Self {
        let awaited = Some((awaited, now + PATIENCE));
        Self { learned, unsaid: BTreeMap::new(), guide: Guide::default(), awaited, open_ended }
    }

    /// Goes by another guide from now on.
    pub(super) fn guide(&mut self, speaker: &Speaker, guide: Guide) {
        if guide == self.guide {
            return;
        }
        let old = std::mem::replace(&mut self.guide, guide);
        let mut moved: BTreeSet<Prefix> = old.gateways.keys().copied().collect();
        moved.extend(self.guide.gateways.keys());
        if old.withheld != self.guide.withheld {
            let told = all_prefixes(speaker).into_iter();
            moved.extend(told.filter(|it| old.withholds(*it) != self.guide.withholds(*it)));
        }
        let places: Vec<_> = moved.into_iter().map(|it| (it, self.place(speaker, it))).collect();
        self.unsaid.extend(places);
    }

    fn place(&self, speaker: &Speaker, prefix: Prefix) -> Option<Router> {
        if let Some(ip) = self.guide.gateways.get(&prefix) {
            return Some((*ip).into());
        }
        if self.guide.withholds(prefix) { None } else { place_of(speaker, &prefix.into()) }
    }

    /// Tells what has changed, as far as there is room.
    pub(super) fn follow(&mut self, speaker: &mut Speaker, now: Instant) {
        for key in speaker.rib_mut().take_changed() {
            if let Some(prefix) = key.prefix() {
                self.unsaid.insert(prefix, self.place(speaker, prefix));
            }
        }
        while !self.unsaid.is_empty() {
            let Ok(room) = self.learned.try_reserve() else { return };
            let rest = match self.unsaid.keys().nth(MOST_AT_ONCE).copied() {
                Some(next) => self.unsaid.split_off(&next),
                None => BTreeMap::new(),
            };
            let said = std::mem::replace(&mut self.unsaid, rest);
            room.send(Learned::Changed(said.into_iter().collect()));
        }
        let told = |(awaited, until): &mut (BTreeSet<PeerAddr>, Instant)| {
            let all = || awaited.iter().all(|peer| speaker.has_told_all(*peer));
            *until <= now || (!self.open_ended && all())
        };
        if self.awaited.as_mut().is_some_and(told) && self.learned.try_send(Learned::All).is_ok() {
            self.awaited = None;
        }
    }

    /// When it must be looked at again although nothing has happened.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        let again = (!self.unsaid.is_empty()).then(|| now + SAY_AGAIN);
        // One that is due and could not be said is said again, too.
        let end = self.awaited.as_ref().map(|(_, until)| (*until).max(now + SAY_AGAIN));
        again.into_iter().chain(end).min()
    }
}

/// All unicast destinations.
fn all_prefixes(speaker: &Speaker) -> Vec<Prefix> {
    let mut all = Vec::new();
    for family in [Family::Ipv4Unicast, Family::Ipv6Unicast] {
        let mut from = Some(0);
        while let Some(at) = from {
            let (views, next) = speaker.rib().routes(family, at, MOST_AT_ONCE);
            all.extend(views.iter().filter_map(|view| view.key.prefix()));
            from = next;
        }
    }
    all
}

/// Where the best path of a destination leads; nowhere else when it is our own.
fn place_of(speaker: &Speaker, key: &NlriKey) -> Option<Router> {
    let view = speaker.rib().route(key)?;
    let best = view.paths.iter().find(|path| path.used)?;
    if best.source == Source::LOCAL {
        return None;
    }
    let ip = best.attrs.next_hop.addr();
    let is_local = matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    // It holds on the link of the session that it came by.
    let link = is_local.then(|| speaker.addr_of(best.source)?.link).flatten();
    Some(Router { ip, link })
}

/// How long a peer that is not there is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
const SAY_AGAIN: Duration = Duration::from_millis(20);
/// Prefixes of one message to the node.
const MOST_AT_ONCE: usize = 4_096;

#[cfg(test)]
mod tests {
    use russet_bgp::{
        bestpath::MedRule,
        reflector::Me,
        rib::{RibConfig, Watch},
        update::Bounds,
        wire::{Attributes, ClusterId, Nlri, RouterId},
    };
    use russet_net::Asn;

    use super::*;

    #[test]
    fn all_is_told_once_and_where_anybody_may_come_only_when_time_is_over() {
        let begun = Instant::now();
        let missing = BTreeSet::from([IpAddr::from([10, 0, 0, 2]).into()]);
        for (awaited, open_ended, soon) in [
            (BTreeSet::new(), false, true),
            (BTreeSet::new(), true, false),
            (missing, false, false),
        ] {
            let (learned, mut told) = mpsc::channel(4);
            let mut follower = Follower::new(learned, awaited, open_ended, begun);
            follower.follow(&mut speaker(), begun);
            assert_eq!(told.try_recv().is_ok_and(|it| it == Learned::All), soon);
            assert_eq!(follower.due(begun).is_none(), soon);
            follower.follow(&mut speaker(), begun + PATIENCE);
            assert_eq!(told.try_recv().is_ok_and(|it| it == Learned::All), !soon);
            follower.follow(&mut speaker(), begun + PATIENCE * 2);
            assert!(told.try_recv().is_err(), "once is enough");
        }
    }

    #[test]
    fn a_node_that_does_not_keep_up_is_told_the_newest_of_each_prefix() {
        let now = Instant::now();
        let (learned, mut told) = mpsc::channel(1);
        let mut follower = Follower::new(learned, BTreeSet::new(), false, now);
        let mut speaker = speaker();
        follower.follow(&mut speaker, now);
        let key = NlriKey::from("10.9.0.0/16".parse::<Prefix>().unwrap());
        let next_hop = IpAddr::from([192, 0, 2, 1]).into();
        for _ in 0..3 {
            speaker.rib_mut().originate(&Nlri::plain(key), &Attributes::default(), next_hop);
            speaker.flush();
            follower.follow(&mut speaker, now);
            speaker.rib_mut().withdraw(&key);
            speaker.flush();
            follower.follow(&mut speaker, now);
        }
        assert!(follower.due(now).is_some(), "there was no room");
        assert_eq!(told.try_recv(), Ok(Learned::All));
        follower.follow(&mut speaker, now);
        let Ok(Learned::Changed(changed)) = told.try_recv() else { panic!("nothing") };
        // A route of our own leads nowhere else.
        assert_eq!(changed, [("10.9.0.0/16".parse().unwrap(), None)]);
        assert_eq!(follower.due(now), None);
    }

    #[test]
    fn the_node_is_told_its_gateways_and_nothing_of_what_the_store_says() {
        let now = Instant::now();
        let (learned, mut told) = mpsc::channel(8);
        let mut follower = Follower::new(learned, BTreeSet::new(), false, now);
        let mut speaker = speaker();
        follower.follow(&mut speaker, now);
        assert_eq!(told.try_recv(), Ok(Learned::All));
        let prefix = |text: &str| text.parse::<Prefix>().unwrap();
        let gateways = BTreeMap::from([(prefix("10.0.0.9/32"), IpAddr::from([192, 0, 2, 1]))]);
        let guide = Guide { gateways, withheld: vec![prefix("10.9.0.0/16")] };
        follower.guide(&speaker, guide);
        follower.follow(&mut speaker, now);
        let at = IpAddr::from([192, 0, 2, 1]).into();
        let way = |at| Ok(Learned::Changed(vec![(prefix("10.0.0.9/32"), at)]));
        assert_eq!(told.try_recv(), way(Some(at)));
        follower.guide(&speaker, Guide::default());
        follower.follow(&mut speaker, now);
        assert_eq!(told.try_recv(), way(None));
    }

    fn speaker() -> Speaker {
        let id = RouterId::try_from(1).unwrap();
        Speaker::new(RibConfig {
            me: Me { asn: Asn::new(65_000), id, cluster: ClusterId::from(id) },
            med: MedRule::SameNeighbor,
            multipath: None,
            watch: Watch::On,
            seed: 1,
            bounds: Bounds::default(),
        })
    }
}
