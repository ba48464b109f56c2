//! The speaker's metrics, in Prometheus' text form, made of what `russet bgp status` shows: nothing is counted here.

use http_body_util::Full;
use hyper::{Response, StatusCode, body::Bytes};
use russet_api::bgp::{Answer, Ask, PeerRow, Status};
use tokio::sync::{mpsc, oneshot};

use super::admin::Question;
use crate::{
    http::{Pages, page},
    metrics::form::{Kind, Metric, Values, count, text},
};

/// The page `/metrics` of a speaker that is asked by this.
#[derive(Clone, Debug)]
pub struct Site(pub mpsc::Sender<Question>);

impl Pages for Site {
    async fn page(&self, path: &str) -> Response<Full<Bytes>> {
        if path != "/metrics" {
            return page(StatusCode::NOT_FOUND, "there is /metrics\n".into());
        }
        match self.status().await {
            Some(status) => page(StatusCode::OK, text(PREFIX, metrics(&status))),
            None => page(StatusCode::SERVICE_UNAVAILABLE, "the speaker is stopping\n".into()),
        }
    }
}

impl Site {
    /// The whole status, page by page.
    async fn status(&self) -> Option<Status> {
        let mut status = self.ask(0).await?;
        while status.peers.rows.len() < status.peers.total {
            let more = self.ask(status.peers.rows.len()).await?.peers.rows;
            if more.is_empty() {
                break;
            }
            status.peers.rows.extend(more);
        }
        Some(status)
    }

    async fn ask(&self, from: usize) -> Option<Status> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Question { ask: Ask::Status { from }, answer }).await.ok()?;
        match answered.await {
            Ok(Answer::Status(status)) => Some(*status),
            _ => None,
        }
    }
}

fn metrics(status: &Status) -> Vec<Metric> {
    use Kind::{Counter, Gauge};

    let destinations = status.families.iter();
    let destinations = destinations
        .map(|family| (vec![("family", family.family.clone())], count(family.destinations)));
    let rows = &status.peers.rows;
    let by_peer = |of: &dyn Fn(&PeerRow) -> u64| {
        rows.iter().map(|row| (vec![("peer", row.address.clone())], of(row))).collect()
    };
    let metric = |name, help, kind, values| Metric { name, help, kind, values };
    let peer =
        |name, help, kind, of: &dyn Fn(&PeerRow) -> u64| metric(name, help, kind, by_peer(of));
    vec![
        metric("destinations", "Destinations with a route", Gauge, destinations.collect()),
        Metric::of(
            "attribute_sets",
            "Different sets of attributes",
            Gauge,
            count(status.attribute_sets),
        ),
        Metric::of(
            "strangers",
            "Connections that nobody configured, or beyond a limit",
            Counter,
            status.strangers,
        ),
        peer("peer_up", "Whether the session is established", Gauge, &|row| {
            u64::from(row.state == "Established")
        }),
        peer("sessions", "Sessions that were established", Counter, &|row| row.times_up),
        metric(
            "peer_messages",
            "Messages of the session",
            Counter,
            both_ways(rows, |row| [row.messages_in, row.messages_out]),
        ),
        metric(
            "peer_octets",
            "Octets of the session",
            Counter,
            both_ways(rows, |row| [row.octets_in, row.octets_out]),
        ),
        peer("peer_discarded", "Updates of which attributes were left out", Counter, &|row| {
            row.discarded
        }),
        peer("peer_withdrawn", "Updates whose routes count as withdrawn", Counter, &|row| {
            row.treated_as_withdraw
        }),
        peer("peer_refreshes", "Requests for a refresh", Counter, &|row| row.refreshes),
        metric("peer_routes", "Routes received", Gauge, by_family(rows, |f| f.received.into())),
        metric(
            "peer_stale",
            "Whether its routes are kept while it restarts",
            Gauge,
            by_family(rows, |f| f.stale.into()),
        ),
        metric(
            "bfd_up",
            "Whether the BFD session is up",
            Gauge,
            by_bfd(rows, |bfd| u64::from(bfd.state == "Up")),
        ),
        metric(
            "bfd_downs",
            "BFD sessions that were up and went down",
            Counter,
            by_bfd(rows, |bfd| bfd.downs),
        ),
    ]
}

fn both_ways(rows: &[PeerRow], of: impl Fn(&PeerRow) -> [u64; 2]) -> Values {
    let ways = |row: &PeerRow| {
        let label = |way: &str| vec![("peer", row.address.clone()), ("direction", way.to_owned())];
        ["in", "out"].map(label).into_iter().zip(of(row)).collect::<Vec<_>>()
    };
    rows.iter().flat_map(ways).collect()
}

fn by_family(rows: &[PeerRow], of: impl Fn(&russet_api::bgp::PeerFamily) -> u64) -> Values {
    let families = |row: &PeerRow| {
        let label =
            |family: &str| vec![("peer", row.address.clone()), ("family", family.to_owned())];
        row.families.iter().map(|f| (label(&f.family), of(f))).collect::<Vec<_>>()
    };
    rows.iter().flat_map(families).collect()
}

fn by_bfd(rows: &[PeerRow], of: impl Fn(&russet_api::bgp::BfdRow) -> u64) -> Values {
    let watched = rows.iter().filter_map(|row| Some((row, row.bfd.as_ref()?)));
    watched.map(|(row, bfd)| (vec![("peer", row.address.clone())], of(bfd))).collect()
}

/// What every name begins with.
const PREFIX: &str = "russet_bgp";

#[cfg(test)]
mod tests {
    use russet_api::bgp::PeerFamily;

    use super::*;

    #[test]
    fn a_scrape_has_each_peer_and_family() {
        let family =
            PeerFamily { family: "ipv4-unicast".to_owned(), received: 7, ..PeerFamily::default() };
        let mut status = Status::default();
        status.peers.rows = vec![PeerRow {
            address: "10.0.0.2".to_owned(),
            state: "Established".to_owned(),
            families: vec![family],
            octets_out: 99,
            times_up: 2,
            ..PeerRow::default()
        }];
        let text = text(PREFIX, metrics(&status));
        for wanted in [
            "# TYPE russet_bgp_peer_up gauge",
            "russet_bgp_peer_up{peer=\"10.0.0.2\"} 1",
            "russet_bgp_sessions_total{peer=\"10.0.0.2\"} 2",
            "russet_bgp_peer_routes{peer=\"10.0.0.2\",family=\"ipv4-unicast\"} 7",
            "russet_bgp_peer_octets_total{peer=\"10.0.0.2\",direction=\"out\"} 99",
        ] {
            assert!(text.lines().any(|line| line == wanted), "{wanted} is missing in\n{text}");
        }
    }
}
