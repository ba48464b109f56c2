//! `IPReservation`.

use russet_core::model::calico::IpReservation;

use super::{
    at::At,
    kind::Kind,
    stored::{Form, Layout, spec},
};

impl Form for IpReservation {
    const KIND: Kind = Kind::IpReservation;
    const ORDER: &'static [&'static str] = &["reservedCIDRs"];

    fn read(root: &At<'_>, layout: Layout) -> Option<Self> {
        let cidrs = spec(root, layout).at("reservedCIDRs").items();
        Some(Self { cidrs: cidrs.iter().filter_map(At::prefix_or_address).collect() })
    }
}
