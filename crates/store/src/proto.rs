//! The generated messages of etcd's v3 API. Nothing outside this crate needs them except a program
//! that wants to speak a call which [`crate::client`] does not offer.

// Generated code follows the generator's taste, not ours.
#![allow(
    clippy::all,
    clippy::pedantic,
    missing_debug_implementations,
    unreachable_pub,
    missing_docs
)]

/// What a key holds and how it changed.
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

/// The services and their requests and answers.
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

/// What the embedded server writes to its file.
pub mod journal {
    tonic::include_proto!("russet.journal");
}
