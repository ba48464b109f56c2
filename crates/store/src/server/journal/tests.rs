//! The journal against everything that can happen to a disk.

use super::{
    fake::{FakeDisk, Left},
    *,
};

mod crash;

#[test]
fn what_was_appended_is_read_back_in_order() {
    let disk = FakeDisk::default();
    let mut journal = created(&disk, &[b"base"]);
    for payload in [&b"one"[..], b"", b"three", &[7; 10_000]] {
        journal.append(payload).unwrap();
    }
    journal.close().unwrap();

    let (mut journal, read) = opened(&disk);
    assert_eq!(read, [&b"base"[..], b"one", b"", b"three", &[7; 10_000]]);
    journal.append(b"five").unwrap();
    drop(journal);
    assert_eq!(opened(&disk).1.last().unwrap(), b"five");
}

#[test]
fn an_empty_or_foreign_or_newer_file_is_refused_and_untouched() {
    let mut newer = frame::file_header(7).to_vec();
    newer[8] = 9;
    let crc = crc32c::crc32c(&newer[..24]);
    newer[24..28].copy_from_slice(&crc.to_le_bytes());
    for (bytes, words) in [
        (vec![], "the file is empty"),
        (vec![0; 4096], "begins with zeros"),
        (b"SQLite format 3\0 and so on".repeat(9), "begins with something else"),
        (b"short".to_vec(), "begins with something else"),
        (newer, "newer russet (format 9"),
        (frame::file_header(7)[..40].to_vec(), "cut short"),
    ] {
        let disk = FakeDisk::holding(bytes.clone());
        let said = Journal::open(disk.clone(), &mut |_| Ok(())).map(drop).unwrap_err().to_string();
        assert!(said.contains(words), "{said}");
        assert_eq!(disk.bytes().unwrap(), bytes);
        assert!(Journal::create(disk.clone(), 1, std::iter::empty()).is_err(), "never over it");
        assert_eq!(disk.bytes().unwrap(), bytes);
    }
    let missing = Journal::open(FakeDisk::default(), &mut |_| Ok(())).map(drop).unwrap_err();
    assert!(missing.is_missing());
}

#[test]
fn a_flipped_byte_is_refused_or_harmless_and_never_another_payload() {
    let disk = FakeDisk::default();
    let mut journal = created(&disk, &[b"base"]);
    let wanted: Vec<&[u8]> = vec![b"base", b"the first one", b"the second"];
    journal.append(wanted[1]).unwrap();
    journal.append(wanted[2]).unwrap();
    let used = journal.used();
    journal.close().unwrap();
    let good = disk.bytes().unwrap();
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        let disk = FakeDisk::holding(bytes.clone());
        match read(&disk) {
            // In the zeros behind, in the seal, or where a header has zeros that nobody reads.
            Ok(read) => {
                assert_eq!(read, wanted, "byte {at}");
                let at = u64::try_from(at).unwrap();
                assert!(at >= used || (28..64).contains(&at) || in_padding(&good, at), "byte {at}");
            }
            Err(_) => assert_eq!(disk.bytes().unwrap(), bytes, "what is refused is untouched"),
        }
    }
}

#[test]
fn a_file_that_is_cut_short_anywhere_is_refused_unless_only_zeros_are_gone() {
    let disk = FakeDisk::default();
    let mut journal = created(&disk, &[b"base"]);
    journal.append(&[1; 600]).unwrap();
    let used = usize::try_from(journal.used()).unwrap();
    journal.close().unwrap();
    let good = disk.bytes().unwrap();
    for len in 0..good.len() {
        let disk = FakeDisk::holding(good[..len].to_vec());
        match read(&disk) {
            Ok(read) => {
                assert_eq!(read.len(), 2);
                assert!(len > used, "{len} of {used}");
            }
            Err(err) => {
                let said = err.to_string();
                assert!(
                    said.contains("cut short") || said.contains("is empty") || len < 64,
                    "{said}"
                );
            }
        }
    }
}

