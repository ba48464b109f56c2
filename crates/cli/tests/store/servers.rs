//! The two stores, each a process that is killed with its value.

use std::{
    io::{BufRead, BufReader},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
};

use crate::{etcdctl, eventually, text};

/// Our store, killed when dropped.
pub struct Store {
    pub address: String,
    pub child: Child,
}

impl Store {
    /// Starts a store at a free port and waits until it serves.
    pub fn start(data: &Path, flags: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_russet"))
            .args(["store", "--listen", "127.0.0.1:0", "--data", text(data)])
            .args(flags)
            .stderr(Stdio::piped())
            .spawn()
            .expect("start russet");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let mut told = String::new();
        let address = lines.by_ref().map_while(Result::ok).find_map(|line| {
            told.push_str(&line);
            Some(line.split_once("via=")?.1.trim().to_owned())
        });
        // What it says later is read, so that it never waits for a reader.
        thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
        Self { address: address.unwrap_or_else(|| panic!("it does not serve: {told}")), child }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Debian's etcd, killed when dropped.
pub struct Etcd {
    pub address: String,
    pub child: Child,
}

impl Etcd {
    pub fn start(data: &Path) -> Self {
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let (address, peer) = (free(), free());
        let (client, peers) = (format!("http://{address}"), format!("http://{peer}"));
        let child = Command::new("etcd")
            .args(["--data-dir", text(data), "--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client, "--listen-peer-urls", &peers])
            .args(["--initial-advertise-peer-urls", &peers])
            .args(["--initial-cluster", &format!("default={peers}"), "--log-level", "error"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program etcd (package etcd-server) must be installed");
        let etcd = Self { address, child };
        eventually("etcd answers", || {
            etcdctl(&etcd.address, &["endpoint", "health"]).contains("is healthy")
        });
        etcd
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
