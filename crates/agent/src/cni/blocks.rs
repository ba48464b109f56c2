//! Addresses out of blocks: what the lane asks of their task, and what it does with the answers.
//!
//! ```text
//!   ADD ─▶ parked ─ Give ─▶ task ─ Given ─▶ record ─▶ link ─▶ answered
//!   DEL ─▶ link gone ─▶ note stands ─ Free ─▶ task ─ Freed ─ Gone ─▶ endpoints' task ─ Unlisted ─▶ record gone ─▶ note gone
//! ```
//!
//! The lane never waits for an answer: it is a message like any other. An address has a record from when it is
//! given till the store has it back, so a restart knows what it holds; a DEL is done for its runtime as soon as
//! the link is gone and the note stands. An ADD of an attachment whose release is under way waits for that.
//!
//! All that waits has a bound. An ADD that finds it reached is refused; a release is too, and its note brings it back as
//! soon as there is room, so that a store that is away for days costs files and no memory.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use russet_api::cni::{
    CniError, Code, Text,
    wire::{Add, Answer},
};
use russet_core::{
    addressing::blocks::HandleId,
    ipam::Assigned,
    model::{PodId, PodNetwork, calico::Workload},
};
use russet_kernel::pod::{Inside, LinkState};
use russet_net::{Family, IfName, Mac, Mtu};
use tokio::sync::mpsc;

use super::{
    Key,
    add::{Begun, Made, Wanted},
    lane::{Job, Lane, records_error, send},
    name,
    note::{Asked, Named},
    one_line,
    records::RecordError,
};
use crate::{
    endpoints::Say,
    ipam::{Ask, MOST_ASKS, Told, What, Wish, handle_of},
};

/// The line to the task that has the addresses.
#[derive(Debug)]
pub struct Line {
    pub asks: mpsc::Sender<Ask>,
    /// To the task that keeps the pods' endpoints in the datastore; it answers by the same way.
    pub says: mpsc::Sender<Say>,
    pub told: mpsc::Receiver<Told>,
}

/// What the lane knows of what it has asked.
#[derive(Debug)]
pub(super) struct Blocks {
    asks: mpsc::Sender<Ask>,
    says: mpsc::Sender<Say>,
    parked: BTreeMap<u64, Parked>,
    freeing: BTreeMap<u64, Key>,
    /// Attachments without an address, whose endpoint is to go.
    unlisting: BTreeMap<u64, Key>,
    /// ADDs of attachments that are still being removed, and until when they wait.
    after: Vec<(Key, Job, Instant)>,
    /// When the notes of releases for which there was no room are looked at again.
    owed: Option<Instant>,
    /// How many asks have no answer yet, those of overtaken ADDs too: never more than the line takes answers.
    out: usize,
    next: u64,
}

/// An ADD that waits for its addresses.
#[derive(Debug)]
struct Parked {
    key: Key,
    stream: UnixStream,
    /// `None`: the addresses are all that is wanted.
    link: Option<Box<LinkWish>>,
}

/// The link that an ADD's addresses are for.
#[derive(Debug)]
struct LinkWish {
    inside: Inside,
    network: PodNetwork,
    host: IfName,
    asked: Asked,
    mtu: Mtu,
    mac: Option<Text<Mac>>,
}

/// Whether a job was taken.
pub(super) enum Held {
    Back,
    No(Job),
}

impl Blocks {
    pub(super) fn new(asks: mpsc::Sender<Ask>, says: mpsc::Sender<Say>) -> Self {
        let (parked, freeing, unlisting) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Self {
            asks,
            says,
            parked,
            freeing,
            unlisting,
            after: Vec::new(),
            owed: None,
            out: 0,
            next: 0,
        }
    }

    /// Tells which attachments have a record, and of what.
    pub(super) fn recorded(&self, all: impl Iterator<Item = (Key, Vec<IpAddr>)>) {
        let all = all.filter_map(|(key, addresses)| Some((handle(&key).ok()?, addresses)));
        // The line is empty: nothing was asked before.
        let _ = self.asks.try_send(Ask::Recorded(all.collect()));
    }

