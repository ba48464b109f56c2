//! Pod records: the layout, and every crash that the disk can have.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::{
    cni::{Key, spool::Spool},
    disk::fake::FakeDisk,
};

const NET: &str = "net";

#[test]
fn a_record_is_as_host_local_writes_it() {
    let disk = FakeDisk::default();
    let mut records = records(&disk, "boot-1");
    let got = reserve(&mut records, "c1").unwrap();
    assert_eq!(got, ["10.0.0.2".parse::<IpAddr>().unwrap(), "fd00::2".parse().unwrap()]);
    let read = |name: &str| String::from_utf8(disk.read(&Path::new("/n/net").join(name)).unwrap());
    assert_eq!(read("10.0.0.2").unwrap(), "c1\r\neth0");
    assert_eq!(read("fd00::2").unwrap(), "c1\r\neth0");
    assert_eq!(read("last_reserved_ip.0").unwrap(), "10.0.0.2");
    assert_eq!(read("last_reserved_ip.1").unwrap(), "fd00::2");
}

#[test]
fn what_another_program_takes_and_gives_back_is_seen() {
    let disk = FakeDisk::default();
    let mut records = records(&disk, "boot-1");
    reserve(&mut records, "c1").unwrap();
    disk.write(Path::new("/n/net/10.0.0.3"), b"other\r\neth0\n").unwrap();
    disk.remove(Path::new("/n/net/10.0.0.2")).unwrap();

    assert_eq!(records.find(NET, &pod("c1")).unwrap(), ["fd00::2".parse::<IpAddr>().unwrap()]);
    assert_eq!(reserve(&mut records, "c2").unwrap()[0].to_string(), "10.0.0.4");
    assert_eq!(records.release(NET, &pod("other")).unwrap().len(), 1);

    // The same name with another owner, between two looks.
    disk.write(Path::new("/n/net/10.0.0.4"), b"third\r\neth0").unwrap();
    assert_eq!(records.release(NET, &pod("third")).unwrap()[0].to_string(), "10.0.0.4");
    assert_eq!(records.find(NET, &pod("c2")).unwrap().len(), 1);
}

#[test]
fn a_record_of_the_container_alone_is_every_interface_s() {
    let disk = FakeDisk::default();
    let mut records = records(&disk, "boot-1");
    records.mark(NET).unwrap();
    disk.write(Path::new("/n/net/10.0.0.9"), b"old\n").unwrap();
    assert_eq!(records.release(NET, &pod("old")).unwrap().len(), 1);
    assert!(records.release(NET, &pod("old")).unwrap().is_empty(), "again is success");
}

#[test]
fn after_a_reboot_only_what_lives_is_kept_and_before_it_everything() {
    let disk = FakeDisk::default();
    let mut before = records(&disk, "boot-1");
    reserve(&mut before, "dead").unwrap();
    reserve(&mut before, "lives").unwrap();
    disk.write(Path::new("/n/net/10.0.0.9"), b"").unwrap();
    disk.write(Path::new("/n/foreign/10.9.0.2"), b"x\r\neth0").unwrap();
    disk.make_folder(Path::new("/n/foreign")).unwrap();
    assert!(before.reclaim(NET, |_| false).unwrap().is_empty(), "the same boot");

    let mut after = records(&disk, "boot-2");
    assert_eq!(after.networks().unwrap(), [NET], "a folder without our mark is not ours");
    let dead = after.reclaim(NET, |pod| pod.container == "lives").unwrap();
    assert_eq!(dead.len(), 3, "one pod's two addresses, and the torn record");
    assert_eq!(after.find(NET, &pod("lives")).unwrap().len(), 2);
    assert!(after.reclaim(NET, |_| false).unwrap().is_empty(), "it is this boot's now");
}

