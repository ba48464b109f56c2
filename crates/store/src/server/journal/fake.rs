//! A disk that remembers everything that was done to it, and makes every state that a power failure
//! could leave behind.
//!
//! What a sync was told is there. Of what was written since, any sectors may be there, in any order; a
//! length that was not synced may be the old one; a name may or may not have moved. The fake can also be
//! full, fail, and refuse to be written.

use std::{
    collections::BTreeMap,
    io,
    path::Path,
    sync::{Arc, Condvar, Mutex, PoisonError},
};

use super::disk::{Disk, DiskFile};

/// One folder with up to two names in it.
#[derive(Clone, Debug, Default)]
pub(crate) struct FakeDisk(Arc<(Mutex<World>, Condvar)>);

/// A file of the fake, by its number.
#[derive(Debug)]
pub(crate) struct FakeFile {
    disk: FakeDisk,
    inode: usize,
}

#[derive(Debug, Default)]
struct World {
    files: BTreeMap<usize, Vec<u8>>,
    names: BTreeMap<Name, usize>,
    /// Everything that was done, in order.
    steps: Vec<Step>,
    /// Bytes that all files may have together.
    capacity: Option<usize>,
    /// The step that fails, and every one after it.
    fails_at: Option<usize>,
    /// Whether a sync waits.
    held: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Name {
    File,
    Beside,
}

#[derive(Clone, Debug)]
enum Step {
    Create {
        inode: usize,
    },
    Write {
        inode: usize,
        offset: usize,
        bytes: Vec<u8>,
    },
    Extend {
        inode: usize,
        len: usize,
    },
    Sync {
        inode: usize,
    },
    /// The name beside becomes the name of the file.
    Move,
    Remove,
    /// The folder is on the disk.
    SyncFolder,
}

/// What a power failure leaves of what was not synced.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Left {
    Nothing,
    Everything,
    /// Sector by sector, name by name, as these bits say.
    Some(u64),
}

impl FakeDisk {
    /// A disk of so many bytes.
    pub(crate) fn of_size(bytes: usize) -> Self {
        let disk = Self::default();
        disk.world().capacity = Some(bytes);
        disk
    }

    /// A disk on which there is this file.
    pub(crate) fn holding(bytes: Vec<u8>) -> Self {
        let disk = Self::default();
        let mut world = disk.world();
        world.files.insert(0, bytes);
        world.names.insert(Name::File, 0);
        drop(world);
        disk
    }

    pub(crate) fn set_capacity(&self, bytes: usize) {
        self.world().capacity = Some(bytes);
    }

    /// Has the step after so many more, and every later one, fail.
    pub(crate) fn fail_after(&self, steps: usize) {
        let mut world = self.world();
        world.fails_at = Some(world.steps.len() + steps);
    }

    /// Has every sync wait until [`Self::let_go`]: a disk as slow as can be.
    pub(crate) fn hold(&self) {
        self.world().held = true;
    }

    pub(crate) fn let_go(&self) {
        self.world().held = false;
        self.0.1.notify_all();
    }

    /// Returns how often something was made safe.
    pub(crate) fn syncs(&self) -> usize {
        self.world().steps.iter().filter(|step| matches!(step, Step::Sync { .. })).count()
    }

    /// Returns how much was done.
    pub(crate) fn steps(&self) -> usize {
        self.world().steps.len()
    }

    /// Returns the bytes of the file, if there is one.
    pub(crate) fn bytes(&self) -> Option<Vec<u8>> {
        let world = self.world();
        world.files.get(world.names.get(&Name::File)?).cloned()
    }

    /// Returns the disk as a power failure after so many steps leaves it.
    pub(crate) fn after_crash(&self, steps: usize, left: Left) -> Self {
        let mut crashed = Crashed { rest: Rest::new(left), ..Crashed::default() };
        for step in self.world().steps.iter().take(steps) {
            crashed.take(step);
        }
        crashed.fail()
    }

    fn world(&self) -> std::sync::MutexGuard<'_, World> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, name: Name) -> io::Result<FakeFile> {
        let inode = self.world().names.get(&name).copied().ok_or(io::ErrorKind::NotFound)?;
        Ok(FakeFile { disk: self.clone(), inode })
    }
}

