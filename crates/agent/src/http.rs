//! `/healthz`, `/readyz` and `/metrics` over HTTP/1.1, on loopback unless told otherwise. The BGP speaker that is alone
//! has pages of its own behind the same server.

use std::{convert::Infallible, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::CONTENT_TYPE,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use russet_api::admin::{Answer, Ask};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::spawn_blocking,
    time::timeout,
};

use crate::{metrics, owner::OwnerHandle};

/// Binds the address, so that a bad one is an error at the start.
///
/// # Errors
///
/// When the address cannot be bound.
pub async fn bind(addr: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(addr).await
}

/// What has the pages.
pub trait Pages: Clone + Send + Sync + 'static {
    /// The page of a path.
    fn page(&self, path: &str) -> impl Future<Output = Response<Full<Bytes>>> + Send;
}

/// Answers until it is dropped. A connection beyond [`CONNECTIONS`] waits.
pub async fn serve(listener: TcpListener, pages: impl Pages) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let pages = pages.clone();
                tokio::spawn(async move {
                    let _ = timeout(CONNECTION_TIME, converse(stream, pages)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(op = "accept http", %error, "a connection was lost");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn converse(stream: TcpStream, pages: impl Pages) -> Result<(), hyper::Error> {
    let service = service_fn(|request| {
        let pages = pages.clone();
        async move { Ok::<_, Infallible>(answer(&request, &pages).await) }
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(HEADER_OCTETS)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

async fn answer(request: &Request<Incoming>, pages: &impl Pages) -> Response<Full<Bytes>> {
    if request.method() != Method::GET {
        return page(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered\n".into());
    }
    pages.page(request.uri().path()).await
}

/// The agent's pages.
#[derive(Clone, Debug)]
pub struct AgentPages {
    pub owner: OwnerHandle,
    /// Where the engines' sockets are.
    pub engines: PathBuf,
}

impl Pages for AgentPages {
    async fn page(&self, path: &str) -> Response<Full<Bytes>> {
        if path == "/healthz" {
            return page(StatusCode::OK, "ok\n".into());
        }
        if !matches!(path, "/readyz" | "/metrics") {
            let there = "there are /healthz, /readyz and /metrics\n";
            return page(StatusCode::NOT_FOUND, there.into());
        }
        match self.owner.ask(Ask::Status).await {
            Answer::Status(status) if path == "/metrics" => {
                let folder = self.engines.clone();
                // A panic there would be told by the missing series.
                let asked = spawn_blocking(move || metrics::engine::ask_all(&folder)).await;
                page(StatusCode::OK, metrics::text(&status, &asked.unwrap_or_default()))
            }
            Answer::Status(status) => ready(&status.not_ready),
            _ => page(StatusCode::SERVICE_UNAVAILABLE, "the agent is stopping\n".into()),
        }
    }
}

fn ready(reasons: &[String]) -> Response<Full<Bytes>> {
    if reasons.is_empty() {
        return page(StatusCode::OK, "ok\n".into());
    }
    page(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", reasons.join("; ")))
}

/// A page of text.
pub fn page(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    let kind = hyper::header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}

const CONNECTIONS: usize = 32;
const HEADER_TIME: Duration = Duration::from_secs(5);
const CONNECTION_TIME: Duration = Duration::from_mins(1);
const HEADER_OCTETS: usize = 16 * 1_024;
