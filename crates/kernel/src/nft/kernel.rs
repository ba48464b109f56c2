//! Our tables in the real kernel: one socket that lists them, changes them and owns them.
//!
//! A table with an owner can be changed through its owner's socket alone, and `nft flush ruleset` leaves
//! it out. With `persist` (Linux 6.9) it stays, without an owner, when that socket closes, and the next
//! socket takes it over; so the rules outlive the agent and nobody else touches them while it lives.
//! Where the kernel has no `persist`, an owned table would die with us, so ours has no owner there.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use russet_net::{Family, Prefix};
use rustix::net::sockopt;

use super::{
    found::{Found, FoundBase, FoundChain, FoundSet, FoundTable},
    interval::{
        read_addresses, read_intervals, read_pairs, write_address, write_interval, write_pair,
    },
    number::{
        NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END, NFNL_SUBSYS_NFTABLES, NFT_TABLE_F_DORMANT,
        NFT_TABLE_F_OWNER, NFT_TABLE_F_PERSIST,
    },
    object::{self, RawChain, RawElement, RawRule, RawSet, RawTable, TableRef, family_of},
    plan::{Member, Op, Step},
    wire::nfgen,
};
use crate::netlink::{Batch, Message, NetlinkError, Outcome, Protocol, Refusal, Socket, flags};
use russet_desired::SetKind;

/// What holds our tables: the kernel, or a fake.
pub(crate) trait Ruleset {
    /// Reads everything in our tables.
    fn list_owned(&mut self) -> Result<Found, NetlinkError>;

    /// Takes all the steps at once, or none when one is refused; tells of each whether it was.
    fn transact(&mut self, steps: &[Step]) -> Result<Vec<StepOutcome>, NetlinkError>;

    /// Takes over those of our tables that are there and not yet ours.
    fn claim(&mut self) -> Result<Vec<(Family, Fault)>, NetlinkError>;

    /// How many octets of steps fit in one transaction.
    fn room(&self) -> usize;
}

/// What became of one step.
pub(crate) type StepOutcome = Result<(), Fault>;

/// Why a step was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Refused(Refusal),
    /// The table belongs to another socket.
    Held {
        port: u32,
    },
}

/// Whether a table of ours can be changed by others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// Nothing was wanted in the table yet.
    Unclaimed,
    /// It has the flags `owner persist`: while we live, nobody else can change it.
    Exclusive,
    /// The kernel is older than 6.9, or somebody made the table without an owner.
    Shared,
}

/// The socket that owns our tables. When it is closed, they stay and lose their owner.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(super) socket: Socket,
    ownership: BTreeMap<Family, Ownership>,
    /// The families that had a table of ours when last listed.
    present: BTreeSet<Family>,
    room: usize,
}

