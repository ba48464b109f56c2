//! The userspace transport: packets between pods through an engine, beside a loop that moves one at a time, and vxlan.
//!
//! Three sites of two nodes stand at once and differ in nothing but the tunnel: `russet engine` in batches, the same
//! program with every offload off (`--one-by-one`, a system call for each packet each way, as flannel's `udp`), and
//! the kernel's vxlan. Whichever is not measured is idle. No agent takes part; but for the last row, where it has to
//! notice that its engine is dead.

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use russet_kernel::{
    engine::{Client, EngineEnd, EnginePeerSpec, EngineSpec, EngineWire},
    tun::Tun,
};
use russet_net::{IfName, Prefix};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{Setup, path::Ours, rotation};
use crate::{
    net::{
        Namespace,
        site::{Node, Site, Transport, UNDERLAY_MTU, pod_address, subnet, underlay},
        wire::Via,
    },
    process,
    program::{Program, Programs},
    report::{Bound, Figure, Row, Unit},
    traffic::Path,
};

pub fn measure(setup: &Setup) -> Result<Figure> {
    let mut figure = Figure { name: "engine", rows: Vec::new(), notes: Vec::new() };
    let batches = Carried::build(setup, Pace::Batches)?;
    let one_by_one = Carried::build(setup, Pace::OneByOne)?;
    let vxlan = Tunnelled::build()?;
    let paths = [batches.path(), one_by_one.path(), vxlan.path(), vxlan.path()];
    race(&mut figure, setup, paths)?;
    drop((batches, one_by_one, vxlan));
    figure.rows.push(sealed(setup)?);
    figure.rows.push(memory(setup)?);
    figure.rows.push(wake_ups(setup)?);
    figure.rows.extend(killed(setup)?);
    figure.notes.push("A/A: vxlan, measured twice in each round.".into());
    Ok(figure)
}

