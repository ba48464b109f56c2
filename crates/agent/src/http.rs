//! `/healthz`, `/readyz` and `/metrics` over HTTP/1.1, on loopback unless told otherwise.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

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

/// Answers until it is dropped. A connection beyond [`CONNECTIONS`] waits.
pub async fn serve(listener: TcpListener, owner: OwnerHandle) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let owner = owner.clone();
                tokio::spawn(async move {
                    let _ = timeout(CONNECTION_TIME, converse(stream, owner)).await;
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

async fn converse(stream: TcpStream, owner: OwnerHandle) -> Result<(), hyper::Error> {
    let service = service_fn(|request| {
        let owner = owner.clone();
        async move { Ok::<_, Infallible>(answer(&request, &owner).await) }
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_buf_size(HEADER_OCTETS)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

async fn answer(request: &Request<Incoming>, owner: &OwnerHandle) -> Response<Full<Bytes>> {
    if request.method() != Method::GET {
        return page(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered\n".into());
    }
    let path = request.uri().path();
    if path == "/healthz" {
        return page(StatusCode::OK, "ok\n".into());
    }
    if !matches!(path, "/readyz" | "/metrics") {
        return page(StatusCode::NOT_FOUND, "there are /healthz, /readyz and /metrics\n".into());
    }
    match owner.ask(Ask::Status).await {
        Answer::Status(status) if path == "/metrics" => {
            page(StatusCode::OK, metrics::text(&status))
        }
        Answer::Status(status) => ready(&status.not_ready),
        _ => page(StatusCode::SERVICE_UNAVAILABLE, "the agent is stopping\n".into()),
    }
}

fn ready(reasons: &[String]) -> Response<Full<Bytes>> {
    if reasons.is_empty() {
        return page(StatusCode::OK, "ok\n".into());
    }
    page(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {}\n", reasons.join("; ")))
}

fn page(status: StatusCode, text: String) -> Response<Full<Bytes>> {
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
