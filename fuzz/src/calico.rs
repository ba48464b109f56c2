//! Objects and keys that may be Calico's.

use russet_api::calico::{Form, Key, Layout, StoreKey, Stored, Written, read_kubernetes_node};
use russet_core::model::calico::{
    BgpConfiguration, BgpFilter, BgpPeer, BlockAffinity, CalicoNodeStatus, ClusterInformation,
    FelixConfiguration, IpPool, IpReservation, IpamBlock, IpamConfiguration, IpamHandle, Node,
    WorkloadEndpoint,
};

/// Reads one object as every kind. What is read is written and read again as the same, also after it was set.
///
/// # Panics
///
/// When it is not the same.
pub fn api_calico(bytes: &[u8]) {
    if let StoreKey::Known(key) = Key::read(bytes) {
        assert_eq!(key.to_string().as_bytes(), bytes);
    }
    // Whatever it says, it must not panic.
    let _ = read_kubernetes_node(bytes);
    kept::<BgpConfiguration>(bytes);
    kept::<BgpFilter>(bytes);
    kept::<BgpPeer>(bytes);
    kept::<CalicoNodeStatus>(bytes);
    kept::<FelixConfiguration>(bytes);
    kept::<IpReservation>(bytes);
    set::<BlockAffinity>(bytes);
    set::<ClusterInformation>(bytes);
    set::<IpPool>(bytes);
    set::<IpamBlock>(bytes);
    set::<IpamConfiguration>(bytes);
    set::<IpamHandle>(bytes);
    set::<Node>(bytes);
    set::<WorkloadEndpoint>(bytes);
}

const LAYOUTS: [Layout; 2] = [Layout::Resource, Layout::Bare];

fn kept<T: Form + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    for layout in LAYOUTS {
        if let Ok(stored) = Stored::<T>::read(bytes, layout) {
            same(&stored, layout);
        }
    }
}

fn set<T: Written + Clone + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    kept::<T>(bytes);
    for layout in LAYOUTS {
        if let Ok(mut stored) = Stored::<T>::read(bytes, layout) {
            stored.set(stored.value().clone());
            same(&stored, layout);
        }
    }
}

fn same<T: Form + PartialEq + std::fmt::Debug>(stored: &Stored<T>, layout: Layout) {
    let written = stored.text();
    let again = Stored::<T>::read(written.as_bytes(), layout).expect("what was written is read");
    assert_eq!(again.value(), stored.value());
    assert_eq!(again.text(), written);
}
