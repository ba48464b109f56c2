//! The attach lane: one thread that owns the records and does what the plugin asks, one call at a time.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use russet_api::{
    cni::{
        CniError, Code,
        wire::{Answer, Call, Gc, Reply, check_network},
    },
    frame::{self, Timed},
};
use russet_core::model::{PodFact, PodId};
use russet_kernel::pod::{Lane as Kernel, LinkState};

use super::{
    Core, Existing, Key, ServeError,
    blocks::Blocks,
    note::Notes,
    one_line,
    reap::{Going, Reaper},
    records::{Record, RecordError, Records},
    spool::{Spool, key_of},
    sync::Syncer,
};
use crate::{disk::Disk, ipam::Told};

/// What arrives at the lane.
#[derive(Debug)]
pub(super) enum ToLane {
    Job(Job),
    /// Links are gone; their records may go.
    Reaped(Vec<Going>),
    /// What was asked of addresses is answered.
    Told(Told),
    Stop,
}

/// One call, and who waits for its answer.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) call: Call,
    pub(super) descriptors: Vec<OwnedFd>,
    pub(super) stream: UnixStream,
}

/// The lane's state.
pub(super) struct Lane {
    pub(super) core: Arc<dyn Core>,
    pub(super) kernel: Kernel,
    pub(super) records: Records,
    pub(super) notes: Notes,
    pub(super) spool: Spool,
    pub(super) syncer: Syncer,
    pub(super) reaper: Reaper,
    /// Attachments whose link is marked, and the number of the marking.
    pub(super) going: BTreeMap<Key, u64>,
    pub(super) generation: u64,
    /// Where addresses are out of blocks.
    pub(super) blocks: Option<Blocks>,
}

/// What the lane is made of.
pub(super) struct Parts {
    pub(super) core: Arc<dyn Core>,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) records: PathBuf,
    pub(super) spool: PathBuf,
    pub(super) boot: String,
    pub(super) blocks: Option<Blocks>,
}

impl Lane {
    pub(super) fn new(parts: Parts, kernel: Kernel, syncer: Syncer, reaper: Reaper) -> Self {
        let Parts { core, disk, records, spool, boot, blocks } = parts;
        Self {
            core,
            kernel,
            notes: Notes::new(Arc::clone(&disk), records.clone()),
            records: Records::new(Arc::clone(&disk), records, boot),
            spool: Spool::new(disk, spool),
            syncer,
            reaper,
            going: BTreeMap::new(),
            generation: 0,
            blocks,
        }
    }

    /// Finds the pods of an earlier life: reclaims what a reboot left, goes on with what was being removed,
    /// does the DELs that wait, and tells which pods there are.
    pub(super) fn recover(&mut self) -> Result<Vec<(PodId, PodFact)>, ServeError> {
        let links = self.kernel.links()?;
        let mut facts = BTreeMap::new();
        let (mut on_record, mut dead) = (Vec::new(), Vec::new());
        let going = self.spool.waiting();
        for network in self.records.networks()? {
            self.notes.load(&network).map_err(|err| notes_error(&network, err))?;
            let host_link = |notes: &Notes, pod: &PodId| {
                notes.host_link(&Key { network: network.clone(), pod: pod.clone() })
            };
            let lives = |pod: &PodId| links.contains_key(&host_link(&self.notes, pod));
            if self.blocks.is_some() {
                dead.push((network.clone(), self.records.dead(&network, lives)?));
            } else {
                let reclaimed = self.records.reclaim(&network, lives)?.len();
                tell_reclaimed(&network, reclaimed);
            }
            let records = self.records.read_all(&network)?.1;
            let mut stay: BTreeSet<_> =
                records.iter().filter_map(|record| record.pod.as_ref()).collect();
            // A DEL that goes on has to know whose it is, though another has its address by now.
            stay.extend(going.iter().filter(|key| key.network == network).map(|key| &key.pod));
            self.notes.retain(&network, &stay).map_err(|err| notes_error(&network, err))?;
            for Record { pod, addresses } in records {
                let Some(pod) = pod else { continue };
                let host_link = host_link(&self.notes, &pod);
                let key = Key { network: network.clone(), pod };
                on_record.push((key.clone(), addresses.clone()));
                let allowed_sources = self.notes.asked(&key).allowed_sources;
                match links.get(&host_link).map(|link| (link.state, link.mtu)) {
                    Some((LinkState::InUse, Some(mtu))) => {
                        let network = network.clone();
                        self.list(&key, &addresses);
                        let fact = PodFact { network, host_link, addresses, mtu, allowed_sources };
                        facts.insert(key, fact);
                    }
                    Some((LinkState::Marked, _)) => self.let_go(key, addresses),
                    // Without a link no pod uses the address, but its DEL has not come: it may be added
                    // again, or be another plugin's.
                    Some((LinkState::InUse, None)) | None => {
                        tracing::debug!(pod = %key, op = "keep a record without a link");
                    }
                }
            }
        }
        if let Some(blocks) = &self.blocks {
            blocks.recorded(on_record.into_iter());
        }
        for (network, pods) in dead {
            self.free_dead(&network, pods)?;
        }
        // A pod whose DEL waited is none any more, though its link may still have been there above: the
        // kernel removes it with the pod's namespace, at any moment.
        for key in self.drain_spool() {
            facts.remove(&key);
        }
        Ok(facts.into_iter().map(|(key, fact)| (key.pod, fact)).collect())
    }

