//! The form in which the speaker's configuration is written, before anything of it is believed.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
    time::Duration,
};

use russet_bgp::{
    fsm::{LocalSpeaker, Opening, RemoteAs, SessionConfig},
    reflector::{NextHopRule, Relation},
    rib::{Limit, LimitAction},
    speaker::PeerSettings,
    wire::{
        Attributes, ClusterId, Family, FamilySet, GracefulRestart, HoldTime, MessageLimit, NextHop,
        RestartFamily, RestartFlags, RouterId,
    },
};
use russet_net::{Asn, Port, Prefix};
use serde::Deserialize;

use super::{
    BgpConfig, ConfigFaults, Hops, OwnRoute, Password, PeerConfig, RangeConfig,
    policy::{Policies, RawPolicy},
};

/// The file, key by key.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RawBgp {
    asn: toml::Value,
    router_id: String,
    cluster_id: Option<String>,
    #[serde(default = "everywhere")]
    listen: Vec<String>,
    #[serde(default = "usual_socket")]
    admin_socket: PathBuf,
    /// Seconds that peers keep our routes while we start anew; 0 is off.
    #[serde(default)]
    graceful_restart: u16,
    #[serde(default)]
    peer: Vec<RawPeer>,
    #[serde(default)]
    range: Vec<RawRange>,
    #[serde(default)]
    route: Vec<RawRoute>,
    #[serde(default)]
    policy: Vec<RawPolicy>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawPeer {
    address: String,
    #[serde(flatten)]
    session: RawSession,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawRange {
    prefix: String,
    #[serde(default = "usual_limit")]
    limit: usize,
    #[serde(flatten)]
    session: RawSession,
}

/// What a peer and a range of peers have in common.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
// A file has keys that are on or off.
#[allow(clippy::struct_excessive_bools)]
struct RawSession {
    asn: toml::Value,
    description: Option<String>,
    port: Option<u32>,
    source: Option<String>,
    #[serde(default)]
    passive: bool,
    password: Option<String>,
    password_file: Option<PathBuf>,
    ttl: Option<u8>,
    ttl_security: Option<u8>,
    hold_time: Option<u16>,
    connect_retry: Option<u16>,
    families: Option<Vec<String>>,
    add_path: Option<String>,
    #[serde(default)]
    extended_next_hop: bool,
    #[serde(default)]
    extended_messages: bool,
    #[serde(default)]
    client: bool,
    #[serde(default)]
    next_hop_self: bool,
    next_hop_ipv4: Option<String>,
    next_hop_ipv6: Option<String>,
    max_prefixes: Option<u32>,
    max_prefixes_action: Option<String>,
    import: Option<String>,
    export: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawRoute {
    prefix: String,
    next_hop: Option<String>,
    local_pref: Option<u32>,
    med: Option<u32>,
    #[serde(default)]
    communities: Vec<String>,
}

impl RawBgp {
    /// Checks everything, and tells every fault.
    pub fn check(self) -> Result<BgpConfig, ConfigFaults> {
        let mut faults = Faults::default();
        let asn = faults.take("asn", asn(&self.asn)).unwrap_or(Asn::TRANS);
        let id: Option<Ipv4Addr> = faults.parse("router-id", &self.router_id);
        let id = id.and_then(|id| faults.take("router-id", RouterId::try_from(id)));
        let cluster = self.cluster_id.as_ref().map(|text| faults.parse("cluster-id", text));
        let listen = self.listen.iter().filter_map(|text| faults.parse("listen", text)).collect();
        let policies = Policies::read(self.policy, &mut faults);
        // Nobody sees it: without an identifier the configuration is refused.
        let id = id.or_else(|| RouterId::try_from(1).ok());
        let Some(id) = id else { return Err(ConfigFaults(faults.0)) };
        let context = Context {
            local: LocalSpeaker { asn, id },
            restart_s: self.graceful_restart,
            policies: &policies,
        };
        faults.check(
            "graceful-restart",
            self.graceful_restart <= 4_095,
            "it is above 4095 seconds",
        );
        let peers = read_peers(self.peer, &context, &mut faults);
        let ranges = read_ranges(self.range, &context, &mut faults);
        let routes = (self.route.iter().enumerate())
            .filter_map(|(n, route)| route.check(&format!("route[{n}]"), &mut faults))
            .collect();
        let cluster = cluster.flatten().map(|cluster: Ipv4Addr| ClusterId::new(cluster.into()));
        faults.end(BgpConfig {
            local: context.local,
            cluster: cluster.unwrap_or(id.into()),
            listen,
            admin_socket: self.admin_socket,
            peers,
            ranges,
            routes,
        })
    }
}

/// What a session's check needs beside the session.
struct Context<'a> {
    local: LocalSpeaker,
    restart_s: u16,
    policies: &'a Policies,
}

fn read_peers(
    raw: Vec<RawPeer>,
    context: &Context<'_>,
    faults: &mut Faults,
) -> Vec<(IpAddr, PeerConfig)> {
    let mut seen = BTreeSet::new();
    let mut peers = Vec::new();
    for (n, raw) in raw.into_iter().enumerate() {
        let place = format!("peer[{n}]");
        let addr: Option<IpAddr> = faults.parse(&format!("{place}.address"), &raw.address);
        let Some(addr) = addr else { continue };
        faults.check(&place, seen.insert(addr), "another peer has the same address");
        peers.push((addr, raw.session.check(&place, addr, context, faults)));
    }
    peers
}

fn read_ranges(raw: Vec<RawRange>, context: &Context<'_>, faults: &mut Faults) -> Vec<RangeConfig> {
    let mut ranges = Vec::new();
    for (n, raw) in raw.into_iter().enumerate() {
        let place = format!("range[{n}]");
        let prefix: Option<Prefix> = faults.parse(&format!("{place}.prefix"), &raw.prefix);
        let Some(prefix) = prefix else { continue };
        let mut peer = raw.session.check(&place, prefix.addr(), context, faults);
        // Nobody knows whom to dial.
        peer.session.opening = Opening::Passive;
        ranges.push(RangeConfig { prefix, limit: raw.limit, peer });
    }
    ranges
}

impl RawSession {
    fn check(
        self,
        place: &str,
        addr: IpAddr,
        context: &Context<'_>,
        faults: &mut Faults,
    ) -> PeerConfig {
        let at = |key: &str| format!("{place}.{key}");
        let remote = faults.take(&at("asn"), remote_as(&self.asn)).unwrap_or(RemoteAs::External);
        let families = self.families(&at("families"), addr, faults);
        let is_internal = is_internal(remote, context.local.asn);
        let port = faults.take(&at("port"), Port::try_from(self.port.unwrap_or(BGP_PORT)));
        let mut next_hop = |key: &str, text: &Option<String>| {
            let text = text.as_ref()?;
            faults.parse::<IpAddr>(&at(key), text).map(NextHop::from)
        };
        let next_hops = [
            next_hop("next-hop-ipv4", &self.next_hop_ipv4),
            next_hop("next-hop-ipv6", &self.next_hop_ipv6),
        ];
        faults.check(
            &at("client"),
            !self.client || is_internal,
            "only an internal peer can be one",
        );
        PeerConfig {
            session: self.session(place, families, remote, context, faults),
            settings: self.settings(place, families, context, faults),
            port: port.or_else(|| Port::try_from(BGP_PORT).ok()).unwrap_or(Port::VXLAN),
            source: self.source.as_ref().and_then(|text| faults.parse(&at("source"), text)),
            hops: self.hops(&at("ttl"), is_internal, faults),
            password: self.password(place, faults),
            description: self.description,
            next_hops,
        }
    }

    fn session(
        &self,
        place: &str,
        families: FamilySet,
        remote: RemoteAs,
        context: &Context<'_>,
        faults: &mut Faults,
    ) -> SessionConfig {
        let hold = self.hold_time.map_or(Ok(HoldTime::USUAL), HoldTime::try_from);
        let (add_path_in, add_path_out) = match self.add_path.as_deref() {
            None => (FamilySet::EMPTY, FamilySet::EMPTY),
            Some("receive") => (families, FamilySet::EMPTY),
            Some("send") => (FamilySet::EMPTY, families),
            Some("both") => (families, families),
            Some(_) => {
                faults.tell(&format!("{place}.add-path"), "receive, send or both is wanted");
                (FamilySet::EMPTY, FamilySet::EMPTY)
            }
        };
        let v4 = FamilySet::EMPTY.with(Family::Ipv4Unicast);
        SessionConfig {
            local: context.local,
            remote,
            opening: if self.passive { Opening::Passive } else { Opening::Active },
            hold: faults.take(&format!("{place}.hold-time"), hold).unwrap_or(HoldTime::USUAL),
            retry: Duration::from_secs(self.connect_retry.unwrap_or(USUAL_RETRY_S).max(1).into()),
            families,
            add_path_in,
            add_path_out,
            extended_next_hop: if self.extended_next_hop { v4 } else { FamilySet::EMPTY },
            limit: if self.extended_messages {
                MessageLimit::Extended
            } else {
                MessageLimit::Usual
            },
            restart: (context.restart_s > 0).then(|| restart(families, context.restart_s)),
        }
    }

    fn settings(
        &self,
        place: &str,
        families: FamilySet,
        context: &Context<'_>,
        faults: &mut Faults,
    ) -> PeerSettings {
        let action = match self.max_prefixes_action.as_deref() {
            None | Some("close") => LimitAction::Close,
            Some("warn") => LimitAction::Warn,
            Some("leave-out") => LimitAction::LeaveOut,
            Some(_) => {
                let place = format!("{place}.max-prefixes-action");
                faults.tell(&place, "close, warn or leave-out is wanted");
                LimitAction::Close
            }
        };
        let limit = |most: u32| Limit { most, warn_at: most - most / 4, action };
        let of =
            |family: Family| self.max_prefixes.filter(|_| families.contains(family)).map(limit);
        PeerSettings {
            internal: if self.client { Relation::Client } else { Relation::NonClient },
            import: context.policies.get(&format!("{place}.import"), self.import.as_ref(), faults),
            export: context.policies.get(&format!("{place}.export"), self.export.as_ref(), faults),
            next_hop: self.next_hop_rule(context.local.asn),
            limits: Family::ALL.map(of),
        }
    }

    /// An external peer gets our own address unless EVPN's VTEPs are to stay.
    fn next_hop_rule(&self, local: Asn) -> NextHopRule {
        let external = !is_internal(remote_as(&self.asn).unwrap_or(RemoteAs::External), local);
        if self.next_hop_self || external { NextHopRule::Ours } else { NextHopRule::Keep }
    }

    fn families(&self, place: &str, addr: IpAddr, faults: &mut Faults) -> FamilySet {
        match &self.families {
            Some(names) => {
                let families: FamilySet =
                    names.iter().filter_map(|name| faults.parse(place, name)).collect();
                faults.check(place, !families.is_empty(), "there is none");
                families
            }
            None if addr.is_ipv4() => FamilySet::EMPTY.with(Family::Ipv4Unicast),
            None => FamilySet::EMPTY.with(Family::Ipv6Unicast),
        }
    }

    fn hops(&self, place: &str, is_internal: bool, faults: &mut Faults) -> Hops {
        match (self.ttl, self.ttl_security) {
            (Some(_), Some(_)) => {
                faults.tell(place, "ttl and ttl-security exclude each other");
                Hops::Usual
            }
            (Some(0), _) | (_, Some(0)) => {
                faults.tell(place, "nothing gets anywhere with 0 hops");
                Hops::Usual
            }
            (None, Some(hops)) => Hops::Counted(hops),
            (Some(hops), None) => Hops::AtMost(hops),
            (None, None) if is_internal => Hops::Usual,
            // An external peer is on a shared link unless told (RFC 4271 §5.1.3).
            (None, None) => Hops::AtMost(1),
        }
    }

    fn password(&self, place: &str, faults: &mut Faults) -> Option<Password> {
        let place = format!("{place}.password");
        let text = match (&self.password, &self.password_file) {
            (Some(_), Some(_)) => {
                faults.tell(&place, "password and password-file exclude each other");
                return None;
            }
            (Some(text), None) => text.clone(),
            (None, Some(path)) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|err| format!("{}: {err}", path.display()));
                faults.take(&place, text)?.lines().next().unwrap_or_default().to_owned()
            }
            (None, None) => return None,
        };
        faults.check(&place, (1..=80).contains(&text.len()), "it has not 1 to 80 octets");
        Some(Password(text))
    }
}

