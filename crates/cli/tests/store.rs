//! What a person meets who runs a store: messages and exit codes of the built binary, on files good and bad,
//! and whole ways from one store to another, with Debian's etcd at the other end.

#[path = "store/servers.rs"]
mod servers;

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use servers::{Etcd, Store};
use tempfile::TempDir;

#[test]
fn what_was_answered_is_there_after_a_kill_and_the_file_is_for_its_owner_alone() {
    let home = TempDir::new().unwrap();
    let file = home.path().join("deep/down/store.db");
    let store = Store::start(&file, &[]);
    for n in 0..20 {
        store.put(&format!("/n/{n}"), &format!("value {n}"));
    }
    drop(store);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));

    let again = Store::start(&file, &[]);
    for n in 0..20 {
        assert_eq!(again.get(&format!("/n/{n}")).as_deref(), Some(&*format!("value {n}")));
    }
}

#[test]
fn a_store_in_memory_leaves_no_file_and_forgets() {
    let home = TempDir::new().unwrap();
    let file = home.path().join("store.db");
    let store = Store::start(&file, &["--memory"]);
    store.put("/k", "v");
    drop(store);
    assert!(!file.exists());
    assert_eq!(Store::start(&file, &["--memory"]).get("/k"), None);
}

#[test]
fn a_file_that_is_no_store_is_never_taken_for_one() {
    let home = TempDir::new().unwrap();
    let cases: [(&str, &[u8], &str); 3] = [
        ("empty", b"", "the file is empty, so it is not taken for a store"),
        (
            "text",
            b"Dear reader, this is a letter and no datastore at all.\n",
            "not a store of russet",
        ),
        ("zeros", &[0; 8_192], "not a store of russet"),
    ];
    for (name, content, told) in cases {
        let file = home.path().join(name);
        fs::write(&file, content).unwrap();
        refused(&["store", "--listen", "127.0.0.1:0", "--data", text(&file)], 65, told);
        assert_eq!(fs::read(&file).unwrap(), content, "{name} is as it was");
    }
}

#[test]
fn damage_is_told_with_its_place_and_what_to_do_and_nothing_is_changed() {
    let home = TempDir::new().unwrap();
    let file = home.path().join("store.db");
    let store = Store::start(&file, &[]);
    for n in 0..50 {
        store.put(&format!("/n/{n}"), "some value that is long enough to be met");
    }
    drop(store);
    let mut bytes = fs::read(&file).unwrap();
    let at = find(&bytes, b"long enough").expect("the first value");
    bytes[at] ^= 0x10;
    fs::write(&file, &bytes).unwrap();

    let serve = ["store", "--listen", "127.0.0.1:0", "--data", text(&file)];
    let said = refused(&serve, 65, "damaged at byte");
    for help in ["snapshot restore", "russet store salvage"] {
        assert!(said.contains(help), "{help}: {said}");
    }
    assert_eq!(said.matches("damaged").count(), 1, "the chain is joined once: {said}");
    assert_eq!(fs::read(&file).unwrap(), bytes);
}

#[test]
fn what_stands_in_the_way_is_named() {
    let home = TempDir::new().unwrap();
    let file = home.path().join("store.db");
    let store = Store::start(&file, &[]);
    let at = ["store", "--data", text(&file), "--listen"];
    refused(&[&at[..], &["127.0.0.1:0"]].concat(), 1, "store.db: in use by another process");
    let other = home.path().join("other.db");
    let taken = ["store", "--data", text(&other), "--listen", &store.address];
    refused(&taken, 1, &format!("listen on {}: Address already in use", store.address));
    assert!(!other.exists(), "a store that cannot listen makes no file");
    let below = home.path().join("store.db/below/store.db");
    refused(&["store", "--listen", "127.0.0.1:0", "--data", text(&below)], 1, "make the folder");
    refused(
        &["store", "--listen", "127.0.0.1:0", "--data", text(home.path())],
        1,
        "Is a directory",
    );
    let open = ["store", "--data", text(&other), "--listen", "0.0.0.0:0"];
    refused(&open, 64, "not a loopback address");
    let tls = [
        "store",
        "--cert",
        "/nonexistent/c",
        "--key",
        "/nonexistent/k",
        "--client-ca",
        "/nonexistent/ca",
    ];
    let said = refused(&tls, 64, "/nonexistent/c");
    assert!(
        said.contains("/nonexistent/k") && said.contains("/nonexistent/ca"),
        "all at once: {said}"
    );
    refused(&["store", "--max-txn-ops", "0"], 2, "--max-txn-ops");
}

