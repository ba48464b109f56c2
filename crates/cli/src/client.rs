//! Asking the agent over its admin socket.

use std::{
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use russet_api::{
    admin::{Answer, Ask, Reply, Request},
    frame,
};

/// Where the agent listens.
#[derive(Args, Clone, Debug)]
pub struct AgentSocket {
    /// The agent's admin socket
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/run/russet/admin.sock",
        env = "RUSSET_ADMIN_SOCKET"
    )]
    socket: PathBuf,
}

/// The agent did not answer.
#[derive(Debug, thiserror::Error)]
#[error("no agent answers on {}: is `russet agent` running, and are you root?", .0.display())]
pub struct NoAgent(PathBuf);

/// The BGP speaker did not answer.
#[derive(Debug, thiserror::Error)]
#[error("no speaker answers on {}: is `russet bgp` running, and are you root?", .0.display())]
pub struct NoSpeaker(pub PathBuf);

impl AgentSocket {
    /// Asks one thing.
    ///
    /// # Errors
    ///
    /// [`NoAgent`] when nobody listens; else what the agent, or the protocol, has to say.
    pub fn ask(&self, ask: Ask) -> Result<Answer> {
        let mut stream = self
            .connect()
            .map_err(|err| anyhow::Error::new(NoAgent(self.socket.clone())).context(err))?;
        frame::write(&mut stream, &Request::new(ask)).context("ask the agent")?;
        let reply: Reply = frame::read(&mut stream).context("read the agent's answer")?;
        match reply.answer {
            Answer::Error(text) => bail!("{text}"),
            answer => Ok(answer),
        }
    }

    /// Whether an agent listens there.
    pub fn is_served(&self) -> bool {
        self.connect().is_ok()
    }

    fn connect(&self) -> std::io::Result<UnixStream> {
        let stream = UnixStream::connect::<&Path>(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(stream)
    }
}

const PATIENCE: Duration = Duration::from_secs(10);
