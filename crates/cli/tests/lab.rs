//! End to end: every topology of `tests/topologies` and of `docs/lab` holds, with the built binaries on the
//! real kernel. Each runs in namespaces of its own that vanish with it.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// One test for each topology file: `alone` as it is written, `both` a second time with a real etcd in the place of
/// our store.
macro_rules! topologies {
    ($($folder:literal { $($stores:ident $name:ident $file:literal),+ $(,)? })+) => {
        $($(#[test]
        fn $name() {
            holds(&root().join($folder).join($file), "store");
        })+)+

        mod on_etcd {
            use super::*;

            $($(topologies!(@$stores $name $folder $file);)+)+
        }

        /// A file that no test runs would be a promise that nobody checks.
        #[test]
        fn every_topology_has_its_test() {
            $(assert_eq!(files(&root().join($folder)), sorted(&[$($file),+]), "{}", $folder);)+
        }
    };
    (@both $name:ident $folder:literal $file:literal) => {
        #[test]
        fn $name() {
            holds(&root().join($folder).join($file), "etcd");
        }
    };
    (@alone $name:ident $folder:literal $file:literal) => {};
}

topologies! {
    "crates/cli/tests/topologies" {
        both a_killed_agent_loses_no_packet "agent-killed.yaml",
        alone pods_live_and_are_added_while_the_store_is_away "store-away.yaml",
        both what_is_taken_away_comes_back "tampered.yaml",
        both what_is_not_ours_stays_as_it_is "strangers.yaml",
        both a_foreign_forward_chain_that_drops_is_named_and_passed "forward-drop.yaml",
        both a_bad_configuration_leaves_the_last_good_one_in_force "bad-config.yaml",
        both a_bad_configuration_does_not_replace_the_good_one_on_disk "bad-config-kept.yaml",
        both a_corrupt_lease_costs_only_its_own_peer "corrupt-lease.yaml",
        both an_emptied_store_removes_nothing "store-emptied.yaml",
        both a_store_that_is_killed_and_comes_back_is_not_noticed "store-restarted.yaml",
        both a_store_that_is_killed_over_and_over_keeps_what_it_answered "store-killed.yaml",
        both the_keys_move_to_another_store_while_agents_work "store-moved.yaml",
        both a_store_that_is_wiped_while_it_is_watched_removes_nothing "store-wiped.yaml",
        both a_deleted_lease_is_taken_again "lease-deleted.yaml",
        both two_nodes_with_one_address_say_so_and_neither_takes_from_the_other "same-address.yaml",
        both a_stolen_subnet_leaves_its_pods_to_their_node "lease-stolen.yaml",
        both what_leaves_the_network_takes_the_node_s_address "masquerade.yaml",
        both ipv6_alone_works_with_our_own_keys "ipv6-alone.yaml",
        alone a_real_etcd_serves_as_well "etcd.yaml",
        both both_families_go_without_a_tunnel "direct-dual.yaml",
        both a_node_that_left_unseen_is_swept_at_the_start "peer-left.yaml",
        both a_changed_vni_or_backend_leaves_nothing_behind "vni-changed.yaml",
        alone a_path_that_swallows_large_packets_is_named "black-hole.yaml",
        alone a_card_that_spoils_checksums_in_the_tunnel_is_found_and_spared "spoiled-checksums.yaml",
        both what_stands_in_the_way_is_named_and_left "obstacles.yaml",
        both a_stranger_s_route_at_our_key_is_named_and_left "route-held.yaml",
        both pods_that_come_and_go_under_kills_leak_no_address "churn.yaml",
        both pods_meet_by_udp_datagrams "udp.yaml",
        both both_families_go_by_udp "udp-dual.yaml",
        both a_killed_agent_s_engine_loses_no_packet "udp-agent-killed.yaml",
        alone a_killed_engine_is_replaced_and_its_routes_stay "udp-engine-killed.yaml",
        alone an_engine_is_replaced_under_traffic_without_loss "udp-engine-upgraded.yaml",
        alone who_leaves_ends_the_engines_too "engine-stopped.yaml",
        alone a_node_of_calico_s_own_programs_stands_beside_ours "felix.yaml",
        alone a_node_changes_over_from_calico_s_own_programs_and_back "felix-out.yaml",
        both calico_s_nodes_seal_by_wireguard_and_stop_it_again "calico-wireguard.yaml",
        alone calico_s_nodes_seal_one_family_after_the_other "calico-wireguard-dual.yaml",
        both routed_pods_need_no_bridge_and_cannot_speak_for_each_other "routed.yaml",
        both udp_and_vxlan_go_side_by_side "udp-mixed.yaml",
        both what_others_carry_is_left_to_them "alloc.yaml",
        both commands_of_the_operator_s_carry_what_pods_send "extension.yaml",
        both what_flanneld_left_is_taken_over_under_traffic "adoption.yaml",
        both what_flanneld_left_of_both_families_is_taken_over "adoption-dual.yaml",
        both the_routes_of_host_gw_are_taken_over_where_they_are_right "adoption-host-gw.yaml",
        both a_node_under_flanneld_s_name_is_one_like_any_other "flanneld.yaml",
        both flanneld_s_switches_do_what_they_say "flanneld-switches.yaml",
        both sealed_pods_meet_while_agents_are_killed "wireguard.yaml",
        alone both_families_are_sealed "wireguard-dual.yaml",
        alone an_engine_that_seals_is_replaced_under_traffic_without_loss "wireguard-engine-upgraded.yaml",
        both what_is_taken_away_of_either_family_comes_back "tampered-dual.yaml",
        both devices_that_others_delete_or_make_anew_come_back_whole "device-taken.yaml",
        both a_reservation_is_honoured_and_never_expires "reservation.yaml",
        alone nodes_that_race_for_the_last_subnets_get_one_each "subnet-race.yaml",
        both a_peer_s_old_mac_leaves_nothing_behind "peer-mac.yaml",
        both expired_leases_are_taken_again_without_loss "lease-expired.yaml",
        both a_node_s_new_addresses_are_followed_by_vxlan "address-changed.yaml",
        both a_rebooted_node_has_its_macs_by_vxlan "reboot.yaml",
        both no_program_is_needed_but_the_agent "no-iptables.yaml",
        alone nodes_join_leave_and_restart_by_vxlan "backends.yaml",
        alone an_etcd_that_is_away_costs_no_packet_and_no_noise "etcd-away.yaml",
        alone a_past_that_etcd_forgets_is_replaced_by_a_snapshot "etcd-compacted.yaml",
        alone each_of_three_members_of_etcd_may_fail "etcd-members.yaml",
        alone an_etcd_that_takes_a_second_for_each_answer_serves_as_well "etcd-slow.yaml",
        both nodes_of_calico_s_row_lead_to_each_other_s_blocks "calico-direct.yaml",
        both nodes_of_calico_s_row_teach_each_other_by_bgp "calico-bgp.yaml",
        both calico_s_vxlan_carries_both_families "calico-vxlan.yaml",
        both pools_of_both_families_turn_to_vxlan_and_away_without_loss "calico-switch-vxlan.yaml",
        both pools_turn_between_vxlan_and_bgp_without_loss "calico-switch-bgp.yaml",
        both an_agent_that_is_dead_while_a_pool_turns_loses_nothing "calico-switch-late.yaml",
        both a_node_that_cannot_have_the_tunnel_is_not_sent_to_by_it "calico-switch-hindered.yaml",
        alone pools_of_several_modes_go_side_by_side "calico-pools.yaml",
        alone nodes_without_ipv4_have_pods_by_vxlan "calico-ipv6.yaml",
        both nodes_without_ipv4_teach_each_other_by_bgp "calico-ipv6-bgp.yaml",
        both a_borrowed_address_is_reached_and_strict_affinity_refuses "calico-borrow.yaml",
        alone pods_leave_with_their_node_s_address_where_the_pool_says_so "calico-nat.yaml",
        both a_turn_that_large_pods_hinder_comes_when_the_last_is_gone "calico-mtu.yaml",
        alone routers_at_the_tops_of_three_racks_lead_to_their_pods "calico-tor.yaml",
        alone reflectors_that_are_no_nodes_stand_for_the_mesh "calico-foreign-reflectors.yaml",
        both a_mesh_turns_to_reflectors_and_back_without_loss "calico-reflectors.yaml",
        both a_datastore_of_calico_s_that_is_away_costs_no_packet "calico-store-away.yaml",
        both pods_have_the_addresses_that_they_name_and_no_other_s "calico-wished.yaml",
        both addresses_claimed_ahead_serve_pods_while_the_datastore_is_away "calico-ahead.yaml",
        both a_datastore_of_calico_s_that_was_emptied_is_not_believed "calico-store-emptied.yaml",
        both a_store_that_is_accepted_node_by_node_costs_no_packet "calico-store-accepted.yaml",
        both a_store_that_is_accepted_is_told_what_pods_have "calico-store-accepted-early.yaml",
        both a_store_is_put_back_what_leads_through_tunnels "calico-store-put-back.yaml",
        both a_pool_that_is_deleted_in_use_is_carried_on "calico-pool-deleted.yaml",
        both felix_s_vxlan_device_is_taken_over_as_it_is "calico-adoption.yaml",
        both a_node_that_is_deleted_registers_itself_anew "calico-node-deleted.yaml",
        both a_node_whose_address_is_another_s_says_so_and_writes_no_object "calico-same-address.yaml",
    }
    "docs/lab" {
        both three_nodes_on_two_subnets_reach_each_other "three-nodes.yaml",
        both host_gw_reaches_without_a_tunnel "host-gw.yaml",
        both both_families_reach "dual-stack.yaml",
        alone the_tables_that_explain_calico_are_there "calico.yaml",
    }
}

