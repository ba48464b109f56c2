//! Others' routes: 30,000 of them in the table, of which one changes each millisecond (Calico #7290).
//!
//! What the agent takes of a core for that stands beside a thread that receives the same events, one by one, and does
//! nothing with them.

use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow};
use russet_kernel::netlink::{Batch, Protocol, Socket};

use super::{Setup, calico::idle};
use crate::{
    calico::{Cluster, Distribution, launch, objects::Mode},
    net::{
        Namespace,
        site::{Node, SWITCH, Site},
        wire::{self, Via},
    },
    process,
    report::{Bound, Figure, Row, Unit},
};

pub fn measure(setup: &Setup) -> Result<Figure> {
    let mut site = Site::new(1)?;
    let _cluster = Cluster::start(&site, Mode::Direct)?;
    let node = site.nodes.first_mut().context("a site has a node")?;
    let mut agent = launch(&setup.programs, node, "one", Distribution::Store)?;
    agent.wait_until(|status| status.ready)?;
    let window = Duration::from_secs(setup.effort.choose(20, 60) as u64);
    let few = idle(&agent, window)?;
    let alone = process::memory(agent.pid())?;
    lay(node)?;
    let many = idle(&agent, window)?;
    let resident = super::memory::octets(process::memory(agent.pid())?.resident);

    let (mut ours, mut listener) = (Vec::new(), Vec::new());
    for _ in 0..setup.effort.choose(1, 5) {
        let [all, listening] = churned(node, agent.pid(), window)?;
        ours.push(all);
        listener.push(listening);
    }
    let share = |what: &str, samples: &[f64], limit| {
        Ok::<_, anyhow::Error>(Row::of(what, Unit::Share, samples)?.must(Bound::AllAtMost(limit)))
    };
    let changing = Row::of("30,000 foreign routes, 1,000 changes a second", Unit::Share, &ours)?
        .versus("receiving the events", &ours, &listener)?
        .must(Bound::AllAtMost(0.02));
    let megabytes = |octets| Unit::Octets.show(super::memory::octets(octets));
    let notes = vec![format!(
        "Of its memory without them {} are its own share (Pss).",
        megabytes(alone.proportional)
    )];
    let rows = vec![
        Row::of(
            "agent's resident memory, no foreign routes",
            Unit::Octets,
            &[super::memory::octets(alone.resident)],
        )?
        .must(Bound::AllAtMost(15e6)),
        share("agent's idle time on a core, no foreign routes", &[few], 0.001)?,
        share("the same, 30,000 foreign routes", &[many], 0.001)?,
        changing,
        Row::of("agent's resident memory, 30,000 foreign routes", Unit::Octets, &[resident])?,
    ];
    Ok(Figure { name: "foreign", rows, notes })
}

fn lay(node: &mut Node) -> Result<()> {
    let mut batch = Batch::new();
    let via = Via::Gateway(SWITCH, node.uplink);
    (0..ROUTES).for_each(|n| wire::foreign_route(&mut batch, (prefix(n), 24), via));
    node.rtnl.send_all(&mut batch)
}

/// Changes routes for a while: the shares of a core that the agent and a bare listener took.
fn churned(node: &Node, pid: u32, window: Duration) -> Result<[f64; 2]> {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let changing = scope.spawn(|| change(node, &over));
        let listening = scope.spawn(|| listen(&node.namespace, &over));
        // What comes after a while of quiet is told at once, and then ever less often.
        thread::sleep(SETTLE);
        let before = process::processor_time(pid)?;
        thread::sleep(window);
        let used = process::processor_time(pid)?.saturating_sub(before);
        over.store(true, Ordering::Relaxed);
        changing.join().map_err(|_| anyhow!("a thread panicked"))??;
        let alone = listening.join().map_err(|_| anyhow!("a thread panicked"))??;
        Ok([used.as_secs_f64() / window.as_secs_f64(), alone])
    })
}

/// Takes a route away and lays it again, a thousand steps a second.
fn change(node: &Node, over: &AtomicBool) -> Result<()> {
    let mut rtnl = node.namespace.rtnl()?;
    let via = Via::Gateway(SWITCH, node.uplink);
    let (start, mut step) = (Instant::now(), 0_u32);
    while !over.load(Ordering::Relaxed) {
        let dst = (prefix((step / 2) % ROUTES), 24);
        rtnl.send("change route", |batch| match step % 2 {
            0 => wire::delete_route(batch, dst),
            _ => wire::foreign_route(batch, dst, via),
        })?;
        step += 1;
        thread::sleep((start + STEP * step).saturating_duration_since(Instant::now()));
    }
    if step % 2 == 1 {
        rtnl.send("lay route", |batch| {
            wire::foreign_route(batch, (prefix((step / 2) % ROUTES), 24), via);
        })?;
    }
    Ok(())
}

/// Receives the events of routes and returns the share of a core that it took.
fn listen(namespace: &Namespace, over: &AtomicBool) -> Result<f64> {
    let mut socket = namespace.run(|| Ok(Socket::open(Protocol::Route)?))?;
    socket.join(RTNLGRP_IPV4_ROUTE)?;
    let (start, before) = (Instant::now(), process::thread_time()?);
    while !over.load(Ordering::Relaxed) {
        if let Some(messages) = socket.receive(Duration::from_millis(200))? {
            std::hint::black_box(messages.count());
        }
    }
    let used = process::thread_time()?.saturating_sub(before);
    Ok(used.as_secs_f64() / start.elapsed().as_secs_f64())
}

fn prefix(n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(FIRST.to_bits() + (n << 8))
}

const ROUTES: u32 = 30_000;
const FIRST: Ipv4Addr = Ipv4Addr::new(20, 0, 0, 0);
const STEP: Duration = Duration::from_millis(1);
const SETTLE: Duration = Duration::from_secs(25);
const RTNLGRP_IPV4_ROUTE: u32 = 7;
