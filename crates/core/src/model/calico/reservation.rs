//! Addresses that are not handed out, although they lie in a pool.

use std::net::IpAddr;

use russet_net::Prefix;

/// Addresses that no pod is given from now on; who has one keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IpReservation {
    pub cidrs: Vec<Prefix>,
}

impl IpReservation {
    pub fn holds(&self, addr: IpAddr) -> bool {
        self.cidrs.iter().any(|cidr| cidr.contains(addr))
    }
}