/// What files leave open that are written for several backends.
mod by_backend {
    use super::*;

    macro_rules! by_backend {
        ($($name:ident $file:literal $words:expr;)+) => {
            $(#[test]
            fn $name() {
                let file = root().join("crates/cli/tests/topologies").join($file);
                holds_with(&file, "store", &$words);
            })+
        };
    }

    by_backend! {
        nodes_join_leave_and_restart_by_vxlan_with_direct_routing
            "backends.yaml" ["name=vxlan-direct", "direct=true"];
        nodes_join_leave_and_restart_by_host_gw
            "backends.yaml" ["name=host-gw", "type=host-gw", "far=rack1"];
        nodes_join_leave_and_restart_by_udp "backends.yaml" ["name=udp", "type=udp"];
        nodes_join_leave_and_restart_by_wireguard
            "backends.yaml" ["name=wireguard", "type=wireguard"];
        a_node_s_new_addresses_are_followed_by_host_gw
            "address-changed.yaml" ["name=host-gw", "type=host-gw"];
        a_node_s_new_addresses_are_followed_by_udp "address-changed.yaml" ["name=udp", "type=udp"];
        a_node_s_new_addresses_are_followed_by_wireguard
            "address-changed.yaml" ["name=wireguard", "type=wireguard"];
        a_rebooted_node_has_its_key_and_is_heard_at_once
            "reboot.yaml" ["name=wireguard", "type=wireguard"];
        a_rebooted_node_is_heard_by_udp "reboot.yaml" ["name=udp", "type=udp"];
        an_agent_that_is_dead_while_a_pool_turns_to_routers_loses_nothing
            "calico-switch-late.yaml" ["distribution=bgp"];
        nodes_without_ipv4_have_pods_by_vxlan_beside_bgp "calico-ipv6.yaml" ["distribution=bgp"];
        calico_s_nodes_seal_what_routers_lead_and_stop_it_again
            "calico-wireguard.yaml" ["distribution=bgp", "vxlan=Never", "link=eth0", "mtu=1500"];
        calico_s_nodes_seal_one_family_after_the_other_of_what_routers_lead
            "calico-wireguard-dual.yaml" ["distribution=bgp", "vxlan=Never", "four=eth0", "six=eth0"];
        pools_of_both_families_go_through_their_modes_across_subnets
            "vm/calico-modes.yaml" ["distribution=store"];
        pools_of_both_families_go_through_their_modes_across_subnets_beside_bgp
            "vm/calico-modes.yaml" ["distribution=bgp"];
        a_store_that_is_accepted_node_by_node_costs_routers_no_packet
            "calico-store-accepted.yaml" ["distribution=bgp"];
    }
}