#[test]
fn the_limits_are_those_of_the_flags() {
    let home = TempDir::new().unwrap();
    let flags = ["--max-request-bytes", "2000", "--quota-backend-bytes", "20000"];
    let store = Store::start(&home.path().join("store.db"), &flags);
    let put = |key: &str, bytes: usize| store.key(&["put", key, &"x".repeat(bytes)]);
    assert!(errors(&put("/large", 3_000)).contains("request is too large"));
    let mut full = String::new();
    for n in 0..40 {
        let out = put(&format!("/n/{n}"), 1_000);
        if !out.status.success() {
            full = errors(&out);
            break;
        }
    }
    assert!(full.contains("database space exceeded"), "{full}");
    assert!(store.get("/n/0").is_some(), "reading goes on");
    assert!(store.key(&["del", "/n/0"]).status.success(), "so do deletions");
}

/// A real file system that is full: nothing that was answered is lost, and room helps.
#[test]
fn upon_a_full_disk_puts_are_refused_and_nothing_is_lost() {
    let home = TempDir::new().unwrap();
    let said = in_a_small_disk(
        home.path(),
        r#"
        serve
        n=0
        while russet store put --endpoint "$url" "/n/$n" "$value" >/dev/null 2>>"$out/refused"; do
            n=$((n + 1))
            [ "$n" -lt 1000 ] || { echo "the disk is never full"; exit 1; }
        done
        echo "written $n"
        russet store get --endpoint "$url" /n/0 >/dev/null && echo "reading goes on"
        stop
        serve
        for k in 0 $((n - 1)); do russet store get --endpoint "$url" "/n/$k" >/dev/null && echo "still there"; done
        russet store get --endpoint "$url" "/n/$n" >/dev/null || echo "what was refused is not there"
        for k in $(seq 0 $((n - 1))); do russet store del --endpoint "$url" "/n/$k" >/dev/null || exit 1; done
        ETCDCTL_API=3 etcdctl --endpoints "$address" compact $((2 * n + 1)) >/dev/null && echo "compacted"
        # The new file is written beside the old one, so it needs a little room at first.
        mount -o remount,size=14m "$disk"
        russet store snapshot defrag --endpoint "$url" >/dev/null && echo "written anew"
        russet store put --endpoint "$url" /again "$value" >/dev/null && echo "there is room again"
        "#,
    );
    let refused = fs::read_to_string(home.path().join("refused")).unwrap();
    assert!(refused.contains("database space exceeded"), "{refused}");
    for line in [
        "reading goes on",
        "still there\nstill there",
        "what was refused is not there",
        "compacted\nwritten anew\nthere is room again",
    ] {
        assert!(said.contains(line), "{line:?} is missing in {said}");
    }
}

#[test]
fn upon_a_disk_that_cannot_be_written_it_says_so() {
    let home = TempDir::new().unwrap();
    let said = in_a_small_disk(
        home.path(),
        r#"
        serve
        russet store put --endpoint "$url" /a 1 >/dev/null
        stop
        mount -o remount,ro "$disk"
        russet store --listen 127.0.0.1:0 --data "$disk/store.db" 2>&1; echo "code $?"
        russet store --listen 127.0.0.1:0 --data "$disk/other.db" 2>&1; echo "code $?"
        "#,
    );
    for name in ["store.db", "other.db"] {
        let line =
            said.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{said}"));
        assert!(line.contains("Read-only file system"), "{line}");
    }
    assert_eq!(said.matches("code 1").count(), 2, "{said}");
}

#[test]
fn only_of_a_write_that_was_sent_it_is_not_known_whether_it_was_done() {
    let put = |url: &str| errors(&russet(&["store", "put", "--endpoint", url, "/k", "v"]));
    let unsent = put("http://127.0.0.1:1");
    assert!(unsent.contains("127.0.0.1:1") && !unsent.contains("not known"), "{unsent}");
    // The kernel takes the connection, and nobody answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let sent = put(&format!("http://{}", silent.local_addr().unwrap()));
    assert!(sent.contains("whether it was written is not known: "), "{sent}");
}

