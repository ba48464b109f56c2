//! The operator's commands in the place of a transport: who is visited, with what, and what stands in the lease.

mod common;

use std::sync::Arc;

use common::*;
use russet_core::{
    Calc, Change, Fact, Fault, Source,
    calc::Standing,
    change::FactId,
    errand::{Visit, Wanted, wanted, words},
    model::{
        Backend, ExtensionConfig, Foreign, Lease, LeaseKey, NetworkConfig, NodeFact, Prepared,
        Settings, TransportConfig, UnderlayFact,
    },
};
use russet_desired::Flag;

#[test]
fn a_peer_is_visited_with_what_its_lease_says() {
    let mut calc = ready(config(15));
    calc.apply([upsert_lease("10.50.1.0/24", peer(3, Some("mac of 3")), 1)]);
    let wanted = wanted(&calc);
    assert_eq!(wanted.start.as_ref().unwrap().environment["SUBNET"], "10.50.7.0/24");
    assert_eq!(wanted.start.unwrap().environment["PUBLIC_IP"], "192.168.77.1");
    assert!(wanted.sweeps.is_on() && wanted.prepare.is_empty());
    let visit = &wanted.visits[&lease_key("10.50.1.0/24", "")];
    let (add, remove) = (visit.add.as_ref().unwrap(), visit.remove.as_ref().unwrap());
    assert_eq!((&*add.input, &*remove.input), ("mac of 3", "mac of 3"));
    let said: Vec<_> =
        add.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(said, ["NETWORK=10.50.0.0/16", "PUBLIC_IP=192.168.77.3", "SUBNET=10.50.1.0/24"]);
    let variable = |name: &str| add.environment.get(name).cloned();
    assert_eq!(words(&add.command, variable), ["add", "10.50.1.0/24"]);
    assert!(calc.tables().routes.is_empty(), "what reaches a peer is none of ours");
}

/// What is wanted is worked out anew only at another one, and it takes long in a large cluster.
#[test]
fn the_generation_changes_with_the_peers_and_not_with_the_pods() {
    let mut calc = ready(config(15));
    let before = calc.generation();
    calc.apply([upsert_lease("10.50.1.0/24", peer(3, None), 1)]);
    let with_peer = calc.generation();
    assert_ne!(with_peer, before);
    let came = Change::Upsert {
        id: FactId::Pod(pod_id(1)),
        fact: Fact::Pod(Box::new(pod(1, 1500))),
        rev: 0,
    };
    calc.apply([came, new_node(node())]);
    assert_eq!(calc.generation(), with_peer);
    calc.apply([Change::Resync(Source::Store)]);
    let doubted = calc.generation();
    assert!(wanted(&calc).sweeps == Flag::Off && doubted != with_peer);
    calc.apply([new_config(config(0))]);
    assert_ne!(calc.generation(), doubted);
}

#[test]
fn only_peers_that_stand_and_have_the_backend_are_visited() {
    let mut calc = ready(config(15));
    calc.apply([
        upsert_lease("10.50.1.0/24", peer(3, None), 1),
        upsert_lease("10.50.2.0/24", peer(3, None), 2),
        upsert_lease("10.99.3.0/24", peer(4, None), 3),
        upsert_lease("10.50.4.0/24", vxlan_lease(77, 5), 4),
        upsert_lease("10.50.5.0/24", vxlan_lease(99, 6), 5),
        upsert_lease(
            "10.50.6.0/24",
            Lease { backend: Backend::Foreign(Foreign::Ipsec), ..peer(7, None) },
            6,
        ),
    ]);
    let visited: Vec<_> = wanted(&calc).visits.into_keys().collect();
    assert_eq!(visited, [lease_key("10.50.1.0/24", "")]);
    assert!(told(&calc, "10.50.2.0/24").contains("there first"));
    assert!(told(&calc, "10.99.3.0/24").contains("not within"));
    assert_eq!(standing(&calc, "10.50.4.0/24"), Some(Standing::Direct));
    assert!(told(&calc, "10.50.5.0/24").contains("not on a link"));
    assert!(told(&calc, "10.50.6.0/24").contains("ipsec"));
}

