//! What peers may say: octets of a stream, messages for the routes, a session's fate, packets of BFD.

mod routes;
mod session;

pub use self::{
    routes::bgp_routes,
    session::{bgp_bfd, bgp_session},
};
use russet_bgp::wire::{
    AsWidth, Attributes, Family, FamilySet, Frame, MessageKind, MessageLimit, Notification, Open,
    Peering, Refresh, Terms, Update,
};

/// A stream of messages. The first octet says what was agreed on.
///
/// # Panics
///
/// When what was understood is not understood when it is said again.
pub fn bgp_stream(bytes: &[u8]) {
    let Some((choice, mut rest)) = bytes.split_first() else { return };
    let terms = terms(*choice);
    while let Ok(Some(frame)) = Frame::read(rest, terms.limit) {
        match frame.kind {
            MessageKind::Open => open(frame.body),
            MessageKind::Update => update(frame.body, terms),
            MessageKind::Notification => notification(frame.body),
            MessageKind::RouteRefresh => _ = Refresh::read(frame.body),
            MessageKind::Keepalive => {}
        }
        rest = &rest[frame.len..];
    }
}

fn open(body: &[u8]) {
    let Ok(open) = Open::read(body) else { return };
    let mut octets = Vec::new();
    open.write(&mut octets);
    let again = Frame::read(&octets, MessageLimit::Usual).expect("a message").expect("all of it");
    assert_eq!(Open::read(again.body), Ok(open));
}

fn notification(body: &[u8]) {
    if let Some(notification) = Notification::read(body) {
        let _ = (notification.to_string(), notification.text(), notification.inner());
    }
}

fn update(body: &[u8], terms: Terms) {
    let Ok(update) = Update::parse(body, terms) else { return };
    let mut canonical = Vec::new();
    update.write_attributes(&mut canonical);
    let nlris = update.announced().map(|announced| announced.nlris).chain(update.withdrawn());
    for nlris in nlris {
        assert_eq!(nlris.iter().count(), nlris.count() as usize);
    }
    if update.announced().next().is_some() {
        let read = Attributes::read(&canonical).expect("what was looked at can be read");
        let mut again = Vec::new();
        read.write(&mut again);
        assert_eq!(again, canonical, "canonical octets are those of their values");
    }
}

fn terms(choice: u8) -> Terms {
    let all: FamilySet = Family::ALL.into_iter().collect();
    let bit = |bit: u8| choice >> bit & 1 == 1;
    let either = |yes| if yes { all } else { FamilySet::EMPTY };
    Terms {
        as_width: if bit(1) { AsWidth::Two } else { AsWidth::Four },
        families: all,
        add_path_in: either(bit(2)),
        add_path_out: either(bit(3)),
        extended_next_hop: either(bit(4)),
        limit: if bit(5) { MessageLimit::Extended } else { MessageLimit::Usual },
        ..Terms::plain(if bit(0) { Peering::External } else { Peering::Internal })
    }
}
