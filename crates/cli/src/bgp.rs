//! `russet bgp`: the BGP speaker alone, as a route reflector or for tests, and what is asked of it.

mod resources;

use std::{
    fmt::Write,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use russet_agent::bgp::config::BgpConfig;
use russet_api::{
    bgp::{Answer, Ask, PathRow, PeerRow, Reply, Request, RouteRow, Status},
    frame,
};

use self::resources::{Reader, ResourcesArgs};
use crate::{
    agent::{LogFormat, start_logs},
    client::NoSpeaker,
    output::{self, Format, table},
    store::{block_on, until_asked_to_stop},
};

#[derive(Args, Debug)]
#[command(
    long_about = "Runs a BGP speaker: a route reflector, or a router for tests.

SIGHUP has the configuration read again; sessions that did not change stay. With status, peer, routes, dump or reload
it speaks to a running one instead.",
    after_help = EXAMPLES,
    args_conflicts_with_subcommands = true
)]
pub struct BgpArgs {
    #[command(subcommand)]
    command: Option<BgpCommand>,
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Args, Debug)]
struct ServeArgs {
    /// The configuration file (docs/bgp.md)
    #[arg(
        long,
        value_name = "FILE",
        default_value = "/etc/russet/bgp.toml",
        env = "RUSSET_BGP_CONFIG"
    )]
    config: PathBuf,
    #[command(flatten)]
    resources: ResourcesArgs,
    /// Checks the configuration and does nothing else; with --resources it shows the sessions that there would be
    #[arg(long)]
    check: bool,
    /// How log lines look
    #[arg(long, value_enum, default_value_t, env = "RUSSET_LOG_FORMAT")]
    log_format: LogFormat,
}

