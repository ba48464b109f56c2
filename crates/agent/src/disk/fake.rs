//! A disk in memory that can fail at any step, and then shows everything that could be left.
//!
//! There are two ways to fail. A killed process leaves what it did, and half of the write that it was at. A
//! power failure leaves unsynced names or drops them, and tears unsynced files;
//! [`FakeDisk::states_after_power_failure`] has one disk for each outcome.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Disk, Lock};

/// A disk in memory. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct FakeDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Clone, Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    /// What a process sees.
    names: BTreeMap<PathBuf, usize>,
    /// What is on the platter.
    durable: BTreeMap<PathBuf, usize>,
    /// What was done to names since, in order.
    unsynced: Vec<NameOp>,
    folders: BTreeSet<PathBuf>,
    /// Changes done so far.
    steps: usize,
    fails_at: Option<usize>,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    content: Vec<u8>,
    durable: Vec<u8>,
}

#[derive(Clone, Debug)]
enum NameOp {
    Link(PathBuf, usize),
    Unlink(PathBuf),
    Rename(PathBuf, PathBuf, usize),
}

impl FakeDisk {
    /// How many changes were done so far.
    pub fn steps(&self) -> usize {
        self.state().steps
    }

    /// Lets the change with that number, counted from 0, and all after it fail.
    pub fn fail_at(&self, step: usize) {
        self.state().fails_at = Some(step);
    }

    /// What a killed process leaves: the same disk, in order again.
    #[must_use]
    pub fn after_kill(&self) -> Self {
        let mut state = self.state().clone();
        state.fails_at = None;
        Self::of(state)
    }

    /// What a power failure can leave, each outcome once.
    pub fn states_after_power_failure(&self) -> Vec<Self> {
        let state = self.state().clone();
        let mut left = Vec::new();
        for names in state.name_outcomes() {
            for contents in state.content_outcomes(&names) {
                left.push(Self::of(State::rebooted(&names, &contents, &state.folders)));
            }
        }
        left
    }

    fn of(state: State) -> Self {
        Self { state: Arc::new(Mutex::new(state)) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Disk for FakeDisk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let state = self.state();
        let inode = state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(state.inodes[*inode].content.clone())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        let state = self.state();
        let below = state.names.keys().filter(|path| path.parent() == Some(folder));
        let mut names: Vec<String> =
            below.filter_map(|path| path.file_name()?.to_str().map(str::to_owned)).collect();
        let folders = state.folders.iter().filter(|path| path.parent() == Some(folder));
        names.extend(folders.filter_map(|path| path.file_name()?.to_str().map(str::to_owned)));
        names.sort_unstable();
        Ok(names)
    }

    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        self.state().folders.insert(folder.to_owned());
        Ok(())
    }

    fn write(&self, path: &Path, octets: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        let going_on = state.step();
        let octets = if going_on.is_ok() { octets } else { &octets[..octets.len() / 2] };
        let first_failure = state.fails_at.is_some_and(|at| state.steps == at + 1);
        if going_on.is_ok() || first_failure {
            state.write(path, octets);
        }
        going_on
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        let inode = *state.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        let inode = &mut state.inodes[inode];
        inode.durable.clone_from(&inode.content);
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        let inode = state.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.names.insert(to.to_owned(), inode);
        state.unsynced.push(NameOp::Rename(from.to_owned(), to.to_owned(), inode));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        if state.names.remove(path).is_some() {
            state.unsynced.push(NameOp::Unlink(path.to_owned()));
        }
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.step()?;
        let unsynced = std::mem::take(&mut state.unsynced);
        let (here, elsewhere) =
            unsynced.into_iter().partition(|op| op.path().parent() == Some(folder));
        state.unsynced = elsewhere;
        let here: Vec<NameOp> = here;
        for op in here {
            op.apply(&mut state.durable);
        }
        Ok(())
    }

    fn lock(&self, _: &Path) -> io::Result<Lock> {
        Ok(Lock::unshared())
    }
}

impl State {
    fn step(&mut self) -> io::Result<()> {
        let failed = self.fails_at.is_some_and(|at| self.steps >= at);
        self.steps += 1;
        if failed { Err(io::Error::other("the disk failed")) } else { Ok(()) }
    }

    /// `File::create` and `write_all`: a file that is there is emptied and keeps its inode.
    fn write(&mut self, path: &Path, octets: &[u8]) {
        let inode = if let Some(inode) = self.names.get(path) {
            *inode
        } else {
            self.inodes.push(Inode::default());
            let inode = self.inodes.len() - 1;
            self.names.insert(path.to_owned(), inode);
            self.unsynced.push(NameOp::Link(path.to_owned(), inode));
            inode
        };
        self.inodes[inode].content = octets.to_vec();
    }

