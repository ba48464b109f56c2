//! The same random calls at Debian's etcd and at ours: every answer, error and event must be the same.
//!
//! ```text
//!  calls.rs    random calls out of a small world of keys     sides.rs    the two servers, call by call
//!  watches.rs  what each watcher was told                    this file   the sequence, and when to compare
//! ```
//!
//! Compared is everything but what differs by nature: who answers, and times. Watchers are compared at
//! quiet moments, because etcd tells those that are behind in its own time: before a compaction, which could
//! overtake them, and at the end. `RUSSET_DIFFERENTIAL_CALLS` says how many calls, `RUSSET_DIFFERENTIAL_SEED`
//! which ones; a difference names both.

mod calls;
mod sides;
mod watches;

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use calls::{Call, Generator};
use sides::{Answer, Sides};
use watches::Watches;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_error_and_event_is_etcds() {
    let calls = number("RUSSET_DIFFERENTIAL_CALLS").unwrap_or(6_000);
    let seed = number("RUSSET_DIFFERENTIAL_SEED").unwrap_or(1);
    let mut run = Run::start(seed).await;
    for index in 0..calls {
        run.call(index).await;
        if index % 50_000 == 49_999 {
            println!("{} calls, revision {}", index + 1, run.generator.revision());
        }
    }
    run.compare_watches(calls).await;
    println!("{calls} calls, seed {seed}: {:?}", run.counts);
}

struct Run {
    seed: u64,
    sides: Sides,
    watches: Watches,
    generator: Generator,
    counts: BTreeMap<&'static str, u64>,
    /// The newest calls and what both answered.
    recent: VecDeque<(u64, Call, Answer)>,
}

impl Run {
    async fn start(seed: u64) -> Self {
        let sides = Sides::start().await;
        let watches = Watches::open(&sides).await;
        let (generator, counts) = (Generator::new(seed), BTreeMap::new());
        Self { seed, sides, watches, generator, counts, recent: VecDeque::new() }
    }

    async fn call(&mut self, index: u64) {
        let call = self.generator.next_call();
        *self.counts.entry(call.name()).or_default() += 1;
        match &call {
            Call::Restart => {
                self.compare_watches(index).await;
                // etcd does again what came after the last write, and may accept what it had refused before the
                // lease was granted that it wanted (docs/store.md).
                self.ask(index, &Call::probe()).await;
                self.sides.restart().await;
                // What a restart changed, rather than some call after it.
                self.ask(index, &Call::everything()).await;
                self.watches = Watches::open(&self.sides).await;
            }
            Call::CreateWatch(create) => self.watches.create(create).await,
            Call::CancelWatch(id) => {
                self.compare_watches(index).await;
                self.watches.cancel(*id).await;
            }
            Call::Expire(id) => self.expire(index, *id).await,
            call => {
                if matches!(call, Call::Compact(_)) {
                    self.compare_watches(index).await;
                }
                self.ask(index, call).await;
            }
        }
    }

    async fn ask(&mut self, index: u64, call: &Call) {
        let (ours, etcd) = self.sides.ask(call).await;
        assert!(
            ours == etcd,
            "call {index} of seed {}: {call:?}\nours: {ours:?}\netcd: {etcd:?}\nafter {:#?}",
            self.seed,
            self.recent
        );
        self.generator.learn(&etcd);
        // What an answer does not show is seen by a later one.
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back((index, call.clone(), etcd));
    }

    /// Has a lease with keys run out at both.
    async fn expire(&mut self, index: u64, id: i64) {
        for call in Call::short_lease(id) {
            self.ask(index, &call).await;
        }
        for _ in 0..200 {
            if self.sides.lease_is_gone(id).await {
                // What went with it, and at which revision.
                self.ask(index, &Call::everything()).await;
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("lease {id} is not gone within 20 s");
    }

    async fn compare_watches(&mut self, index: u64) {
        if self.watches.may_be_behind() {
            self.ask(index, &Call::probe()).await;
            self.watches.catch_up(self.generator.revision()).await;
        }
        self.watches.compare(&format!("before call {index} of seed {}", self.seed)).await;
    }
}

const RECENT: usize = 12;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}
