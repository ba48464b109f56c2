//! What starts flanneld starts `russet flanneld` in its place: the words that it is told and the codes that it ends with.

#[path = "flanneld/etcd.rs"]
mod etcd;

use std::{
    os::unix::fs::symlink,
    process::{Command, Output},
};

#[test]
fn a_word_that_is_no_flag_ends_with_2_and_the_usage_as_go_has_it() {
    let out = flanneld(&["-nonsense"]);
    let told = told(&out);
    assert_eq!(out.status.code(), Some(2), "{told}");
    assert!(
        told.starts_with("flag provided but not defined: -nonsense\nUsage: flanneld"),
        "{told}"
    );
}

#[test]
fn help_and_version_end_with_0() {
    for (word, part) in [("-help", "-etcd-endpoints"), ("--version", "as flanneld")] {
        let out = flanneld(&[word]);
        assert_eq!(out.status.code(), Some(0), "{word}");
        assert!(told(&out).contains(part), "{word}: {}", told(&out));
    }
}

#[test]
fn kubernetes_as_the_store_is_answered_by_name_with_1() {
    let words = [
        "-kube-subnet-mgr",
        "-kube-api-url=https://192.0.2.1",
        "-kubeconfig-file=/x",
        "-net-config-path=/y",
        "-kube-annotation-prefix=z",
        "-set-node-network-unavailable=false",
    ];
    let out = flanneld(&words);
    assert_eq!(out.status.code(), Some(1));
    assert!(told(&out).contains("comes later"), "{}", told(&out));
}

#[test]
fn what_cannot_be_is_told_all_at_once_with_1() {
    let out = flanneld(&["-subnet-lease-renew-margin=1440", "-public-ip=x", "-iface-regex=("]);
    let told = told(&out);
    assert_eq!(out.status.code(), Some(1), "{told}");
    for part in ["renew-margin", "public-ip", "iface-regex"] {
        assert!(told.contains(part), "{part} is missing in {told}");
    }
}

#[test]
fn a_link_that_is_not_there_ends_with_1() {
    let out = flanneld(&["-iface", "no-such-link0", "-iface-regex", "^nobody$"]);
    let told = told(&out);
    assert_eq!(out.status.code(), Some(1), "{told}");
    assert!(told.contains("no-such-link0") && told.contains("^nobody$"), "{told}");
}

#[test]
fn under_flanneld_s_name_it_is_flanneld() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("flanneld");
    symlink(env!("CARGO_BIN_EXE_russet"), &path).unwrap();
    let out = Command::new(path).args(["-version"]).output().unwrap();
    assert_eq!(out.status.code(), Some(0));
    assert!(told(&out).contains("as flanneld"), "{}", told(&out));
}

#[test]
fn the_environment_counts_as_flags() {
    let russet = env!("CARGO_BIN_EXE_russet");
    let out = Command::new(russet)
        .arg("flanneld")
        .env("FLANNELD_KUBE_SUBNET_MGR", "true")
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(told(&out).contains("kube-subnet-mgr"), "{}", told(&out));
}

fn flanneld(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_russet")).arg("flanneld").args(words).output().unwrap()
}

fn told(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}
