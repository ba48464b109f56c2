//! What the speaker is told: a TOML file, read whole and checked whole.
//!
//! `raw` and `session` have the form that is read, `policy` that of policies; it becomes the checked [`BgpConfig`], or
//! every fault of it at once, each with its line: `faults`.

mod faults;
mod policy;
mod raw;
mod session;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use russet_bgp::{
    fsm::{LocalSpeaker, SessionConfig},
    speaker::{PeerAddr, PeerSettings},
    wire::{Attributes, ClusterId, Community, LargeCommunity, NextHop, NlriKey},
};
use russet_core::model::calico::{Name, PeerKind};
use russet_net::{IfName, Port, Prefix};

pub(super) use self::session::{BGP_PORT, restart, watched_at_the_usual_pace};
pub use super::bfd::BfdConfig;
use crate::config::ConfigFaults;

/// The speaker's checked configuration.
#[derive(Clone, Debug)]
pub struct BgpConfig {
    pub local: LocalSpeaker,
    pub cluster: ClusterId,
    pub listen: Vec<SocketAddr>,
    pub admin_socket: PathBuf,
    /// Where `/metrics` answers; `None` is off.
    pub http: Option<SocketAddr>,
    pub peers: Vec<(PeerAddr, PeerConfig)>,
    /// Peers without a number: whoever is found on the link.
    pub links: Vec<(IfName, PeerConfig)>,
    pub ranges: Vec<RangeConfig>,
    /// Routes of our own.
    pub routes: Vec<OwnRoute>,
    /// What routes of our own bear, by where they lie.
    pub marks: Vec<Marks>,
    /// Gateways to addresses that nobody teaches, for the node that we are part of.
    pub gateways: BTreeMap<Prefix, IpAddr>,
    /// Within these the node is not told what is taught: it knows the way by others.
    pub withheld: Vec<Prefix>,
    /// How long peers are told nothing at a start, while we are being told; at most as long as they keep our routes.
    pub patience: Duration,
}

/// Communities of what we announce within a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marks {
    pub within: Prefix,
    pub communities: Vec<Community>,
    pub large: Vec<LargeCommunity>,
}

/// Where a peer comes from, when resources say that it is one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    pub kind: PeerKind,
    /// The `BGPPeer`; none is the mesh.
    pub object: Option<Name>,
    /// The node at the other end, if it is one.
    pub node: Option<Name>,
}

/// One peer. Equal configurations make equal sessions, so one that did not change is left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    pub description: Option<String>,
    pub origin: Option<Origin>,
    pub session: SessionConfig,
    pub settings: PeerSettings,
    pub port: Port,
    pub source: Option<IpAddr>,
    pub password: Option<Password>,
    pub hops: Hops,
    /// How it is watched, so that a silent one is found soon.
    pub bfd: Option<BfdConfig>,
    /// Our next hop towards the peer for IPv6 routes of an IPv4 session, and the other way round.
    pub next_hops: [Option<NextHop>; 2],
}

impl PeerConfig {
    /// Whether the other is the same but for what becomes of routes: then the session can stand.
    pub fn differs_by_policy(&self, other: &Self) -> bool {
        let mut alike = self.clone();
        alike.settings = other.settings.clone();
        alike.description.clone_from(&other.description);
        alike.origin.clone_from(&other.origin);
        alike == *other
    }
}

/// Peers that nobody names one by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeConfig {
    pub prefix: Prefix,
    /// How many may be there at a time.
    pub limit: usize,
    pub peer: PeerConfig,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnRoute {
    pub key: NlriKey,
    pub attributes: Attributes,
    /// Unspecified: ours in each session.
    pub next_hop: NextHop,
}

/// How far a peer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hops {
    Usual,
    /// What we send goes no further.
    AtMost(u8),
    /// What arrives from further away is dropped by the kernel (RFC 5082).
    Counted(u8),
}

impl Hops {
    /// How many hops a datagram of such a peer has left at least, when all were left at its start.
    pub const fn least_left(self) -> u8 {
        match self {
            Self::Usual => 1,
            Self::AtMost(hops) | Self::Counted(hops) => u8::MAX - hops.saturating_sub(1),
        }
    }
}

/// A shared secret that no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    /// What the kernel takes (`TCP_MD5SIG_MAXKEYLEN`); `None` when it is empty or too long.
    pub fn new(text: String) -> Option<Self> {
        (1..=80).contains(&text.len()).then_some(Self(text))
    }

    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Password(…)")
    }
}

impl BgpConfig {
    /// Reads the file and checks the whole.
    ///
    /// # Errors
    ///
    /// With every fault, each with its place.
    pub fn load(path: &Path) -> Result<Self, ConfigFaults> {
        let fault = |text: String| ConfigFaults(vec![format!("{}: {text}", path.display())]);
        let text = std::fs::read_to_string(path).map_err(|err| fault(err.to_string()))?;
        Self::read(&text).map_err(|faults| {
            ConfigFaults(
                faults.0.into_iter().map(|text| format!("{}: {text}", path.display())).collect(),
            )
        })
    }