#[test]
fn damage_tells_where_it_is_and_what_can_be_done_and_the_part_before_it_can_be_kept() {
    let disk = FakeDisk::default();
    let mut journal = created(&disk, &[b"base"]);
    journal.append(b"before").unwrap();
    let offset = journal.used();
    journal.append(b"damaged").unwrap();
    journal.append(b"behind").unwrap();
    let mut bytes = disk.bytes().unwrap();
    bytes[usize::try_from(offset).unwrap() + 26] ^= 1;
    let disk = FakeDisk::holding(bytes);

    let said = read(&disk).unwrap_err().to_string();

    assert!(said.contains(&format!("damaged at byte {offset}: a checksum is wrong")), "{said}");
    assert!(said.contains("russet store snapshot restore") && said.contains("salvage"), "{said}");
    let mut kept = Vec::new();
    let damage = Journal::salvage(&disk, &mut |payload| {
        kept.push(payload.to_vec());
        Ok(())
    });
    assert!(damage.unwrap().unwrap().is_damaged());
    assert_eq!(kept, [&b"base"[..], b"before"]);
}

#[test]
fn a_payload_that_makes_no_sense_is_damage_too() {
    let disk = FakeDisk::default();
    let mut journal = created(&disk, &[b"base"]);
    let offset = journal.used();
    journal.append(b"nonsense").unwrap();
    let refused = Journal::open(disk, &mut |payload| match payload {
        b"nonsense" => Err("what is this".to_owned()),
        _ => Ok(()),
    });
    let said = refused.map(drop).unwrap_err().to_string();
    assert!(said.contains(&format!("damaged at byte {offset}: what is this")), "{said}");
}

#[test]
fn a_value_that_looks_like_a_frame_is_none() {
    let disk = FakeDisk::default();
    let mut journal = created(&disk, &[b"base"]);
    // Made by one who knows everything but the salt.
    let mut forged = Vec::new();
    frame::encode(99, 1_000, Kind::Data, b"forged", &mut forged);
    let before = disk.steps();
    journal.append(&forged.repeat(40)).unwrap();
    // Of its sectors only the later ones arrived.
    for seed in 0..200 {
        let crashed = disk.after_crash(before + 1, Left::Some(seed));
        assert!(matches!(read(&crashed).unwrap().len(), 1 | 2));
    }
}

#[test]
fn a_full_disk_is_known_before_anything_is_written_and_room_helps() {
    let disk = FakeDisk::of_size(10_000);
    let mut journal = created(&disk, &[b"base"]);
    journal.append(b"one").unwrap();
    let full = journal.make_room(20_000).unwrap_err();
    assert!(full.is_no_space(), "{full}");
    journal.append(b"two").unwrap();
    disk.set_capacity(40_000);
    journal.make_room(20_000).unwrap();
    disk.set_capacity(0);
    journal.append(&vec![3; 20_000]).unwrap();
    assert_eq!(read(&disk).unwrap().len(), 4);
}

#[test]
fn after_a_failed_sync_nothing_is_written_any_more() {
    let disk = FakeDisk::default();
    let mut journal = created(&disk, &[b"base"]);
    journal.append(b"one").unwrap();
    disk.fail_after(1);
    let said = journal.append(b"two").unwrap_err().to_string();
    assert_eq!(said, "sync fake.db");
    let steps = disk.steps();
    assert!(journal.append(b"three").is_err() && journal.seal().is_err());
    assert!(journal.make_room(1 << 30).is_err() && journal.rewrite(1).is_err());
    assert_eq!(disk.steps(), steps);
}

#[test]
fn a_rewritten_file_has_the_new_base_and_what_came_meanwhile() {
    let disk = FakeDisk::default();
    let mut journal = created(&disk, &[b"old base"]);
    journal.append(b"gone").unwrap();
    let mut rewrite = journal.rewrite(2).unwrap();
    rewrite.add(b"new base").unwrap();
    journal.append(b"meanwhile").unwrap();
    let ready = rewrite.finish().unwrap();
    journal.adopt(ready, &[b"meanwhile".to_vec()], 100).unwrap();
    journal.append(b"after").unwrap();
    assert_eq!(read(&disk).unwrap(), [&b"new base"[..], b"meanwhile", b"after"]);
}

