//! A blocking netlink socket that sends many messages at once.
//!
//! The kernel works through a datagram's messages in order and answers before `send` returns. So a chunk
//! asks for one acknowledgement, of its last message; an error of any other comes unasked and is matched
//! by its sequence number; silence is success. [`Socket::batch`] does that in chunks,
//! [`Socket::transact`] keeps one transaction in one datagram (`nf_tables`), [`Socket::dump`] lists.
//!
//! A failure of the socket itself ([`NetlinkError::Socket`]) means that nothing is known about what was
//! asked: whoever gets one reads the kernel back.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, retry_on_intr},
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind,
        netlink::{self, SocketAddrNetlink},
        recv, sendto, socket_with, sockopt,
    },
};

use super::{
    error::{NetlinkError, Refusal},
    message::{Attrs, Batch, HEADER_LEN, Message, Messages, flags},
};
use crate::sys;

/// What became of one message of a batch.
pub type Outcome = Result<(), Refusal>;

/// Which part of the kernel a socket speaks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `NETLINK_ROUTE`
    Route,
    /// `NETLINK_NETFILTER`
    Netfilter,
    /// `NETLINK_GENERIC`
    Generic,
}

/// How much the kernel may queue for us, in octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiveBuffer(pub usize);

impl Default for ReceiveBuffer {
    /// Room for the events of 30,000 objects.
    fn default() -> Self {
        Self(16 << 20)
    }
}

/// One netlink socket, for one thread.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    seq: u32,
    buf: Vec<u8>,
    timeout: Duration,
    sent: Sent,
}

/// How much was sent, ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    pub messages: u64,
    pub datagrams: u64,
}

impl Socket {
    /// Opens a socket in the thread's network namespace.
    ///
    /// # Errors
    ///
    /// When the kernel has no such protocol or no memory.
    pub fn open(protocol: Protocol) -> Result<Self, NetlinkError> {
        let number = match protocol {
            Protocol::Route => None,
            Protocol::Netfilter => Some(netlink::NETFILTER),
            Protocol::Generic => Some(netlink::GENERIC),
        };
        let kind = SocketType::RAW;
        let fd = socket_with(AddressFamily::NETLINK, kind, SocketFlags::CLOEXEC, number)?;
        bind(&fd, &SocketAddrNetlink::new(0, 0))?;
        Self::from_owned_fd(fd)
    }

    /// Takes a socket that was opened elsewhere: in a pod's network namespace, by the CNI plugin. It stays
    /// in that namespace.
    ///
    /// # Errors
    ///
    /// When the descriptor is not a netlink socket.
    pub fn from_owned_fd(fd: OwnedFd) -> Result<Self, NetlinkError> {
        sys::set_netlink_option(fd.as_fd(), libc::NETLINK_EXT_ACK, 1)?;
        sys::set_netlink_option(fd.as_fd(), libc::NETLINK_CAP_ACK, 1)?;
        sys::set_netlink_option(fd.as_fd(), libc::NETLINK_GET_STRICT_CHK, 1)?;
        let buf = vec![0; RECEIVE_LEN];
        let socket = Self { fd, seq: 0, buf, timeout: ANSWER_TIMEOUT, sent: Sent::default() };
        socket.set_receive_buffer(ReceiveBuffer::default());
        Ok(socket)
    }

    /// Asks for a larger queue, by force where we may (`SO_RCVBUFFORCE`), else as far as the system's
    /// limit lets us. Too small a queue is no error: an overrun is noticed and means resync.
    pub fn set_receive_buffer(&self, ReceiveBuffer(octets): ReceiveBuffer) {
        if sockopt::set_socket_recv_buffer_size_force(&self.fd, octets).is_err()
            && let Err(error) = sockopt::set_socket_recv_buffer_size(&self.fd, octets)
        {
            tracing::debug!(%error, octets, "netlink receive buffer keeps its size");
        }
    }

