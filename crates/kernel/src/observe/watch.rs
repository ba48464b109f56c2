//! Listens, and looks again when something has changed.

use std::{
    fs,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use russet_desired::Flag;
use rustix::{
    event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll},
    io::Errno,
};

use super::{
    LinkView, NodeView, RouteView,
    parse::{self, Whose},
};
use crate::{
    KernelError,
    link::{LinkChange, Links},
    monitor::{Drained, Monitor},
    netlink::{Batch, Message, NetlinkError, Protocol, Socket, rt},
};

/// Looks once, in the thread's network namespace.
///
/// # Errors
///
/// When the kernel cannot be listed.
pub fn observe() -> Result<NodeView, KernelError> {
    let mut eye = Eye::open()?;
    eye.look(What::Everything)?;
    Ok(eye.view.clone())
}

/// A thread that tells how the node is, and again whenever that has changed. It ends when dropped.
#[derive(Debug)]
pub struct Observer {
    stop: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Observer {
    /// Starts the thread in the caller's network namespace. `tell` is called on it, the first time at once.
    ///
    /// # Errors
    ///
    /// When there is no socket or no thread to be had, or the kernel cannot be listed.
    pub fn start(tell: impl FnMut(NodeView) + Send + 'static) -> Result<Self, KernelError> {
        let stop = eventfd(0, EventfdFlags::CLOEXEC).map_err(NetlinkError::from)?;
        let stop = Arc::new(stop);
        let watch = Watch { eye: Eye::open()?, stop: Arc::clone(&stop), tell: Box::new(tell) };
        let thread = thread::Builder::new()
            .name("observe".to_owned())
            .spawn(move || watch.run())
            .map_err(NetlinkError::from)?;
        Ok(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        // It cannot be full: nobody else writes to it.
        let _ = rustix::io::write(&self.stop, &1_u64.to_ne_bytes());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the observer panicked");
        }
    }
}

struct Watch {
    eye: Eye,
    stop: Arc<OwnedFd>,
    tell: Box<dyn FnMut(NodeView) + Send>,
}

/// Why the thread woke up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Woken {
    Stop,
    Event,
    Time,
}

impl Watch {
    fn run(mut self) {
        let mut wanted = Some((What::Everything, Instant::now()));
        let mut told = None;
        loop {
            let until = wanted.map(|(_, at)| at);
            match self.wait(until) {
                Ok(Woken::Stop) => return,
                Ok(Woken::Event) => wanted = self.hear(wanted),
                Ok(Woken::Time) => {}
                Err(error) => {
                    tracing::error!(%error, "the observer cannot wait for its socket");
                    return;
                }
            }
            let Some((what, _)) = wanted.filter(|(_, at)| *at <= Instant::now()) else { continue };
            wanted = match self.eye.look(what) {
                Ok(()) => None,
                Err(error) => {
                    tracing::warn!(%error, "the node cannot be observed");
                    Some((What::Everything, Instant::now() + RETRY))
                }
            };
            if wanted.is_none() && told.as_ref() != Some(&self.eye.view) {
                told = Some(self.eye.view.clone());
                (self.tell)(self.eye.view.clone());
            }
        }
    }

    /// Reads what has come; the look that it asks for waits for a moment of quiet, but not long.
    fn hear(&mut self, wanted: Option<(What, Instant)>) -> Option<(What, Instant)> {
        let heard = self.eye.hear();
        match (heard, wanted) {
            (None, wanted) => wanted,
            (Some(what), None) => Some((what, Instant::now() + QUIET)),
            (Some(what), Some((before, at))) => Some((what.max(before), at)),
        }
    }

    fn wait(&self, until: Option<Instant>) -> Result<Woken, Errno> {
        let timeout = match until {
            None => None,
            Some(at) => {
                let left = at.saturating_duration_since(Instant::now());
                Some(Timespec::try_from(left).map_err(|_| Errno::INVAL)?)
            }
        };
        let mut fds = [
            PollFd::new(&*self.stop, PollFlags::IN),
            PollFd::from_borrowed_fd(self.eye.monitor.as_fd(), PollFlags::IN),
        ];
        match poll(&mut fds, timeout.as_ref()) {
            Err(Errno::INTR) | Ok(0) => return Ok(Woken::Time),
            Err(errno) => return Err(errno),
            Ok(_) => {}
        }
        let [stop, _] = fds.map(|fd| !fd.revents().is_empty());
        Ok(if stop { Woken::Stop } else { Woken::Event })
    }
}

/// What must be looked at again; each includes the ones before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Addresses,
    Everything,
}

/// The sockets, and what was seen last.
struct Eye {
    socket: Socket,
    monitor: Monitor,
    links: Links,
    view: NodeView,
}

