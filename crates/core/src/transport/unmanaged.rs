//! No transport of ours (flannel's `alloc`): subnets are leased, pods attached, and whoever carries packets between the
//! nodes does it without us.

use russet_desired::Emit;
use russet_net::{Family, Form, Reach};

use super::{Me, Transport};
use crate::{
    error::Fault,
    model::{Backend, Lease, NetworkConfig},
};

/// It has no device, and lays no route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unmanaged;

impl Transport for Unmanaged {
    /// As flannel: such a lease says nothing of it, and looks like one of `udp`.
    fn advertise(&self, _config: &NetworkConfig) -> Backend {
        Backend::Udp
    }

    fn overhead(&self, _underlay: Family) -> u16 {
        0
    }

    fn local(&self, _me: &Me<'_>, _out: &mut Emit) {}

    fn heed(&self, _lease: &Lease, _family: Family) -> Result<Form, Fault> {
        Ok(Form::Foreign)
    }

    fn remote(&self, _me: &Me<'_>, _reach: &Reach, _out: &mut Emit) {}
}
