//! Values that every part of Russet speaks of.
//!
//! Each has a private field, one checked way in and one way out, so that a value in hand is a value in
//! range. Nothing in here knows of the kernel, of a store or of another crate of ours.

mod asn;
pub mod checksum;
mod digest;
mod error;
mod ifname;
mod key;
mod label;
mod mac;
mod number;
pub mod packed;
mod prefix;
mod reach;
mod selector;

pub use self::{
    asn::Asn,
    digest::sha1,
    error::ParseError,
    ifname::{IfIndex, IfName},
    key::{PresharedKey, PublicKey},
    label::Labels,
    mac::Mac,
    number::{Mtu, OutOfRange, Port, Vni},
    prefix::{Family, Prefix},
    reach::{At, Dst, Form, Reach, Router},
    selector::{Selector, SelectorError},
};
