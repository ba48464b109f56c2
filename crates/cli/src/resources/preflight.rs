//! What objects must be to each other, and to those that are there; looked at before anything is written.

use std::collections::BTreeMap;

use anyhow::Result;
use russet_api::calico::{FieldFault, Key, Kind, Resource};
use russet_core::model::calico::{
    BgpFilter, IpPool, Name, Overlap, PoolInUse, check_change, overlaps,
};
use russet_store::Revision;

use super::{
    blocks::{Blocks, moves},
    datastore::{Datastore, Listed},
    manifest::Manifest,
    told::Grade,
};

/// What was looked at, and so must not have changed when something is written.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// At which revision no pools overlapped.
    pub pools: Revision,
}

/// Checks the objects of the files alone.
pub fn among_themselves(manifest: &mut Manifest) {
    let pools = pools_of(manifest);
    tell_overlaps(manifest, &overlaps(&pools));
    tell_idle_filters(manifest);
}

/// Checks the objects of the files against those that are there.
pub async fn against_the_store(manifest: &mut Manifest, store: &Datastore) -> Result<Seen> {
    let wanted = pools_of(manifest);
    if wanted.is_empty() {
        return Ok(Seen::default());
    }
    let listed = store.list(Kind::IpPool, None).await?;
    let there = pools_in(&listed);
    let mut all = there.clone();
    all.extend(wanted.clone());
    let among_files = overlaps(&wanted);
    let new: Vec<_> = overlaps(&all).into_iter().filter(|one| !among_files.contains(one)).collect();
    tell_overlaps(manifest, &new);
    tell_moves(manifest, store, &there, &wanted).await?;
    Ok(Seen { pools: listed.revision })
}

/// Told with its place, before anything is written; what is claimed meanwhile is met by whoever writes.
async fn tell_moves(
    manifest: &mut Manifest,
    store: &Datastore,
    there: &BTreeMap<Name, IpPool>,
    wanted: &BTreeMap<Name, IpPool>,
) -> Result<()> {
    let both = wanted.iter().filter_map(|(name, after)| Some((name, there.get(name)?, after)));
    let moving: Vec<_> = both.filter(|(_, before, after)| moves(before, after)).collect();
    if moving.is_empty() {
        return Ok(());
    }
    let blocks = Blocks::read(store).await?;
    for (name, before, after) in moving {
        for fault in check_change(before, after, &blocks.of(before)) {
            let path = match fault {
                PoolInUse::BlockLen { .. } => "spec.blockSize",
                PoolInUse::Cidr { .. } | PoolInUse::Removed { .. } => "spec.cidr",
            };
            tell_pool(manifest, name, path, &fault.to_string());
        }
    }
    Ok(())
}

/// Whether a pool that was fine when it was looked at still is, after somebody else wrote another.
pub async fn look_again(store: &Datastore, name: &Name, pool: &IpPool) -> Result<Seen> {
    let listed = store.list(Kind::IpPool, None).await?;
    let mut all = pools_in(&listed);
    all.insert(name.clone(), pool.clone());
    match overlaps(&all).into_iter().find(|one| one.outer == *name || one.inner == *name) {
        Some(overlap) => Err(overlap.into()),
        None => Ok(Seen { pools: listed.revision }),
    }
}

pub fn pools_in(listed: &Listed) -> BTreeMap<Name, IpPool> {
    let pool = |resource: &Resource| match resource {
        Resource::IpPool(pool) => Some((pool.meta()?.name.clone(), pool.value().clone())),
        _ => None,
    };
    listed.found.iter().filter_map(|found| pool(&found.resource)).collect()
}

/// What the keys of all pools begin with.
pub fn pool_keys() -> Vec<u8> {
    Key::all_of(Kind::IpPool).into_bytes()
}

fn pools_of(manifest: &Manifest) -> BTreeMap<Name, IpPool> {
    let pools = manifest.objects().iter().filter_map(|wanted| match &wanted.resource {
        Some(Resource::IpPool(pool)) => Some((wanted.id.name.clone(), pool.value().clone())),
        _ => None,
    });
    pools.collect()
}

/// An overlap is told at the pool of the files that is in it; at the inner one when both are.
fn tell_overlaps(manifest: &mut Manifest, overlaps: &[Overlap]) {
    for overlap in overlaps {
        let told = tell_pool(manifest, &overlap.inner, "spec.cidr", &overlap.to_string());
        if !told {
            tell_pool(manifest, &overlap.outer, "spec.cidr", &overlap.to_string());
        }
    }
}

/// Whether there is a pool of that name to tell it of.
fn tell_pool(manifest: &mut Manifest, name: &Name, path: &str, reason: &str) -> bool {
    let is_it = |(_, wanted): &(usize, &super::manifest::Wanted)| {
        wanted.id.kind == Kind::IpPool && wanted.id.name == *name
    };
    let at = manifest.objects().iter().enumerate().find(is_it).map(|(at, _)| at);
    if let Some(at) = at {
        let fault = FieldFault { path: path.to_owned(), reason: reason.to_owned() };
        manifest.tell(at, Grade::Fault, &fault);
    }
    at.is_some()
}

fn tell_idle_filters(manifest: &mut Manifest) {
    let mut found = Vec::new();
    for (at, wanted) in manifest.objects().iter().enumerate() {
        if let Some(Resource::BgpFilter(filter)) = &wanted.resource {
            found.extend(idle(filter.value()).into_iter().map(|fault| (at, fault)));
        }
    }
    for (at, fault) in found {
        manifest.tell(at, Grade::Warning, &fault);
    }
}

fn idle(filter: &BgpFilter) -> Vec<FieldFault> {
    if filter.is_empty() {
        let reason = "it has no rule, so every route passes".to_owned();
        return vec![FieldFault { path: "spec".to_owned(), reason }];
    }
    let told = |idle: &russet_core::model::calico::IdleRule| FieldFault {
        path: format!("spec.{}[{}]", idle.list, idle.at),
        reason: format!("no route meets this rule: {}", idle.why),
    };
    filter.idle().iter().map(told).collect()
}