impl RawRoute {
    fn check(&self, place: &str, faults: &mut Faults) -> Option<OwnRoute> {
        let prefix: Prefix = faults.parse(&format!("{place}.prefix"), &self.prefix)?;
        let next_hop = match &self.next_hop {
            Some(text) => faults.parse(&format!("{place}.next-hop"), text)?,
            None => prefix.family().unspecified(),
        };
        let place = format!("{place}.communities");
        let communities =
            self.communities.iter().filter_map(|text| faults.parse(&place, text)).collect();
        let attributes = Attributes {
            local_pref: self.local_pref,
            med: self.med,
            communities,
            ..Attributes::default()
        };
        Some(OwnRoute { key: prefix.into(), attributes, next_hop: next_hop.into() })
    }
}

fn restart(families: FamilySet, time_s: u16) -> GracefulRestart {
    // A speaker that forwards nothing itself loses no packet while it starts.
    let families = families
        .iter()
        .map(|family| RestartFamily { family: family.wire(), forwarding: true })
        .collect();
    let flags = RestartFlags { restarted: false, notification: true };
    GracefulRestart { flags, time_s, families }
}

fn is_internal(remote: RemoteAs, local: Asn) -> bool {
    remote == RemoteAs::Internal || remote == RemoteAs::Is(local)
}

