//! Who is told whose routes, and what becomes of a route on its way (RFC 4271 §5, §9.2; RFC 4456; RFC 1997).
//!
//! ```text
//!   from ＼ to     external   client   other internal
//!   ourselves         ✓          ✓          ✓
//!   external          ✓          ✓          ✓
//!   client            ✓          ✓          ✓
//!   other internal    ✓          ✓          –
//! ```
//!
//! A route that passes from one internal peer to another is *reflected*: it gets the identifier of who brought
//! it into the AS and the mark of our cluster, and nothing else of it changes. A peer is never told its own
//! route; that is `update`'s to see to, for it alone knows what each was told before.

use russet_net::Asn;

use crate::{
    rib::{Scope, Standing, USUAL_LOCAL_PREF},
    wire::{Attributes, ClusterId, NextHop, RouterId},
};

/// What a peer is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Relation {
    External,
    /// Internal, and we reflect to it.
    Client,
    /// Internal, and in no cluster of ours.
    NonClient,
}

/// Who a route is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    Ourselves,
    Peer { relation: Relation, id: RouterId },
}

/// Who we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Me {
    pub asn: Asn,
    pub id: RouterId,
    pub cluster: ClusterId,
}

/// The next hop that a peer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NextHopRule {
    /// As it came. A route of our own without a next hop gets ours.
    Keep,
    /// Ours, but for what is reflected.
    Ours,
}

/// How a route came to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Whence {
    pub relation: Relation,
    /// The AS that we are in for the peer.
    pub asn: Asn,
    /// How often that may be in the path.
    pub own_as: u8,
}

/// A peer's side of a route's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Towards {
    pub relation: Relation,
    /// The AS that we are in for the peer.
    pub asn: Asn,
    pub rule: NextHopRule,
    /// Our address in the session, of the kind that the family needs; `None` when we have none.
    pub ours: Option<NextHop>,
}

/// Whether a peer is told a route at all.
pub fn may_tell(from: Origin, to: Relation, scope: Scope) -> bool {
    let reaches = match scope {
        Scope::Everyone => true,
        Scope::OurAs => to != Relation::External,
        Scope::Nobody => false,
    };
    let within = matches!(from, Origin::Peer { relation: Relation::NonClient, .. });
    reaches && !(within && to == Relation::NonClient)
}

/// Whether a route has been here before (RFC 4271 §9.1.2, RFC 4456 §8).
pub fn standing(attributes: &Attributes, from: Whence, me: &Me) -> Standing {
    let internal = from.relation != Relation::External;
    let path = &attributes.as_path;
    let times = || path.asns().filter(|asn| *asn == from.asn).count().max(1);
    if path.contains(from.asn) && times() > usize::from(from.own_as) {
        Standing::AsLoop
    } else if internal && attributes.originator_id == Some(me.id) {
        Standing::OriginatorLoop
    } else if internal && attributes.cluster_list.contains(&me.cluster) {
        Standing::ClusterLoop
    } else {
        Standing::Eligible
    }
}

/// Makes a route what it is towards a peer. Returns the next hop; `None` when it would need one of ours, and we
/// have none of the right kind.
pub fn pass_on(
    attributes: &mut Attributes,
    next_hop: NextHop,
    from: Origin,
    to: &Towards,
    me: &Me,
) -> Option<NextHop> {
    let next_hop = without_link(next_hop);
    match (from, to.relation) {
        (_, Relation::External) => leave_our_as(attributes, from, to.asn),
        (Origin::Peer { relation: Relation::Client | Relation::NonClient, id }, _) => {
            attributes.originator_id.get_or_insert(id);
            attributes.cluster_list.insert(0, me.cluster);
            return Some(next_hop);
        }
        (Origin::Ourselves | Origin::Peer { relation: Relation::External, .. }, _) => {
            attributes.local_pref.get_or_insert(USUAL_LOCAL_PREF);
        }
    }
    let none = next_hop.addr().is_unspecified();
    if to.rule == NextHopRule::Ours || none { to.ours } else { Some(next_hop) }
}

/// A link-local address means nothing beyond the link that it came over (RFC 2545 §3).
fn without_link(next_hop: NextHop) -> NextHop {
    match next_hop {
        NextHop::V6 { global, .. } => NextHop::V6 { global, link_local: None },
        next_hop @ NextHop::V4(_) => next_hop,
    }
}