    /// Subscribes to a multicast group (`RTNLGRP_*`, `NFNLGRP_*`).
    ///
    /// # Errors
    ///
    /// When the kernel does not have the group, or denies it.
    pub fn join(&self, group: u32) -> Result<(), NetlinkError> {
        let group = i32::try_from(group).map_err(|_| Errno::INVAL)?;
        Ok(sys::set_netlink_option(self.fd.as_fd(), libc::NETLINK_ADD_MEMBERSHIP, group)?)
    }

    /// How long an answer is waited for; 5 s unless said otherwise.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    pub fn sent(&self) -> Sent {
        self.sent
    }

    /// Our port: events that we caused ourselves bear it.
    ///
    /// # Errors
    ///
    /// When the socket is no longer good.
    pub fn port(&self) -> Result<u32, NetlinkError> {
        let name = rustix::net::getsockname(&self.fd)?;
        Ok(SocketAddrNetlink::try_from(name)?.pid())
    }

    /// Sends one message and waits for its acknowledgement.
    ///
    /// # Errors
    ///
    /// What the kernel refused, or the socket's failure.
    pub fn request(
        &mut self,
        op: &'static str,
        subject: impl std::fmt::Display,
        message: &mut Batch,
    ) -> Result<(), NetlinkError> {
        self.request_with_reply(op, subject, message, |_| {})
    }

    /// Sends one message and hands what comes back before the acknowledgement to `reply`.
    ///
    /// # Errors
    ///
    /// What the kernel refused, or the socket's failure.
    pub fn request_with_reply(
        &mut self,
        op: &'static str,
        subject: impl std::fmt::Display,
        message: &mut Batch,
        mut reply: impl FnMut(Message<'_>),
    ) -> Result<(), NetlinkError> {
        let whole = Chunk::of(0, message.len());
        let outcomes = self.exchange(message, whole, &mut reply)?;
        let refused = outcomes.into_iter().find_map(Result::err);
        refused.map_or(Ok(()), |refusal| Err(NetlinkError::refused(op, subject, refusal)))
    }

    /// Sends every message, 64 at a time, and tells what became of each, in their order. One that is
    /// refused holds back no other.
    ///
    /// # Errors
    ///
    /// The socket's failure: nothing is known of any message then.
    pub fn batch(&mut self, batch: &mut Batch) -> Result<Vec<Outcome>, NetlinkError> {
        let mut outcomes = Vec::with_capacity(batch.len());
        for from in (0..batch.len()).step_by(CHUNK) {
            let chunk = Chunk::of(from, (from + CHUNK).min(batch.len()));
            outcomes.extend(self.exchange(batch, chunk, &mut |_| {})?);
        }
        Ok(outcomes)
    }

    /// Sends every message in one datagram and hands what comes back to `reply`. `nf_tables` wants a
    /// transaction so: its first and last message are `NFNL_MSG_BATCH_BEGIN` and `_END`, and kernels
    /// before 6.10 acknowledge neither. So the last message that bears [`flags::ACK`] already is the one
    /// waited for (the last of all when none does), and a refusal of the first ends the wait as well: that
    /// is how a failed commit is told.
    ///
    /// # Errors
    ///
    /// The socket's failure, `EMSGSIZE` for a datagram above the send buffer included.
    pub fn transact(
        &mut self,
        batch: &mut Batch,
        mut reply: impl FnMut(Message<'_>),
    ) -> Result<Vec<Outcome>, NetlinkError> {
        let whole = Chunk::of(0, batch.len());
        let waited = batch.last_with(flags::ACK).unwrap_or(whole.waited);
        self.exchange(batch, Chunk { waited, first: First::EndsWhenRefused, ..whole }, &mut reply)
    }

    /// Lists: sends the one message of `request` as a dump and folds every message of the answer into a
    /// fresh `T`. A dump that a change interrupted is begun again.
    ///
    /// # Errors
    ///
    /// What the kernel refused, the socket's failure, or `EINTR` when it was interrupted time and again.
    pub fn dump<T: Default>(
        &mut self,
        subject: &'static str,
        request: &mut Batch,
        mut fold: impl FnMut(&mut T, Message<'_>),
    ) -> Result<T, NetlinkError> {
        for _ in 0..DUMP_TRIES {
            let mut found = T::default();
            match self.dump_once(request, &mut |message| fold(&mut found, message))? {
                DumpEnd::Whole => return Ok(found),
                DumpEnd::Interrupted => {}
                DumpEnd::Refused(refusal) => {
                    return Err(NetlinkError::refused("list", subject, refusal));
                }
            }
        }
        Err(NetlinkError::refused("list", subject, Refusal::new(libc::EINTR)))
    }

    /// Waits for a datagram of events. `None` when the time is over.
    ///
    /// # Errors
    ///
    /// The socket's failure; see [`NetlinkError::is_overrun`].
    pub fn receive(&mut self, timeout: Duration) -> Result<Option<Messages<'_>>, NetlinkError> {
        match self.receive_datagram(Instant::now() + timeout) {
            Ok(len) => Ok(Some(Messages::new(&self.buf[..len]))),
            Err(Errno::TIMEDOUT) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Sends octets as they are, `nlmsghdr` included; the answer is read with [`Self::receive`].
    ///
    /// # Errors
    ///
    /// The socket's failure.
    pub fn send_raw(&mut self, datagram: &[u8]) -> Result<(), NetlinkError> {
        retry_on_intr(|| {
            sendto(&self.fd, datagram, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))
        })?;
        self.sent.datagrams += 1;
        Ok(())
    }

    /// Sends the chunk as one datagram and collects the outcomes of its messages.
    fn exchange(
        &mut self,
        batch: &mut Batch,
        chunk: Chunk,
        reply: &mut dyn FnMut(Message<'_>),
    ) -> Result<Vec<Outcome>, NetlinkError> {
        if chunk.count() == 0 {
            return Ok(Vec::new());
        }
        let first_seq = self.stamp(batch, chunk);
        self.send_raw(batch.range(chunk.from, chunk.to))?;
        self.sent.messages += chunk.count() as u64;

        let mut outcomes = vec![Ok(()); chunk.count()];
        let mut answered = false;
        let until = Instant::now() + self.timeout;
        while !answered {
            let len = self.receive_datagram(until)?;
            for message in Messages::new(&self.buf[..len]) {
                let Some(n) = position(message.seq, first_seq, chunk.count()) else { continue };
                match message.kind {
                    NLMSG_ERROR => {
                        outcomes[n] = outcome_of(&message);
                        answered |= chunk.is_closed_by(n, &outcomes[n]);
                    }
                    NLMSG_DONE | NLMSG_NOOP => {}
                    _ => reply(message),
                }
            }
        }
        Ok(outcomes)
    }

    /// Gives the chunk's messages their sequence numbers and asks for the acknowledgement of the one that
    /// is waited for. Returns the first number.
    fn stamp(&mut self, batch: &mut Batch, chunk: Chunk) -> u32 {
        let first_seq = self.seq.wrapping_add(1);
        for n in chunk.from..chunk.to {
            self.seq = self.seq.wrapping_add(1);
            let ack = if n == chunk.waited { flags::ACK } else { 0 };
            batch.stamp(n, self.seq, flags::REQUEST | ack);
        }
        first_seq
    }

    fn dump_once(
        &mut self,
        request: &mut Batch,
        each: &mut dyn FnMut(Message<'_>),
    ) -> Result<DumpEnd, NetlinkError> {
        self.seq = self.seq.wrapping_add(1);
        let seq = self.seq;
        request.stamp(0, seq, flags::REQUEST | flags::DUMP);
        self.send_raw(request.range(0, 1))?;
        self.sent.messages += 1;

        let mut end = DumpEnd::Whole;
        loop {
            let len = self.receive_datagram(Instant::now() + self.timeout)?;
            for message in Messages::new(&self.buf[..len]).filter(|m| m.seq == seq) {
                if message.flags & flags::DUMP_INTR != 0 {
                    end = DumpEnd::Interrupted;
                }
                match message.kind {
                    NLMSG_DONE | NLMSG_ERROR => return Ok(end.closed_by(&message)),
                    NLMSG_NOOP => {}
                    _ => each(message),
                }
            }
        }
    }

    /// Waits for one datagram and returns its length in `self.buf`.
    fn receive_datagram(&mut self, until: Instant) -> Result<usize, Errno> {
        loop {
            match recv(&self.fd, &mut self.buf[..], RecvFlags::DONTWAIT | RecvFlags::TRUNC) {
                Ok((_, len)) if len > self.buf.len() => {
                    // It is lost; the next one of its kind will fit.
                    self.buf.resize(len.next_power_of_two().min(RECEIVE_MAX), 0);
                    return Err(Errno::NOBUFS);
                }
                Ok((_, len)) => return Ok(len),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => self.wait_readable(until)?,
                Err(errno) => return Err(errno),
            }
        }
    }

    fn wait_readable(&self, until: Instant) -> Result<(), Errno> {
        let left = until.checked_duration_since(Instant::now()).ok_or(Errno::TIMEDOUT)?;
        let left = Timespec::try_from(left).map_err(|_| Errno::INVAL)?;
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        match poll(&mut fds, Some(&left)) {
            Ok(0) => Err(Errno::TIMEDOUT),
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The messages of a batch that go out as one datagram.
#[derive(Clone, Copy, Debug)]
struct Chunk {
    from: usize,
    to: usize,
    /// The message whose answer comes last.
    waited: usize,
    first: First,
}

/// What a refusal of a chunk's first message means for the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum First {
    IsLikeAnyOther,
    /// No other will be answered.
    EndsWhenRefused,
}

impl Chunk {
    const fn of(from: usize, to: usize) -> Self {
        Self { from, to, waited: to.saturating_sub(1), first: First::IsLikeAnyOther }
    }

    const fn count(self) -> usize {
        self.to - self.from
    }

    /// Whether nothing more comes after the outcome of its message `n`.
    fn is_closed_by(self, n: usize, outcome: &Outcome) -> bool {
        let aborted = self.first == First::EndsWhenRefused && n == 0 && outcome.is_err();
        aborted || self.from + n == self.waited
    }
}

/// How a dump ended.
enum DumpEnd {
    Whole,
    Interrupted,
    Refused(Refusal),
}

impl DumpEnd {
    /// `message` is the dump's last: `NLMSG_DONE`, which may carry an error too, or `NLMSG_ERROR`.
    fn closed_by(self, message: &Message<'_>) -> Self {
        match outcome_of(message) {
            Err(refusal) => Self::Refused(refusal),
            Ok(()) => self,
        }
    }
}

/// Which message of a chunk a sequence number belongs to.
fn position(seq: u32, first_seq: u32, count: usize) -> Option<usize> {
    let n = usize::try_from(seq.wrapping_sub(first_seq)).ok()?;
    (n < count).then_some(n)
}

/// Reads `NLMSG_ERROR` (of which an acknowledgement is the case of no error) or the end of a dump.
fn outcome_of(message: &Message<'_>) -> Outcome {
    match message.status() {
        0.. => Ok(()),
        status => Err(Refusal { errno: status.saturating_neg(), text: words_of(message) }),
    }
}

/// The kernel's own words on an error, or nothing.
fn words_of(message: &Message<'_>) -> String {
    // The error's number, then the header of the request; with CAP_ACK no more of it than that.
    let attrs_at = match message.kind {
        NLMSG_ERROR => 4 + HEADER_LEN,
        _ => 4,
    };
    let attrs = message.body.get(attrs_at..).unwrap_or_default();
    let text = Attrs::new(attrs).find(NLMSGERR_ATTR_MSG);
    text.map(|attr| attr.str().to_owned()).unwrap_or_default()
}

/// Messages in one datagram: larger chunks are not faster, and errors come back sooner.
const CHUNK: usize = 64;
/// An answer is there when `send` returns; this is for a kernel that is very busy with its own locks.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
const DUMP_TRIES: usize = 16;
/// The kernel fills at most 32 KiB of a dump into one datagram.
const RECEIVE_LEN: usize = 64 << 10;
const RECEIVE_MAX: usize = 4 << 20;

const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSGERR_ATTR_MSG: u16 = 1;