#[test]
fn a_rewrite_that_the_disk_has_no_room_for_leaves_the_old_file_in_use() {
    let disk = FakeDisk::of_size(30_000);
    let mut journal = created(&disk, &[b"base"]);
    let used = journal.used();
    let mut rewrite = journal.rewrite(2).unwrap();
    rewrite.add(b"new base").unwrap();
    let ready = rewrite.finish().unwrap();
    let full = journal.adopt(ready, &[vec![0; 40_000]], 0).unwrap_err();
    assert!(full.is_no_space(), "{full}");
    assert_eq!(journal.used(), used);
    journal.append(b"on").unwrap();
    assert_eq!(read(&disk).unwrap(), [&b"base"[..], b"on"]);
}

#[test]
fn a_file_that_somebody_has_for_a_moment_still_is_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FileDisk::new(&dir.path().join("store.db"));
    let journal = Journal::create(disk.clone(), 1, [b"base".to_vec()].into_iter()).unwrap();
    std::thread::scope(|scope| {
        let opened = scope.spawn(|| Journal::open(disk.clone(), &mut |_| Ok(())).map(drop));
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert!(!opened.is_finished());
        journal.close().unwrap();
        opened.join().unwrap().unwrap();
    });
}

#[test]
fn the_real_file_is_one_processs_alone_and_survives_a_rewrite() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.db");
    let disk = FileDisk::new(&path);
    let base = || [b"base".to_vec()].into_iter();
    let mut journal = Journal::create(disk.clone(), 1, base()).unwrap();
    assert!(matches!(
        Journal::create(disk.clone(), 1, base()).map(drop),
        Err(JournalError::Exists(_))
    ));
    journal.append(b"one").unwrap();
    let in_use = Journal::open(disk.clone(), &mut |_| Ok(())).map(drop).unwrap_err();
    assert!(in_use.to_string().ends_with("in use by another process"), "{in_use}");

    let mut rewrite = journal.rewrite(2).unwrap();
    rewrite.add(b"new").unwrap();
    let ready = rewrite.finish().unwrap();
    journal.adopt(ready, &[], 0).unwrap();
    assert!(Journal::open(disk.clone(), &mut |_| Ok(())).is_err(), "the new file is ours as well");
    journal.append(b"two").unwrap();
    journal.close().unwrap();

    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside");
    let mut read = Vec::new();
    let visit = &mut |payload: &[u8]| {
        read.push(payload.to_vec());
        Ok(())
    };
    Journal::open(disk, visit).unwrap();
    assert_eq!(read, [&b"new"[..], b"two"]);
}

fn in_padding(good: &[u8], at: u64) -> bool {
    // The zeros that fill a frame up to eight bytes are not part of any payload.
    let around = usize::try_from(at).unwrap();
    good[around] == 0 && around >= 64
}

fn created(disk: &FakeDisk, base: &[&[u8]]) -> Journal<FakeDisk> {
    let base = base.iter().map(|payload| payload.to_vec());
    Journal::create(disk.clone(), 1, base).unwrap()
}

fn opened(disk: &FakeDisk) -> (Journal<FakeDisk>, Vec<Vec<u8>>) {
    let mut read = Vec::new();
    let (journal, _) = Journal::open(disk.clone(), &mut |payload| {
        read.push(payload.to_vec());
        Ok(())
    })
    .unwrap();
    (journal, read)
}

fn read(disk: &FakeDisk) -> Result<Vec<Vec<u8>>, JournalError> {
    let mut read = Vec::new();
    Journal::open(disk.clone(), &mut |payload| {
        read.push(payload.to_vec());
        Ok(())
    })?;
    Ok(read)
}
