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
    LinkView, NodeView,
    agenda::{Agenda, What},
    parse,
    routes::{Heed, Routes, Whose},
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
        let watch = Watch {
            eye: Eye::open()?,
            stop: Arc::clone(&stop),
            tell: Box::new(tell),
            agenda: Agenda::new(Instant::now()),
            listen_at: None,
        };
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
    agenda: Agenda,
    /// Events wait in the socket until then, and are read together.
    listen_at: Option<Instant>,
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
        let mut told = None;
        loop {
            match self.wait() {
                Ok(Woken::Stop) => return,
                // The look that events ask for waits for a moment of quiet, and so does reading them.
                Ok(Woken::Event) => self.listen_at = Some(Instant::now() + QUIET),
                Ok(Woken::Time) => {}
                Err(error) => {
                    tracing::error!(%error, "the observer cannot wait for its socket");
                    return;
                }
            }
            if self.listen_at.is_some_and(|at| at <= Instant::now()) {
                self.hear();
            }
            let now = Instant::now();
            let routes = if self.eye.is_stale(now) { What::Everything } else { What::Routes };
            let Some(what) = self.agenda.due(routes, now) else { continue };
            if let Err(error) = self.eye.look(what) {
                tracing::warn!(%error, "the node cannot be observed");
                self.agenda.failed(Instant::now());
                continue;
            }
            self.agenda.looked(what, Instant::now());
            if told.as_ref() != Some(&self.eye.view) {
                told = Some(self.eye.view.clone());
                (self.tell)(self.eye.view.clone());
            }
        }
    }

    /// Reads all that has come, and notes what of it is to be looked at.
    fn hear(&mut self) {
        let heard = self.eye.hear();
        let now = Instant::now();
        // What did not fit into one reading is read after the look.
        self.listen_at = (heard.more == Drained::More).then_some(now);
        let at_once = match heard.routes {
            Heed::Heavy => heard.what.max(Some(What::Routes)),
            Heed::Light | Heed::Unclear => {
                self.agenda.routes_changed(now);
                heard.what
            }
            Heed::Nothing => heard.what,
        };
        if let Some(what) = at_once {
            self.agenda.want(what, now);
        }
    }

    /// Waits until there is an event, or something is due.
    fn wait(&self) -> Result<Woken, Errno> {
        let until = [self.agenda.next(), self.listen_at].into_iter().flatten().min();
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
        let heard = if self.listen_at.is_none() { fds.len() } else { 1 };
        match poll(&mut fds[..heard], timeout.as_ref()) {
            Err(Errno::INTR) | Ok(0) => return Ok(Woken::Time),
            Err(errno) => return Err(errno),
            Ok(_) => {}
        }
        let [stop, _] = fds.map(|fd| !fd.revents().is_empty());
        Ok(if stop { Woken::Stop } else { Woken::Event })
    }
}

/// What events mean.
struct Heard {
    what: Option<What>,
    routes: Heed,
    more: Drained,
}

/// The sockets, and what was seen last.
struct Eye {
    socket: Socket,
    monitor: Monitor,
    links: Links,
    routes: Routes,
    /// Since when routes are known by events alone, and whether these left something unclear.
    by_events: Option<(Instant, Heed)>,
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
            routes: Routes::default(),
            by_events: None,
            view: NodeView::default(),
        })
    }

    /// Reads waiting events, and tells what they ask to be looked at again.
    fn hear(&mut self) -> Heard {
        let (mut what, mut heed) = (None, Heed::Nothing);
        let Self { monitor, links, routes, .. } = self;
        let drained = monitor.drain(|message| match message.kind {
            rt::RTM_NEWROUTE | rt::RTM_DELROUTE => {
                if let Some(news) = parse::route(links, &message) {
                    heed = heed.max(routes.take(&news));
                }
            }
            _ => what = what.max(meaning(links, routes, &message)),
        });
        // Each event says so by itself here.
        links.take_changed();
        if heed != Heed::Nothing {
            let (_, before) = self.by_events.get_or_insert((Instant::now(), Heed::Nothing));
            *before = (*before).max(heed);
        }
        let more = match drained {
            Ok(Drained::Lost) => {
                what = Some(What::Everything);
                Drained::Empty
            }
            Ok(more) => more,
            Err(error) => {
                tracing::warn!(%error, "events cannot be read; looking at everything again");
                what = Some(What::Everything);
                Drained::Empty
            }
        };
        Heard { what, routes: heed, more }
    }

    /// Whether routes should be listed before they are told of.
    fn is_stale(&self, now: Instant) -> bool {
        self.by_events.is_some_and(|(since, heed)| heed == Heed::Unclear || now >= since + TRUST)
    }

    fn look(&mut self, what: What) -> Result<(), NetlinkError> {
        if what == What::Everything {
            self.links.refresh(&mut self.socket)?;
            self.routes = self.list_routes()?;
            self.by_events = None;
        }
        let routes = match what {
            What::Addresses => Arc::clone(&self.view.routes),
            What::Routes | What::Everything => self.routes.iter().collect(),
        };
        let mut links: Vec<LinkView> = self.links.iter().map(parse::link).collect();
        for (index, address) in self.addresses()? {
            if let Ok(at) = links.binary_search_by_key(&index, |link| link.index) {
                links[at].addresses.push(address);
            }
        }
        for link in &mut links {
            link.addresses.sort_unstable_by_key(|address| (address.addr, address.len));
            link.router_advertised = is_router_advertised(link, &self.routes);
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

    fn list_routes(&mut self) -> Result<Routes, NetlinkError> {
        let mut all = Vec::new();
        for family in [rt::AF_INET, rt::AF_INET6] {
            let mut request = Batch::new();
            let mut header = [0; rt::ROUTE_HEADER_LEN];
            header[0] = family;
            drop(request.push(rt::RTM_GETROUTE, 0, &header));
            let links = &self.links;
            let found: Vec<_> =
                self.socket.dump("routes", &mut request, |all: &mut Vec<_>, message| {
                    let news = parse::route(links, &message);
                    all.extend(news.filter(|news| news.whose == Whose::Foreign));
                })?;
            all.extend(found);
        }
        Ok(Routes::of(all.into_iter()))
    }
}

/// What an event asks to be looked at again. A link that goes down takes routes with it without a word; that
/// one brings some is told.
fn meaning(links: &mut Links, routes: &Routes, message: &Message<'_>) -> Option<What> {
    match message.kind {
        rt::RTM_NEWLINK | rt::RTM_DELLINK => match links.observe(message) {
            LinkChange::Nothing => None,
            LinkChange::Behind(name) if routes.lead_onto(name) => Some(What::Everything),
            LinkChange::Itself | LinkChange::Behind(_) => Some(What::Addresses),
        },
        rt::RTM_NEWADDR | rt::RTM_DELADDR => Some(What::Addresses),
        _ => None,
    }
}

/// Whether a router told the link what it has: a default route of protocol `ra`, or a global IPv6 address
/// with an end while the kernel listens to routers (`accept_ra`).
fn is_router_advertised(link: &LinkView, routes: &Routes) -> Flag {
    let by_route = routes.advertised_on(link.name);
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
/// How long events alone are believed: some routes go without one.
const TRUST: Duration = Duration::from_mins(1);