impl Kernel {
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        let socket = Socket::open(Protocol::Netfilter)?;
        let room = widen(&socket)?;
        Ok(Self { socket, ownership: BTreeMap::new(), present: BTreeSet::new(), room })
    }

    pub(crate) fn ownership(&self, family: Family) -> Ownership {
        self.ownership.get(&family).copied().unwrap_or(Ownership::Unclaimed)
    }

    pub(crate) fn port(&self) -> Result<u32, NetlinkError> {
        self.socket.port()
    }

    pub(crate) fn tables(&mut self) -> Result<Vec<RawTable>, NetlinkError> {
        self.dump("nftables tables", object::get_tables, object::read_table)
    }

    pub(crate) fn chains(&mut self) -> Result<Vec<RawChain>, NetlinkError> {
        self.dump("nftables chains", object::get_chains, object::read_chain)
    }

    pub(crate) fn chain_rules(
        &mut self,
        table: TableRef<'_>,
        chain: &str,
    ) -> Result<Vec<RawRule>, NetlinkError> {
        let request = |batch: &mut Batch| object::get_chain_rules(batch, table, chain);
        let rules = self.dump("nftables rules", request, object::read_rule_reply)?;
        // A kernel may filter by table only.
        Ok(rules.into_iter().filter(|rule| rule.chain == chain).collect())
    }

    /// Sends what `fill` writes as one transaction that succeeds or fails as a whole.
    pub(crate) fn change(
        &mut self,
        op: &'static str,
        subject: &str,
        fill: impl FnOnce(&mut Batch),
    ) -> Result<(), NetlinkError> {
        let mut batch = begin();
        fill(&mut batch);
        let outcomes = self.finish(batch)?;
        let refused = outcomes.into_iter().find_map(Result::err);
        refused.map_or(Ok(()), |refusal| Err(NetlinkError::refused(op, subject, refusal)))
    }

    /// Closes the batch and sends it. The outcomes are those of what lies between its ends; when the
    /// transaction could not even be begun or committed, each bears that refusal.
    fn finish(&mut self, mut batch: Batch) -> Result<Vec<Outcome>, NetlinkError> {
        // The kernel answers its refusals in order, so this one's answer comes last.
        batch.stamp(batch.len() - 1, 0, flags::ACK);
        batch.push(NFNL_MSG_BATCH_END, 0, &nfgen(0, NFNL_SUBSYS_NFTABLES));
        let mut outcomes = self.socket.transact(&mut batch, |_| {})?;
        outcomes.pop();
        let mut outcomes = outcomes.into_iter();
        match outcomes.next() {
            Some(Err(refusal)) => Ok(outcomes.map(|_| Err(refusal.clone())).collect()),
            _ => Ok(outcomes.collect()),
        }
    }

    fn dump<T>(
        &mut self,
        subject: &'static str,
        request: impl FnOnce(&mut Batch),
        read: impl Fn(&Message<'_>) -> Option<T>,
    ) -> Result<Vec<T>, NetlinkError> {
        let mut batch = Batch::new();
        request(&mut batch);
        let fold = |all: &mut Vec<T>, reply: Message<'_>| all.extend(read(&reply));
        match self.socket.dump(subject, &mut batch, fold) {
            // Its table or set went away since we saw it.
            Err(err) if err.is_not_found() => Ok(Vec::new()),
            result => result,
        }
    }

    fn list_table(
        &mut self,
        family: Family,
        chains: &[RawChain],
    ) -> Result<FoundTable, NetlinkError> {
        let table = TableRef::ours(family);
        let mut found = FoundTable::default();
        for chain in chains.iter().filter(|chain| chain.is_of(table)) {
            let base = chain.base.as_ref().map_or(FoundBase::Regular, |raw| {
                object::our_base(raw).map_or(FoundBase::Strange, FoundBase::Ours)
            });
            found.chains.insert(chain.name.clone(), FoundChain { base, rules: Vec::new() });
        }
        let request = |batch: &mut Batch| object::get_rules(batch, table);
        for rule in self.dump("nftables rules", request, object::read_rule_reply)? {
            if let Some(chain) = found.chains.get_mut(&rule.chain) {
                chain.rules.push(rule.exprs);
            }
        }
        let request = |batch: &mut Batch| object::get_sets(batch, table);
        for raw in self.dump("nftables sets", request, object::read_set)? {
            let set = self.list_set(family, &raw)?;
            found.sets.insert(raw.name, set);
        }
        Ok(found)
    }

    fn list_set(&mut self, family: Family, raw: &RawSet) -> Result<FoundSet, NetlinkError> {
        let Some(kind) = object::our_kind(family, raw) else { return Ok(FoundSet::default()) };
        let table = TableRef::ours(family);
        let request = |batch: &mut Batch| object::get_elements(batch, table, &raw.name);
        // One part of the listing that is not ours makes the whole set strange.
        let parts =
            self.dump("nftables elements", request, |reply| Some(object::read_elements(reply)))?;
        let raw: Option<Vec<_>> = parts.into_iter().collect();
        let elements = raw.map(|parts| parts.concat()).and_then(|raw| match kind {
            SetKind::Addresses => read_addresses(family, &raw).map(members),
            SetKind::Prefixes => read_intervals(family, raw).map(members),
            SetKind::LinkPrefixes => read_pairs(family, &raw),
        });
        Ok(elements
            .map_or_else(FoundSet::default, |elements| FoundSet { kind: Some(kind), elements }))
    }

    /// Writes what makes sure of our table, and takes it over. True of every transaction: it costs one
    /// message, and a table that was taken away is back before it is needed.
    fn write_table(&self, batch: &mut Batch, family: Family) {
        let flags = match self.ownership(family) {
            Ownership::Shared => 0,
            _ => NFT_TABLE_F_OWNER | NFT_TABLE_F_PERSIST,
        };
        object::new_table(batch, TableRef::ours(family), flags);
    }

    /// Learns from how the kernel took [`Self::write_table`].
    fn judge_table(&mut self, family: Family, outcome: &Outcome) -> Result<Claim, NetlinkError> {
        let Err(refusal) = outcome else { return Ok(Claim::Held) };
        let is_lessened = self.ownership(family) == Ownership::Shared;
        Ok(match refusal.errno {
            libc::EOPNOTSUPP | libc::EINVAL if !is_lessened => {
                self.ownership.insert(family, Ownership::Shared);
                Claim::Lessened
            }
            libc::EPERM => match self.owner(TableRef::ours(family))? {
                Some(port) => Claim::Refused(Fault::Held { port }),
                None => Claim::Refused(Fault::Refused(refusal.clone())),
            },
            _ => Claim::Refused(Fault::Refused(refusal.clone())),
        })
    }

    /// The socket, other than ours, that a table belongs to.
    fn owner(&mut self, table: TableRef<'_>) -> Result<Option<u32>, NetlinkError> {
        let ours = self.port()?;
        let mut tables = self.tables()?.into_iter();
        let found = tables.find(|raw| raw.family == table.family && raw.name == table.name);
        Ok(found.and_then(|raw| raw.owner).filter(|port| *port != ours))
    }

    /// One attempt: `None` when a table must be claimed for less, and the whole tried again.
    fn attempt(
        &mut self,
        families: &[Family],
        steps: &[Step],
    ) -> Result<Option<Attempt>, NetlinkError> {
        let mut batch = begin();
        for family in families {
            self.write_table(&mut batch, *family);
        }
        for step in steps {
            step.write(&mut batch);
        }
        let mut outcomes = self.finish(batch)?;
        let of_steps = outcomes.split_off(families.len());
        let succeeded = outcomes.iter().chain(&of_steps).all(Result::is_ok);

        let mut held = BTreeMap::new();
        for (family, outcome) in families.iter().zip(&outcomes) {
            match self.judge_table(*family, outcome)? {
                Claim::Held if succeeded => self.note_claim(*family),
                Claim::Held => {}
                Claim::Lessened => return Ok(None),
                Claim::Refused(fault) => drop(held.insert(*family, fault)),
            }
        }
        Ok(Some(Attempt { tables: held, steps: of_steps }))
    }

    fn note_claim(&mut self, family: Family) {
        self.present.insert(family);
        self.ownership.entry(family).or_insert(Ownership::Exclusive);
    }

    /// Makes sure of the tables of these families, and takes the steps.
    fn insist(&mut self, families: &[Family], steps: &[Step]) -> Result<Attempt, NetlinkError> {
        // Each family can be lessened once.
        for _ in Family::BOTH {
            if let Some(attempt) = self.attempt(families, steps)? {
                return Ok(attempt);
            }
        }
        let attempt = self.attempt(families, steps)?;
        let unsupported =
            NetlinkError::refused("claim", "tables russet", Refusal::new(libc::EOPNOTSUPP));
        attempt.ok_or(unsupported)
    }
}

