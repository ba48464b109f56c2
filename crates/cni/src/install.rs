//! Puts the plugin and its network where runtimes look for them: `russet cni install`.
//!
//! A runtime takes a network as soon as its file is there, so the binary comes first and the file last, each
//! complete before it has its name. A binary that runs is replaced, not written over; a link that stands at a name is
//! replaced and never followed; and a name that leads to somebody else's program leads to it until it leads to ours.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

use russet_api::cni::{
    calico::{CALICO, CALICO_IPAM},
    conf::{DEFAULT_SOCKET, DEFAULT_SPOOL, PLUGIN},
};
use serde_json::{Value, json};

/// What to install, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Install {
    /// The plugin's binary.
    pub binary: PathBuf,
    /// Where runtimes look for plugins: `/opt/cni/bin`, Debian's `/usr/lib/cni`.
    pub bin_folder: PathBuf,
    /// Where runtimes look for networks: `/etc/cni/net.d`.
    pub conf_folder: PathBuf,
    /// The network's name.
    pub network: String,
    pub socket: PathBuf,
    pub spool: PathBuf,
    pub lists: Lists,
}

/// Whose lists the runtime has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lists {
    /// Ours, which is installed.
    #[default]
    Russet,
    /// Calico's, which stay as they are: the plugin gets Calico's names besides its own.
    Calico,
}

/// What stands where after an installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installed {
    pub binary: PathBuf,
    /// `None`: the lists that are there stay.
    pub conflist: Option<PathBuf>,
    /// Other names of the plugin.
    pub names: Vec<PathBuf>,
    /// Programs of somebody else that had such a name, by the names that they have now.
    pub kept: Vec<PathBuf>,
    /// Whether ports are mapped by Debian's or the CNI project's `portmap`, which was found beside us.
    pub portmap: bool,
}

/// What could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    #[error("{op} {}", path.display())]
    Io { op: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "network name {0:?}: only letters, digits, '_', '.' and '-' are allowed, a letter or digit first"
    )]
    Name(String),
}

impl Default for Install {
    fn default() -> Self {
        Self {
            binary: PLUGIN.into(),
            bin_folder: "/opt/cni/bin".into(),
            conf_folder: "/etc/cni/net.d".into(),
            network: "russet".into(),
            socket: DEFAULT_SOCKET.into(),
            spool: DEFAULT_SPOOL.into(),
            lists: Lists::Russet,
        }
    }
}

impl Install {
    /// Installs, the network's file last.
    ///
    /// # Errors
    ///
    /// When a file cannot be read or written. What was there before is still whole then.
    pub fn run(&self) -> Result<Installed, InstallError> {
        russet_api::cni::wire::check_network(&self.network)
            .map_err(|_| InstallError::Name(self.network.clone()))?;
        let binary = self.bin_folder.join(PLUGIN);
        let octets = fs::read(&self.binary).map_err(told("read", &self.binary))?;
        put(&binary, &octets, 0o755)?;
        let portmap = self.bin_folder.join("portmap").is_file();
        let done = Installed { binary, conflist: None, names: vec![], kept: vec![], portmap };
        match self.lists {
            Lists::Russet => {
                let conflist = self.conf_folder.join(CONFLIST);
                let text = format!("{:#}\n", self.conflist(portmap.into()));
                put(&conflist, text.as_bytes(), 0o644)?;
                Ok(Installed { conflist: Some(conflist), ..done })
            }
            Lists::Calico => self.names(done),
        }
    }

    /// Addresses first: a runtime that finds `calico` may call at once.
    fn names(&self, mut done: Installed) -> Result<Installed, InstallError> {
        for name in [CALICO_IPAM, CALICO] {
            let path = self.bin_folder.join(name);
            if is_foreign(&path).map_err(told("look at", &path))? {
                let kept = self.bin_folder.join(format!("{name}{KEPT}"));
                keep(&path, &kept)?;
                done.kept.push(kept);
            }
            link(&path)?;
            done.names.push(path);
        }
        Ok(done)
    }

    fn conflist(&self, chained: Chained) -> Value {
        let mut ours = json!({ "type": PLUGIN, "capabilities": { "ips": true, "mac": true } });
        let defaults = Self::default();
        // Only what differs from the defaults: a short file is one that people read.
        for (key, value, default) in
            [("socket", &self.socket, &defaults.socket), ("spool", &self.spool, &defaults.spool)]
        {
            if value != default {
                ours[key] = value.to_string_lossy().into();
            }
        }
        let mut plugins = vec![ours];
        if chained == Chained::Portmap {
            plugins.push(json!({ "type": "portmap", "capabilities": { "portMappings": true } }));
        }
        json!({ "cniVersion": "1.0.0", "name": self.network, "plugins": plugins })
    }
}

