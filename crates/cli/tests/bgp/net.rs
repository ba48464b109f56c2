//! Networks of a few namespaces, and programs in them.
//!
//! A namespace lives as long as a process that sleeps in it, and that is ours: nothing has a name, and
//! nothing is left when the test ends, however it ends.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// A network namespace with a loopback that is up.
pub struct Space(Child);

impl Space {
    pub fn new() -> Self {
        let ours = fs::read_link("/proc/self/ns/net").unwrap();
        let sleeper = Command::new("unshare")
            .args(["--net", "sleep", LIFE_S])
            .stdin(Stdio::null())
            .spawn()
            .expect("unshare: root and util-linux are needed");
        let path = format!("/proc/{}/ns/net", sleeper.id());
        let space = Self(sleeper);
        // `unshare` becomes `sleep` once it has moved; a refusal ends it.
        eventually("a namespace", || fs::read_link(&path).ok().filter(|own| *own != ours));
        space.ip("link set lo up");
        space
    }

    /// A command that runs in the namespace.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.0.id())).arg("--").arg(program.as_ref());
        command
    }

    /// Runs `ip` with words.
    pub fn ip(&self, words: &str) {
        let out = self.command("ip").args(words.split(' ')).output().unwrap();
        assert!(out.status.success(), "ip {words}: {}", String::from_utf8_lossy(&out.stderr));
    }

    /// Runs a program, and returns what it said.
    #[track_caller]
    pub fn run(&self, words: &[&str]) -> String {
        let out = self.command(words[0]).args(&words[1..]).output().unwrap();
        assert!(out.status.success(), "{words:?}: {}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    /// Lets nothing in any more, so that who sends is not told.
    pub fn go_deaf(&self) {
        self.run(&["nft", "add table inet deaf"]);
        let hook = "{ type filter hook input priority 0; policy drop; }";
        self.run(&["nft", &format!("add chain inet deaf inwards {hook}")]);
    }

    pub fn hear_again(&self) {
        self.run(&["nft", "delete table inet deaf"]);
    }

    /// Starts a program that is ended with its value; what it says goes into a file of that folder.
    pub fn start(&self, folder: &Path, name: &str, words: &[&str]) -> Program {
        let log = fs::File::create(folder.join(format!("{name}.log"))).unwrap();
        let mut command = self.command(words[0]);
        command.args(&words[1..]).stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap()).stderr(log);
        Program(command.spawn().unwrap_or_else(|err| panic!("{name}: {err}")))
    }

    /// Joins two namespaces by a link with 10.0.N.0/24 and `fd00:N::/64`; we are 1, the other is 2 and calls it
    /// `up`.
    pub fn link(&self, other: &Self, n: u8) {
        self.link_as(other, n, "up");
    }

    /// As [`Self::link`], where the other calls it by this name.
    pub fn link_as(&self, other: &Self, n: u8, theirs: &str) {
        let pid = other.0.id();
        self.ip(&format!("link add to{n} type veth peer name {theirs} netns {pid}"));
        let ends = [(self, format!("to{n}"), 1), (other, theirs.to_owned(), 2)];
        for (space, name, host) in ends {
            space.ip(&format!("addr add 10.0.{n}.{host}/24 dev {name}"));
            space.ip(&format!("addr add fd00:{n}::{host}/64 dev {name} nodad"));
            space.ip(&format!("link set dev {name} up"));
        }
    }

    /// Makes us a switch.
    pub fn become_switch(&self) {
        self.ip("link add switch type bridge");
        self.ip("link set switch up");
    }

    /// Plugs another namespace into us, a switch, as 10.5.0.N/24; it calls the link `up`.
    pub fn plug(&self, other: &Self, n: u8) {
        let pid = other.0.id();
        self.ip(&format!("link add to{n} type veth peer name up netns {pid}"));
        self.ip(&format!("link set to{n} master switch up"));
        other.ip(&format!("addr add 10.5.0.{n}/24 dev up"));
        other.ip("link set dev up up");
    }

    /// As [`Self::link`], without addresses: both ends have what the kernel gives them.
    pub fn bare_link(&self, other: &Self, n: u8) {
        let pid = other.0.id();
        self.ip(&format!("link add to{n} type veth peer name up netns {pid}"));
        self.ip(&format!("link set dev to{n} up"));
        other.ip("link set dev up up");
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A program that is killed with its value.
pub struct Program(Child);

impl Program {
    pub fn signal(&self, signal: &str) {
        let pid = self.0.id().to_string();
        let done = Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(done.success(), "kill {signal} {pid}");
    }

    /// Ends it without a word.
    pub fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for something to become so.
#[track_caller]
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "within {PATIENCE:?} there was not: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Generous, for machines that do much else at the time; what is asserted is the event, not the time.
const PATIENCE: Duration = Duration::from_secs(45);
/// A namespace of a test that was killed is gone after so many seconds.
const LIFE_S: &str = "600";
