//! A store's file and a snapshot of anybody's making: refused, or read as something that can be written
//! and read again.

use std::{fs, path::Path};

use russet_store::snapshot;
use tempfile::TempDir;

/// A store's file: with a first byte that is odd, the frames in it are given their right checksums, so
/// that what is behind those is reached.
///
/// # Panics
///
/// When the file is taken for something that it is not.
pub fn store_file(bytes: &[u8]) {
    let content = match bytes.split_first() {
        Some((mode, rest)) if mode % 2 == 1 => framed(rest),
        Some((_, rest)) => rest.to_vec(),
        None => Vec::new(),
    };
    let folder = TempDir::new().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    fs::write(at("store.db"), &content).expect("write the file");
    let kept = snapshot::salvage(&at("store.db"), &at("saved.db"));
    assert_eq!(fs::read(at("store.db")).expect("read it"), content, "it is never changed");
    let Ok(kept) = kept else {
        assert!(!at("saved.db").exists(), "nothing is made of nothing");
        assert!(snapshot::export(&at("store.db"), &at("snap")).is_err());
        return;
    };
    // What could be saved is whole, and the same wherever it goes.
    let exported =
        snapshot::export(&at("saved.db"), &at("snap")).expect("what was saved is a store");
    assert_eq!(exported, kept.revision);
    assert_is_kept(&at("snap"), &folder);
    assert_eq!(snapshot::export(&at("store.db"), &at("first")).is_ok(), kept.damage.is_none());
}

/// A snapshot in etcd's form.
///
/// # Panics
///
/// When it is taken for something that it is not.
pub fn store_snapshot(bytes: &[u8]) {
    let folder = TempDir::new().expect("a folder");
    let snap = folder.path().join("snap");
    fs::write(&snap, bytes).expect("write the file");
    let restored = snapshot::restore(&snap, &folder.path().join("first.db"));
    if snapshot::status(&snap).is_err() {
        assert!(restored.is_err(), "what cannot be shown cannot be restored");
    } else if restored.is_ok() {
        snapshot::export(&folder.path().join("first.db"), &folder.path().join("again"))
            .expect("what was restored can be exported");
        assert_is_kept(&folder.path().join("again"), &folder);
    }
}

/// Restores a snapshot and makes one of that: both hold the same.
fn assert_is_kept(snap: &Path, folder: &TempDir) {
    let at = |name: &str| folder.path().join(name);
    let restored =
        snapshot::restore(snap, &at("restored.db")).expect("a snapshot of ours restores");
    let again = snapshot::export(&at("restored.db"), &at("second")).expect("and is exported again");
    assert_eq!(restored, again);
    let (first, second) = (snapshot::status(snap), snapshot::status(&at("second")));
    let (first, second) = (first.expect("whole"), second.expect("whole"));
    assert_eq!((first.revision, first.keys), (second.revision, second.keys));
}

/// Makes a file of frames whose checksums are right: `[kind, length, payload…]` each.
fn framed(mut bytes: &[u8]) -> Vec<u8> {
    let mut file = header();
    let mut sequence = 1_u64;
    while let [kind, length, rest @ ..] = bytes {
        let (payload, rest) = rest.split_at(usize::from(*length).min(rest.len()));
        frame(sequence, u32::from(*kind % 4), payload, &mut file);
        sequence += 1;
        bytes = rest;
    }
    // What is allocated ahead.
    file.resize(file.len().next_multiple_of(8) + 4_096, 0);
    file
}

fn header() -> Vec<u8> {
    let mut bytes = b"RUSSETDB".to_vec();
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(SALT.to_le_bytes());
    bytes.extend(crc32c::crc32c(&bytes).to_le_bytes());
    bytes.resize(64, 0);
    bytes
}

fn frame(sequence: u64, kind: u32, payload: &[u8], file: &mut Vec<u8>) {
    let mut head = 0x5246_5352_u32.to_le_bytes().to_vec();
    head.extend(u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes());
    head.extend(sequence.to_le_bytes());
    head.extend(kind.to_le_bytes());
    let zeroed = [&head[..], &[0; 4]].concat();
    let crc = crc32c::crc32c(&SALT.to_le_bytes());
    let crc = crc32c::crc32c_append(crc, &zeroed);
    head.extend(crc32c::crc32c_append(crc, payload).to_le_bytes());
    file.extend(head);
    file.extend(payload);
    file.resize(file.len().next_multiple_of(8), 0);
}

const SALT: u64 = 7;

#[cfg(test)]
mod tests {
    use super::*;

    /// Otherwise the target would only ever see refused files.
    #[test]
    fn frames_made_here_are_read_by_the_store() {
        // A store of revision 5 without keys, and that it is complete.
        let base =
            [0x16, 0x0a, 0x14, 9, 1, 0, 0, 0, 0, 0, 0, 0, 0x11, 2, 0, 0, 0, 0, 0, 0, 0, 0x18, 5];
        let mut bytes = vec![1, u8::try_from(base.len()).unwrap()];
        bytes.extend(base);
        bytes.extend([2, 0]);
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("store.db"), framed(&bytes)).unwrap();
        let read = snapshot::export(&folder.path().join("store.db"), &folder.path().join("snap"));
        assert_eq!(read.unwrap(), 5);
    }
}
