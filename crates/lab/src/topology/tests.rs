//! What a topology file may say, and what is told of one that is wrong.

use super::*;

#[test]
fn a_small_file_gets_its_defaults() {
    let topology = parse(SMALL).unwrap();
    assert_eq!(topology.mtu, Mtu::ETHERNET);
    assert_eq!(topology.router, form::Router::Forwards);
    let text =
        |node: &Node| node.addresses.iter().map(|(a, l)| format!("{a}/{l}")).collect::<Vec<_>>();
    assert_eq!(text(&topology.nodes[0]), ["192.168.1.11/24", "fd00:1::11/64"]);
    assert_eq!(text(&topology.nodes[1]), ["192.168.2.12/24"]);
    assert_eq!(topology.stores()[0].1.to_string(), "192.168.1.11:2379");
    assert_eq!(
        topology.nodes[1].programs[1].kind,
        ProgramKind::Command(vec!["sleep".into(), "9".into()])
    );
}

#[test]
fn upon_etcd_the_store_keeps_its_name_and_the_lab_gets_another() {
    let topology = parse(SMALL).unwrap();
    let (name, steps) = (topology.name.to_string(), topology.steps.len());
    let kinds = |topology: &Topology| {
        let programs = topology.nodes.iter().flat_map(|node| &node.programs);
        programs.map(|p| (p.name.to_string(), p.kind.clone())).collect::<Vec<_>>()
    };
    assert!(kinds(&topology).contains(&("store".to_owned(), ProgramKind::Store)));

    let upon = topology.upon(Stores::Etcd);

    assert!(kinds(&upon).contains(&("store".to_owned(), ProgramKind::Etcd)));
    assert!(!kinds(&upon).iter().any(|(_, kind)| *kind == ProgramKind::Store));
    assert!(upon.needs.contains(&Need::Etcd));
    assert_eq!(upon.name.to_string(), format!("{name}-etcd"));
    assert_eq!(upon.steps.len(), steps);
    let long: Name = "a".repeat(Name::MAX_LEN).parse().unwrap();
    let suffixed = long.with_suffix("-etcd").to_string();
    assert!(suffixed.ends_with("a-etcd") && suffixed.parse::<Name>().is_ok(), "{suffixed}");
}

#[test]
fn every_fault_is_told_at_once_with_its_line() {
    let err = parse(
        "name: Bad
needs: [vxlan, teleport]
underlay:
  mtu: 99
  subnets:
    - {name: left, ipv4: 192.168.1.1/24}
nodes:
  - {name: n1, subnet: right, runs: [agent, {name: x, comand: [a]}]}
  - name: n1
    color: red
pods:
  - {name: a}
  - {name: b, node: n7}
steps:
  - wait: soon
  - explode: n1
expect:
  - eventually: {reach: {from: a, to: nobody}}
",
    )
    .unwrap_err()
    .to_string();
    for wanted in [
        "line 1: name: \"Bad\" is no name",
        "line 2: needs[1]: \"teleport\" is none of: vxlan, tun",
        "line 4: underlay.mtu: 99 is beyond the minimum, 576",
        "line 6: underlay.subnets[0].ipv4: \"192.168.1.1/24\" is not a subnet: it has host bits set; the subnet is 192.168.1.0/24",
        "line 8: nodes[0].subnet: there is no subnet \"right\"; known are: left",
        "line 8: nodes[0].runs[1].comand: there is no key `comand` here; known are: command, env, name",
        "line 8: nodes[0].runs[1]: `command` is missing",
        "line 9: nodes[1].name: the name \"n1\" is taken already, by nodes",
        "line 10: nodes[1].color: there is no key `color` here",
        "line 12: pods[0]: `node` is missing",
        "line 13: pods[1].node: there is no node \"n7\"; known are: n1",
        "line 15: steps[0].wait: \"soon\" is no length of time",
        "line 16: steps[1]: a mapping is none of: apply: …",
        "line 18: expect[0].eventually.reach.to: there is no node, pod or address \"nobody\"",
    ] {
        assert!(err.contains(wanted), "{wanted:?} is not in:\n{err}");
    }
}