    fn give(&mut self, ask: impl FnOnce(u64) -> Ask) -> Result<u64, CniError> {
        if self.parked.len() >= MOST_PARKED {
            return Err(busy("pods wait for addresses", MOST_PARKED));
        }
        self.ask(ask)
    }

    fn take_back(&mut self, handle: HandleId) -> Result<u64, CniError> {
        if !self.has_room() {
            return Err(busy("removals wait for the datastore", MOST_FREEING));
        }
        self.ask(|ticket| Ask::Free { ticket: Some(ticket), handle })
    }

    fn ask(&mut self, ask: impl FnOnce(u64) -> Ask) -> Result<u64, CniError> {
        let ticket = self.next;
        let sent = self.out < MOST_ASKS && self.asks.try_send(ask(ticket)).is_ok();
        if !sent {
            return Err(busy("asks for addresses wait", MOST_ASKS));
        }
        self.next += 1;
        self.out += 1;
        Ok(ticket)
    }

    /// Whether one more release may wait.
    fn has_room(&self) -> bool {
        self.freeing.len() + self.unlisting.len() < MOST_FREEING
    }

    /// Has a pod's endpoint taken out of the datastore; whether that was taken on.
    fn unlist(&mut self, key: &Key, pod: Workload) -> bool {
        let ticket = self.next;
        let gone = || Say::Gone { ticket, pod: Box::new(pod) };
        let said = self.out < MOST_ASKS && self.says.try_send(gone()).is_ok();
        if said {
            self.unlisting.insert(ticket, key.clone());
            self.next += 1;
            self.out += 1;
        }
        said
    }

    /// When an ADD has waited long enough for a removal, or notes are looked at again.
    pub(super) fn due(&self) -> Option<Instant> {
        self.after.iter().map(|(_, _, until)| *until).chain(self.owed).min()
    }
}

impl Lane {
    /// The pod's addresses as they are set on its link.
    pub(super) fn assigned(&self, network: &PodNetwork, found: &[IpAddr]) -> Vec<Assigned> {
        if self.blocks.is_some() {
            whole(found)
        } else {
            super::add::in_subnets(&network.subnets, found)
        }
    }

    /// Keeps an ADD back whose attachment is still being removed, or refuses it.
    pub(super) fn hold_back(&mut self, key: &Key, job: Job) -> Held {
        let going = self.going.contains_key(key);
        let Some(blocks) = &mut self.blocks else { return Held::No(job) };
        // The note of a release that was put off would take away what is given now.
        let owed = !going && blocks.owed.is_some() && self.spool.has(key);
        if going && blocks.after.len() < MOST_PARKED {
            blocks.after.push((key.clone(), job, Instant::now() + REMOVAL_PATIENCE));
            Held::Back
        } else if going || owed {
            send(&job.stream, Err(still_given_back(key)));
            Held::Back
        } else {
            Held::No(job)
        }
    }

    /// Whether one more release may be begun; always, where the store has no part in it.
    pub(super) fn takes_releases(&self) -> bool {
        self.blocks.as_ref().is_none_or(Blocks::has_room)
    }

    /// Notes that notes of releases stand for which there was no room.
    pub(super) fn owe(&mut self) {
        if let Some(blocks) = &mut self.blocks {
            blocks.owed = Some(Instant::now() + RELEASE_RETRY);
        }
    }

    /// Begins the releases for which there was no room before.
    pub(super) fn release_owed(&mut self) {
        let Some(blocks) = &mut self.blocks else { return };
        if blocks.owed.take_if(|at| *at <= Instant::now()).is_some() {
            self.drain_spool();
        }
    }

