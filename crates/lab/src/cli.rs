//! `russet lab`: the command line.
//!
//! `start` brings a lab up, `run` plays one from end to end; the rest are questions to a lab that is up.

mod meddle;
mod run;
mod start;

use std::{
    fs,
    io::{self, IsTerminal, Write},
    os::fd::AsFd,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, Subcommand};

use crate::{
    capture::{Capture, Frame, Pcap},
    control::{self, Client, Reply, Request, Status},
    topology::{Faults, LinkAt, Name, Setting, Stores, Topology},
    world::stage,
};

/// Arguments of `russet lab`.
#[derive(Args, Debug)]
#[command(
    long_about = "Builds clusters out of network namespaces from a topology file.

The real binaries run on the real kernel, and the host's network is not touched: everything is in namespaces
of the lab's own and vanishes with it. Root is not needed where the system lets users make user namespaces.",
    after_help = EXAMPLES
)]
pub struct LabArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Brings a lab up and leaves it running
    Up {
        /// The topology file
        file: PathBuf,
        /// What is run where the topology says `store`
        #[arg(long, value_enum, default_value_t)]
        store: Stores,
        /// Gives a word that the topology leaves open another value; may be given again
        #[arg(long = "set", value_name = "WORD=VALUE")]
        settings: Vec<Setting>,
    },
    /// Plays a topology: up, its steps, what must hold, down
    Run {
        /// The topology file
        file: PathBuf,
        /// What is run where the topology says `store`
        #[arg(long, value_enum, default_value_t)]
        store: Stores,
        /// Gives a word that the topology leaves open another value; may be given again
        #[arg(long = "set", value_name = "WORD=VALUE")]
        settings: Vec<Setting>,
        /// Leaves the lab running when something does not hold
        #[arg(long)]
        keep: bool,
    },
    /// Runs a command in a node or pod
    Exec {
        #[command(flatten)]
        which: Which,
        /// A node, a pod, `router` or `switch-SUBNET`
        place: String,
        /// The command and its arguments; a shell when there is none
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Shows the packets on a link, decoded
    Capture {
        #[command(flatten)]
        which: Which,
        /// The link, like n1/eth0
        link: LinkAt,
        /// Ends after so many packets
        #[arg(long, short, default_value_t = 10)]
        count: u64,
        /// Ends after so many seconds
        #[arg(long, short, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
        seconds: u64,
        /// Shows only packets of VXLAN
        #[arg(long)]
        vxlan: bool,
        /// Shows only packets of IPv4 in IPv4
        #[arg(long, conflicts_with = "vxlan")]
        ipip: bool,
        /// Writes them to a file for tcpdump or Wireshark as well
        #[arg(long, value_name = "FILE")]
        pcap: Option<PathBuf>,
    },
    #[command(flatten)]
    Meddle(meddle::Meddle),
    /// Shows the nodes, what runs on them, and the pods
    Status {
        #[command(flatten)]
        which: Which,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Ends a lab and all in it
    Down {
        #[command(flatten)]
        which: Which,
        /// Ends every lab of yours
        #[arg(long, conflicts_with = "lab")]
        all: bool,
    },
    /// Lists the labs that are up
    List,
    /// Prints the JSON schema of topology files
    Schema,
    /// Checks topology files and does nothing
    Check { files: Vec<PathBuf> },
    /// A step of the way into a lab
    #[command(hide = true)]
    Stage { stage: String, dir: PathBuf },
}

/// Which lab is meant; the only one that is up, when none is named.
#[derive(Args, Debug)]
struct Which {
    /// The lab's name; not needed when one is up
    #[arg(long)]
    lab: Option<Name>,
}

impl Which {
    fn client(&self) -> Result<Client> {
        if let Some(name) = &self.lab {
            let client = Client::new(&control::lab_dir(name)?);
            return if client.is_alive() { Ok(client) } else { bail!("no lab {name} is up") };
        }
        let mut labs = control::running()?;
        match labs.len() {
            0 => bail!("no lab is up; bring one up with: russet lab up FILE"),
            1 => labs.pop().ok_or_else(|| anyhow!("no lab is up")),
            _ => {
                let names: Vec<_> = labs.iter().map(name_of).collect();
                bail!("several labs are up, say which with --lab: {}", names.join(", "))
            }
        }
    }
}

/// Runs the command. The exit status is 64 for a topology that is refused.
pub fn run(args: LabArgs) -> Result<ExitCode> {
    match dispatch(args.command) {
        Err(err) if err.is::<Faults>() => {
            eprintln!("{err}");
            Ok(ExitCode::from(REFUSED))
        }
        done => done,
    }
}

fn dispatch(command: Command) -> Result<ExitCode> {
    match command {
        Command::Up { file, store, settings } => up(&file, store, &settings),
        Command::Run { file, store, settings, keep } => {
            run::run(&file, store, &settings, keep.into())
        }
        Command::Exec { which, place, command } => exec(&which.client()?, place, command),
        Command::Capture { which, link, count, seconds, vxlan, ipip, pcap } => {
            let show = match (vxlan, ipip) {
                (true, _) => Show::Vxlan,
                (false, true) => Show::Ipip,
                (false, false) => Show::All,
            };
            let limit = Limit { count, until: Instant::now() + Duration::from_secs(seconds) };
            capture(&which.client()?, &link, limit, show, pcap)
        }
        Command::Meddle(meddle) => meddle.run(),
        Command::Status { which, json } => status(&which.client()?, json.into()),
        Command::Down { which, all } => {
            let labs = if all { control::running()? } else { vec![which.client()?] };
            labs.iter().try_for_each(down)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::List => list(),
        Command::Schema => {
            println!("{:#}", Topology::schema());
            Ok(ExitCode::SUCCESS)
        }
        Command::Check { files } => check(&files),
        Command::Stage { stage, dir } => stage::run(&stage, &dir),
    }
}

fn up(file: &std::path::Path, stores: Stores, settings: &[Setting]) -> Result<ExitCode> {
    let (topology, text) = Topology::read(file, settings)?;
    let topology = topology.upon(stores);
    let mut lines = start::Lines::default();
    start::start(&topology, &text, stage::Life::OfItsOwn, &mut lines)?;
    println!("\n{} is up. russet lab exec NODE -- COMMAND, russet lab down", topology.name);
    Ok(ExitCode::SUCCESS)
}

fn exec(client: &Client, place: String, mut command: Vec<String>) -> Result<ExitCode> {
    if command.is_empty() {
        command = vec!["sh".to_owned()];
    }
    let env = ["TERM", "LANG", "RUST_LOG"];
    let env = env.iter().filter_map(|key| Some(((*key).to_owned(), std::env::var(key).ok()?)));
    let request = Request::Exec { place, command, env: env.collect() };
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let fds = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
    match client.ask_with(&request, &fds)?.0 {
        Reply::Ended(status) => Ok(ExitCode::from(u8::try_from(status).unwrap_or(1))),
        other => bail!("the lab answered {other:?}"),
    }
}

/// Which packets are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Show {
    All,
    Vxlan,
    Ipip,
}

/// When a capture ends.
#[derive(Clone, Copy, Debug)]
struct Limit {
    count: u64,
    until: Instant,
}

fn capture(
    client: &Client,
    link: &LinkAt,
    limit: Limit,
    show: Show,
    pcap: Option<PathBuf>,
) -> Result<ExitCode> {
    let request = Request::Capture { place: link.place.to_string(), link: link.link.to_string() };
    let (_, sockets) = client.ask_with(&request, &[])?;
    let socket = sockets.into_iter().next().ok_or_else(|| anyhow!("no socket came"))?;
    let mut file = pcap.map(|path| Pcap::new(fs::File::create(path)?)).transpose()?;
    let mut capture = Capture::new(socket);
    let mut shown = 0;
    while shown < limit.count {
        let Some(octets) = capture.next(limit.until)? else { break };
        let frame = Frame::decode(octets);
        let is_shown = match show {
            Show::All => true,
            Show::Vxlan => frame.vxlan().is_some(),
            Show::Ipip => frame.ipip().is_some(),
        };
        if !is_shown {
            continue;
        }
        if let Some(file) = &mut file {
            file.packet(SystemTime::now(), octets)?;
        }
        println!("{frame}");
        shown += 1;
    }
    Ok(if shown > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn ask_status(client: &Client) -> Result<Status> {
    match client.ask(&Request::Status)? {
        Reply::Status(status) => Ok(status),
        other => bail!("the lab answered {other:?}"),
    }
}

fn status(client: &Client, form: Form) -> Result<ExitCode> {
    let status = ask_status(client)?;
    if form == Form::Json {
        println!("{}", serde_json::to_string_pretty(&status)?);
        return Ok(ExitCode::SUCCESS);
    }
    println!("{}  up {} s", status.name, status.uptime_s);
    for node in &status.nodes {
        println!("  {:<10} {:<10} {}", node.name, node.subnet, node.addresses.join(" "));
        for process in &node.processes {
            let again = if process.starts > 1 {
                format!(", started {} times", process.starts)
            } else {
                String::new()
            };
            println!("  {:<10}   {:<10} {}{again}", "", process.name, process.state);
        }
        for pod in status.pods.iter().filter(|pod| pod.node == node.name) {
            let addresses: Vec<_> = pod.addresses.iter().map(ToString::to_string).collect();
            println!("  {:<10}   pod {:<10} {}", "", pod.name, addresses.join(" "));
        }
    }
    if !status.cut.is_empty() {
        println!("  cut: {}", status.cut.join(", "));
    }
    Ok(ExitCode::SUCCESS)
}

/// The form in which an answer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Text,
    Json,
}

impl From<bool> for Form {
    fn from(json: bool) -> Self {
        if json { Self::Json } else { Self::Text }
    }
}

/// Ends a lab and forgets its folder.
fn down(client: &Client) -> Result<()> {
    client.ask(&Request::Down)?;
    if !client.wait_for_end(END_WITHIN) {
        bail!("{} does not end within {END_WITHIN:?}", name_of(client));
    }
    fs::remove_dir_all(client.dir())
        .with_context(|| format!("remove {}", client.dir().display()))?;
    println!("{} is down", name_of(client));
    Ok(())
}

fn list() -> Result<ExitCode> {
    for client in control::running()? {
        match ask_status(&client) {
            Ok(status) => println!(
                "{:<20} {} nodes, {} pods, up {} s",
                status.name,
                status.nodes.len(),
                status.pods.len(),
                status.uptime_s
            ),
            Err(err) => println!("{:<20} {err:#}", name_of(&client)),
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn check(files: &[PathBuf]) -> Result<ExitCode> {
    let mut refused = false;
    for file in files {
        match Topology::read(file, &[]) {
            Ok((topology, _)) => println!("{}: {} is sound", file.display(), topology.name),
            Err(err) => {
                eprintln!("{err:#}");
                refused = true;
            }
        }
    }
    io::stdout().flush()?;
    Ok(if refused { ExitCode::from(REFUSED) } else { ExitCode::SUCCESS })
}

fn name_of(client: &Client) -> String {
    client.dir().file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Whether what we print is looked at by a person.
fn is_watched() -> bool {
    io::stdout().is_terminal()
}

/// `EX_USAGE` of sysexits.h: a refused topology, as refused configuration elsewhere.
const REFUSED: u8 = 64;
const END_WITHIN: Duration = Duration::from_secs(10);
const EXAMPLES: &str = "\
Examples:
  russet lab run docs/lab/three-nodes.yaml   three nodes, their steps, and what must hold
  russet lab run --store etcd docs/lab/three-nodes.yaml
                                             the same, upon a real etcd
  russet lab up docs/lab/host-gw.yaml        a cluster to play with
  russet lab exec a -- ip route              in a pod
  russet lab capture n1/eth0 --vxlan         the headers of VXLAN packets, outer and inner
  russet lab down";
