//! Files that are malformed, truncated, doubled or hostile: each is refused with its place, and nothing is written.

use std::{fmt::Write, fs, process::Command};

use crate::{errors, rows, russet, text};

/// Refused by `validate`, without any store.
fn refused(octets: &[u8], wanted: &[&str]) {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("f.yaml");
    fs::write(&file, octets).unwrap();
    let out = russet(&["validate", "-f", text(&file)]);
    let told = errors(&out);
    assert_eq!(out.status.code(), Some(65), "{told}");
    for wanted in wanted {
        assert!(told.contains(wanted), "{wanted:?} is not in\n{told}");
    }
    assert!(told.len() < 100_000, "{} octets of complaint", told.len());
}

#[test]
fn every_malformed_file_is_refused_with_its_place() {
    let pool = "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {name: a}\n";
    for (tail, wanted) in [
        ("spec:\n\tcidr: 10.0.0.0/8\n", &["f.yaml:5:", "indent with blanks"][..]),
        ("spec: {cidr: 10.0.0.0/8\n", &["f.yaml:", "unclosed"]),
        ("spec:\n  cidr: 10.0.0.0/8\n  cidr: 10.0.0.0/9\n", &["f.yaml:6:3: ", "in line 5"]),
        ("spec: {cidr: *pool}\n", &["f.yaml:4:14: "]),
        ("spec: {<<: {cidr: 10.0.0.0/8}}\n", &["f.yaml:4:8: ", "merge keys"]),
        ("spec: []\n", &["spec: [] is not an object"]),
        ("spec: {cidr: 10.0.0.0/8, blockSize: 1e300}\n", &["blockSize: 1e+300"]),
        ("spec: {cidr: 10.0.0.0/8, blockSize: 99999999999999999999999}\n", &["blockSize: "]),
        ("spec: {cidr: \"10.0.0.0/8\\0\"}\n", &["spec.cidr"]),
        ("metadata: {name: b}\nspec: {cidr: 10.0.0.0/8}\n", &["\"metadata\" is there already"]),
    ] {
        refused(format!("{pool}{tail}").as_bytes(), wanted);
    }
    refused(b"", &["there is no object in it"]);
    refused(b"\0\0\0\0", &["f.yaml:1:1"]);
    refused(b"just a text", &["an object is wanted"]);
    refused(b"kind: IPPool\xff\n", &["f.yaml:1:13: octet 0xff is no UTF-8"]);
    let utf_16: Vec<u8> =
        "\u{feff}kind: IPPool".encode_utf16().flat_map(u16::to_le_bytes).collect();
    refused(&utf_16, &["f.yaml:1:1: octet 0xff is no UTF-8"]);
}

#[test]
fn what_is_too_much_is_refused_and_soon() {
    refused(&vec![b'#'; 40 << 20], &["octets are more than"]);
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..10 {
        let last = vec![format!("*a{}", n - 1); 10].join(", ");
        let _ = writeln!(bomb, "a{n}: &a{n} [{last}]");
    }
    refused(bomb.as_bytes(), &["aliases of aliases"]);
    refused("[".repeat(1_000_000).as_bytes(), &["more than 64 deep"]);
    refused("{a: ".repeat(1_000_000).as_bytes(), &["more than 64 deep"]);
    refused("---\nkind: IPPool\n".repeat(50_000).as_bytes(), &["more"]);
    // One line that is long is shown around the place.
    let long = format!("{{kind: IPPool, x: \"{}\", kind: IPPool}}", "y".repeat(1_000_000));
    refused(long.as_bytes(), &["\"kind\" is there already"]);
}

#[test]
fn a_terminal_is_not_obeyed_by_a_file() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("f.yaml");
    fs::write(&file, "kind: \"\\e[2J\"\nx: \u{9b}2J \u{202e}\n").unwrap();
    let told = errors(&russet(&["validate", "-f", text(&file)]));
    assert!(told.contains("f.yaml:1:7") || told.contains("f.yaml:2:"), "{told}");
    assert!(!told.contains(['\u{1b}', '\u{9b}', '\u{202e}']), "{told:?}");
}

/// A file that breaks off anywhere is refused, or is whole.
#[test]
fn no_truncated_file_is_taken_for_a_whole_one() {
    let (_, whole) = rows()[0];
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("f.json");
    for end in (0..whole.len()).step_by(23) {
        fs::write(&file, &whole[..end]).unwrap();
        let out = russet(&["validate", "-f", text(&file)]);
        assert_eq!(out.status.code(), Some(65), "{end}: {}", errors(&out));
    }
    fs::write(&file, whole).unwrap();
    assert!(russet(&["validate", "-f", text(&file)]).status.success());
}

#[test]
fn validate_asks_no_store() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("f.json");
    fs::write(&file, rows()[0].1).unwrap();
    let out = Command::new(env!("CARGO_BIN_EXE_russet"))
        .args(["validate", "-f", text(&file)])
        .env("RUSSET_ENDPOINTS", "http://127.0.0.1:1")
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stdout), "1 object is good\n");
}
