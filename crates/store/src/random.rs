//! Randomness from the operating system, for identifiers and for spreading retries.

/// Returns 128 random bits, or the address-space entropy of the process when the system has none.
pub(crate) fn bits128() -> u128 {
    let mut bytes = [0; 16];
    match rustls::crypto::ring::default_provider().secure_random.fill(&mut bytes) {
        Ok(()) => u128::from_be_bytes(bytes),
        Err(_) => u128::from(hashed()) << 64 | u128::from(hashed()),
    }
}

/// Returns 64 random bits that are not zero, as etcd's identifiers are.
pub(crate) fn id64() -> u64 {
    u64::try_from(bits128() >> 64).unwrap_or(u64::MAX).max(1)
}

/// The standard library seeds each hasher afresh.
fn hashed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}