    /// After a reboot, with blocks: has the store take back what dead pods had, as for a DEL. Their records stand until
    /// it has, and are of this boot from now on: what is left is the notes'. A record that names no pod goes at once.
    fn free_dead(&mut self, network: &str, pods: Vec<PodId>) -> Result<(), RecordError> {
        tell_reclaimed(network, pods.len());
        for pod in pods {
            let key = Key { network: network.to_owned(), pod };
            if let Err(err) = self.free(&key) {
                tracing::warn!(pod = %key, error = err.msg, op = "release pod address");
            }
        }
        self.records.reclaim(network, |_| true)?;
        Ok(())
    }

    /// Serves until told to stop.
    pub(super) fn run(&mut self, inbox: &Receiver<ToLane>) {
        while let Some(first) = self.next(inbox) {
            let mut batch = VecDeque::from_iter(first);
            batch.extend(inbox.try_iter().take(BATCH));
            while let Some(next) = batch.pop_front() {
                match next {
                    ToLane::Stop => return,
                    ToLane::Reaped(gone) => gone.into_iter().for_each(|one| self.reaped(&one)),
                    ToLane::Told(told) => {
                        let told = told_with(told, &mut batch);
                        self.told(told);
                    }
                    ToLane::Job(job) if matches!(job.call, Call::Add(_)) => {
                        let adds = adds_with(job, &mut batch);
                        self.add_all(adds);
                    }
                    ToLane::Job(job) if matches!(job.call, Call::Assign(_)) => self.assign(job),
                    ToLane::Job(job) => self.serve(job),
                }
            }
            self.release_owed();
            let (adds, others): (Vec<_>, Vec<_>) =
                self.released().into_iter().partition(|job| matches!(job.call, Call::Add(_)));
            for job in others {
                self.assign(job);
            }
            if !adds.is_empty() {
                self.add_all(adds);
            }
        }
    }

