//! Which link leads to the other nodes: the one that bears an address that was found, or as flannel chooses it.

use std::net::IpAddr;

use russet_kernel::{
    link::GROUP,
    observe::{LinkView, NodeView},
};
use russet_net::Family;

use super::OwnAddresses;
use crate::config::{LinkChoice, Uplink};

/// The link that leads to the other nodes.
///
/// # Errors
///
/// With what was looked for, for a person.
pub(super) fn uplink<'a>(
    view: &'a NodeView,
    wanted: &Uplink,
    own: &OwnAddresses,
) -> Result<&'a LinkView, String> {
    let found = Family::BOTH.into_iter().find_map(|family| own.of(family)?.link);
    if let Some(link) = found.and_then(|link| view.link(link)) {
        return Ok(link);
    }
    if !wanted.choices.is_empty() {
        let found = wanted.choices.iter().find_map(|choice| chosen(view, choice));
        return found.ok_or_else(|| {
            let asked: Vec<_> = wanted.choices.iter().map(ToString::to_string).collect();
            format!("there is no {}, as configured", asked.join(", nor "))
        });
    }
    let addressed = [wanted.public_ip.map(IpAddr::V4), wanted.public_ipv6.map(IpAddr::V6)];
    let bearer = addressed.into_iter().flatten().find_map(|ip| bearer_of(view, ip));
    let default = || Family::BOTH.into_iter().find_map(|family| view.default_link(family));
    match bearer.or_else(default) {
        Some(link) => Ok(link),
        None => only_candidate(view),
    }
}

fn chosen<'a>(view: &'a NodeView, choice: &LinkChoice) -> Option<&'a LinkView> {
    // Nothing of ours leads to another node but through the uplink.
    let links = || view.links.iter().filter(|link| link.group != GROUP);
    match choice {
        LinkChoice::Name(name) => view.link(*name),
        LinkChoice::Address(addr) => bearer_of(view, *addr),
        LinkChoice::Pattern(pattern) => {
            let has = |link: &&LinkView| {
                link.addresses.iter().any(|address| pattern.is_like(&address.addr.to_string()))
            };
            links().find(has).or_else(|| links().find(|link| pattern.is_like(link.name.as_str())))
        }
        LinkChoice::Reaches(addr) => view.link_to(*addr),
    }
}

/// Without a default route there is no doubt either when just one link can be meant.
fn only_candidate(view: &NodeView) -> Result<&LinkView, String> {
    let is_candidate = |link: &&LinkView| {
        link.group != GROUP
            && !link.loopback.is_on()
            && Family::BOTH.iter().any(|f| link.best_address(*f).is_some())
    };
    let candidates: Vec<_> = view.links.iter().filter(is_candidate).collect();
    match candidates.as_slice() {
        [link] => Ok(link),
        [] => Err("no link has an address, so there is no uplink".into()),
        several => {
            let names: Vec<_> = several.iter().map(|link| link.name.to_string()).collect();
            let names = names.join(", ");
            Err(format!(
                "there is no default route to tell the uplink by; name one of {names} with --interface"
            ))
        }
    }
}

fn bearer_of(view: &NodeView, ip: IpAddr) -> Option<&LinkView> {
    view.links.iter().find(|link| link.addresses.iter().any(|address| address.addr == ip))
}
