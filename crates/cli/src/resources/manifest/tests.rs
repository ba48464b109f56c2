use super::*;

fn read_text(text: &str) -> Manifest {
    let source = Source { name: "f.yaml".into(), octets: text.into() };
    Manifest::read(vec![source], &Reading::to_write())
}

/// What is told, without the lines that are shown.
fn told(text: &str) -> Vec<String> {
    let shown = read_text(text).shown();
    shown
        .lines()
        .filter(|line| line.starts_with("f.yaml:"))
        .map(|line| line[7..].to_owned())
        .collect()
}

fn pool(spec: &str) -> String {
    format!("apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata:\n  name: web\nspec:\n{spec}")
}

#[test]
fn faults_stand_where_they_are() {
    for (spec, wanted) in [
        (
            "  cidr: 10.0.0.0/16\n  blockSize: 33\n",
            "7:14: IPPool web: spec.blockSize: a block of 33 bits is not within 20 to 32",
        ),
        ("  blockSize: 26\n", "5:1: IPPool web: spec.cidr: it is missing"),
        ("  cidr: 10.0.0.1/16\n", "6:9: IPPool web: spec.cidr: "),
        (
            "  cidr: fd00::/48\n  ipipMode: Always\n",
            "7:13: IPPool web: spec.ipipMode: fd00::/48 is IPv6 and IPIP carries IPv4 only",
        ),
        (
            "  {cidr: 10.0.0.0/16, ipipMode: Always, vxlanMode: Always}\n",
            "6:52: IPPool web: spec.vxlanMode: IPIP and VXLAN are both on",
        ),
        (
            "  cidr: 10.0.0.0/16\n  allowedUses:\n  - Workload\n  - Pod\n",
            "9:5: IPPool web: spec.allowedUses[1]: \"Pod\" is not one of",
        ),
        (
            "  cidr: 10.0.0.0/16\n  natOutgoing: yes\n",
            "7:16: IPPool web: spec.natOutgoing: \"yes\" is not true or false",
        ),
        (
            "  cidr: 10.0.0.0/16\n  blocksize: 26\n",
            "7:3: warning: IPPool web: unknown field `blocksize`; did you mean `blockSize`?",
        ),
        (
            "  cidr: 10.0.0.0/16\n  zeal: 26\n",
            "7:3: warning: IPPool web: unknown field `zeal`; it is kept",
        ),
    ] {
        let told = told(&pool(spec));
        assert!(told.len() == 1 && told[0].starts_with(wanted), "{wanted}\n{told:?}");
    }
}

#[test]
fn the_mark_goes_into_the_selector_where_the_line_has_it_as_it_is_read() {
    for (line, column) in [
        ("nodeSelector: zone == 'a' & b", 29),
        ("nodeSelector: \"zone == 'a' & b\"", 30),
        // Escaped, so that columns of the text are not those of the line.
        ("nodeSelector: \"zone == \\x27a' & b\"", 17),
    ] {
        let told = told(&pool(&format!("  cidr: 10.0.0.0/16\n  {line}\n")));
        let wanted = format!("7:{column}: IPPool web: spec.nodeSelector: selector, column 13: ");
        assert!(told.len() == 1 && told[0].starts_with(&wanted), "{wanted}\n{told:?}");
    }
}

#[test]
fn all_faults_of_all_documents_are_told_at_once() {
    let text = pool("  cidr: 10.0.0.0/16\n  blockSize: 33\n")
        + "---\nkind: IPPol\n---\na: [\n---\n"
        + &pool("  cidr: x\n  cidr: y\n")
        + "---\nkind: NetworkPolicy\n---\nkind: IPAMBlock\n---\nno: kind\n---\n- 1\n---\nkind: IPPoolList\nitems: 1\n";
    let told = told(&text).join("\n");
    for wanted in [
        "7:14: ",
        "kind: \"IPPol\" is none of Calico's; did you mean IPPool?",
        "unclosed bracket",
        "\"cidr\" is there already, in line 18",
        "commands do not handle NetworkPolicy yet",
        "objects of kind IPAMBlock are written by whoever",
        "an object is wanted: kind, apiVersion",
        "items: a list is wanted",
    ] {
        assert!(told.contains(wanted), "{wanted}\n{told}");
    }
    let refused = read_text(&text).stop_at_faults("nothing was written").unwrap_err().to_string();
    assert!(refused.ends_with("faults; nothing was written"), "{refused}");
}