/// What comes behind our plugin in the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chained {
    Nothing,
    Portmap,
}

impl From<bool> for Chained {
    fn from(there: bool) -> Self {
        if there { Self::Portmap } else { Self::Nothing }
    }
}

/// Whether a name is somebody else's: a program, or a link to another than ours.
fn is_foreign(path: &Path) -> io::Result<bool> {
    match path.symlink_metadata() {
        Ok(there) => Ok(!there.is_symlink() || fs::read_link(path)? != Path::new(PLUGIN)),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(err) => Err(err),
    }
}

/// Gives what has a name, a link too, a second one. The newest that was kept stays.
fn keep(path: &Path, kept: &Path) -> Result<(), InstallError> {
    place(kept, |draft| fs::hard_link(path, draft))
}

/// Makes a name lead to our plugin, at once.
fn link(path: &Path) -> Result<(), InstallError> {
    place(path, |draft| symlink(PLUGIN, draft))
}

/// Writes a file so that it is there whole or as it was before.
fn put(path: &Path, octets: &[u8], mode: u32) -> Result<(), InstallError> {
    place(path, |draft| write(draft, octets, mode))
}

/// Makes something under a name that nobody looks at, and gives it its own. Nothing is followed or written over.
fn place(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), InstallError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    // Runtimes take any file that ends in .conf, .conflist or .json; a draft must not.
    let draft = folder.join(format!(".{PLUGIN}.{}.draft", std::process::id()));
    fs::create_dir_all(folder).map_err(told("make", folder))?;
    // One of a process that was killed, or a link that somebody laid; what is made is made anew.
    remove(&draft).map_err(told("remove", &draft))?;
    let made = make(&draft).map_err(told("write", &draft));
    let placed = made.and_then(|()| fs::rename(&draft, path).map_err(told("write", path)));
    // Of two names of one file a rename moves none.
    let removed = remove(&draft).map_err(told("remove", &draft));
    placed.and(removed)?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(told("sync", folder))
}

/// What is not there is removed.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => Err(err),
        _ => Ok(()),
    }
}

fn write(draft: &Path, octets: &[u8], mode: u32) -> io::Result<()> {
    let mut file = File::create_new(draft)?;
    file.write_all(octets)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()
}

fn told(op: &'static str, path: &Path) -> impl FnOnce(io::Error) -> InstallError {
    let path = path.to_owned();
    move |source| InstallError::Io { op, path, source }
}