#[test]
fn exhaustion_and_bad_wishes_leave_nothing_behind() {
    let disk = FakeDisk::default();
    let mut records = records(&disk, "boot-1");
    let taken: Vec<_> =
        (0..POOL).map(|n| reserve(&mut records, &format!("c{n}")).unwrap()[0]).collect();
    assert_eq!(taken.iter().collect::<BTreeSet<_>>().len(), POOL);
    let err = reserve(&mut records, "late").unwrap_err();
    assert!(matches!(err, RecordError::Ipam(IpamError::Exhausted { .. })), "{err}");
    assert!(records.find(NET, &pod("late")).unwrap().is_empty());
}

/// Runs a script with a failure at every step, and looks at everything that could be left.
#[test]
fn nothing_acknowledged_is_lost_no_address_is_given_twice_and_none_leaks() {
    let (mut kills, mut failures) = (0, 0);
    for step in 0..1_000 {
        let mut node = Node::new();
        node.disk.fail_at(step);
        let whole = node.play(SCRIPT).is_ok();
        node.after_kill();
        kills += 1;
        for left in node.disk.states_after_power_failure() {
            node.after_power_failure(&left);
            failures += 1;
        }
        if whole {
            println!("pod records: {kills} kills and {failures} power failures over {step} steps");
            assert!(kills > 30 && failures > kills, "{kills} and {failures}");
            return;
        }
    }
    panic!("the script never ended");
}

const SCRIPT: &[Op] = &[
    Op::Add("a"),
    Op::Add("b"),
    Op::Del("a"),
    Op::Add("c"),
    Op::Del("b"),
    Op::Add("a"),
    Op::Del("c"),
];

