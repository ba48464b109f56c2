//! The changes that a rule makes to a route.

use russet_net::Asn;

use crate::wire::{Attributes, Community, ExtCommunity, LargeCommunity, NextHop};

/// One change of a route's attributes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Edit {
    LocalPref(u32),
    /// `None` takes it away.
    Med(Option<u32>),
    AddCommunity(Community),
    RemoveCommunity(Community),
    AddExtCommunity(ExtCommunity),
    RemoveExtCommunity(ExtCommunity),
    AddLargeCommunity(LargeCommunity),
    RemoveLargeCommunity(LargeCommunity),
    /// Makes the AS path longer by `count` times this number.
    Prepend {
        asn: Asn,
        count: u8,
    },
    NextHop(NextHop),
}

/// Makes the changes one after the other. A community is added once, and stands where it stood.
pub fn edit(edits: &[Edit], attributes: &mut Attributes, next_hop: &mut NextHop) {
    for edit in edits {
        match edit {
            Edit::LocalPref(pref) => attributes.local_pref = Some(*pref),
            Edit::Med(med) => attributes.med = *med,
            Edit::AddCommunity(one) => add(&mut attributes.communities, *one),
            Edit::RemoveCommunity(one) => attributes.communities.retain(|other| other != one),
            Edit::AddExtCommunity(one) => add(&mut attributes.ext_communities, *one),
            Edit::RemoveExtCommunity(one) => {
                attributes.ext_communities.retain(|other| other != one);
            }
            Edit::AddLargeCommunity(one) => add(&mut attributes.large_communities, *one),
            Edit::RemoveLargeCommunity(one) => {
                attributes.large_communities.retain(|other| other != one);
            }
            Edit::Prepend { asn, count } => {
                attributes.as_path.prepend(*asn, *count);
            }
            Edit::NextHop(other) => *next_hop = *other,
        }
    }
}

fn add<T: PartialEq>(all: &mut Vec<T>, one: T) {
    if !all.contains(&one) {
        all.push(one);
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::wire::AsPath;

    #[test]
    fn changes_are_made_in_order_and_communities_once() {
        let large = LargeCommunity { global: 1, local: [2, 3] };
        let ext = ExtCommunity::encapsulation(8);
        let (mut attributes, mut next_hop) = (Attributes::default(), hop(1));
        attributes.communities = vec![Community::new(1), Community::new(2)];
        attributes.large_communities = vec![large];
        attributes.med = Some(1);
        let edits = [
            Edit::LocalPref(1),
            Edit::LocalPref(2),
            Edit::Med(None),
            Edit::AddCommunity(Community::new(1)),
            Edit::AddCommunity(Community::new(3)),
            Edit::RemoveCommunity(Community::new(2)),
            Edit::AddExtCommunity(ext),
            Edit::RemoveLargeCommunity(large),
            Edit::Prepend { asn: Asn::new(7), count: 2 },
            Edit::NextHop(hop(9)),
        ];
        edit(&edits, &mut attributes, &mut next_hop);
        let expected = Attributes {
            as_path: AsPath::sequence([7, 7].map(Asn::new)),
            local_pref: Some(2),
            communities: vec![Community::new(1), Community::new(3)],
            ext_communities: vec![ext],
            ..Attributes::default()
        };
        assert_eq!((attributes, next_hop), (expected, hop(9)));
    }

    fn hop(last: u8) -> NextHop {
        IpAddr::from([10, 0, 0, last]).into()
    }
}
