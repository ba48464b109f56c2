//! Debian's etcd as a program, with its files on a disk.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::Etcd;
use crate::{
    net::site::{SWITCH, Site},
    program::Program,
};

/// Debian's etcd on the switch, with its file on a disk.
#[derive(Debug)]
pub struct Server {
    folder: TempDir,
    program: Option<Program>,
}

impl Server {
    pub fn new() -> Result<Self> {
        Ok(Self { folder: tempfile::tempdir()?, program: None })
    }

    pub fn start(&mut self, site: &Site) -> Result<()> {
        let url = format!("http://{}", address());
        let data = self.folder.path().join("data");
        let data = data.to_str().context("a folder in UTF-8")?;
        let args = [
            "--data-dir",
            data,
            "--listen-client-urls",
            &url,
            "--advertise-client-urls",
            &url,
            "--log-level",
            "error",
        ];
        let log = self.folder.path().join("log");
        let program = Program::start(&site.switch, &etcd()?, &args, log)?;
        self.program = Some(program);
        Ok(())
    }

    pub fn stop(&mut self) {
        self.program = None;
    }

    /// Waits until it answers, which it does not before it has a leader.
    pub fn client(&mut self, site: &Site) -> Result<Etcd> {
        let program = self.program.as_mut().context("etcd was started")?;
        program.wait(PATIENCE, || {
            let mut client = Etcd::connect(&site.switch, address()).ok()?;
            client.put("/ready", "", 0).ok().map(|()| client)
        })
    }
}

/// Where the system has it.
fn etcd() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).map(|folder| folder.join("etcd"));
    places.find(|place| place.is_file()).context("there is no program etcd")
}

fn address() -> SocketAddr {
    SocketAddr::from((SWITCH, PORT))
}

const PORT: u16 = 2_379;
const PATIENCE: Duration = Duration::from_mins(1);
