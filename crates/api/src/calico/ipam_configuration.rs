//! `IPAMConfiguration` (v3), `IPAMConfig` (v1), and etcd's `/calico/ipam/v2/config`, whose names differ.

use std::num::NonZeroU32;

use russet_core::model::{
    Flag,
    calico::{Claims, IpamConfiguration},
};

use super::{
    at::At,
    kind::Kind,
    stored::{Form, Layout, Patch, Written, spec},
};

impl Form for IpamConfiguration {
    const KIND: Kind = Kind::IpamConfiguration;
    const ORDER: &'static [&'static str] = &[
        "strict_affinity",
        "auto_allocate_blocks",
        "strictAffinity",
        "autoAllocateBlocks",
        "maxBlocksPerHost",
        "kubeVirtVMAddressPersistence",
    ];

    fn read(root: &At<'_>, layout: Layout) -> Option<Self> {
        let spec = spec(root, layout);
        let [strict, auto] = keys(layout);
        let on = |key| spec.at(key).flag().unwrap_or(false);
        let claims = match (on(strict), on(auto)) {
            (strict, true) => Claims::Automatic { strict: Flag::from(strict) },
            (true, false) => Claims::ByHand,
            (false, false) => {
                let reason = format!("{strict} must be on where this is off: nobody could borrow");
                spec.at(auto).refuse(reason);
                Claims::ByHand
            }
        };
        let most = spec.at("maxBlocksPerHost");
        let max_blocks = most.number().and_then(|number| {
            let fits = u32::try_from(number).ok().filter(|most| *most <= MOST_BLOCKS);
            if fits.is_none() {
                most.wanted(&format!("a number from 0 to {MOST_BLOCKS}"));
            }
            NonZeroU32::new(fits?)
        });
        Some(Self { claims, max_blocks })
    }
}

impl Written for IpamConfiguration {
    fn patch(&self, object: &mut Patch<'_>) {
        let [strict, auto] = keys(object.layout);
        let claims = matches!(self.claims, Claims::Automatic { .. });
        match object.layout {
            Layout::Resource => {
                object.set(&[strict], self.is_strict());
                object.set(&[auto], claims);
            }
            Layout::Bare => {
                object.flag(&[strict], self.is_strict());
                object.flag(&[auto], claims);
            }
        }
        object.set_or_remove(&["maxBlocksPerHost"], self.max_blocks.map(NonZeroU32::get));
    }
}

/// The largest that Calico takes.
const MOST_BLOCKS: u32 = 2_147_483_647;

const fn keys(layout: Layout) -> [&'static str; 2] {
    match layout {
        Layout::Resource => ["strictAffinity", "autoAllocateBlocks"],
        Layout::Bare => ["strict_affinity", "auto_allocate_blocks"],
    }
}
