//! What the drivers of one network namespace share.

use crate::{
    KernelError,
    engine::{EnginePlaces, Engines},
    link::Links,
    netlink::{NetlinkError, Protocol, Sent, Socket},
    next_hop::NextHopIds,
    wireguard::Generic,
};

/// The route socket of one network namespace, and the numbers that stand for our names in it.
#[derive(Debug)]
pub struct Host {
    pub(crate) socket: Socket,
    pub(crate) links: Links,
    pub(crate) next_hops: NextHopIds,
    pub(crate) engines: Engines,
    pub(crate) wireguard: Generic,
}

impl Host {
    /// Opens a socket in the thread's network namespace and reads its links.
    ///
    /// # Errors
    ///
    /// When there is no socket to be had, or the links cannot be listed.
    pub fn open() -> Result<Self, KernelError> {
        Self::with_engines(None)
    }

    /// [`Self::open`], with a place for engines.
    ///
    /// # Errors
    ///
    /// As [`Self::open`].
    pub fn with_engines(places: Option<EnginePlaces>) -> Result<Self, KernelError> {
        let socket = Socket::open(Protocol::Route)?;
        let engines = Engines::new(places).map_err(NetlinkError::from)?;
        let (links, next_hops) = (Links::default(), NextHopIds::default());
        let wireguard = Generic::default();
        let mut host = Self { socket, links, next_hops, engines, wireguard };
        host.links.refresh(&mut host.socket)?;
        Ok(host)
    }

    /// Our port: what we cause ourselves bears it.
    ///
    /// # Errors
    ///
    /// When the socket is no longer good.
    pub fn port(&self) -> Result<u32, KernelError> {
        Ok(self.socket.port()?)
    }

    /// How much was sent, ever.
    pub fn sent(&self) -> Sent {
        self.socket.sent()
    }
}