    /// Reads a text and checks the whole.
    ///
    /// # Errors
    ///
    /// With every fault.
    pub fn read(text: &str) -> Result<Self, ConfigFaults> {
        raw::read(text)
    }

    /// The range that an address lies in, the longest prefix first.
    pub fn range_of(&self, addr: IpAddr) -> Option<&RangeConfig> {
        let within = self.ranges.iter().filter(|range| range.prefix.contains(addr));
        within.max_by_key(|range| range.prefix.len())
    }

    /// The peer that is configured by its address, or by the link that it is on.
    pub fn peer(&self, addr: PeerAddr) -> Option<&PeerConfig> {
        let by_addr = self.peers.iter().find(|(other, _)| *other == addr).map(|(_, peer)| peer);
        by_addr.or_else(|| self.link(addr.link?))
    }

    /// The peer that is on a link, whatever its address.
    pub fn link(&self, link: IfName) -> Option<&PeerConfig> {
        self.links.iter().find(|(other, _)| *other == link).map(|(_, peer)| peer)
    }

    /// Who is to tell all that it has before a start is over: every peer but those that nobody names one by one.
    pub fn awaited(&self) -> BTreeSet<PeerAddr> {
        let on = |link| PeerAddr { link: Some(link), ..PeerAddr::ANYBODY };
        let links = self.links.iter().map(|(link, _)| on(*link));
        self.peers.iter().map(|(addr, _)| *addr).chain(links).collect()
    }

