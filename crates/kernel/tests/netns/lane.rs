//! The running lane: what a stranger takes away comes back, by the event and not by the sweep.

use std::{
    fmt::Write as _,
    fs,
    process::Command,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use russet_desired::{
    Flag, Item, Key, LinkKind, LinkSpec, NextHopKey, NextHopSpec, Patches, PortSpec, RouteKey,
    RouteSpec, SysctlKey, SysctlSpec,
};
use russet_kernel::{
    KernelError,
    lane::{Counters, Generation, LaneSettings, ReapLane, ReconcileLane, Report},
    monitor::{Drained, Monitor},
    netlink::ReceiveBuffer,
    one_line,
    reconcile::News,
};
use russet_net::Mtu;

use crate::{drivers::counts, support::*};

#[test]
fn a_patch_is_in_the_kernel_when_its_generation_is_reported() {
    on_a_node(|| {
        let lane = Watched::start();
        lane.settle(overlay(100));
        assert_eq!(counts(), (100, 100, 100, 100));

        let rounds = lane.counters().messages;
        lane.settle(overlay(100));
        assert_eq!(lane.counters().messages, rounds, "the same wishes are no news");
    });
}

#[test]
fn our_own_echoes_cause_no_round_and_most_are_not_even_heard() {
    on_a_node(|| {
        let lane = Watched::start();
        lane.settle(overlay(0));
        lane.hear_everything();
        let before = lane.counters();
        lane.patch(overlay(1_000));
        lane.hear_everything();
        let after = lane.counters();
        // The kernel's VXLAN driver, and it alone, does not say whose request changed an FDB entry.
        let heard = after.events - before.events;
        assert!(heard < 1_050, "{heard} events for 4,000 objects of ours");
        assert_eq!(after.rounds, before.rounds + 2);
    });
}

#[test]
fn routes_deleted_by_a_stranger_come_back() {
    // `ip route flush` itself cannot take a route that goes through a next-hop object.
    repaired(200, |_| batch_of_ip(&deletions(200)));
}

#[test]
fn next_hops_flushed_by_a_stranger_come_back_with_their_routes() {
    repaired(200, |_| {
        ip("nexthop flush protocol 82");
    });
}

#[test]
fn neighbours_and_fdb_entries_come_back() {
    repaired(50, |_| {
        ip("neigh flush dev flannel.1 nud permanent");
        bridge("fdb del 02:01:00:00:00:03 dev flannel.1 dst 192.168.78.3 self");
        bridge("fdb replace 02:01:00:00:00:04 dev flannel.1 dst 192.168.77.66 self permanent");
        ip("neigh replace 10.128.5.0 lladdr 02:00:00:00:66:66 dev flannel.1 nud permanent");
    });
}

#[test]
fn addresses_come_back() {
    repaired(3, |_| {
        ip("addr flush dev cni0 scope global");
        ip("addr del 10.50.67.0/32 dev flannel.1");
    });
}

#[test]
fn a_link_that_was_deleted_comes_back_with_all_that_lay_behind_it() {
    repaired(200, |_| {
        ip("link del flannel.1");
    });
}

#[test]
fn a_link_that_went_down_comes_up_with_its_routes() {
    repaired(200, |_| {
        ip("link set flannel.1 down");
    });
}

#[test]
fn a_link_that_went_down_and_up_again_has_its_routes() {
    repaired(200, |_| {
        ip("link set flannel.1 down");
        ip("link set flannel.1 up");
    });
}

#[test]
fn a_link_s_own_settings_come_back() {
    repaired(3, |_| {
        ip("link set flannel.1 mtu 1300 address 02:00:00:00:66:66");
        ip("link set cni0 address 02:00:00:00:66:67");
    });
}

#[test]
fn an_underlay_that_was_taken_away_and_put_back_carries_everything_again() {
    on_a_node(|| {
        let lane = Watched::start();
        lane.settle(overlay(20));
        let before = ours();
        ip("link del eth0");
        eventually("the lane says what is missing", || lane.counters().refused > 0);

        ip("link add eth0 type veth peer name switch0");
        ip("link set switch0 up");
        ip("link set eth0 up");
        ip("addr add 192.168.77.1/24 dev eth0");
        eventually_as(&before);
        eventually("nothing is refused", || lane.counters().refused == 0);
        assert_eq!(lane.counters().repairs_by_sweep, 0);
    });
}

#[test]
fn direct_routes_come_back_with_the_uplink_s_carrier() {
    on_a_node(|| {
        let lane = Watched::start();
        lane.settle(wish((2..52).flat_map(direct)));
        let count = || json("ip", "route show proto 82").len();
        assert_eq!(count(), 50);

        ip("link set switch0 down");
        eventually("the kernel has flushed the next hops", || {
            json("ip", "nexthop show protocol 82").is_empty()
        });
        ip("link set switch0 up");
        eventually("all routes are back", || count() == 50);
        eventually("nothing is refused", || lane.counters().refused == 0);
        assert_eq!(lane.counters().repairs_by_sweep, 0);
    });
}

#[test]
fn a_bridge_that_was_deleted_comes_back_with_its_port() {
    on_a_node(|| {
        ip("link add rst1 group 21077 type veth peer name podside");
        let veth = LinkSpec {
            kind: LinkKind::PodVeth,
            role: "pod",
            mac: None,
            mtu: Mtu::try_from(1_450).unwrap(),
            master: Some(name("cni0")),
            inherits: Flag::Off,
        };
        let mut patches = overlay(1);
        patches.set(Item::Link(name("rst1"), veth));
        patches.set(Item::Port(name("rst1"), PortSpec { hairpin: Flag::On }));
        let lane = Watched::start();
        lane.settle(patches);

        ip("link del cni0");
        eventually("bridge, address, port and hairpin are back", || {
            let port = &json("ip", "link show dev rst1")[0];
            port["master"] == "cni0"
                && port["linkinfo"]["info_slave_data"]["hairpin"] == true
                && ip("addr show dev cni0").contains("10.50.67.1/24")
        });
        bridge("link set dev rst1 hairpin off");
        eventually("the hairpin is back", || {
            json("ip", "link show dev rst1")[0]["linkinfo"]["info_slave_data"]["hairpin"] == true
        });
        assert_eq!(lane.counters().repairs_by_sweep, 0);
    });
}

#[test]
fn a_sysctl_that_is_set_back_is_set_again() {
    on_a_node(|| {
        let path = "net/ipv4/conf/eth0/forwarding";
        let key = SysctlKey { rank: 0, path: path.to_owned() };
        let lane = Watched::start();
        lane.settle(wish([Item::Sysctl(key, SysctlSpec { value: "1", optional: Flag::Off })]));

        let file = format!("/proc/sys/{path}");
        fs::write(&file, "0").unwrap();
        eventually("it is on again", || fs::read_to_string(&file).unwrap() == "1\n");
        eventually("it is counted", || lane.counters().repairs_by_event == 1);
    });
}

#[test]
fn a_stranger_who_takes_our_key_is_named_and_ours_comes_back_after_him() {
    on_a_node(|| {
        let lane = Watched::start();
        lane.settle(overlay(5));
        ip("route replace 10.128.1.0/24 via 192.168.77.9");
        eventually("the holder is named", || {
            lane.failures() == ["set route 10.128.1.0/24: held by protocol boot"]
        });
        assert!(ip("route show 10.128.1.0/24").contains("via 192.168.77.9 dev eth0"));

        ip("route del 10.128.1.0/24");
        eventually("ours is back", || counts().3 == 5);
        eventually("the failure is cleared", || lane.failures().is_empty());
        assert_eq!(lane.counters().repairs_by_sweep, 0);
    });
}

#[test]
fn a_repair_tells_who_made_it_necessary() {
    on_a_node(|| {
        let lane = Watched::start();
        lane.settle(overlay(5));
        ip("route del 10.128.1.0/24");
        eventually("the author is told", || {
            let by = lane.with(|seen| seen.authors.clone());
            by.iter().any(|by| by.contains("(pid "))
        });
    });
}

#[test]
fn an_object_that_is_set_back_again_and_again_is_left_alone_for_a_while() {
    on_a_node(|| {
        let lane = Watched::start();
        lane.settle(overlay(3));
        for n in 1..=3 {
            eventually("the route is there", || counts().3 == 3);
            eventually("it is counted", || lane.counters().repairs_by_event == n - 1);
            ip("route del 10.128.1.0/24");
        }
        eventually("it is reported", || {
            lane.failures().iter().any(|line| line.contains("reverted 3 times in 10 s by"))
        });
        assert_eq!(counts().3, 2);
        assert!(lane.with(|seen| { seen.failed.iter().all(|(_, err)| err.is_contested()) }));
    });
}

#[test]
fn events_that_were_lost_are_made_up_for_by_reading_back() {
    on_a_node(|| {
        let settings = LaneSettings {
            event_buffer: ReceiveBuffer(1),
            sweep_every: Duration::from_hours(1),
            engines: None,
        };
        let lane = Watched::start_with(settings);
        lane.settle(overlay(1_000));
        let before = ours();

        batch_of_ip(&deletions(1_000));
        eventually_as(&before);
        let counters = lane.counters();
        assert!(counters.overruns > 0, "{counters:?}");
        assert_eq!(counters.repairs_by_sweep, 0);
    });
}

#[test]
fn a_loss_is_told_once_all_that_waited_has_been_read() {
    on_a_node(|| {
        let mut monitor = Monitor::open(0).unwrap();
        monitor.set_receive_buffer(ReceiveBuffer(1));
        let lane = Watched::start();
        lane.settle(overlay(100));
        let mut heard = 0;
        // Told earlier, it would hide what the kernel still drops until then.
        assert_eq!(monitor.drain(|_| heard += 1).unwrap(), Drained::Lost);
        assert!(heard > 0);
        ip("link add other0 type bridge");
        assert_eq!(monitor.drain(|_| heard += 1).unwrap(), Drained::Empty);
    });
}

#[test]
fn what_no_event_tells_is_found_by_the_sweep() {
    on_a_node(|| {
        let settings =
            LaneSettings { sweep_every: Duration::from_millis(300), ..LaneSettings::default() };
        let path = "net/ipv6/conf/eth0/accept_dad";
        let key = SysctlKey { rank: 0, path: path.to_owned() };
        let lane = Watched::start_with(settings);
        lane.settle(wish([Item::Sysctl(key, SysctlSpec { value: "0", optional: Flag::Off })]));

        let file = format!("/proc/sys/{path}");
        fs::write(&file, "1").unwrap();
        eventually("it is 0 again", || fs::read_to_string(&file).unwrap() == "0\n");
        eventually("it is counted", || lane.counters().repairs_by_sweep == 1);
    });
}

#[test]
fn nothing_is_removed_when_the_lane_ends_and_the_next_one_sends_nothing() {
    on_a_node(|| {
        let lane = Watched::start();
        lane.settle(overlay(50));
        let before = dump();
        drop(lane);
        assert_unchanged(&before);

        let next = Watched::start();
        next.settle(overlay(50));
        let sent = next.counters().messages;
        assert!(sent < 20, "{sent} messages");
        assert_unchanged(&before);
    });
}

#[test]
fn an_event_that_does_not_concern_us_starts_no_round() {
    on_a_node(|| {
        let lane = Watched::start();
        lane.settle(overlay(50));
        lane.hear_everything();
        let before = lane.counters();
        ip("route add 10.99.0.0/16 via 192.168.77.9");
        ip("neigh add 192.168.77.9 lladdr 02:00:00:00:99:99 dev eth0 nud permanent");
        ip("link add other0 type bridge");
        ip("link set other0 up");
        ip("link del other0");
        lane.hear_everything();
        let after = lane.counters();
        assert!(after.events >= before.events + 5, "{before:?} {after:?}");
        // The round of `hear_everything` itself.
        assert_eq!(after.rounds, before.rounds + 1);
        assert_eq!(after.messages, before.messages);
    });
}

#[test]
fn the_reap_lane_removes_the_links_that_it_is_given_and_no_other() {
    on_a_node(|| {
        for n in 0..20 {
            ip(&format!("link add rst{n} group 21077 type veth peer name pod{n}"));
        }
        ip("link add mine type veth peer name mine1");
        let reaper = ReapLane::start().unwrap();
        for n in 0..20 {
            reaper.remove(name(&format!("rst{n}"))).unwrap();
        }
        reaper.remove(name("mine")).unwrap();
        eventually("they are gone", || !ip("link").contains("rst"));
        drop(reaper);
        assert!(ip("link").contains("mine1@mine"));
    });
}

/// Breaks a settled node with `damage`, and wants all back by the event path.
fn repaired(remotes: u16, damage: impl FnOnce(&Watched) + Send) {
    on_a_node(|| {
        let lane = Watched::start();
        lane.settle(overlay(remotes));
        let before = ours();
        damage(&lane);
        eventually_as(&before);
        let repairs = || lane.counters().repairs_by_event;
        eventually("it is counted", || repairs() > 0 && lane.counters().refused == 0);
        assert_eq!(lane.counters().repairs_by_sweep, 0);
        assert_eq!(ours(), before);
    });
}

/// All that we keep, without the numbers that a link made again does not have any more.
fn ours() -> Vec<String> {
    let mut lines = Vec::new();
    for (program, args) in [
        ("ip", "-br addr show dev cni0"),
        ("ip", "-br addr show dev flannel.1"),
        ("ip", "-br link show group 21077"),
        ("ip", "neigh show nud permanent"),
        ("bridge", "fdb show dev flannel.1"),
        ("ip", "route show proto 82"),
        ("ip", "-6 route show proto 82"),
    ] {
        let output = Command::new(program).args(args.split_whitespace()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        lines.extend(text.lines().map(without_numbers));
    }
    for link in json("ip", "link show group 21077") {
        lines.push(format!("{} mtu {} {:?}", link["ifname"], link["mtu"], link["ifalias"]));
    }
    lines.sort();
    lines
}

/// Waits until all that we keep is as it was, and tells what is not.
fn eventually_as(before: &[String]) {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let now = ours();
        if now == before {
            return;
        }
        if Instant::now() > until {
            let gone: Vec<_> = before.iter().filter(|line| !now.contains(line)).collect();
            let new: Vec<_> = now.iter().filter(|line| !before.contains(line)).collect();
            panic!("not within 10 s: all is back; gone: {gone:#?}, new: {new:#?}");
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Next hops are known by their gateway here.
fn without_numbers(line: &str) -> String {
    let mut words = line.split_whitespace();
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        match word {
            "nhid" => _ = words.next(),
            word => kept.push(word),
        }
    }
    kept.join(" ")
}

/// The deletion of the first routes of the overlay.
fn deletions(routes: u16) -> String {
    (0..routes).fold(String::new(), |mut script, n| {
        let [hi, lo] = n.to_be_bytes();
        writeln!(script, "route del 10.{}.{lo}.0/24 proto 82", 128 + hi).unwrap();
        script
    })
}

fn batch_of_ip(script: &str) {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), script).unwrap();
    ip(&format!("-force -batch {}", file.path().display()));
}

/// A route straight over the underlay.
fn direct(n: u8) -> [Item; 2] {
    let via = NextHopKey { via: [192, 168, 77, n].into(), link: name("eth0") };
    let dst = prefix(&format!("10.50.{n}.0/24"));
    [
        Item::NextHop(via, NextHopSpec { onlink: Flag::Off }),
        Item::Route(RouteKey::main(dst), RouteSpec { via: via.into(), inherits: Flag::Off }),
    ]
}

/// A lane and what it has told so far.
struct Watched {
    lane: ReconcileLane,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    generation: Generation,
    counters: Counters,
    failed: Vec<(Key, KernelError)>,
    authors: Vec<String>,
}

impl Watched {
    /// A lane that never sweeps, so that every repair is the events'.
    fn start() -> Self {
        Self::start_with(LaneSettings {
            sweep_every: Duration::from_hours(1),
            ..LaneSettings::default()
        })
    }

    fn start_with(settings: LaneSettings) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let inside = Arc::clone(&seen);
        let report = move |report| inside.lock().unwrap().take(report);
        Self { lane: ReconcileLane::start(settings, report).unwrap(), seen }
    }

    /// Hands over all wishes, and waits until they are fulfilled.
    fn settle(&self, patches: Patches) {
        // The wishes first: a lane that is told of completeness alone takes away everything.
        self.patch(patches);
        self.lane.complete();
        self.hear_everything();
        assert_eq!(self.failures(), [""; 0]);
    }

    /// Hands over wishes, and waits until they have been tried.
    fn patch(&self, patches: Patches) {
        let generation = self.lane.patch(patches);
        eventually("the patch is applied", || self.with(|seen| seen.generation >= generation));
    }

    /// Waits until every event of the past has been looked at: mail is read before events.
    fn hear_everything(&self) {
        self.patch(Patches::default());
    }

    fn counters(&self) -> Counters {
        self.with(|seen| seen.counters)
    }

    fn failures(&self) -> Vec<String> {
        self.with(|seen| seen.failed.iter().map(|(_, err)| one_line(err)).collect())
    }

    fn with<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.seen.lock().unwrap())
    }
}

impl Seen {
    fn take(&mut self, report: Report) {
        assert!(report.error.is_none(), "{:?}", report.error);
        self.generation = report.generation;
        self.counters = report.counters;
        for news in report.news {
            match news {
                News::Failed(key, err) => {
                    self.failed.retain(|(failed, _)| *failed != key);
                    self.failed.push((key, err));
                }
                News::Cleared(key) => self.failed.retain(|(failed, _)| *failed != key),
                News::Repaired(_, drift) => {
                    self.authors.extend(drift.by.map(|by| by.to_string()));
                }
            }
        }
    }
}