#[test]
fn a_peer_with_commands_is_named_where_the_pool_has_none() {
    for pool in [0, 2, 5] {
        let mut calc = ready(config(pool));
        calc.apply([upsert_lease("10.50.1.0/24", peer(3, None), 1)]);
        assert!(told(&calc, "10.50.1.0/24").contains("extension"), "{pool}");
        assert!(wanted(&calc).visits.is_empty());
    }
}

#[test]
fn a_pool_that_leaves_the_commands_wants_nobody_visited() {
    let mut calc = ready(config(15));
    calc.apply([upsert_lease("10.50.1.0/24", peer(3, None), 1)]);
    calc.apply([new_config(config(0))]);
    assert_eq!(wanted(&calc).visits.values().next(), None::<&Visit>);
    assert!(wanted(&calc).sweeps.is_on());
}

#[test]
fn a_node_that_was_not_told_to_runs_nothing_and_says_what_is_missing() {
    let mut calc = ready_with(Settings { commands: Flag::Off, ..settings() }, config(0));
    calc.apply([upsert_lease("10.50.1.0/24", peer(3, None), 1), new_config(with_pre("pre"))]);
    assert!(refusal(&calc).unwrap().to_string().contains("allow-commands"));
    assert_eq!(wanted(&calc), Wanted::default());
    assert_eq!(calc.world().in_force().unwrap().config, config(0), "the old one stays in force");
}

#[test]
fn what_the_first_command_prints_is_waited_for_and_stands_in_the_lease() {
    let mut calc = ready(config(0));
    calc.apply([new_config(with_pre("pre"))]);
    assert_eq!(refusal(&calc), Some(Fault::CommandRuns { name: "PreStartupCommand" }));
    assert_eq!(wanted(&calc).prepare, ["pre".into()].into());
    assert_eq!(calc.world().in_force().unwrap().config, config(0), "the old one stays in force");

    calc.apply([new_node(prepared("pre", Err("exit status 1".into())))]);
    let told = refusal(&calc).unwrap().to_string();
    assert!(told.contains("PreStartupCommand") && told.contains("exit status 1"), "{told}");

    calc.apply([new_node(prepared("pre", Ok("02:00:00:00:00:07".into())))]);
    assert_eq!(refusal(&calc), None);
    let ours = calc.world().in_force().unwrap().advertise();
    assert_eq!(ours.backend, Backend::Extension(Some("02:00:00:00:00:07".into())));
}

#[test]
fn what_the_commands_laid_in_an_earlier_life_is_not_in_the_way() {
    for (pool, dst, stands) in [
        (15, "10.50.200.0/24", true),
        (14, "10.50.200.0/24", true),
        (0, "10.50.200.0/24", false),
        (15, "10.50.0.0/16", false),
        (15, "10.0.0.0/8", false),
    ] {
        let mut calc = Calc::new(settings());
        let foreign = vec![foreign_route(dst, "eth0")];
        calc.apply([new_config(config(pool)), new_node(NodeFact { foreign, ..node() })]);
        assert_eq!(calc.world().in_force().is_some(), stands, "{pool} {dst}");
    }
}

fn standing<'a>(calc: &'a Calc, subnet: &str) -> Option<Standing<'a>> {
    let key: LeaseKey = lease_key(subnet, "");
    calc.peers().find(|peer| peer.key == key).map(|peer| peer.standing)
}

fn refusal(calc: &Calc) -> Option<Fault> {
    calc.refusals().get(&FactId::Config).cloned()
}

fn peer(n: u8, data: Option<&str>) -> Lease {
    Lease { backend: Backend::Extension(data.map(Arc::from)), ..vxlan_lease(77, n) }
}

fn with_pre(command: &str) -> NetworkConfig {
    let extension = ExtensionConfig { pre_startup: Some(command.into()), ..extension() };
    let transport = TransportConfig::Extension(extension);
    NetworkConfig::new(Some(pool("10.50.0.0/16")), None, transport).unwrap()
}

fn prepared(command: &str, result: Result<Arc<str>, Arc<str>>) -> NodeFact {
    let prepared = Prepared::from([(command.into(), result)]);
    NodeFact { underlay: UnderlayFact { prepared, ..node().underlay }, ..node() }
}
