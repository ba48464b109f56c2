//! What the engines of this node count, asked for at each scrape: nothing of it is kept here.

use std::{fmt, net::SocketAddr, path::Path};

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};
use russet_kernel::engine::{
    Client, EngineError, links_in,
    wire::{PeerCount, Totals},
};
use russet_net::IfName;

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
        let counted = ask(&folder.join(format!("{link}.sock")));
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

/// Writes all of it.
pub(super) fn encode(
    engines: &[EngineCounts],
    encoder: &mut DescriptorEncoder<'_>,
) -> Result<(), fmt::Error> {
    if engines.is_empty() {
        return Ok(());
    }
    let help = "Whether the engine of a userspace transport answers";
    let mut family = encoder.encode_descriptor("engine_up", help, None, MetricType::Gauge)?;
    for engine in engines {
        let up = ConstGauge::new(i64::from(engine.counted.is_some()));
        up.encode(family.encode_family(&[("link", engine.link.to_string())])?)?;
    }
    let counted = || {
        engines.iter().filter_map(|engine| Some((engine.link.as_str(), engine.counted.as_ref()?)))
    };
    let help = "Packets that the engine dropped";
    let name = "engine_dropped_packets";
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (link, (totals, _)) in counted() {
        for (reason, count) in &totals.losses {
            counter(&mut family, [("link", link), ("reason", reason)], *count)?;
        }
    }
    let help = "Answers by ICMP to senders of this node";
    let mut family =
        encoder.encode_descriptor("engine_icmp_answers", help, None, MetricType::Counter)?;
    for (link, (totals, _)) in counted() {
        counter(&mut family, [("link", link)], totals.answers)?;
    }
    let help = "Calls that moved up to so many packets at once";
    let mut family = encoder.encode_descriptor("engine_calls", help, None, MetricType::Counter)?;
    for (link, (totals, _)) in counted() {
        for (way, sizes) in ways(totals) {
            for (packets, count) in CLASSES.into_iter().zip(sizes) {
                counter(&mut family, [("link", link), ("way", way), ("packets", packets)], *count)?;
            }
        }
    }
    let peers: Vec<_> = counted()
        .flat_map(|(link, (_, peers))| peers.iter().map(move |peer| (link, peer)))
        .collect();
    encode_peers(&peers, encoder)
}

fn encode_peers(
    peers: &[(&str, &PeerCount)],
    encoder: &mut DescriptorEncoder<'_>,
) -> Result<(), fmt::Error> {
    for (name, help, place) in [
        ("engine_peer_packets", "Packets carried to and from a peer", 0),
        ("engine_peer_bytes", "Octets carried to and from a peer", 1),
    ] {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (link, peer) in peers {
            let endpoint = text(peer.endpoint);
            for (way, counts) in [("sent", peer.sent), ("received", peer.received)] {
                let labels = [("link", *link), ("peer", &endpoint), ("way", way)];
                counter(&mut family, labels, counts[place])?;
            }
        }
    }
    let help = "Seconds since hands were shaken with a peer whose packets are sealed";
    let name = "engine_peer_handshake_age_seconds";
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (link, peer) in peers {
        let Some(age) = peer.handshake else { continue };
        let age = ConstGauge::new(i64::try_from(age).unwrap_or(i64::MAX));
        let labels = [("link", (*link).to_owned()), ("peer", text(peer.endpoint))];
        age.encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn counter<const N: usize>(
    family: &mut MetricEncoder<'_>,
    labels: [(&str, &str); N],
    count: u64,
) -> Result<(), fmt::Error> {
    ConstCounter::new(count).encode(family.encode_family(&labels)?)
}

const fn ways(totals: &Totals) -> [(&'static str, &Vec<u64>); 3] {
    [("sent", &totals.sent), ("received", &totals.received), ("written", &totals.written)]
}

fn text(endpoint: SocketAddr) -> String {
    endpoint.to_string()
}

/// The classes of [`Totals`]' sizes.
const CLASSES: [&str; 8] = ["1", "2", "4", "8", "16", "32", "64", "more"];
