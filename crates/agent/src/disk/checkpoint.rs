//! What the agent knew when it was last sure: enough to repair and to serve ADD with the store away.
//!
//! One file, replaced as a whole. Its first line says what it is, and the digest and length of what follows:
//!
//! ```text
//! russet-checkpoint 1 <sha256, hex> <octets>
//! {"cluster_id":…,"revision":…,"digest":…,"config":…,"lease":…}
//! ```
//!
//! A file that is torn, of another program or of another version is an error that says so, and is never
//! taken for a good one; that there is none is no error.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use russet_core::model::LeaseKey;
use russet_net::{ParseError, Prefix};
use serde::{Deserialize, Serialize};

use super::{Disk, replace};

/// The last state of the store that was believed, and what this node holds of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which store it was.
    pub cluster_id: Option<String>,
    /// The store's revision; an older one is not believed.
    pub revision: u64,
    /// The last snapshot's digest.
    pub digest: Option<String>,
    /// The network's configuration as it stands in the store. What is not UTF-8 is not kept: it is no JSON
    /// and was never in force.
    pub config: Option<Vec<u8>>,
    pub lease: Option<OwnLease>,
    /// With preset calico.
    pub calico: Option<Arc<Objects>>,
}

/// What a node knows of Calico's objects when it starts without the store: what its network is, how it is reached
/// itself, and which blocks are its own. Each object is its key and its text, as they stand in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Objects {
    pub now: BTreeMap<String, String>,
    /// The blocks of this node.
    pub blocks: BTreeSet<Prefix>,
    /// What pools and settings were while somebody may send by the tunnels of then, the oldest first.
    pub before: Vec<BTreeMap<String, String>>,
}

/// This node's lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnLease {
    pub key: LeaseKey,
    /// By the wall clock, because the store's clock goes on while this machine is off. `None` is never.
    pub expires: Option<SystemTime>,
}

impl OwnLease {
    /// Whether the lease may still be used.
    pub fn is_valid(&self, now: SystemTime) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }

    /// How long it may still be used; `None` when that does not end, or has ended.
    pub fn time_left(&self, now: SystemTime) -> Option<Duration> {
        self.expires?.duration_since(now).ok().filter(|left| !left.is_zero())
    }
}

