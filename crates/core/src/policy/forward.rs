//! An accept for the network in a foreign forward chain that drops.
//!
//! An accept in a table of ours could not undo another table's drop (Docker, firewalld), so this one goes
//! where the drop is. It is flannel's FLANNEL-FWD: from the network accept, to the network accept.

use russet_desired::{Emit, ForeignAcceptSpec, Item};

use super::{Leftovers, take_over};
use crate::transport::Me;

pub fn local(me: &Me<'_>, out: &mut Emit) {
    if !me.settings.forward_accept.is_on() {
        return;
    }
    for pool in me.footing.config.pools() {
        out.push(Item::ForeignAccept(pool.network(), ForeignAcceptSpec));
        take_over(
            me,
            pool.family(),
            Leftovers { iptables: ("filter", "FLANNEL-FWD"), nftables: "forward" },
            out,
        );
    }
}
