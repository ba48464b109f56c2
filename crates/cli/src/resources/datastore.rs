//! The datastore, seen as objects.

use anyhow::{Context, Result, bail};
use russet_api::calico::{Key, Kind, Resource, ResourceId, StoreKey};
use russet_core::model::calico::Name;
use russet_store::{
    EtcdClient, KeyValue, Revision, StoreError,
    client::{Guard, Write},
};
use serde_json::Value;

use super::at::USUAL;
use crate::store::of_a_write;

/// Where the objects are.
#[derive(Clone, Debug)]
pub struct Datastore {
    pub client: EtcdClient,
    named: Named,
}

/// Whether anybody said where the store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    Somewhere,
    /// It is looked for at the usual place.
    Nowhere,
}

/// An object and what etcd knows of it.
#[derive(Clone, Debug)]
pub struct Found {
    pub resource: Resource,
    pub key: Key,
    pub entry: KeyValue,
}

/// All objects of one kind at one revision.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    pub revision: Revision,
    pub found: Vec<Found>,
    /// What lies there and cannot be read, each with why.
    pub bad: Vec<String>,
}

impl Found {
    /// The object as it is shown: with the revision to compare a change with.
    pub fn shown(&self) -> Value {
        let mut object = self.resource.object().clone();
        object["metadata"]["resourceVersion"] = self.entry.modified.to_string().into();
        object
    }
}

impl Datastore {
    pub const fn new(client: EtcdClient, named: Named) -> Self {
        Self { client, named }
    }

    /// What lies at an object's key, readable or not.
    pub async fn entry(&self, key: &Key) -> Result<Option<KeyValue>> {
        self.client.get(key.to_string().as_bytes()).await.map_err(|err| self.named.told(err))
    }

    /// Reads one object.
    ///
    /// # Errors
    ///
    /// When it is there and cannot be read, too.
    pub async fn get(&self, id: &ResourceId) -> Result<Option<Found>> {
        let key = key_of(id);
        let Some(entry) = self.entry(&key).await? else { return Ok(None) };
        let told = || format!("read {key}");
        let Some(read) = Resource::at_key(&key, &entry.value) else { return Ok(None) };
        let resource = read.with_context(told)?;
        Ok(Some(Found { resource, key, entry }))
    }

    /// Reads all objects of a kind, of one namespace where it is given.
    pub async fn list(&self, kind: Kind, namespace: Option<&Name>) -> Result<Listed> {
        self.list_at(kind, namespace, None).await
    }

    /// The same at a revision, or the newest.
    pub async fn list_at(
        &self,
        kind: Kind,
        namespace: Option<&Name>,
        mut at: Option<Revision>,
    ) -> Result<Listed> {
        let mut listed = Listed::default();
        for prefix in prefixes(kind, namespace) {
            let page = self.client.range_prefix(prefix.as_bytes(), at).await;
            let page = page.map_err(|err| self.named.told(err))?;
            listed.revision = *at.get_or_insert(page.revision);
            page.entries.into_iter().for_each(|entry| listed.add(entry));
        }
        Ok(listed)
    }

    /// Does all writes at one revision if every guard holds; `None` when one does not.
    pub async fn write(&self, guards: Vec<Guard>, writes: Vec<Write>) -> Result<Option<Revision>> {
        self.client.write_guarded(guards, writes).await.map_err(of_a_write)
    }
}

impl Named {
    /// An error of reading, which comes before any of writing; with how to name a store where nobody did.
    fn told(self, err: StoreError) -> anyhow::Error {
        let away = err.is_unavailable();
        let err = anyhow::Error::new(err);
        if self == Self::Nowhere && away {
            let how = "name one with --endpoint, --config, RUSSET_ENDPOINTS or ETCD_ENDPOINTS";
            return err.context(format!("no store was named, and none answers at {USUAL}; {how}"));
        }
        err
    }
}

impl Listed {
    /// The one that is meant.
    ///
    /// # Errors
    ///
    /// When there is none that can be read: one that cannot may be it, and is told.
    pub fn one(&self, what: &str, is_it: impl Fn(&Found) -> bool) -> Result<&Found> {
        if let Some(found) = self.found.iter().find(|found| is_it(found)) {
            return Ok(found);
        }
        match self.bad.as_slice() {
            [] => bail!("{what} does not exist"),
            [bad] => bail!("{what} is not among what can be read; this cannot: {bad}"),
            [bad, more @ ..] => {
                let more = more.len();
                bail!(
                    "{what} is not among what can be read; {more} objects cannot, and this: {bad}"
                )
            }
        }
    }

    fn add(&mut self, entry: KeyValue) {
        let name = String::from_utf8_lossy(&entry.key).chars().take(200).collect::<String>();
        let key = match Key::read(&entry.key) {
            StoreKey::Known(key) => key,
            StoreKey::Bad(fault) => return self.bad.push(fault.to_string()),
            StoreKey::Other => return,
        };
        match Resource::at_key(&key, &entry.value) {
            Some(Ok(resource)) => self.found.push(Found { resource, key, entry }),
            Some(Err(fault)) => self.bad.push(format!("{name}: {fault}")),
            None => {}
        }
    }
}

/// Where an object of that name lies. What IPAM writes has other names in its keys and is found by listing.
pub fn key_of(id: &ResourceId) -> Key {
    match id.kind {
        Kind::IpamConfiguration => Key::IpamConfig,
        _ => Key::Resource(id.clone()),
    }
}

fn prefixes(kind: Kind, namespace: Option<&Name>) -> Vec<String> {
    let ipam = |rest| format!("{}{rest}", Key::IPAM);
    match (kind, namespace) {
        (Kind::IpamConfiguration, _) => vec![Key::IpamConfig.to_string()],
        (Kind::IpamBlock, _) => vec![ipam("assignment/")],
        (Kind::BlockAffinity, _) => vec![ipam("host/"), ipam("virtual/")],
        (Kind::IpamHandle, _) => vec![ipam("handle/")],
        (kind, Some(namespace)) if kind.is_namespaced() => {
            vec![format!("{}{namespace}/", Key::all_of(kind))]
        }
        (kind, _) => vec![Key::all_of(kind)],
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_a_write_without_answer_may_have_been_done() {
        let silent =
            StoreError::Timeout { op: "txn", subject: "/k".into(), after: Duration::from_secs(1) };
        let text = format!("{:#}", of_a_write(silent));
        assert!(text.starts_with("whether it was written is not known: txn /k: "), "{text}");
        let odd = StoreError::UnexpectedReply { op: "txn", subject: "/k".into(), what: "x" };
        assert_eq!(format!("{:#}", of_a_write(odd)), "txn /k: the answer has x");
    }

    #[test]
    fn a_store_that_nobody_named_is_told_with_how_to_name_one() {
        let away = || StoreError::Timeout {
            op: "get",
            subject: "/k".into(),
            after: Duration::from_secs(1),
        };
        let told = Named::Nowhere.told(away());
        let text = format!("{told:#}");
        assert!(text.contains("at http://127.0.0.1:2379; name one with --endpoint, --config, "));
        assert!(text.ends_with("no answer within 1000 ms") && told.is::<StoreError>(), "{text}");
        assert!(!format!("{:#}", Named::Somewhere.told(away())).contains("named"));
        let odd = StoreError::UnexpectedReply { op: "get", subject: "/k".into(), what: "x" };
        assert!(!format!("{:#}", Named::Nowhere.told(odd)).contains("named"));
    }
}
