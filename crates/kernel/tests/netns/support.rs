//! A fresh network namespace, the programs that look at it, and wishes for a small overlay.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    panic,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use russet_desired::{
    AddressKey, AddressScope, AddressSpec, FdbKey, FdbSpec, Flag, Item, Key, LinkKind, LinkSpec,
    NeighbourKey, NeighbourSpec, NextHopKey, NextHopSpec, Patches, RouteKey, RouteSpec, VxlanSpec,
};
use russet_kernel::{
    reconcile::{News, Reconcilers},
    sys,
};
use russet_net::{IfName, Mac, Mtu, Port, Prefix, Vni};
use serde_json::Value;

/// Runs `test` on a thread whose network namespace is new, has its loopback up, and ends with it.
pub(crate) fn in_fresh_netns<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    let result = thread::scope(|scope| {
        let run = move || {
            sys::unshare_network().expect("a new network namespace needs CAP_SYS_ADMIN");
            ip("link set lo up");
            test()
        };
        scope.spawn(run).join()
    });
    result.unwrap_or_else(|cause| panic::resume_unwind(cause))
}

/// The same, with a link `eth0` as the underlay: 192.168.77.1/24.
pub(crate) fn on_a_node<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    in_fresh_netns(|| {
        ip("link add eth0 type veth peer name switch0");
        ip("link set switch0 up");
        ip("link set eth0 up");
        ip("addr add 192.168.77.1/24 dev eth0");
        let is_up =
            |link: &str| json("ip", &format!("link show dev {link}"))[0]["operstate"] == "UP";
        eventually("the underlay has its carrier", || is_up("eth0") && is_up("switch0"));
        test()
    })
}

pub(crate) fn ip(args: &str) -> String {
    run("ip", args)
}

pub(crate) fn bridge(args: &str) -> String {
    run("bridge", args)
}

