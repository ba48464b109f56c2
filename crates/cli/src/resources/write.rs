//! Writes and deletes objects, one by one, each by compare-and-swap; what fails does not stop the rest.

use std::{fmt::Write as _, process::ExitCode};

use anyhow::{Context, Result, anyhow, bail};
use russet_api::calico::{Kind, Resource, ResourceId};
use russet_core::model::calico::{IpPool, Name, check_removal};
use russet_store::{
    Expect, KeyValue,
    client::{Guard, Write},
};
use serde_json::Value;

use super::{
    blocks::{Blocks, may_replace},
    born,
    datastore::{Datastore, key_of},
    manifest::{DEFAULT_NAMESPACE, Wanted, called},
    preflight::{self, Seen, pool_keys},
    told::clean,
};

/// What is done with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Create,
    /// What exists is passed over.
    CreateMissing,
    Apply,
    Replace,
}

impl Verb {
    pub const fn past(self) -> &'static str {
        match self {
            Self::Create | Self::CreateMissing => "created",
            Self::Apply => "applied",
            Self::Replace => "replaced",
        }
    }
}

/// What became of one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Did {
    Created,
    Changed,
    /// It was so already.
    Nothing,
    Passed(&'static str),
    Deleted,
}

/// What became of each.
#[derive(Debug, Default)]
pub struct Tally {
    done: Vec<(ResourceId, Did)>,
    failed: Vec<(ResourceId, anyhow::Error)>,
}

impl Tally {
    fn add(&mut self, id: ResourceId, outcome: Result<Did>) {
        match outcome {
            Ok(did) => self.done.push((id, did)),
            Err(err) => self.failed.push((id, err)),
        }
    }

    /// Says what was done and what was not; a failure makes the exit code.
    pub fn print(&self, past: &str) -> ExitCode {
        for (id, did) in &self.done {
            let did = match did {
                Did::Created => "created",
                Did::Changed => "changed",
                Did::Nothing => "unchanged",
                Did::Passed(why) => why,
                Did::Deleted => "deleted",
            };
            println!("{}: {did}", called(id));
        }
        for (id, err) in &self.failed {
            eprintln!("{}: not {past}: {}", called(id), clean(&format!("{err:#}")));
        }
        if self.failed.is_empty() {
            println!("{}", self.summary(past));
            ExitCode::SUCCESS
        } else {
            let (done, all) = (self.done.len(), self.done.len() + self.failed.len());
            let names: Vec<_> = self.failed.iter().map(|(id, _)| called(id)).collect();
            eprintln!("{past} {done} of {all} resources; not {past}: {}", names.join(", "));
            ExitCode::FAILURE
        }
    }

    /// In calicoctl's words.
    fn summary(&self, past: &str) -> String {
        let count = self.done.len();
        let mut text = format!("Successfully {past} {count} ");
        let first = self.done.first().map(|(id, _)| id.kind);
        if let Some(kind) = first.filter(|kind| self.done.iter().all(|(id, _)| id.kind == *kind)) {
            let _ = write!(text, "'{kind}' ");
        }
        text + "resource(s)"
    }
}

/// Writes objects.
#[derive(Debug)]
pub struct Writer<'s> {
    store: &'s Datastore,
    verb: Verb,
    seen: Seen,
}

impl<'s> Writer<'s> {
    pub const fn new(store: &'s Datastore, verb: Verb, seen: Seen) -> Self {
        Self { store, verb, seen }
    }

    pub async fn write_all(mut self, objects: Vec<Wanted>) -> Tally {
        let mut tally = Tally::default();
        for Wanted { id, resource, .. } in objects {
            if let Some(resource) = resource {
                let outcome = self.write(&id, &resource).await;
                tally.add(id, outcome);
            }
        }
        tally
    }

    /// Writes one object. Somebody else's write in between is met by looking again, unless the object says
    /// which version it is a change of.
    pub async fn write(&mut self, id: &ResourceId, resource: &Resource) -> Result<Did> {
        for _ in 0..TRIES {
            let there = self.store.entry(&key_of(id)).await?;
            if let Some(passed) = self.decide(resource, there.as_ref())? {
                return Ok(passed);
            }
            let text = to_write(resource, there.as_ref())?;
            if there.as_ref().is_some_and(|there| there.value == text.as_bytes()) {
                return Ok(Did::Nothing);
            }
            let did = if there.is_some() { Did::Changed } else { Did::Created };
            if self.swap(there.as_ref(), text, id, resource).await? {
                return Ok(did);
            }
        }
        bail!("it changes faster than it can be written")
    }

    /// Whether the object is to be written over what is there; `Some` when there is nothing to do.
    fn decide(&self, resource: &Resource, there: Option<&KeyValue>) -> Result<Option<Did>> {
        match (self.verb, there) {
            (Verb::Create, Some(_)) => bail!("it exists; apply and replace change what exists"),
            (Verb::CreateMissing, Some(_)) => return Ok(Some(Did::Passed("exists, passed over"))),
            (Verb::Replace, None) => bail!("it does not exist; create and apply make it"),
            (Verb::Create | Verb::CreateMissing, None) if resource.version().is_some() => {
                bail!("metadata.resourceVersion says that it exists; leave it out to create it")
            }
            _ => {}
        }
        if let (Some(there), Some(said)) = (there, resource.version()) {
            let now = there.modified.to_string();
            if now != said {
                bail!(
                    "conflict: the file has metadata.resourceVersion {said} and the store has {now}: it was changed \
                     meanwhile. Get it again, or leave resourceVersion out to write over it"
                );
            }
        }
        Ok(None)
    }

