//! A long way between the two nodes: what passes it arrives later, in order.
//!
//! ```text
//!   engine of A ─ 192.168.77.1:51820 ── :6001 relay :6002 ── veth ── 192.168.77.2:51820 ─ engine of B
//! ```

use std::{
    net::{SocketAddr, UdpSocket},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use super::Side;

/// Where A finds B, and B finds A.
pub const NEAR: u16 = 6_001;
pub const FAR: u16 = 6_002;

/// Relays in the namespace of A until the process ends.
pub fn start(a: &Side) {
    let [near, far] = [NEAR, FAR]
        .map(|port| a.inside.run(|| UdpSocket::bind(("192.168.77.1", port)).unwrap()).unwrap());
    let end = |socket: &UdpSocket| socket.try_clone().unwrap();
    one_way(end(&near), end(&far), ([192, 168, 77, 2], 51_820).into());
    one_way(far, near, ([192, 168, 77, 1], 51_820).into());
}

fn one_way(from: UdpSocket, by: UdpSocket, to: SocketAddr) {
    let (under_way, arrivals) = mpsc::channel::<(Instant, Vec<u8>)>();
    thread::spawn(move || {
        let mut datagram = [0; 2_000];
        while let Ok(len) = from.recv(&mut datagram) {
            let _ = under_way.send((Instant::now() + DELAY, datagram[..len].to_vec()));
        }
    });
    thread::spawn(move || {
        for (at, datagram) in arrivals {
            thread::sleep(at.saturating_duration_since(Instant::now()));
            let _ = by.send_to(&datagram, to);
        }
    });
}

/// One way.
const DELAY: Duration = Duration::from_millis(60);