    /// Waits for the next message: for none longer than some ADD waits for a removal, or a removal for room. `None` is the end.
    #[expect(clippy::option_option, reason = "no message is not the end")]
    fn next(&self, inbox: &Receiver<ToLane>) -> Option<Option<ToLane>> {
        let Some(due) = self.blocks.as_ref().and_then(Blocks::due) else {
            return inbox.recv().ok().map(Some);
        };
        match inbox.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Ok(next) => Some(Some(next)),
            Err(RecvTimeoutError::Timeout) => Some(None),
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    fn serve(&mut self, Job { call, descriptors, stream }: Job) {
        let answer = match &call {
            Call::Del(pod) => checked(pod.check()).and_then(|()| self.del(&key_of(pod))),
            Call::Check(check) => {
                checked(check.pod.check()).and_then(|()| self.check(check, descriptors))
            }
            Call::Status => self.status(),
            Call::Gc(gc) => self.gc(gc),
            Call::Release(pod) => checked(pod.check()).and_then(|()| self.del(&key_of(pod))),
            // Served by `add_all`, together, and by `assign`.
            Call::Add(_) | Call::Assign(_) => {
                Err(CniError::new(Code::IO, "an ADD came the wrong way"))
            }
        };
        send(&stream, answer.map(|()| Answer::Done));
    }

    fn status(&self) -> Result<(), CniError> {
        let Err(not_ready) = self.core.pod_network() else { return Ok(()) };
        let code = match not_ready.existing {
            Existing::Fine => Code::NOT_AVAILABLE,
            Existing::Limited => Code::LIMITED,
        };
        Err(CniError::new(code, not_ready.reason))
    }

    /// Removes every attachment of the network that is not named. One that fails stops no other.
    fn gc(&mut self, gc: &Gc) -> Result<(), CniError> {
        checked(check_network(&gc.network))?;
        if !self.records.networks().map_err(|err| records_error(&err))?.contains(&gc.network) {
            return Ok(());
        }
        let valid: BTreeSet<Key> = gc.valid.iter().map(key_of).collect();
        let (_, records) = self.records.read_all(&gc.network).map_err(|err| records_error(&err))?;
        let found = records.into_iter().filter_map(|record| record.pod);
        let stale = found
            .map(|pod| Key { network: gc.network.clone(), pod })
            .filter(|key| !valid.contains(key));
        let failed: Vec<CniError> =
            stale.collect::<Vec<_>>().iter().filter_map(|key| self.del(key).err()).collect();
        match failed.as_slice() {
            [] => Ok(()),
            [first, ..] => {
                let msg = format!(
                    "{} attachments could not be removed; the first: {}",
                    failed.len(),
                    first.msg
                );
                Err(CniError::new(first.code, msg).with_details(&first.details))
            }
        }
    }
}

fn tell_reclaimed(network: &str, reclaimed: usize) {
    if reclaimed > 0 {
        tracing::info!(network, reclaimed, op = "reclaim pod addresses after a reboot");
    }
}

/// Without the notes a pod's link could be taken for nobody's.
fn notes_error(network: &str, source: std::io::Error) -> ServeError {
    ServeError::Io { op: "read notes of the pods of", path: network.into(), source }
}

/// The ADDs that may be done together with `first`: those behind it without another call between, and none
/// of the same pod.
fn adds_with(first: Job, batch: &mut VecDeque<ToLane>) -> Vec<Job> {
    let mut keys: BTreeSet<Key> = add_key(&first.call).into_iter().collect();
    let mut adds = vec![first];
    while let Some(ToLane::Job(next)) = batch.front() {
        if !add_key(&next.call).is_some_and(|key| keys.insert(key)) {
            break;
        }
        if let Some(ToLane::Job(job)) = batch.pop_front() {
            adds.push(job);
        }
    }
    adds
}

/// The answers that came together with `first`: one sync of the disk serves them all.
fn told_with(first: Told, batch: &mut VecDeque<ToLane>) -> Vec<Told> {
    let mut all = vec![first];
    while let Some(ToLane::Told(_)) = batch.front() {
        if let Some(ToLane::Told(told)) = batch.pop_front() {
            all.push(told);
        }
    }
    all
}

fn add_key(call: &Call) -> Option<Key> {
    match call {
        Call::Add(add) => Some(key_of(&add.pod)),
        _ => None,
    }
}

/// Answers whoever waits. That nobody does any more is no fault of ours: the runtime will DEL.
pub(super) fn send(stream: &UnixStream, answer: Result<Answer, CniError>) {
    let answer = answer.unwrap_or_else(|CniError { code, msg, details }| {
        tracing::info!(code = code.0, reason = msg, op = "refuse CNI call");
        Answer::Error { code: code.0, msg, details }
    });
    let mut stream = Timed::new(stream, Instant::now() + SEND_PATIENCE);
    if let Err(err) = frame::write(&mut stream, &Reply::new(answer)) {
        tracing::info!(error = one_line(&err), op = "answer CNI call");
    }
}

pub(super) fn checked(names: Result<(), String>) -> Result<(), CniError> {
    names.map_err(|reason| CniError::new(Code::BAD_CONFIG, reason))
}

pub(super) fn records_error(err: &RecordError) -> CniError {
    let code = match err {
        RecordError::Disk { .. } => Code::RECORDS,
        RecordError::Ipam(_) | RecordError::Held { .. } => Code::NO_ADDRESS,
    };
    CniError::new(code, one_line(err))
}

/// How many calls are looked at together.
const BATCH: usize = 31;
/// An answer fits into the socket's buffer, so this is for a peer that is no plugin.
const SEND_PATIENCE: Duration = Duration::from_secs(1);