/// How a transaction went.
struct Attempt {
    /// Tables that could not be made sure of.
    tables: BTreeMap<Family, Fault>,
    steps: Vec<Outcome>,
}

enum Claim {
    Held,
    Lessened,
    Refused(Fault),
}

impl Ruleset for Kernel {
    fn list_owned(&mut self) -> Result<Found, NetlinkError> {
        let chains = self.chains()?;
        let tables = self.tables()?;
        let is_ours = |table: &&RawTable| table.name == object::OUR_TABLE;
        let ours = tables.iter().filter(is_ours).filter_map(|table| family_of(table.family));
        self.present = ours.collect();
        // A table that is made anew can be ours alone, whatever the last one was.
        self.ownership.retain(|family, _| self.present.contains(family));
        // One that was put to sleep is claimed again, which wakes it.
        let asleep = tables.iter().filter(is_ours).filter(|t| t.flags & NFT_TABLE_F_DORMANT != 0);
        for family in asleep.filter_map(|table| family_of(table.family)) {
            self.ownership.remove(&family);
        }
        let mut found = Found::default();
        for family in self.present.clone() {
            found.insert(family, self.list_table(family, &chains)?);
        }
        Ok(found)
    }

    fn transact(&mut self, steps: &[Step]) -> Result<Vec<StepOutcome>, NetlinkError> {
        let is_used = |family: &Family| steps.iter().any(|step| step.family == *family);
        let families: Vec<_> = Family::BOTH.into_iter().filter(is_used).collect();
        let attempt = self.insist(&families, steps)?;
        let blame = |(step, outcome): (&Step, Outcome)| match attempt.tables.get(&step.family) {
            Some(fault) => Err(fault.clone()),
            None => outcome.map_err(Fault::Refused),
        };
        Ok(steps.iter().zip(attempt.steps).map(blame).collect())
    }

