//! The folders that are a machine's own.
//!
//! A node sees the host's programs and libraries, but /run, and some folders below /etc and /var/lib, are its
//! own and begin empty. Where such a folder does not exist on the host it must not be made there; so /etc and
//! /var/lib become small file systems in memory that show the host's entries through symbolic links.

use std::{
    fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use rustix::mount::{MountFlags, mount, mount_bind_recursive};

/// Gives this thread's mount namespace its own folders, those of `fresh` among them.
pub(crate) fn machine(fresh: &[PathBuf]) -> Result<()> {
    in_memory(Path::new("/run"))?;
    for folder in ["/run/netns", "/run/lock", "/run/russet"] {
        fs::create_dir_all(folder)?;
    }
    for folder in ["/etc", "/var/lib"] {
        let within = fresh.iter().map(PathBuf::as_path).chain(OWN.map(Path::new));
        let within: Vec<_> = within.filter_map(|path| path.strip_prefix(folder).ok()).collect();
        shadow(Path::new(folder), &within)?;
    }
    // Shows this machine's links and not the host's. Nothing depends on it.
    let _ = mount("sysfs", "/sys", "sysfs", MountFlags::NOSUID | MountFlags::NODEV, None);
    Ok(())
}

fn shadow(folder: &Path, fresh: &[&Path]) -> Result<()> {
    let behind = Path::new(BEHIND).join(folder.strip_prefix("/").unwrap_or(folder));
    fs::create_dir_all(&behind)?;
    // Recursive: in a user namespace what is mounted below cannot be uncovered.
    mount_bind_recursive(folder, &behind)
        .with_context(|| format!("bind {} to {}", folder.display(), behind.display()))?;
    in_memory(folder)?;
    show(folder, &behind, fresh).with_context(|| format!("fill {}", folder.display()))
}

fn in_memory(folder: &Path) -> Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount("tmpfs", folder, "tmpfs", flags, Some(c"mode=0755"))
        .with_context(|| format!("mount tmpfs on {}", folder.display()))
}

/// Fills `at` with what is in `behind`, but for the paths in `fresh`, which begin empty.
fn show(at: &Path, behind: &Path, fresh: &[&Path]) -> io::Result<()> {
    let entries = match fs::read_dir(behind) {
        Ok(entries) => entries.filter_map(Result::ok).collect(),
        Err(_) => Vec::new(),
    };
    for entry in entries {
        let name = PathBuf::from(entry.file_name());
        let below: Vec<_> = fresh.iter().filter_map(|path| path.strip_prefix(&name).ok()).collect();
        let (here, there) = (at.join(&name), entry.path());
        if below.iter().any(|path| path.as_os_str().is_empty()) {
            fs::create_dir(&here)?;
        } else if !below.is_empty() {
            fs::create_dir(&here)?;
            show(&here, &there, &below)?;
        } else if entry.file_type()?.is_symlink() {
            // Its target may be relative, and is meant from here.
            symlink(fs::read_link(&there)?, &here)?;
        } else {
            symlink(&there, &here)?;
        }
    }
    fresh.iter().try_for_each(|path| fs::create_dir_all(at.join(path)))
}

/// Where the host's own folders stay in sight.
const BEHIND: &str = "/run/lab-host";
const OWN: [&str; 5] =
    ["/etc/cni/net.d", "/etc/russet", "/var/lib/cni", "/var/lib/russet", "/var/lib/etcd"];
