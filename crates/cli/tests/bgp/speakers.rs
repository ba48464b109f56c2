//! Our speaker and the others' in a namespace each.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::net::{Program, Space, eventually};

/// Our own.
pub struct Russet<'a> {
    space: &'a Space,
    folder: PathBuf,
    program: Option<Program>,
}

impl<'a> Russet<'a> {
    /// Starts it with this configuration; AS, identifier and socket are put in front.
    pub fn start(space: &'a Space, folder: PathBuf, asn: u32, id: &str, config: &str) -> Self {
        fs::create_dir_all(&folder).unwrap();
        let mut russet = Self { space, folder, program: None };
        russet.write(asn, id, config);
        russet.run();
        russet
    }

    pub fn write(&self, asn: u32, id: &str, config: &str) {
        let socket = self.folder.join("bgp.sock");
        let text = format!(
            "asn = {asn}\nrouter-id = '{id}'\nadmin-socket = '{}'\n{config}",
            socket.display()
        );
        fs::write(self.folder.join("bgp.toml"), text).unwrap();
    }

    pub fn run(&mut self) {
        let config = self.folder.join("bgp.toml");
        let words = [env!("CARGO_BIN_EXE_russet"), "bgp", "--config", config.to_str().unwrap()];
        self.program = Some(self.space.start(&self.folder, "russet", &words));
    }

    pub fn kill(&mut self) {
        self.program.take().unwrap().kill();
    }

    pub fn signal(&self, signal: &str) {
        self.program.as_ref().unwrap().signal(signal);
    }

    /// Asks it; `None` while it does not answer, or says no.
    pub fn ask(&self, words: &[&str]) -> Option<Value> {
        let out = Command::new(env!("CARGO_BIN_EXE_russet"))
            .arg("bgp")
            .args(words)
            .args(["-o", "json", "--socket"])
            .arg(self.folder.join("bgp.sock"))
            .output()
            .unwrap();
        serde_json::from_slice(&out.stdout).ok()
    }

    pub fn peer(&self, address: &str) -> Option<Value> {
        self.ask(&["peer", address])
    }

    /// Waits for a session.
    #[track_caller]
    pub fn up(&self, address: &str) -> Value {
        let mut last = None;
        eventually(&format!("a session with {address}, see {}", self.folder.display()), || {
            last = self.peer(address);
            last.clone().filter(|peer| peer["state"] == "Established")
        })
    }

    /// The paths to a destination; none while there is no such route.
    pub fn paths(&self, family: &str, prefix: &str) -> Vec<Value> {
        let routes = self.ask(&["routes", "--family", family]).unwrap_or_default();
        let routes = routes.as_array().cloned().unwrap_or_default();
        let route = routes.into_iter().find(|route| route["prefix"] == prefix);
        route.map(|route| route["paths"].as_array().unwrap().clone()).unwrap_or_default()
    }

    #[track_caller]
    pub fn learns(&self, family: &str, prefix: &str) -> Vec<Value> {
        eventually(&format!("a route to {prefix}"), || {
            Some(self.paths(family, prefix)).filter(|paths| !paths.is_empty())
        })
    }
}

/// BIRD 2.
pub struct Bird<'a> {
    space: &'a Space,
    folder: PathBuf,
    program: Option<Program>,
}

impl<'a> Bird<'a> {
    /// Starts it; identifier and device protocol are put in front.
    pub fn start(space: &'a Space, folder: PathBuf, id: &str, config: &str) -> Self {
        fs::create_dir_all(&folder).unwrap();
        let text = format!("router id {id};\nprotocol device {{}}\n{config}");
        fs::write(folder.join("bird.conf"), text).unwrap();
        let mut bird = Self { space, folder, program: None };
        bird.run(&[]);
        bird
    }

    pub fn run(&mut self, more: &[&str]) {
        let path = |name: &str| self.folder.join(name).to_string_lossy().into_owned();
        let (config, socket, pid) = (path("bird.conf"), path("bird.ctl"), path("bird.pid"));
        let mut words = vec!["bird", "-f", "-c", &config, "-s", &socket, "-P", &pid];
        words.extend(more);
        self.program = Some(self.space.start(&self.folder, "bird", &words));
    }

    pub fn kill(&mut self) {
        self.program.take().unwrap().kill();
    }

