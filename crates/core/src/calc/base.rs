//! What is wanted whether or not there is any peer: devices, the bridge, its pods, policy.

use std::collections::BTreeMap;

use russet_desired::{Emit, Key, Tables};

use crate::{
    attachment,
    change::FactId,
    policy::{forward, masquerade},
    transport::Me,
    world::World,
};

#[derive(Clone, Debug, Default)]
pub(super) struct Base {
    pub(super) tables: Tables,
    /// What is not wanted for the configuration's sake.
    pub(super) causes: BTreeMap<Key, FactId>,
}

impl Base {
    pub(super) fn of(world: &World, me: &Me<'_>) -> Self {
        let mut base = Self::default();
        let mut out = Emit::default();
        for transport in me.footing.transports().chain(me.footing.retiring()) {
            transport.local(me, &mut out);
        }
        attachment::local(me, &mut out);
        masquerade::local(me, &mut out);
        forward::local(me, &mut out);
        base.take(out, None);
        for (id, pod) in world.pods() {
            let mut out = Emit::default();
            attachment::pod(me, pod, &mut out);
            base.take(out, Some(&FactId::Pod(id.clone())));
        }
        base
    }

    /// Of two who want one object the first has it: a pod cannot take a device of ours.
    fn take(&mut self, out: Emit, cause: Option<&FactId>) {
        for item in out.items {
            let key = item.key();
            if self.tables.contains(&key) {
                continue;
            }
            if let Some(cause) = cause {
                self.causes.insert(key, cause.clone());
            }
            self.tables.insert(item);
        }
    }
}
