//! Answers the control socket: one thread for each request, at most so many.

use std::{
    fs::File,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    process::{Child, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::Signal,
};

use super::{World, process};
use crate::{
    capture,
    control::{self, Reply, Request},
    rtnl::Rtnl,
};

/// Answers until somebody asks for the end.
pub(crate) fn serve(listener: BorrowedFd<'_>, world: World) {
    let world = Arc::new(world);
    let busy = Arc::new(AtomicUsize::new(0));
    loop {
        let Ok(connection) = rustix::net::accept(listener) else { continue };
        match control::receive::<Request>(connection.as_fd()) {
            Ok(Some((Request::Down, _))) => {
                let _ = control::send(connection.as_fd(), &Reply::Done, &[]);
                return;
            }
            Ok(Some((request, fds))) => answer_aside(&world, &busy, connection, request, fds),
            Ok(None) | Err(_) => {}
        }
    }
}

fn answer_aside(
    world: &Arc<World>,
    busy: &Arc<AtomicUsize>,
    connection: OwnedFd,
    request: Request,
    fds: Vec<OwnedFd>,
) {
    if busy.fetch_add(1, Ordering::Relaxed) >= MAX_REQUESTS {
        busy.fetch_sub(1, Ordering::Relaxed);
        let reply = Reply::Refused("the lab is busy with too many requests".to_owned());
        let _ = control::send(connection.as_fd(), &reply, &[]);
        return;
    }
    let (world, busy) = (Arc::clone(world), Arc::clone(busy));
    thread::spawn(move || {
        let answer = answer(&world, connection.as_fd(), request, fds);
        let (reply, beside) =
            answer.unwrap_or_else(|err| (Reply::Refused(format!("{err:#}")), None));
        let beside: Vec<_> = beside.iter().map(AsFd::as_fd).collect();
        // Whoever has gone away wants no answer.
        let _ = control::send(connection.as_fd(), &reply, &beside);
        busy.fetch_sub(1, Ordering::Relaxed);
    });
}

type Answer = (Reply, Option<OwnedFd>);

fn answer(
    world: &World,
    asker: BorrowedFd<'_>,
    request: Request,
    fds: Vec<OwnedFd>,
) -> Result<Answer> {
    let reply = match request {
        Request::Status => Reply::Status(world.status()),
        Request::Exec { place, command, env } => {
            let path = ("PATH".to_owned(), world.programs.search_path());
            let env = [path].into_iter().chain(env).collect();
            Reply::Ended(exec(world, asker, &place, &process::Line { command, env }, fds)?)
        }
        Request::Routes { place } => Reply::Routes(world.routes(&place)?),
        Request::Counters { place, link } => Reply::Counters(world.counters(&place, &link)?),
        Request::Usage { node, process } => Reply::Usage(world.processes().usage(&node, &process)?),
        Request::Capture { place, link } => {
            let link = link.parse()?;
            return Ok((Reply::Socket, Some(world.inside(&place, || capture::open(link))?)));
        }
        order => {
            obey(world, order)?;
            Reply::Done
        }
    };
    Ok((reply, None))
}

/// The requests that are answered by being done.
fn obey(world: &World, request: Request) -> Result<()> {
    match request {
        Request::Start { node, process } => world.start(&node, &process),
        Request::Stop { node, process } => world.processes().stop(&node, &process),
        Request::Signal { node, process, signal } => {
            let signal = Signal::from(signal);
            world.processes().signal(&node, &process, signal)?;
            if signal == Signal::KILL {
                world.processes().wait_until_ended(&node, &process)?;
            }
            Ok(())
        }
        Request::Cut { link, how } => world.cut(&link, how),
        Request::Heal { link } => world.heal(link.as_deref()),
        Request::DeleteRoute { place, dst } => {
            let dst = dst.parse()?;
            world.inside(&place, || Ok(Rtnl::open()?.delete_route(dst)?))
        }
        Request::DeleteLink { place, link } => world.delete_link(&place, &link),
        Request::AddPod { pod } => world.add_pod(pod.as_str()).map(drop),
        Request::RemovePod { pod } => world.remove_pod(pod.as_str()),
        Request::Put { key, value } => world.put(&key, &value),
        other => bail!("{other:?} is no order"),
    }
}

/// Runs a command with the asker's own standard input, output and error.
fn exec(
    world: &World,
    asker: BorrowedFd<'_>,
    place: &str,
    line: &process::Line,
    fds: Vec<OwnedFd>,
) -> Result<i32> {
    let [input, output, errors] =
        <[OwnedFd; 3]>::try_from(fds).map_err(|_| anyhow!("exec wants three descriptors"))?;
    let mut child = world.inside(place, || {
        let mut command = process::prepare(line)?;
        command.stdin(input).stdout(Stdio::from(output)).stderr(Stdio::from(File::from(errors)));
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.spawn().with_context(|| format!("start {}", line.command.join(" ")))
    })?;
    let handle = process::pidfd(&child)?;
    if wait(&handle, Some(asker), None)? == Waited::AskerGone {
        // As if Ctrl-C had been pressed, so that a prober can still say what it saw.
        end(&child, Signal::INT);
        if wait(&handle, None, Some(GRACE))? != Waited::Ended {
            end(&child, Signal::KILL);
        }
    }
    Ok(process::code(child.wait()?))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waited {
    Ended,
    AskerGone,
    TimeOver,
}

/// Waits for the end of a process, of its asker or of the time.
fn wait(
    process: &OwnedFd,
    asker: Option<BorrowedFd<'_>>,
    within: Option<Duration>,
) -> Result<Waited> {
    let until = within.map(|within| Instant::now() + within);
    loop {
        let mut waits = vec![PollFd::new(process, PollFlags::IN)];
        waits.extend(
            asker.as_ref().map(|asker| PollFd::new(asker, PollFlags::IN | PollFlags::RDHUP)),
        );
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        let left = left.map(Timespec::try_from).transpose()?;
        match poll(&mut waits, left.as_ref()) {
            Ok(0) => return Ok(Waited::TimeOver),
            Err(err) if err == rustix::io::Errno::INTR => {}
            Err(err) => return Err(err.into()),
            Ok(_) if !waits.first().is_some_and(|process| process.revents().is_empty()) => {
                return Ok(Waited::Ended);
            }
            Ok(_) => return Ok(Waited::AskerGone),
        }
    }
}

/// Signals the whole group: a shell's children as well. The child is not reaped yet, so the number is its own.
fn end(child: &Child, signal: Signal) {
    if let Ok(pid) = process::pid_of(child) {
        let _ = rustix::process::kill_process_group(pid, signal);
    }
}

/// What one lab works on at once.
const MAX_REQUESTS: usize = 64;
const GRACE: Duration = Duration::from_secs(2);
