//! What the operator is shown: the speaker's and the peers' state and the routes, as the admin socket has them.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Instant};

use russet_api::{
    admin::Page,
    bgp::{
        Answer, Ask, BfdRow, FamilyCount, ObjectRow, PathRow, PeerFamily, PeerRow, RouteRow,
        Routes, Status,
    },
    calico::Kind,
};
use russet_bgp::{
    bfd,
    fsm::{Direction, Negotiated, RemoteAs},
    rib::{Age, PathView, RouteView, Source, Standing},
    speaker::{Counters, PeerAddr, Speaker},
    wire::{AsWidth, Family, MessageLimit, NlriKey, PathId, Tail},
};
use russet_net::{IfName, Prefix};

use super::{
    bfd::{BfdState, describe},
    manager::Manager,
    peer::PeerState,
    resources::{Grade, Report, name_of},
    routes::Gone,
};

impl Manager {
    /// Answers a question that changes nothing.
    pub async fn show(&self, ask: Ask) -> Answer {
        let answer = match ask {
            Ask::Status { from } => self.status(from).await,
            Ask::Peer { address } => self.peer(&address).await,
            Ask::Routes { family, from } => self.routes_from(&family, from).await,
            Ask::Route { prefix } => self.route(&prefix).await,
            Ask::Dump { .. } | Ask::Reload => Ok(Answer::Error("it is no question".into())),
        };
        answer.unwrap_or_else(|Gone| Answer::Error("the speaker is about to stop".into()))
    }

    async fn status(&self, from: usize) -> Result<Answer, Gone> {
        let unheard = self.unheard();
        let total = self.peers.len() + unheard.len();
        let mut rows = Vec::new();
        for (addr, peer) in self.peers.iter().skip(from).take(PEERS) {
            let Some(state) = peer.handle.ask().await else { continue };
            rows.push(self.row(*addr, &state).await?);
        }
        let before = self.peers.len();
        let unheard = unheard.into_iter().skip(from.saturating_sub(before));
        rows.extend(unheard.take(PEERS.saturating_sub(rows.len())).map(unheard_row));
        let reports = self.reports.iter().filter(|_| from == 0).map(report_row);
        let objects = reports.chain(rows.iter().filter_map(session_fault)).collect();
        let (families, attribute_sets) = self.routes.ask(|speaker| counts(speaker)).await?;
        Ok(Answer::Status(Box::new(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            asn: self.config.local.asn.get(),
            router_id: self.config.local.id.to_string(),
            cluster_id: self.config.cluster.to_string(),
            listen: self.config.listen.iter().map(ToString::to_string).collect(),
            families,
            attribute_sets,
            peers: Page { total, rows },
            strangers: self.strangers,
            refused_configuration: self.refused.clone(),
            objects,
        })))
    }

    async fn peer(&self, address: &str) -> Result<Answer, Gone> {
        if let Some(addr) = self.named(address)
            && let Some(peer) = self.peers.get(&addr)
            && let Some(state) = peer.handle.ask().await
        {
            return Ok(Answer::Peer(Box::new(self.row(addr, &state).await?)));
        }
        let unheard = self.unheard().into_iter().find(|link| link.as_str() == address);
        Ok(match unheard {
            Some(link) => Answer::Peer(Box::new(unheard_row(link))),
            None => Answer::Error(format!("there is no peer {address:?}")),
        })
    }

    /// The peer of that address, or on that link.
    fn named(&self, text: &str) -> Option<PeerAddr> {
        let on = |link: IfName| self.peers.keys().copied().find(|addr| addr.link == Some(link));
        text.parse().ok().or_else(|| on(text.parse().ok()?))
    }

    /// The links on which a peer is wanted and nobody was heard.
    fn unheard(&self) -> Vec<IfName> {
        let links = self.config.links.iter().map(|(link, _)| *link);
        links.filter(|link| !self.peers.keys().any(|addr| addr.link == Some(*link))).collect()
    }

    async fn routes_from(&self, family: &str, from: u32) -> Result<Answer, Gone> {
        let family: Family = match family.parse() {
            Ok(family) => family,
            Err(err) => return Ok(Answer::Error(format!("{err}"))),
        };
        let (rows, next) = (self.routes)
            .ask(move |speaker| {
                let (views, next) = speaker.rib().routes(family, from, ROUTES);
                (rows(speaker, &views), next)
            })
            .await?;
        Ok(Answer::Routes(Routes { rows, next }))
    }

    async fn route(&self, prefix: &str) -> Result<Answer, Gone> {
        let key: NlriKey = match prefix.parse::<Prefix>() {
            Ok(prefix) => prefix.into(),
            Err(err) => return Ok(Answer::Error(err.to_string())),
        };
        let rows = (self.routes)
            .ask(move |speaker| rows(speaker, speaker.rib().route(&key).as_slice()))
            .await?;
        Ok(Answer::Routes(Routes { rows, next: None }))
    }

    async fn row(&self, addr: PeerAddr, state: &PeerState) -> Result<PeerRow, Gone> {
        let families = state.config.session.families;
        let (counters, families) = (self.routes)
            .ask(move |speaker| {
                let rows =
                    families.iter().map(|family| family_row(speaker, addr, family)).collect();
                (speaker.counters(addr).unwrap_or_default(), rows)
            })
            .await?;
        let mut row = peer_row(addr, state, counters, families);
        let until = self.handover.held().find(|(held, _)| *held == addr).map(|(_, until)| until);
        row.leaves_in_s =
            until.map(|until| until.saturating_duration_since(Instant::now()).as_secs());
        Ok(row)
    }
}