    pub fn ask(&self, words: &str) -> String {
        let socket = self.folder.join("bird.ctl");
        let out = Command::new("birdc").arg("-s").arg(socket).args(words.split(' ')).output();
        String::from_utf8_lossy(&out.unwrap().stdout).into_owned()
    }

    #[track_caller]
    pub fn shows(&self, words: &str, wanted: &[&str]) -> String {
        let mut last = String::new();
        eventually(&format!("{wanted:?} in BIRD's {words}, see {}", self.folder.display()), || {
            last = self.ask(words);
            wanted.iter().all(|wanted| last.contains(wanted)).then(|| last.clone())
        })
    }
}

/// FRR's bgpd alone: routes stay in it.
pub struct Frr {
    folder: PathBuf,
    _program: Program,
}

impl Frr {
    pub fn start(space: &Space, folder: PathBuf, config: &str) -> Self {
        fs::create_dir_all(&folder).unwrap();
        let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
        fs::write(folder.join("bgpd.conf"), config).unwrap();
        let (file, pid, dir) = (path("bgpd.conf"), path("bgpd.pid"), path(""));
        let words = [
            "/usr/lib/frr/bgpd",
            "-f",
            &file,
            "-i",
            &pid,
            "--vty_socket",
            &dir,
            "-n",
            "-Z",
            "-S",
            "-P",
            "0",
        ];
        let program = space.start(&folder, "frr", &words);
        Self { folder, _program: program }
    }

    pub fn ask(&self, words: &str) -> String {
        let out = Command::new("vtysh")
            .arg("--vty_socket")
            .arg(&self.folder)
            .args(["-d", "bgpd", "-c", words])
            .output();
        String::from_utf8_lossy(&out.unwrap().stdout).into_owned()
    }

    #[track_caller]
    pub fn shows(&self, words: &str, wanted: &[&str]) -> String {
        let mut last = String::new();
        eventually(&format!("{wanted:?} in FRR's {words}, see {}", self.folder.display()), || {
            last = self.ask(words);
            wanted.iter().all(|wanted| last.contains(wanted)).then(|| last.clone())
        })
    }
}

/// `GoBGP`.
pub struct GoBgp<'a> {
    space: &'a Space,
    folder: PathBuf,
    _program: Program,
}

impl<'a> GoBgp<'a> {
    pub fn start(space: &'a Space, folder: PathBuf, config: &str) -> Self {
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("gobgpd.toml"), config).unwrap();
        let file = folder.join("gobgpd.toml");
        let words = ["gobgpd", "-f", file.to_str().unwrap(), "--api-hosts", "127.0.0.1:50051"];
        let program = space.start(&folder, "gobgpd", &words);
        Self { space, folder, _program: program }
    }

    pub fn ask(&self, words: &str) -> Option<String> {
        let out = self.space.command("gobgp").args(words.split(' ')).output().unwrap();
        out.status.success().then(|| String::from_utf8_lossy(&out.stdout).into_owned())
    }

    #[track_caller]
    pub fn does(&self, words: &str) {
        eventually(&format!("GoBGP's {words}"), || self.ask(words));
    }

    #[track_caller]
    pub fn shows(&self, words: &str, wanted: &[&str]) -> String {
        let mut last = String::new();
        eventually(&format!("{wanted:?} in GoBGP's {words}, see {}", self.folder.display()), || {
            last = self.ask(words)?;
            wanted.iter().all(|wanted| last.contains(wanted)).then(|| last.clone())
        })
    }
}

/// Writes `ExaBGP`'s configuration, with a process that writes down what it hears; returns where.
pub fn exabgp_that_tells(folder: &Path, config: &str) -> PathBuf {
    fs::create_dir_all(folder).unwrap();
    let (script, heard) = (folder.join("tell.sh"), folder.join("heard.json"));
    fs::write(&script, format!("cat > {}\n", heard.display())).unwrap();
    let process = format!("process tell {{ run /bin/sh {}; encoder json; }}\n", script.display());
    fs::write(folder.join("exabgp.conf"), process + config).unwrap();
    heard
}

/// `ExaBGP`, which says what its configuration has, well formed or not.
pub fn exabgp(space: &Space, folder: &Path) -> Program {
    let file = folder.join("exabgp.conf");
    let words = [
        "env",
        "exabgp.daemon.user=root",
        "exabgp.api.cli=false",
        "exabgp.tcp.bind=",
        "exabgp",
        file.to_str().unwrap(),
    ];
    space.start(folder, "exabgp", &words)
}