/// Why a checkpoint is not taken.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("{op} checkpoint")]
    Disk { op: &'static str, source: io::Error },
    #[error("the file is no checkpoint of russet")]
    Foreign,
    #[error("checkpoint format {0} is not known here, only {FORMAT}")]
    Format(String),
    #[error("the checkpoint is torn: {0}")]
    Torn(&'static str),
    #[error("the checkpoint does not hold what its format says")]
    Body(#[from] serde_json::Error),
    #[error("the checkpoint's lease")]
    Lease(#[from] ParseError),
    #[error("a block of the checkpoint's")]
    Block(#[source] ParseError),
    #[error("the checkpoint's lease has no subnet, or one of the wrong family")]
    NoSubnet,
}

impl Checkpoint {
    /// Writes it, durably, over the old one.
    ///
    /// # Errors
    ///
    /// When the disk does; the old one is whole then.
    pub fn save(&self, disk: &dyn Disk, path: &Path) -> Result<(), CheckpointError> {
        let told = |source| CheckpointError::Disk { op: "write", source };
        disk.make_folder(path.parent().unwrap_or(Path::new("/"))).map_err(told)?;
        replace(disk, path, &self.encode()?).map_err(told)
    }

    /// Reads it; `None` when there is none.
    ///
    /// # Errors
    ///
    /// When what is there is not a whole checkpoint of ours.
    pub fn load(disk: &dyn Disk, path: &Path) -> Result<Option<Self>, CheckpointError> {
        match disk.read(path) {
            Ok(octets) => Self::decode(&octets).map(Some),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(CheckpointError::Disk { op: "read", source }),
        }
    }

    fn encode(&self) -> Result<Vec<u8>, CheckpointError> {
        let body = serde_json::to_string(&Form::from(self))?;
        let digest = russet_api::cni::digest(&body);
        Ok(format!("{MAGIC} {FORMAT} {digest} {}\n{body}", body.len()).into_bytes())
    }

    fn decode(octets: &[u8]) -> Result<Self, CheckpointError> {
        if octets.is_empty() || octets.iter().all(|octet| *octet == 0) {
            return Err(CheckpointError::Torn("the file is empty"));
        }
        let text = str::from_utf8(octets).map_err(|_| CheckpointError::Foreign)?;
        let Some((head, body)) = text.split_once('\n') else {
            let torn = CheckpointError::Torn("its first line has no end");
            return Err(if text.starts_with(MAGIC) { torn } else { CheckpointError::Foreign });
        };
        let words: Vec<_> = head.split(' ').collect();
        match words.as_slice() {
            [MAGIC, FORMAT, digest, len] => {
                if len.parse() != Ok(body.len()) {
                    return Err(CheckpointError::Torn("its length is not what it says"));
                }
                if russet_api::cni::digest(body) != *digest {
                    return Err(CheckpointError::Torn("its digest is not what it says"));
                }
                Self::try_from(serde_json::from_str::<Form>(body)?)
            }
            [MAGIC, format, ..] => Err(CheckpointError::Format((*format).to_owned())),
            _ => Err(CheckpointError::Foreign),
        }
    }
}

/// The file's form.
#[derive(Serialize, Deserialize)]
struct Form {
    cluster_id: Option<String>,
    revision: u64,
    digest: Option<String>,
    config: Option<String>,
    lease: Option<LeaseForm>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    calico: Option<ObjectsForm>,
}

#[derive(Serialize, Deserialize)]
struct ObjectsForm {
    now: BTreeMap<String, String>,
    blocks: Vec<String>,
    before: Vec<BTreeMap<String, String>>,
}

#[derive(Serialize, Deserialize)]
struct LeaseForm {
    v4: Option<String>,
    v6: Option<String>,
    /// Milliseconds since 1970.
    expires_ms: Option<u64>,
}

impl From<&Checkpoint> for Form {
    fn from(from: &Checkpoint) -> Self {
        let text = |octets: &Vec<u8>| String::from_utf8(octets.clone()).ok();
        Self {
            cluster_id: from.cluster_id.clone(),
            revision: from.revision,
            digest: from.digest.clone(),
            config: from.config.as_ref().and_then(text),
            lease: from.lease.as_ref().map(LeaseForm::from),
            calico: from.calico.as_deref().map(ObjectsForm::from),
        }
    }
}

impl TryFrom<Form> for Checkpoint {
    type Error = CheckpointError;

    fn try_from(form: Form) -> Result<Self, Self::Error> {
        Ok(Self {
            cluster_id: form.cluster_id,
            revision: form.revision,
            digest: form.digest,
            config: form.config.map(String::into_bytes),
            lease: form.lease.map(OwnLease::try_from).transpose()?,
            calico: form.calico.map(Objects::try_from).transpose()?.map(Arc::new),
        })
    }
}

impl From<&Objects> for ObjectsForm {
    fn from(Objects { now, blocks, before }: &Objects) -> Self {
        let blocks = blocks.iter().map(ToString::to_string).collect();
        Self { now: now.clone(), blocks, before: before.clone() }
    }
}

impl TryFrom<ObjectsForm> for Objects {
    type Error = CheckpointError;

    fn try_from(ObjectsForm { now, blocks, before }: ObjectsForm) -> Result<Self, Self::Error> {
        let blocks = blocks.iter().map(|text| text.parse()).collect::<Result<_, _>>();
        Ok(Self { now, blocks: blocks.map_err(CheckpointError::Block)?, before })
    }
}

impl From<&OwnLease> for LeaseForm {
    fn from(lease: &OwnLease) -> Self {
        let ms = |at: SystemTime| {
            let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        };
        Self {
            v4: lease.key.v4().map(|subnet| subnet.to_string()),
            v6: lease.key.v6().map(|subnet| subnet.to_string()),
            expires_ms: lease.expires.map(ms),
        }
    }
}

impl TryFrom<LeaseForm> for OwnLease {
    type Error = CheckpointError;

    fn try_from(form: LeaseForm) -> Result<Self, Self::Error> {
        let subnet = |text: Option<String>| text.map(|text| text.parse::<Prefix>()).transpose();
        let key = LeaseKey::new(subnet(form.v4)?, subnet(form.v6)?);
        let at = |ms| SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(ms));
        // A time that the clock cannot have is over.
        let expires = form.expires_ms.map(|ms| at(ms).unwrap_or(SystemTime::UNIX_EPOCH));
        Ok(Self { key: key.ok_or(CheckpointError::NoSubnet)?, expires })
    }
}

const MAGIC: &str = "russet-checkpoint";
const FORMAT: &str = "1";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::disk::fake::FakeDisk;

    const PATH: &str = "/var/lib/russet/checkpoint.json";

    #[test]
    fn it_is_read_as_it_was_written() {
        let disk = FakeDisk::default();
        assert!(Checkpoint::load(&disk, Path::new(PATH)).unwrap().is_none());
        for n in [1, 2] {
            sample(n).save(&disk, Path::new(PATH)).unwrap();
            assert_eq!(Checkpoint::load(&disk, Path::new(PATH)).unwrap(), Some(sample(n)));
        }
    }

    #[test]
    fn no_crash_loses_the_old_one_before_the_new_one_is_there() {
        let mut states = 0;
        for step in 0..100 {
            let disk = FakeDisk::default();
            sample(1).save(&disk, Path::new(PATH)).unwrap();
            let before = disk.steps();
            disk.fail_at(before + step);
            let saved = sample(2).save(&disk, Path::new(PATH)).is_ok();
            let mut left = disk.states_after_power_failure();
            left.push(disk.after_kill());
            states += left.len();
            for disk in left {
                let found = Checkpoint::load(&disk, Path::new(PATH)).unwrap().unwrap();
                assert!(found == sample(2) || (!saved && found == sample(1)), "at step {step}");
                // What is left must not be in the way of the next one.
                sample(3).save(&disk, Path::new(PATH)).unwrap();
                assert_eq!(Checkpoint::load(&disk, Path::new(PATH)).unwrap(), Some(sample(3)));
            }
            if saved {
                println!("checkpoint: {states} crash states over {step} steps");
                assert!(step >= 4, "there are at least four boundaries");
                return;
            }
        }
        panic!("a save never ended");
    }

    #[test]
    fn what_is_not_a_whole_checkpoint_of_ours_is_never_taken() {
        let good = sample(1).encode().unwrap();
        for len in 0..good.len() {
            assert!(Checkpoint::decode(&good[..len]).is_err(), "{len} octets");
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x01;
            assert!(Checkpoint::decode(&bad).is_err(), "octet {at}");
        }
        let err = |octets: &[u8]| Checkpoint::decode(octets).unwrap_err().to_string();
        assert!(err(b"").contains("empty"));
        assert!(err(&[0; 64]).contains("empty"));
        assert!(err(b"{}\n").contains("no checkpoint of russet"));
        assert!(err(b"russet-checkpoint 2 x\n{}").contains("format 2"));
    }

    #[test]
    fn a_lease_ends_by_the_wall_clock() {
        let lease = sample(1).lease.unwrap();
        let expires = lease.expires.unwrap();
        assert!(lease.is_valid(expires - Duration::from_secs(1)));
        assert!(!lease.is_valid(expires));
        assert!(OwnLease { expires: None, ..lease }.is_valid(expires));
    }

    proptest! {
        #[test]
        fn no_octets_make_it_panic(octets in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Checkpoint::decode(&octets).is_err());
        }
    }

    fn objects(n: u64) -> Objects {
        let pools = |n| BTreeMap::from([("/calico/pool".to_owned(), format!("{{\"n\":{n}}}"))]);
        let blocks = BTreeSet::from(["10.1.0.0/26".parse().unwrap()]);
        Objects { now: pools(n), blocks, before: vec![pools(n + 1), pools(n + 2)] }
    }

    fn sample(n: u64) -> Checkpoint {
        let subnet = |text: &str| Some(text.parse().unwrap());
        let key = LeaseKey::new(subnet("10.50.7.0/24"), subnet("fd00:50:0:7::/64")).unwrap();
        let expires = SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_000 + n);
        Checkpoint {
            cluster_id: Some("c1".to_owned()),
            revision: n,
            digest: Some("d".repeat(64)),
            config: Some(br#"{"Network":"10.50.0.0/16"}"#.to_vec()),
            lease: Some(OwnLease { key, expires: Some(expires) }),
            calico: Some(Arc::new(objects(n))),
        }
    }
}
