//! Sends messages of rtnetlink and reads what is there.

use std::{net::Ipv4Addr, os::fd::BorrowedFd};

use anyhow::{Context, Result, ensure};
use russet_kernel::netlink::{Batch, Message, Protocol, Socket, flags};
use russet_net::Mac;

use super::wire::{self, Act, Admin, Net, Veth, Via, Vxlan};

/// A socket in one namespace, with a verb for each thing that a bench does there.
#[derive(Debug)]
pub struct Rtnl(Socket);

impl Rtnl {
    /// Opens it in the namespace of the calling thread.
    pub fn open() -> Result<Self> {
        Ok(Self(Socket::open(Protocol::Route)?))
    }

    /// Sends what `write` writes as one message and waits for its acknowledgement.
    pub fn send(&mut self, op: &'static str, write: impl FnOnce(&mut Batch)) -> Result<()> {
        let mut batch = Batch::new();
        write(&mut batch);
        self.0.request(op, "", &mut batch)?;
        Ok(())
    }

    /// Sends many; the first that is refused is the error.
    pub fn send_all(&mut self, batch: &mut Batch) -> Result<()> {
        for (n, outcome) in self.0.batch(batch)?.into_iter().enumerate() {
            outcome.with_context(|| format!("message {n} of a batch"))?;
        }
        Ok(())
    }

    /// Lists objects: `fixed` is the request's own header, `read` picks what is wanted of each message.
    pub fn list<T>(
        &mut self,
        kind: u16,
        fixed: &[u8],
        read: impl Fn(Message<'_>) -> Option<T>,
    ) -> Result<Vec<T>> {
        let mut request = Batch::new();
        request.push(kind, flags::REQUEST, fixed);
        Ok(self.0.dump("objects", &mut request, |found: &mut Vec<T>, message| {
            found.extend(read(message));
        })?)
    }

    pub fn index(&mut self, name: &str) -> Result<u32> {
        self.find(name)?.with_context(|| format!("no link {name}"))
    }

    /// The index of a link, or `None` when there is none of that name.
    pub fn find(&mut self, name: &str) -> Result<Option<u32>> {
        let mut batch = Batch::new();
        wire::get_link(&mut batch, name);
        let mut index = None;
        let asked = self.0.request_with_reply("find link", name, &mut batch, |link| {
            index = Some(link.u32(4));
        });
        match asked {
            Err(err) if err.is_not_found() => Ok(None),
            Err(err) => Err(err.into()),
            Ok(()) => Ok(index),
        }
    }

    pub fn up(&mut self, index: u32) -> Result<()> {
        self.send("set link up", |batch| wire::admin(batch, index, Admin::Up))
    }

    pub fn down(&mut self, index: u32) -> Result<()> {
        self.send("set link down", |batch| wire::admin(batch, index, Admin::Down))
    }

    pub fn delete_link(&mut self, index: u32) -> Result<()> {
        self.send("delete link", |batch| wire::delete_link(batch, index))
    }

    pub fn add_veth(&mut self, veth: &Veth<'_>) -> Result<u32> {
        self.send("add veth", |batch| wire::veth(batch, veth))?;
        self.index(veth.name)
    }

    pub fn add_bridge(&mut self, name: &str, mac: Mac, mtu: u32) -> Result<u32> {
        self.send("add bridge", |batch| wire::bridge(batch, name, mac, mtu))?;
        self.index(name)
    }

    pub fn add_vxlan(&mut self, vxlan: &Vxlan<'_>) -> Result<u32> {
        self.send("add vxlan", |batch| wire::vxlan(batch, vxlan))?;
        self.index(vxlan.name)
    }

    pub fn hairpin(&mut self, index: u32) -> Result<()> {
        self.send("set hairpin", |batch| wire::hairpin(batch, index))
    }

    pub fn add_address(&mut self, index: u32, net: Net) -> Result<()> {
        self.send("add address", |batch| wire::address(batch, Act::Add, index, net))
    }

    pub fn add_route(&mut self, dst: Net, via: Via) -> Result<()> {
        self.send("add route", |batch| wire::route(batch, dst, via))
    }

    pub fn add_neighbour(&mut self, index: u32, ip: Ipv4Addr, mac: Mac) -> Result<()> {
        self.send("add neighbour", |batch| wire::neighbour(batch, Act::Add, index, ip, mac))
    }

    pub fn add_fdb(&mut self, index: u32, mac: Mac, vtep: Ipv4Addr) -> Result<()> {
        self.send("add FDB entry", |batch| wire::fdb(batch, Act::Add, index, mac, vtep))
    }
}

/// What a pod's part of the network is made of.
#[derive(Clone, Copy, Debug)]
pub struct PodWish<'a> {
    pub namespace: BorrowedFd<'a>,
    pub host_link: &'a str,
    pub bridge: u32,
    pub mtu: u32,
    pub address: Net,
    pub gateway: Ipv4Addr,
}

/// Makes a pod's veth, address and default route: the work that no CNI plugin can do without.
///
/// # Errors
///
/// What the kernel refused.
pub fn add_pod(host: &mut Rtnl, pod: &mut Rtnl, wish: &PodWish<'_>) -> Result<()> {
    let (addr, len) = wish.address;
    ensure!(len < 31, "a pod's subnet has room for a gateway");
    let port = host.add_veth(&Veth {
        name: wish.host_link,
        master: Some(wish.bridge),
        mtu: wish.mtu,
        peer: "eth0",
        peer_mac: Some(wire::mac_of(addr)),
        peer_namespace: Some(wish.namespace),
    })?;
    host.hairpin(port)?;
    let inside = pod.index("eth0")?;
    pod.up(inside)?;
    pod.add_address(inside, wish.address)?;
    pod.add_route((Ipv4Addr::UNSPECIFIED, 0), Via::Gateway(wish.gateway, inside))
}

/// What the part of the network of a pod on a link of its own is made of.
#[derive(Clone, Copy, Debug)]
pub struct RoutedWish<'a> {
    pub namespace: BorrowedFd<'a>,
    pub host_link: &'a str,
    pub mtu: u32,
    pub address: Ipv4Addr,
}

/// Makes such a pod's veth, address and routes, and returns the index of the node's end.
///
/// # Errors
///
/// What the kernel refused.
pub fn add_routed_pod(host: &mut Rtnl, pod: &mut Rtnl, wish: &RoutedWish<'_>) -> Result<u32> {
    let near = host.add_veth(&Veth {
        name: wish.host_link,
        master: None,
        mtu: wish.mtu,
        peer: "eth0",
        peer_mac: Some(wire::mac_of(wish.address)),
        peer_namespace: Some(wish.namespace),
    })?;
    let inside = pod.index("eth0")?;
    pod.up(inside)?;
    pod.add_address(inside, (wish.address, 32))?;
    pod.send("add route", |batch| wire::link_route(batch, (GATEWAY, 32), inside))?;
    pod.add_route((Ipv4Addr::UNSPECIFIED, 0), Via::Gateway(GATEWAY, inside))?;
    pod.add_neighbour(inside, GATEWAY, HOST_MAC)?;
    host.send("add route", |batch| wire::link_route(batch, (wish.address, 32), near))?;
    Ok(near)
}

/// The gateway of every pod of Calico's, which is nobody's address, and its MAC address.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
pub const HOST_MAC: Mac = Mac::new([0xee; 6]);
