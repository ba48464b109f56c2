//! Where this node's tunnels end, for its own object in the datastore: what the owner wants announced, together with the
//! addresses that the pools gave.
//!
//! Peers send by a tunnel as soon as its end is announced, so an end is announced only once the kernel has the tunnel and
//! the tunnel has its address, and it is taken back when nobody needs it any more. Before the owner knows who is there,
//! what an earlier life announced stays.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use russet_core::model::calico::{VxlanEnd, WireguardAddr};
use russet_net::{IfName, Mac, PublicKey};
use tokio::{sync::watch, time::Instant};

use crate::{
    ipam::Tunnel,
    register::{Ends, Said},
    until,
};

/// What the owner wants announced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// Each with its device.
    pub tunnels: BTreeMap<Tunnel, Option<IfName>>,
    /// The VTEPs' MAC addresses.
    pub mac_v4: Option<Mac>,
    pub mac_v6: Option<Mac>,
    pub key: Option<PublicKey>,
}

/// Joins the two for ever.
pub async fn join(
    mut wanted: watch::Receiver<Option<Announced>>,
    mut held: watch::Receiver<BTreeMap<Tunnel, IpAddr>>,
    ends: watch::Sender<Ends>,
) {
    let mut farewell = Farewell::default();
    loop {
        let now = wanted
            .borrow_and_update()
            .as_ref()
            .map(|wanted| of(wanted, &held.borrow_and_update()))
            .unwrap_or_default();
        let (now, due) = farewell.delay(now, Instant::now());
        ends.send_if_modified(|told| std::mem::replace(told, now) != now);
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            changed = held.changed() => if changed.is_err() { return },
            () = until(due) => {}
        }
    }
}

/// Since when an end is not wanted. It is taken back a while later: peers that are taught the other way by routers, and not by
/// the store, may still send to it, and nobody tells us.
#[derive(Debug, Default)]
struct Farewell {
    ipip: Option<Instant>,
    vxlan_v4: Option<Instant>,
    vxlan_v6: Option<Instant>,
    wireguard_v4: Option<Instant>,
    wireguard_v6: Option<Instant>,
}

impl Farewell {
    /// What may be said now, and when more may be.
    fn delay(&mut self, mut ends: Ends, now: Instant) -> (Ends, Option<Instant>) {
        let later = [
            put_off(&mut self.ipip, &mut ends.ipip, now),
            put_off(&mut self.vxlan_v4, &mut ends.vxlan_v4, now),
            put_off(&mut self.vxlan_v6, &mut ends.vxlan_v6, now),
            put_off(&mut self.wireguard_v4, &mut ends.wireguard_v4, now),
            put_off(&mut self.wireguard_v6, &mut ends.wireguard_v6, now),
        ];
        (ends, later.into_iter().flatten().min())
    }
}

fn put_off<T>(since: &mut Option<Instant>, end: &mut Said<T>, now: Instant) -> Option<Instant> {
    if !matches!(end, Said::None) {
        *since = None;
        return None;
    }
    let until = *since.get_or_insert(now) + FAREWELL;
    (now < until).then(|| {
        *end = Said::Nothing;
        until
    })
}

const FAREWELL: Duration = Duration::from_secs(3);

fn of(wanted: &Announced, held: &BTreeMap<Tunnel, IpAddr>) -> Ends {
    let v4 = |tunnel| match held.get(&tunnel) {
        Some(IpAddr::V4(addr)) => Some(*addr),
        _ => None,
    };
    let v6 = |tunnel| match held.get(&tunnel) {
        Some(IpAddr::V6(addr)) => Some(*addr),
        _ => None,
    };
    let is_wanted = |tunnel| wanted.tunnels.contains_key(&tunnel);
    let key = wanted.key;
    Ends {
        ipip: said(is_wanted(Tunnel::Ipip), v4(Tunnel::Ipip)),
        vxlan_v4: said(
            is_wanted(Tunnel::Vxlan),
            v4(Tunnel::Vxlan).map(|addr| VxlanEnd { addr: Some(addr), mac: wanted.mac_v4 }),
        ),
        vxlan_v6: said(
            is_wanted(Tunnel::VxlanV6),
            v6(Tunnel::VxlanV6).map(|addr| VxlanEnd { addr: Some(addr), mac: wanted.mac_v6 }),
        ),
        wireguard_v4: said(
            is_wanted(Tunnel::Wireguard),
            v4(Tunnel::Wireguard).map(|addr| WireguardAddr { addr: Some(addr), key }),
        ),
        wireguard_v6: said(
            is_wanted(Tunnel::WireguardV6),
            v6(Tunnel::WireguardV6).map(|addr| WireguardAddr { addr: Some(addr), key }),
        ),
        ..Ends::default()
    }
}

/// One that is wanted and has no address yet is left as it was announced.
fn said<T>(wanted: bool, end: Option<T>) -> Said<T> {
    match (wanted, end) {
        (true, Some(end)) => Said::This(end),
        (true, None) => Said::Nothing,
        (false, _) => Said::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_announced_with_its_address_left_without_one_and_taken_back_when_it_is_not_wanted()
    {
        let mac = Mac::local([2, 0, 0, 0, 0, 1]);
        let tunnels = BTreeMap::from([(Tunnel::Vxlan, None), (Tunnel::VxlanV6, None)]);
        let wanted = Announced { tunnels, mac_v4: Some(mac), mac_v6: None, key: None };
        let held = BTreeMap::from([
            (Tunnel::Vxlan, IpAddr::from([10, 0, 0, 1])),
            (Tunnel::Ipip, IpAddr::from([10, 0, 0, 2])),
        ]);
        let ends = of(&wanted, &held);
        let vxlan = VxlanEnd { addr: Some([10, 0, 0, 1].into()), mac: Some(mac) };
        assert_eq!(ends.vxlan_v4, Said::This(vxlan));
        assert_eq!(ends.vxlan_v6, Said::Nothing);
        assert_eq!(ends.ipip, Said::None);
    }

    #[test]
    fn an_end_is_taken_back_a_while_after_it_is_not_wanted() {
        let (mut farewell, start) = (Farewell::default(), Instant::now());
        let none = Ends { ipip: Said::None, ..Ends::default() };
        assert_eq!(farewell.delay(none, start), (Ends::default(), Some(start + FAREWELL)));
        assert_eq!(farewell.delay(none, start + FAREWELL), (none, None));
        farewell.delay(Ends::default(), start + FAREWELL);
        assert_eq!(farewell.delay(none, start + FAREWELL).0, Ends::default());

        let sealed = Ends { wireguard_v4: Said::None, ..Ends::default() };
        assert_eq!(farewell.delay(sealed, start).0, Ends::default());
        assert_eq!(farewell.delay(sealed, start + FAREWELL).0, sealed);
    }
}