fn counts(speaker: &Speaker) -> (Vec<FamilyCount>, usize) {
    let rib = speaker.rib();
    let count = |family: Family| FamilyCount {
        family: family.to_string(),
        destinations: rib.count(family),
    };
    (Family::ALL.map(count).to_vec(), rib.attribute_sets())
}

fn family_row(speaker: &Speaker, addr: PeerAddr, family: Family) -> PeerFamily {
    let source = speaker.source_of(addr);
    PeerFamily {
        family: family.to_string(),
        received: source.map_or(0, |source| speaker.rib().count_of(source, family)),
        end_of_rib: speaker.told_by(addr).contains(family),
        stale: speaker.retained(addr).contains(family),
    }
}

/// A link on which nobody was heard.
fn unheard_row(link: IfName) -> PeerRow {
    PeerRow {
        address: link.to_string(),
        state: "Idle".to_owned(),
        last_error: Some("no router was heard on the link".to_owned()),
        ..PeerRow::default()
    }
}

fn peer_row(
    addr: PeerAddr,
    state: &PeerState,
    counters: Counters,
    families: Vec<PeerFamily>,
) -> PeerRow {
    let negotiated = state.negotiated.as_ref();
    let traffic = &state.traffic;
    let origin = state.config.origin.as_ref();
    PeerRow {
        address: addr.to_string(),
        description: state.config.description.clone(),
        kind: origin.map(|origin| name_of(origin.kind).to_owned()),
        object: origin.and_then(|origin| origin.object.as_ref()).map(ToString::to_string),
        node: origin.and_then(|origin| origin.node.as_ref()).map(ToString::to_string),
        leaves_in_s: None,
        asn: negotiated.map_or_else(
            || match state.config.session.remote {
                RemoteAs::Is(asn) => asn.to_string(),
                RemoteAs::Internal => "internal".to_owned(),
                RemoteAs::External => "external".to_owned(),
            },
            |negotiated| negotiated.peer_asn.to_string(),
        ),
        state: state.state.to_string(),
        router_id: negotiated.map(|negotiated| negotiated.peer_id.to_string()),
        direction: state.direction.map(|direction| match direction {
            Direction::Incoming => "incoming".to_owned(),
            Direction::Outgoing => "outgoing".to_owned(),
        }),
        up_s: state.up.map(|up| up.as_secs()),
        last_error: state.last.clone(),
        hold_time_s: negotiated.map(|negotiated| negotiated.hold.get()),
        capabilities: negotiated.map(capabilities).unwrap_or_default(),
        families,
        messages_in: traffic.messages_in.load(Ordering::Relaxed),
        messages_out: traffic.messages_out.load(Ordering::Relaxed),
        octets_in: traffic.octets_in.load(Ordering::Relaxed),
        octets_out: traffic.octets_out.load(Ordering::Relaxed),
        discarded: counters.discarded,
        treated_as_withdraw: counters.treated_as_withdraw,
        refreshes: counters.refreshes,
        times_up: state.times_up,
        bfd: state.bfd.as_ref().map(bfd_row),
    }
}

fn report_row(report: &Report) -> ObjectRow {
    ObjectRow {
        kind: report.kind.to_string(),
        name: report.name.to_string(),
        grade: report.grade.to_string(),
        reason: report.reason.clone(),
    }
}

/// Why a session that an object says does not stand, at that object; of the mesh at the node.
fn session_fault(row: &PeerRow) -> Option<ObjectRow> {
    let why = row.last_error.as_ref().filter(|_| row.state != ESTABLISHED)?;
    row.kind.as_ref()?;
    let (kind, name) = match (&row.object, &row.node) {
        (Some(object), _) => (Kind::BgpPeer, object),
        (None, Some(node)) => (Kind::Node, node),
        (None, None) => return None,
    };
    Some(ObjectRow {
        kind: kind.to_string(),
        name: name.clone(),
        grade: Grade::Fault.to_string(),
        reason: format!("{}: no session: {why}", row.address),
    })
}

