//! One gRPC stream with a watcher for each prefix.

use std::collections::VecDeque;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, metadata::AsciiMetadataValue};

use super::fragments::{Fragments, TooLarge, octets};
use crate::{
    client::{EtcdClient, call::Op},
    contract::{Revision, prefix_end},
    error::{Refusal, StoreError},
    proto::{
        etcdserverpb::{
            WatchCreateRequest, WatchRequest as WireRequest, WatchResponse,
            watch_client::WatchClient, watch_request::RequestUnion,
        },
        mvccpb,
    },
};

/// An open stream. The watcher's number on the wire is the prefix's
/// place plus one.
pub(super) struct Stream {
    pub(super) op: Op,
    responses: Streaming<WatchResponse>,
    /// Ours, so that the stream stays open: etcd ends it when the client's half ends.
    _requests: mpsc::Sender<WireRequest>,
    /// By prefix.
    fragments: Fragments,
    /// What came for one watcher while another was still being created.
    early: VecDeque<WatchResponse>,
}

impl Stream {
    /// Opens the stream and waits until the server has created every watcher.
    pub(super) async fn open(
        client: &EtcdClient,
        prefixes: &[Vec<u8>],
        next: &[Revision],
    ) -> Result<Self, StoreError> {
        let op = Op::read("watch", &named(prefixes));
        client.within(&op, Self::connect(client, &op, prefixes, next)).await
    }

    async fn connect(
        client: &EtcdClient,
        op: &Op,
        prefixes: &[Vec<u8>],
        next: &[Revision],
    ) -> Result<Self, StoreError> {
        let (requests, outgoing) = mpsc::channel(prefixes.len().max(1));
        for ((prefix, next), id) in prefixes.iter().zip(next).zip(1..) {
            // The queue has room for them all.
            let _ = requests.try_send(create_request(id, prefix, *next));
        }
        let (channel, endpoint) = client.endpoint();
        let mut request = client.request(channel.clone(), ReceiverStream::new(outgoing)).await?;
        request.metadata_mut().insert("hasleader", AsciiMetadataValue::from_static("true"));
        let responses = WatchClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .watch(request)
            .await
            .map_err(|err| op.refused(&err).at(endpoint))?
            .into_inner();
        let fragments = Fragments::new(prefixes.len());
        let early = VecDeque::new();
        let mut stream = Self { op: op.clone(), responses, _requests: requests, fragments, early };
        stream.wait_until_created(prefixes.len()).await?;
        Ok(stream)
    }

    /// Waits until every watcher exists. A server that would rather send history first is let.
    async fn wait_until_created(&mut self, mut missing: usize) -> Result<(), StoreError> {
        let mut room = MAX_EARLY_BYTES;
        while missing > 0 && room > 0 && self.early.len() < MAX_EARLY {
            let response = self.receive().await?;
            room = room.saturating_sub(octets(&response.events));
            if response.canceled {
                return Err(canceled(&self.op, &response));
            }
            missing -= usize::from(response.created);
            self.early.push_back(response);
        }
        Ok(())
    }

    pub(super) async fn next(&mut self) -> Result<WatchResponse, StoreError> {
        match self.early.pop_front() {
            Some(response) => Ok(response),
            None => self.receive().await,
        }
    }

    async fn receive(&mut self) -> Result<WatchResponse, StoreError> {
        let response = self.responses.message().await.map_err(|err| self.op.refused(&err))?;
        response.ok_or_else(|| StoreError::StreamEnded { subject: self.op.subject.clone() })
    }

    pub(super) fn index_of(&self, response: &WatchResponse) -> Option<usize> {
        let index = usize::try_from(response.watch_id).ok()?.checked_sub(1)?;
        (index < self.fragments.watchers()).then_some(index)
    }

    /// Takes an answer, and returns the events that are to be handed on.
    pub(super) fn join(
        &mut self,
        which: usize,
        response: WatchResponse,
    ) -> Result<Option<Vec<mvccpb::Event>>, StoreError> {
        let joined = self.fragments.join(which, response);
        joined.map_err(|TooLarge| self.op.unexpected("fragments without an end"))
    }
}

/// Reads why the server ended a watcher.
pub(super) fn canceled(op: &Op, response: &WatchResponse) -> StoreError {
    let subject = op.subject.clone();
    let compacted = Revision::from_wire(response.compact_revision);
    if compacted > Revision::ZERO {
        return StoreError::WatchCompacted { subject, compacted };
    }
    let reason = response.cancel_reason.clone();
    let refusal = Refusal::of_reason(&reason);
    StoreError::Canceled { subject, reason, refusal }
}

fn create_request(id: i64, prefix: &[u8], start: Revision) -> WireRequest {
    let create = WatchCreateRequest {
        key: if prefix.is_empty() { vec![0] } else { prefix.to_vec() },
        range_end: prefix_end(prefix),
        start_revision: start.to_wire(),
        watch_id: id,
        fragment: true,
        ..WatchCreateRequest::default()
    };
    WireRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
}

/// What is watched, in a few words: who watches a cluster's objects names more than a dozen.
fn named(prefixes: &[Vec<u8>]) -> Vec<u8> {
    match prefixes {
        [first, rest @ ..] if rest.len() > 1 => {
            [first.as_slice(), format!(" and {} more", rest.len()).as_bytes()].concat()
        }
        few => few.join(&b' '),
    }
}

/// Answers that are kept while watchers are being created, and what they may take before the last.
const MAX_EARLY: usize = 64;
const MAX_EARLY_BYTES: usize = 16 << 20;
/// etcd fragments at its request limit (1.5 MiB by default); a single value may stand beside others.
const MAX_MESSAGE_BYTES: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_of_many_prefixes_is_told_by_the_first() {
        let of = |all: &[&str]| {
            let all: Vec<_> = all.iter().map(|one| one.as_bytes().to_vec()).collect();
            String::from_utf8(named(&all)).unwrap()
        };
        assert_eq!(of(&["/a/"]), "/a/");
        assert_eq!(of(&["/a/", "/b/"]), "/a/ /b/");
        assert_eq!(of(&["/a/", "/b/", "/c/"]), "/a/ and 2 more");
    }
}
