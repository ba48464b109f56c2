//! What the engines of this node count, asked for at each scrape: nothing of it is kept here.

use std::path::Path;

use russet_kernel::engine::{
    Client, EngineError, links_in, socket_in,
    wire::{PeerCount, Totals},
};
use russet_net::IfName;

use super::form::{Kind, Metric, Values};
use crate::one_line;

/// One engine's counters. Those of an engine that does not answer are missing, and `up` is 0.
#[derive(Clone, Debug)]
pub struct EngineCounts {
    pub link: IfName,
    pub counted: Option<(Totals, Vec<PeerCount>)>,
}

/// Asks every engine that has a socket in `folder`. It takes as long as they do, a few seconds at most each.
pub fn ask_all(folder: &Path) -> Vec<EngineCounts> {
    let links = links_in(folder).unwrap_or_else(|error| {
        tracing::warn!(path = %folder.display(), %error, op = "list engines");
        Vec::new()
    });
    let ask = |link: IfName| {
        let counted = ask(&socket_in(folder, link));
        if let Err(error) = &counted {
            tracing::debug!(ifname = %link, error = one_line(error), op = "ask engine");
        }
        EngineCounts { link, counted: counted.ok().flatten() }
    };
    links.into_iter().map(ask).collect()
}

/// `None` from an engine that was not started yet.
fn ask(path: &Path) -> Result<Option<(Totals, Vec<PeerCount>)>, EngineError> {
    let client = Client::connect(path)?;
    client.hello()?.0.spec.map(|_| client.status()).transpose()
}

pub(super) fn metrics(engines: &[EngineCounts]) -> Vec<Metric> {
    let metric = |name, help, kind, values| Metric { name, help, kind, values };
    let up = |engine: &EngineCounts| (link(engine), u64::from(engine.counted.is_some()));
    let answers = |(engine, totals, _): Counted<'_>| vec![(link(engine), totals.answers)];
    let ages = |peer: &PeerCount| peer.handshake.map(|age| (Vec::new(), age));
    vec![
        metric(
            "engine_up",
            "Whether the engine of a userspace transport answers",
            Kind::Gauge,
            engines.iter().map(up).collect(),
        ),
        metric(
            "engine_dropped_packets",
            "Packets that the engine dropped",
            Kind::Counter,
            of_each(engines, drops),
        ),
        metric(
            "engine_icmp_answers",
            "Answers by ICMP to senders of this node",
            Kind::Counter,
            of_each(engines, answers),
        ),
        metric(
            "engine_calls",
            "Calls that moved up to so many packets at once",
            Kind::Counter,
            of_each(engines, calls),
        ),
        metric(
            "engine_peer_packets",
            "Packets carried to and from a peer",
            Kind::Counter,
            of_each_peer(engines, |peer| both_ways(peer, 0)),
        ),
        metric(
            "engine_peer_bytes",
            "Octets carried to and from a peer",
            Kind::Counter,
            of_each_peer(engines, |peer| both_ways(peer, 1)),
        ),
        metric(
            "engine_peer_handshake_age_seconds",
            "Seconds since hands were shaken with a peer whose packets are sealed",
            Kind::Gauge,
            of_each_peer(engines, |peer| ages(peer).into_iter().collect()),
        ),
    ]
}

/// An engine that answered, and what it counts.
type Counted<'a> = (&'a EngineCounts, &'a Totals, &'a [PeerCount]);

fn of_each(engines: &[EngineCounts], values: impl Fn(Counted<'_>) -> Values) -> Values {
    let counted = engines.iter().filter_map(|engine| {
        let (totals, peers) = engine.counted.as_ref()?;
        Some((engine, totals, peers.as_slice()))
    });
    counted.flat_map(values).collect()
}

/// Values of each peer, whose labels come after those of its engine and its own.
fn of_each_peer(engines: &[EngineCounts], values: impl Fn(&PeerCount) -> Values) -> Values {
    of_each(engines, |(engine, _, peers)| {
        let labelled = |peer: &PeerCount| {
            let mut labels = link(engine);
            labels.push(("peer", peer.endpoint.to_string()));
            let with = |(more, value)| ([labels.clone(), more].concat(), value);
            values(peer).into_iter().map(with).collect::<Values>()
        };
        peers.iter().flat_map(labelled).collect()
    })
}

fn link(engine: &EngineCounts) -> Vec<(&'static str, String)> {
    vec![("link", engine.link.to_string())]
}

fn drops((engine, totals, _): Counted<'_>) -> Values {
    let row = |(reason, count): &(String, u64)| {
        ([link(engine), vec![("reason", reason.clone())]].concat(), *count)
    };
    totals.losses.iter().map(row).collect()
}

fn calls((engine, totals, _): Counted<'_>) -> Values {
    let ways =
        [("sent", &totals.sent), ("received", &totals.received), ("written", &totals.written)];
    let rows = |(way, sizes): (&str, &Vec<u64>)| {
        let row = |(packets, count): (&str, &u64)| {
            let more = vec![("way", way.to_owned()), ("packets", packets.to_owned())];
            ([link(engine), more].concat(), *count)
        };
        CLASSES.into_iter().zip(sizes).map(row).collect::<Values>()
    };
    ways.into_iter().flat_map(rows).collect()
}

/// What was sent and received: packets at the first place, octets at the second.
fn both_ways(peer: &PeerCount, place: usize) -> Values {
    let ways = [("sent", peer.sent), ("received", peer.received)];
    ways.map(|(way, counts)| (vec![("way", way.to_owned())], counts[place])).into()
}

/// The classes of [`Totals`]' sizes.
const CLASSES: [&str; 8] = ["1", "2", "4", "8", "16", "32", "64", "more"];
