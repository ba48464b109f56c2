//! Our speaker and the others' in a namespace each.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

use crate::net::{Program, Space, eventually};

/// Our own.
pub struct Russet<'a> {
    space: &'a Space,
    folder: PathBuf,
    /// What it is called with.
    words: Vec<String>,
    program: Option<Program>,
}

impl<'a> Russet<'a> {
    /// Starts it with this configuration; AS, identifier and socket are put in front.
    pub fn start(space: &'a Space, folder: PathBuf, asn: u32, id: &str, config: &str) -> Self {
        fs::create_dir_all(&folder).unwrap();
        let words = vec!["--config".to_owned(), folder.join("bgp.toml").display().to_string()];
        let mut russet = Self { space, folder, words, program: None };
        russet.write(asn, id, config);
        russet.run();
        russet
    }

    /// Starts it by the resources in a folder, as the node of that name, with more words.
    pub fn by_resources(
        space: &'a Space,
        folder: PathBuf,
        resources: &Path,
        node: &str,
        more: &[&str],
    ) -> Self {
        fs::create_dir_all(&folder).unwrap();
        let socket = folder.join("bgp.sock");
        let [resources, socket] = [resources, &socket].map(|path| path.display().to_string());
        let words = ["--resources", &resources, "--node", node, "--admin-socket", &socket];
        let words = words.iter().chain(more).map(|word| (*word).to_owned()).collect();
        let mut russet = Self { space, folder, words, program: None };
        russet.run();
        russet
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.join("bgp.sock")
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
        let mut words = vec![env!("CARGO_BIN_EXE_russet"), "bgp"];
        words.extend(self.words.iter().map(String::as_str));
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

    /// Has the configuration read again; what is wrong with it, if anything is.
    pub fn reload(&self) -> Option<String> {
        let mut russet = Command::new(env!("CARGO_BIN_EXE_russet"));
        let out = russet.args(["bgp", "reload", "--socket"]).arg(self.folder.join("bgp.sock"));
        let out = out.output().unwrap();
        (!out.status.success()).then(|| String::from_utf8_lossy(&out.stderr).into_owned())
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

/// FRR: bgpd alone, whose routes stay in it, or with zebra and bfdd, and then they reach the kernel.
pub struct Frr<'a> {
    space: &'a Space,
    folder: PathBuf,
    programs: BTreeMap<&'static str, Program>,
}

impl<'a> Frr<'a> {
    pub fn start(space: &'a Space, folder: PathBuf, config: &str) -> Self {
        let mut frr = Self::prepare(space, folder);
        frr.run("bgpd", config, &["-n", "-Z", "-S"]);
        frr
    }

    /// With zebra, and what zebra's configuration is to have.
    pub fn with_zebra(space: &'a Space, folder: PathBuf, zebra: &str, bgpd: &str) -> Self {
        let mut frr = Self::prepare(space, folder);
        // It becomes another user, who is to find its sockets.
        for folder in [&frr.folder, frr.folder.parent().unwrap()] {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
        }
        frr.run("zebra", zebra, &[]);
        eventually("zebra's socket", || frr.path("zebra.sock").exists().then_some(()));
        frr.run("bgpd", bgpd, &["-S"]);
        frr
    }

    /// Adds bfdd, which bgpd asks to watch its peers.
    pub fn with_bfd(space: &'a Space, folder: PathBuf, bgpd: &str) -> Self {
        let mut frr = Self::with_zebra(space, folder, "", bgpd);
        let control = frr.path("bfdd.sock");
        frr.run("bfdd", "", &["--bfdctl", control.to_str().unwrap()]);
        frr
    }

    fn prepare(space: &'a Space, folder: PathBuf) -> Self {
        fs::create_dir_all(&folder).unwrap();
        Self { space, folder, programs: BTreeMap::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn run(&mut self, daemon: &'static str, config: &str, more: &[&str]) {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let (program, file) = (format!("/usr/lib/frr/{daemon}"), self.path(daemon));
        fs::write(file.with_extension("conf"), config).unwrap();
        let (file, pid) = (text(file.with_extension("conf")), text(file.with_extension("pid")));
        let (folder, zebra) = (text(self.path("")), text(self.path("zebra.sock")));
        let mut words = vec![program.as_str(), "-f", &file, "-i", &pid, "-P", "0"];
        words.extend(["--vty_socket", &folder, "-z", &zebra]);
        words.extend(more);
        self.programs.insert(daemon, self.space.start(&self.folder, daemon, &words));
    }

    pub fn ask(&self, words: &str) -> String {
        self.ask_all(&[words])
    }

    /// Says one line after the other.
    pub fn ask_all(&self, lines: &[&str]) -> String {
        let lines = lines.iter().flat_map(|line| ["-c", line]);
        let mut vtysh = Command::new("vtysh");
        let out = vtysh.arg("--vty_socket").arg(&self.folder).args(lines).output();
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
