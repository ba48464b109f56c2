//! How a session is written: the keys of a `[[peer]]` and of a `[[range]]`.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use russet_bgp::{
    bfd,
    fsm::{LocalSpeaker, Opening, RemoteAs, SessionConfig},
    reflector::{NextHopRule, Relation},
    rib::{Limit, LimitAction},
    speaker::{PeerAddr, PeerSettings},
    wire::{
        Family, FamilySet, GracefulRestart, HoldTime, MessageLimit, NextHop, RestartFamily,
        RestartFlags,
    },
};
use russet_net::{Asn, IfName, Port, Prefix};
use serde::Deserialize;

use super::{BfdConfig, Hops, Password, PeerConfig, RangeConfig, faults::Faults, policy::Policies};

/// The keys of both, since most are common: a peer has an address or an interface, a range has a prefix.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
// A file has keys that are on or off.
#[allow(clippy::struct_excessive_bools)]
pub(super) struct RawSession {
    address: Option<String>,
    interface: Option<String>,
    prefix: Option<String>,
    limit: Option<usize>,
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
    extended_next_hop: Option<bool>,
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
    #[serde(default)]
    bfd: bool,
    bfd_interval: Option<u16>,
    bfd_multiplier: Option<u8>,
    bfd_multihop: Option<bool>,
}

/// What a session's check needs beside the session.
pub(super) struct Context<'a> {
    pub local: LocalSpeaker,
    pub restart_s: u16,
    pub policies: &'a Policies,
}

/// Whom a `[[peer]]` is about.
pub(super) enum Whom {
    Address(PeerAddr),
    /// Whoever is found on the link.
    Link(IfName),
}

/// What the session runs over, which its defaults follow from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Over {
    V4,
    V6,
    /// A link without numbers.
    Link,
}

impl Over {
    const fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

// ---- a table as a whole
impl RawSession {
    pub fn peer(
        self,
        place: &str,
        context: &Context<'_>,
        faults: &mut Faults<'_>,
    ) -> Option<(Whom, PeerConfig)> {
        let of_range = self.prefix.is_some() || self.limit.is_some();
        faults.check(place, !of_range, "prefix and limit are a range's");
        let (whom, over) = match (&self.address, &self.interface) {
            (Some(address), None) => {
                let at = format!("{place}.address");
                let addr: PeerAddr = faults.parse(&at, address)?;
                let local = matches!(addr.ip, IpAddr::V6(ip) if ip.is_unicast_link_local());
                let fits = local == addr.link.is_some();
                faults.check(&at, fits, "a link-local address, and no other, is ADDRESS%LINK");
                (Whom::Address(addr), Over::of(addr.ip))
            }
            (None, Some(link)) => {
                let link = faults.parse(&format!("{place}.interface"), link)?;
                (Whom::Link(link), Over::Link)
            }
            _ => {
                faults.tell(place, "either an address or an interface is wanted");
                return None;
            }
        };
        Some((whom, self.check(place, over, context, faults)))
    }

    pub fn range(
        self,
        place: &str,
        context: &Context<'_>,
        faults: &mut Faults<'_>,
    ) -> Option<RangeConfig> {
        let of_peer = self.address.is_some() || self.interface.is_some();
        faults.check(place, !of_peer, "address and interface are a peer's");
        let Some(text) = &self.prefix else {
            faults.tell(place, "a prefix is wanted");
            return None;
        };
        let prefix: Prefix = faults.parse(&format!("{place}.prefix"), text)?;
        let limit = self.limit.unwrap_or(USUAL_LIMIT);
        let mut peer = self.check(place, Over::of(prefix.addr()), context, faults);
        // Nobody knows whom to dial.
        peer.session.opening = Opening::Passive;
        Some(RangeConfig { prefix, limit, peer })
    }

    fn check(
        self,
        place: &str,
        over: Over,
        context: &Context<'_>,
        faults: &mut Faults<'_>,
    ) -> PeerConfig {
        let at = |key: &str| format!("{place}.{key}");
        let remote = faults.take(&at("asn"), remote_as(&self.asn)).unwrap_or(RemoteAs::External);
        let families = self.families(&at("families"), over, faults);
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
        let hops = match over {
            // Nobody on another link has such an address.
            Over::Link => Hops::AtMost(1),
            Over::V4 | Over::V6 => self.hops(&at("ttl"), is_internal, faults),
        };
        PeerConfig {
            session: SessionConfig {
                remote,
                ..self.session(place, families, over, context, faults)
            },
            settings: self.settings(place, families, context, faults),
            port: port.or_else(|| Port::try_from(BGP_PORT).ok()).unwrap_or(Port::VXLAN),
            source: self.source.as_ref().and_then(|text| faults.parse(&at("source"), text)),
            hops,
            bfd: self.bfd(place, hops, faults),
            password: self.password(place, faults),
            description: self.description,
            origin: None,
            next_hops,
        }
    }
}

// ---- its parts
impl RawSession {
    fn session(
        &self,
        place: &str,
        families: FamilySet,
        over: Over,
        context: &Context<'_>,
        faults: &mut Faults<'_>,
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
        let extended_next_hop = self.extended_next_hop.unwrap_or(over == Over::Link);
        SessionConfig {
            local: context.local,
            // The caller knows.
            remote: RemoteAs::External,
            opening: if self.passive { Opening::Passive } else { Opening::Active },
            hold: faults.take(&format!("{place}.hold-time"), hold).unwrap_or(HoldTime::USUAL),
            retry: Duration::from_secs(self.connect_retry.unwrap_or(USUAL_RETRY_S).max(1).into()),
            families,
            add_path_in,
            add_path_out,
            extended_next_hop: if extended_next_hop { v4 } else { FamilySet::EMPTY },
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
        faults: &mut Faults<'_>,
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
            own_as: 0,
            limits: Family::ALL.map(of),
        }
    }