/// `docs/calico.md` promises a scenario for each valid row of mode, distribution and family.
#[test]
fn each_scenario_that_the_table_of_calico_s_rows_names_is_played() {
    let read = |file: &str| std::fs::read_to_string(root().join(file)).expect("a file of ours");
    let (guide, ours, vm) =
        (read("docs/calico.md"), read("crates/cli/tests/lab.rs"), read("xtask/src/vm.rs"));
    let begin = guide.find("## Which scenario shows which row").expect("the table's heading");
    let lines = guide[begin..].lines().skip(1).take_while(|line| !line.starts_with("## "));
    let rows: Vec<_> = lines.filter(|line| line.starts_with("| ")).skip(1).map(cells).collect();
    // From either source five modes with IPv4, and three with IPv6, which IPIP lacks.
    assert_eq!(rows.len(), 2 * (5 + 3));
    for row in &rows {
        let [mode, .., lab, machine] = row.as_slice() else { panic!("a row's cells: {row:?}") };
        let (played, in_machine) = (scenarios(lab), scenarios(machine));
        assert!(
            !in_machine.is_empty() && (!played.is_empty() || mode.starts_with("IPIP")),
            "{row:?}"
        );
        for name in played {
            assert!(ours.contains(&format!("\"{name}\"")), "{name} is not played in the lab");
        }
        for name in in_machine {
            let path = format!("\"crates/cli/tests/topologies/{name}\"");
            assert!(vm.contains(&path), "{name} is not played in the VM");
        }
        for word in lab.split('`').filter(|word| word.contains('=')) {
            assert!(ours.contains(&format!("\"{word}\"")), "nobody sets {word}");
        }
    }
}

