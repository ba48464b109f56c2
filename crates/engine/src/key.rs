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
use russet_kernel::wireguard::read_secret;

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
    Ok(StaticSecret::from(read_secret(file)?.reveal()))
}

/// Goes on with the key of a predecessor, if it has one and we have none yet.
///
/// # Errors
///
/// When theirs is no key or cannot be read, or ours not be made.
pub fn take_over(theirs: &Path, ours: &Path) -> io::Result<()> {
    if ours.exists() {
        return Ok(());
    }
    match File::open(theirs) {
        Ok(file) => keep(ours, read_secret(file)?.reveal()),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(err) => Err(err),
    }
}

fn make(path: &Path) -> io::Result<StaticSecret> {
    let mut octets = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut octets)?;
    keep(path, octets)?;
    read(File::open(path)?, path)
}

/// Whole or not at all: of two who make one at once, both use the one that is there in the end.
fn keep(path: &Path, octets: [u8; 32]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder)?;
    let draft = folder.join(format!(".wireguard.{}", std::process::id()));
    // One that is left of another life may be others' to read.
    match fs::remove_file(&draft) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    // Written like a public key, which is nobody's yet.
    writeln!(file, "{}", russet_net::PublicKey::new(octets))?;
    file.sync_all()?;
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    match linked {
        Err(err) if err.kind() != io::ErrorKind::AlreadyExists => return Err(err),
        _ => {}
    }
    File::open(folder)?.sync_all()
}

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
    fn a_predecessor_s_key_goes_on_once_and_what_is_no_key_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let (theirs, ours) = (folder.path().join("wgkey"), folder.path().join("state/key"));
        take_over(&theirs, &ours).unwrap();
        assert!(!ours.exists(), "there was none");
        fs::write(&theirs, "").unwrap();
        assert!(take_over(&theirs, &ours).is_err() && !ours.exists());
        fs::remove_file(&theirs).unwrap();
        let key = public(&theirs).unwrap();
        take_over(&theirs, &ours).unwrap();
        assert_eq!(public(&ours).unwrap(), key);
        assert_eq!(fs::metadata(&ours).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&theirs, "another").unwrap();
        take_over(&theirs, &ours).unwrap();
        assert_eq!(public(&ours).unwrap(), key, "ours stays");
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
