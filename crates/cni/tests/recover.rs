//! A start of the agent while the node changes under it.

#[expect(dead_code, reason = "shared with plugin.rs, which uses all of it")]
mod node;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use node::{Node, eventually, ip};
use russet_agent::disk::{Disk, Files, Lock};
use russet_kernel::netns::Namespace;

/// The runtime calls DEL and removes the pod's namespace. The kernel removes the link with it, at a moment of
/// its own: here after the agent has listed the links, and before it does the DEL.
#[test]
fn a_pod_whose_link_goes_while_its_kept_del_is_done_is_no_pod_any_more() {
    let mut node = Node::new();
    let pod = Namespace::create().unwrap();
    let stays = Namespace::create().unwrap();
    node.add("c1", &pod);
    node.add("c2", &stays);
    node.stop();
    std::fs::remove_file(node.socket()).unwrap();
    node.del("c1");

    let disk = LinkTaker { spool: node.spool(), pod: Mutex::new(Some(pod)) };
    let found = node.start_on(Arc::new(disk), "boot-1");
    let names = |pods: Vec<&russet_core::model::PodId>| {
        pods.into_iter().map(|pod| pod.container.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(found.keys().collect()), ["c2"]);
    assert_eq!(names(node.core.pods().keys().collect()), ["c2"]);
    eventually("the DEL is done", || {
        node.recorded().values().all(|owner| owner.starts_with("c2"))
            && std::fs::read_dir(node.spool()).unwrap().count() == 0
    });
}

/// The real disk, upon which a look into the spool is the moment when the pod's link goes.
#[derive(Debug)]
struct LinkTaker {
    spool: PathBuf,
    pod: Mutex<Option<Namespace>>,
}

impl Disk for LinkTaker {
    fn list(&self, folder: &Path) -> io::Result<Vec<String>> {
        if folder == self.spool
            && let Some(pod) = self.pod.lock().unwrap().take()
        {
            ip(&pod, "link del eth0");
        }
        Files.list(folder)
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        Files.read(path)
    }

    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        Files.make_folder(folder)
    }

    fn write(&self, path: &Path, octets: &[u8]) -> io::Result<()> {
        Files.write(path, octets)
    }

    fn sync(&self, path: &Path) -> io::Result<()> {
        Files.sync(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        Files.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        Files.remove(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        Files.sync_folder(folder)
    }

    fn lock(&self, folder: &Path) -> io::Result<Lock> {
        Files.lock(folder)
    }
}
