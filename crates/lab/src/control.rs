//! The lab's control socket: what can be asked of a running lab, and how it is asked.
//!
//! A sequenced-packet socket in a folder of the user's own: one packet is one message in JSON, and descriptors
//! travel beside it. So `exec` hands over the terminal itself, and a capture hands back a packet socket that
//! was opened inside. One connection carries one request.

use std::{
    env, fs,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::{DirBuilderExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow, bail};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::topology::{
    Name,
    form::{CutHow, SignalName},
};

/// What can be asked.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    Status,
    /// Ends the lab and all in it.
    Down,
    /// Runs a command; standard input, output and error come beside it. It ends when the asker goes away.
    Exec {
        place: String,
        command: Vec<String>,
        env: Vec<(String, String)>,
    },
    Start {
        node: String,
        process: String,
    },
    Stop {
        node: String,
        process: String,
    },
    Signal {
        node: String,
        process: String,
        signal: SignalName,
    },
    Cut {
        link: String,
        how: CutHow,
    },
    /// All links when none is named.
    Heal {
        link: Option<String>,
    },
    Routes {
        place: String,
    },
    DeleteRoute {
        place: String,
        dst: String,
    },
    DeleteLink {
        place: String,
        link: String,
    },
    Counters {
        place: String,
        link: String,
    },
    /// A packet socket on a link comes back beside the answer.
    Capture {
        place: String,
        link: String,
    },
    /// What a process has used since its start.
    Usage {
        node: String,
        process: String,
    },
    AddPod {
        pod: Name,
    },
    RemovePod {
        pod: Name,
    },
    Put {
        key: String,
        value: String,
    },
}

/// What is answered.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Reply {
    Done,
    /// Why it was not done.
    Refused(String),
    Status(Status),
    /// A command's exit status; 128 and the signal's number when a signal ended it.
    Ended(i32),
    Routes(Vec<RouteLine>),
    Counters(Vec<(String, u64)>),
    Usage(Usage),
    Socket,
}

/// How a lab is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Status {
    pub name: String,
    pub pid: u32,
    pub uptime_s: u64,
    pub nodes: Vec<NodeStatus>,
    pub pods: Vec<PodStatus>,
    pub cut: Vec<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NodeStatus {
    pub name: String,
    pub subnet: String,
    pub addresses: Vec<String>,
    pub processes: Vec<ProcessStatus>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProcessStatus {
    pub name: String,
    /// `running`, or how it ended.
    pub state: String,
    pub pid: Option<u32>,
    pub starts: u32,
    pub log: PathBuf,
}

/// What a process has used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// On a processor, all threads together.
    pub cpu: std::time::Duration,
    /// The lines of its log, those of earlier starts included.
    pub lines: u64,
    pub starts: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PodStatus {
    pub name: String,
    pub node: String,
    pub addresses: Vec<std::net::IpAddr>,
}

/// A route, its link by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteLine {
    pub dst: String,
    pub via: Option<std::net::IpAddr>,
    pub link: String,
    pub protocol: u8,
    pub metric: u32,
}

/// Asks the lab whose folder is `dir`.
#[derive(Clone, Debug)]
pub struct Client {
    dir: PathBuf,
}

impl Client {
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Asks, and waits for the answer.
    pub fn ask(&self, request: &Request) -> Result<Reply> {
        Ok(self.ask_with(request, &[])?.0)
    }

