//! The underlay: a switch for each subnet, a router between them, and the nodes with their uplinks.
//!
//! A switch is a namespace with a bridge. Every node has one veth to its switch, `eth0`; the router has one to
//! each, `eth0`, `eth1`, … in the order of the topology.

use std::{collections::BTreeMap, net::IpAddr};

use anyhow::{Context, Result};
use russet_net::{Family, IfName, Mac, Prefix};

use super::fresh_folders;
use crate::{
    rtnl::{Carry, Rtnl, VethEnd},
    space::{Space, sysctl},
    topology::{Node, ROUTER, Subnet, Topology, form},
};

/// The switch's side of a link of the underlay: where it is cut.
#[derive(Clone, Debug)]
pub(crate) struct Port {
    pub(crate) switch: String,
    pub(crate) name: IfName,
}

type Machines = BTreeMap<String, Space>;
type Ports = BTreeMap<String, Port>;

/// Makes every machine of the topology and joins them.
pub(crate) fn build(topology: &Topology) -> Result<(Machines, Ports)> {
    let mut fabric = Fabric { topology, machines: Machines::new(), ports: Ports::new() };
    for subnet in &topology.subnets {
        fabric.switch(subnet)?;
    }
    if topology.router == form::Router::Forwards {
        fabric.router()?;
    }
    for (i, node) in topology.nodes.iter().enumerate() {
        fabric.node(i, node).with_context(|| format!("build {}", node.name))?;
    }
    Ok((fabric.machines, fabric.ports))
}

struct Fabric<'a> {
    topology: &'a Topology,
    machines: Machines,
    ports: Ports,
}

impl Fabric<'_> {
    fn switch(&mut self, subnet: &Subnet) -> Result<()> {
        let name = switch_name(subnet);
        let space = Space::machine(&name, &[])?;
        space.enter(|| {
            let mut rtnl = Rtnl::open()?;
            rtnl.add_bridge(bridge()?)?;
            // A switch has no addresses of its own and does not speak.
            sysctl(&format!("net/ipv6/conf/{}/disable_ipv6", bridge()?), "1")?;
            rtnl.set_carry(bridge()?, Carry::Up)?;
            Ok(())
        })?;
        self.machines.insert(name, space);
        Ok(())
    }

    fn router(&mut self) -> Result<()> {
        let router = Space::machine(ROUTER, &[])?;
        for (i, subnet) in self.topology.subnets.iter().enumerate() {
            let uplink: IfName = format!("eth{i}").parse()?;
            self.join(subnet, "router".parse()?, &router, uplink)?;
            let addresses = addresses_of_router(subnet);
            router.enter(|| address(uplink, &addresses))?;
            let port = Port { switch: switch_name(subnet), name: "router".parse()? };
            self.ports.insert(subnet.name.to_string(), port);
        }
        router.enter(|| {
            sysctl("net/ipv4/ip_forward", "1")?;
            sysctl("net/ipv6/conf/all/forwarding", "1")
        })?;
        self.machines.insert(ROUTER.to_owned(), router);
        Ok(())
    }

    fn node(&mut self, i: usize, node: &Node) -> Result<()> {
        let space = Space::machine(node.name.as_str(), &fresh_folders(node))?;
        // The topology's check has seen that the subnet is one of its own.
        let Some(subnet) = self.topology.subnets.get(node.subnet) else { return Ok(()) };
        let port: IfName = format!("port{}", i + 1).parse()?;
        self.join(subnet, port, &space, "eth0".parse()?)?;
        space.enter(|| {
            address("eth0".parse()?, &node.addresses)?;
            if self.topology.router == form::Router::Forwards {
                default_routes(subnet, node)?;
            }
            Ok(())
        })?;
        self.ports.insert(node.name.to_string(), Port { switch: switch_name(subnet), name: port });
        self.machines.insert(node.name.to_string(), space);
        Ok(())
    }

    /// Lays a cable from a port of the subnet's switch to a machine.
    fn join(&self, subnet: &Subnet, port: IfName, machine: &Space, uplink: IfName) -> Result<()> {
        let Some(switch) = self.machines.get(&switch_name(subnet)) else { return Ok(()) };
        switch.enter(|| {
            let mut rtnl = Rtnl::open()?;
            let near = VethEnd { name: port, space: None };
            let far = VethEnd { name: uplink, space: Some(machine.net()) };
            rtnl.add_veth(near, far, self.topology.mtu)?;
            sysctl(&format!("net/ipv6/conf/{port}/disable_ipv6"), "1")?;
            rtnl.set_master(port, Some(bridge()?))?;
            rtnl.set_carry(port, Carry::Up)?;
            Ok(())
        })
    }
}

/// Gives an uplink its addresses, and a MAC that a reader can tell from the IPv4 address.
fn address(uplink: IfName, addresses: &[(IpAddr, u8)]) -> Result<()> {
    let mut rtnl = Rtnl::open()?;
    if let Some((IpAddr::V4(addr), _)) = addresses.first() {
        let [a, b, c, d] = addr.octets();
        rtnl.set_mac(uplink, Mac::local([0x02, 0, a, b, c, d]))?;
    }
    rtnl.set_carry(uplink, Carry::Up)?;
    for (addr, len) in addresses {
        rtnl.add_address(uplink, *addr, *len)?;
    }
    Ok(())
}

fn default_routes(subnet: &Subnet, node: &Node) -> Result<()> {
    let mut rtnl = Rtnl::open()?;
    for (addr, _) in &node.addresses {
        let family = Family::of(*addr);
        let everything = Prefix::new(family.unspecified(), 0)?;
        rtnl.add_route(everything, subnet.router(family), None)?;
    }
    Ok(())
}

fn addresses_of_router(subnet: &Subnet) -> Vec<(IpAddr, u8)> {
    subnet.prefixes().filter_map(|prefix| Some((prefix.nth(1)?, prefix.len()))).collect()
}

fn switch_name(subnet: &Subnet) -> String {
    format!("switch-{}", subnet.name)
}

/// The bridge of every switch.
pub(crate) fn bridge() -> Result<IfName> {
    Ok("switch".parse()?)
}
