//! The admin socket: root only, one request and one reply a connection.
//!
//! What a client sends is hostile until it is parsed: a frame has a bound, a connection a time, and there is
//! a bound to how many are served at once.

use std::{io, os::unix::fs::PermissionsExt, path::Path, sync::Arc, time::Duration};

use russet_api::{
    admin::{Answer, Leftover, Reply, Request},
    frame,
};
use russet_kernel::legacy::{self, LegacyChain};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    time::timeout,
};

use crate::{one_line, owner::OwnerHandle};

/// Makes the socket anew: whatever lies at its path is a dead agent's, since we hold the node's lock.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Answers until it is dropped.
pub async fn serve(listener: UnixListener, owner: OwnerHandle) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let owner = owner.clone();
        tokio::spawn(async move {
            if let Ok(Err(error)) = timeout(PATIENCE, converse(stream, &owner)).await {
                tracing::debug!(op = "admin request", %error, "a client was not served");
            }
            drop(place);
        });
    }
}

async fn converse(mut stream: UnixStream, owner: &OwnerHandle) -> io::Result<()> {
    let answer = if stream.peer_cred()?.uid() == 0 {
        match read::<Request>(&mut stream).await {
            Ok(request) => with_leftovers(owner.ask(request.ask).await).await,
            Err(fault) => Answer::Error(fault),
        }
    } else {
        Answer::Error("only root may ask".into())
    };
    let bytes = frame::encode(&Reply::new(answer)).map_err(io::Error::other)?;
    stream.write_all(&bytes).await?;
    stream.shutdown().await
}

/// What flannel left where the owner does not look.
async fn with_leftovers(mut answer: Answer) -> Answer {
    if let Answer::Status(status) = &mut answer
        && status.preset == "flannel"
    {
        // Tables may be large, and everything else of the agent runs on this thread.
        let chains = tokio::task::spawn_blocking(legacy::flannel_chains).await;
        let chains = chains.unwrap_or_else(|err| Err(std::io::Error::other(err)));
        status.leftovers = match chains {
            Ok(chains) => chains.iter().map(leftover).collect(),
            Err(error) => {
                tracing::warn!(op = "look for chains", %error, "the tables of iptables-legacy cannot be read");
                Vec::new()
            }
        };
    }
    answer
}

fn leftover(chain: &LegacyChain) -> Leftover {
    Leftover { what: chain.to_string(), removal: chain.removal() }
}

/// Reads one request of either admin socket.
pub(crate) async fn read<M: frame::Message>(stream: &mut UnixStream) -> Result<M, String> {
    let mut header = [0; frame::HEADER_LEN];
    stream
        .read_exact(&mut header)
        .await
        .map_err(|err| format!("read the request's length: {err}"))?;
    let len = frame::body_len(header).map_err(|err| one_line(&err))?;
    let mut body = vec![0; len];
    stream.read_exact(&mut body).await.map_err(|err| format!("read the request: {err}"))?;
    frame::decode(&body).map_err(|err| one_line(&err))
}

const CONNECTIONS: usize = 16;
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use russet_api::admin::Ask;

    use super::*;
    use crate::owner::Input;

    #[tokio::test]
    async fn a_question_is_answered() {
        let folder = tempfile::tempdir().unwrap();
        let path = served(&folder);
        let frame = frame::encode(&Request::new(Ask::AcceptStore)).unwrap();
        assert_eq!(ask(&path, &frame).await, Answer::Done);
    }

    #[tokio::test]
    async fn what_is_no_request_is_named_and_others_do_not_notice() {
        let folder = tempfile::tempdir().unwrap();
        let path = served(&folder);
        let body = |text: &str| {
            let len = u32::try_from(text.len()).unwrap().to_be_bytes();
            [&len, text.as_bytes()].concat()
        };
        for (octets, told) in [
            (body("{\"version\":7,\"ask\":\"status\"}"), "version 7"),
            (body("{}"), "no protocol version"),
            (body("not json"), "no JSON"),
            (body("{\"version\":1,\"ask\":\"everything\"}"), "unknown variant"),
            (u32::MAX.to_be_bytes().to_vec(), "longer than"),
        ] {
            let Answer::Error(text) = ask(&path, &octets).await else {
                panic!("{told}: it was answered")
            };
            assert!(text.contains(told), "{told} is missing in {text}");
        }
        // One that says half a word and goes silent holds nobody up.
        let mut silent = UnixStream::connect(&path).await.unwrap();
        silent.write_all(&[0, 0]).await.unwrap();
        let frame = frame::encode(&Request::new(Ask::AcceptStore)).unwrap();
        assert_eq!(ask(&path, &frame).await, Answer::Done);
    }

    /// A socket whose owner says that all is done.
    fn served(folder: &tempfile::TempDir) -> std::path::PathBuf {
        let path = folder.path().join("admin.sock");
        let (inputs, mut inbox) = tokio::sync::mpsc::channel(1);
        tokio::spawn(async move {
            while let Some(input) = inbox.recv().await {
                if let Input::Ask(_, answer) = input {
                    let _ = answer.send(Answer::Done);
                }
            }
        });
        tokio::spawn(serve(bind(&path).unwrap(), OwnerHandle::new(inputs)));
        path
    }

    async fn ask(path: &Path, octets: &[u8]) -> Answer {
        let mut stream = UnixStream::connect(path).await.unwrap();
        stream.write_all(octets).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        frame::read::<Reply>(&mut answer.as_slice()).unwrap().answer
    }
}
