//! A snapshot on its way to a client: etcd's own database file, then its SHA-256.
//!
//! It is made while it is sent: nothing of it is kept, and the store goes on meanwhile.

use std::io::{self, Write};

use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tonic::Status;

use crate::{
    etcd_db::{self, EtcdDbError},
    proto::etcdserverpb::SnapshotResponse,
    server::image::Image,
};

pub(super) type Answers = mpsc::Sender<Result<SnapshotResponse, Status>>;

/// Makes and sends a snapshot.
pub(super) fn send(image: &Image, answers: &Answers) -> Result<(), EtcdDbError> {
    let mut blobs =
        Blobs { answers, left: 0, buffer: Vec::with_capacity(BLOB), hash: Sha256::new() };
    let layout = etcd_db::lay_out(image)?;
    blobs.left = layout.bytes();
    etcd_db::write(image, layout, &mut blobs)?;
    blobs.flush()?;
    let hash = blobs.hash.finalize().to_vec();
    Ok(tell(answers, 0, hash)?)
}

/// Cuts what is written into answers.
struct Blobs<'a> {
    answers: &'a Answers,
    left: u64,
    buffer: Vec<u8>,
    hash: Sha256,
}

impl Write for Blobs<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = BLOB.saturating_sub(self.buffer.len());
        let taken = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        self.buffer.extend(taken);
        let count = taken.len();
        if self.buffer.len() >= BLOB {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let blob = std::mem::replace(&mut self.buffer, Vec::with_capacity(BLOB));
        self.hash.update(&blob);
        self.left = self.left.saturating_sub(u64::try_from(blob.len()).unwrap_or(0));
        tell(self.answers, self.left, blob)
    }
}

fn tell(answers: &Answers, remaining_bytes: u64, blob: Vec<u8>) -> io::Result<()> {
    let answer = SnapshotResponse { header: None, remaining_bytes, blob };
    let sent = answers.blocking_send(Ok(answer));
    sent.map_err(|_| io::Error::other("the client has gone"))
}

/// How much is sent at a time (as etcd).
const BLOB: usize = 32 << 10;