/// What other ASes have no use for is taken away (RFC 4271 §5.1.4, §5.1.5; RFC 4456 §8; RFC 4360 §6).
fn leave_our_as(attributes: &mut Attributes, from: Origin, us: Asn) {
    attributes.as_path.prepend(us, 1);
    attributes.local_pref = None;
    attributes.originator_id = None;
    attributes.cluster_list.clear();
    attributes.ext_communities.retain(|community| community.is_transitive());
    if from != Origin::Ourselves {
        attributes.med = None;
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::wire::AsPath;

    #[test]
    fn who_is_told_whose_routes_is_the_table_above() {
        let told = |from, to| may_tell(from, to, Scope::Everyone);
        let all = [Relation::External, Relation::Client, Relation::NonClient];
        for to in all {
            assert!(told(Origin::Ourselves, to));
            assert!(told(peer(Relation::External), to));
            assert!(told(peer(Relation::Client), to));
            assert_eq!(told(peer(Relation::NonClient), to), to != Relation::NonClient);
            assert!(!may_tell(Origin::Ourselves, to, Scope::Nobody));
            let inside = may_tell(Origin::Ourselves, to, Scope::OurAs);
            assert_eq!(inside, to != Relation::External);
        }
    }

    #[test]
    fn a_reflected_route_is_marked_and_keeps_the_rest() {
        let mut attributes = route();
        let to = towards(Relation::NonClient, NextHopRule::Ours);
        let from = peer(Relation::Client);
        assert_eq!(pass_on(&mut attributes, hop(1), from, &to, &me()), Some(hop(1)));
        assert_eq!(attributes.originator_id, Some(id(7)));
        assert_eq!(attributes.cluster_list, [ClusterId::new(1), ClusterId::new(5)]);

        // The originator stays who it was.
        let again = peer(Relation::NonClient);
        pass_on(&mut attributes, hop(1), again, &towards(Relation::Client, to.rule), &me());
        assert_eq!(attributes.originator_id, Some(id(7)));
        assert_eq!(attributes.cluster_list.len(), 3);
        assert_eq!((attributes.med, attributes.local_pref), (route().med, route().local_pref));
    }

    #[test]
    fn a_route_that_leaves_the_as_loses_what_is_ours() {
        let mut attributes = route();
        attributes.originator_id = Some(id(3));
        let to = towards(Relation::External, NextHopRule::Ours);
        assert_eq!(pass_on(&mut attributes, hop(1), peer(Relation::Client), &to, &me()), to.ours);
        let path = AsPath::sequence([65_000, 65_009].map(Asn::new));
        assert_eq!(attributes, Attributes { as_path: path, ..Attributes::default() });
    }

    #[test]
    fn a_route_of_our_own_gets_our_next_hop_where_it_has_none() {
        let mut attributes = Attributes::default();
        let unspecified = IpAddr::from([0, 0, 0, 0]).into();
        let mut to = towards(Relation::NonClient, NextHopRule::Keep);
        let mut pass = |to: &Towards, next_hop| {
            pass_on(&mut attributes, next_hop, Origin::Ourselves, to, &me())
        };
        assert_eq!(pass(&to, unspecified), to.ours);
        assert_eq!(pass(&to, hop(4)), Some(hop(4)));
        to.ours = None;
        assert_eq!(pass(&to, unspecified), None);
        assert_eq!(attributes.local_pref, Some(100));
    }

    #[test]
    fn a_route_that_was_here_before_is_refused() {
        let from = |own_as| Whence { relation: Relation::Client, asn: me().asn, own_as };
        let of = |attributes: &Attributes| standing(attributes, from(0), &me());
        assert_eq!(of(&route()), Standing::Eligible);
        let ours = AsPath::sequence([9, 65_000].map(Asn::new));
        let looped = Attributes { as_path: ours, ..route() };
        assert_eq!(of(&looped), Standing::AsLoop);
        // Where our number may be in the path as often, it may.
        assert_eq!(standing(&looped, from(1), &me()), Standing::Eligible);
        let mine = Attributes { originator_id: Some(me().id), ..route() };
        assert_eq!(of(&mine), Standing::OriginatorLoop);
        let mut clusters = route();
        clusters.cluster_list.push(me().cluster);
        assert_eq!(of(&clusters), Standing::ClusterLoop);
    }

    fn route() -> Attributes {
        Attributes {
            as_path: AsPath::sequence([Asn::new(65_009)]),
            med: Some(5),
            local_pref: Some(120),
            cluster_list: vec![ClusterId::new(5)],
            ..Attributes::default()
        }
    }

    fn me() -> Me {
        Me { asn: Asn::new(65_000), id: id(1), cluster: ClusterId::new(1) }
    }

    fn peer(relation: Relation) -> Origin {
        Origin::Peer { relation, id: id(7) }
    }

    fn towards(relation: Relation, rule: NextHopRule) -> Towards {
        Towards { relation, asn: me().asn, rule, ours: Some(hop(99)) }
    }

    fn id(raw: u32) -> RouterId {
        RouterId::try_from(raw).unwrap()
    }

    fn hop(last: u8) -> NextHop {
        IpAddr::from([10, 0, 0, last]).into()
    }
}