#[test]
fn what_contradicts_itself_is_told_with_its_line() {
    let err = parse(
        "name: bad
underlay:
  subnets:
    - {name: left, ipv4: 192.168.1.0/24}
    - {name: right, ipv4: 192.168.0.0/16}
    - {name: none}
    - {name: tiny, ipv4: 10.0.0.0/30}
    - {name: mixed, ipv4: 'fd00::/64'}
nodes:
  - {name: n1, subnet: left, ipv4: 10.9.9.9, files: {/usr/bin/x: a, /run/../etc: b}}
  - {name: n2}
  - {name: n3, subnet: left, runs: [agent, agent]}
config: {Network: 10.244.0.0/16}
steps:
  - stop: {node: n3, process: store}
expect:
  - eventually: {within: 5s}
  - always: {reach: {from: n1, to: 'fd00::1', by: tcp}}
  - eventually: {route: {node: n1}}
",
    )
    .unwrap_err()
    .to_string();
    for wanted in [
        "line 5: underlay.subnets[1]: 192.168.0.0/16 overlaps the subnet left",
        "line 6: underlay.subnets[2]: `ipv4` or `ipv6` is wanted",
        "line 7: underlay.subnets[3].ipv4: 10.0.0.0/30 is too small",
        "line 8: underlay.subnets[4].ipv4: fd00::/64 is no IPv4 subnet",
        "line 10: nodes[0].ipv4: 10.9.9.9 must lie in 192.168.1.0/24",
        "line 10: nodes[0].files: \"/usr/bin/x\" is not below a folder of the node's own",
        "line 10: nodes[0].files: \"/run/../etc\" is not below",
        "line 11: nodes[1]: `subnet` is missing",
        "line 12: nodes[2].runs[1]: agent runs on this node already",
        "line 13: config: no node runs a store",
        "line 15: steps[0]: n3 does not run store",
        "line 17: expect[0]: exactly one condition is wanted",
        "line 18: expect[1]: a stream has no packets to count",
        "line 18: expect[1]: fd00::1 is no IPv4 address",
        "line 19: expect[2]: one of `dst` and `within` is wanted",
    ] {
        assert!(err.contains(wanted), "{wanted:?} is not in:\n{err}");
    }
}

#[test]
fn calico_s_objects_lie_where_calico_looks_for_them() {
    let read = |resources: &str| {
        parse(&format!(
            "name: a\nunderlay: {{subnets: [{{name: one, ipv4: 192.168.1.0/24}}]}}\nnodes: [{{name: n1, runs: [store]}}]\n\
             resources:\n{resources}"
        ))
    };
    let topology = read(
        "- {kind: IPPool, metadata: {name: four}, spec: {}}\n- {kind: CalicoNodeStatus, metadata: {name: s}, spec: {}}\n\
         - {kind: GlobalNetworkPolicy, metadata: {name: p}, spec: {}}\n",
    );
    let keys: Vec<_> = topology.unwrap().resources.iter().map(|(key, _)| key.to_string()).collect();
    let at = |rest: &str| format!("/calico/resources/v3/projectcalico.org/{rest}");
    let wanted = ["ippools/four", "caliconodestatuses/s", "globalnetworkpolicies/p"].map(at);
    assert_eq!(keys, wanted);

    let refused = read(
        "- {kind: IPPols, metadata: {name: four}, spec: {}}\n- {kind: NetworkPolicy, metadata: {name: p}, spec: {}}\n\
         - {kind: IPAMConfiguration, metadata: {name: default}, spec: {}}\n- {kind: IPAMBlock, metadata: {name: b}, spec: {}}\n\
         - {kind: Node, metadata: {name: a/b}, spec: {}}\n",
    );
    let refused = refused.unwrap_err().to_string();
    for wanted in [
        "line 5: resources[0]: \"IPPols\" is no kind of Calico's",
        "line 6: resources[1]: NetworkPolicy lies in a namespace",
        "line 7: resources[2]: IPAMConfiguration has another form",
        "line 8: resources[3]: IPAMBlock has another form",
        "line 9: resources[4]: its name: ",
    ] {
        assert!(refused.contains(wanted), "{wanted:?} is not in:\n{refused}");
    }
}

#[test]
fn what_is_no_yaml_is_told_with_its_line() {
    let err = parse("name: a\nnodes: [\n").unwrap_err();
    assert_eq!(err.faults.len(), 1);
    assert!(err.faults[0].line >= 2, "{err}");
}

#[test]
fn every_topology_of_the_documentation_is_sound() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/lab");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ext| ext == "yaml") {
            Topology::read(&path, &[]).unwrap();
            seen += 1;
        }
    }
    assert!(seen >= 3, "{seen}");
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "[a-z0-9:{}\\[\\] \n\"'./-]{0,200}") {
        let _ = parse(&text);
    }
}

fn parse(text: &str) -> Result<Topology, Faults> {
    Topology::parse("t.yaml", text)
}

const SMALL: &str = "
name: small
underlay:
  subnets:
    - {name: left, ipv4: 192.168.1.0/24, ipv6: 'fd00:1::/64'}
    - {name: right, ipv4: 192.168.2.0/24}
nodes:
  - {name: n1, subnet: left, runs: [store, agent]}
  - {name: n2, subnet: right, runs: [agent, {name: nap, command: [sleep, '9']}]}
pods:
  - {name: a, node: n1}
config: {Network: 10.244.0.0/16, Backend: {Type: vxlan}}
steps:
  - kill: {node: n1, process: agent}
  - heal: {}
  - add_pod: a
  - wait: 1s
expect:
  - eventually: {within: 5s, reach: {from: a, to: n2, by: udp}}
  - always: {reach: {from: n1, to: 192.168.2.12}, lost: 0}
";
