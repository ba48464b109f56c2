//! Pods that are wired by hand: the way an administrator would, and flanneld does.
//!
//! No agent, no plugin, no store: a bridge, veths, and either a VXLAN link with its neighbours and forwarding
//! entries, or routes through the other nodes' addresses. Benchmarks hold Russet's state against this.

use std::net::IpAddr;

use anyhow::{Context, Result, anyhow};
use russet_net::{Family, IfName, Mac, Mtu, Prefix};
use serde_json::Value;

use super::{World, lock, pod};
use crate::{
    rtnl::{Carry, Rtnl, VethEnd},
    space::{Space, sysctl},
    topology::{HandWired, Node, Pod, form::HandTransport},
};

/// Gives a pod its veth, address and routes.
pub(crate) fn add(world: &World, pod: &Pod, space: &Space, wired: HandWired) -> Result<Value> {
    let i = position(world, pod.node.as_str())?;
    let subnet = subnet_of(wired, i)?;
    let taken = lock(&world.pods).values().filter(|other| other.node == pod.node.as_str()).count();
    let nth = u128::try_from(taken).unwrap_or_default() + 2;
    let (gateway, addr) = subnet.nth(1).zip(subnet.nth(nth)).context("the subnet is full")?;
    let mtu = pod_mtu(world, wired)?;
    let host_end: IfName = format!("veth{}", nth - 1).parse()?;
    world.machine(pod.node.as_str())?.enter(|| {
        let mut rtnl = Rtnl::open()?;
        bridge(&mut rtnl, subnet)?;
        let near = VethEnd { name: host_end, space: None };
        rtnl.add_veth(near, VethEnd { name: eth0()?, space: Some(space.net()) }, mtu)?;
        rtnl.set_master(host_end, Some(cni0()?))?;
        Ok(rtnl.set_carry(host_end, Carry::Up)?)
    })?;
    space.enter(|| {
        let mut rtnl = Rtnl::open()?;
        rtnl.set_carry(eth0()?, Carry::Up)?;
        rtnl.add_address(eth0()?, addr, subnet.len())?;
        Ok(rtnl.add_route(Prefix::new(Family::V4.unspecified(), 0)?, Some(gateway), None)?)
    })?;
    Ok(pod::result_of(addr, subnet))
}

/// Joins the nodes, when all pods are there.
pub(crate) fn join(world: &World, wired: HandWired) -> Result<()> {
    let nodes = &world.topology.nodes;
    for i in 0..nodes.len() {
        let peers = (0..nodes.len()).filter(|j| *j != i).collect::<Vec<_>>();
        join_node(world, wired, i, &peers)?;
    }
    Ok(())
}

fn join_node(world: &World, wired: HandWired, i: usize, peers: &[usize]) -> Result<()> {
    let node = world.topology.nodes.get(i).context("there is no such node")?;
    let own = underlay(node)?;
    world.machine(node.name.as_str())?.enter(|| {
        sysctl("net/ipv4/ip_forward", "1")?;
        let mut rtnl = Rtnl::open()?;
        if wired.transport == HandTransport::Vxlan {
            let under = rtnl.index_of(eth0()?)?;
            rtnl.add_vxlan(flannel()?, VNI, (under, own))?;
            rtnl.set_mac(flannel()?, vtep_mac(i))?;
            rtnl.set_carry(flannel()?, Carry::Up)?;
            rtnl.add_address(flannel()?, subnet_of(wired, i)?.addr(), 32)?;
        }
        for &j in peers {
            let peer = world.topology.nodes.get(j).context("there is no such node")?;
            let (subnet, at) = (subnet_of(wired, j)?, underlay(peer)?);
            match wired.transport {
                HandTransport::HostGw => rtnl.add_route(subnet, Some(at), Some(eth0()?))?,
                HandTransport::Vxlan => {
                    rtnl.add_neighbour(flannel()?, subnet.addr(), vtep_mac(j))?;
                    rtnl.add_fdb(flannel()?, vtep_mac(j), at)?;
                    rtnl.add_route(subnet, Some(subnet.addr()), Some(flannel()?))?;
                }
            }
        }
        Ok(())
    })
}

/// The node's bridge, made with its first pod; its MAC is its own, so that ports change nothing.
fn bridge(rtnl: &mut Rtnl, subnet: Prefix) -> Result<()> {
    let made = rtnl.add_bridge(cni0()?);
    if made.as_ref().is_err_and(russet_kernel::netlink::NetlinkError::is_already_exists) {
        return Ok(());
    }
    made?;
    let gateway = subnet.nth(1).context("the subnet has no gateway")?;
    if let IpAddr::V4(v4) = gateway {
        let [a, b, c, d] = v4.octets();
        rtnl.set_mac(cni0()?, Mac::local([0x0a, 0x58, a, b, c, d]))?;
    }
    rtnl.set_carry(cni0()?, Carry::Up)?;
    Ok(rtnl.add_address(cni0()?, gateway, subnet.len())?)
}

fn pod_mtu(world: &World, wired: HandWired) -> Result<Mtu> {
    match wired.transport {
        HandTransport::HostGw => Ok(world.topology.mtu),
        HandTransport::Vxlan => Ok(world.topology.mtu.less(VXLAN_OVERHEAD, Family::V4)?),
    }
}

fn position(world: &World, node: &str) -> Result<usize> {
    let found = world.topology.nodes.iter().position(|other| other.name.as_str() == node);
    found.ok_or_else(|| anyhow!("there is no node {node}"))
}

fn underlay(node: &Node) -> Result<IpAddr> {
    node.address(Family::V4).ok_or_else(|| anyhow!("{} has no IPv4 address", node.name))
}

/// A /24 for each node; the network's first is skipped, as flannel does.
fn subnet_of(wired: HandWired, i: usize) -> Result<Prefix> {
    let nth = (u128::try_from(i).unwrap_or_default() + 1) << 8;
    let base = wired.network.nth(nth).ok_or_else(|| anyhow!("{} is too small", wired.network))?;
    Ok(Prefix::new(base, 24)?)
}

fn vtep_mac(i: usize) -> Mac {
    // At most 64 nodes.
    Mac::local([0x02, 0x56, 0x54, 0x45, 0x50, u8::try_from(i).unwrap_or_default()])
}

fn cni0() -> Result<IfName> {
    Ok("cni0".parse()?)
}

fn eth0() -> Result<IfName> {
    Ok("eth0".parse()?)
}

fn flannel() -> Result<IfName> {
    Ok("flannel.1".parse()?)
}

const VNI: u32 = 1;
/// Outer IPv4, UDP, VXLAN and the inner Ethernet header, in octets (RFC 7348 §5).
const VXLAN_OVERHEAD: u16 = 50;
