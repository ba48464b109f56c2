//! Whose address it is, and whether he lives.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Instant,
};

use russet_net::Prefix;

use super::{
    super::{
        block::{Attributes, Given, Release},
        name::HandleId,
    },
    Living, Now, Picture, Report, Rules, Sight, Twice,
};

/// Addresses that may be freed, by block.
type Leaked = BTreeMap<Prefix, Vec<Release>>;

pub(super) fn find(
    before: &Twice<IpAddr, u64>,
    picture: &Picture,
    living: &Living,
    rules: &Rules,
    now: Now,
) -> (Twice<IpAddr, u64>, Leaked) {
    let mut seen = Twice::default();
    let mut leaks: BTreeMap<HandleId, Vec<(Prefix, Given)>> = BTreeMap::new();
    // All of a handle's addresses are freed, or none: else its counts would lose the ones that live.
    let mut spared: BTreeSet<HandleId> = BTreeSet::new();
    for (cidr, found) in &picture.blocks {
        for (given, attributes) in found.value.allocated() {
            let Some(handle) = attributes.handle.clone() else { continue };
            let again = evidence(given.addr, attributes, living, now).is_some_and(|evidence| {
                let sight = Sight { evidence, ..Sight::now(rules, now) };
                seen.see(before, given.addr, given.sequence, sight)
            });
            if again {
                leaks.entry(handle).or_default().push((*cidr, given));
            } else {
                spared.insert(handle);
            }
        }
    }
    let mut leaked = Leaked::new();
    for (handle, addresses) in leaks.into_iter().filter(|(handle, _)| !spared.contains(handle)) {
        for (cidr, Given { addr, sequence }) in addresses {
            let handle = Some(handle.clone());
            let release = Release { addr, sequence: Some(sequence), handle };
            leaked.entry(cidr).or_default().push(release);
        }
    }
    (seen, leaked)
}

/// What speaks for an address being nobody's, as of when; `None` when it is somebody's, or nothing does.
fn evidence(addr: IpAddr, of: &Attributes, living: &Living, now: Now) -> Option<Instant> {
    let handle = of.handle.as_ref()?;
    let recorded = living.handles.contains(handle) || living.addrs.contains(&addr);
    if recorded || handle.is_windows_reserved() {
        return None;
    }
    // Without a node there is nobody who could answer for it.
    match living.nodes.get(of.node()?) {
        None => Some(now.mono),
        // A tunnel's address is its node's, whatever pods there are.
        Some(_) if of.kind().is_some_and(|kind| kind.ends_with(TUNNEL)) => None,
        Some(Report::Silent) => None,
        Some(Report::Uses { handles, at }) => (!handles.contains(handle)).then_some(*at),
    }
}

/// `ipipTunnelAddress`, `vxlanTunnelAddress`, `vxlanV6TunnelAddress`, `wireguardTunnelAddress`, …
const TUNNEL: &str = "TunnelAddress";