    /// Whose connections are to be signed, and with what.
    pub fn passwords(&self) -> Vec<(Prefix, Password)> {
        let peers = self.peers.iter().map(|(addr, peer)| (Prefix::host(addr.ip), peer));
        let ranges = self.ranges.iter().map(|range| (range.prefix, &range.peer));
        peers
            .chain(ranges)
            .filter_map(|(prefix, peer)| Some((prefix, peer.password.clone()?)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use russet_bgp::{
        fsm::{Opening, RemoteAs},
        policy::{Judgement, RouteFacts},
        reflector::{NextHopRule, Relation},
        wire::Family,
    };
    use russet_net::Asn;

    use super::*;

    const HEAD: &str = "asn = 65000\nrouter-id = '10.0.0.1'\n";

    fn read(rest: &str) -> Result<BgpConfig, ConfigFaults> {
        BgpConfig::read(&format!("{HEAD}{rest}"))
    }

    #[test]
    fn what_is_not_said_has_its_default() {
        let config = read("[[peer]]\naddress = '10.0.0.2'\nasn = 65001\n").unwrap();
        assert_eq!(config.listen.len(), 2);
        let peer = config.peer(IpAddr::from([10, 0, 0, 2]).into()).unwrap();
        assert_eq!(peer.session.remote, RemoteAs::Is(Asn::new(65_001)));
        assert_eq!(peer.session.opening, Opening::Active);
        assert!(peer.session.families.contains(Family::Ipv4Unicast));
        assert_eq!((peer.hops, peer.port.get()), (Hops::AtMost(1), 179));
        assert_eq!(peer.settings.next_hop, NextHopRule::Ours);
        assert_eq!(peer.session.restart, None);
    }

    #[test]
    fn a_client_of_the_reflector_is_told_routes_as_they_are() {
        let config = read(
            "[[range]]\nprefix = '10.0.0.0/16'\nasn = 'internal'\nclient = true\nlimit = 3\n\
             [[range]]\nprefix = '10.0.9.0/24'\nasn = 'external'\n",
        )
        .unwrap();
        let range = config.range_of([10, 0, 1, 1].into()).unwrap();
        assert_eq!((range.limit, range.peer.session.opening), (3, Opening::Passive));
        assert_eq!(range.peer.settings.internal, Relation::Client);
        assert_eq!(range.peer.settings.next_hop, NextHopRule::Keep);
        // The narrower one wins.
        let range = config.range_of([10, 0, 9, 1].into()).unwrap();
        assert_eq!(range.peer.session.remote, RemoteAs::External);
        assert!(config.range_of([10, 1, 0, 1].into()).is_none());
    }

    #[test]
    fn every_fault_is_told_at_once_with_its_place() {
        let err = BgpConfig::read(
            "asn = 0\nrouter-id = '0.0.0.0'\nlisten = ['x']\ngraceful-restart = 5000\n\
             [[peer]]\naddress = '10.0.0.2'\nasn = 'mine'\nhold-time = 2\nfamilies = ['ipx']\n\
             ttl = 3\nttl-security = 1\nadd-path = 'all'\nimport = 'nothing'\npassword = ''\n\
             [[route]]\nprefix = '10.0.0.1/8'\n\
             [[policy]]\nname = 'p'\notherwise = 'x'\n[[policy.rule]]\nthen = 'y'\nprefixes = ['10/8']\n",
        )
        .unwrap_err();
        for place in [
            "asn",
            "router-id",
            "listen",
            "graceful-restart",
            "peer[0].asn",
            "peer[0].hold-time",
            "peer[0].families",
            "peer[0].ttl",
            "peer[0].add-path",
            "peer[0].import",
            "peer[0].password",
            "route[0].prefix",
            "policy[0].otherwise",
            "policy[0].rule[0].then",
            "policy[0].rule[0].prefixes",
        ] {
            assert!(
                err.0.iter().any(|fault| fault.contains(&format!(": {place}: "))),
                "{place} is missing in {err}"
            );
        }
    }

    #[test]
    fn faults_of_several_kinds_are_told_at_once_with_their_lines() {
        let err = BgpConfig::read(
            "asn = 65000\nrouter-id = '10.0.0.1'\nclusterid = '1.1.1.1'\n\
             [[peer]]\naddress = '10.0.0.2'\nasn = 1\nhold-tim = 3\n\
             [[peer]]\naddress = '10.0.0.3'\nasn = 1\nport = 'x'\n\
             [[peer]]\naddress = '10.0.0.4'\nasn = 1\nttl = 0\n\
             [[route]]\nprefix = '10.0.0.1/8'\n",
        )
        .unwrap_err();
        let places = [
            "line 3: unknown field `clusterid`",
            "line 7: peer[0]: unknown field `hold-tim`",
            "line 11: peer[1]: invalid type",
            "line 15: peer[2].ttl: ",
            "line 17: route[0].prefix: ",
        ];
        for place in places {
            assert!(err.0.iter().any(|fault| fault.starts_with(place)), "{place} in\n{err}");
        }
        assert_eq!(err.0.len(), places.len(), "{err}");
    }

    #[test]
    fn a_peer_on_a_link_has_both_families_and_needs_no_address() {
        let config = read("[[peer]]\ninterface = 'eth1'\nasn = 'external'\nbfd = true\n").unwrap();
        let found = "fe80::2%eth1".parse().unwrap();
        let peer = config.peer(found).unwrap();
        assert!(peer.session.families.contains(Family::Ipv4Unicast));
        assert!(peer.session.extended_next_hop.contains(Family::Ipv4Unicast));
        assert_eq!(peer.bfd.unwrap().hops, russet_bgp::bfd::Hops::Single);
        assert!(config.peer("fe80::2%eth2".parse().unwrap()).is_none());
        for bad in ["", "address = '10.0.0.2'\ninterface = 'eth1'", "address = 'fe80::1'"] {
            assert!(read(&format!("[[peer]]\nasn = 1\n{bad}\n")).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_peer_behind_routers_is_watched_over_several_hops() {
        let peer = |more: &str| {
            let text = format!("[[peer]]\naddress = '10.0.0.2'\nbfd = true\n{more}\n");
            read(&text).unwrap().peers[0].1.bfd.unwrap()
        };
        let multi = |least| russet_bgp::bfd::Hops::Multi { least };
        assert_eq!(peer("asn = 65001").hops, russet_bgp::bfd::Hops::Single);
        assert_eq!(peer("asn = 65001\nttl = 3").hops, multi(253));
        assert_eq!(peer("asn = 'internal'").hops, multi(1));
        let near = peer("asn = 'internal'\nbfd-multihop = false\nbfd-interval = 50");
        assert_eq!(near.hops, russet_bgp::bfd::Hops::Single);
        assert_eq!(near.timing.required_min_rx.micros(), 50_000);
        assert!(read("[[peer]]\naddress = '10.0.0.2'\nasn = 1\nbfd-interval = 50\n").is_err());
    }

    #[test]
    fn one_of_a_rule_s_prefixes_is_enough() {
        let config = read(
            "[[peer]]\naddress = '10.0.0.2'\nasn = 65001\nimport = 'p'\n[[policy]]\nname = 'p'\n\
             otherwise = 'reject'\n[[policy.rule]]\nname = 'mine'\nthen = 'accept'\n\
             prefixes = ['in 10.1.0.0/16 24-32', '10.2.0.0/16']\n",
        )
        .unwrap();
        let policy = &config.peers[0].1.settings.import;
        let attributes = Attributes::default();
        let next_hop = NextHop::from(IpAddr::from([10, 0, 0, 9]));
        let learned = russet_bgp::bestpath::Learned::External;
        let facts = RouteFacts { attributes: &attributes, next_hop, learned };
        let passes = |prefix: &str| {
            let key = prefix.parse::<Prefix>().unwrap().into();
            matches!(policy.narrow(&facts).judge(&key), Judgement::Accepted(_))
        };
        assert!(passes("10.1.3.0/24") && passes("10.2.0.0/16"));
        assert!(!passes("10.1.0.0/16") && !passes("10.2.3.0/24"));
    }

    #[test]
    fn no_log_shows_a_password() {
        let config = read("[[peer]]\naddress = '10.0.0.2'\nasn = 1\npassword = 'hush'\n").unwrap();
        assert!(!format!("{config:?}").contains("hush"));
        assert_eq!(config.passwords()[0].1.reveal(), "hush");
    }
}