    /// The names on the platter: for every subset of what was not synced, or, where those are too many, for
    /// every beginning of it, every single change alone, and all but every single one.
    fn name_outcomes(&self) -> Vec<BTreeMap<PathBuf, usize>> {
        let count = self.unsynced.len();
        let subsets: Vec<Vec<bool>> = if count <= EXHAUSTIVE {
            (0_u32..1 << count).map(|set| (0..count).map(|n| set & 1 << n != 0).collect()).collect()
        } else {
            let one = |shape: fn(usize, usize) -> bool| {
                (0..=count).map(move |at| (0..count).map(|n| shape(n, at)).collect())
            };
            one(|n, at| n < at).chain(one(|n, at| n == at)).chain(one(|n, at| n != at)).collect()
        };
        let outcome = |subset: &Vec<bool>| {
            let mut names = self.durable.clone();
            let done = self.unsynced.iter().zip(subset).filter(|(_, done)| **done);
            done.for_each(|(op, _)| op.apply(&mut names));
            names
        };
        let mut outcomes: Vec<_> = subsets.iter().map(outcome).collect();
        outcomes.sort_unstable();
        outcomes.dedup();
        outcomes
    }

    /// The contents of the files that have a name: all as written, all as synced, and each of them torn in
    /// turn, to any of [`Tear`], with the others as written.
    fn content_outcomes(&self, names: &BTreeMap<PathBuf, usize>) -> Vec<BTreeMap<usize, Vec<u8>>> {
        let inodes: BTreeSet<usize> = names.values().copied().collect();
        let unsynced = |inode: &&usize| {
            let Inode { content, durable } = &self.inodes[**inode];
            content != durable
        };
        let written: BTreeMap<_, _> =
            inodes.iter().map(|inode| (*inode, self.inodes[*inode].content.clone())).collect();
        let synced = inodes.iter().map(|inode| (*inode, self.inodes[*inode].durable.clone()));
        let mut outcomes = vec![written.clone(), synced.collect()];
        for inode in inodes.iter().filter(unsynced) {
            for tear in Tear::ALL {
                let mut torn = written.clone();
                torn.insert(*inode, tear.of(&self.inodes[*inode]));
                outcomes.push(torn);
            }
        }
        outcomes.sort_unstable();
        outcomes.dedup();
        outcomes
    }

    fn rebooted(
        names: &BTreeMap<PathBuf, usize>,
        contents: &BTreeMap<usize, Vec<u8>>,
        folders: &BTreeSet<PathBuf>,
    ) -> Self {
        let mut state = Self { folders: folders.clone(), ..Self::default() };
        for (path, inode) in names {
            let content = contents.get(inode).cloned().unwrap_or_default();
            state.inodes.push(Inode { durable: content.clone(), content });
            state.names.insert(path.clone(), state.inodes.len() - 1);
        }
        state.durable = state.names.clone();
        state
    }
}

impl NameOp {
    fn path(&self) -> &Path {
        match self {
            Self::Link(path, _) | Self::Unlink(path) | Self::Rename(_, path, _) => path,
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            Self::Link(path, inode) => {
                names.insert(path.clone(), *inode);
            }
            Self::Unlink(path) => {
                names.remove(path);
            }
            Self::Rename(from, to, inode) => {
                names.remove(from);
                names.insert(to.clone(), *inode);
            }
        }
    }
}

/// What a power failure can make of an unsynced file.
#[derive(Clone, Copy, Debug)]
enum Tear {
    AsSynced,
    Half,
    /// Its length is there and its blocks are not.
    Zeros,
}

impl Tear {
    const ALL: [Self; 3] = [Self::AsSynced, Self::Half, Self::Zeros];

    fn of(self, Inode { content, durable }: &Inode) -> Vec<u8> {
        match self {
            Self::AsSynced => durable.clone(),
            Self::Half => content[..content.len() / 2].to_vec(),
            Self::Zeros => vec![0; content.len()],
        }
    }
}

/// Up to so many unsynced names all their subsets are looked at: 64 of them.
const EXHAUSTIVE: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_synced_may_be_there_or_not_and_torn() {
        let disk = FakeDisk::default();
        disk.write(Path::new("/a"), b"1234").unwrap();
        let left: BTreeSet<_> = disk
            .states_after_power_failure()
            .iter()
            .map(|d| d.read(Path::new("/a")).ok())
            .collect();
        let wanted = [
            None,
            Some(b"".to_vec()),
            Some(vec![0; 4]),
            Some(b"12".to_vec()),
            Some(b"1234".to_vec()),
        ];
        assert_eq!(left, BTreeSet::from(wanted));
    }

    #[test]
    fn what_was_synced_stays() {
        let disk = FakeDisk::default();
        super::super::replace(&disk, Path::new("/a"), b"1").unwrap();
        let left = disk.states_after_power_failure();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].read(Path::new("/a")).unwrap(), b"1");
    }

    #[test]
    fn a_killed_process_leaves_half_of_the_write_that_it_was_at() {
        let disk = FakeDisk::default();
        disk.write(Path::new("/a"), b"1234").unwrap();
        disk.fail_at(1);
        assert!(disk.write(Path::new("/b"), b"1234").is_err());
        assert!(disk.remove(Path::new("/a")).is_err());
        let left = disk.after_kill();
        assert_eq!(left.read(Path::new("/a")).unwrap(), b"1234");
        assert_eq!(left.read(Path::new("/b")).unwrap(), b"12");
    }
}
