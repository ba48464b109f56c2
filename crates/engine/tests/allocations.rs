//! A packet on its way allocates nothing: every allocation of the process is counted while traffic passes.
//!
//! Alone in its file, because what other tests allocate would be counted too.
// An allocator can only be written with `unsafe`; this one passes everything on to the system's.
#![allow(unsafe_code)]

mod pair;
mod tools;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Barrier,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
};

use pair::{Pair, bound, inner};
use russet_engine::shared::Pace;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static COUNTING: Counting = Counting;

// SAFETY: every call is the system allocator's own, with the arguments that it was given.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller's promises are the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are the system's.
        unsafe { System.dealloc(at, layout) }
    }
}

#[test]
fn a_packet_on_its_way_allocates_nothing() {
    let pair = Pair::new(Pace::Batches);
    let at = |n| SocketAddr::new(inner(n, 4), 0);
    let listener = pair.inside_b.run(|| TcpListener::bind(at(2)).unwrap()).unwrap();
    let to = listener.local_addr().unwrap();
    let mut stream = pair.inside_a.run(|| TcpStream::connect(to).unwrap()).unwrap();
    let (mut accepted, _) = listener.accept().unwrap();
    let (sender, receiver) =
        (pair.inside_a.run(|| bound(at(1))).unwrap(), pair.inside_b.run(|| bound(at(2))).unwrap());
    let to = receiver.local_addr().unwrap();
    let (octets, mut room) = (vec![7; 64 << 10], vec![0; 64 << 10]);
    let barrier = Barrier::new(2);

    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..2 {
                barrier.wait();
                for _ in 0..ROUNDS {
                    stream.write_all(&octets).unwrap();
                }
            }
        });
        for round in 0..2 {
            let before = ALLOCATIONS.load(Relaxed);
            barrier.wait();
            for _ in 0..ROUNDS {
                accepted.read_exact(&mut room).unwrap();
                sender.send_to(&octets[..900], to).unwrap();
                receiver.recv(&mut room).unwrap();
            }
            // The first round may still be building something up.
            if round == 1 {
                assert_eq!(ALLOCATIONS.load(Relaxed), before);
            }
        }
    });
    for engine in [&pair.a, &pair.b] {
        let passed: u64 = engine.shared().counters.written.get().iter().sum();
        assert!(passed > 100, "the traffic went another way: {passed}");
    }
    drop(pair.wire);
}

/// So many times 64 KiB by TCP, and a datagram each.
const ROUNDS: usize = 200;
