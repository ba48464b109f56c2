//! Any object of the kinds that commands handle.
//!
//! Most lie in etcd as they are shown. What IPAM writes is bare there, its name in its key, and is shown as the
//! object that it would be in Kubernetes; IPAM's configuration is written back the same way.

use russet_core::model::calico::{
    BgpConfiguration, BgpFilter, BgpPeer, BlockAffinity, CalicoNodeStatus, ClusterInformation,
    FelixConfiguration, IpPool, IpReservation, IpamBlock, IpamConfiguration, IpamHandle, Name,
    Node, WorkloadEndpoint,
};
use russet_net::{Labels, Prefix};
use serde_json::{Value, json};

use super::{
    at::{At, Notes},
    fault::ObjectFault,
    keys::{Key, ResourceId},
    kind::{Group, Kind},
    meta::{self, Meta},
    stored::{Fields, Form, Layout, Stored},
};

macro_rules! resources {
    ($($kind:ident),*) => {
        /// An object of any handled kind, checked.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Resource {
            $($kind(Box<Stored<$kind>>)),*
        }

        impl Resource {
            /// Reads an object with its envelope.
            ///
            /// # Errors
            ///
            /// Every fault of it at once.
            pub fn read(kind: Kind, object: Value) -> Result<Self, ObjectFault> {
                match kind {
                    $(Kind::$kind => {
                        Stored::of(object, Layout::Resource).map(|stored| Self::$kind(Box::new(stored)))
                    })*
                    _ => Err(ObjectFault::whole(kind.name(), "commands do not handle this kind yet")),
                }
            }

            pub const fn kind(&self) -> Kind {
                match self {
                    $(Self::$kind(_) => Kind::$kind),*
                }
            }

            /// The whole object.
            pub fn object(&self) -> &Value {
                match self {
                    $(Self::$kind(stored) => stored.whole()),*
                }
            }

            pub fn meta(&self) -> Option<&Meta> {
                match self {
                    $(Self::$kind(stored) => stored.meta()),*
                }
            }

            /// Fields of `spec` that are kept and have no effect here, by name.
            pub fn unused(&self) -> &[String] {
                match self {
                    $(Self::$kind(stored) => stored.unused()),*
                }
            }

            fn text(&self) -> String {
                match self {
                    $(Self::$kind(stored) => stored.text()),*
                }
            }
        }

        /// What is known of a kind's fields.
        pub(super) fn fields_of(kind: Kind) -> Fields {
            match kind {
                $(Kind::$kind => <$kind as Form>::FIELDS,)*
                _ => Fields::Some(&[]),
            }
        }
    };
}

resources!(
    BgpConfiguration,
    BgpFilter,
    BgpPeer,
    BlockAffinity,
    CalicoNodeStatus,
    ClusterInformation,
    FelixConfiguration,
    IpPool,
    IpReservation,
    IpamBlock,
    IpamConfiguration,
    IpamHandle,
    Node,
    WorkloadEndpoint
);

/// What an object is given when it is created, and keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Born {
    pub uid: String,
    /// RFC 3339, in UTC.
    pub created: String,
}

impl Resource {
    /// Reads what lies at a key; `None` for a key of a kind that commands do not handle.
    pub fn at_key(key: &Key, value: &[u8]) -> Option<Result<Self, ObjectFault>> {
        Some(match key {
            Key::Resource(id) if id.kind.is_handled() => {
                parsed(id.kind, value).and_then(|object| Self::read(id.kind, object))
            }
            Key::Resource(_) => return None,
            Key::IpamConfig => configuration(value),
            Key::Block(cidr) => block(*cidr, value),
            Key::BlockAffinity(affinity, cidr) => {
                Stored::<BlockAffinity>::read(value, Layout::Bare).and_then(|bare| {
                    let meta = named(&format!("{}-{}", affinity.name(), dashed(*cidr)))?;
                    let stored = Stored::claimed(meta, affinity, *cidr, *bare.value(), Group::V3);
                    Ok(Self::BlockAffinity(Box::new(stored)))
                })
            }
            Key::Handle(id) => Stored::<IpamHandle>::read(value, Layout::Bare).and_then(|bare| {
                let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
                let name = id.as_str().to_lowercase().replace(|c| !fits(c), "-");
                let stored = Stored::named(named(&name)?, id, bare.value().clone(), Group::V3);
                Ok(Self::IpamHandle(Box::new(stored)))
            }),
        })
    }

    pub fn labels(&self) -> Labels {
        meta::labels(&At::root(self.object(), &Notes::default()))
    }

    /// Its name, with its namespace where it lies in one.
    pub fn id(&self) -> Option<ResourceId> {
        let meta = self.meta()?;
        let namespace = meta.namespace.clone().filter(|_| self.kind().is_namespaced());
        Some(ResourceId { kind: self.kind(), namespace, name: meta.name.clone() })
    }

    /// Where etcd has it.
    pub fn key(&self) -> Option<Key> {
        match self {
            Self::IpamConfiguration(_) => Some(Key::IpamConfig),
            Self::IpamBlock(stored) => Some(Key::Block(stored.value().cidr())),
            Self::BlockAffinity(stored) => {
                stored.claim().map(|(affinity, cidr)| Key::BlockAffinity(affinity, cidr))
            }
            Self::IpamHandle(stored) => stored.id().map(Key::Handle),
            _ => self.id().map(Key::Resource),
        }
    }