impl World {
    fn step(&mut self, step: Step) -> io::Result<()> {
        if self.fails_at.is_some_and(|at| self.steps.len() >= at) {
            return Err(io::Error::other("the disk is broken"));
        }
        self.steps.push(step);
        Ok(())
    }

    fn grow(&mut self, inode: usize, len: usize) -> io::Result<()> {
        let others: usize =
            self.files.iter().filter(|(at, _)| **at != inode).map(|(_, file)| file.len()).sum();
        let file = self.files.get_mut(&inode).ok_or(io::ErrorKind::NotFound)?;
        if len > file.len() {
            if self.capacity.is_some_and(|capacity| others + len > capacity) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            file.resize(len, 0);
        }
        Ok(())
    }
}

impl Disk for FakeDisk {
    type File = FakeFile;

    const CHUNK: u64 = 4_096;

    fn path(&self) -> &Path {
        Path::new("fake.db")
    }

    fn open(&self) -> io::Result<FakeFile> {
        self.file(Name::File)
    }

    fn open_to_read(&self) -> io::Result<FakeFile> {
        self.file(Name::File)
    }

    fn create_beside(&self) -> io::Result<FakeFile> {
        let mut world = self.world();
        let inode = world.files.keys().next_back().map_or(0, |last| last + 1);
        world.step(Step::Create { inode })?;
        if let Some(old) = world.names.insert(Name::Beside, inode) {
            world.files.remove(&old);
        }
        world.files.insert(inode, Vec::new());
        Ok(FakeFile { disk: self.clone(), inode })
    }

    fn replace(&self) -> io::Result<()> {
        let mut world = self.world();
        world.step(Step::Move)?;
        let inode = world.names.remove(&Name::Beside).ok_or(io::ErrorKind::NotFound)?;
        if let Some(old) = world.names.insert(Name::File, inode) {
            world.files.remove(&old);
        }
        world.step(Step::SyncFolder)
    }

    fn appear(&self) -> io::Result<()> {
        if self.world().names.contains_key(&Name::File) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.replace()
    }

    fn discard(&self) -> io::Result<()> {
        let mut world = self.world();
        if let Some(inode) = world.names.remove(&Name::Beside) {
            world.step(Step::Remove)?;
            world.files.remove(&inode);
        }
        Ok(())
    }
}

impl DiskFile for FakeFile {
    fn len(&self) -> io::Result<u64> {
        let world = self.disk.world();
        let file = world.files.get(&self.inode).ok_or(io::ErrorKind::NotFound)?;
        u64::try_from(file.len()).map_err(io::Error::other)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let world = self.disk.world();
        let file = world.files.get(&self.inode).ok_or(io::ErrorKind::NotFound)?;
        let rest = file.get(usize::try_from(offset).unwrap()..).unwrap_or_default();
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let (inode, offset) = (self.inode, usize::try_from(offset).unwrap());
        let mut world = self.disk.world();
        world.grow(inode, offset + bytes.len())?;
        world.step(Step::Write { inode, offset, bytes: bytes.to_vec() })?;
        let file = world.files.get_mut(&inode).ok_or(io::ErrorKind::NotFound)?;
        file[offset..offset + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let world = self.disk.world();
        let waited = self.disk.0.1.wait_while(world, |world| world.held);
        waited.unwrap_or_else(PoisonError::into_inner).step(Step::Sync { inode: self.inode })
    }

    fn allocate(&mut self, _: u64, to: u64) -> io::Result<()> {
        let len = usize::try_from(to).unwrap();
        let mut world = self.disk.world();
        world.grow(self.inode, len)?;
        world.step(Step::Extend { inode: self.inode, len })
    }
}

/// What is on the disk for sure, and what may be.
#[derive(Default)]
struct Crashed {
    files: BTreeMap<usize, Inode>,
    names: BTreeMap<Name, usize>,
    /// The names as they are meant to be.
    moved: BTreeMap<Name, usize>,
    /// The names as they were after each step since the folder was on the disk.
    moves: Vec<BTreeMap<Name, usize>>,
    rest: Rest,
}

#[derive(Clone, Default)]
struct Inode {
    safe: Vec<u8>,
    /// Writes of a sector or less, and lengths.
    unsafe_writes: Vec<(usize, Vec<u8>)>,
    lengths: Vec<usize>,
}

impl Crashed {
    fn take(&mut self, step: &Step) {
        match step {
            Step::Create { inode } => {
                self.files.insert(*inode, Inode::default());
                self.moved.insert(Name::Beside, *inode);
                self.moves.push(self.moved.clone());
            }
            Step::Write { inode, offset, bytes } => {
                if let Some(file) = self.files.get_mut(inode) {
                    file.unsafe_writes.extend(sectors(*offset, bytes));
                }
            }
            Step::Extend { inode, len } => {
                if let Some(file) = self.files.get_mut(inode) {
                    file.lengths.push(*len);
                }
            }
            Step::Sync { inode } => {
                if let Some(file) = self.files.get_mut(inode) {
                    file.settle(&mut Rest::All);
                }
            }
            Step::Move => {
                if let Some(inode) = self.moved.remove(&Name::Beside) {
                    self.moved.insert(Name::File, inode);
                }
                self.moves.push(self.moved.clone());
            }
            Step::Remove => {
                self.moved.remove(&Name::Beside);
                self.moves.push(self.moved.clone());
            }
            Step::SyncFolder => {
                self.names.clone_from(&self.moved);
                self.moves.clear();
            }
        }
    }