#[derive(Clone, Copy, Debug)]
enum Op {
    Add(&'static str),
    Del(&'static str),
}

/// A node's disk and links, and what the runtime was told.
struct Node {
    disk: FakeDisk,
    /// Pods that have a link in the kernel, and its addresses.
    links: BTreeMap<&'static str, Vec<IpAddr>>,
    /// Pods whose ADD was answered, and whose DEL was not.
    told: BTreeMap<&'static str, Vec<IpAddr>>,
    /// Pods whose DEL was answered last.
    told_gone: BTreeSet<&'static str>,
}

impl Node {
    fn new() -> Self {
        let disk = FakeDisk::default();
        let (links, told, told_gone) = Default::default();
        Self { disk, links, told, told_gone }
    }

    /// Does what the lane does, in its order.
    fn play(&mut self, script: &[Op]) -> Result<(), String> {
        let mut records = records(&self.disk, "boot-1");
        let mut spool = Spool::new(Arc::new(self.disk.clone()), "/spool".into());
        for op in script {
            match *op {
                Op::Add(name) => {
                    self.told_gone.remove(name);
                    let done = records.reserve(NET, &pod(name), &subnets(), &[]);
                    let (assigned, unsynced) = done.map_err(|err| err.to_string())?;
                    let addresses: Vec<_> = assigned.iter().map(|one| one.addr).collect();
                    self.links.insert(name, addresses.clone());
                    Records::sync(&self.disk, &unsynced).map_err(|err| err.to_string())?;
                    self.told.insert(name, addresses);
                }
                Op::Del(name) => {
                    let key = Key { network: NET.into(), pod: pod(name) };
                    self.told.remove(name);
                    spool.begin(&key).map_err(|err| err.to_string())?;
                    self.told_gone.insert(name);
                    self.links.remove(name);
                    records.release(NET, &key.pod).map_err(|err| err.to_string())?;
                    spool.end(&key);
                }
            }
        }
        // `Spool::end` only warns; this tells whether the disk failed there.
        self.disk.sync_folder(Path::new("/spool")).map_err(|err| err.to_string())
    }

    fn after_kill(&self) {
        let disk = self.disk.after_kill();
        let mut records = records(&disk, "boot-1");
        for (name, addresses) in &self.told {
            assert_eq!(&records.find(NET, &pod(name)).unwrap(), addresses, "{name} is lost");
        }
        for (name, addresses) in &self.links {
            assert_eq!(
                &records.find(NET, &pod(name)).unwrap(),
                addresses,
                "{name} has a link and no record"
            );
        }
        let gone = records.reclaim(NET, |_| false).unwrap();
        assert!(gone.is_empty(), "{gone:?} reclaimed in the same boot");
        records.read_all(NET).unwrap();

        // The spool is drained before the next ADD.
        let mut spool = Spool::new(Arc::new(disk.clone()), "/spool".into());
        for key in spool.waiting() {
            records.release(NET, &key.pod).unwrap();
            spool.end(&key);
        }
        for name in &self.told_gone {
            assert!(records.find(NET, &pod(name)).unwrap().is_empty(), "{name} leaks");
        }
        let given = fill(&mut records);
        for (name, addresses) in &self.links {
            let twice = addresses.iter().any(|ip| given.contains(ip));
            assert!(!twice || self.told_gone.contains(name), "{name}'s address is given twice");
        }

        // A runtime DELs what it asked for, answered or not.
        for name in ["a", "b", "c"] {
            records.release(NET, &pod(name)).unwrap();
        }
        assert_eq!(given.len() / 2 + fill(&mut records).len() / 2, POOL, "an address leaks");
    }

    fn after_power_failure(&self, left: &FakeDisk) {
        let mut as_it_was = records(left, "boot-1");
        for (name, addresses) in &self.told {
            assert_eq!(&as_it_was.find(NET, &pod(name)).unwrap(), addresses, "{name} is lost");
        }
        // No pod lives after a reboot, so all is free.
        let mut records = records(left, "boot-2");
        for network in records.networks().unwrap() {
            records.reclaim(&network, |_| false).unwrap();
        }
        Spool::new(Arc::new(left.clone()), "/spool".into()).waiting();
        let kept = records.read_all(NET).map(|(_, kept)| kept).unwrap_or_default();
        assert!(kept.is_empty(), "{kept:?} leaks");
    }
}

/// Takes all that is free.
fn fill(records: &mut Records) -> Vec<IpAddr> {
    let mut given = Vec::new();
    for n in 0.. {
        match reserve(records, &format!("fill-{n}-{}", records.networks.len())) {
            Ok(addresses) => given.extend(addresses),
            Err(_) => break,
        }
    }
    given
}

proptest! {
    #[test]
    fn no_two_pods_ever_share_an_address(ops in proptest::collection::vec((any::<bool>(), 0_u8..12), 0..60)) {
        let disk = FakeDisk::default();
        let mut records = records(&disk, "boot-1");
        let mut out: BTreeMap<u8, Vec<IpAddr>> = BTreeMap::new();
        for (add, n) in ops {
            let name = format!("c{n}");
            if add && !out.contains_key(&n) {
                out.insert(n, reserve(&mut records, &name).unwrap());
            } else if !add {
                let released = records.release(NET, &pod(&name)).unwrap();
                prop_assert_eq!(released, out.remove(&n).unwrap_or_default());
            }
            let all: Vec<_> = out.values().flatten().collect();
            prop_assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
            // Another agent that reads the same disk agrees.
            let mut other = self::records(&disk, "boot-1");
            for (n, addresses) in &out {
                prop_assert_eq!(&other.find(NET, &pod(&format!("c{n}"))).unwrap(), addresses);
            }
        }
    }
}

/// Pods' addresses in a /28: 16 less base, gateway and broadcast.
const POOL: usize = 13;

fn subnets() -> [Prefix; 2] {
    ["10.0.0.0/28", "fd00::/64"].map(|text| text.parse().unwrap())
}

fn records(disk: &FakeDisk, boot: &str) -> Records {
    Records::new(Arc::new(disk.clone()), "/n".into(), boot)
}

fn reserve(records: &mut Records, name: &str) -> Result<Vec<IpAddr>, RecordError> {
    let (assigned, _) = records.reserve(NET, &pod(name), &subnets(), &[])?;
    Ok(assigned.into_iter().map(|one| one.addr).collect())
}

fn pod(name: &str) -> PodId {
    PodId { container: name.to_owned(), ifname: "eth0".parse().unwrap() }
}