    /// What Kubernetes, or etcd's revision, says of its age; empty for one that was never stored.
    pub fn version(&self) -> Option<&str> {
        let version = self.object().get("metadata")?.get("resourceVersion")?.as_str()?;
        (!version.is_empty()).then_some(version)
    }

    /// The octets that etcd is given for it: in the group that etcd holds, with what it was born with, without
    /// what only a server says. A `status` that is not said anew stays as `there` has it; and so do finalizers, owners and
    /// all else of `metadata` but labels and annotations, which are said whole. One that names the version that it is a
    /// change of was read whole, and what it leaves out of `metadata` goes.
    ///
    /// # Errors
    ///
    /// When what is there already cannot be read.
    pub fn stored(&self, born: &Born, there: Option<&[u8]>) -> Result<String, ObjectFault> {
        if let Self::IpamConfiguration(stored) = self {
            return bare_configuration(*stored.value(), there);
        }
        let mut object = self.object().clone();
        object["kind"] = self.kind().name_in(Group::V3).into();
        object["apiVersion"] = Group::V3.api_version().into();
        let there = there.and_then(|there| serde_json::from_slice::<Value>(there).ok());
        let of_there = |part: &str| there.as_ref().and_then(|there| there.get(part));
        let metadata = &mut object["metadata"];
        if let (Some(kept), None) = (of_there("metadata"), self.version()) {
            keep(metadata, kept);
        }
        metadata["uid"] = born.uid.as_str().into();
        metadata["creationTimestamp"] = born.created.as_str().into();
        strip(metadata, &["resourceVersion", "selfLink", "managedFields"]);
        if let (Some(status), None) = (of_there("status"), object.get("status")) {
            object["status"] = status.clone();
        }
        if self.kind() == Kind::Node && object.get("status").is_none() {
            // Go has no way to leave it out.
            object["status"] = json!({});
        }
        let mut whole = Self::read(self.kind(), object)?;
        // Calico fills in what is not said, too.
        match &mut whole {
            Self::IpPool(pool) => pool.set(pool.value().clone()),
            Self::WorkloadEndpoint(endpoint) => {
                let namespace = endpoint.meta().and_then(|meta| meta.namespace.clone());
                let namespace = namespace.as_ref().map_or("", Name::as_str);
                endpoint.set(endpoint.value().clone().labelled(namespace));
            }
            _ => {}
        }
        Ok(whole.text())
    }
}

/// Takes out what belongs to one store, so that the object can be created in another.
pub fn export(object: &mut Value) {
    let of_a_store =
        ["uid", "creationTimestamp", "resourceVersion", "selfLink", "generation", "managedFields"];
    if let Some(metadata) = object.get_mut("metadata") {
        strip(metadata, &of_a_store);
    }
}

/// Fills in what is not said, but for what an operator says whole.
fn keep(metadata: &mut Value, there: &Value) {
    let (Value::Object(fields), Value::Object(there)) = (metadata, there) else { return };
    for (name, value) in there {
        let is_said_whole = matches!(name.as_str(), "labels" | "annotations");
        if !is_said_whole && !fields.contains_key(name) {
            fields.insert(name.clone(), value.clone());
        }
    }
}

fn strip(metadata: &mut Value, names: &[&str]) {
    if let Value::Object(fields) = metadata {
        fields.retain(|name, _| !names.contains(&name.as_str()));
    }
}

fn parsed(kind: Kind, value: &[u8]) -> Result<Value, ObjectFault> {
    let read = serde_json::from_slice::<Value>(value);
    let read = read.map_err(|err| ObjectFault::whole(kind.name(), err.to_string()))?;
    if read.is_object() {
        Ok(read)
    } else {
        Err(ObjectFault::whole(kind.name(), "it is no JSON object"))
    }
}

fn configuration(value: &[u8]) -> Result<Resource, ObjectFault> {
    let bare = Stored::<IpamConfiguration>::read(value, Layout::Bare)?;
    let stored = Stored::new(named("default")?, *bare.value(), Group::V3);
    Ok(Resource::IpamConfiguration(Box::new(stored)))
}

fn bare_configuration(
    value: IpamConfiguration,
    there: Option<&[u8]>,
) -> Result<String, ObjectFault> {
    let mut bare = match there {
        Some(there) => Stored::<IpamConfiguration>::read(there, Layout::Bare)?,
        None => Stored::bare(value),
    };
    bare.set(value);
    Ok(bare.text())
}

fn block(cidr: Prefix, value: &[u8]) -> Result<Resource, ObjectFault> {
    let object = json!({
        "kind": Kind::IpamBlock.name(),
        "apiVersion": Group::V3.api_version(),
        "metadata": {"name": dashed(cidr), "creationTimestamp": null},
        "spec": parsed(Kind::IpamBlock, value)?,
    });
    Resource::read(Kind::IpamBlock, object)
}

/// A block's name in Kubernetes: `10-244-3-64-26`.
fn dashed(cidr: Prefix) -> String {
    cidr.to_string().replace(['.', ':', '/'], "-")
}

fn named(name: &str) -> Result<Meta, ObjectFault> {
    let name: Name = name
        .parse()
        .map_err(|err: russet_net::ParseError| ObjectFault::whole("name", err.to_string()))?;
    Ok(Meta::named(name))
}
