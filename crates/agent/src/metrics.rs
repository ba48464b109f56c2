//! The metrics, in Prometheus' text form, made of the same [`Status`] that `russet status` shows, and of what the
//! engines tell as they tell it to `russet engine status`.
//!
//! Nothing is counted here: a scrape turns the newest picture into text, so the two can never disagree.

pub mod engine;
pub mod form;

use russet_api::admin::Status;

use self::{
    engine::EngineCounts,
    form::{Kind, Metric, count},
};

/// The text of one scrape.
pub fn text(status: &Status, engines: &[EngineCounts]) -> String {
    let of = |kind| move |(name, help, value)| Metric::of(name, help, kind, value);
    let gauges = gauges(status).into_iter().map(of(Kind::Gauge));
    let counters = counters(status).into_iter().map(of(Kind::Counter));
    form::text("russet", gauges.chain(counters).chain(engine::metrics(engines)).collect())
}

type Row = (&'static str, &'static str, u64);

fn gauges(status: &Status) -> Vec<Row> {
    let store = &status.store;
    let mut rows = vec![
        ("ready", "Whether the node is ready", status.ready.into()),
        ("store_connected", "Whether the datastore is reached", store.connected.into()),
        ("store_in_sync", "Whether the datastore is in sync and believed", store.in_sync.into()),
        ("store_revision", "The datastore's revision as last seen", store.revision),
        ("peers", "Leases of other nodes", count(status.peers_total)),
        ("pods", "Pods of this node", count(status.pods)),
        ("refused_facts", "Facts that are left out", count(status.refused.len())),
        (
            "pending_objects",
            "Kernel objects that are not as they should be",
            count(status.pending.len()),
        ),
        (
            "path_problems",
            "Paths to other nodes that do not carry what is sent over them",
            count(status.paths.len()),
        ),
        (
            "forward_drops",
            "Foreign forward chains that drop pod traffic",
            count(status.forward_drops.len()),
        ),
    ];
    if let Some(network) = &status.network {
        rows.push(("pod_mtu_bytes", "The MTU that a new pod is given", network.pod_mtu.into()));
        if let Some(seconds) = network.lease_expires_in_s {
            rows.push((
                "lease_expires_seconds",
                "Seconds until the node's lease runs out",
                seconds,
            ));
        }
    }
    rows
}

fn counters(status: &Status) -> Vec<Row> {
    let counted = &status.counters;
    vec![
        ("kernel_events", "Netlink and nftables events that were looked at", counted.kernel_events),
        ("resyncs", "Whole read-backs of the kernel", counted.resyncs),
        (
            "repairs_by_event",
            "Objects set right because an event told of them",
            counted.repairs_by_event,
        ),
        (
            "repairs_by_sweep",
            "Objects set right because a sweep found them",
            counted.repairs_by_sweep,
        ),
        ("netlink_messages", "Netlink messages sent", counted.netlink_messages),
        ("store_events", "Changes received from the datastore", counted.store_events),
        ("cni_adds", "Pods attached", counted.cni_adds),
        ("cni_dels", "Pods detached", counted.cni_dels),
    ]
}

#[cfg(test)]
mod tests {
    use russet_kernel::engine::wire::{PeerCount, Totals};

    use super::*;

    #[test]
    fn a_scrape_has_types_and_values() {
        let mut status = Status { ready: true, pods: 3, ..Status::default() };
        status.counters.cni_adds = 7;
        let text = text(&status, &[]);
        for wanted in [
            "# TYPE russet_ready gauge",
            "russet_ready 1",
            "russet_pods 3",
            "russet_cni_adds_total 7",
        ] {
            assert!(text.lines().any(|line| line == wanted), "{wanted} is missing in\n{text}");
        }
        assert!(!text.contains("engine"), "there is none");
    }

    #[test]
    fn an_engine_is_told_by_reason_by_peer_and_by_what_one_call_moved() {
        let totals = Totals {
            losses: vec![("no-route".to_owned(), 5), ("hops".to_owned(), 0)],
            sent: vec![1, 2, 3, 4, 5, 6, 7, 8],
            answers: 9,
            ..Totals::default()
        };
        let endpoint = "192.168.1.12:8285".parse().unwrap();
        let peer =
            PeerCount { endpoint, sent: [10, 1_000], received: [20, 2_000], handshake: Some(30) };
        let link = |name: &str| name.parse().unwrap();
        let engines = vec![
            EngineCounts { link: link("flannel0"), counted: Some((totals, vec![peer])) },
            EngineCounts { link: link("silent0"), counted: None },
        ];
        let text = text(&Status::default(), &engines);
        for wanted in [
            "# TYPE russet_engine_dropped_packets counter",
            r#"russet_engine_up{link="flannel0"} 1"#,
            r#"russet_engine_up{link="silent0"} 0"#,
            r#"russet_engine_dropped_packets_total{link="flannel0",reason="no-route"} 5"#,
            r#"russet_engine_dropped_packets_total{link="flannel0",reason="hops"} 0"#,
            r#"russet_engine_icmp_answers_total{link="flannel0"} 9"#,
            r#"russet_engine_calls_total{link="flannel0",way="sent",packets="4"} 3"#,
            r#"russet_engine_calls_total{link="flannel0",way="sent",packets="more"} 8"#,
            r#"russet_engine_peer_packets_total{link="flannel0",peer="192.168.1.12:8285",way="received"} 20"#,
            r#"russet_engine_peer_bytes_total{link="flannel0",peer="192.168.1.12:8285",way="sent"} 1000"#,
            r#"russet_engine_peer_handshake_age_seconds{link="flannel0",peer="192.168.1.12:8285"} 30"#,
        ] {
            assert!(text.lines().any(|line| line == wanted), "{wanted} is missing in\n{text}");
        }
    }
}
