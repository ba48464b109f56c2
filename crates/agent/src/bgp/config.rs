//! What the speaker is told: a TOML file, read whole and checked whole.
//!
//! `raw` has the form that is read; here it becomes the checked [`BgpConfig`], or every fault of it at once.

mod policy;
mod raw;

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

use russet_bgp::{
    fsm::{LocalSpeaker, SessionConfig},
    speaker::PeerSettings,
    wire::{Attributes, ClusterId, NextHop, NlriKey},
};
use russet_net::{Port, Prefix};

use self::raw::RawBgp;
use crate::config::ConfigFaults;

/// The speaker's checked configuration.
#[derive(Clone, Debug)]
pub struct BgpConfig {
    pub local: LocalSpeaker,
    pub cluster: ClusterId,
    pub listen: Vec<SocketAddr>,
    pub admin_socket: PathBuf,
    pub peers: Vec<(IpAddr, PeerConfig)>,
    pub ranges: Vec<RangeConfig>,
    /// Routes of our own.
    pub routes: Vec<OwnRoute>,
}

/// One peer. Equal configurations make equal sessions, so one that did not change is left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    pub description: Option<String>,
    pub session: SessionConfig,
    pub settings: PeerSettings,
    pub port: Port,
    pub source: Option<IpAddr>,
    pub password: Option<Password>,
    pub hops: Hops,
    /// Our next hop towards the peer for IPv6 routes of an IPv4 session, and the other way round.
    pub next_hops: [Option<NextHop>; 2],
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

/// A shared secret that no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
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
        // The parser's text names line and column, and shows the line.
        let raw: RawBgp = toml::from_str(text)
            .map_err(|err| ConfigFaults(vec![err.to_string().trim_end().to_owned()]))?;
        raw.check()
    }

    /// The range that an address lies in, the longest prefix first.
    pub fn range_of(&self, addr: IpAddr) -> Option<&RangeConfig> {
        let within = self.ranges.iter().filter(|range| range.prefix.contains(addr));
        within.max_by_key(|range| range.prefix.len())
    }

    pub fn peer(&self, addr: IpAddr) -> Option<&PeerConfig> {
        self.peers.iter().find(|(other, _)| *other == addr).map(|(_, peer)| peer)
    }

    /// Whose connections are to be signed, and with what.
    pub fn passwords(&self) -> Vec<(Prefix, Password)> {
        let peers = self.peers.iter().map(|(addr, peer)| (Prefix::host(*addr), peer));
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
        let peer = config.peer([10, 0, 0, 2].into()).unwrap();
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
                err.0.iter().any(|fault| fault.starts_with(place)),
                "{place} is missing in {err}"
            );
        }
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line() {
        let err = read("[[peer]]\naddress = '10.0.0.2'\nasn = 1\nhold-tim = 3\n").unwrap_err();
        assert!(err.to_string().contains("hold-tim"), "{err}");
        let err = read("clusterid = '1.1.1.1'\n").unwrap_err();
        assert!(err.to_string().contains("line 3"), "{err}");
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