fn bfd_row(bfd: &BfdState) -> BfdRow {
    BfdRow {
        state: match bfd.state {
            bfd::State::AdminDown => "AdminDown",
            bfd::State::Down => "Down",
            bfd::State::Init => "Init",
            bfd::State::Up => "Up",
        }
        .to_owned(),
        detection_ms: bfd.detection.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX)),
        downs: bfd.downs,
        last_error: bfd.fault.clone().or_else(|| bfd.last.map(describe)),
    }
}

/// What both sides can do, in words.
fn capabilities(negotiated: &Negotiated) -> Vec<String> {
    let terms = negotiated.terms;
    let mut words = vec![format!("families {}", terms.families)];
    if terms.as_width == AsWidth::Four {
        words.push("four-octet AS".to_owned());
    }
    if negotiated.refresh.is_yes() {
        words.push("route refresh".to_owned());
    }
    if negotiated.enhanced_refresh.is_yes() {
        words.push("enhanced refresh".to_owned());
    }
    if terms.limit == MessageLimit::Extended {
        words.push("extended messages".to_owned());
    }
    for (set, word) in [
        (terms.add_path_in, "add-path receive"),
        (terms.add_path_out, "add-path send"),
        (terms.extended_next_hop, "extended next hop"),
    ] {
        if !set.is_empty() {
            words.push(format!("{word} {set}"));
        }
    }
    if let Some(restart) = &negotiated.restart {
        words.push(format!("graceful restart {} s", restart.time_s));
    }
    if negotiated.survives_notification.is_yes() {
        words.push("graceful restart after notification".to_owned());
    }
    words
}

fn rows(speaker: &Speaker, views: &[RouteView]) -> Vec<RouteRow> {
    // A page has many paths of few peers.
    let mut names = BTreeMap::new();
    let mut row = |view: &RouteView| RouteRow {
        prefix: view.key.to_string(),
        paths: view.paths.iter().map(|path| path_row(speaker, path, &mut names)).collect(),
    };
    views.iter().map(&mut row).collect()
}

fn path_row(speaker: &Speaker, path: &PathView, names: &mut BTreeMap<Source, String>) -> PathRow {
    let from = names.entry(path.source).or_insert_with(|| match speaker.addr_of(path.source) {
        Some(addr) => addr.to_string(),
        None => "here".to_owned(),
    });
    let attributes = path.attrs.attributes();
    let communities = attributes.communities.iter().map(ToString::to_string);
    let extended = attributes.ext_communities.iter().map(ToString::to_string);
    let large = attributes.large_communities.iter().map(ToString::to_string);
    PathRow {
        from: from.clone(),
        path_id: Some(path.path_id).filter(|id| *id != PathId::NONE).map(PathId::get),
        next_hop: path.attrs.next_hop.to_string(),
        as_path: attributes.as_path.to_string(),
        origin: format!("{:?}", attributes.origin).to_lowercase(),
        local_pref: attributes.local_pref,
        med: attributes.med,
        communities: communities.chain(extended).chain(large).collect(),
        originator_id: attributes.originator_id.map(|id| id.to_string()),
        cluster_list: attributes.cluster_list.iter().map(ToString::to_string).collect(),
        detail: detail(path.attrs.tail),
        best: path.standing == Standing::Eligible && path.lost_at.is_none(),
        why: why(path),
        stale: path.age == Age::Stale,
    }
}

/// Why a path is the best, at which step it lost, or what dropped it.
fn why(path: &PathView) -> String {
    match (path.standing, path.lost_at) {
        (Standing::Eligible, None) => "it is the best".to_owned(),
        (Standing::Eligible, Some(step)) if path.used => {
            format!("used too; it is behind by {step}")
        }
        (Standing::Eligible, Some(step)) => format!("another is better by {step}"),
        (Standing::AsLoop, _) => "dropped: our AS is in its path".to_owned(),
        (Standing::OriginatorLoop, _) => "dropped: we are its originator".to_owned(),
        (Standing::ClusterLoop, _) => "dropped: it came through our cluster".to_owned(),
        (Standing::Unreachable, _) => "dropped: its next hop is not to be reached".to_owned(),
        (Standing::Policy, _) => {
            format!("dropped on import: {}", path.rule.as_deref().unwrap_or("its rule is gone"))
        }
    }
}

fn detail(tail: Tail) -> Option<String> {
    match tail {
        Tail::None => None,
        Tail::EthernetAd { label } => Some(format!("label {}", label.vni())),
        Tail::MacIp { esi, label_1, label_2 } => {
            let second =
                label_2.map(|label| format!(", routed {}", label.vni())).unwrap_or_default();
            Some(format!("esi {esi}, label {}{second}", label_1.vni()))
        }
        Tail::Prefix { gateway, label, .. } => {
            Some(format!("gateway {gateway}, label {}", label.vni()))
        }
    }
}

const ESTABLISHED: &str = "Established";
/// The most peers in one answer, and the most routes: with the longest of each they stay below a frame's bound.
const PEERS: usize = 500;
const ROUTES: usize = 200;
