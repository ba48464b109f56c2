//! Without encapsulation: a peer on a shared link is handed the packet (flannel's `host-gw`).

use russet_desired::{Emit, Flag, Item, NextHopKey, NextHopSpec, RouteKey, RouteSpec};
use russet_net::{At, Dst, Family, Form, Reach};

use super::{Me, Transport};
use crate::{
    error::Fault,
    model::{Backend, Lease, NetworkConfig},
};

/// Direct routing. It has no device and nothing to configure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Direct;

impl Transport for Direct {
    fn advertise(&self, _config: &NetworkConfig) -> Backend {
        Backend::HostGw
    }

    fn overhead(&self, _underlay: Family) -> u16 {
        0
    }

    fn local(&self, _me: &Me<'_>, _out: &mut Emit) {}

    /// Any peer that shares a link forwards what it is handed, whatever else it speaks.
    fn heed(&self, _lease: &Lease, _family: Family) -> Result<Form, Fault> {
        Ok(Form::Plain)
    }

    /// `SUBNET via PUBLICIP dev UNDERLAY`
    fn remote(&self, me: &Me<'_>, reach: &Reach, out: &mut Emit) {
        let (Dst::Prefix(subnet), At::Node { ip, .. }) = (reach.dst, reach.at) else { return };
        let via = NextHopKey { via: ip, link: me.footing.underlay.link };
        // The kernel itself checks that the gateway is on the link; it is, by the peer's choice of carrier.
        out.push(Item::NextHop(via, NextHopSpec { onlink: Flag::Off }));
        out.push(Item::Route(
            RouteKey::main(subnet),
            RouteSpec { via: via.into(), inherits: me.settings.inherits() },
        ));
    }
}
