//! The machine's only file system: an archive that the kernel unpacks into memory.
//!
//! Programs come as they are built, with the libraries that they are linked with, so that nothing is built
//! twice; symbols stay behind, they are most of the bytes.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use super::kernel::Kernel;
use crate::run::{root, run};

/// Makes the archive and returns its path.
pub(super) fn make(folder: &Path, kernel: &Kernel, topologies: &[PathBuf]) -> Result<PathBuf> {
    let tree = Tree::fresh(folder.join("root"))?;
    tree.base()?;
    for name in ["russet", "russet-cni"] {
        tree.program(&root().join("target/debug").join(name), Symbols::Stripped)?;
    }
    for name in PROGRAMS {
        tree.program(&crate::setup::find(name)?, Symbols::Kept)?;
    }
    // busybox's own shell takes its own programs for every name, whatever lies on the path.
    tree.named("sh", &crate::setup::find("dash")?)?;
    tree.modules(kernel)?;
    tree.topologies(topologies)?;
    tree.archive(&folder.join("initramfs"))
}

/// What the image is made of.
struct Tree(PathBuf);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Symbols {
    Stripped,
    Kept,
}

impl Tree {
    fn fresh(path: PathBuf) -> Result<Self> {
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        for folder in
            ["bin", "dev", "etc", "lib", "proc", "run", "sys", "tmp", "topologies", "var/lib"]
        {
            fs::create_dir_all(path.join(folder))?;
        }
        for alias in ["sbin", "usr/bin", "usr/sbin"] {
            let alias = path.join(alias);
            fs::create_dir_all(alias.parent().unwrap_or(&path))?;
            symlink("/bin", alias)?;
        }
        Ok(Self(path))
    }

    /// busybox under all of its names, process 1, and who root is.
    fn base(&self) -> Result<()> {
        let busybox = crate::setup::find("busybox")?;
        fs::copy(&busybox, self.0.join("bin/busybox"))?;
        let out = Command::new(&busybox).arg("--list").output().context("busybox --list")?;
        for applet in String::from_utf8_lossy(&out.stdout).lines().filter(|name| *name != "busybox")
        {
            // What has a program of its own takes the name from it later.
            symlink("busybox", self.0.join("bin").join(applet))?;
        }
        let init = self.0.join("init");
        fs::write(&init, include_str!("guest.sh"))?;
        fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
        Ok(fs::write(self.0.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n")?)
    }

    fn program(&self, from: &Path, symbols: Symbols) -> Result<()> {
        let name = from.file_name().context("a program's name")?.to_string_lossy();
        let to = self.named(&name, from)?;
        if symbols == Symbols::Stripped {
            let mut strip = Command::new("strip");
            strip.arg(&to);
            run(strip)?;
        }
        Ok(())
    }

    /// Copies a program with its libraries; through links, so it is the real one under this name.
    fn named(&self, name: &str, from: &Path) -> Result<PathBuf> {
        let to = self.0.join("bin").join(name);
        if to.is_symlink() {
            fs::remove_file(&to)?;
        }
        fs::copy(from, &to).with_context(|| format!("copy {}", from.display()))?;
        libraries(from)?.iter().try_for_each(|library| self.library(library))?;
        Ok(to)
    }

    /// At its own path, where the program looks for it.
    fn library(&self, from: &Path) -> Result<()> {
        let to = self.0.join(from.strip_prefix("/").unwrap_or(from));
        fs::create_dir_all(to.parent().context("a library's folder")?)?;
        fs::copy(from, &to).with_context(|| format!("copy {}", from.display()))?;
        Ok(())
    }

    /// The modules that are wanted, those that they need, and the order to load them in.
    fn modules(&self, kernel: &Kernel) -> Result<()> {
        let mut all = Modules::default();
        all.scan(&kernel.modules)?;
        let mut order = Vec::new();
        for name in MODULES {
            all.load(name, &mut order)?;
        }
        let folder = self.0.join("lib/modules");
        fs::create_dir_all(&folder)?;
        let mut list = String::new();
        for path in &order {
            let name = path.file_name().context("a module's name")?;
            fs::copy(path, folder.join(name))?;
            list.push_str(&name.to_string_lossy());
            list.push('\n');
        }
        Ok(fs::write(folder.join("order"), list)?)
    }

    fn topologies(&self, files: &[PathBuf]) -> Result<()> {
        for file in files {
            let name = file.file_name().context("a topology's name")?;
            fs::copy(file, self.0.join("topologies").join(name))?;
        }
        Ok(())
    }

    fn archive(&self, to: &Path) -> Result<PathBuf> {
        let list = Command::new("find")
            .current_dir(&self.0)
            .args([".", "-print0"])
            .stdout(Stdio::piped())
            .spawn()?;
        let pack = Command::new("cpio")
            .current_dir(&self.0)
            .args(["--null", "--create", "--format=newc", "--owner=0:0", "--quiet"])
            .stdin(list.stdout.context("the list of files")?)
            .stdout(File::create(to)?)
            .status()?;
        ensure!(pack.success(), "cpio: {pack}");
        Ok(to.to_owned())
    }
}

/// The shared libraries of a program, the loader included.
fn libraries(program: &Path) -> Result<BTreeSet<PathBuf>> {
    let out = Command::new("ldd").arg(program).output().context("ldd")?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    // `libc.so.6 => /lib/…/libc.so.6 (0x…)`, or the loader's path alone. A static program has none.
    let paths =
        text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    Ok(paths.map(PathBuf::from).collect())
}

/// The files of a kernel's modules, by name.
#[derive(Default)]
struct Modules(std::collections::BTreeMap<String, PathBuf>);

impl Modules {
    fn scan(&mut self, folder: &Path) -> Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                self.scan(&path)?;
            } else if let Some(name) =
                path.file_name().map(|name| name.to_string_lossy().into_owned())
                && let Some(name) = name.strip_suffix(".ko")
            {
                self.0.insert(name.replace('-', "_"), path);
            }
        }
        Ok(())
    }

    /// Adds a module behind all that it needs.
    fn load(&self, name: &str, order: &mut Vec<PathBuf>) -> Result<()> {
        let path = self.0.get(&name.replace('-', "_"));
        let path = path.with_context(|| format!("the kernel has no module {name}"))?;
        if order.contains(path) {
            return Ok(());
        }
        for needed in needs(path)? {
            self.load(&needed, order)?;
        }
        order.push(path.clone());
        Ok(())
    }
}

/// What a module's own description says that it depends on.
fn needs(module: &Path) -> Result<Vec<String>> {
    let bytes = fs::read(module)?;
    let key = b"\0depends=";
    let Some(at) = bytes.windows(key.len()).position(|window| window == key) else {
        return Ok(Vec::new());
    };
    let rest = bytes.get(at + key.len()..).unwrap_or_default();
    let text = rest.split(|byte| *byte == 0).next().unwrap_or_default();
    let text = String::from_utf8_lossy(text);
    Ok(text.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

/// Beside busybox, which has poor ones or none of these.
const PROGRAMS: &[&str] = &["ip", "nft", "conntrack", "unshare", "wg"];
const MODULES: &[&str] = &[
    "veth",
    "bridge",
    "br_netfilter",
    "tun",
    "vxlan",
    "ipip",
    "wireguard",
    "dummy",
    "nf_tables",
    "nft_chain_nat",
    "nft_ct",
    "nft_masq",
    "nft_nat",
    "nft_compat",
    "nf_conntrack_netlink",
];
