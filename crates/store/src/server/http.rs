//! What etcd answers to plain HTTP beside its API: whether it can be written to, and its version.
//!
//! For the probes that people point at port 2379 already. The JSON gateway is not here.

use axum::{
    Router,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tonic::Status;

use super::{grpc::API_VERSION, owner::Handle};

/// Returns the paths that are no call of the API.
pub(crate) fn routes(owner: &Handle) -> Router {
    let owner = owner.clone();
    Router::new()
        .route("/health", get(move || health(owner.clone())))
        .route("/version", get(|| async { json(StatusCode::OK, version()) }))
        .fallback(unknown)
}

/// Healthy is a store that takes puts (etcd: `/health` says false while there is an alarm).
async fn health(owner: Handle) -> impl IntoResponse {
    let healthy = owner.facts().await.is_ok_and(|facts| !facts.full);
    let status = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(status, format!(r#"{{"health":"{healthy}"}}"#))
}

/// A path that is neither a call nor a page, in the words of whoever asks.
async fn unknown(headers: HeaderMap) -> Response {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    if kind.is_some_and(|kind| kind.starts_with(b"application/grpc")) {
        return Status::unimplemented("").into_http();
    }
    StatusCode::NOT_FOUND.into_response()
}

fn version() -> String {
    format!(r#"{{"etcdserver":"{API_VERSION}","etcdcluster":"{API_VERSION}"}}"#)
}

fn json(status: StatusCode, body: String) -> impl IntoResponse {
    (status, [(header::CONTENT_TYPE, "application/json")], body)
}
