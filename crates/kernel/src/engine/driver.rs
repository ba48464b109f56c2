//! Keeps engines and their peers as they are wanted.
//!
//! An engine's settings never change while it runs: with others it is another engine, and the old one ends. Its
//! version is one of them, but there the old one hands over what it holds, and no packet is lost.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use russet_desired::{Engine, EnginePeer, EnginePeerKey, EnginePeerSpec, EngineSpec, Kind, Table};
use russet_net::{IfName, Prefix};

use super::{BUILD, EngineError};
use crate::{
    Host, KernelError,
    netlink::Message,
    reconcile::{Change, Driver, Events, Refused, Seen},
};

/// An engine that answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    pub spec: Option<EngineSpec>,
    pub build: String,
}

/// Keeps engines.
#[derive(Debug, Default)]
pub struct EngineDriver;

impl Driver<Engine> for EngineDriver {
    type Context = Host;
    type Actual = Running;
    const EVENTS: Events = Events::Hint;

    fn list_owned(
        &mut self,
        host: &mut Host,
        _: &Table<Engine>,
    ) -> Result<BTreeMap<IfName, Running>, KernelError> {
        host.engines.drop_broken();
        host.engines.connect_all();
        let links: Vec<_> = host.engines.connections.keys().copied().collect();
        Ok(links.into_iter().filter_map(|link| Some((link, running(host, link)?))).collect())
    }

    fn is_met(&self, _: &Host, _: &IfName, wanted: &EngineSpec, actual: &Running) -> bool {
        actual.spec.as_ref() == Some(wanted) && actual.build == BUILD
    }

    fn upsert(
        &mut self,
        host: &mut Host,
        changes: &[Change<Engine, Running>],
    ) -> Vec<Refused<Engine>> {
        let mut refused = Vec::new();
        for change in changes {
            match make(host, change) {
                Ok(()) => await_operation(host, change.key),
                Err(err) => refused.push((change.key, KernelError::other(err))),
            }
        }
        refused
    }

    fn remove(&mut self, host: &mut Host, links: &[IfName]) -> Vec<Refused<Engine>> {
        for link in links {
            host.engines.stop(*link);
        }
        Vec::new()
    }

    fn settled(&self, host: &Host, link: &IfName, _: &EngineSpec) -> Option<Running> {
        running(host, *link)
    }

    /// Netlink says nothing of processes; a broken connection wakes the lane.
    fn decode(&self, _: &Host, _: &Message<'_>) -> Option<Seen<Engine, Running>> {
        None
    }
}

/// A new queue brings the device its carrier, which the kernel takes note of a little later: 1 ms, or many while it has
/// much else to do. What is sent before that is lost, so nothing is to be called ready earlier.
fn await_operation(host: &mut Host, link: IfName) {
    let until = Instant::now() + OPERATES_WITHIN;
    while Instant::now() < until {
        let seen = host.links.refresh_one(&mut host.socket, link);
        let operates =
            host.links.by_name(link).is_some_and(|link| link.operates.is_on() || !link.up.is_on());
        if operates || seen.is_err() {
            return;
        }
        std::thread::sleep(STEP);
    }
    tracing::warn!(ifname = %link, "the device has an engine and does not come up");
}

/// The kernel looks at carriers once a second at least.
const OPERATES_WITHIN: Duration = Duration::from_millis(1_500);
const STEP: Duration = Duration::from_millis(2);

fn make(host: &mut Host, change: &Change<Engine, Running>) -> Result<(), EngineError> {
    let (link, wanted) = (change.key, change.wanted);
    match host.engines.connections.get(&link).map(|it| &it.hello) {
        Some(hello) if hello.spec == Some(wanted) && hello.build != BUILD => {
            host.engines.replace(link)
        }
        Some(hello) if hello.spec == Some(wanted) => Ok(()),
        Some(hello) if hello.spec.is_none() && hello.build == BUILD => {
            host.engines.start(link, wanted)
        }
        Some(_) => {
            host.engines.stop(link);
            host.engines.start(link, wanted)
        }
        None => host.engines.start(link, wanted),
    }
}

fn running(host: &Host, link: IfName) -> Option<Running> {
    let hello = &host.engines.connections.get(&link)?.hello;
    Some(Running { spec: hello.spec, build: hello.build.clone() })
}

/// Keeps the peers of engines.
#[derive(Debug, Default)]
pub struct EnginePeerDriver;

impl Driver<EnginePeer> for EnginePeerDriver {
    type Context = Host;
    type Actual = EnginePeerSpec;
    const EVENTS: Events = Events::Hint;

    fn list_owned(
        &mut self,
        host: &mut Host,
        _: &Table<EnginePeer>,
    ) -> Result<BTreeMap<EnginePeerKey, EnginePeerSpec>, KernelError> {
        let mut all = BTreeMap::new();
        for (link, connection) in &host.engines.connections {
            // One that does not answer any more is dropped at the next look, and has no peers then.
            let peers = connection.client.peers().unwrap_or_default();
            let key = |prefix| EnginePeerKey { link: *link, prefix };
            all.extend(peers.into_iter().map(|(prefix, peer)| (key(prefix), peer)));
        }
        Ok(all)
    }

    fn is_met(
        &self,
        _: &Host,
        _: &EnginePeerKey,
        wanted: &EnginePeerSpec,
        actual: &EnginePeerSpec,
    ) -> bool {
        wanted == actual
    }

    fn upsert(
        &mut self,
        host: &mut Host,
        changes: &[Change<EnginePeer, EnginePeerSpec>],
    ) -> Vec<Refused<EnginePeer>> {
        patch(host, changes.iter().map(|change| (change.key, Some(change.wanted))))
    }

    fn remove(&mut self, host: &mut Host, keys: &[EnginePeerKey]) -> Vec<Refused<EnginePeer>> {
        // An engine that is gone has taken its peers along.
        let there = |key: &&EnginePeerKey| host.engines.connections.contains_key(&key.link);
        let keys: Vec<_> = keys.iter().filter(there).copied().collect();
        patch(host, keys.into_iter().map(|key| (key, None)))
    }

    fn settled(
        &self,
        _: &Host,
        _: &EnginePeerKey,
        wanted: &EnginePeerSpec,
    ) -> Option<EnginePeerSpec> {
        Some(*wanted)
    }

    fn decode(&self, _: &Host, _: &Message<'_>) -> Option<Seen<EnginePeer, EnginePeerSpec>> {
        None
    }
}

type Rows = Vec<(Prefix, Option<EnginePeerSpec>)>;

/// Says to each engine what concerns it.
fn patch(
    host: &Host,
    changes: impl Iterator<Item = (EnginePeerKey, Option<EnginePeerSpec>)>,
) -> Vec<Refused<EnginePeer>> {
    let mut by_link: BTreeMap<IfName, Rows> = BTreeMap::new();
    for (key, wanted) in changes {
        by_link.entry(key.link).or_default().push((key.prefix, wanted));
    }
    let mut refused = Vec::new();
    for (link, rows) in by_link {
        let done = host.engines.client(link).and_then(|client| client.patch(&rows));
        if let Err(err) = done {
            let err = KernelError::other(err);
            let keys = rows.iter().map(|(prefix, _)| EnginePeerKey { link, prefix: *prefix });
            refused.extend(keys.map(|key: <EnginePeer as Kind>::Key| (key, err.clone())));
        }
    }
    refused
}