    /// The ADDs that need wait no longer: what they waited for is done, or they have waited too long.
    pub(super) fn released(&mut self) -> Vec<Job> {
        let now = Instant::now();
        let Some(blocks) = &mut self.blocks else { return Vec::new() };
        let (ready, wait): (Vec<_>, Vec<_>) = std::mem::take(&mut blocks.after)
            .into_iter()
            .partition(|(key, _, until)| !self.going.contains_key(key) || *until <= now);
        blocks.after = wait;
        let mut jobs = Vec::new();
        for (key, job, _) in ready {
            if self.going.contains_key(&key) {
                send(&job.stream, Err(still_given_back(&key)));
            } else {
                jobs.push(job);
            }
        }
        jobs
    }

    /// Asks for the addresses of a pod that is to have a link, and keeps the ADD till they come.
    pub(super) fn park(&mut self, wanted: &Wanted, add: &Add, inside: Inside, stream: UnixStream) {
        let Wanted { host, mtu, mac, .. } = *wanted;
        let (network, asked) = (wanted.network.clone(), Asked::of(add));
        let link = LinkWish { inside, network, host, asked, mtu, mac };
        self.ask_for(wanted.key, add, Some(Box::new(link)), stream);
    }

    /// Asks for addresses alone.
    pub(super) fn park_assign(&mut self, key: &Key, add: &Add, stream: UnixStream) {
        self.ask_for(key, add, None, stream);
    }

    fn ask_for(&mut self, key: &Key, add: &Add, link: Option<Box<LinkWish>>, stream: UnixStream) {
        self.unpark(key, "the same was asked again");
        let Some(blocks) = &mut self.blocks else { return };
        let asked = handle(key).and_then(|handle| {
            let pod = add.asks.kubernetes();
            let pod = pod.map(|(namespace, pod)| (namespace.to_owned(), pod.to_owned()));
            let wish = wish(add);
            blocks.give(|ticket| Ask::Give { ticket, handle, pod, wish })
        });
        match asked {
            Ok(ticket) => {
                blocks.parked.insert(ticket, Parked { key: key.clone(), stream, link });
            }
            Err(err) => send(&stream, Err(err)),
        }
    }

    /// Ends the wait of an ADD that is overtaken.
    pub(super) fn unpark(&mut self, key: &Key, reason: &str) {
        let Some(blocks) = &mut self.blocks else { return };
        let of = blocks.parked.iter().find(|(_, parked)| parked.key == *key);
        if let Some(ticket) = of.map(|(ticket, _)| *ticket)
            && let Some(parked) = blocks.parked.remove(&ticket)
        {
            send(&parked.stream, Err(CniError::new(Code::TRY_AGAIN, reason)));
        }
    }

    /// Takes answers: the records of all that were given addresses first, then one link after the other.
    pub(super) fn told(&mut self, all: Vec<Told>) {
        let mut begun = Vec::new();
        for Told { ticket, what } in all {
            let Some(blocks) = &mut self.blocks else { return };
            blocks.out = blocks.out.saturating_sub(1);
            match (blocks.parked.remove(&ticket), what) {
                (Some(Parked { key, stream, link }), What::Given(addresses)) => match link {
                    Some(link) => {
                        begun.push((self.record(key, *link, &addresses), stream));
                    }
                    None => send(&stream, self.record_alone(&key, &addresses)),
                },
                (Some(parked), What::Denied(why)) => {
                    send(&parked.stream, Err(CniError::new(why.code(), one_line(&why))));
                }
                (_, What::Freed) => self.freed(ticket),
                (_, What::Unlisted) => self.unlisted(ticket),
                (None, What::Denied(_)) => self.not_freed(ticket),
                // An ADD that was overtaken: who came after it has the same address, or gives it back.
                (None, What::Given(_)) => {}
            }
        }
        for (one, stream) in begun {
            self.conclude(one, &stream);
        }
    }