/// The rounds. The paths: in batches, one by one, vxlan, vxlan again.
fn race(figure: &mut Figure, setup: &Setup, paths: [Path<'_>; 4]) -> Result<()> {
    let mut streams: [Vec<f64>; 4] = Default::default();
    let mut trips: [Vec<f64>; 4] = Default::default();
    for round in 0..setup.effort.choose(3, 20) {
        for n in rotation(round, paths.len()) {
            streams[n].push(paths[n].stream(STREAM)?);
            trips[n].push(paths[n].round_trip(ROUND_TRIPS)?);
        }
    }
    let [batches, one_by_one, vxlan, again] = &streams;
    let row = Row::of("udp, one TCP stream", Unit::BitsPerSecond, batches)?;
    let row = row.versus("one by one", batches, one_by_one)?.versus("vxlan", batches, vxlan)?;
    figure.rows.push(row.must(Bound::RatioAtLeast(5.0)));
    let row = Row::of("the same against vxlan", Unit::BitsPerSecond, batches)?;
    let row = row.versus("vxlan", batches, vxlan)?.noise(again, vxlan)?;
    figure.rows.push(row.aim(Bound::RatioAtLeast(0.4)));
    let row = Row::of("one by one, one TCP stream", Unit::BitsPerSecond, one_by_one)?;
    figure.rows.push(row.must(Bound::MedianAtLeast(0.5e9)));
    let [batches, one_by_one, vxlan, again] = &trips;
    let row = Row::of("udp, TCP round trip", Unit::Seconds, batches)?;
    let row = row.versus("vxlan", batches, vxlan)?.versus("one by one", batches, one_by_one)?;
    figure.rows.push(row.noise(again, vxlan)?.must(Bound::RatioAtMost(1.6)));
    Ok(())
}

/// One TCP stream, sealed and bare, between two nodes with agents.
fn sealed(setup: &Setup) -> Result<Row> {
    let sealed = Ours::build(setup, Transport::Wireguard)?;
    let bare = Ours::build(setup, Transport::Udp)?;
    let paths = [sealed.pods_path(), bare.pods_path()];
    let mut streams: [Vec<f64>; 2] = Default::default();
    for round in 0..setup.effort.choose(3, 20) {
        for n in rotation(round, paths.len()) {
            streams[n].push(paths[n].stream(STREAM)?);
        }
    }
    let [sealed, bare] = &streams;
    let row = Row::of("wireguard, one TCP stream", Unit::BitsPerSecond, sealed)?;
    Ok(row.versus("udp", sealed, bare)?.must(Bound::RatioAtLeast(0.5)))
}

/// An engine's resident memory with 1,000 peers, after traffic.
fn memory(setup: &Setup) -> Result<Row> {
    let site = Carried::build(setup, Pace::Batches)?;
    let rows: Vec<_> = (0..1_000_u16).map(peer).collect();
    for engine in &site.engines {
        engine.client.patch(&rows)?;
    }
    site.path().stream(STREAM)?;
    let engine = site.engines.first().context("two engines")?;
    let mut samples = Vec::new();
    for _ in 0..setup.effort.choose(3, 10) {
        samples.push(octets(process::memory(engine.program.pid())?.resident));
        thread::sleep(Duration::from_millis(100));
    }
    let row = Row::of("engine's resident memory, 1,000 peers", Unit::Octets, &samples)?;
    Ok(row.must(Bound::AllAtMost(20e6)))
}

/// How often the threads of an engine wake in ten seconds without any packet.
fn wake_ups(setup: &Setup) -> Result<Row> {
    let site = Carried::build(setup, Pace::Batches)?;
    site.path().round_trip(10)?;
    // The connection's last packets, and what TCP still has to say.
    thread::sleep(Duration::from_secs(2));
    let mut samples = Vec::new();
    for engine in &site.engines {
        let before = process::switches(engine.program.pid())?;
        thread::sleep(Duration::from_secs(10));
        samples.push(octets(process::switches(engine.program.pid())? - before));
    }
    let row = Row::of("wake-ups of an idle engine in 10 s", Unit::Count, &samples)?;
    Ok(row.must(Bound::AllAtMost(0.0)))
}

/// How long no packet arrives after the engine was killed, with an agent that notices, and how many are lost.
fn killed(setup: &Setup) -> Result<[Row; 2]> {
    let site = Ours::build(setup, Transport::Udp)?;
    let [client, server] = [0, 1].map(|n| &site.pods[n].namespace);
    let bind = |namespace: &Namespace| {
        namespace.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).context("bind"))
    };
    let (sender, receiver) = (bind(client)?, bind(server)?);
    let to = SocketAddr::from((site.server, receiver.local_addr()?.port()));
    receiver.set_read_timeout(Some(Duration::from_millis(1)))?;
    let (mut silences, mut losses) = (Vec::new(), Vec::new());
    for _ in 0..setup.effort.choose(3, 10) {
        // Three in ten seconds would be taken for a contest, which is backed off from.
        thread::sleep(Duration::from_secs(5));
        let engine = Client::connect(&site.agents[0].engines().join("flannel0.sock"))?;
        let pid = engine.hello()?.0.pid;
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("a process")?;
        let kill = || Ok(kill_process(pid, Signal::KILL)?);
        let Disturbed { silence, lost } = disturbed(&sender, &receiver, to, kill)?;
        silences.push(silence.as_secs_f64());
        losses.push(octets(lost));
    }
    let silence = Row::of("engine killed, until packets arrive again", Unit::Seconds, &silences)?;
    let lost = "engine killed, packets lost (one sent each ms)";
    Ok([silence.must(Bound::AllAtMost(1.0)), Row::of(lost, Unit::Count, &losses)?])
}

/// What came of a disturbance.
struct Disturbed {
    /// The longest time in which no packet arrived.
    silence: Duration,
    lost: u64,
}

/// Sends a datagram each millisecond for two seconds, and counts what does not arrive.
fn disturbed(
    sender: &UdpSocket,
    receiver: &UdpSocket,
    to: SocketAddr,
    disturb: impl FnOnce() -> Result<()>,
) -> Result<Disturbed> {
    let mut disturb = Some(disturb);
    let (start, mut last, mut longest) = (Instant::now(), None, Duration::ZERO);
    let (mut sent, mut got) = (0_u64, 0_u64);
    while start.elapsed() < Duration::from_secs(2) {
        // Between the death of one engine and the next there may be no way out.
        let _ = sender.send_to(b"there", to);
        sent += 1;
        if receiver.recv(&mut [0; 8]).is_ok() {
            got += 1;
            longest = longest.max(last.map_or(Duration::ZERO, |last: Instant| last.elapsed()));
            last = Some(Instant::now());
        }
        if got == 100
            && let Some(disturb) = disturb.take()
        {
            disturb()?;
        }
    }
    let last = last.context("nothing arrived at all")?;
    ensure!(got > 200, "only {got} of two thousand arrived");
    // One may be on its way.
    let lost = sent.saturating_sub(got).saturating_sub(1);
    Ok(Disturbed { silence: longest.max(last.elapsed()), lost })
}

/// How an engine is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pace {
    Batches,
    OneByOne,
}

/// Two nodes whose pods meet through engines.
struct Carried {
    engines: Vec<Running>,
    pods: Vec<Namespace>,
    _site: Site,
}

