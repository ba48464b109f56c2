//! What is announced as ours: what is configured, and what is here, each with the marks of where it lies.

use russet_bgp::wire::Attributes;
use russet_net::{Dst, Prefix, Reach};

use super::config::{BgpConfig, OwnRoute};

/// All routes of our own.
///
/// Of what is here only the whole is announced: the part of something that is here too leads where the whole does.
pub fn routes(config: &BgpConfig, here: &[Reach]) -> Vec<OwnRoute> {
    let mut routes = config.routes.clone();
    let prefixes: Vec<_> =
        here.iter().map(|Reach { dst: Dst::Prefix(prefix), .. }| *prefix).collect();
    let is_part = |one: &Prefix| prefixes.iter().any(|all| all != one && all.covers(*one));
    routes.extend(prefixes.iter().filter(|one| !is_part(one)).map(|prefix| OwnRoute {
        key: (*prefix).into(),
        attributes: Attributes::default(),
        // Unspecified is this node, in each session by the address that it has there.
        next_hop: prefix.family().unspecified().into(),
    }));
    for route in &mut routes {
        mark(config, route);
    }
    routes
}

fn mark(config: &BgpConfig, route: &mut OwnRoute) {
    let Some(prefix) = route.key.prefix() else { return };
    for marks in config.marks.iter().filter(|marks| marks.within.covers(prefix)) {
        let attributes = &mut route.attributes;
        let new = |known: &[_], one: &_| !known.contains(one);
        let more: Vec<_> = marks
            .communities
            .iter()
            .copied()
            .filter(|one| new(&attributes.communities, one))
            .collect();
        attributes.communities.extend(more);
        let large = marks.large.iter().copied();
        let more: Vec<_> =
            large.filter(|one| !attributes.large_communities.contains(one)).collect();
        attributes.large_communities.extend(more);
    }
}

#[cfg(test)]
mod tests {
    use russet_bgp::wire::Community;
    use russet_net::At;

    use super::*;
    use crate::bgp::config::Marks;

    #[test]
    fn a_whole_block_goes_out_without_its_parts_and_with_its_marks() {
        let mut config = BgpConfig::read(
            "asn = 65000\nrouter-id = '10.0.0.1'\n[[route]]\nprefix = '192.0.2.0/24'\n",
        )
        .unwrap();
        let marks = |within: &str, mark| Marks {
            within: within.parse().unwrap(),
            communities: vec![Community::new(mark)],
            large: Vec::new(),
        };
        config.marks =
            vec![marks("10.1.0.0/16", 1), marks("10.1.0.0/24", 2), marks("10.1.0.0/24", 1)];
        let here = |prefix: &str| Reach { dst: Dst::Prefix(prefix.parse().unwrap()), at: At::Here };
        // The last is borrowed from another's block.
        let here = ["10.1.0.64/26", "10.1.0.65/32", "10.1.9.7/32"].map(here);
        let told: Vec<_> = routes(&config, &here)
            .into_iter()
            .map(|route| (route.key.to_string(), route.attributes.communities.len()))
            .collect();
        let wanted = [("192.0.2.0/24", 0), ("10.1.0.64/26", 2), ("10.1.9.7/32", 1)];
        assert_eq!(told, wanted.map(|(prefix, marks)| (prefix.to_owned(), marks)));
    }
}