    fn record(
        &mut self,
        key: Key,
        link: LinkWish,
        addresses: &[IpAddr],
    ) -> Result<Begun, CniError> {
        let LinkWish { inside, network, host, asked, mtu, mac } = link;
        let wanted = Wanted { key: &key, network: &network, host, mtu, mac };
        let recorded = self.record_exactly(&key, addresses).and_then(|mut unsynced| {
            unsynced.files.extend(self.take_link(&wanted, asked.clone())?);
            Ok(unsynced)
        });
        let unsynced = recorded.inspect_err(|_| self.give_back(&key))?;
        let want = wanted.link(&whole(addresses));
        let made = Made::Now(self.syncer.begin(unsynced));
        Ok(Begun { key, asked, inside, want, made })
    }

    /// Addresses that another plugin's link is to have.
    fn record_alone(&mut self, key: &Key, addresses: &[IpAddr]) -> Result<Answer, CniError> {
        let unsynced = self.record_exactly(key, addresses).inspect_err(|_| self.give_back(key))?;
        let assigned = self.sure(key, unsynced, &whole(addresses));
        assigned.inspect_err(|_| self.give_back(key))
    }

    fn record_exactly(
        &mut self,
        key: &Key,
        addresses: &[IpAddr],
    ) -> Result<super::records::Unsynced, CniError> {
        loop {
            let recorded = self.records.record(&key.network, &key.pod, addresses);
            let (addr, by) = match recorded {
                Ok(unsynced) => return Ok(unsynced),
                Err(RecordError::Held { addr, by: Some(by) }) => (addr, by),
                Err(err) => return Err(records_error(&err)),
            };
            // The datastore has it back, and only its record is left; unless the datastore has lost what it knew.
            if self.is_attached(&key.network, &by)? {
                let msg = format!(
                    "address {addr} is in use by {by} of this node, and the datastore does not know it"
                );
                return Err(CniError::new(Code::NO_ADDRESS, msg));
            }
            self.records.release(&key.network, &by).map_err(|err| records_error(&err))?;
        }
    }

    fn is_attached(&mut self, network: &str, pod: &PodId) -> Result<bool, CniError> {
        let key = Key { network: network.to_owned(), pod: pod.clone() };
        let link = self.kernel.host_link(self.notes.host_link(&key));
        let link = link.map_err(|err| CniError::new(Code::KERNEL, one_line(&err)))?;
        Ok(link.is_some_and(|link| link.state == LinkState::InUse))
    }

    /// Gives back what was given to an attachment that is not made.
    fn give_back(&mut self, key: &Key) {
        if let Err(err) = self.free(key) {
            tracing::warn!(pod = %key, error = err.msg, op = "release pod address");
        }
    }

    /// Has the store take back all that an attachment has; its record goes after that.
    pub(super) fn free(&mut self, key: &Key) -> Result<(), CniError> {
        let handle = handle(key)?;
        if let Err(error) = self.spool.begin(key) {
            // Only an agent that is killed before the store has answered would need it.
            tracing::warn!(pod = %key, %error, op = "note DEL");
        }
        self.generation += 1;
        self.going.insert(key.clone(), self.generation);
        let Some(blocks) = &mut self.blocks else { return Ok(()) };
        match blocks.take_back(handle) {
            Ok(ticket) => {
                blocks.freeing.insert(ticket, key.clone());
                Ok(())
            }
            Err(err) => {
                self.put_off(key);
                Err(err)
            }
        }
    }

    /// Leaves a release to its note.
    fn put_off(&mut self, key: &Key) {
        self.going.remove(key);
        self.spool.put_off(key);
        self.owe();
    }

    /// A release was not taken: it is asked for again. An ADD that was overtaken has none.
    fn not_freed(&mut self, ticket: u64) {
        let freeing = self.blocks.as_mut().and_then(|blocks| blocks.freeing.remove(&ticket));
        if let Some(key) = freeing {
            self.put_off(&key);
        }
    }

    /// The store has an attachment's addresses back.
    fn freed(&mut self, ticket: u64) {
        let Some(key) = self.blocks.as_mut().and_then(|blocks| blocks.freeing.remove(&ticket))
        else {
            return;
        };
        let pod = self.workload(&key, &[]);
        let Some(blocks) = &mut self.blocks else { return };
        match pod {
            // Another plugin's link, whose endpoint is that one's; or an older agent's, which wrote none.
            None => self.end(&key),
            Some(pod) => {
                if !blocks.unlist(&key, pod) {
                    self.put_off(&key);
                }
            }
        }
    }