/// An engine, and a connection to it.
struct Running {
    client: Client,
    program: Program,
    _folder: TempDir,
}

impl Carried {
    fn build(setup: &Setup, pace: Pace) -> Result<Self> {
        let mut site = Site::new(2)?;
        let (mut engines, mut pods) = (Vec::new(), Vec::new());
        for (node, (n, peer)) in site.nodes.iter_mut().zip([(1, 2), (2, 1)]) {
            add_tun(node, n, peer)?;
            engines.push(Running::start(&setup.programs, node, pace, [n, peer])?);
            node.load_masquerade(n)?;
            pods.push(node.add_bridge_and_pod(n, UNDERLAY_MTU - OVERHEAD)?);
        }
        Ok(Self { engines, pods, _site: site })
    }

    fn path(&self) -> Path<'_> {
        Path { client: &self.pods[0], server: &self.pods[1], address: pod_address(2) }
    }
}

impl Running {
    fn start(programs: &Programs, node: &Node, pace: Pace, [n, peer]: [u8; 2]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let socket: PathBuf = folder.path().join("engine.sock");
        let path = socket.to_str().context("a folder in UTF-8")?;
        let mut args = vec!["engine", "run", "--link", LINK, "--socket", path];
        if pace == Pace::OneByOne {
            args.push("--one-by-one");
        }
        let log = folder.path().join("log");
        let program = programs.path("russet")?;
        let mut program = Program::start(&node.namespace, &program, &args, log)?;
        let client = program.wait(PATIENCE, || Client::connect(&socket).ok())?;
        let listen = |n| SocketAddr::from((underlay(n), 8_285));
        let end = EngineEnd { listen: listen(n), inner: subnet(n).0.into() };
        client.start(EngineSpec { wire: EngineWire::Udp, v4: Some(end), v6: None })?;
        let (base, len) = subnet(peer);
        let prefix = Prefix::new(base.into(), len)?;
        client.patch(&[(prefix, Some(EnginePeerSpec { endpoint: listen(peer), key: None }))])?;
        Ok(Self { client, program, _folder: folder })
    }
}

/// The device as the agent would make it.
fn add_tun(node: &mut Node, n: u8, peer: u8) -> Result<()> {
    node.namespace.sysctl("net/ipv4/ip_forward", "1")?;
    // Without IPv6 the kernel sends nothing of its own.
    node.namespace.sysctl("net/ipv6/conf/default/disable_ipv6", "1")?;
    node.namespace.run(|| {
        let link: IfName = LINK.parse()?;
        Tun::create(link)?.persist()?;
        let mtu = (UNDERLAY_MTU - OVERHEAD).to_string();
        let status = Command::new("ip").args(["link", "set", LINK, "mtu", &mtu]).status()?;
        ensure!(status.success(), "set the MTU of {LINK}");
        Ok(())
    })?;
    let index = node.rtnl.index(LINK)?;
    node.rtnl.up(index)?;
    node.rtnl.add_address(index, (subnet(n).0, 32))?;
    node.rtnl.add_route(subnet(peer), Via::Onlink(subnet(peer).0, index))
}

/// Two nodes whose pods meet by vxlan, built by hand.
struct Tunnelled {
    pods: Vec<Namespace>,
    _site: Site,
}

impl Tunnelled {
    fn build() -> Result<Self> {
        let mut site = Site::new(2)?;
        let nodes = site.nodes.iter_mut().zip([(1, 2), (2, 1)]);
        let pods = nodes.map(|(node, (n, peer))| node.build_by_hand(Transport::Vxlan, n, peer));
        let pods = pods.collect::<Result<_>>()?;
        Ok(Self { pods, _site: site })
    }

    fn path(&self) -> Path<'_> {
        Path { client: &self.pods[0], server: &self.pods[1], address: pod_address(2) }
    }
}

/// A peer that need not exist.
fn peer(n: u16) -> (Prefix, Option<EnginePeerSpec>) {
    let [high, low] = n.to_be_bytes();
    let prefix = Prefix::host(Ipv4Addr::new(10, 100 + high, low, 0).into());
    let endpoint = SocketAddr::from(([172, 16, high, low], 8_285));
    (prefix, Some(EnginePeerSpec { endpoint, key: None }))
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn octets(value: u64) -> f64 {
    value as f64
}

const LINK: &str = "flannel0";
/// IPv4 and UDP.
const OVERHEAD: u32 = 28;
const STREAM: Duration = Duration::from_millis(500);
const ROUND_TRIPS: usize = 1_000;
const PATIENCE: Duration = Duration::from_secs(10);
