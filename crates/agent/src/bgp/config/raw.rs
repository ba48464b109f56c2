//! The form in which the speaker's configuration is written, before anything of it is believed.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use russet_bgp::{
    fsm::LocalSpeaker,
    speaker::PeerAddr,
    wire::{Attributes, ClusterId, RouterId},
};
use russet_net::{Asn, IfName, Prefix};
use serde::Deserialize;

use super::{
    BgpConfig, ConfigFaults, OwnRoute, PeerConfig, RangeConfig,
    faults::Faults,
    policy::Policies,
    session::{Context, RawSession, Whom, asn},
};

/// What stands at the top of the file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawTop {
    asn: toml::Value,
    router_id: String,
    cluster_id: Option<String>,
    #[serde(default = "everywhere")]
    listen: Vec<String>,
    #[serde(default = "usual_socket")]
    admin_socket: PathBuf,
    http: Option<String>,
    /// Seconds that peers keep our routes while we start anew; 0 is off.
    #[serde(default)]
    graceful_restart: u16,
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

/// Reads the file key by key, and checks everything.
pub(super) fn read(text: &str) -> Result<BgpConfig, ConfigFaults> {
    let mut faults = Faults::of(text);
    let top: Option<RawTop> = faults.top(&["peer", "range", "route", "policy"]);
    let policies = Policies::read(faults.list("policy"), &mut faults);
    let local = top.as_ref().and_then(|top| top.local(&mut faults));
    // What is below the top is read for its faults, too: nobody sees it without a whole top.
    let nobody = || Some(LocalSpeaker { asn: Asn::TRANS, id: RouterId::try_from(1).ok()? });
    let Some(speaker) = local.or_else(nobody) else { return faults.end(None) };
    let context = Context {
        local: speaker,
        restart_s: top.as_ref().map_or(0, |top| top.graceful_restart),
        policies: &policies,
    };
    let (peers, links) = read_peers(&context, &mut faults);
    let ranges = read_ranges(&context, &mut faults);
    let routes = (faults.list::<RawRoute>("route").into_iter())
        .filter_map(|(place, route)| route.check(&place, &mut faults))
        .collect();
    let config = top.map(|top| BgpConfig {
        local: speaker,
        cluster: top.cluster(speaker, &mut faults),
        listen: top.listen.iter().filter_map(|text| faults.parse("listen", text)).collect(),
        http: top.http.as_ref().and_then(|text| faults.parse("http", text)),
        admin_socket: top.admin_socket,
        peers,
        links,
        ranges,
        routes,
        marks: Vec::new(),
        gateways: BTreeMap::new(),
        withheld: Vec::new(),
        patience: Duration::from_secs(top.graceful_restart.into()),
    });
    faults.end(config)
}

impl RawTop {
    fn local(&self, faults: &mut Faults<'_>) -> Option<LocalSpeaker> {
        let asn = faults.take("asn", asn(&self.asn));
        let id: Option<Ipv4Addr> = faults.parse("router-id", &self.router_id);
        let id = id.and_then(|id| faults.take("router-id", RouterId::try_from(id)));
        let fits = self.graceful_restart <= 4_095;
        faults.check("graceful-restart", fits, "it is above 4095 seconds");
        Some(LocalSpeaker { asn: asn?, id: id? })
    }

    fn cluster(&self, local: LocalSpeaker, faults: &mut Faults<'_>) -> ClusterId {
        let told = self.cluster_id.as_ref();
        let told: Option<Ipv4Addr> = told.and_then(|text| faults.parse("cluster-id", text));
        told.map_or(local.id.into(), |told| ClusterId::new(told.into()))
    }
}

type Peers = (Vec<(PeerAddr, PeerConfig)>, Vec<(IfName, PeerConfig)>);

fn read_peers(context: &Context<'_>, faults: &mut Faults<'_>) -> Peers {
    let (mut addresses, mut names) = (BTreeSet::new(), BTreeSet::new());
    let (mut peers, mut links) = (Vec::new(), Vec::new());
    for (place, raw) in faults.list::<RawSession>("peer") {
        match raw.peer(&place, context, faults) {
            Some((Whom::Address(addr), peer)) => {
                faults.check(&place, addresses.insert(addr), "another peer has the same address");
                peers.push((addr, peer));
            }
            Some((Whom::Link(link), peer)) => {
                faults.check(&place, names.insert(link), "another peer is on the same interface");
                links.push((link, peer));
            }
            None => {}
        }
    }
    (peers, links)
}

fn read_ranges(context: &Context<'_>, faults: &mut Faults<'_>) -> Vec<RangeConfig> {
    let raw = faults.list::<RawSession>("range");
    raw.into_iter().filter_map(|(place, raw)| raw.range(&place, context, faults)).collect()
}

impl RawRoute {
    fn check(self, place: &str, faults: &mut Faults<'_>) -> Option<OwnRoute> {
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

fn everywhere() -> Vec<String> {
    [(IpAddr::from(Ipv4Addr::UNSPECIFIED)), Ipv6Addr::UNSPECIFIED.into()]
        .map(|addr| SocketAddr::new(addr, 179).to_string())
        .to_vec()
}

fn usual_socket() -> PathBuf {
    "/run/russet/bgp.sock".into()
}