    /// Writes if nothing came in between. A pool is written only while no other pool was since they were looked
    /// at, so that two of them never overlap whoever writes them; and one that moves only while no block was, so that
    /// nobody claims one of what it leaves.
    async fn swap(
        &mut self,
        there: Option<&KeyValue>,
        text: String,
        id: &ResourceId,
        resource: &Resource,
    ) -> Result<bool> {
        let key = key_of(id);
        let expect = there.map_or(Expect::Absent, |there| Expect::At(there.modified));
        let octets = key.to_string().into_bytes();
        let mut guards = vec![Guard::Key { key: octets.clone(), expect }];
        if let Resource::IpPool(pool) = resource {
            guards.push(Guard::Unwritten { prefix: pool_keys(), since: self.seen.pools });
            guards.extend(may_replace(self.store, &key, there, pool.value()).await?);
        }
        let writes = vec![Write::Put { key: octets, value: text.into(), lease: None }];
        let written = self.store.write(guards, writes).await?;
        if let Resource::IpPool(pool) = resource {
            match written {
                Some(revision) => self.seen.pools = revision,
                None => {
                    self.seen = preflight::look_again(self.store, &id.name, pool.value()).await?;
                }
            }
        }
        Ok(written.is_some())
    }
}

fn to_write(resource: &Resource, there: Option<&KeyValue>) -> Result<String> {
    let fresh = born::now(resource.object())?;
    let born = match there {
        // What cannot be read at all has nothing to keep.
        Some(there) => {
            born::kept(&serde_json::from_slice(&there.value).unwrap_or(Value::Null), &fresh)
        }
        None => fresh,
    };
    let value = there.map(|there| there.value.as_slice());
    Ok(resource.stored(&born, value)?)
}

/// How deletion goes about it.
#[derive(Clone, Copy, Debug)]
pub struct Deletion {
    pub skip_missing: bool,
    /// Whether a pool goes although its addresses are in use.
    pub force: bool,
}

/// What a word of the command line names.
pub fn named(kind: Kind, namespace: Option<&Name>, name: &str) -> Result<ResourceId> {
    if !kind.is_written_by_hand() {
        bail!("objects of kind {kind} are written by whoever hands out addresses; see russet ipam");
    }
    let namespace = match (kind.is_namespaced(), namespace) {
        (false, _) => None,
        (true, Some(namespace)) => Some(namespace.clone()),
        (true, None) => Some(DEFAULT_NAMESPACE.parse()?),
    };
    Ok(ResourceId { kind, namespace, name: name.parse()? })
}

pub async fn delete_all(store: &Datastore, ids: Vec<ResourceId>, how: Deletion) -> Tally {
    let mut tally = Tally::default();
    for id in ids {
        let outcome = delete(store, &id, how).await;
        tally.add(id, outcome);
    }
    tally
}

async fn delete(store: &Datastore, id: &ResourceId, how: Deletion) -> Result<Did> {
    let key = key_of(id);
    for _ in 0..TRIES {
        let Some(there) = store.entry(&key).await? else {
            if how.skip_missing {
                return Ok(Did::Passed("does not exist, passed over"));
            }
            bail!("it does not exist");
        };
        let mut guards =
            vec![Guard::Key { key: there.key.clone(), expect: Expect::At(there.modified) }];
        if id.kind == Kind::IpPool && !how.force {
            guards.push(unused(store, &key, &there).await?);
        }
        if id.kind == Kind::Node {
            delete_endpoints(store, &id.name).await.context("delete its workload endpoints")?;
        }
        let writes = vec![Write::Delete { key: there.key }];
        if store.write(guards, writes).await?.is_some() {
            return Ok(Did::Deleted);
        }
    }
    bail!("it, or the blocks of its addresses, change faster than it can be deleted")
}

/// The endpoints of a node's pods go with it, as with calicoctl (libcalico-go: `nodes.Delete`); its addresses are freed by a
/// node that lives. Of a node that lives itself, all comes back.
async fn delete_endpoints(store: &Datastore, node: &Name) -> Result<()> {
    let listed = store.list(Kind::WorkloadEndpoint, None).await?;
    for found in listed.found {
        let Resource::WorkloadEndpoint(endpoint) = &found.resource else { continue };
        if endpoint.value().node == *node {
            // One that somebody has just written is somebody's.
            store.client.delete_if(&found.entry.key, found.entry.modified).await?;
        }
    }
    Ok(())
}

/// Checks that nobody has an address of a pool, and says what must stay so until it is gone.
async fn unused(
    store: &Datastore,
    key: &russet_api::calico::Key,
    there: &KeyValue,
) -> Result<Guard> {
    let pool: IpPool = match Resource::at_key(key, &there.value) {
        Some(Ok(Resource::IpPool(pool))) => pool.value().clone(),
        Some(Err(fault)) => {
            let what = "it cannot be read, so nobody knows whether its addresses are in use; --force deletes it";
            return Err(anyhow!(fault).context(what));
        }
        _ => bail!("it is no pool"),
    };
    let blocks = Blocks::read(store).await.context("--force deletes the pool all the same")?;
    if let Some(in_use) = check_removal(&pool, &blocks.of(&pool)) {
        return Err(anyhow::Error::new(in_use)
            .context("its addresses are in use; --force deletes it all the same"));
    }
    Ok(blocks.guard())
}

/// How often somebody else may come in between.
const TRIES: usize = 8;
