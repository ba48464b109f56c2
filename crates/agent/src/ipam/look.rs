//! When this node's blocks are looked through, and the whole store.

use std::{collections::BTreeSet, net::IpAddr, time::Instant};

use russet_core::addressing::blocks::{Collector, StoreOp, gc::Rules, machine::BlockConfig};

use super::{
    Ask, Done, Gate, Ipam,
    cluster::{self, Census},
    gc, now,
    shelf::Shelf,
};

impl<S: Shelf> Ipam<S> {
    /// Reads the index of every handle that nobody seems to have, and looks at this node's blocks then.
    pub(super) fn look(&mut self) {
        let (true, Some(in_use)) = (self.is_open(), self.desk.in_use()) else { return };
        if let Some(routed) = self.routed() {
            let handles = self.local.suspects(&self.settings.node, &in_use, &routed);
            let store = self.store.clone();
            self.work.spawn(async move { Done::Handles(gc::read(store, handles).await) });
        }
        self.look_at_cluster();
    }

    /// Whether the store has what the records say, after something of this node's blocks has changed.
    pub(super) fn look_for_losses(&mut self, now: Instant) {
        if self.desk.ahead.is_to_be_rechecked(now) {
            self.looks_for_losses.get_or_insert(super::again::LAG);
        }
        let (true, Some(recorded)) = (self.is_open(), &self.desk.recorded) else { return };
        if let Some(patience) = self.looks_for_losses.take() {
            let tunnels = self.desk.tunnels_for_sure();
            let lacking = self.local.lacking(recorded.iter().chain(&tunnels));
            self.desk.losses.seen(lacking, patience, now);
            self.desk.ahead.drop_lost(&self.local, patience, now);
        }
    }

    /// Looks through the whole store when a node that has blocks is gone, or while something was seen once there; else
    /// seldom, for what crashes have left. The office lasts longer than from one look to the next, and is held on to so.
    pub(super) fn look_at_cluster(&mut self) {
        self.looks = self.looks.wrapping_add(1);
        let gone = self.local.hosts().into_iter().any(|host| !self.nodes.contains(host));
        let suspects = self.collector.as_ref().is_some_and(Collector::suspects);
        if !gone && !suspects && !self.looks.is_multiple_of(SELDOM) {
            return;
        }
        let Some(collector) = self.collector.take() else { return };
        let BlockConfig { pools, reserved, cooldown, .. } =
            self.ground.config(self.settings.cooldown);
        let grace = self.settings.grace;
        let term = self.settings.look.as_secs().saturating_mul(3).max(10);
        let census = Census {
            node: self.settings.node.clone(),
            nodes: self.nodes.clone(),
            rules: Rules { grace, pools, reserved, cooldown },
            term_s: u32::try_from(term).unwrap_or(u32::MAX),
        };
        let work = cluster::look(self.store.clone(), census, collector, now());
        self.work.spawn(async move {
            let (collector, ops) = work.await;
            Done::Cluster(collector, ops)
        });
    }

    pub(super) fn collected(&mut self, collector: Collector, ops: Vec<StoreOp>) {
        self.collector = Some(collector);
        if !self.is_open() {
            return;
        }
        for op in ops {
            tracing::info!(op = "collect", subject = ?op.key(), "its node is gone, or nobody owns it");
            self.queued.push_back(vec![(None, op)]);
        }
    }

    pub(super) fn look_at_handles(&mut self, handles: &gc::Handles) {
        let (Gate::Open, Some(in_use)) = (self.gate(), self.desk.in_use()) else { return };
        // Read anew, as what is in use: an address may have become somebody's meanwhile.
        let Some(routed) = self.routed() else { return };
        let seen =
            gc::Seen { node: &self.settings.node, handles, in_use: &in_use, routed: &routed };
        let config = self.ground.config(self.settings.cooldown);
        let found = self.local.look(&seen, &config, self.settings.grace, now());
        for op in found.ops {
            tracing::info!(op = "free leaks", subject = ?op.key(), "nobody owns what is in it any more");
            self.queued.push_back(vec![(None, op)]);
        }
        for handle in found.strays {
            tracing::info!(op = "free leaks", subject = %handle, "nobody owns its addresses any more");
            self.desk.take(Ask::Free { ticket: None, handle }, Instant::now());
        }
    }

    /// The addresses that the kernel leads to.
    fn routed(&self) -> Option<BTreeSet<IpAddr>> {
        let warn = |error: &std::io::Error| {
            tracing::warn!(op = "look for leaks", %error, "without the node's routes nothing is freed");
        };
        (self.settings.routes)().inspect_err(warn).ok()
    }
}

/// Of so many looks at this node's blocks one is at the whole store, without a reason.
pub(super) const SELDOM: u32 = 12;
