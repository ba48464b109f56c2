//! Network namespaces: held by a descriptor, entered by a thread that was made for it.
//!
//! A thread that has changed its namespace is never given back to other work: each entry is a thread of its
//! own that ends with what it had to do.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    path::{Path, PathBuf},
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::sys;

/// A network namespace. It lives at least as long as this.
#[derive(Debug)]
pub struct Namespace {
    file: File,
}

impl Namespace {
    /// Opens a namespace by its path: `/run/netns/a`, `/proc/1/ns/net`.
    ///
    /// # Errors
    ///
    /// When there is no such file.
    pub fn open(path: &Path) -> io::Result<Self> {
        File::open(path).map(|file| Self { file })
    }

    /// Opens the namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// When `/proc` is not there.
    pub fn current() -> io::Result<Self> {
        Self::open(Path::new(OWN))
    }

    /// Makes a namespace without a name, which goes with its last holder.
    ///
    /// # Errors
    ///
    /// When we may not, or the kernel has no memory.
    pub fn create() -> io::Result<Self> {
        in_thread(|| {
            sys::unshare_network()?;
            Self::current()
        })
    }

    /// Runs `work` inside, on a thread of its own, and waits for it. Sockets that it opens stay in the
    /// namespace wherever they are carried.
    ///
    /// # Errors
    ///
    /// When it cannot be entered. What `work` returns is within.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        in_thread(|| {
            move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(work())
        })
    }

    /// A path by which other processes can open it as long as this process holds it.
    pub fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd()).into()
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn in_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let worker = thread::Builder::new().name("netns".into()).spawn_scoped(scope, work)?;
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

const OWN: &str = "/proc/thread-self/ns/net";

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_fresh_namespace_has_no_link_but_lo_and_leaves_the_caller_where_it_was() {
        let before = fs::read_link(OWN).unwrap();
        let namespace = Namespace::create().unwrap();
        let links =
            namespace.run(|| fs::read_to_string("/proc/thread-self/net/dev").unwrap()).unwrap();
        let names: Vec<_> =
            links.lines().filter_map(|l| l.split_once(':')).map(|(n, _)| n.trim()).collect();
        assert_eq!(names, ["lo"]);
        assert_eq!(fs::read_link(OWN).unwrap(), before);
    }

    #[test]
    fn what_is_not_a_network_namespace_cannot_be_entered() {
        let namespace = Namespace::open(Path::new("/dev/null")).unwrap();
        assert!(namespace.run(|| ()).is_err());
        assert!(Namespace::open(Path::new("/nonexistent")).is_err());
    }
}