impl Eye {
    fn open() -> Result<Self, KernelError> {
        let monitor = Monitor::of_groups(&[
            rt::GROUP_LINK,
            rt::GROUP_V4_ADDR,
            rt::GROUP_V4_ROUTE,
            rt::GROUP_V6_ADDR,
            rt::GROUP_V6_ROUTE,
        ])?;
        Ok(Self {
            socket: Socket::open(Protocol::Route)?,
            monitor,
            links: Links::default(),
            view: NodeView::default(),
        })
    }

    /// Reads all waiting events, and tells what they ask to be looked at again.
    fn hear(&mut self) -> Option<What> {
        let mut heard = None;
        let Self { monitor, links, view, .. } = self;
        let drained =
            monitor.drain(|message| heard = heard.max(meaning(links, &view.routes, &message)));
        // Each event says so by itself here.
        links.take_changed();
        match drained {
            Ok(Drained::Empty | Drained::More) => heard,
            Ok(Drained::Lost) => Some(What::Everything),
            Err(error) => {
                tracing::warn!(%error, "events cannot be read; looking at everything again");
                Some(What::Everything)
            }
        }
    }

    fn look(&mut self, what: What) -> Result<(), NetlinkError> {
        let routes = match what {
            What::Everything => {
                self.links.refresh(&mut self.socket)?;
                self.routes()?
            }
            What::Addresses => std::mem::take(&mut self.view.routes),
        };
        let mut links: Vec<LinkView> = self.links.iter().map(parse::link).collect();
        for (index, address) in self.addresses()? {
            if let Ok(at) = links.binary_search_by_key(&index, |link| link.index) {
                links[at].addresses.push(address);
            }
        }
        for link in &mut links {
            link.addresses.sort_unstable_by_key(|address| (address.addr, address.len));
            link.router_advertised = is_router_advertised(link, &routes);
        }
        self.view = NodeView { links, routes };
        Ok(())
    }

    fn addresses(&mut self) -> Result<Vec<(u32, super::AddressView)>, NetlinkError> {
        let mut request = Batch::new();
        drop(request.push(rt::RTM_GETADDR, 0, &rt::addr_header(0, 0, 0, 0)));
        self.socket.dump("addresses", &mut request, |all: &mut Vec<_>, message| {
            all.extend(parse::address(&message));
        })
    }

    fn routes(&mut self) -> Result<Vec<RouteView>, NetlinkError> {
        let mut routes = Vec::new();
        for family in [rt::AF_INET, rt::AF_INET6] {
            let mut request = Batch::new();
            let mut header = [0; rt::ROUTE_HEADER_LEN];
            header[0] = family;
            drop(request.push(rt::RTM_GETROUTE, 0, &header));
            let links = &self.links;
            let found: Vec<_> =
                self.socket.dump("routes", &mut request, |all: &mut Vec<_>, message| {
                    if let Whose::Foreign(route) = parse::route(links, &message) {
                        all.push(route);
                    }
                })?;
            routes.extend(found);
        }
        routes.sort_unstable();
        Ok(routes)
    }
}

/// What an event asks to be looked at again. A link that goes down takes routes with it without a word; that
/// one brings some is told.
fn meaning(links: &mut Links, routes: &[RouteView], message: &Message<'_>) -> Option<What> {
    match message.kind {
        rt::RTM_NEWLINK | rt::RTM_DELLINK => match links.observe(message) {
            LinkChange::Nothing => None,
            LinkChange::Behind(name) if routes.iter().any(|r| r.link == Some(name)) => {
                Some(What::Everything)
            }
            LinkChange::Itself | LinkChange::Behind(_) => Some(What::Addresses),
        },
        rt::RTM_NEWADDR | rt::RTM_DELADDR => Some(What::Addresses),
        rt::RTM_NEWROUTE | rt::RTM_DELROUTE => match parse::route(links, message) {
            Whose::Nobodys => None,
            Whose::Foreign(_) => Some(What::Everything),
        },
        _ => None,
    }
}

/// Whether a router told the link what it has: a default route of protocol `ra`, or a global IPv6 address
/// with an end while the kernel listens to routers (`accept_ra`).
fn is_router_advertised(link: &LinkView, routes: &[RouteView]) -> Flag {
    let by_route = routes.iter().any(|r| r.protocol == rt::RTPROT_RA && r.link == Some(link.name));
    let leased = link.addresses.iter().any(|address| {
        address.addr.is_ipv6() && address.scope == super::Scope::Global && !address.lasting.is_on()
    });
    (by_route || (leased && listens_to_routers(link))).into()
}

fn listens_to_routers(link: &LinkView) -> bool {
    let path = format!("/proc/sys/net/ipv6/conf/{}/accept_ra", link.name);
    fs::read_to_string(path).is_ok_and(|text| text.trim() != "0")
}

const QUIET: Duration = Duration::from_millis(20);
const RETRY: Duration = Duration::from_secs(1);
