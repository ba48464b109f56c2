//! What may pass, and under whose address. Orthogonal to the four choices.

pub mod forward;
pub mod masquerade;

use russet_desired::{Emit, Flag, Item, LeftoverKey, LeftoverSpec};
use russet_net::Family;

use crate::transport::Me;

/// What flannel has in the place of a chain of ours, by either of the ways that it knows.
#[derive(Clone, Copy, Debug)]
struct Leftovers {
    /// By `iptables` on `nf_tables`: table and chain.
    iptables: (&'static str, &'static str),
    /// With `EnableNFTables`: a chain of its own table (pkg/trafficmngr/nftables).
    nftables: &'static str,
}

/// Lets flannel's chains go once ours are in their place.
fn take_over(me: &Me<'_>, family: Family, theirs: Leftovers, out: &mut Emit) {
    if !me.settings.inherits().is_on() {
        return;
    }
    let own_table = match family {
        Family::V4 => "flannel-ipv4",
        Family::V6 => "flannel-ipv6",
    };
    let (table, chain) = theirs.iptables;
    let key = LeftoverKey { family, table, chain };
    out.push(Item::Leftover(key, LeftoverSpec { with_table: Flag::Off }));
    let key = LeftoverKey { family, table: own_table, chain: theirs.nftables };
    out.push(Item::Leftover(key, LeftoverSpec { with_table: Flag::On }));
}
