//! Puts the counts of handles right: a crash leaves them too high.
//!
//! A handle that is being used for an allocation changes its revision, or its block does within the patience of
//! a request; so a count that is wrong in the same way, at the same revision, a grace period later, is wrong.

use std::collections::BTreeMap;

use super::{
    super::{handle::Handle, name::HandleId},
    Key, Now, Picture, Rules, Sight, StoreOp, Twice, Value,
};

type Seen = Twice<HandleId, (u64, Handle)>;

pub(super) fn repair(
    before: &Seen,
    picture: &Picture,
    rules: &Rules,
    now: Now,
) -> (Seen, Vec<StoreOp>) {
    let mut seen = Seen::default();
    let mut ops = Vec::new();
    let actual = counts(picture);
    let mut ids: Vec<_> = actual.keys().chain(picture.handles.keys()).collect();
    ids.sort_unstable();
    ids.dedup();
    for id in ids {
        let found = picture.handles.get(id);
        let wanted = actual.get(id);
        // One that is there and empty is wrong too.
        if found.map(|found| &found.value) == wanted {
            continue;
        }
        let mark = (found.map_or(0, |found| found.rev), wanted.cloned().unwrap_or_default());
        if seen.see(before, id.clone(), mark, Sight::now(rules, now)) {
            ops.push(StoreOp::Swap {
                key: Key::Handle(id.clone()),
                expect: found.map(|found| found.rev),
                value: wanted.cloned().map(Value::Handle),
            });
        }
    }
    (seen, ops)
}

/// What the handles would say if they were right.
pub(in super::super) fn counts(picture: &Picture) -> BTreeMap<HandleId, Handle> {
    let mut counts: BTreeMap<HandleId, Handle> = BTreeMap::new();
    for (cidr, found) in &picture.blocks {
        for handle in found.value.held().filter_map(|(_, handle)| handle) {
            let known = counts.entry(handle.clone()).or_default();
            *known = known.with(*cidr, known.count(*cidr).saturating_add(1));
        }
    }
    counts
}
