//! The speaker's admin socket: root only, one request and one reply a connection.
//!
//! What a client sends is hostile until it is parsed: a frame has a bound, and a connection a time.

use std::{io, time::Duration};

use russet_api::{
    bgp::{Answer, Ask, Reply, Request},
    frame,
};
use tokio::{
    io::AsyncWriteExt,
    net::UnixStream,
    sync::{OwnedSemaphorePermit, mpsc, oneshot},
    time::timeout,
};

use crate::admin::read;

/// What somebody wants to know.
pub struct Question {
    pub ask: Ask,
    pub answer: oneshot::Sender<Answer>,
}

/// Serves one client, which has a place among those that are served at a time.
pub async fn converse(
    stream: UnixStream,
    manager: mpsc::Sender<Question>,
    place: OwnedSemaphorePermit,
) {
    if let Ok(Err(error)) = timeout(PATIENCE, serve(stream, &manager)).await {
        tracing::debug!(op = "admin request", %error, "a client was not served");
    }
    drop(place);
}

async fn serve(mut stream: UnixStream, manager: &mpsc::Sender<Question>) -> io::Result<()> {
    let answer = if stream.peer_cred()?.uid() == 0 {
        match read::<Request>(&mut stream).await {
            Ok(request) => ask(request.ask, manager).await,
            Err(fault) => Answer::Error(fault),
        }
    } else {
        Answer::Error("only root may ask".into())
    };
    let bytes = frame::encode(&Reply::new(answer)).map_err(io::Error::other)?;
    stream.write_all(&bytes).await?;
    stream.shutdown().await
}

async fn ask(ask: Ask, manager: &mpsc::Sender<Question>) -> Answer {
    let (answer, answered) = oneshot::channel();
    let gone = || Answer::Error("the speaker is about to stop".into());
    match manager.send(Question { ask, answer }).await {
        Ok(()) => answered.await.unwrap_or_else(|_| gone()),
        Err(_) => gone(),
    }
}

const PATIENCE: Duration = Duration::from_secs(30);