    /// Asks with descriptors beside the request; those beside the answer come back.
    pub fn ask_with(
        &self,
        request: &Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(Reply, Vec<OwnedFd>)> {
        let socket = self.connect()?;
        send(socket.as_fd(), request, fds).context("ask the lab")?;
        let answer = receive::<Reply>(socket.as_fd()).context("hear from the lab")?;
        match answer {
            Some((Reply::Refused(reason), _)) => Err(anyhow!(reason)),
            Some(answer) => Ok(answer),
            None => Err(anyhow!("the lab ended without an answer")),
        }
    }

    pub fn is_alive(&self) -> bool {
        self.connect().is_ok()
    }

    /// Waits until the lab's supervisor is gone.
    pub fn wait_for_end(&self, within: std::time::Duration) -> bool {
        let until = std::time::Instant::now() + within;
        while self.is_alive() {
            if std::time::Instant::now() > until {
                return false;
            }
            std::thread::sleep(POLL);
        }
        true
    }

    fn connect(&self) -> Result<OwnedFd> {
        let path = socket_path(&self.dir);
        let socket = seqpacket()?;
        let address = SocketAddrUnix::new(&path)?;
        rustix::net::connect(&socket, &address)
            .with_context(|| format!("no lab answers at {}", path.display()))?;
        Ok(socket)
    }
}

/// Listens for requests to the lab whose folder is `dir`.
pub(crate) fn listen(dir: &Path) -> Result<OwnedFd> {
    let path = socket_path(dir);
    let socket = seqpacket()?;
    let address = SocketAddrUnix::new(&path)
        .with_context(|| format!("{} is too long for a socket", path.display()))?;
    rustix::net::bind(&socket, &address).with_context(|| format!("bind {}", path.display()))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// Sends one message with the descriptors beside it.
pub(crate) fn send<T: Serialize>(
    socket: BorrowedFd<'_>,
    message: &T,
    fds: &[BorrowedFd<'_>],
) -> Result<()> {
    let octets = serde_json::to_vec(message)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut beside = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !beside.push(SendAncillaryMessage::ScmRights(fds)) {
        bail!("at most {MAX_FDS} descriptors can go beside a message");
    }
    let flags = SendFlags::NOSIGNAL;
    rustix::net::sendmsg(socket, &[IoSlice::new(&octets)], &mut beside, flags)?;
    Ok(())
}

/// Receives one message; `None` when the other side is gone.
pub(crate) fn receive<T: DeserializeOwned>(
    socket: BorrowedFd<'_>,
) -> Result<Option<(T, Vec<OwnedFd>)>> {
    let mut octets = vec![0; MAX_MESSAGE];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        let mut into = [IoSliceMut::new(&mut octets)];
        rustix::net::recvmsg(socket, &mut into, &mut beside, RecvFlags::CMSG_CLOEXEC)
    })?;
    let mut fds = Vec::new();
    for message in beside.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    match octets.get(..received.bytes).unwrap_or_default() {
        [] => Ok(None),
        message => Ok(Some((serde_json::from_slice(message)?, fds))),
    }
}

/// The folder of a lab: below the user's own.
pub fn lab_dir(name: &Name) -> Result<PathBuf> {
    Ok(base_dir()?.join(name.as_str()))
}

/// The labs of this user that answer.
pub fn running() -> Result<Vec<Client>> {
    let mut labs = Vec::new();
    for entry in fs::read_dir(base_dir()?)?.filter_map(Result::ok) {
        let client = Client::new(&entry.path());
        if client.is_alive() {
            labs.push(client);
        }
    }
    labs.sort_by(|a, b| a.dir.cmp(&b.dir));
    Ok(labs)
}

/// Where this user's labs are: `$XDG_RUNTIME_DIR/russet-lab`, else below /tmp. Nobody else may enter it.
fn base_dir() -> Result<PathBuf> {
    let uid = rustix::process::getuid().as_raw();
    let base = match env::var_os("XDG_RUNTIME_DIR") {
        Some(dir) if Path::new(&dir).is_dir() => Path::new(&dir).join("russet-lab"),
        _ => PathBuf::from(format!("/tmp/russet-lab-{uid}")),
    };
    let made = fs::DirBuilder::new().mode(0o700).create(&base);
    if let Err(err) = made.or_else(exists_already) {
        return Err(err).with_context(|| format!("create {}", base.display()));
    }
    // In /tmp anybody could have been there first.
    let found = fs::symlink_metadata(&base)?;
    if !found.is_dir() || found.uid() != uid || found.mode() & 0o077 != 0 {
        bail!("{} is not a folder that only uid {uid} can enter", base.display());
    }
    Ok(base)
}

fn exists_already(err: io::Error) -> io::Result<()> {
    if err.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(err) }
}

fn seqpacket() -> Result<OwnedFd> {
    let kind = SocketType::SEQPACKET;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?)
}

fn socket_path(dir: &Path) -> PathBuf {
    dir.join("control.sock")
}

/// Standard input, output and error.
const MAX_FDS: usize = 3;
/// The status of 64 nodes has room many times over.
const MAX_MESSAGE: usize = 192 * 1024;
const BACKLOG: i32 = 16;
const POLL: std::time::Duration = std::time::Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_and_its_descriptors_arrive_together() {
        let (near, far) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let file = tempfile::tempfile().unwrap();
        let request = Request::Heal { link: Some("n1".into()) };
        send(near.as_fd(), &request, &[file.as_fd(), near.as_fd()]).unwrap();

        let (got, fds) = receive::<Request>(far.as_fd()).unwrap().unwrap();
        assert!(matches!(got, Request::Heal { link: Some(link) } if link == "n1"));
        assert_eq!(fds.len(), 2);

        drop((near, fds));
        assert!(receive::<Request>(far.as_fd()).unwrap().is_none(), "the end is told as such");
    }
}