/// Sorts before what a distribution usually brings; runtimes take the first.
const CONFLIST: &str = "10-russet.conflist";
/// What the names of programs end in that were there before us.
const KEPT: &str = ".before-russet";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binary_and_network_are_installed_and_again_over_themselves() {
        let folder = tempfile::tempdir().unwrap();
        let install = install_into(folder.path());
        let first = install.run().unwrap();
        assert_eq!(first, install.run().unwrap());

        assert_eq!(fs::read(&first.binary).unwrap(), b"plugin");
        assert_eq!(fs::metadata(&first.binary).unwrap().permissions().mode() & 0o777, 0o755);
        let conflist: Value =
            serde_json::from_slice(&fs::read(first.conflist.unwrap()).unwrap()).unwrap();
        assert_eq!(conflist["cniVersion"], "1.0.0");
        assert_eq!(conflist["plugins"].as_array().unwrap().len(), 1);
        assert_eq!(
            fs::read_dir(folder.path().join("net.d")).unwrap().count(),
            1,
            "no draft is left"
        );
    }

    #[test]
    fn ports_are_mapped_when_portmap_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let install = install_into(folder.path());
        fs::create_dir_all(&install.bin_folder).unwrap();
        fs::write(install.bin_folder.join("portmap"), "").unwrap();
        let installed = install.run().unwrap();
        let conflist: Value =
            serde_json::from_slice(&fs::read(installed.conflist.unwrap()).unwrap()).unwrap();
        assert_eq!(conflist["plugins"][1]["type"], "portmap");
        assert_eq!(conflist["plugins"][1]["capabilities"]["portMappings"], true);
    }

    #[test]
    fn calico_s_names_lead_to_us_and_calico_s_own_programs_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let install = Install { lists: Lists::Calico, ..install_into(folder.path()) };
        fs::create_dir_all(&install.bin_folder).unwrap();
        fs::write(install.bin_folder.join("calico"), "theirs").unwrap();
        let first = install.run().unwrap();
        let again = install.run().unwrap();
        assert_eq!((first.names.len(), first.conflist), (2, None));
        for name in &again.names {
            assert_eq!(fs::read(name).unwrap(), b"plugin");
        }
        assert_eq!(fs::read(&first.kept[0]).unwrap(), b"theirs");
        assert!(again.kept.is_empty(), "the second time they are our own");
        assert!(!install.conf_folder.exists(), "the lists are the users'");
    }

    #[test]
    fn a_link_at_a_name_or_at_a_draft_s_is_replaced_and_never_written_through() {
        let folder = tempfile::tempdir().unwrap();
        let install = install_into(folder.path());
        let target = folder.path().join("target");
        fs::write(&target, "theirs").unwrap();
        let draft = format!(".{PLUGIN}.{}.draft", std::process::id());
        for (into, name) in [(&install.bin_folder, PLUGIN), (&install.conf_folder, CONFLIST)] {
            fs::create_dir_all(into).unwrap();
            symlink(&target, into.join(name)).unwrap();
            symlink(&target, into.join(&draft)).unwrap();
        }
        let done = install.run().unwrap();
        assert_eq!(fs::read(&target).unwrap(), b"theirs");
        for placed in [&done.binary, done.conflist.as_ref().unwrap()] {
            assert!(fs::symlink_metadata(placed).unwrap().is_file(), "{}", placed.display());
        }
        for into in [&install.bin_folder, &install.conf_folder] {
            assert_eq!(fs::read_dir(into).unwrap().count(), 1, "no draft is left");
        }
    }

    #[test]
    fn a_link_to_somebody_else_s_program_is_kept_and_the_newest_program_is() {
        let folder = tempfile::tempdir().unwrap();
        let install = Install { lists: Lists::Calico, ..install_into(folder.path()) };
        fs::create_dir_all(&install.bin_folder).unwrap();
        let path = install.bin_folder.join("calico");
        fs::write(folder.path().join("theirs"), "theirs").unwrap();
        symlink("../theirs", &path).unwrap();
        let kept = install.run().unwrap().kept;
        assert_eq!(fs::read_link(&kept[0]).unwrap(), Path::new("../theirs"));

        // Calico's own installation came again.
        fs::remove_file(&path).unwrap();
        fs::write(&path, "newer").unwrap();
        assert_eq!(install.run().unwrap().kept, kept);
        assert_eq!(fs::read(&kept[0]).unwrap(), b"newer");

        // It was interrupted when it had two names.
        fs::remove_file(&path).unwrap();
        fs::hard_link(&kept[0], &path).unwrap();
        assert_eq!(install.run().unwrap().kept, kept);
        assert_eq!(
            (fs::read(&kept[0]).unwrap(), fs::read(&path).unwrap()),
            (b"newer".into(), b"plugin".into())
        );
        assert_eq!(fs::read_dir(&install.bin_folder).unwrap().count(), 4, "no draft is left");
    }

    #[test]
    fn the_installed_network_is_one_that_the_plugin_takes() {
        let install = Install { socket: "/x/cni.sock".into(), ..Install::default() };
        let list = install.conflist(Chained::Nothing);
        let mut conf = list["plugins"][0].clone();
        conf["name"] = list["name"].clone();
        conf["cniVersion"] = list["cniVersion"].clone();
        let conf = russet_api::cni::conf::NetConf::parse(conf.to_string().as_bytes()).unwrap();
        assert_eq!(conf.socket, PathBuf::from("/x/cni.sock"));
    }

    #[test]
    fn nothing_is_installed_when_the_binary_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let install = Install { binary: "/nonexistent/x".into(), ..install_into(folder.path()) };
        assert!(install.run().unwrap_err().to_string().contains("read /nonexistent/x"));
        assert!(!install.conf_folder.exists());
        let install = Install { network: "a/b".into(), ..install_into(folder.path()) };
        assert!(matches!(install.run(), Err(InstallError::Name(_))));
    }

    fn install_into(folder: &Path) -> Install {
        let binary = folder.join("built");
        fs::write(&binary, b"plugin").unwrap();
        Install {
            binary,
            bin_folder: folder.join("bin"),
            conf_folder: folder.join("net.d"),
            ..Install::default()
        }
    }
}