#[test]
fn a_snapshot_of_either_store_is_read_by_either_and_restored_as_another_cluster() {
    let home = TempDir::new().unwrap();
    let at = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    let ours = Store::start(&home.path().join("store.db"), &[]);
    let etcd = Etcd::start(&home.path().join("etcd"));
    for n in 0..50 {
        ours.put(&format!("/n/{n}"), "ours");
        etcdctl(&etcd.address, &["put", &format!("/n/{n}"), "etcd's"]);
    }
    for (url, name, value) in [(ours.url(), "a", "ours"), (etcd.url(), "b", "etcd's")] {
        let (snap, data) = (at(&format!("{name}.snap")), at(&format!("{name}.db")));
        done(&["store", "snapshot", "save", "--endpoint", &url, &snap]);
        // As etcdctl sees it.
        let theirs = etcdctl("127.0.0.1:1", &["snapshot", "status", &snap, "-w", "json"]);
        let json = done(&["store", "snapshot", "status", &snap, "-o", "json"]);
        let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        assert_eq!(read(&json), read(&theirs));
        done(&["store", "snapshot", "restore", &snap, "--data", &data]);
        refused(
            &["store", "snapshot", "restore", &snap, "--data", &data],
            1,
            "there is a file already",
        );
        let restored = Store::start(Path::new(&data), &[]);
        assert_eq!(restored.get("/n/49").as_deref(), Some(value));
        let cluster = |address: &str| etcdctl(address, &["get", "-w", "fields", "/none"]);
        let number = |text: String| text.lines().next().map(str::to_owned);
        let before = url.trim_start_matches("http://");
        assert_ne!(number(cluster(&restored.address)), number(cluster(before)), "another cluster");
    }
    assert_eq!(leftovers(home.path()), Vec::<String>::new());

    // One that is cut, or none, is refused; what is there is not lost for it.
    let whole = fs::read(at("a.snap")).unwrap();
    fs::write(at("half.snap"), &whole[..whole.len() / 2]).unwrap();
    refused(&["store", "snapshot", "status", &at("half.snap")], 65, "cut");
    refused(&["store", "snapshot", "restore", &at("half.snap"), "--data", &at("c.db")], 65, "cut");
    assert!(!Path::new(&at("c.db")).exists());
    drop(etcd);
    let away = ["store", "snapshot", "save", "--endpoint", "http://127.0.0.1:1", &at("a.snap")];
    refused(&away, 1, "Connection refused");
    assert_eq!(fs::read(at("a.snap")).unwrap(), whole);
    assert_eq!(leftovers(home.path()), Vec::<String>::new());
}

#[test]
fn what_is_exported_begins_an_etcd_by_the_command_that_is_printed() {
    let home = TempDir::new().unwrap();
    let file = home.path().join("store.db");
    let store = Store::start(&file, &[]);
    for n in 0..50 {
        store.put(&format!("/n/{n}"), &n.to_string());
    }
    let snap = home.path().join("net's.snap");
    refused(
        &["store", "export", "--data", text(&file), text(&snap)],
        1,
        "in use by another process",
    );
    drop(store);
    let said = done(&["store", "export", "--data", text(&file), text(&snap)]);
    let command = said.lines().last().unwrap().trim();
    let ran = Command::new("sh").args(["-c", command]).current_dir(home.path()).output().unwrap();
    assert!(ran.status.success(), "{command}: {}", errors(&ran));
    let etcd = Etcd::start(&home.path().join("default.etcd"));
    for n in 0..50 {
        let key = format!("/n/{n}");
        let value = etcdctl(&etcd.address, &["get", "--print-value-only", &key]);
        assert_eq!(value.trim(), n.to_string());
    }
}

#[test]
fn what_is_before_the_damage_is_saved_and_the_damaged_file_stays_as_it_is() {
    let home = TempDir::new().unwrap();
    let (file, saved) = (home.path().join("store.db"), home.path().join("saved/store.db"));
    let store = Store::start(&file, &[]);
    for n in 0..50 {
        store.put(&format!("/n/{n}"), &format!("a value with the mark <{n}>"));
    }
    drop(store);
    let mut bytes = fs::read(&file).unwrap();
    let at = find(&bytes, b"<30>").unwrap();
    bytes[at] ^= 1;
    fs::write(&file, &bytes).unwrap();

    let salvage = ["store", "salvage", "--data", text(&file), "--to", text(&saved)];
    let said = done(&salvage);
    assert!(said.contains("damaged at byte") && said.contains("--accept-store"), "{said}");
    assert_eq!(fs::read(&file).unwrap(), bytes);
    refused(&salvage, 1, "there is a file already");
    let store = Store::start(&saved, &[]);
    assert_eq!(store.get("/n/29").as_deref(), Some("a value with the mark <29>"));
    assert_eq!(store.get("/n/30"), None);
}

