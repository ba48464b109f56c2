//! The keys and their history as a list of versions, and back.
//!
//! The list is what etcd's own database holds, so a store can be loaded from one of a real etcd. It
//! comes from outside: whatever does not fit is refused, with the revision at which it does not.

use std::{iter::Peekable, sync::Arc, vec};

use super::{Before, Change, Commit, Mvcc, Version, What};
use crate::{
    contract::{KeyValue, Revision},
    server::image::{Image, ImageVersion},
};

impl Mvcc {
    /// Returns every version that is held, sorted by revision and sub.
    pub(crate) fn image_versions(&self) -> Vec<ImageVersion> {
        let count = self.keys.values().map(Vec::len).sum();
        let mut all = Vec::with_capacity(count);
        for (key, versions) in &self.keys {
            all.extend(versions.iter().map(|version| version.image(key)));
        }
        all.sort_unstable_by_key(|version| (version.revision, version.sub));
        all
    }

    /// Takes over what an image holds.
    ///
    /// # Errors
    ///
    /// When its versions are out of order or contradict one another: at which revision, and how.
    pub(crate) fn load(image: Image) -> Result<Self, String> {
        let mut mvcc = Self::new();
        mvcc.revision = image.revision.max(mvcc.revision);
        mvcc.compacted = image.compacted;
        if image.compacted > mvcc.revision {
            return Err(format!("compacted at {}, after the newest revision", image.compacted));
        }
        let mut versions = image.versions.into_iter().peekable();
        let mut last = None;
        while let Some(commit) = mvcc.load_commit(&mut versions, &mut last)? {
            if commit.revision >= mvcc.compacted && !commit.changes.is_empty() {
                mvcc.log.push_back(Arc::new(commit));
            }
        }
        // An etcd that was stopped in the middle of a compaction still has some of what it forgot.
        let several =
            mvcc.keys.iter().filter(|(_, versions)| versions.len() > 1 || !shown(versions));
        for key in several.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            mvcc.trim(&key);
        }
        Ok(mvcc)
    }

    /// Takes over all versions of one revision.
    fn load_commit(
        &mut self,
        versions: &mut Peekable<vec::IntoIter<ImageVersion>>,
        last: &mut Option<(Revision, u32)>,
    ) -> Result<Option<Commit>, String> {
        let Some(revision) = versions.peek().map(|version| version.revision) else {
            return Ok(None);
        };
        let (mut changes, mut before) = (Vec::new(), Before::default());
        while let Some(version) = versions.next_if(|version| version.revision == revision) {
            let at = (revision, version.sub);
            if last.replace(at).is_some_and(|before| before >= at) || revision > self.revision {
                return Err(format!("revision {revision} is out of order"));
            }
            let change = self.load_version(version, &changes, &before)?;
            // Of the compacted revision only values are told (as etcd).
            if revision > self.compacted || change.what.kv().is_some() {
                changes.push(change);
                before.note(&changes);
            }
        }
        Ok(Some(Commit { revision, changes }))
    }

    fn load_version(
        &mut self,
        version: ImageVersion,
        changes: &[Change],
        earlier: &Before,
    ) -> Result<Change, String> {
        let ImageVersion { revision, sub, what } = version;
        let before = self.get(what.key()).cloned();
        check(&what, revision, before.as_deref(), self.compacted)?;
        // What was before the compacted revision cannot be read, so nobody is told (as etcd).
        let prev = earlier.prev(changes, what.key(), before);
        let prev = prev.filter(|_| revision > self.compacted);
        self.add(what.key(), Version { from: revision, sub, kv: what.kv().cloned() });
        Ok(Change { sub, what, prev })
    }
}

impl Version {
    fn image(&self, key: &[u8]) -> ImageVersion {
        let what = match &self.kv {
            Some(kv) => What::Put(Arc::clone(kv)),
            None => What::Delete(key.to_vec()),
        };
        ImageVersion { revision: self.from, sub: self.sub, what }
    }
}

fn shown(versions: &[Version]) -> bool {
    versions.last().is_some_and(|version| version.kv.is_some())
}

/// A value must be of its revision and follow the one before it.
fn check(
    what: &What,
    revision: Revision,
    before: Option<&KeyValue>,
    compacted: Revision,
) -> Result<(), String> {
    let key = || String::from_utf8_lossy(what.key()).into_owned();
    let fits = match (what, before) {
        (What::Put(kv), None) => kv.created <= revision && kv.version > 0,
        (What::Put(kv), Some(before)) => {
            kv.created == before.created && kv.version == before.version.saturating_add(1)
        }
        (What::Delete(_), before) => before.is_some() || revision <= compacted,
    };
    let own = what.kv().is_none_or(|kv| kv.modified == revision);
    if what.key().is_empty() || !fits || !own {
        return Err(format!("the version of key {} at revision {revision} does not fit", key()));
    }
    Ok(())
}
