//! Random lives of a journal, each ended by a power failure after every single step.
//!
//! After each: what was acknowledged is there, in order; what is there beyond it was submitted; and the
//! journal goes on. `RUSSET_CRASH_RUNS` says how many lives.

use super::*;

#[test]
fn whatever_a_power_failure_leaves_every_acknowledged_payload_is_there_and_no_other() {
    let runs = std::env::var("RUSSET_CRASH_RUNS").ok().and_then(|text| text.parse().ok());
    let mut states = 0;
    for seed in 1..=runs.unwrap_or(150) {
        states += life(seed);
    }
    println!("{states} states after a failure");
}

/// What a journal was asked for, and what it had said when the disk had done so many steps.
struct Life {
    disk: FakeDisk,
    random: Random,
    /// Every payload that was submitted, the base's included.
    submitted: Vec<Vec<u8>>,
    /// Acknowledged payloads by the steps after which they were.
    acknowledged: Vec<(usize, usize)>,
    /// The first payloads that a rewrite left out, by the steps from which that may be seen.
    forgotten: Vec<(usize, usize)>,
}

fn life(seed: u64) -> usize {
    let mut life = Life {
        disk: FakeDisk::default(),
        random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        submitted: vec![payload(0, 30)],
        acknowledged: Vec::new(),
        forgotten: vec![(0, 0)],
    };
    let base = life.submitted.clone().into_iter();
    let mut journal = Journal::create(life.disk.clone(), seed, base).unwrap();
    life.acknowledge();
    for _ in 0..=life.random.below(12) {
        journal = life.step(journal);
    }
    drop(journal);
    life.fail_everywhere()
}

impl Life {
    fn step(&mut self, mut journal: Journal<FakeDisk>) -> Journal<FakeDisk> {
        match self.random.below(10) {
            0 => journal.seal().unwrap(),
            1 => journal.make_room(self.random.below(9_000)).unwrap(),
            2 => {
                journal.close().unwrap();
                return opened(&self.disk).0;
            }
            3 | 4 => self.rewrite(&mut journal),
            _ => self.append(&mut journal),
        }
        journal
    }

    fn append(&mut self, journal: &mut Journal<FakeDisk>) {
        let size = match self.random.below(4) {
            0 => self.random.below(9_000),
            1 => self.random.below(1_200),
            _ => self.random.below(60),
        };
        let payload = payload(self.submitted.len(), size);
        self.submitted.push(payload.clone());
        journal.append(&payload).unwrap();
        self.acknowledge();
    }

    /// Writes the file anew from the middle of what it holds, while more comes.
    fn rewrite(&mut self, journal: &mut Journal<FakeDisk>) {
        let (_, first) = *self.forgotten.last().unwrap();
        let known = self.submitted.len();
        let keep = first + usize::try_from(self.random.below(3)).unwrap().min(known - 1 - first);
        let mut rewrite = journal.rewrite(self.random.next()).unwrap();
        for payload in &self.submitted[keep..] {
            rewrite.add(payload).unwrap();
        }
        for _ in 0..self.random.below(3) {
            self.append(journal);
        }
        let ready = rewrite.finish().unwrap();
        self.forgotten.push((self.disk.steps(), keep));
        let tail = self.submitted[known..].to_vec();
        journal.adopt(ready, &tail, self.random.below(2_000)).unwrap();
    }

    fn acknowledge(&mut self) {
        self.acknowledged.push((self.disk.steps(), self.submitted.len()));
    }

    fn fail_everywhere(&mut self) -> usize {
        let steps = self.disk.steps();
        let mut states = 0;
        for after in 0..=steps {
            let seeds: [u64; 4] = std::array::from_fn(|_| self.random.next());
            let random = seeds.map(Left::Some);
            for left in [Left::Nothing, Left::Everything].into_iter().chain(random) {
                self.check(after, left);
                states += 1;
            }
        }
        states
    }

    fn check(&self, after: usize, left: Left) {
        let disk = self.disk.after_crash(after, left);
        let acknowledged = self.acknowledged.iter().rev().find(|(steps, _)| *steps <= after);
        let what = format!("after {after} steps, {left:?}");
        match read(&disk) {
            Ok(found) => {
                self.check_found(&found, after, acknowledged.map(|(_, count)| *count), &what);
            }
            Err(err) => {
                assert!(err.is_missing() && acknowledged.is_none(), "{what}: {err}");
                return;
            }
        }
        let (mut journal, before) = opened(&disk);
        journal.append(b"it goes on").unwrap();
        drop(journal);
        let now = read(&disk).unwrap();
        assert_eq!(now.split_last().unwrap(), (&b"it goes on".to_vec(), &before[..]), "{what}");
    }

    fn check_found(
        &self,
        found: &[Vec<u8>],
        after: usize,
        acknowledged: Option<usize>,
        what: &str,
    ) {
        // A rewrite may be seen from when its file was moved.
        let starts =
            self.forgotten.iter().filter(|(steps, _)| *steps <= after).map(|(_, keep)| *keep);
        let fits = starts.rev().any(|start| {
            let wanted = &self.submitted[start..];
            let enough = acknowledged.is_none_or(|count| start + found.len() >= count);
            enough && wanted.starts_with(found)
        });
        assert!(fits, "{what}: {} payloads, {acknowledged:?} acknowledged", found.len());
    }
}

/// A payload that is unlike every other.
fn payload(number: usize, size: u64) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    let size = usize::try_from(size).unwrap();
    bytes.extend((0..size).map(|at| u8::try_from((at * 31 + number * 7) % 251).unwrap()));
    bytes
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
