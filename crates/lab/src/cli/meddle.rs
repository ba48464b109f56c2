//! Breaking things in a lab that is up, and mending them: what a topology's steps do, by hand.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Subcommand;

use super::Which;
use crate::{
    control::{Reply, Request},
    topology::form::{CutHow, SignalName},
};

#[derive(Subcommand, Debug)]
pub(super) enum Meddle {
    /// Kills a process of a node: `agent`, `store`, `etcd`
    Kill {
        #[command(flatten)]
        which: Which,
        node: String,
        process: String,
    },
    /// Starts a process of a node again
    Start {
        #[command(flatten)]
        which: Which,
        node: String,
        process: String,
    },
    /// Ends a process of a node by SIGTERM
    Stop {
        #[command(flatten)]
        which: Which,
        node: String,
        process: String,
    },
    /// Pulls the cable of a node, or of a subnet's router
    Cut {
        #[command(flatten)]
        which: Which,
        /// The node, or the subnet
        link: String,
        /// Packets vanish and nobody is told, as when a switch breaks
        #[arg(long)]
        silent: bool,
    },
    /// Plugs it in again: one, or all
    Heal {
        #[command(flatten)]
        which: Which,
        link: Option<String>,
    },
}

impl Meddle {
    pub(super) fn run(self) -> Result<ExitCode> {
        let (which, request) = self.request();
        match which.client()?.ask(&request)? {
            Reply::Done => Ok(ExitCode::SUCCESS),
            Reply::Refused(reason) => bail!(reason),
            other => bail!("the lab answered {other:?}"),
        }
    }

    fn request(self) -> (Which, Request) {
        match self {
            Self::Kill { which, node, process } => {
                (which, Request::Signal { node, process, signal: SignalName::Kill })
            }
            Self::Start { which, node, process } => (which, Request::Start { node, process }),
            Self::Stop { which, node, process } => (which, Request::Stop { node, process }),
            Self::Cut { which, link, silent } => {
                let how = if silent { CutHow::Silent } else { CutHow::Carrier };
                (which, Request::Cut { link, how })
            }
            Self::Heal { which, link } => (which, Request::Heal { link }),
        }
    }
}