#[test]
fn lists_are_taken_apart_in_every_form() {
    let one = |name: &str, net: u8| {
        format!(
            "{{apiVersion: projectcalico.org/v3, kind: IPPool, metadata: {{name: {name}}}, spec: {{cidr: 10.{net}.0.0/16}}}}"
        )
    };
    let (a, b, c) = (one("a", 1), one("b", 2), one("c", 3));
    for text in [
        format!("{a}\n---\n{b}\n---\n{c}\n"),
        format!("[{a}, {b}, {c}]"),
        format!(
            "kind: List\napiVersion: v1\nitems: [{a}, {{kind: IPPoolList, items: [{b}, {c}]}}]\n"
        ),
        format!("kind: IPPoolList\nitems:\n- {a}\n- {b}\n- {c}\n"),
    ] {
        let manifest = read_text(&text);
        assert_eq!(manifest.shown(), "");
        let names: Vec<_> = manifest.objects().iter().map(|o| o.id.name.to_string()).collect();
        assert_eq!(names, ["a", "b", "c"], "{text}");
    }
    let deep = "[".repeat(5) + &a + &"]".repeat(5);
    assert!(told(&deep)[0].contains("a list in a list in a list"));
}

#[test]
fn what_is_twice_in_the_files_is_told_with_the_other_place() {
    let text = pool("  cidr: 10.0.0.0/16\n") + "---\n" + &pool("  cidr: 10.1.0.0/16\n");
    assert_eq!(
        told(&text),
        [
            "11:9: IPPool web: it is there already, from line 1 of f.yaml on; one of the two is wanted"
        ]
    );
}

#[test]
fn a_namespace_is_filled_in_where_a_kind_has_one() {
    let wep = "apiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\nmetadata: {name: w}\nspec: {orchestrator: k8s, node: n, endpoint: eth0, interfaceName: cali1}\n";
    let id = |reading: &Reading| {
        let source = Source { name: "f".into(), octets: wep.into() };
        called(&Manifest::read(vec![source], reading).into_ids()[0])
    };
    assert_eq!(id(&Reading::to_write()), "WorkloadEndpoint default/w");
    let prod = Reading { namespace: Some("prod".parse().unwrap()), ..Reading::to_write() };
    assert_eq!(id(&prod), "WorkloadEndpoint prod/w");
    // A pool lies in none.
    let pools = Manifest::read(
        vec![Source { name: "f".into(), octets: pool("  cidr: 10.0.0.0/16\n").into() }],
        &prod,
    );
    assert_eq!(pools.into_ids()[0].namespace, None);
}

#[test]
fn a_text_without_any_object_is_no_success() {
    for text in ["", "# nothing\n", "---\n---\n"] {
        assert!(read_text(text).stop_at_faults("x").is_err(), "{text:?}");
    }
}

#[test]
fn names_that_could_leave_their_key_are_refused() {
    for name in ["../nodes/x", "a/b", "\"\"", "\"a\\0b\"", ".."] {
        let text = pool("  cidr: 10.0.0.0/16\n").replace("web", name);
        let told = told(&text).join("\n");
        assert!(told.contains("metadata.name"), "{name}: {told}");
    }
}

#[test]
fn a_warning_beside_a_fault_stays_one() {
    let told = told(&pool("  cidr: 10.0.0.1/16\n  blocksize: 26\n"));
    assert!(told[1].contains("warning: "), "{told:?}");
}

#[test]
fn warnings_without_number_hinder_nothing_and_hide_no_fault() {
    // Of one object no more than 32 are told.
    let strangers: Vec<_> = (0..25).map(|i| format!("  zeal{i}: 1\n")).collect();
    let strangers = strangers.concat();
    let pools = |last: &str| {
        let one = |i| {
            let cidr = if i == 39 { last.to_owned() } else { format!("10.{i}.0.0/16") };
            pool(&format!("{strangers}  cidr: {cidr}\n"))
                .replace("name: web", &format!("name: w{i}"))
        };
        (0..40).map(one).collect::<Vec<_>>().join("---\n")
    };
    let warned = read_text(&pools("10.39.0.0/16"));
    assert!(warned.stop_at_faults("x").is_ok());
    let shown = warned.shown();
    assert_eq!(shown.matches(": warning: ").count(), MOST_TOLD);
    assert!(shown.ends_with("and 800 more\n"), "{shown}");

    // The fault is found when the warnings have no room left.
    let faulty = read_text(&pools("10.39.0.1/16"));
    let refused = faulty.stop_at_faults("x").unwrap_err().to_string();
    assert!(refused.contains("spec.cidr: ") && refused.ends_with("1 fault and 1000 warnings; x"));

    let mut strict = warned;
    strict.warnings_are_faults();
    assert!(strict.stop_at_faults("x").unwrap_err().to_string().ends_with("1000 faults; x"));
}
