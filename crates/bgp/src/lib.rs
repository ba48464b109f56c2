//! A BGP-4 speaker, without I/O.

pub mod bfd;
