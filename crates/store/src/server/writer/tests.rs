//! The writer upon disks that are slow, broken and full.

use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};

use super::{super::journal::fake::FakeDisk, *};
use crate::contract::Revision;

#[tokio::test]
async fn upon_a_slow_disk_answers_wait_and_one_sync_serves_all_of_them() {
    let disk = FakeDisk::default();
    let writer = started(&disk);
    let (answers, heard) = channel();
    disk.hold();
    let before = disk.syncs();
    for n in 0..100 {
        writer.order(job(n, &answers)).await.unwrap_or_else(|_| panic!("the writer goes on"));
        // The first is at the disk; the others come in meanwhile, as many as the queue takes.
        if n == ORDERS_QUEUED {
            assert_eq!(heard.try_recv(), Err(TryRecvError::Empty), "nobody hears before the disk");
            assert!(!writer.is_idle());
            disk.let_go();
        }
    }

    assert_eq!(all(&heard, 100), (0..100).collect::<Vec<_>>());
    let syncs = disk.syncs() - before;
    assert!(syncs < 100, "{syncs} syncs for 100 jobs, of which {ORDERS_QUEUED} waited together");
    writer.finish().await.unwrap();
    assert_eq!(payloads(&disk).len(), syncs + 1, "each sync is a frame, and there is the base");
    assert_eq!(payloads(&disk).concat(), [&b"base"[..], &(0..100).collect::<Vec<u8>>()].concat());
}

#[tokio::test]
async fn a_disk_that_fails_ends_the_writer_and_nobody_is_told_that_it_was_done() {
    let disk = FakeDisk::default();
    let writer = started(&disk);
    let (answers, heard) = channel();
    writer.order(job(1, &answers)).await.unwrap_or_else(|_| panic!("the writer goes on"));
    assert_eq!(all(&heard, 1), [1]);

    disk.fail_after(0);
    // The queue may take some before the end is known.
    while writer.order(job(2, &answers)).await.is_ok() {}

    drop(answers);
    assert_eq!(heard.recv().ok(), None, "no answer for what may not be there");
    assert!(writer.finish().await.is_err());
    assert_eq!(payloads(&disk), [b"base".to_vec(), vec![1]]);
}

#[tokio::test]
async fn that_the_disk_is_full_is_known_before_anything_is_done() {
    let disk = FakeDisk::of_size(64 << 10);
    let writer = started(&disk);
    let room = |bytes| {
        let (answer, made) = oneshot::channel();
        let order = writer.order(Order::MakeRoom(bytes, answer));
        async move {
            order.await.unwrap_or_else(|_| panic!("the writer goes on"));
            made.await.unwrap()
        }
    };
    assert_eq!(room(20_000).await, Room::Made);
    assert_eq!(room(100_000).await, Room::DiskFull);
    let (answers, heard) = channel();
    writer.order(job(1, &answers)).await.unwrap_or_else(|_| panic!("what has room is written"));
    assert_eq!(all(&heard, 1), [1]);
    disk.set_capacity(1 << 20);
    assert_eq!(room(100_000).await, Room::Made, "somebody made room");
    writer.finish().await.unwrap();
}

fn started(disk: &FakeDisk) -> Writer<FakeDisk> {
    let base = [b"base".to_vec()].into_iter();
    let journal = Journal::create(disk.clone(), 1, base).unwrap();
    let (publisher, _) = Publisher::new(Revision::ZERO);
    Writer::start(journal, publisher).unwrap()
}

/// Writes one byte, and then says it.
fn job(n: impl TryInto<u8>, answers: &Sender<u8>) -> Order<FakeDisk> {
    let (n, answers) = (n.try_into().unwrap_or(u8::MAX), answers.clone());
    let told = Told { revision: Revision::ZERO, compacted: Revision::ZERO, commits: Vec::new() };
    let reply: Reply = Box::new(move || answers.send(n).unwrap());
    Order::Done(Job::new(vec![n], told, vec![reply]))
}

fn all(heard: &Receiver<u8>, count: usize) -> Vec<u8> {
    let within = Duration::from_secs(10);
    (0..count).map(|_| heard.recv_timeout(within).expect("an answer within 10 s")).collect()
}

fn payloads(disk: &FakeDisk) -> Vec<Vec<u8>> {
    let mut read = Vec::new();
    let visit = &mut |payload: &[u8]| {
        read.push(payload.to_vec());
        Ok(())
    };
    Journal::open(disk.clone(), visit).unwrap();
    read
}
