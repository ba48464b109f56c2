//! Peers that hold a session and do not behave: others do not notice.

use std::fs;

use crate::{IPV4, Lab, STATIC_V4, net::eventually};

#[test]
fn one_that_tells_without_end_and_one_that_never_reads_disturb_no_other() {
    let lab = Lab::new(3);
    // A hold time of three seconds ends when keepalives are late.
    let bird = "hold time 3; local as 65001; neighbor 10.0.1.1 as 65000;";
    let bird = lab.bird(1, &format!("{bird} {IPV4}"), STATIC_V4);
    let peer = |n: u32| {
        format!("[[peer]]\naddress = '10.0.{n}.2'\nasn = {}\npassive = true\n", 65_000 + n)
    };
    let russet = lab.russet(&[1, 2, 3].map(peer).concat());
    russet.up("10.0.1.2");

    let script = lab.folder("rude.py");
    fs::write(&script, RUDE).unwrap();
    let rude = |n: usize, way: &str| {
        let to = format!("10.0.{n}.1");
        let words = ["python3", "-u", script.to_str().unwrap(), &to, way];
        lab.peers[n - 1].start(lab.folder.path(), way, &words)
    };
    let _mute = rude(3, "mute");
    russet.up("10.0.3.2");
    let _teller = rude(2, "teller");
    let told = lab.folder("teller.log");
    let count = || fs::read_to_string(&told).ok()?.lines().last()?.parse::<u64>().ok();
    let told = eventually("two million routes told", || count().filter(|n| *n > 2_000_000));
    println!("{told} routes were told");

    let peer = russet.peer("10.0.1.2").unwrap();
    assert_eq!((&peer["state"], &peer["times_up"]), (&"Established".into(), &1.into()), "{peer}");
    // What it is told, it is told in the end: this is the one route that stays.
    bird.shows("show route 10.7.0.0/16", &["via 10.0.1.1"]);
}

/// A session of its own making. The teller tells and takes back 250 routes in each message, as fast as it can, and
/// reads nothing; the mute one reads nothing either, and says that it is alive.
const RUDE: &str = "
import socket, struct, sys, time
n = int(sys.argv[1].split('.')[2])
s = socket.create_connection((sys.argv[1], 179), 10)
def message(kind, body):
    return b'\\xff' * 16 + struct.pack('>HB', 19 + len(body), kind) + body
asn = 65000 + n
s.sendall(message(1, struct.pack('>BHH4sB', 4, asn, 180, bytes([n] * 4), 0)))
s.sendall(message(4, b''))
attributes = (bytes([0x40, 1, 1, 0, 0x40, 2, 4, 2, 1]) + struct.pack('>H', asn)
              + bytes([0x40, 3, 4, 10, 0, n, 2]))
def told(routes):
    return message(2, struct.pack('>HH', 0, len(attributes)) + attributes + routes)
if sys.argv[2] == 'mute':
    while True:
        time.sleep(1)
        s.sendall(message(4, b''))
s.sendall(told(bytes([16, 10, 7])))
count, last = 0, time.time()
while True:
    for block in range(64):
        routes = b''.join(bytes([24, 100, block, i]) for i in range(250))
        s.sendall(told(routes) + message(2, struct.pack('>H', len(routes)) + routes + bytes(2)))
        count += 500
    s.sendall(message(4, b''))
    print(count)
";
