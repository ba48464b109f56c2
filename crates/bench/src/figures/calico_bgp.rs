//! A block of Calico's that appears on a remote node, until the kernel here has its route, by way of BGP: the remote agent
//! reads it in etcd and tells a route reflector, which tells ours.

use anyhow::{Context, Result};

use super::{Setup, calico::until_block_routes, scale};
use crate::{
    calico::{
        Cluster, Distribution, launch,
        objects::{Mode, Object, Remote, block_of, resource},
    },
    net::{
        site::{Site, underlay},
        wire::RTM_NEWROUTE,
    },
    report::{Bound, Figure, Row, Unit},
};

pub fn measure(setup: &Setup) -> Result<Figure> {
    let mut site = Site::new(3)?;
    let mut cluster = Cluster::start(&site, Mode::Direct)?;
    for (key, value) in objects() {
        cluster.client.put(&key, &value, 0)?;
    }
    let nodes = site.nodes.iter().zip(NAMES);
    let agents = nodes.map(|(node, name)| launch(&setup.programs, node, name, Distribution::Bgp));
    let _agents = agents.collect::<Result<Vec<_>>>()?;
    let (key, value) = block_of(NAMES[1], Remote(1).base(0), 40);
    cluster.client.put(&key, &value, 0)?;
    let here = site.nodes.first_mut().context("three nodes")?;
    until_block_routes(&mut here.rtnl, 1).context("through the reflector")?;
    let mut took = Vec::new();
    for number in 2..2 + u16::try_from(setup.effort.choose(10, 50))? {
        let base = Remote(number).base(0);
        let (key, value) = block_of(NAMES[1], base, 40);
        let write = &mut || cluster.client.put(&key, &value, 0);
        took.push(scale::until_event(&here.namespace, RTM_NEWROUTE, base, write)?.as_secs_f64());
    }
    let row = Row::of("a block appears, by BGP through a reflector", Unit::Seconds, &took)?;
    let rows = vec![row.must(Bound::MedianAtMost(0.020))];
    Ok(Figure { name: "calico-bgp", rows, notes: Vec::new() })
}

/// No mesh, and a reflector that everybody peers with.
fn objects() -> Vec<Object> {
    let settings = r#"{"asNumber":64512,"nodeToNodeMeshEnabled":false}"#;
    let peers = r#"{"nodeSelector":"all()","peerSelector":"has(reflector)"}"#;
    let reflector = format!(
        r#"{{"bgp":{{"ipv4Address":"{}/24","routeReflectorClusterID":"244.0.0.1"}}}}"#,
        underlay(3)
    );
    let (key, value) = resource("Node", NAMES[2], &reflector);
    let value = value.replace(r#""metadata":{"#, r#""metadata":{"labels":{"reflector":"true"},"#);
    vec![
        resource("BGPConfiguration", "default", settings),
        resource("BGPPeer", "reflectors", peers),
        (key, value),
    ]
}

/// Ours, the one that the blocks are on, the reflector.
const NAMES: [&str; 3] = ["one", "two", "reflector"];