/// Runs a program in this thread's namespace and wants it to succeed.
pub(crate) fn run(program: &str, args: &str) -> String {
    let output = Command::new(program)
        .args(args.split_whitespace())
        .output()
        .unwrap_or_else(|err| panic!("{program} is needed: {err}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

/// What `ip -j ARGS` or `bridge -j ARGS` lists.
pub(crate) fn json(program: &str, args: &str) -> Vec<Value> {
    let text = run(program, &format!("-d -j {args}"));
    match text.trim() {
        "" => Vec::new(),
        text => serde_json::from_str(text).unwrap(),
    }
}

pub(crate) fn link_json(link: &str) -> Value {
    json("ip", &format!("link show dev {link}")).remove(0)
}

/// Waits until `done` holds.
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < until, "not within 10 s: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

pub(crate) fn name(text: &str) -> IfName {
    text.parse().unwrap()
}

pub(crate) fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

pub(crate) fn mac(n: u8) -> Mac {
    Mac::new([2, 0, 0, 0, 0, n])
}

/// The bridge as a node has it.
pub(crate) fn cni0() -> Item {
    let spec = LinkSpec {
        kind: LinkKind::Bridge,
        role: "bridge",
        mac: Some(mac(0xb0)),
        mtu: Mtu::try_from(1_450).unwrap(),
        master: None,
        inherits: Flag::Off,
    };
    Item::Link(name("cni0"), spec)
}

pub(crate) fn flannel1() -> Item {
    Item::Link(name("flannel.1"), vxlan(1))
}

pub(crate) fn vxlan(vni: u32) -> LinkSpec {
    let spec = VxlanSpec {
        vni: Vni::try_from(vni).unwrap(),
        local: [192, 168, 77, 1].into(),
        underlay: name("eth0"),
        port: Port::VXLAN_LINUX,
        learning: Flag::Off,
        gbp: Flag::Off,
    };
    LinkSpec {
        kind: LinkKind::Vxlan(spec),
        role: "vtep",
        mac: Some(mac(0xa0)),
        mtu: Mtu::try_from(1_450).unwrap(),
        master: None,
        inherits: Flag::Off,
    }
}

pub(crate) fn address(link: &str, text: &str) -> Item {
    let (addr, len) = text.split_once('/').unwrap();
    let key =
        AddressKey { link: name(link), addr: addr.parse().unwrap(), len: len.parse().unwrap() };
    Item::Address(key, AddressSpec { scope: AddressScope::Global })
}

/// The four objects of the `n`th remote node behind `flannel.1`.
pub(crate) fn remote(n: u16) -> [Item; 4] {
    let link = name("flannel.1");
    let [hi, lo] = n.to_be_bytes();
    let via = IpAddr::V4(Ipv4Addr::new(10, 128 + hi, lo, 0));
    let mac = Mac::new([2, 1, 0, 0, hi, lo]);
    let hop = NextHopKey { via, link };
    [
        Item::Neighbour(NeighbourKey { link, ip: via }, NeighbourSpec { mac }),
        Item::Fdb(FdbKey { link, mac }, FdbSpec { dst: [192, 168, 78 + hi, lo].into() }),
        Item::NextHop(hop, NextHopSpec { onlink: Flag::On }),
        Item::Route(
            RouteKey::main(Prefix::new(via, 24).unwrap()),
            RouteSpec { via: hop.into(), inherits: Flag::Off },
        ),
    ]
}

/// A node with its devices and `remotes` others.
pub(crate) fn overlay(remotes: u16) -> Patches {
    let own = [
        cni0(),
        flannel1(),
        address("flannel.1", "10.50.67.0/32"),
        address("cni0", "10.50.67.1/24"),
        address("cni0", "fd00:50::1/64"),
    ];
    wish(own.into_iter().chain((0..remotes).flat_map(remote)))
}

pub(crate) fn wish(items: impl IntoIterator<Item = Item>) -> Patches {
    let mut patches = Patches::default();
    for item in items {
        patches.set(item);
    }
    patches
}

pub(crate) fn no_longer(keys: impl IntoIterator<Item = Key>) -> Patches {
    let mut patches = Patches::default();
    for key in keys {
        patches.unset(key);
    }
    patches
}

/// Opens reconcilers and makes it so, everything having been told.
pub(crate) fn settled(patches: Patches) -> Reconcilers {
    let mut all = Reconcilers::open().unwrap();
    all.update(patches);
    all.complete();
    apply(&mut all);
    all
}

/// Applies, and wants nothing refused.
pub(crate) fn apply(all: &mut Reconcilers) {
    all.apply(Instant::now()).unwrap();
    for news in all.take_news() {
        assert!(!matches!(news, News::Failed(..)), "{news:?}");
    }
    assert_eq!(all.refused(), 0);
}

/// How many messages the route socket sent for `work`.
pub(crate) fn messages(all: &mut Reconcilers, work: impl FnOnce(&mut Reconcilers)) -> u64 {
    let before = all.host().sent().messages;
    work(all);
    all.host().sent().messages - before
}

/// Everything of this namespace that a stranger may have: as the programs show it, sorted, without what
/// changes by itself.
pub(crate) fn dump() -> BTreeSet<String> {
    let programs = [
        ("ip", "-o link"),
        ("ip", "-o -d link show type vxlan"),
        ("ip", "-o addr"),
        ("ip", "-o -N -d route show table all"),
        ("ip", "-o -6 -N -d route show table all"),
        ("ip", "-o nexthop"),
        ("ip", "neigh show nud permanent"),
        ("bridge", "fdb"),
    ];
    let lines = programs.iter().flat_map(|(program, args)| {
        run(program, args).lines().map(str::to_owned).collect::<Vec<_>>()
    });
    // A port's own multicast addresses come when its link-local address does, some time after it is up.
    let lines = lines.filter(|line| !line.starts_with("33:33:ff:"));
    lines.map(|line| line.replace(" tentative", "")).collect()
}

/// Wants the namespace to be as it was, and shows what is not.
pub(crate) fn assert_unchanged(before: &BTreeSet<String>) {
    let now = dump();
    let gone: Vec<_> = before.difference(&now).collect();
    let new: Vec<_> = now.difference(before).collect();
    assert!(gone.is_empty() && new.is_empty(), "gone: {gone:#?}\nnew: {new:#?}");
}
