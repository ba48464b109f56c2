//! The CNI socket: who may speak, for how long, and how many at once.

use std::{
    fs,
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            fs::PermissionsExt,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use russet_api::{
    cni::{
        CniError, Code,
        wire::{DESCRIPTORS, Request},
    },
    frame::{self, FrameError, HEADER_LEN, Timed},
};
use russet_core::model::{PodFact, PodId};
use russet_kernel::pod::Lane as Kernel;
use rustix::{
    buffer::spare_capacity,
    event::{EventfdFlags, epoll, eventfd},
    net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg, sockopt},
};

use super::{
    Core, ServeError, ServerSettings,
    blocks::{Blocks, Line},
    lane::{Job, Lane, Parts, ToLane, send},
    one_line,
    reap::Reaper,
    sync::Syncer,
};
use crate::{
    disk::{Disk, Files},
    ipam::Told,
};

/// Serves until it is dropped; its threads are joined then.
#[derive(Debug)]
pub struct Server {
    stop: OwnedFd,
    lane: SyncSender<ToLane>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// Starts in the calling thread's network namespace, and tells of the pods that it found. It serves as
    /// soon as this returns.
    ///
    /// # Errors
    ///
    /// When the records cannot be read, the kernel not asked, or the socket not made.
    pub fn start(
        settings: &ServerSettings,
        core: Box<dyn Core>,
    ) -> Result<(Self, Vec<(PodId, PodFact)>), ServeError> {
        Self::start_with(settings, core, None)
    }

    /// The same where addresses are out of blocks, and whom to ask for them.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_with(
        settings: &ServerSettings,
        core: Box<dyn Core>,
        line: Option<Line>,
    ) -> Result<(Self, Vec<(PodId, PodFact)>), ServeError> {
        let boot = fs::read_to_string(BOOT_ID).map_err(ServeError::Boot)?;
        Self::serve(Arc::new(Files), settings, boot.trim(), Arc::from(core), line)
    }

    /// The same on another disk, and in another life of the kernel than the present.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_on(
        disk: Arc<dyn Disk>,
        settings: &ServerSettings,
        boot: &str,
        core: Arc<dyn Core>,
    ) -> Result<(Self, Vec<(PodId, PodFact)>), ServeError> {
        Self::serve(disk, settings, boot, core, None)
    }

    /// [`Self::start_on`] where addresses are out of blocks.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn serve(
        disk: Arc<dyn Disk>,
        settings: &ServerSettings,
        boot: &str,
        core: Arc<dyn Core>,
        line: Option<Line>,
    ) -> Result<(Self, Vec<(PodId, PodFact)>), ServeError> {
        let thread = |name| move |source| ServeError::Thread(name, source);
        let (to_lane, inbox) = sync_channel(QUEUE);
        let syncer = Syncer::start(Arc::clone(&disk)).map_err(thread("cni-sync"))?;
        let reaper = Reaper::start(Kernel::open()?, Arc::clone(&core), to_lane.clone());
        let reaper = reaper.map_err(thread("cni-reap"))?;
        let parts = Parts {
            core,
            disk,
            records: settings.records.clone(),
            spool: settings.spool.clone(),
            boot: boot.to_owned(),
            blocks: line.as_ref().map(|line| Blocks::new(line.asks.clone(), line.says.clone())),
        };
        let mut lane = Lane::new(parts, Kernel::open()?, syncer, reaper);
        let pods = lane.recover()?;
        // Before anybody can ask for a change of them.
        lane.core.recovered(&pods);

        if let Some(Line { told, .. }) = line {
            let lane = to_lane.clone();
            let passing = thread::Builder::new().name("cni-told".into()).stack_size(STACK);
            // It ends with the addresses' task, or with the lane; nobody waits for it.
            passing.spawn(move || pass_on(told, &lane)).map_err(thread("cni-told"))?;
        }
        let listener = listen(&settings.socket)?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let stop = stop.map_err(|errno| ServeError::Thread("cni-read", errno.into()))?;
        let mut server = Self { stop, lane: to_lane, threads: Vec::new() };
        server.spawn("cni-lane", move || {
            lane.run(&inbox);
            // Before the lane: its reaper may be waiting for room in here.
            drop(inbox);
        })?;
        for _ in 0..READERS {
            let listener = listener.try_clone().map_err(thread("cni-read"))?;
            let reader = Reader::new(listener, &server.stop, server.lane.clone());
            let reader = reader.map_err(thread("cni-read"))?;
            server.spawn("cni-read", move || reader.run())?;
        }
        Ok((server, pods))
    }

    fn spawn(
        &mut self,
        name: &'static str,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<(), ServeError> {
        let thread = thread::Builder::new().name(name.into()).stack_size(STACK).spawn(work);
        self.threads.push(thread.map_err(|source| ServeError::Thread(name, source))?);
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Readers look at the one, the lane at the other. Neither fails while their threads live.
        let _ = rustix::io::write(self.stop.as_fd(), &1_u64.to_ne_bytes());
        let _ = self.lane.send(ToLane::Stop);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Hands the lane what the addresses' task tells, for as long as both live.
fn pass_on(mut told: tokio::sync::mpsc::Receiver<Told>, lane: &SyncSender<ToLane>) {
    while let Some(one) = told.blocking_recv() {
        if lane.send(ToLane::Told(one)).is_err() {
            return;
        }
    }
}

/// Makes the socket under another name first, so that it is never there with another mode.
fn listen(path: &Path) -> Result<UnixListener, ServeError> {
    let told = |op| {
        let path: PathBuf = path.to_owned();
        move |source| ServeError::Io { op, path, source }
    };
    fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).map_err(told("make folder of"))?;
    let draft = path.with_extension("new");
    let _ = fs::remove_file(&draft);
    let listener = UnixListener::bind(&draft).map_err(told("listen on"))?;
    fs::set_permissions(&draft, fs::Permissions::from_mode(0o600)).map_err(told("protect"))?;
    fs::rename(&draft, path).map_err(told("listen on"))?;
    listener.set_nonblocking(true).map_err(told("listen on"))?;
    Ok(listener)
}