    fn fail(mut self) -> FakeDisk {
        let mut names = self.names;
        // Names move in order: up to some point.
        for moved in self.moves {
            if !self.rest.stays() {
                break;
            }
            names = moved;
        }
        let disk = FakeDisk::default();
        let mut world = disk.world();
        for (name, inode) in names {
            let mut file = self.files.get(&inode).cloned().unwrap_or_default();
            file.settle(&mut self.rest);
            world.files.insert(inode, file.safe.clone());
            world.names.insert(name, inode);
            // What is there after the failure stays there.
            world.steps.push(Step::Create { inode });
            world.steps.push(Step::Write { inode, offset: 0, bytes: file.safe });
            world.steps.push(Step::Sync { inode });
            if name == Name::File {
                world.steps.push(Step::Move);
            }
            world.steps.push(Step::SyncFolder);
        }
        drop(world);
        disk
    }
}

impl Inode {
    fn settle(&mut self, rest: &mut Rest) {
        for len in std::mem::take(&mut self.lengths) {
            if rest.stays() && len > self.safe.len() {
                self.safe.resize(len, 0);
            }
        }
        for (offset, bytes) in std::mem::take(&mut self.unsafe_writes) {
            if rest.stays() {
                let end = offset + bytes.len();
                if end > self.safe.len() {
                    self.safe.resize(end, 0);
                }
                self.safe[offset..end].copy_from_slice(&bytes);
            }
        }
    }
}

/// Which of the things that are not safe are there.
#[derive(Default)]
enum Rest {
    #[default]
    None,
    All,
    Random(u64),
}

impl Rest {
    fn new(left: Left) -> Self {
        match left {
            Left::Nothing => Self::None,
            Left::Everything => Self::All,
            Left::Some(seed) => Self::Random(seed | 1),
        }
    }

    fn stays(&mut self) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Random(state) => {
                // xorshift64: any spread of bits will do.
                *state ^= *state << 13;
                *state ^= *state >> 7;
                *state ^= *state << 17;
                *state & 1 == 1
            }
        }
    }
}

/// Cuts a write at the borders of sectors: each is written whole or not at all.
fn sectors(offset: usize, bytes: &[u8]) -> Vec<(usize, Vec<u8>)> {
    let mut parts = Vec::new();
    let (mut at, mut rest) = (offset, bytes);
    while !rest.is_empty() {
        let count = (SECTOR - at % SECTOR).min(rest.len());
        let (part, later) = rest.split_at(count);
        parts.push((at, part.to_vec()));
        (at, rest) = (at + count, later);
    }
    parts
}

const SECTOR: usize = 512;
