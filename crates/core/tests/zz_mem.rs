mod common;
use common::*;
use russet_core::{Change, Fact, FactId, model::*};
use russet_net::*;
fn rss() -> usize { std::fs::read_to_string("/proc/self/statm").unwrap().split(' ').nth(1).unwrap().parse::<usize>().unwrap()*4 }
fn change(n: u32, g: u8) -> Change {
    let [_, _, a, b] = n.to_be_bytes();
    let vtep = Vtep { vni: Vni::try_from(1).unwrap(), mac: Mac::local([2, g, 0, 0, a, b]) };
    let lease = Lease { public_ip: Some([172, 16, a, b].into()), public_ipv6: None, backend: Backend::Vxlan { v4: Some(vtep), v6: None } };
    let key = LeaseKey::new(Some(format!("10.{}.{b}.0/24", 100 + a).parse().unwrap()), None).unwrap();
    Change::Upsert { id: FactId::Lease(key), fact: Fact::Lease(lease), rev: u64::from(n) }
}
#[test]
fn mem() {
    let pool = Pool::new("10.0.0.0/8".parse().unwrap(), None, None, None).unwrap();
    let c = NetworkConfig::new(Some(pool), None, TransportConfig::Vxlan(VxlanConfig::default())).unwrap();
    let mut calc = ready(c);
    let before = rss();
    for n in 0..10_000 { drop(calc.apply([change(n,0)])); }
    let after = rss();
    let t = std::time::Instant::now();
    for n in 0..1000 { drop(calc.apply([change(n,1)])); }
    let per = t.elapsed()/1000;
    println!("known {} bytes; rss {} KiB for 10000 => {} B each; one change {per:?}", std::mem::size_of::<(FactId, russet_core::world::Known)>(), after-before, (after-before)*1024/10000);
    let t = std::time::Instant::now();
    let mut n = node(); n.underlay.mtu = mtu(1400);
    drop(calc.apply([Change::Upsert{id:FactId::Node,fact:Fact::Node(n),rev:3}]));
    println!("recompute {:?} rss {} KiB", t.elapsed(), rss()-before);
}
