//! `russet engine`: the process of a userspace transport, and what an operator asks of it.

use std::{
    fmt::Write,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use russet_engine::{
    control::{Control, End},
    shared::Pace,
};
use russet_kernel::{
    Host,
    engine::{
        Client, links_in, socket_in,
        wire::{Hello, PeerCount, Totals},
    },
    link::LinkDriver,
    reconcile::Driver,
};
use russet_net::IfName;
use serde::Serialize;

use crate::{
    agent::{LogFormat, start_logs},
    client::AgentSocket,
    output::{self, Format, table},
};

#[derive(Args, Debug)]
pub struct EngineArgs {
    #[command(subcommand)]
    command: EngineCommand,
}

#[derive(Subcommand, Debug)]
enum EngineCommand {
    /// Runs the engine of one TUN link; the agent does this, and the engine outlives it
    Run(RunArgs),
    /// Shows what every engine of this node carries and drops
    Status(StatusArgs),
    /// Puts a process of this program in the place of every engine; no packet of peers that answer is lost
    Upgrade(UpgradeArgs),
    /// Ends every engine and removes its link, for whoever leaves Russet; refused while an agent runs
    Stop(StopArgs),
}

#[derive(Args, Debug)]
struct RunArgs {
    /// The TUN link
    #[arg(long)]
    link: IfName,
    /// Where it is told what to do
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// Where the node's WireGuard key is kept; it is made when there is none
    #[arg(long, value_name = "PATH")]
    key: Option<PathBuf>,
    /// Takes the place of the engine that listens there
    #[arg(long)]
    take_over: bool,
    /// Moves packets one by one, without any offload: for comparison
    #[arg(long, hide = true)]
    one_by_one: bool,
    /// How log lines look
    #[arg(long, value_enum, default_value_t, env = "RUSSET_LOG_FORMAT")]
    log_format: LogFormat,
}

#[derive(Args, Debug)]
struct StatusArgs {
    /// How to show it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
    #[command(flatten)]
    folder: Folder,
}

#[derive(Args, Debug)]
struct UpgradeArgs {
    /// Where the node's WireGuard key is kept
    #[arg(long, value_name = "PATH", default_value = "/var/lib/russet/wireguard.key")]
    key: PathBuf,
    #[command(flatten)]
    folder: Folder,
}

#[derive(Args, Debug)]
struct StopArgs {
    #[command(flatten)]
    folder: Folder,
    #[command(flatten)]
    agent: AgentSocket,
}

#[derive(Args, Debug)]
struct Folder {
    /// The folder of the engines' sockets
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/run/russet/engine",
        env = "RUSSET_ENGINE_FOLDER"
    )]
    folder: PathBuf,
}

pub fn run(args: EngineArgs) -> Result<ExitCode> {
    match args.command {
        EngineCommand::Run(args) => serve(&args),
        EngineCommand::Status(args) => status(&args),
        EngineCommand::Upgrade(args) => upgrade(&args),
        EngineCommand::Stop(args) => stop(&args),
    }
}

