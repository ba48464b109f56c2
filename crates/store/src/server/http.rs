//! What etcd answers to plain HTTP beside its API: whether it can be written to, and its version.
//!
//! For the probes that people point at port 2379 already. The JSON gateway is not here.

use axum::{
    Router,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};

use super::{grpc::API_VERSION, owner::Handle};

/// Returns the paths that are no call of the API.
pub(crate) fn routes(owner: &Handle) -> Router {
    let owner = owner.clone();
    Router::new()
        .route("/health", get(move || health(owner.clone())))
        .route("/version", get(|| async { json(StatusCode::OK, version()) }))
}

/// Healthy is a store that takes puts (etcd: `/health` says false while there is an alarm).
async fn health(owner: Handle) -> impl IntoResponse {
    let healthy = owner.facts().await.is_ok_and(|facts| !facts.full);
    let status = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(status, format!(r#"{{"health":"{healthy}"}}"#))
}

fn version() -> String {
    format!(r#"{{"etcdserver":"{API_VERSION}","etcdcluster":"{API_VERSION}"}}"#)
}

fn json(status: StatusCode, body: String) -> impl IntoResponse {
    (status, [(header::CONTENT_TYPE, "application/json")], body)
}
