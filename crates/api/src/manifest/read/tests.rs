use std::fmt::Write as _;

use serde_json::json;

use super::*;

fn one(text: &str) -> Node {
    let (documents, faults) = read(text);
    assert_eq!(faults, []);
    let [document] = <[_; 1]>::try_from(documents).expect("one document");
    document.node
}

/// The complaints as `line:column reason`.
fn told_of(text: &str) -> Vec<String> {
    let show = |c: Complaint| format!("{}:{} {}", c.span.line, c.span.column, c.reason);
    read(text).1.into_iter().map(show).collect()
}

fn complains(text: &str, at: &str, reason: &str) {
    let told = told_of(text);
    let found = told.iter().any(|line| line.starts_with(at) && line.contains(reason));
    assert!(found, "{at} {reason} is not in {told:#?}");
}

const POOL: &str = "\
apiVersion: projectcalico.org/v3
kind: IPPool
metadata:
  name: 'web'
  labels: {rack.io/a: \"1\"}
spec:
  blockSize: 33
  uses: [Workload,
    Tunnel]
";

#[test]
fn values_are_read_and_every_path_has_its_place() {
    let node = one(POOL);
    assert_eq!(
        node.value(),
        json!({"apiVersion": "projectcalico.org/v3", "kind": "IPPool",
               "metadata": {"name": "web", "labels": {"rack.io/a": "1"}},
               "spec": {"blockSize": 33, "uses": ["Workload", "Tunnel"]}})
    );
    for (path, place) in [
        ("spec.blockSize", (7, 14, 2)),
        ("spec.uses[1]", (9, 5, 6)),
        // What is missing is shown where it would be, and a collection by its name.
        ("spec.cidr", (6, 1, 4)),
        ("spec.uses[7]", (8, 3, 4)),
        ("spec.uses[x]", (8, 3, 4)),
        ("spec.blockSize.deeper", (7, 14, 2)),
        ("metadata.labels[\"rack.io/a\"]", (5, 23, 3)),
        ("metadata.labels.rack.io/a", (5, 23, 3)),
        ("status", (1, 1, 10)),
        ("", (1, 1, 10)),
    ] {
        let (_, span) = node.find(path);
        assert_eq!((span.line, span.column, span.width), place, "{path}");
    }
}

#[test]
fn json_is_read_too_with_tabs_and_in_one_line() {
    let text = "{\n\t\"kind\": \"IPPool\",\n\t\"spec\": {\"blockSize\": 26, \"on\": [true, null, 1.5]}\n}\n";
    assert_eq!(
        one(text).value(),
        json!({"kind": "IPPool", "spec": {"blockSize": 26, "on": [true, null, 1.5]}})
    );
    assert_eq!(one(text).find("spec.blockSize").1.line, 3);
}

#[test]
fn documents_without_anything_are_none_and_one_that_is_broken_hides_no_other() {
    let (documents, faults) =
        read("# nothing\n---\n---\na: 1\n---\n# nothing\n---\nb: [1,\n---\nc: 3\n---\nd: d: d\n");
    let values: Vec<_> = documents.iter().map(|document| document.node.value()).collect();
    assert_eq!(values, [json!({"a": 1}), json!({"c": 3})]);
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert_eq!(faults[1].span.line, 12, "{faults:?}");
}

#[test]
fn what_is_twice_is_told_with_the_first_line() {
    complains(
        "spec:\n  cidr: a\n  x: 1\n  cidr: b\n",
        "4:3 ",
        "\"cidr\" is there already, in line 2",
    );
    complains("{a: 1, \"a\": 2}", "1:8 ", "in line 1");
    // Names of different objects are not twice.
    assert!(told_of("a: {n: 1}\nb: {n: 1}\n").is_empty());
}

#[test]
fn tabs_and_truncated_texts_are_told_with_their_place() {
    complains("spec:\n\tcidr: 10.0.0.0/8\n", "2:", "indent with blanks");
    complains("spec:\n  cidr: \"10.0.0.0/8\n", "", "");
    complains("spec: [1, 2\n", "", "");
    complains("spec:\n  - a\n b\n", "3:", "");
    complains("a: *nobody\n", "1:4", "");
    complains("a: &x [*x]\n", "1:8", "within what it stands for");
    complains("<<: {a: 1}\n", "1:1", "merge keys are not read");
    complains("? [a]\n: 1\n", "1:3", "the name of a field is a text");
    complains("a: !python/object:os.system x\n", "1:", "leave it out");
}

#[test]
fn a_bomb_of_aliases_ends_at_the_bound() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for n in 1..12 {
        let last = vec![format!("*a{}", n - 1); 10].join(", ");
        let _ = writeln!(text, "a{n}: &a{n} [{last}]");
    }
    complains(&text, "", "aliases of aliases");
}

#[test]
fn depth_is_bounded_in_every_style() {
    complains(&"[".repeat(100_000), "1:", "more than 64 deep");
    let block: Vec<_> = (0..1_000).map(|n| " ".repeat(n) + "a:\n").collect();
    complains(&block.concat(), "", "more than 64 deep");
    complains(&"- ".repeat(10_000), "", "more than 64 deep");
}

#[test]
fn depth_is_bounded_through_aliases_too() {
    let chain = |many: usize| {
        let mut text = "- &a0 x\n".to_owned();
        for n in 1..many {
            let _ = writeln!(text, "- &a{n} {{in: *a{}}}", n - 1);
        }
        text
    };
    // The list is one level, and the first is none below its item.
    assert_eq!(told_of(&chain(64)), Vec::<String>::new());
    complains(&chain(65), "65:", "more than 64 deep");
    complains(&chain(1_000), "65:", "more than 64 deep");
    assert_eq!(read(&chain(1_000)).1.len(), 1);
}

#[test]
fn complaints_are_bounded() {
    let twice = "a: 1\n".repeat(10_000);
    assert_eq!(told_of(&twice).len(), MOST_COMPLAINTS);
    for slip in ["- !x a\n", "- !x [a]\n", "- <<: a\n", "- [b]: a\n", "- &x [*x]\n", "- !x {}\n"] {
        let (documents, faults) = read(&slip.repeat(1_000));
        assert_eq!((documents.len(), faults.len()), (0, MOST_COMPLAINTS), "{slip}");
        // A few hide nothing else.
        assert_eq!(read(&slip.repeat(2)).0.len(), 1, "{slip}");
    }
    let broken = "---\na: [\n".repeat(10_000);
    assert!(told_of(&broken).len() <= MOST_COMPLAINTS);
}

#[test]
fn octets_that_are_no_utf_8_are_told_with_their_place() {
    let fault = text_of(b"kind: IPPool\nname: \xc3\xa9\xff").unwrap_err();
    assert_eq!((fault.span.line, fault.span.column), (2, 8));
    assert!(fault.reason.contains("0xff"), "{}", fault.reason);
    assert_eq!(text_of(b"\xef\xbb\xbfa: 1"), Ok("a: 1"));
    let utf16: Vec<u8> = "\u{feff}a".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(text_of(&utf16).is_err());
    assert!(text_of(&vec![b' '; MOST_OCTETS + 1]).unwrap_err().reason.contains("more than"));
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "[\\x00-\\x7f\\u{80}-\\u{2ff}]{0,200}") {
        read(&text);
    }

    /// The characters that mean something.
    #[test]
    fn any_yaml_is_read_or_refused(text in "[-ab:?\\[\\]{},&*!|>'\"%@` \n\t#0]{0,80}") {
        read(&text);
    }
}