fn serve(args: &RunArgs) -> Result<ExitCode> {
    // A session of its own: what ends the agent's does not end it. Fails only for who leads one already.
    let _ = rustix::process::setsid();
    russet_kernel::sys::share_one_heap();
    start_logs(args.log_format);
    let pace = if args.one_by_one { Pace::OneByOne } else { Pace::Batches };
    let control = if args.take_over {
        Control::take_over(args.link, &args.socket, args.key.clone()).context("take over")?
    } else {
        Control::listen(args.link, &args.socket, pace)
            .with_context(|| format!("listen at {}", args.socket.display()))?
            .with_key(args.key.clone())
    };
    tracing::info!(ifname = %args.link, "the engine is up");
    let end = control.serve();
    tracing::info!(ifname = %args.link, reason = ?end, "the engine ends");
    Ok(if end == End::Failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// What is shown of one engine.
#[derive(Debug, Serialize)]
struct Shown {
    link: String,
    pid: u32,
    build: String,
    listens: Vec<String>,
    queues: u32,
    batches: String,
    drops: Vec<(String, u64)>,
    answers: u64,
    sizes: Sizes,
    peers: Vec<Peer>,
}

/// How often a message had up to 1, 2, 4, 8, 16, 32, 64, and more packets.
#[derive(Debug, Serialize)]
struct Sizes {
    sent: Vec<u64>,
    received: Vec<u64>,
    written: Vec<u64>,
}

#[derive(Debug, Serialize)]
struct Peer {
    endpoint: String,
    sent_packets: u64,
    sent_octets: u64,
    received_packets: u64,
    received_octets: u64,
    /// Seconds since the last handshake, where packets are sealed.
    handshake_seconds_ago: Option<u64>,
}

fn status(args: &StatusArgs) -> Result<ExitCode> {
    let folder = &args.folder.folder;
    let links = links_in(folder).with_context(|| format!("read {}", folder.display()))?;
    let mut shown = Vec::new();
    for link in links {
        let client =
            Client::connect(&socket_in(folder, link)).with_context(|| format!("engine {link}"))?;
        let (hello, _) = client.hello()?;
        let (totals, peers) =
            if hello.spec.is_some() { client.status()? } else { Default::default() };
        shown.push(Shown::new(link, hello, totals, peers));
    }
    output::print(args.output, &shown, |engines: &Vec<Shown>| human(engines))?;
    Ok(ExitCode::SUCCESS)
}

impl Shown {
    fn new(link: IfName, hello: Hello, totals: Totals, peers: Vec<PeerCount>) -> Self {
        let ends = hello.spec.into_iter().flat_map(|spec| [spec.v4, spec.v6]).flatten();
        let peer = |count: PeerCount| Peer {
            endpoint: count.endpoint.to_string(),
            sent_packets: count.sent[0],
            sent_octets: count.sent[1],
            received_packets: count.received[0],
            received_octets: count.received[1],
            handshake_seconds_ago: count.handshake,
        };
        Self {
            link: link.to_string(),
            pid: hello.pid,
            build: hello.build,
            listens: ends.map(|end| end.listen.to_string()).collect(),
            queues: totals.queues,
            batches: totals.offload,
            drops: totals.losses,
            answers: totals.answers,
            sizes: Sizes { sent: totals.sent, received: totals.received, written: totals.written },
            peers: peers.into_iter().map(peer).collect(),
        }
    }
}

fn human(engines: &[Shown]) -> String {
    let mut text = String::new();
    for engine in engines {
        let _ = writeln!(
            text,
            "engine     {} (russet {}, pid {})\nlistens    {}\nbatches    {}, {} queues",
            engine.link,
            engine.build,
            engine.pid,
            engine.listens.join(" "),
            engine.batches,
            engine.queues
        );
        let dropped = engine.drops.iter().filter(|(_, count)| *count > 0);
        let dropped: Vec<_> = dropped.map(|(reason, count)| format!("{reason} {count}")).collect();
        let dropped = if dropped.is_empty() { "nothing".to_owned() } else { dropped.join(", ") };
        let _ = writeln!(text, "dropped    {dropped}\n\nPEERS");
        let rows = engine.peers.iter().map(|peer| {
            let counts =
                [peer.sent_packets, peer.sent_octets, peer.received_packets, peer.received_octets];
            let handshake = peer.handshake_seconds_ago.map(|ago| format!("{ago} s ago"));
            let counts = counts.into_iter().map(|n| n.to_string());
            let row = [peer.endpoint.clone()].into_iter().chain(counts);
            row.chain([handshake.unwrap_or_default()]).collect()
        });
        text.push_str(&table(&["peer", "sent", "octets", "received", "octets", "handshake"], rows));
        let _ = writeln!(text, "\nPACKETS IN ONE CALL");
        let sizes = &engine.sizes;
        let ways =
            [("sent", &sizes.sent), ("received", &sizes.received), ("written", &sizes.written)];
        let rows = ways.iter().map(|(name, counts)| {
            [(*name).to_owned()].into_iter().chain(counts.iter().map(u64::to_string)).collect()
        });
        text.push_str(&table(
            &["", "1", "2", "3-4", "5-8", "9-16", "17-32", "33-64", "more"],
            rows,
        ));
    }
    if engines.is_empty() {
        text.push_str("no engine runs on this node\n");
    }
    text
}

fn upgrade(args: &UpgradeArgs) -> Result<ExitCode> {
    let folder = &args.folder;
    let program = std::env::current_exe().context("find this program")?;
    let links = links_in(&folder.folder)?;
    for link in links {
        let path = socket_in(&folder.folder, link);
        let old = Client::connect(&path)?.hello()?.0.pid;
        let mut command = Command::new(&program);
        // Whatever name it is installed under.
        command.arg0("russet");
        command.args(["engine", "run", "--take-over", "--link", link.as_str(), "--socket"]);
        command.arg(&path).arg("--key").arg(&args.key);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.spawn().context("start the successor")?;
        let new = await_successor(&path, old)?;
        println!("engine {link}: process {new} has taken over from {old}");
    }
    Ok(ExitCode::SUCCESS)
}

fn await_successor(path: &Path, old: u32) -> Result<u32> {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        let hello = Client::connect(path).and_then(|client| client.hello());
        match hello {
            Ok((hello, _)) if hello.pid != old => return Ok(hello.pid),
            _ => std::thread::sleep(Duration::from_millis(5)),
        }
    }
    bail!("the successor does not come up; process {old} goes on")
}

fn stop(args: &StopArgs) -> Result<ExitCode> {
    if args.agent.is_served() {
        bail!("an agent runs, which would start them again; stop it first");
    }
    let folder = &args.folder.folder;
    let mut host = Host::open()?;
    let mut failed = Vec::new();
    for link in links_in(folder).with_context(|| format!("read {}", folder.display()))? {
        match stop_one(&mut host, folder, link) {
            Ok(pid) => println!("engine {link}: process {pid} has ended, and the link is gone"),
            Err(err) => failed.push(format!("engine {link}: {err:#}")),
        }
    }
    if failed.is_empty() { Ok(ExitCode::SUCCESS) } else { bail!("{}", failed.join("\n")) }
}

/// Ends an engine and removes its link, which goes even where the engine has crashed.
fn stop_one(host: &mut Host, folder: &Path, link: IfName) -> Result<String> {
    let pid = match Client::connect(&socket_in(folder, link)) {
        Ok(client) => {
            let pid = client.hello()?.0.pid;
            client.stop()?;
            pid.to_string()
        }
        Err(err) => format!("(none: {err})"),
    };
    match LinkDriver.remove(host, &[link]).pop() {
        Some((_, refused)) => Err(refused).context("remove its link"),
        None => Ok(pid),
    }
}

/// How long a successor may take.
const PATIENCE: Duration = Duration::from_secs(10);
