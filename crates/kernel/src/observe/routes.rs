//! Others' routes, kept as events tell of them: one that comes or goes costs the same however many there are.
//!
//! Where an event does not tell what is there now (one of several at a key was replaced, or one path of several went), the
//! table is [`Heed::Unclear`] and is listed again, by and by.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use russet_net::{IfName, Prefix};

use super::RouteView;
use crate::netlink::rt::RTPROT_RA;

/// The foreign routes of the main table.
#[derive(Debug, Default)]
pub(super) struct Routes {
    known: BTreeSet<RouteView>,
    /// Keys of IPv6 routes with several paths, which come and go one by one.
    split: BTreeSet<Key>,
    links: BTreeMap<IfName, OnLink>,
}

type Key = (Prefix, u32);

/// How many routes lead onto a link.
#[derive(Clone, Copy, Debug, Default)]
struct OnLink {
    all: usize,
    /// Of protocol `ra`.
    advertised: usize,
}

/// An event of a route of the main table, or an entry of its listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RouteNews {
    pub(super) route: RouteView,
    pub(super) whose: Whose,
    pub(super) what: What,
    pub(super) paths: Paths,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// Ours, or the kernel's own: not told, but it may take another's place.
    Nobodys,
    Foreign,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Came,
    /// It took the place of what was at its key.
    Replaced,
    Went,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paths {
    One,
    Several,
}

/// What an event means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Heed {
    Nothing,
    /// Something that few go by has changed.
    Light,
    /// So has something, and what is there has to be listed.
    Unclear,
    /// A default route, or what a router advertised: the uplink may be another one.
    Heavy,
}

impl Routes {
    /// The whole table, as it was listed.
    pub(super) fn of(all: impl Iterator<Item = RouteNews>) -> Self {
        let mut routes = Self::default();
        for news in all {
            routes.take(&news);
        }
        routes
    }

    /// Takes one event.
    pub(super) fn take(&mut self, news: &RouteNews) -> Heed {
        let RouteNews { route, whose, what, paths } = news;
        let key = (route.dst, route.metric);
        if *paths == Paths::Several && route.dst.addr().is_ipv6() {
            self.split.insert(key);
        }
        let changed = match what {
            What::Came => *whose == Whose::Foreign && self.insert(*route),
            What::Replaced => return self.replace(key, route, *whose),
            What::Went if *whose == Whose::Nobodys => false,
            What::Went if self.split.contains(&key) => return heavy(route).max(Heed::Unclear),
            What::Went if self.remove(route) => true,
            What::Went => return self.miss(key),
        };
        if changed { heavy(route) } else { Heed::Nothing }
    }

    fn replace(&mut self, key: Key, route: &RouteView, whose: Whose) -> Heed {
        let before = self.at(key);
        let mut heed = match &before[..] {
            [one] if one == route && whose == Whose::Foreign => return Heed::Nothing,
            [] | [_] => Heed::Nothing,
            [..] => Heed::Unclear,
        };
        for one in before {
            self.remove(&one);
            heed = heed.max(heavy(&one));
        }
        if whose == Whose::Foreign && self.insert(*route) {
            heed = heed.max(heavy(route));
        }
        heed
    }

    /// One went that is not known as it is told of: its link may have lost its name.
    fn miss(&mut self, key: Key) -> Heed {
        match &self.at(key)[..] {
            [] => Heed::Nothing,
            [one] => {
                self.remove(one);
                heavy(one)
            }
            [one, ..] => heavy(one).max(Heed::Unclear),
        }
    }

    fn at(&self, (dst, metric): Key) -> Vec<RouteView> {
        let lowest = RouteView { dst, metric, protocol: 0, link: None, via: None };
        let from = self.known.range(lowest..);
        from.take_while(|it| (it.dst, it.metric) == (dst, metric)).copied().collect()
    }

    fn insert(&mut self, route: RouteView) -> bool {
        let is_new = self.known.insert(route);
        if is_new && let Some(link) = route.link {
            let on = self.links.entry(link).or_default();
            on.all += 1;
            on.advertised += usize::from(route.protocol == RTPROT_RA);
        }
        is_new
    }

