//! What is asked of one server about its own file, not about keys: how large it is, a copy of it, writing it anew.

use sha2::{Digest, Sha256};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::{EtcdClient, call::Op, kv::status_of};
use crate::{
    client::ServerStatus,
    error::StoreError,
    proto::etcdserverpb::{
        DefragmentRequest, SnapshotRequest, StatusRequest, maintenance_client::MaintenanceClient,
    },
};

/// What a server says of itself (etcd API: `StatusResponse`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    pub status: ServerStatus,
    pub version: String,
    /// Bytes of its file, and how many of those are in use.
    pub file_bytes: u64,
    pub used_bytes: u64,
}

/// Why a snapshot did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("write the snapshot")]
    Write(#[source] std::io::Error),
    #[error("the server's snapshot ended early, {missing} bytes are missing")]
    Short { missing: u64 },
    #[error("the snapshot is not what the server sent: its checksum is another")]
    Checksum,
}

impl EtcdClient {
    /// Asks the server at the first endpoint that answers how it is (etcd API: `Maintenance.Status`).
    pub async fn member_status(&self) -> Result<MemberStatus, StoreError> {
        let op = Op::read("read status", b"of the server");
        let answer = self
            .call(&op, StatusRequest {}, |channel, request| async move {
                MaintenanceClient::new(channel).status(request).await
            })
            .await?;
        Ok(MemberStatus {
            status: status_of(&op, answer.header)?,
            version: answer.version,
            file_bytes: u64::try_from(answer.db_size).unwrap_or(0),
            used_bytes: u64::try_from(answer.db_size_in_use).unwrap_or(0),
        })
    }

    /// Lets the server write its file anew, without what was deleted (etcd API: `Maintenance.Defragment`). etcd
    /// answers nobody meanwhile, so the client's request time should be long.
    pub async fn defragment(&self) -> Result<(), StoreError> {
        let op = Op::read("defragment", b"the server's file");
        self.call(&op, DefragmentRequest {}, |channel, request| async move {
            MaintenanceClient::new(channel).defragment(request).await
        })
        .await?;
        Ok(())
    }

    /// Writes the server's snapshot, an etcd database with its checksum behind it, and returns its length
    /// (etcd API: `Maintenance.Snapshot`).
    ///
    /// # Errors
    ///
    /// Also when a part does not come within the request time. What was written then is of no use.
    pub async fn snapshot(
        &self,
        out: &mut (impl AsyncWrite + Unpin),
    ) -> Result<u64, TransferError> {
        let op = Op::read("read", b"snapshot");
        let mut parts = self
            .call(&op, SnapshotRequest {}, |channel, request| async move {
                let client =
                    MaintenanceClient::new(channel).max_decoding_message_size(LARGEST_PART);
                { client }.snapshot(request).await
            })
            .await?;
        let (mut sum, mut missing) = (Checksum::default(), 1);
        loop {
            let part = async { parts.message().await.map_err(|err| op.refused(&err)) };
            let Some(part) = self.within(&op, part).await? else { break };
            out.write_all(&part.blob).await.map_err(TransferError::Write)?;
            sum.add(&part.blob);
            missing = part.remaining_bytes;
        }
        out.flush().await.map_err(TransferError::Write)?;
        match missing {
            0 if sum.fits() => Ok(sum.bytes),
            0 => Err(TransferError::Checksum),
            missing => Err(TransferError::Short { missing }),
        }
    }
}

/// Sums up all but the end of a stream, which is the sum.
#[derive(Default)]
struct Checksum {
    hash: Sha256,
    /// The last bytes, which may be the sum.
    end: Vec<u8>,
    bytes: u64,
}

impl Checksum {
    fn add(&mut self, blob: &[u8]) {
        self.bytes += u64::try_from(blob.len()).unwrap_or(0);
        self.end.extend_from_slice(blob);
        let summed = self.end.len().saturating_sub(SUM_BYTES);
        self.hash.update(self.end.drain(..summed).as_slice());
    }

    fn fits(&self) -> bool {
        *self.hash.clone().finalize() == *self.end
    }
}

/// SHA-256.
const SUM_BYTES: usize = 32;
/// etcd sends parts of 32 KiB.
const LARGEST_PART: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_found_however_the_stream_is_cut_and_one_wrong_bit_is_too() {
        let content = b"an etcd database, by and by".repeat(9);
        let whole = [&content[..], &Sha256::digest(&content)].concat();
        let fits = |bytes: &[u8], cut: usize| {
            let mut sum = Checksum::default();
            bytes.chunks(cut).for_each(|blob| sum.add(blob));
            sum.fits()
        };
        for cut in [1, 7, 31, 32, 33, 1_000] {
            assert!(fits(&whole, cut), "{cut}");
            assert!(!fits(&whole[..whole.len() - 1], cut), "{cut}");
        }
        let mut bent = whole.clone();
        bent[3] ^= 1;
        assert!(!fits(&bent, 7));
        assert!(!fits(b"", 1), "nothing is no snapshot");
    }
}
