//! This node's WireGuard key: made once, kept in a file that only its owner reads, the same after every reboot.
//!
//! The file is what `wg genkey` writes, so a key of one's own, or flannel's, may be put there before.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
};

use boringtun::x25519::{PublicKey, StaticSecret};
use russet_net::PresharedKey;

/// Reads the key, or makes one when there is no file.
///
/// # Errors
///
/// When the file cannot be read or made, or holds something else. What it holds is never told.
pub fn load_or_make(path: &Path) -> io::Result<StaticSecret> {
    match File::open(path) {
        Ok(file) => read(file, path),
        Err(err) if err.kind() == io::ErrorKind::NotFound => make(path),
        Err(err) => Err(err),
    }
}

/// The public half of the key in a file, which is made when there is none.
///
/// # Errors
///
/// As [`load_or_make`].
pub fn public(path: &Path) -> io::Result<russet_net::PublicKey> {
    load_or_make(path).map(|secret| public_of(&secret))
}

pub(crate) fn public_of(secret: &StaticSecret) -> russet_net::PublicKey {
    russet_net::PublicKey::new(PublicKey::from(secret).to_bytes())
}

fn read(file: File, path: &Path) -> io::Result<StaticSecret> {
    let mode = file.metadata()?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "others could read the key; now they cannot");
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
    }
    let mut text = String::new();
    file.take(MOST).read_to_string(&mut text)?;
    let secret: PresharedKey =
        text.trim().parse().map_err(|err| io::Error::new(io::ErrorKind::InvalidData, err))?;
    Ok(StaticSecret::from(secret.reveal()))
}

/// Whole or not at all: of two who make one at once, both use the one that is there in the end.
fn make(path: &Path) -> io::Result<StaticSecret> {
    let mut octets = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut octets)?;
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder)?;
    let draft = folder.join(format!(".wireguard.{}", std::process::id()));
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
    // Written like a public key, which is nobody's yet.
    writeln!(file, "{}", russet_net::PublicKey::new(octets))?;
    file.sync_all()?;
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    match linked {
        Err(err) if err.kind() != io::ErrorKind::AlreadyExists => return Err(err),
        _ => {}
    }
    File::open(folder)?.sync_all()?;
    read(File::open(path)?, path)
}

/// Octets of the file at most.
const MOST: u64 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_only_its_owner_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/wireguard.key");
        let first = public(&path).unwrap();
        assert_eq!(public(&path).unwrap(), first);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(
            fs::read_dir(path.parent().unwrap()).unwrap().count(),
            1,
            "nothing is left over"
        );

        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(public(&path).unwrap(), first);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_wg_writes_is_read_and_anything_else_is_refused_without_being_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        // The pair of RFC 7748 §6.1, Alice's.
        fs::write(&path, "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=\n").unwrap();
        let wanted = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=";
        assert_eq!(public(&path).unwrap().to_string(), wanted);
        fs::write(&path, "a secret of some other kind").unwrap();
        let told = public(&path).unwrap_err().to_string();
        assert!(!told.contains("secret of"), "{told}");
    }
}
