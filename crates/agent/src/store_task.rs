//! The two tasks that speak to the datastore: one watches, one writes. Neither decides anything.

use russet_api::flannel::{Keys, write_lease};
use russet_core::lease::{StoreWrite, WriteOutcome};
use russet_store::{
    CreateOutcome, EtcdClient, Revision, StoreError, WatchRequest, client::ClusterId,
};
use tokio::sync::mpsc;

use crate::{one_line, owner::Input};

/// Hands every event of the network's folder to the owner, in order, for ever.
pub async fn watch(client: EtcdClient, prefix: String, owner: mpsc::Sender<Input>) {
    let request = WatchRequest {
        prefixes: vec![format!("{prefix}/").into_bytes()],
        sentinel: Some(ClusterId::key(&prefix)),
        ..WatchRequest::default()
    };
    let mut watch = client.watch(request);
    while let Some(event) = watch.recv().await {
        if owner.send(Input::Store(event)).await.is_err() {
            return;
        }
    }
}

/// Does one write after the other and tells how each ended.
pub async fn write(
    client: EtcdClient,
    keys: Keys,
    mut writes: mpsc::Receiver<(u64, StoreWrite)>,
    owner: mpsc::Sender<Input>,
) {
    while let Some((op, write)) = writes.recv().await {
        let outcome = carry_out(&client, &keys, write).await.unwrap_or_else(|error| {
            tracing::warn!(op = "write lease", error = %one_line(&error), "the store did not take the write");
            WriteOutcome::Failed(one_line(&error))
        });
        if owner.send(Input::Wrote { op, outcome }).await.is_err() {
            return;
        }
    }
}

/// Gives the cluster its id each time that the owner finds it without one. The watch brings it to the owner.
pub async fn name_cluster(client: EtcdClient, prefix: String, mut asked: mpsc::Receiver<()>) {
    while asked.recv().await.is_some() {
        if let Err(error) = client.ensure_cluster_id(&prefix).await {
            tracing::warn!(op = "name cluster", error = %one_line(&error), "the cluster has no id yet");
        }
    }
}

async fn carry_out(
    client: &EtcdClient,
    keys: &Keys,
    write: StoreWrite,
) -> Result<WriteOutcome, StoreError> {
    let key = keys.lease(write.key());
    let key = key.as_bytes();
    let done = |revision: Revision| WriteOutcome::Done { rev: revision.get() };
    Ok(match write {
        StoreWrite::Create { lease, ttl_s, .. } => {
            match client.create_leased(key, write_lease(&lease).as_bytes(), ttl_s).await? {
                CreateOutcome::Created { revision } => done(revision),
                CreateOutcome::Exists(_) => WriteOutcome::Exists,
            }
        }
        StoreWrite::Renew { lease, ttl_s, .. } => {
            done(client.put_leased(key, write_lease(&lease).as_bytes(), ttl_s).await?)
        }
        StoreWrite::Update { lease, .. } => {
            done(client.put(key, write_lease(&lease).as_bytes()).await?)
        }
        StoreWrite::Release { mod_rev, .. } => {
            match client.delete_if(key, Revision::new(mod_rev)).await? {
                russet_store::WriteOutcome::Done { revision } => done(revision),
                russet_store::WriteOutcome::Conflict(_) => WriteOutcome::Exists,
            }
        }
    })
}