    /// The datastore has nothing of an attachment any more.
    fn unlisted(&mut self, ticket: u64) {
        let key = self.blocks.as_mut().and_then(|blocks| blocks.unlisting.remove(&ticket));
        if let Some(key) = key {
            self.end(&key);
        }
    }

    fn end(&mut self, key: &Key) {
        self.going.remove(key);
        if let Err(err) = self.forget(key) {
            tracing::warn!(pod = %key, error = err.msg, op = "remove pod record");
        }
    }

    /// Has a pod's endpoint written into the datastore.
    pub(super) fn list(&self, key: &Key, addresses: &[IpAddr]) {
        let (Some(blocks), Some(pod)) = (&self.blocks, self.workload(key, addresses)) else {
            return;
        };
        if blocks.says.try_send(Say::Attached(Box::new(pod))).is_err() {
            tracing::warn!(pod = %key, op = "write workload endpoint", "too many wait; the next start writes it");
        }
    }

    /// What others may be told of an attachment; `None` where it is not noted whose it is.
    fn workload(&self, key: &Key, addresses: &[IpAddr]) -> Option<Workload> {
        let Asked { allowed_sources, named, mac } = self.notes.asked(key);
        let kubernetes = match named {
            Named::Unknown => return None,
            Named::Container => None,
            Named::Kubernetes(namespace, pod) => Some((namespace, pod)),
        };
        let addresses: Vec<_> = whole(addresses).iter().map(|one| one.addr).collect();
        Some(Workload {
            network: key.network.clone(),
            container: key.pod.container.clone(),
            endpoint: key.pod.ifname,
            kubernetes,
            link: self.notes.host_link(key),
            mac: mac.or_else(|| addresses.first().map(|addr| name::pod_mac(*addr))),
            addresses,
            spoofable: allowed_sources,
        })
    }
}

/// Addresses of nobody's subnet.
fn whole(addresses: &[IpAddr]) -> Vec<Assigned> {
    let one =
        |addr: &IpAddr| Assigned { addr: *addr, len: Family::of(*addr).bits(), gateway: *addr };
    let mut all: Vec<_> = addresses.iter().map(one).collect();
    // The first one's address gives the MAC address.
    all.sort_by_key(|one| one.addr);
    all
}

fn busy(what: &str, most: usize) -> CniError {
    CniError::new(Code::TRY_AGAIN, format!("{most} {what} already"))
}

fn still_given_back(key: &Key) -> CniError {
    let msg = format!("what {key} had before is still being given back to the datastore");
    CniError::new(Code::TRY_AGAIN, msg)
}

fn handle(key: &Key) -> Result<HandleId, CniError> {
    let handle = handle_of(&key.network, &key.pod.container, key.pod.ifname.as_str());
    handle.map_err(|err| CniError::new(Code::BAD_CONFIG, err.to_string()))
}

fn wish(add: &Add) -> Wish {
    Wish {
        pools_v4: add.asks.pools_v4.clone(),
        pools_v6: add.asks.pools_v6.clone(),
        v4: add.asks.assign_v4,
        v6: add.asks.assign_v6,
        ips: add.ips.clone(),
    }
}

/// How many ADDs wait for addresses at most, and how many for a removal.
const MOST_PARKED: usize = 1_024;
/// How many releases wait for the store at most: a node has some hundred pods.
const MOST_FREEING: usize = 2_048;
// What is left is for the answers of ADDs that were overtaken.
const _: () = assert!(MOST_PARKED + MOST_FREEING < MOST_ASKS);
/// How soon the notes of releases for which there was no room are looked at again.
const RELEASE_RETRY: Duration = Duration::from_secs(2);
/// How long an ADD waits for what is being removed of an earlier attachment of its name.
const REMOVAL_PATIENCE: Duration = Duration::from_secs(3);
