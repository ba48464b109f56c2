//! Where the passwords of sessions lie: a folder with a file for each, `NAME/KEY`, as a `secretKeyRef` names it.
//!
//! etcd has no secrets as Kubernetes has them, and a password belongs in no log and no status.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use russet_core::model::calico::SecretRef;

use crate::bgp::config::Password;

/// Hands out passwords.
pub trait Secrets: Send + Sync {
    /// # Errors
    ///
    /// When there is none, or it may not be used.
    fn password(&self, secret: &SecretRef) -> Result<Password, NoSecret>;
}

/// Why there is no password; the password is not in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSecret {
    #[error("no folder of secrets is configured")]
    NoFolder,
    #[error("{name}/{key} is no name of a file")]
    Name { name: String, key: String },
    #[error("{}: {error}", path.display())]
    Unreadable { path: PathBuf, error: String },
    #[error("{}: others than its owner may read it (mode {mode:o}); chmod 600", path.display())]
    Open { path: PathBuf, mode: u32 },
    #[error("{}: it has not 1 to 80 octets in its first line", path.display())]
    Length { path: PathBuf },
}

/// The folder; none has no passwords.
#[derive(Clone, Debug, Default)]
pub struct Folder(pub Option<PathBuf>);

impl Secrets for Folder {
    fn password(&self, secret: &SecretRef) -> Result<Password, NoSecret> {
        let folder = self.0.as_ref().ok_or(NoSecret::NoFolder)?;
        if ![&secret.name, &secret.key].into_iter().all(|part| is_one_name(part)) {
            let (name, key) = (secret.name.clone(), secret.key.clone());
            return Err(NoSecret::Name { name, key });
        }
        read(folder.join(&secret.name).join(&secret.key))
    }
}

fn read(path: PathBuf) -> Result<Password, NoSecret> {
    let unreadable = |err: std::io::Error| (err.to_string(), path.clone());
    let fail = |(error, path)| NoSecret::Unreadable { path, error };
    let mode = fs::metadata(&path).map_err(|err| fail(unreadable(err)))?.permissions().mode();
    if mode & OTHERS != 0 {
        return Err(NoSecret::Open { path, mode: mode & 0o777 });
    }
    let text = fs::read_to_string(&path).map_err(|err| fail(unreadable(err)))?;
    let line = text.lines().next().unwrap_or_default().to_owned();
    Password::new(line).ok_or(NoSecret::Length { path })
}

/// What comes from the store leads nowhere but into the folder.
fn is_one_name(part: &str) -> bool {
    let mut parts = Path::new(part).components();
    let first = parts.next();
    matches!(first, Some(std::path::Component::Normal(name)) if name == part)
        && parts.next().is_none()
}

const OTHERS: u32 = 0o077;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_a_file_that_only_its_owner_reads() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("bgp").join("rack");
        fs::create_dir(file.parent().unwrap()).unwrap();
        fs::write(&file, "secret\nand more\n").unwrap();
        let secrets = Folder(Some(folder.path().to_owned()));
        let of = |name: &str, key: &str| {
            secrets.password(&SecretRef { name: name.to_owned(), key: key.to_owned() })
        };
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(of("bgp", "rack"), Err(NoSecret::Open { mode: 0o640, .. })));
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(of("bgp", "rack").unwrap().reveal(), "secret");
        assert!(matches!(of("bgp", "gone"), Err(NoSecret::Unreadable { .. })));
        for (name, key) in
            [("..", "rack"), ("bgp", "../../x"), ("/etc", "passwd"), ("", "x"), ("bgp/", "rack")]
        {
            assert!(matches!(of(name, key), Err(NoSecret::Name { .. })), "{name} {key}");
        }
        let none = Folder(None).password(&SecretRef { name: "a".into(), key: "b".into() });
        assert_eq!(none.unwrap_err(), NoSecret::NoFolder);
    }
}
