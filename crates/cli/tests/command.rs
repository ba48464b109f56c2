//! What a person at a terminal meets: messages and exit codes of the built binary.

use std::process::{Command, Output};

#[test]
fn a_bad_configuration_is_refused_whole_with_exit_64() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.toml");
    std::fs::write(
        &file,
        "preset = 'cilium'\n[store]\nendpoints = ['ftp://x']\n[http]\nlisten = 'nowhere'\n",
    )
    .unwrap();

    let out = russet(&["agent", "--config", file.to_str().unwrap()]);

    assert_eq!(out.status.code(), Some(64));
    let text = String::from_utf8_lossy(&out.stderr);
    for fault in ["preset", "ftp", "http.listen"] {
        assert!(text.contains(fault), "{fault} is missing in\n{text}");
    }
}

#[test]
fn a_reader_that_has_had_enough_is_no_fault() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let child = Command::new(env!("CARGO_BIN_EXE_russet"))
        .args(["lab", "schema"])
        .stdout(writer)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let out = child.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(141));
    assert_eq!(String::from_utf8_lossy(&out.stderr), "");
}

#[test]
fn an_unknown_key_is_told_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.toml");
    std::fs::write(&file, "node = 'a'\ninterfase = 'eth0'\n").unwrap();

    let out = russet(&["agent", "--check", "--config", file.to_str().unwrap()]);

    assert_eq!(out.status.code(), Some(64));
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(text.contains("line 2") && text.contains("interfase"), "{text}");
}

#[test]
fn a_good_configuration_is_only_checked_when_that_is_asked() {
    let out = russet(&["agent", "--check", "--node", "a", "--endpoint", "http://127.0.0.1:1"]);
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

#[test]
fn without_an_agent_the_commands_say_so_with_exit_69() {
    for words in [&["status"][..], &["get", "leases"], &["path", "10.0.0.1", "10.0.0.2"]] {
        let out = Command::new(env!("CARGO_BIN_EXE_russet"))
            .args(words)
            .env("RUSSET_ADMIN_SOCKET", "/nonexistent/admin.sock")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(69), "{words:?}: {text}");
        assert!(text.contains("no agent answers on /nonexistent/admin.sock"), "{text}");
    }
}

#[test]
fn the_store_is_not_served_to_everybody_by_accident() {
    let out = russet(&["store", "--listen", "0.0.0.0:0"]);
    assert!(!out.status.success());
    let text = String::from_utf8_lossy(&out.stderr);
    assert!(text.contains("not a loopback address"), "{text}");
}

#[test]
fn help_has_examples_and_completions_are_printed() {
    let help = russet(&["--help"]);
    assert!(String::from_utf8_lossy(&help.stdout).contains("Examples:"));
    let completions = russet(&["completions", "bash"]);
    assert!(String::from_utf8_lossy(&completions.stdout).contains("russet"));
}

fn russet(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_russet")).args(words).output().expect("start russet")
}