/// What lies between a table's bars.
fn cells(line: &str) -> Vec<&str> {
    line.trim_matches('|').split('|').map(str::trim).collect()
}

/// The topologies that a cell links to, as they are called below their folder.
fn scenarios(cell: &str) -> Vec<&str> {
    let links = cell.split("](../crates/cli/tests/topologies/").skip(1);
    links.filter_map(|rest| rest.split(')').next()).collect()
}

fn holds(file: &Path, store: &str) {
    // How long a store is away is for whoever runs the tests to say: a file that does not leave it open is not asked.
    let outage = std::env::var("RUSSET_TEST_OUTAGE").map(|outage| format!("outage={outage}"));
    let leaves_it_open =
        || std::fs::read_to_string(file).is_ok_and(|text| text.contains("<outage>"));
    match outage {
        Ok(word) if leaves_it_open() => holds_with(file, store, &[&word]),
        _ => holds_with(file, store, &[]),
    }
}

fn holds_with(file: &Path, store: &str, words: &[&str]) {
    let words = words.iter().flat_map(|word| ["--set", word]);
    // Calico's own programs, where `cargo xtask setup` has built them.
    let calico = root().join("target/calico");
    let path = std::env::var("PATH").unwrap_or_default();
    let out = Command::new(env!("CARGO_BIN_EXE_russet"))
        .env("CNI_PATH", &calico)
        .env("PATH", format!("{path}:{}", calico.display()))
        .args(["lab", "run", "--store", store])
        .args(words)
        .arg(file)
        .output()
        .expect("start russet");
    assert!(
        out.status.success(),
        "{} upon {store}: {}\n{}\n{}",
        file.display(),
        out.status,
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace")
}

fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("the folder");
    let names =
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"));
    let names: Vec<_> =
        names.filter(|name| Path::new(name).extension() == Some("yaml".as_ref())).collect();
    sorted(&names)
}

fn sorted(names: &[impl AsRef<str>]) -> Vec<String> {
    let mut names: Vec<_> = names.iter().map(|name| name.as_ref().to_owned()).collect();
    names.sort();
    names
}