#[test]
fn a_file_is_written_anew_with_all_that_it_holds_whether_a_store_uses_it_or_not() {
    let home = TempDir::new().unwrap();
    let file = home.path().join("store.db");
    let store = Store::start(&file, &[]);
    let value = "x".repeat(1_000);
    for _ in 0..100 {
        store.put("/k", &value);
    }
    etcdctl(&store.address, &["compact", "100"]);
    let said = done(&["store", "snapshot", "defrag", "--endpoint", &store.url()]);
    let (after, before) = two_numbers(&said);
    assert!(after < before / 2, "{said}");
    refused(&["store", "snapshot", "defrag", "--data", text(&file)], 1, "in use");
    for _ in 0..10 {
        store.put("/k", &value);
    }
    etcdctl(&store.address, &["compact", "110"]);
    drop(store);
    let said = done(&["store", "snapshot", "defrag", "--data", text(&file)]);
    let (after, before) = two_numbers(said.split_once(": ").unwrap().1);
    assert!(after < before, "{said}");
    assert_eq!(Store::start(&file, &[]).get("/k"), Some(value));
}

#[test]
fn keys_move_to_etcd_and_back_and_each_way_is_checked() {
    let home = TempDir::new().unwrap();
    let ours = Store::start(&home.path().join("store.db"), &[]);
    let etcd = Etcd::start(&home.path().join("etcd"));
    for n in 0..30 {
        ours.put(&format!("/coreos.com/network/k{n}"), &n.to_string());
    }
    ours.put("/elsewhere", "stays");

    let there = ["migrate", "store", "--from", &ours.url(), "--to", &etcd.url()];
    let out = russet(&there);
    assert_eq!(out.status.code(), Some(0), "{}", errors(&out));
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(said.contains("30 keys") && said.contains("both sides are the same"), "{said}");
    refused(&there, 1, "the target holds 30 keys under /coreos.com/network/ already");

    // Back, over what is there, while somebody changed it.
    assert!(etcdctl(&etcd.address, &["put", "/coreos.com/network/k0", "new"]).contains("OK"));
    assert!(etcdctl(&etcd.address, &["del", "/coreos.com/network/k1"]).contains('1'));
    let back = ["migrate", "store", "--from", &etcd.url(), "--to", &ours.url(), "--overwrite"];
    let out = russet(&[&back[..], &["-o", "json"]].concat());
    assert_eq!(out.status.code(), Some(0), "{}", errors(&out));
    let told: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let facts =
        ["same", "keys", "written", "removed", "differing"].map(|name| told[name].to_string());
    assert_eq!(facts, ["true", "29", "1", "1", "0"]);
    assert_eq!(ours.get("/coreos.com/network/k0").as_deref(), Some("new"));
    assert_eq!(ours.get("/elsewhere").as_deref(), Some("stays"));
}

