//! Tells that somebody else changed something that concerns us.
//!
//! A socket in the group of `nf_tables`' events. Each event bears the port of the socket whose transaction
//! caused it, so those of our own are passed over, and a repair is not taken for a new disturbance.

use std::{
    mem,
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use super::{
    number::{
        NFNL_SUBSYS_NFTABLES, NFNLGRP_NFTABLES, NFT_MSG_DELCHAIN, NFT_MSG_DELRULE, NFT_MSG_DELSET,
        NFT_MSG_DELSETELEM, NFT_MSG_DELTABLE, NFT_MSG_NEWCHAIN, NFT_MSG_NEWRULE, NFT_MSG_NEWSET,
        NFT_MSG_NEWSETELEM, NFT_MSG_NEWTABLE, NFTA_TABLE_NAME,
    },
    object::OUR_TABLE,
    wire::{NFGEN_LEN, Read},
};
use crate::netlink::{Message, NetlinkError, Protocol, Socket};

/// Readable when there may be news; [`Monitor::drain`] tells whether there are.
#[derive(Debug)]
pub struct Monitor {
    socket: Socket,
    /// The port of the socket that makes our changes.
    ours: u32,
    culprit: Option<u32>,
    /// Whether events were lost since all that waited had been read; see [`crate::monitor`].
    lost: bool,
}

impl Monitor {
    pub(crate) fn open(ours: u32) -> Result<Self, NetlinkError> {
        let socket = Socket::open(Protocol::Netfilter)?;
        socket.join(NFNLGRP_NFTABLES)?;
        Ok(Self { socket, ours, culprit: None, lost: false })
    }

    /// Reads what has come, without waiting, and tells whether the tables must be read back: another
    /// process changed our table or a chain that we may have to put a rule into, or events were lost. At
    /// most [`DATAGRAMS`] are read; when there are more, the answer is yes and the rest is for the next
    /// call.
    ///
    /// # Errors
    ///
    /// When the socket fails otherwise than by an overrun.
    pub fn drain(&mut self) -> Result<bool, NetlinkError> {
        let mut concerned = false;
        for _ in 0..DATAGRAMS {
            match self.socket.receive(Duration::ZERO) {
                Ok(None) => return Ok(mem::take(&mut self.lost) || concerned),
                Ok(Some(mut messages)) => {
                    if let Some(message) = messages.find(|m| concerns_us(m, self.ours)) {
                        concerned = true;
                        self.culprit = Some(message.port);
                    }
                }
                Err(err) if err.is_overrun() => self.lost = true,
                Err(err) => return Err(err),
            }
        }
        Ok(true)
    }
}

impl Monitor {
    /// The port of the socket whose change was noticed last: its process's id, as a rule. It is told once.
    pub fn take_culprit(&mut self) -> Option<u32> {
        self.culprit.take()
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Elements of foreign sets come and go all day and decide nothing of ours; so do foreign objects.
fn concerns_us(message: &Message<'_>, ours: u32) -> bool {
    if message.port == ours || message.kind >> 8 != NFNL_SUBSYS_NFTABLES {
        return false;
    }
    // The table's name is the first attribute of all these.
    let in_ours = message.attrs(NFGEN_LEN).text(NFTA_TABLE_NAME) == Some(OUR_TABLE);
    match message.kind & 0xff {
        NFT_MSG_NEWTABLE | NFT_MSG_DELTABLE | NFT_MSG_NEWCHAIN | NFT_MSG_DELCHAIN
        | NFT_MSG_NEWRULE | NFT_MSG_DELRULE => true,
        NFT_MSG_NEWSET | NFT_MSG_DELSET | NFT_MSG_NEWSETELEM | NFT_MSG_DELSETELEM => in_ours,
        _ => false,
    }
}

/// How many datagrams one call reads.
const DATAGRAMS: usize = 1_000;
