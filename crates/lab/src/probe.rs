//! The hidden prober: what pods say to each other in a lab.
//!
//! `ping`, `udp` and `tcp` send numbered questions at a steady pace and tell latency and what was lost,
//! doubled or overtaken, by number; `stream` measures throughput; `serve` answers the others. `pace` is the
//! loop, `tally` counts (pure), `icmp` and `sockets` are the wires. `relay` stands before another program and makes it slow. Runs with a count, or until it is
//! interrupted, or (`--until-eof`) until its standard input closes: that is how a lab ends a watch.

mod icmp;
mod pace;
mod relay;
mod serve;
mod sockets;
mod stranger;
mod stream;
mod tally;

use std::{
    net::{IpAddr, SocketAddr},
    process::ExitCode,
    time::Duration,
};

use anyhow::Result;
use clap::{Args, Subcommand};

pub use self::{
    stream::StreamSummary,
    tally::{Latency, Summary},
};
use crate::{cli::Form, programs::PROBE_PORT};

/// Arguments of `russet probe`.
#[derive(Args, Debug)]
pub struct ProbeArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Asks by ICMP echo
    Ping {
        /// The address
        #[arg(long)]
        to: IpAddr,
        #[command(flatten)]
        paced: Paced,
    },
    /// Asks the prober there by UDP
    Udp {
        /// The address, with a port when it is not the prober's own
        #[arg(long, value_parser = target)]
        to: SocketAddr,
        #[command(flatten)]
        paced: Paced,
    },
    /// Asks the prober there by TCP, each time on a new connection
    Tcp {
        /// The address, with a port when it is not the prober's own
        #[arg(long, value_parser = target)]
        to: SocketAddr,
        #[command(flatten)]
        paced: Paced,
    },
    /// Sends as much as TCP carries
    Stream {
        /// The address, with a port when it is not the prober's own
        #[arg(long, value_parser = target)]
        to: SocketAddr,
        /// For how long, in seconds
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=3600))]
        seconds: u64,
        /// Tells the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Deletes a route as a stranger would, and times its return
    CutRoute {
        /// The route's exact prefix
        #[arg(long)]
        dst: russet_net::Prefix,
        /// Tells the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Passes streams on and their octets late, as a program that is slow would answer
    Relay {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        to: SocketAddr,
        /// Milliseconds that what comes back is held
        #[arg(long, value_parser = clap::value_parser!(u64).range(0..=60_000))]
        delay: u64,
    },
    /// Answers
    Serve {
        #[arg(long, default_value_t = PROBE_PORT)]
        port: u16,
    },
}

/// How questions follow one another.
#[derive(Args, Clone, Debug)]
struct Paced {
    /// How many; 0 is without end
    #[arg(long, default_value_t = 5)]
    count: u64,
    /// Milliseconds from one to the next
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    interval: u64,
    /// Milliseconds that an answer may take
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    timeout: u64,
    /// Ends when standard input closes, whatever the count
    #[arg(long)]
    until_eof: bool,
    /// Tells the result as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the prober. The exit status is 0 when there was an answer.
pub fn run(args: ProbeArgs) -> Result<ExitCode> {
    match args.command {
        Command::Ping { to, paced } => {
            paced.run(&mut icmp::Icmp::open(to)?, "icmp", &to.to_string())
        }
        Command::Udp { to, paced } => {
            paced.run(&mut sockets::Udp::open(to)?, "udp", &to.to_string())
        }
        Command::Tcp { to, paced } => {
            let mut wire = sockets::Tcp::open(to, Duration::from_millis(paced.timeout))?;
            paced.run(&mut wire, "tcp", &to.to_string())
        }
        Command::Stream { to, seconds, json } => {
            let summary = stream::run(to, Duration::from_secs(seconds))?;
            tell(&summary, json.into())
        }
        Command::CutRoute { dst, json } => {
            tell(&stranger::run(dst, Duration::from_secs(10))?, json.into())
        }
        Command::Relay { listen, to, delay } => {
            relay::run(listen, to, Duration::from_millis(delay))
        }
        Command::Serve { port } => serve::run(port),
    }
}

impl Paced {
    fn run(&self, wire: &mut dyn pace::Wire, by: &str, to: &str) -> Result<ExitCode> {
        let plan = pace::Plan {
            count: (self.count > 0).then_some(self.count),
            interval: Duration::from_millis(self.interval),
            timeout: Duration::from_millis(self.timeout),
            input: if self.until_eof { pace::Input::EndsIt } else { pace::Input::Ignored },
        };
        let summary = pace::run(wire, &plan)?.summary(by, to);
        tell(&summary, self.json.into())?;
        Ok(if summary.received > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn tell<T: std::fmt::Display + serde::Serialize>(result: &T, form: Form) -> Result<ExitCode> {
    match form {
        Form::Text => println!("{result}"),
        Form::Json => println!("{}", serde_json::to_string(result)?),
    }
    Ok(ExitCode::SUCCESS)
}

/// `10.0.0.1`, `10.0.0.1:80`, `fd00::1`, `[fd00::1]:80`.
fn target(text: &str) -> Result<SocketAddr, String> {
    if let Ok(addr) = text.parse::<IpAddr>() {
        return Ok(SocketAddr::new(addr, PROBE_PORT));
    }
    text.parse().map_err(|_| format!("{text:?} is no address, nor one with a port"))
}
