//! `russet store` beside Debian's etcd: both with every write on the disk before it is answered, their
//! files in one folder.
//!
//! Callers are threads with a connection each and one request at a time. What they cost on the same two
//! cores is the same for both servers. Rounds alternate; a ratio is formed within a round.

use std::{
    fs::File,
    io::Write,
    net::SocketAddr,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::{Setup, rotation};
use crate::{
    etcd::Etcd,
    net::Namespace,
    process,
    program::{Program, Programs},
    report::{Bound, Figure, Row, Unit},
};

/// Puts, ranges, watchers, memory and start.
pub fn measure(setup: &Setup) -> Result<Figure> {
    let mut figure = Figure { name: "store", rows: Vec::new(), notes: Vec::new() };
    let folder = folder(&setup.programs)?;
    figure.notes.push(format!("A bare append and fdatasync in that folder: {}.", bare(&folder)?));
    {
        let mut sides =
            [Side::start(setup, &folder, Kind::Ours)?, Side::start(setup, &folder, Kind::Etcd)?];
        for (callers, wanted) in [(1, 1.0), (16, 1.0), (64, 1.5)] {
            figure.rows.push(puts(setup, &mut sides, callers)?.must(Bound::RatioAtLeast(wanted)));
        }
        figure.rows.push(ranges(setup, &mut sides)?.must(Bound::RatioAtLeast(1.0)));
        figure.rows.push(watchers(setup, &mut sides)?.must(Bound::RatioAtMost(1.0)));
    }
    figure.rows.extend(full(setup, &folder)?);
    Ok(figure)
}

/// Beside the programs, so on a real disk wherever they are on one.
fn folder(programs: &Programs) -> Result<TempDir> {
    let russet = programs.path("russet")?;
    let beside = russet.parent().context("the program has a folder")?;
    Ok(tempfile::Builder::new().prefix("bench-store").tempdir_in(beside)?)
}

/// What the disk alone takes for a record.
fn bare(folder: &TempDir) -> Result<String> {
    let mut file = File::create(folder.path().join("bare"))?;
    let mut times = Vec::new();
    for _ in 0..500 {
        let before = Instant::now();
        file.write_all(&[7; 400])?;
        file.sync_data()?;
        times.push(before.elapsed());
    }
    times.sort();
    Ok(Unit::Seconds.show(times[times.len() / 2].as_secs_f64()))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ours,
    Etcd,
}

/// One server with its connections.
struct Side {
    kind: Kind,
    namespace: Namespace,
    data: PathBuf,
    program: Program,
    clients: Vec<Etcd>,
    programs: Programs,
    /// Puts so far, so that each has a key of its own.
    written: usize,
}

impl Side {
    fn start(setup: &Setup, folder: &TempDir, kind: Kind) -> Result<Self> {
        let data = tempfile::tempdir_in(folder.path())?.keep();
        let namespace = Namespace::new()?;
        let program = spawn(&setup.programs, &namespace, &data, kind)?;
        let programs = setup.programs.clone();
        let mut side =
            Self { kind, namespace, data, program, clients: Vec::new(), programs, written: 0 };
        side.wait()?;
        Ok(side)
    }

    /// Opens so many connections. Not sooner than they are used: one that lies idle does not answer when the
    /// server asks whether it is there.
    fn connect(&mut self, count: usize) -> Result<()> {
        self.clients.clear();
        for _ in 0..count {
            self.clients.push(Etcd::connect(&self.namespace, ADDRESS.into())?);
        }
        Ok(())
    }

    /// Waits until it answers.
    fn wait(&mut self) -> Result<()> {
        let namespace = &self.namespace;
        self.program.wait(Duration::from_secs(30), || {
            let mut client = Etcd::connect(namespace, ADDRESS.into()).ok()?;
            client.range("/ready").ok()
        })?;
        Ok(())
    }

    /// Puts so many keys through so many connections; returns how many in a second.
    fn put(&mut self, callers: usize, count: usize) -> Result<f64> {
        self.connect(callers)?;
        let (first, each) = (self.written, count / callers);
        self.written += count;
        let before = Instant::now();
        let done: Result<Vec<()>> = thread::scope(|scope| {
            let clients = self.clients.iter_mut().take(callers).enumerate();
            let threads: Vec<_> = clients
                .map(|(caller, client)| {
                    scope.spawn(move || {
                        let value = "v".repeat(VALUE);
                        let keys = (0..each).map(|n| key(first + caller * each + n));
                        keys.into_iter().try_for_each(|key| client.put(&key, &value, 0))
                    })
                })
                .collect();
            let joined = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Ok(())));
            joined.collect()
        });
        done?;
        Ok(rate(each * callers, before.elapsed()))
    }

    /// Ends the program and starts it again; returns the time until it has answered.
    fn restart(&mut self) -> Result<f64> {
        self.clients.clear();
        let stopped = spawn_after(&mut self.program, || {
            spawn(&self.programs, &self.namespace, &self.data, self.kind)
        })?;
        self.program = stopped.0;
        self.wait()?;
        Ok(stopped.1.elapsed().as_secs_f64())
    }
}

/// Ends one program before the next is started: they share a file.
fn spawn_after(
    old: &mut Program,
    new: impl FnOnce() -> Result<Program>,
) -> Result<(Program, Instant)> {
    old.end();
    let before = Instant::now();
    Ok((new()?, before))
}