#[test]
fn a_copy_that_follows_ends_by_a_signal_and_tells_what_differs_with_exit_1() {
    let home = TempDir::new().unwrap();
    let ours = Store::start(&home.path().join("store.db"), &[]);
    let etcd = Etcd::start(&home.path().join("etcd"));
    ours.put("/coreos.com/network/a", "1");
    let mut copy = Command::new(env!("CARGO_BIN_EXE_russet"))
        .args(["migrate", "store", "--follow", "--from", &ours.url(), "--to", &etcd.url()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut news = BufReader::new(copy.stderr.take().unwrap()).lines();
    assert!(news.any(|line| line.unwrap().contains("following every change")));

    ours.put("/coreos.com/network/b", "2");
    let seen = || etcdctl(&etcd.address, &["get", "--print-value-only", "/coreos.com/network/b"]);
    eventually("the change is there", || seen().trim() == "2");
    etcdctl(&etcd.address, &["put", "/coreos.com/network/alien", "x"]);
    // By its number, from the child that is not waited for yet.
    let stop = Command::new("kill").args(["-INT", &copy.id().to_string()]).status().unwrap();
    assert!(stop.success());

    let out = copy.wait_with_output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(
        said.contains("1 keys DIFFER")
            && said.contains("/coreos.com/network/alien: not in the source"),
        "{said}"
    );
}

#[test]
fn settings_of_a_copy_that_make_no_sense_are_told_all_at_once_with_exit_64() {
    let same = [
        "migrate",
        "store",
        "--from",
        "http://127.0.0.1:1/",
        "--to",
        "http://127.0.0.1:1",
        "--to",
        "ftp://x:1",
    ];
    let said = refused(&same, 64, "is an endpoint of both --from and --to");
    assert!(said.contains("--to: endpoint \"ftp://x:1\""), "{said}");
    let away = ["migrate", "store", "--from", "http://127.0.0.1:1", "--to", "http://127.0.0.1:2"];
    refused(&away, 1, "read the source: ");
}

/// Runs a script with a disk of 12 MB of its own, that nobody else sees.
fn in_a_small_disk(out: &Path, script: &str) -> String {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (head, tail) = (SMALL_DISK, "\nstop 2>/dev/null || true\n");
    let russet = Path::new(env!("CARGO_BIN_EXE_russet")).parent().unwrap();
    let path = format!("{}:{}", text(russet), std::env::var("PATH").unwrap());
    let run = Command::new("timeout")
        .args(["60", "unshare", "--mount", "--map-root-user", "sh", "-c"])
        .arg(format!("{head}{script}{tail}"))
        .envs([("PATH", path.as_str()), ("out", text(out)), ("address", &address)])
        .output()
        .expect("start unshare (package util-linux)");
    let said = String::from_utf8_lossy(&run.stdout).into_owned();
    assert!(run.status.success(), "{said}\n{}", errors(&run));
    said
}

const SMALL_DISK: &str = r#"
disk="$out/disk"; url="http://$address"; mkdir "$disk"
mount -t tmpfs -o size=12m none "$disk"
value=$(head -c 100000 /dev/zero | tr '\0' v)
serve() {
    russet store --listen "$address" --data "$disk/store.db" 2>>"$out/log" & store=$!
    for _ in $(seq 100); do
        russet store put --endpoint "$url" /ready 1 >/dev/null 2>&1 && return
        russet store get --endpoint "$url" /ready >/dev/null 2>&1 && return
        sleep 0.1
    done
    cat "$out/log"; exit 1
}
stop() { kill -9 "$store"; wait "$store" 2>/dev/null; true; }
"#;

/// What etcdctl prints, errors included.
/// One key of it.
impl Store {
    fn key(&self, words: &[&str]) -> Output {
        let (command, rest) = words.split_first().unwrap();
        russet(&[&["store", command, "--endpoint", &self.url()], rest].concat())
    }

    fn put(&self, key: &str, value: &str) {
        let out = self.key(&["put", key, value]);
        assert!(out.status.success(), "{}", errors(&out));
    }

    fn get(&self, key: &str) -> Option<String> {
        let out = self.key(&["get", key]);
        out.status.success().then(|| String::from_utf8_lossy(&out.stdout).trim_end().to_owned())
    }
}

fn etcdctl(address: &str, words: &[&str]) -> String {
    let out = Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .arg(format!("--endpoints={address}"))
        .args(words)
        .output()
        .expect("the program etcdctl (package etcd-client) must be installed");
    String::from_utf8_lossy(&out.stdout).into_owned() + &errors(&out)
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !holds() {
        assert!(Instant::now() < until, "within 10 s: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Runs what must work, and returns what it says.
fn done(words: &[&str]) -> String {
    let out = russet(words);
    assert!(out.status.success(), "{words:?}: {}", errors(&out));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// The numbers in `N bytes…, M before`.
fn two_numbers(said: &str) -> (u64, u64) {
    let mut numbers = said.split_whitespace().filter_map(|word| word.parse().ok());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

/// Files that were meant to get another name.
fn leftovers(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let names = names.map(|name| name.into_string().unwrap());
    names.filter(|name| name.contains(".part")).collect()
}

/// Runs what must be refused: the exit code, and one line that says why.
fn refused(words: &[&str], code: i32, told: &str) -> String {
    let out = russet(words);
    let said = errors(&out);
    assert_eq!(out.status.code(), Some(code), "{words:?}: {said}");
    assert!(said.contains(told), "{told:?} is missing in {said:?}");
    said
}

/// Runs the binary to its end; what serves instead of refusing is ended after a while.
fn russet(words: &[&str]) -> Output {
    let mut command = Command::new("timeout");
    command.arg("20").arg(env!("CARGO_BIN_EXE_russet")).args(words);
    command.env_remove("RUSSET_ENDPOINTS").output().expect("start russet")
}

fn errors(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