    fn remove(&mut self, route: &RouteView) -> bool {
        let was_there = self.known.remove(route);
        if was_there
            && let Some(link) = route.link
            && let Some(on) = self.links.get_mut(&link)
        {
            on.all -= 1;
            on.advertised -= usize::from(route.protocol == RTPROT_RA);
            if on.all == 0 {
                self.links.remove(&link);
            }
        }
        was_there
    }

    /// Whether one leads onto the link.
    pub(super) fn lead_onto(&self, link: IfName) -> bool {
        self.links.contains_key(&link)
    }

    /// Whether a router advertised one on the link.
    pub(super) fn advertised_on(&self, link: IfName) -> bool {
        self.links.get(&link).is_some_and(|on| on.advertised > 0)
    }

    /// Sorted.
    pub(super) fn iter(&self) -> impl Iterator<Item = RouteView> {
        self.known.iter().copied()
    }
}

fn heavy(route: &RouteView) -> Heed {
    let is_heavy = route.dst.len() == 0 || route.protocol == RTPROT_RA;
    if is_heavy { Heed::Heavy } else { Heed::Light }
}

/// Where a route leads first.
pub(super) type Way = (Option<IfName>, Option<IpAddr>);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_comes_and_goes_and_ours_is_none() {
        let mut routes = Routes::default();
        assert_eq!(routes.take(&news("10.1.0.0/24", What::Came)), Heed::Light);
        assert_eq!(routes.take(&news("10.1.0.0/24", What::Came)), Heed::Nothing);
        let ours = RouteNews { whose: Whose::Nobodys, ..news("10.2.0.0/24", What::Came) };
        assert_eq!(routes.take(&ours), Heed::Nothing);
        assert!(routes.lead_onto(name("eth0")));
        assert_eq!(routes.take(&news("10.1.0.0/24", What::Went)), Heed::Light);
        assert!(!routes.lead_onto(name("eth0")));
        assert_eq!(routes.take(&news("0.0.0.0/0", What::Came)), Heed::Heavy);
    }

    #[test]
    fn one_that_takes_another_s_place_leaves_one_and_ours_none() {
        let mut routes = Routes::default();
        routes.take(&news("10.1.0.0/24", What::Came));
        let mut other = news("10.1.0.0/24", What::Replaced);
        other.route.via = Some([192, 168, 0, 9].into());
        assert_eq!(routes.take(&other), Heed::Light);
        assert_eq!(routes.iter().collect::<Vec<_>>(), [other.route]);
        let ours = RouteNews { whose: Whose::Nobodys, ..news("10.1.0.0/24", What::Replaced) };
        assert_eq!(routes.take(&ours), Heed::Light);
        assert_eq!(routes.iter().count(), 0);
    }

    #[test]
    fn what_an_event_does_not_tell_is_unclear() {
        let mut routes = Routes::default();
        let mut second = news("10.1.0.0/24", What::Came);
        second.route.via = Some([192, 168, 0, 9].into());
        routes.take(&news("10.1.0.0/24", What::Came));
        routes.take(&second);
        assert_eq!(routes.take(&news("10.1.0.0/24", What::Replaced)), Heed::Unclear);

        let split = RouteNews { paths: Paths::Several, ..news("fd00::/64", What::Came) };
        routes.take(&split);
        assert_eq!(routes.take(&news("fd00::/64", What::Went)), Heed::Unclear);
    }

    #[test]
    fn a_route_whose_link_lost_its_name_goes_all_the_same() {
        let mut routes = Routes::default();
        routes.take(&news("10.1.0.0/24", What::Came));
        let mut gone = news("10.1.0.0/24", What::Went);
        gone.route.link = None;
        assert_eq!(routes.take(&gone), Heed::Light);
        assert_eq!(routes.take(&gone), Heed::Nothing);
        assert_eq!(routes.iter().count(), 0);
    }

    fn news(dst: &str, what: What) -> RouteNews {
        let route = RouteView {
            dst: dst.parse().unwrap(),
            metric: 0,
            protocol: 12,
            link: Some(name("eth0")),
            via: Some([192, 168, 0, 1].into()),
        };
        RouteNews { route, whose: Whose::Foreign, what, paths: Paths::One }
    }

    fn name(text: &str) -> IfName {
        text.parse().unwrap()
    }
}
