//! What reflection costs without sockets: so many peers tell so many routes each, and read all.
//!
//! `cargo run --release -p russet-bgp --example reflect -- 50 10000 [ROUTES FOR EACH SET]`

use std::{net::IpAddr, sync::Arc, time::Instant};

use russet_bgp::{
    bestpath::MedRule,
    policy::Policy,
    reflector::{Me, NextHopRule, Relation},
    rib::{Neighbor, Rib, RibConfig, Source, Watch},
    update::{Bounds, Piece},
    wire::{
        AsWidth, Attributes, ClusterId, Community, Family, Frame, NextHop, Nlri, NlriKey, Peering,
        RouterId, Terms, Update, UpdateWriter, V4Prefix,
    },
};
use russet_net::Asn;

fn main() {
    let mut numbers = std::env::args().skip(1).map(|arg| arg.parse::<u32>().expect("a number"));
    let peers = numbers.next().unwrap_or(50);
    let each = numbers.next().unwrap_or(10_000);
    let per_set = numbers.next().unwrap_or(each);
    let mut rib = Rib::new(config());
    let sources: Vec<_> = (0..peers).map(|peer| up(&mut rib, peer)).collect();
    let messages: Vec<_> = (0..peers).map(|peer| tell(peer, each, per_set)).collect();

    let begin = Instant::now();
    let mut read = 0;
    for (source, messages) in sources.iter().zip(&messages) {
        receive(&mut rib, *source, messages);
        rib.flush();
        read += sources.iter().map(|source| drain(&mut rib, *source)).sum::<usize>();
    }
    let done = begin.elapsed();
    println!("{peers} × {each}: {done:?}, {read} octets read, {} sets", rib.attribute_sets());

    let begin = Instant::now();
    let late = up(&mut rib, peers);
    let read = drain(&mut rib, late);
    println!("one more joins: {:?}, {read} octets read", begin.elapsed());

    let begin = Instant::now();
    rib.remove_peer(sources[0]);
    rib.flush();
    println!("one is down: {:?}", begin.elapsed());
}

fn receive(rib: &mut Rib, source: Source, messages: &[u8]) {
    let mut rest = messages;
    while let Ok(Some(frame)) = Frame::read(rest, terms().limit) {
        let update = Update::parse(frame.body, terms()).expect("an update");
        rib.update(source, &update);
        rest = &rest[frame.len..];
    }
}

fn drain(rib: &mut Rib, source: Source) -> usize {
    let pieces = std::iter::from_fn(|| rib.next(source));
    pieces.map(|piece| if let Piece::Octets(octets) = piece { octets.len() } else { 0 }).sum()
}

fn tell(peer: u32, each: u32, per_set: u32) -> Vec<u8> {
    let mut octets = Vec::new();
    for first in (0..each).step_by(per_set.try_into().expect("a size")) {
        let mut canonical = Vec::new();
        let communities = vec![Community::new(peer << 16 | first)];
        Attributes { local_pref: Some(100), communities, ..Attributes::default() }
            .write(&mut canonical);
        let route = |number: u32| {
            let prefix = V4Prefix::around(0x2000_0000 + ((peer * each + number) << 8), 24);
            Nlri::plain(NlriKey::V4(prefix.expect("a length")))
        };
        let routes = (first..each.min(first + per_set)).map(route);
        UpdateWriter::new(terms(), &mut octets)
            .announce(Family::Ipv4Unicast, &canonical, hop(peer), routes)
            .expect("room");
    }
    octets
}

fn up(rib: &mut Rib, peer: u32) -> Source {
    let neighbor = Neighbor {
        addr: hop(peer).addr(),
        asn: Asn::new(65_000),
        id: RouterId::try_from(0x0a09_0100 + peer).expect("not zero"),
        relation: Relation::Client,
        our_asn: Asn::new(65_000),
        own_as: 0,
        terms: terms(),
        import: Arc::new(Policy::accept_all()),
        export: Arc::new(Policy::accept_all()),
        next_hop_rule: NextHopRule::Keep,
        our_next_hop: [Some(IpAddr::from([10, 9, 0, 1]).into()); 3],
        limits: [None; 3],
    };
    let source = rib.add_peer(neighbor).expect("a number");
    rib.tell(source, Family::Ipv4Unicast);
    source
}

fn hop(peer: u32) -> NextHop {
    IpAddr::V4((0x0a09_0100 + peer).into()).into()
}

fn terms() -> Terms {
    Terms { as_width: AsWidth::Four, ..Terms::plain(Peering::Internal) }
}

fn config() -> RibConfig {
    let id = RouterId::try_from(0x0a09_0001).expect("not zero");
    RibConfig {
        me: Me { asn: Asn::new(65_000), id, cluster: ClusterId::new(id.get()) },
        med: MedRule::SameNeighbor,
        multipath: None,
        watch: Watch::Off,
        seed: 7,
        bounds: Bounds::default(),
    }
}
