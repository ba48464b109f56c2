//! A DEL that was kept survives every crash once it was acknowledged, on a disk that fails at every step.

use std::{io, path::Path};

use russet_agent::disk::{Disk, fake::FakeDisk};
use russet_api::cni::{
    Text,
    spool::{SUFFIX, decode},
    wire::Pod,
};
use russet_cni::spool::{Files, Steps, keep};

const FOLDER: &str = "/var/lib/russet/cni-spool";

#[test]
fn an_acknowledged_del_is_never_lost_and_a_torn_one_never_taken() {
    let mut states = 0;
    for step in 0..100 {
        let disk = FakeDisk::default();
        keep(&Fake(&disk), Path::new(FOLDER), &pod("first")).unwrap();
        disk.fail_at(disk.steps() + step);
        let kept = keep(&Fake(&disk), Path::new(FOLDER), &pod("second")).is_ok();
        let mut left = disk.states_after_power_failure();
        left.push(disk.after_kill());
        states += left.len();
        for disk in left {
            let found = waiting(&disk);
            assert!(found.contains(&pod("first")), "the first is lost at step {step}");
            assert!(!kept || found.contains(&pod("second")), "the second is lost at step {step}");
        }
        if kept {
            println!("spool: {states} crash states over {step} steps");
            assert!(step >= 4, "there are at least four boundaries");
            return;
        }
    }
    panic!("keeping never ended");
}

#[test]
fn a_real_folder_is_made_for_root_alone_and_a_second_del_replaces_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("a/spool");
    for name in ["c1", "c1", "c2"] {
        keep(&Files, &spool, &pod(name)).unwrap();
    }
    assert_eq!(std::fs::read_dir(&spool).unwrap().count(), 2);
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&spool).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o700);
}

/// What the agent would find: every file with the ending must be whole.
fn waiting(disk: &FakeDisk) -> Vec<Pod> {
    let names = disk.list(Path::new(FOLDER)).unwrap();
    let whole = names.iter().filter(|name| name.ends_with(SUFFIX));
    whole.map(|name| decode(&disk.read(&Path::new(FOLDER).join(name)).unwrap()).unwrap()).collect()
}

struct Fake<'a>(&'a FakeDisk);

impl Steps for Fake<'_> {
    fn make_folder(&self, folder: &Path) -> io::Result<()> {
        self.0.make_folder(folder)
    }

    fn write_synced(&self, path: &Path, octets: &[u8]) -> io::Result<()> {
        self.0.write(path, octets)?;
        self.0.sync(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.0.sync_folder(folder)
    }
}

fn pod(container: &str) -> Pod {
    let ifname = Text("eth0".parse().unwrap());
    Pod { network: "net".into(), container: container.into(), ifname }
}