fn spawn(programs: &Programs, namespace: &Namespace, data: &Path, kind: Kind) -> Result<Program> {
    let log = data.join("log");
    let text = |path: PathBuf| path.to_string_lossy().into_owned();
    let url = format!("http://{}", SocketAddr::from(ADDRESS));
    match kind {
        Kind::Ours => {
            let file = text(data.join("store.db"));
            let listen = SocketAddr::from(ADDRESS).to_string();
            let args = ["store", "--listen", &listen, "--data", &file];
            Program::start(namespace, &programs.path("russet")?, &args, log)
        }
        Kind::Etcd => {
            let folder = text(data.join("etcd"));
            let args = [
                "--data-dir",
                &folder,
                "--listen-client-urls",
                &url,
                "--advertise-client-urls",
                &url,
                "--log-level",
                "error",
                "--quota-backend-bytes",
                "2147483648",
            ];
            Program::start(namespace, Path::new("/usr/bin/etcd"), &args, log)
        }
    }
}

fn puts(setup: &Setup, sides: &mut [Side; 2], callers: usize) -> Result<Row> {
    let count = setup.effort.choose(200, 1_500) * callers.min(16);
    let what = format!("puts, callers: {callers}");
    alternate(setup, sides, what, |side| side.put(callers, count))
}

fn ranges(setup: &Setup, sides: &mut [Side; 2]) -> Result<Row> {
    for side in &mut *sides {
        side.connect(1)?;
        let value = "v".repeat(VALUE);
        let client = side.clients.first_mut().context("a connection")?;
        for n in 0..10_000 {
            client.put(&format!("/range/{n:05}"), &value, 0)?;
        }
    }
    let count = setup.effort.choose(5, 30);
    alternate(setup, sides, "ranges of 10,000 keys".to_owned(), |side| {
        side.connect(1)?;
        let client = side.clients.first_mut().context("a connection")?;
        let before = Instant::now();
        for _ in 0..count {
            ensure!(client.range("/range/")? > 3_000_000, "a range is not whole");
        }
        Ok(rate(count, before.elapsed()))
    })
}

/// The time from a put until the last of 100 watchers, each on a connection of its own, has heard of it.
fn watchers(setup: &Setup, sides: &mut [Side; 2]) -> Result<Row> {
    let mut watching = Vec::new();
    for side in &mut *sides {
        side.connect(1)?;
        let mut all = Vec::new();
        for _ in 0..100 {
            let mut client = Etcd::connect(&side.namespace, ADDRESS.into())?;
            client.watch("/watched/")?;
            all.push(client);
        }
        watching.push(all);
    }
    let count = setup.effort.choose(20, 200);
    let (mut ours, mut etcd) = (Vec::new(), Vec::new());
    for round in 0..count {
        for at in rotation(round, 2) {
            let (side, all) = (&mut sides[at], &mut watching[at]);
            let client = side.clients.first_mut().context("a connection")?;
            let before = Instant::now();
            client.put("/watched/key", "value", 0)?;
            all.iter_mut().try_for_each(Etcd::next_event)?;
            let took = before.elapsed().as_secs_f64();
            if side.kind == Kind::Ours { ours.push(took) } else { etcd.push(took) }
        }
    }
    Row::of("a put, until 100 watchers know", Unit::Seconds, &ours)?.versus("etcd", &ours, &etcd)
}

/// 100,000 keys: what they take in memory, and how long a start with them takes.
fn full(setup: &Setup, folder: &TempDir) -> Result<Vec<Row>> {
    let (mut resident, mut again, mut start) = (Vec::new(), Vec::new(), Vec::new());
    for kind in [Kind::Ours, Kind::Etcd] {
        let mut side = Side::start(setup, folder, kind)?;
        side.put(16, 100_000)?;
        let of = |side: &Side| {
            Ok::<_, anyhow::Error>(octets(process::memory(side.program.pid())?.resident))
        };
        resident.push(of(&side)?);
        let mut times = Vec::new();
        for _ in 0..setup.effort.choose(1, 5) {
            times.push(side.restart()?);
        }
        start.push(times);
        thread::sleep(Duration::from_secs(1));
        again.push(of(&side)?);
    }
    let row = |what: &str, of: &[f64]| {
        Row::of(what, Unit::Octets, &of[..1])?.versus("etcd", &of[..1], &of[1..])
    };
    Ok(vec![
        row("resident memory, 100,000 keys of 300 octets", &resident)?
            .must(Bound::RatioAtMost(0.5)),
        row("the same after a restart", &again)?.must(Bound::RatioAtMost(0.5)),
        Row::of("start with them, to the first answer", Unit::Seconds, &start[0])?
            .versus("etcd", &start[0], &start[1])?
            .must(Bound::AllAtMost(0.5)),
    ])
}

/// Measures both in every round.
fn alternate(
    setup: &Setup,
    sides: &mut [Side; 2],
    what: String,
    mut one: impl FnMut(&mut Side) -> Result<f64>,
) -> Result<Row> {
    let (mut ours, mut etcd) = (Vec::new(), Vec::new());
    for round in 0..setup.effort.choose(2, 7) {
        for at in rotation(round, 2) {
            let value = one(&mut sides[at])?;
            if sides[at].kind == Kind::Ours { ours.push(value) } else { etcd.push(value) }
        }
    }
    Row::of(what, Unit::PerSecond, &ours)?.versus("etcd", &ours, &etcd)
}

fn key(number: usize) -> String {
    format!("/coreos.com/network/subnets/{number:012}")
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn rate(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
fn octets(value: u64) -> f64 {
    value as f64
}

const ADDRESS: ([u8; 4], u16) = ([127, 0, 0, 1], 2379);
/// Octets of a value: about a lease's.
const VALUE: usize = 300;