#[derive(Debug, Subcommand)]
enum BgpCommand {
    /// Shows the speaker and its peers
    Status(AskArgs),
    /// Shows all of one peer
    Peer {
        /// Its address, with %LINK behind it where it holds only there, or the link that it is on
        address: String,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Lists routes, with why a path is the best and what dropped one
    Routes {
        /// One prefix, or all routes of --family
        prefix: Option<String>,
        /// ipv4-unicast, ipv6-unicast or l2vpn-evpn
        #[arg(long, default_value = "ipv4-unicast")]
        family: String,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Has all routes written into a file on the speaker's machine (MRT, RFC 6396)
    Dump {
        file: PathBuf,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Has the configuration read again, and tells what is wrong with it
    Reload(AskArgs),
}

#[derive(Args, Debug)]
struct AskArgs {
    /// The speaker's admin socket
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/run/russet/bgp.sock",
        env = "RUSSET_BGP_SOCKET"
    )]
    socket: PathBuf,
    /// How to show it
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

pub fn run(args: BgpArgs) -> Result<ExitCode> {
    match args.command {
        None => serve(args.serve),
        Some(BgpCommand::Status(ask)) => status(&ask),
        Some(BgpCommand::Peer { address, ask }) => peer(address, &ask),
        Some(BgpCommand::Routes { prefix, family, ask }) => routes(prefix, &family, &ask),
        Some(BgpCommand::Dump { file, ask }) => dump(&file, &ask),
        Some(BgpCommand::Reload(ask)) => reload(&ask),
    }
}

fn serve(mut args: ServeArgs) -> Result<ExitCode> {
    if let Some(folder) = args.resources.resources.take() {
        return serve_resources(folder, args);
    }
    let config = BgpConfig::load(&args.config)?;
    if args.check {
        println!("the configuration is good");
        return Ok(ExitCode::SUCCESS);
    }
    start_logs(args.log_format);
    let path = args.config;
    block_on(async {
        let stop = until_asked_to_stop()?;
        russet_agent::bgp::run(config, move || BgpConfig::load(&path), stop).await?;
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

fn serve_resources(folder: PathBuf, args: ServeArgs) -> Result<ExitCode> {
    let reader = Reader::new(folder, args.resources);
    let wished = reader.read(None)?;
    if args.check {
        return Ok(resources::check(&wished));
    }
    start_logs(args.log_format);
    block_on(async {
        let stop = until_asked_to_stop()?;
        russet_agent::bgp::run_by_resources(wished, move |asns| reader.read(asns), stop).await?;
        Ok(())
    })?;
    Ok(ExitCode::SUCCESS)
}

// ---- questions
fn status(args: &AskArgs) -> Result<ExitCode> {
    output::print(args.output, &args.whole_status()?, human_status)?;
    Ok(ExitCode::SUCCESS)
}

/// The speaker behind a socket, with all its peers.
pub fn status_of(socket: PathBuf) -> Result<Status> {
    AskArgs { socket, output: Format::default() }.whole_status()
}

fn peer(address: String, args: &AskArgs) -> Result<ExitCode> {
    let Answer::Peer(peer) = args.ask(Ask::Peer { address })? else { return other() };
    output::print(args.output, &*peer, human_peer)?;
    Ok(ExitCode::SUCCESS)
}

fn routes(prefix: Option<String>, family: &str, args: &AskArgs) -> Result<ExitCode> {
    let rows = match prefix {
        Some(prefix) => args.routes(Ask::Route { prefix })?.0,
        None => args.all_routes(family)?,
    };
    output::print(args.output, &rows, |rows| human_routes(rows))?;
    Ok(if rows.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn dump(file: &Path, args: &AskArgs) -> Result<ExitCode> {
    // The speaker has another working folder.
    let file = std::path::absolute(file).with_context(|| format!("find {}", file.display()))?;
    let path = file.to_string_lossy().into_owned();
    let Answer::Dumped(count) = args.ask(Ask::Dump { path })? else { return other() };
    println!("{count} routes are in {}", file.display());
    Ok(ExitCode::SUCCESS)
}

fn reload(args: &AskArgs) -> Result<ExitCode> {
    let Answer::Done = args.ask(Ask::Reload)? else { return other() };
    println!("the configuration is read again");
    Ok(ExitCode::SUCCESS)
}

fn other<T>() -> Result<T> {
    bail!("the speaker answered something else than was asked")
}

impl AskArgs {
    fn ask(&self, ask: Ask) -> Result<Answer> {
        let mut stream = UnixStream::connect(&self.socket)
            .map_err(|err| anyhow::Error::new(NoSpeaker(self.socket.clone())).context(err))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        frame::write(&mut stream, &Request::new(ask)).context("ask the speaker")?;
        let reply: Reply = frame::read(&mut stream).context("read the speaker's answer")?;
        match reply.answer {
            Answer::Error(text) => bail!("{text}"),
            answer => Ok(answer),
        }
    }

    fn whole_status(&self) -> Result<Status> {
        let Answer::Status(mut status) = self.ask(Ask::Status { from: 0 })? else { return other() };
        while status.peers.rows.len() < status.peers.total {
            let from = status.peers.rows.len();
            let Answer::Status(more) = self.ask(Ask::Status { from })? else { return other() };
            if more.peers.rows.is_empty() {
                break;
            }
            status.peers.rows.extend(more.peers.rows);
            status.objects.extend(more.objects);
        }
        Ok(*status)
    }

    fn routes(&self, ask: Ask) -> Result<(Vec<RouteRow>, Option<u32>)> {
        let Answer::Routes(routes) = self.ask(ask)? else { return other() };
        Ok((routes.rows, routes.next))
    }

    fn all_routes(&self, family: &str) -> Result<Vec<RouteRow>> {
        let mut rows = Vec::new();
        let mut next = Some(0);
        while let Some(from) = next {
            let (page, after) = self.routes(Ask::Routes { family: family.to_owned(), from })?;
            rows.extend(page);
            next = after.filter(|after| *after > from);
        }
        // The speaker's own order means nothing.
        rows.sort_by(|one, other| one.prefix.cmp(&other.prefix));
        Ok(rows)
    }
}

// ---- for people
fn human_status(status: &Status) -> String {
    let mut text = format!(
        "AS {}, identifier {}, cluster {}, listening on {}\n",
        status.asn,
        status.router_id,
        status.cluster_id,
        status.listen.join(" ")
    );
    let counts = status.families.iter().filter(|count| count.destinations > 0);
    let counts: Vec<_> =
        counts.map(|count| format!("{} {}", count.destinations, count.family)).collect();
    let _ = writeln!(
        text,
        "routes: {}",
        if counts.is_empty() { "none".into() } else { counts.join(", ") }
    );
    if status.strangers > 0 {
        let _ = writeln!(
            text,
            "connections that nobody configured, or beyond a limit: {}",
            status.strangers
        );
    }
    if let Some(faults) = &status.refused_configuration {
        let _ = writeln!(text, "not in force: {faults}");
    }
    let rows = status.peers.rows.iter().map(|peer| {
        vec![
            peer.address.clone(),
            peer.asn.clone(),
            peer.state.clone(),
            peer.up_s.map(ago).unwrap_or_default(),
            peer.families
                .iter()
                .map(|family| family.received.to_string())
                .collect::<Vec<_>>()
                .join("/"),
            kind_of(peer),
            peer.last_error.clone().unwrap_or_default(),
        ]
    });
    let _ = write!(
        text,
        "\n{}",
        table(&["peer", "AS", "state", "for", "received", "kind", "ended last"], rows)
    );
    if !status.objects.is_empty() {
        let rows = status.objects.iter().map(|row| {
            vec![format!("{} {}", row.kind, row.name), row.grade.clone(), row.reason.clone()]
        });
        let _ = write!(text, "\n{}", table(&["object", "", "what"], rows));
    }
    text
}

/// Of a peer that resources say.
fn kind_of(peer: &PeerRow) -> String {
    let kind = peer.kind.clone().unwrap_or_default();
    match peer.leaves_in_s {
        Some(s) => format!("{kind}, leaves within {s} s"),
        None => kind,
    }
}

fn human_peer(peer: &PeerRow) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:<13} {value}");
    };
    line("peer", peer.address.clone());
    peer.description.iter().for_each(|description| line("description", description.clone()));
    if peer.kind.is_some() {
        line("kind", kind_of(peer));
    }
    peer.object.iter().for_each(|object| line("BGPPeer", object.clone()));
    peer.node.iter().for_each(|node| line("node", node.clone()));
    line("AS", peer.asn.clone());
    line("state", peer.state.clone());
    peer.up_s.iter().for_each(|up| line("for", ago(*up)));
    peer.direction.iter().for_each(|direction| line("connection", direction.clone()));
    peer.router_id.iter().for_each(|id| line("identifier", id.clone()));
    peer.hold_time_s.iter().for_each(|hold| line("hold time", format!("{hold} s")));
    peer.last_error.iter().for_each(|error| line("ended last", error.clone()));
    if !peer.capabilities.is_empty() {
        line("agreed on", peer.capabilities.join(", "));
    }
    for family in &peer.families {
        let mut words = vec![format!("{} received", family.received)];
        words.extend(family.end_of_rib.then(|| "all told".to_owned()));
        words.extend(family.stale.then(|| "kept while it restarts".to_owned()));
        line(&family.family, words.join(", "));
    }
    line("in", format!("{} messages, {} octets", peer.messages_in, peer.octets_in));
    line("out", format!("{} messages, {} octets", peer.messages_out, peer.octets_out));
    let faulty = format!("{} in part, {} withdrawn", peer.discarded, peer.treated_as_withdraw);
    line("left out", faulty);
    line("refreshes", peer.refreshes.to_string());
    line("times up", peer.times_up.to_string());
    if let Some(bfd) = &peer.bfd {
        let mut words = vec![bfd.state.clone()];
        words.extend(bfd.detection_ms.map(|ms| format!("dead after {ms} ms of silence")));
        words.push(format!("down {} times", bfd.downs));
        words.extend(bfd.last_error.clone());
        line("BFD", words.join(", "));
    }
    text
}

fn human_routes(rows: &[RouteRow]) -> String {
    let cells = rows.iter().flat_map(|row| {
        row.paths.iter().map(|path| {
            vec![
                row.prefix.clone(),
                if path.best { "*" } else { "" }.to_owned(),
                path.from.clone(),
                path.next_hop.clone(),
                path.as_path.clone(),
                words_of(path),
                path.why.clone(),
            ]
        })
    });
    table(&["route", "", "from", "next hop", "AS path", "attributes", "why"], cells)
}

/// The attributes that a route need not have.
fn words_of(path: &PathRow) -> String {
    let mut words = Vec::new();
    words.extend(path.local_pref.map(|pref| format!("pref {pref}")));
    words.extend(path.med.map(|med| format!("med {med}")));
    words.extend(path.path_id.map(|id| format!("path {id}")));
    words.extend(path.originator_id.iter().map(|id| format!("originator {id}")));
    if !path.cluster_list.is_empty() {
        words.push(format!("clusters {}", path.cluster_list.join(" ")));
    }
    words.extend(path.communities.iter().cloned());
    words.extend(path.detail.clone());
    words.extend(path.stale.then(|| "stale".to_owned()));
    words.join(", ")
}

fn ago(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3_600),
    }
}

/// A dump of many routes takes a while.
const PATIENCE: Duration = Duration::from_secs(30);
const EXAMPLES: &str = "\
Examples:
  russet bgp --config /etc/russet/bgp.toml     a reflector, as docs/bgp.md has it
  russet bgp --config bgp.toml --check         what is wrong with a file, all of it
  russet bgp --resources DIR --node n1 --check what Calico's resources come to on a node
  russet bgp status
  russet bgp peer 10.0.0.2                     with what was agreed on, and why it ended last
  russet bgp routes 10.50.7.0/24               each path, and why it is the best or lost
  russet bgp routes --family l2vpn-evpn -o json
  russet bgp dump /tmp/table.mrt               for bgpdump and the like";
