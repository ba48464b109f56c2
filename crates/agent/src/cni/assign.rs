//! Addresses alone, for an interface that another plugin makes. They have a record as a pod of ours has; whoever made
//! the interface removes it before it gives them back.

use std::os::unix::net::UnixStream;

use russet_api::cni::{
    CniError, Code,
    wire::{self, Add, Answer, AssignedIp, Call},
};
use russet_core::ipam::Assigned;

use super::{
    Key,
    blocks::Held,
    lane::{Job, Lane, checked, records_error, send},
    records::Unsynced,
    spool::key_of,
};

impl Lane {
    pub(super) fn assign(&mut self, job: Job) {
        let Call::Assign(add) = &job.call else { return };
        let key = key_of(&add.pod);
        let Held::No(Job { call: Call::Assign(add), stream, .. }) = self.hold_back(&key, job)
        else {
            return;
        };
        if let Err(err) = checked(add.check()) {
            send(&stream, Err(err));
        } else if self.blocks.is_some() {
            self.park_assign(&key, &add, stream);
        } else {
            self.assign_here(&key, &add, &stream);
        }
    }

    /// Out of this node's own subnet.
    fn assign_here(&mut self, key: &Key, add: &Add, stream: &UnixStream) {
        let assigned = self.finish_going(key).and_then(|()| self.reserve(key, add));
        send(stream, assigned);
    }

    fn reserve(&mut self, key: &Key, add: &Add) -> Result<Answer, CniError> {
        let subnets = self.network()?.subnets;
        let found = self.records.find(&key.network, &key.pod).map_err(|err| records_error(&err))?;
        if !found.is_empty() {
            return Ok(told(&super::add::in_subnets(&subnets, &found)));
        }
        let reserved = self.records.reserve(&key.network, &key.pod, &subnets, &add.ips);
        let (assigned, unsynced) = reserved.map_err(|err| records_error(&err))?;
        let sure = self.sure(key, unsynced, &assigned);
        if sure.is_err() {
            self.release(key)?;
        }
        sure
    }

    /// Answers when the records are safe.
    pub(super) fn sure(
        &self,
        key: &Key,
        unsynced: Unsynced,
        assigned: &[Assigned],
    ) -> Result<Answer, CniError> {
        let unsafe_yet = |reason| {
            let msg = format!("the record of {key} is not safe on disk: {reason}");
            CniError::new(Code::RECORDS, msg)
        };
        self.syncer.begin(unsynced).wait().map_err(unsafe_yet)?;
        Ok(told(assigned))
    }
}

fn told(assigned: &[Assigned]) -> Answer {
    let ip = |one: &Assigned| AssignedIp { addr: one.addr, len: one.len };
    Answer::Assigned(wire::Assigned { ips: assigned.iter().map(ip).collect() })
}