    /// An external peer gets our own address unless EVPN's VTEPs are to stay.
    fn next_hop_rule(&self, local: Asn) -> NextHopRule {
        let external = !is_internal(remote_as(&self.asn).unwrap_or(RemoteAs::External), local);
        if self.next_hop_self || external { NextHopRule::Ours } else { NextHopRule::Keep }
    }

    fn families(&self, place: &str, over: Over, faults: &mut Faults<'_>) -> FamilySet {
        let (v4, v6) = (
            FamilySet::EMPTY.with(Family::Ipv4Unicast),
            FamilySet::EMPTY.with(Family::Ipv6Unicast),
        );
        match (&self.families, over) {
            (Some(names), _) => {
                let families: FamilySet =
                    names.iter().filter_map(|name| faults.parse(place, name)).collect();
                faults.check(place, !families.is_empty(), "there is none");
                families
            }
            (None, Over::V4) => v4,
            (None, Over::V6) => v6,
            (None, Over::Link) => v4.with(Family::Ipv6Unicast),
        }
    }

    fn hops(&self, place: &str, is_internal: bool, faults: &mut Faults<'_>) -> Hops {
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

    /// Single-hop for a peer that can be no further away, unless told.
    fn bfd(&self, place: &str, hops: Hops, faults: &mut Faults<'_>) -> Option<BfdConfig> {
        let at = |key: &str| format!("{place}.{key}");
        let detail = self.bfd_interval.is_some()
            || self.bfd_multiplier.is_some()
            || self.bfd_multihop.is_some();
        if !self.bfd {
            faults.check(place, !detail, "bfd is off, and has more said of it");
            return None;
        }
        let interval = self.bfd_interval.unwrap_or(USUAL_BFD_MS);
        let fits = (10..=60_000).contains(&interval);
        faults.check(&at("bfd-interval"), fits, "it is not 10 to 60000 milliseconds");
        let multiplier = bfd::Detection::new(self.bfd_multiplier.unwrap_or(USUAL_BFD_MULTIPLIER));
        faults.check(&at("bfd-multiplier"), multiplier.is_some(), "it is 0");
        let interval = bfd::Interval::from_millis(interval);
        let timing = bfd::Timing {
            desired_min_tx: interval,
            required_min_rx: interval,
            multiplier: multiplier?,
        };
        let near = matches!(hops, Hops::AtMost(1) | Hops::Counted(1));
        let hops = if self.bfd_multihop.unwrap_or(!near) {
            bfd::Hops::Multi { least: hops.least_left() }
        } else {
            bfd::Hops::Single
        };
        Some(BfdConfig { timing, hops })
    }

    fn password(&self, place: &str, faults: &mut Faults<'_>) -> Option<Password> {
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
        let password = Password::new(text);
        faults.check(&place, password.is_some(), "it has not 1 to 80 octets");
        password
    }
}

pub(in crate::bgp) fn restart(families: FamilySet, time_s: u16) -> GracefulRestart {
    // A speaker that forwards nothing itself loses no packet while it starts.
    let families = families
        .iter()
        .map(|family| RestartFamily { family: family.wire(), forwarding: true })
        .collect();
    let flags = RestartFlags { restarted: false, notification: true };
    GracefulRestart { flags, time_s, families }
}

/// Packets as often as usual, and as many missing; `None` never.
pub(in crate::bgp) fn watched_at_the_usual_pace() -> Option<bfd::Timing> {
    let interval = bfd::Interval::from_millis(USUAL_BFD_MS);
    Some(bfd::Timing {
        desired_min_tx: interval,
        required_min_rx: interval,
        multiplier: bfd::Detection::new(USUAL_BFD_MULTIPLIER)?,
    })
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
pub(super) fn asn(value: &toml::Value) -> Result<Asn, String> {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match text.parse::<Asn>() {
        Ok(Asn::ZERO) => Err("AS 0 is nobody".to_owned()),
        Ok(asn) => Ok(asn),
        Err(err) => Err(err.to_string()),
    }
}

const USUAL_LIMIT: usize = 100;
pub(in crate::bgp) const BGP_PORT: u32 = 179;
const USUAL_RETRY_S: u16 = 10;
const USUAL_BFD_MS: u16 = 300;
const USUAL_BFD_MULTIPLIER: u8 = 3;