fn remote_as(value: &toml::Value) -> Result<RemoteAs, String> {
    match value.as_str() {
        Some("internal") => Ok(RemoteAs::Internal),
        Some("external") => Ok(RemoteAs::External),
        _ => asn(value).map(RemoteAs::Is),
    }
}

/// A number, or a text for the form with a dot.
fn asn(value: &toml::Value) -> Result<Asn, String> {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match text.parse::<Asn>() {
        Ok(Asn::ZERO) => Err("AS 0 is nobody".to_owned()),
        Ok(asn) => Ok(asn),
        Err(err) => Err(err.to_string()),
    }
}

/// What is wrong so far, each with its place.
#[derive(Debug, Default)]
pub(super) struct Faults(Vec<String>);

impl Faults {
    pub fn tell(&mut self, place: &str, what: &str) {
        self.0.push(format!("{place}: {what}"));
    }

    pub fn check(&mut self, place: &str, holds: bool, otherwise: &str) {
        if !holds {
            self.tell(place, otherwise);
        }
    }

    pub fn take<T, E: ToString>(&mut self, place: &str, read: Result<T, E>) -> Option<T> {
        read.map_err(|err| self.tell(place, &err.to_string())).ok()
    }

    pub fn parse<T: FromStr<Err: ToString>>(&mut self, place: &str, text: &str) -> Option<T> {
        let read = text.parse().map_err(|err: T::Err| format!("{text:?}: {}", err.to_string()));
        self.take(place, read)
    }

    fn end(self, config: BgpConfig) -> Result<BgpConfig, ConfigFaults> {
        if self.0.is_empty() { Ok(config) } else { Err(ConfigFaults(self.0)) }
    }
}

fn everywhere() -> Vec<String> {
    [(IpAddr::from(Ipv4Addr::UNSPECIFIED)), Ipv6Addr::UNSPECIFIED.into()]
        .map(|addr| SocketAddr::new(addr, 179).to_string())
        .to_vec()
}

fn usual_socket() -> PathBuf {
    "/run/russet/bgp.sock".into()
}

const fn usual_limit() -> usize {
    100
}

const BGP_PORT: u32 = 179;
const USUAL_RETRY_S: u16 = 10;
