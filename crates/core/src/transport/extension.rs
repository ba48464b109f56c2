//! The operator's own commands in the place of a transport (flannel's `extension`).
//!
//! Nothing of the kernel is ours here: a command lays what reaches a peer, and another takes it away. What the
//! commands are told is `errand`'s business; here is only who is reached by them, and what this node says of itself.

use std::sync::Arc;

use russet_desired::Emit;
use russet_net::{Family, Form, Reach};

use super::{Me, Transport};
use crate::{
    error::Fault,
    model::{Backend, ExtensionConfig, Lease, NetworkConfig, PRE_STARTUP, Settings, UnderlayFact},
};

/// It has no device, and lays no route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// What the `PreStartupCommand` printed, where there is one.
    data: Option<Arc<str>>,
}

impl Extension {
    /// # Errors
    ///
    /// Where the node runs no commands; while the `PreStartupCommand` has not ended, and when it failed: the lease
    /// says what it prints.
    pub fn new(
        settings: &Settings,
        config: &ExtensionConfig,
        underlay: &UnderlayFact,
    ) -> Result<Self, Fault> {
        if !settings.commands.is_on() {
            return Err(Fault::CommandsNotAllowed);
        }
        let Some(command) = &config.pre_startup else { return Ok(Self { data: None }) };
        match underlay.prepared.get(command) {
            Some(Ok(output)) => Ok(Self { data: Some(Arc::clone(output)) }),
            Some(Err(reason)) => {
                Err(Fault::Command { name: PRE_STARTUP, reason: reason.to_string() })
            }
            None => Err(Fault::CommandRuns { name: PRE_STARTUP }),
        }
    }
}

impl Transport for Extension {
    fn advertise(&self, _config: &NetworkConfig) -> Backend {
        Backend::Extension(self.data.clone())
    }

    fn overhead(&self, _underlay: Family) -> u16 {
        0
    }

    fn local(&self, _me: &Me<'_>, _out: &mut Emit) {}

    fn heed(&self, _lease: &Lease, _family: Family) -> Result<Form, Fault> {
        Ok(Form::Extension)
    }

    fn remote(&self, _me: &Me<'_>, _reach: &Reach, _out: &mut Emit) {}
}