    fn claim(&mut self) -> Result<Vec<(Family, Fault)>, NetlinkError> {
        let mut refused = Vec::new();
        for family in Family::BOTH {
            if self.present.contains(&family) && self.ownership(family) == Ownership::Unclaimed {
                refused.extend(self.insist(&[family], &[])?.tables);
            }
        }
        Ok(refused)
    }

    fn room(&self) -> usize {
        self.room
    }
}

impl Step {
    /// Writes the step's message.
    pub(crate) fn write(&self, batch: &mut Batch) {
        let table = TableRef::ours(self.family);
        let name = &self.name;
        match &self.op {
            Op::NewSet(kind) => object::new_set(batch, self.family, name, *kind),
            Op::DelSet => object::del_set(batch, table, name),
            Op::Add(kind, members) => {
                object::new_elements(batch, table, name, &raw_elements(*kind, members));
            }
            Op::Remove(kind, members) => {
                object::del_elements(batch, table, name, &raw_elements(*kind, members));
            }
            Op::NewChain(base) => object::new_chain(batch, table, name, *base),
            Op::DelChain => object::del_chain(batch, table, name),
            Op::Flush => object::flush_chain(batch, table, name),
            Op::AddRule(exprs) => object::append_rule(batch, table, name, exprs),
        }
    }
}

fn raw_elements(kind: SetKind, members: &[Member]) -> Vec<RawElement> {
    let prefixes = members.iter().map(|member| member.prefix);
    match kind {
        SetKind::Addresses => prefixes.map(write_address).collect(),
        SetKind::Prefixes => prefixes.flat_map(write_interval).collect(),
        SetKind::LinkPrefixes => members.iter().copied().filter_map(write_pair).collect(),
    }
}

fn members(prefixes: BTreeSet<Prefix>) -> BTreeSet<Member> {
    prefixes.into_iter().map(Member::from).collect()
}

fn begin() -> Batch {
    let mut batch = Batch::new();
    batch.push(NFNL_MSG_BATCH_BEGIN, 0, &nfgen(0, NFNL_SUBSYS_NFTABLES));
    batch
}

/// Widens the send buffer, by force where we may, and tells how much of a transaction fits in it. The
/// kernel refuses a datagram above the buffer (`EMSGSIZE`).
fn widen(socket: &Socket) -> Result<usize, NetlinkError> {
    if sockopt::set_socket_send_buffer_size_force(socket, SEND_BUFFER).is_err() {
        sockopt::set_socket_send_buffer_size(socket, SEND_BUFFER).map_err(io::Error::from)?;
    }
    let octets = sockopt::socket_send_buffer_size(socket).map_err(io::Error::from)?;
    Ok(octets.saturating_sub(HEADROOM))
}

/// Enough for 100,000 elements.
const SEND_BUFFER: usize = 4 << 20;
/// For the ends of a batch, the tables, and the kernel's own 32 octets.
const HEADROOM: usize = 1_024;
