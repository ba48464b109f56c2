//! Debian's cloud kernel: the package is downloaded and unpacked below target/, never installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::run::run;

/// A kernel with its modules.
pub(super) struct Kernel {
    /// `6.1.0-56-cloud-amd64`
    pub(super) release: String,
    pub(super) image: PathBuf,
    /// `lib/modules/RELEASE`
    pub(super) modules: PathBuf,
}

impl Kernel {
    /// Returns the one that is there, or downloads it.
    pub(super) fn get(folder: &Path) -> Result<Self> {
        let unpacked = folder.join("kernel");
        if let Ok(kernel) = Self::find(&unpacked) {
            return Ok(kernel);
        }
        fs::create_dir_all(folder)?;
        let package = newest()?;
        let mut download = Command::new("apt-get");
        download.args(["download", "-qq", &package]).current_dir(folder);
        run(download)?;
        let file = file_of(folder, &package)?;
        // Moved when complete, so that one that was interrupted is begun again.
        let part = folder.join("kernel.part");
        let mut unpack = Command::new("dpkg-deb");
        unpack.arg("--extract").arg(&file).arg(&part);
        run(unpack)?;
        fs::rename(&part, &unpacked)?;
        fs::remove_file(file)?;
        Self::find(&unpacked)
    }

    fn find(unpacked: &Path) -> Result<Self> {
        let modules = only(&unpacked.join("lib/modules"))?;
        let release = modules.file_name().context("a release")?.to_string_lossy().into_owned();
        let image = unpacked.join(format!("boot/vmlinuz-{release}"));
        fs::metadata(&image).with_context(|| image.display().to_string())?;
        Ok(Self { release, image, modules })
    }
}

/// The package that the newest cloud kernel is in.
fn newest() -> Result<String> {
    let out = Command::new("apt-cache").args(["depends", META]).output().context("apt-cache")?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let names = text.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    let image = names.map(str::trim).find(|name| name.starts_with("linux-image-"));
    let hint = || format!("no package {META} is known: apt-get update");
    Ok(image.with_context(hint)?.to_owned())
}

fn file_of(folder: &Path, package: &str) -> Result<PathBuf> {
    let names = fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    let begins = format!("{package}_");
    let fits = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        name.is_some_and(|name| name.starts_with(&begins))
            && path.extension() == Some("deb".as_ref())
    };
    names.into_iter().find(fits).with_context(|| format!("{package} was not downloaded"))
}

fn only(folder: &Path) -> Result<PathBuf> {
    let mut entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    Ok(entries.next().with_context(|| format!("{} is empty", folder.display()))??.path())
}

const META: &str = "linux-image-cloud-amd64";