/// One of the threads that read requests.
struct Reader {
    listener: UnixListener,
    /// Tells of a call, or that it is over.
    ready: OwnedFd,
    lane: SyncSender<ToLane>,
}

impl Reader {
    fn new(listener: UnixListener, stop: &OwnedFd, lane: SyncSender<ToLane>) -> io::Result<Self> {
        let ready = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        // A call wakes one reader; the end wakes all.
        let by_peer = epoll::EventFlags::IN | epoll::EventFlags::EXCLUSIVE;
        epoll::add(&ready, &listener, epoll::EventData::new_u64(Woken::ByPeer as u64), by_peer)?;
        let by_stop = epoll::EventData::new_u64(Woken::ByStop as u64);
        epoll::add(&ready, stop, by_stop, epoll::EventFlags::IN)?;
        Ok(Self { listener, ready, lane })
    }

    fn run(&self) {
        while self.wait() == Woken::ByPeer {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(err) => {
                    // Another reader was faster; else there are no descriptors left, and waiting may help.
                    if err.kind() != io::ErrorKind::WouldBlock {
                        tracing::warn!(error = %err, op = "accept CNI call");
                        thread::sleep(AFTER_FAILURE);
                    }
                    continue;
                }
            };
            let _ = stream.set_nonblocking(false);
            match read(&stream) {
                Ok((request, descriptors)) => {
                    let job = Job { call: request.call, descriptors, stream };
                    if self.lane.send(ToLane::Job(job)).is_err() {
                        return;
                    }
                }
                Err(ReadError::Silent) => {}
                Err(ReadError::Told(err)) => send(&stream, Err(err)),
            }
        }
    }

    fn wait(&self) -> Woken {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(2);
        loop {
            match epoll::wait(&self.ready, spare_capacity(&mut events), None) {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => {
                    tracing::error!(%error, op = "wait for CNI calls");
                    return Woken::ByStop;
                }
                Ok(_) if events.iter().any(|it| it.data.u64() == Woken::ByStop as u64) => {
                    return Woken::ByStop;
                }
                Ok(_) => return Woken::ByPeer,
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Woken {
    ByPeer,
    ByStop,
}

/// Why there is no request.
enum ReadError {
    /// Nobody would read an answer.
    Silent,
    Told(CniError),
}

impl From<FrameError> for ReadError {
    fn from(err: FrameError) -> Self {
        match err {
            FrameError::Closed | FrameError::Truncated { .. } | FrameError::Socket(_) => {
                Self::Silent
            }
            err => Self::Told(CniError::new(Code::DECODE, one_line(&err))),
        }
    }
}

/// Reads one request and the descriptors that come with its first octets.
fn read(stream: &UnixStream) -> Result<(Request, Vec<OwnedFd>), ReadError> {
    allow(stream)?;
    let until = Instant::now() + READ_PATIENCE;
    stream.set_read_timeout(Some(READ_PATIENCE)).map_err(FrameError::Socket)?;
    let mut header = [0; HEADER_LEN];
    let (got, descriptors) = receive(stream, &mut header).map_err(|err| match err.kind() {
        io::ErrorKind::WouldBlock => FrameError::TimedOut,
        _ => FrameError::Socket(err),
    })?;
    if got == 0 {
        return Err(ReadError::Silent);
    }
    let mut timed = Timed::new(stream, until);
    let rest = header.get_mut(got..).unwrap_or_default();
    let wanted = rest.len();
    if frame::fill(&mut timed, rest)? < wanted {
        return Err(ReadError::Silent);
    }
    Ok((frame::read_body(&mut timed, header)?, descriptors))
}

/// Whoever may connect could remove anybody's network; so only root, or who runs as we do, may.
fn allow(stream: &UnixStream) -> Result<(), ReadError> {
    let peer = sockopt::socket_peercred(stream).map_err(|_| ReadError::Silent)?;
    if peer.uid.is_root() || peer.uid == rustix::process::geteuid() {
        return Ok(());
    }
    let msg = format!("user {} may not ask for networks; only root may", peer.uid.as_raw());
    Err(ReadError::Told(CniError::new(Code::IO, msg)))
}

fn receive(stream: &UnixStream, buf: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = recvmsg(stream, &mut [IoSliceMut::new(buf)], &mut control, flags)?;
    let descriptors = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => fds.collect(),
        _ => Vec::new(),
    });
    Ok((received.bytes, descriptors.collect()))
}

/// What the kernel calls its present life.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// How many requests are read at once; more wait in the kernel.
const READERS: usize = 4;
/// How many may wait for the lane.
const QUEUE: usize = 64;
const AFTER_FAILURE: Duration = Duration::from_millis(100);
const READ_PATIENCE: Duration = Duration::from_secs(5);
/// In octets; the threads hold little, and a node's agent is to be small.
const STACK: usize = 512 << 10;
