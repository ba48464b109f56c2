//! How wishes travel from the calculation to the drivers.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use russet_net::packed;

use crate::{
    Address, Chain, Element, Engine, EnginePeer, Fdb, ForeignAccept, Kind, Leftover, Link,
    Neighbour, NextHop, Offload, Port, Route, Set, Sysctl, WireguardDevice, WireguardPeer,
};

/// All objects of one kind.
pub type Table<K> = BTreeMap<<K as Kind>::Key, <K as Kind>::Value>;

/// Wanted values by key; `None` means that the object must not be there. The newest wins.
pub type Patch<K> = BTreeMap<<K as Kind>::Key, Option<<K as Kind>::Value>>;

/// Declares, for a list of kinds, the enum of all items, the enum of all keys, and the structs that hold
/// a table or a patch of each. The list is in the order of making; removal runs in reverse.
macro_rules! kinds {
    ($($kind:ident $field:ident),+ $(,)?) => {
        /// One wanted object.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Item {
            $($kind(<$kind as Kind>::Key, <$kind as Kind>::Value)),+
        }

        /// The key of an object of any kind.
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Key {
            $($kind(<$kind as Kind>::Key)),+
        }

        impl Item {
            pub fn key(&self) -> Key {
                match self { $(Self::$kind(key, _) => Key::$kind(key.clone())),+ }
            }
        }

        impl Key {
            /// As an operator calls it: `next hop`.
            pub fn kind(&self) -> &'static str {
                match self { $(Self::$kind(_) => $kind::NAME),+ }
            }
        }

        impl fmt::Display for Key {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self { $(Self::$kind(key) => write!(f, "{} {key}", $kind::NAME)),+ }
            }
        }

        /// Every object that should be there.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Tables {
            $(pub $field: Table<$kind>),+
        }

        impl Tables {
            pub fn insert(&mut self, item: Item) {
                match item { $(Item::$kind(key, value) => { self.$field.insert(key, value); }),+ }
            }

            pub fn apply(&mut self, patches: Patches) {
                $(for (key, wanted) in patches.$field {
                    match wanted {
                        Some(value) => self.$field.insert(key, value),
                        None => self.$field.remove(&key),
                    };
                })+
            }

            /// Applies a patch, and returns the part of it that changed something.
            #[must_use]
            pub fn absorb(&mut self, patches: Patches) -> Patches {
                let mut changed = patches;
                $(absorb::<$kind>(&mut self.$field, &mut changed.$field);)+
                changed
            }

            /// Applies a patch to each of two tables that may want the same objects, and returns what it changed of both
            /// together. What both want is as this one wants it.
            #[must_use]
            pub fn absorb_both(&mut self, other: &mut Self, ours: Patches, theirs: Patches) -> Patches {
                if other.is_empty() && theirs.is_empty() {
                    return self.absorb(ours);
                }
                Patches {
                    $($field: absorb_both::<$kind>(
                        [&mut self.$field, &mut other.$field],
                        [ours.$field, theirs.$field],
                    )),+
                }
            }

            /// The patch that makes `newer` of this: everything of `newer`, and `None` for what it lacks.
            #[must_use]
            pub fn patch_to(&self, newer: Self) -> Patches {
                Patches { $($field: patch_to::<$kind>(&self.$field, newer.$field)),+ }
            }

            /// Has each table take up no more than what is in it.
            pub fn pack(&mut self) {
                $(packed::pack(&mut self.$field);)+
            }

            pub fn contains(&self, key: &Key) -> bool {
                match key { $(Key::$kind(key) => self.$field.contains_key(key)),+ }
            }

            pub fn len(&self) -> usize {
                [$(self.$field.len()),+].iter().sum()
            }

            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }
        }

        /// Of two who are the same object the later stays.
        impl FromIterator<Item> for Tables {
            fn from_iter<I: IntoIterator<Item = Item>>(items: I) -> Self {
                let mut rows = Rows::default();
                rows.sort_out(items);
                Self { $($field: rows.$field.into_iter().collect()),+ }
            }
        }

        /// A change of what should be there.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Patches {
            $(pub $field: Patch<$kind>),+
        }

        impl Patches {
            /// Leaves out what lies below another table that wants the same objects: they stay as that one wants them.
            pub fn hide_below(&mut self, above: &Tables) {
                $(self.$field.retain(|key, _| !above.$field.contains_key(key));)+
            }

            /// What is not wanted any more by this one, and is by another that lies below it, becomes as that one wants it.
            pub fn reveal(&mut self, below: [&Tables; 2]) {
                $(for (key, wanted) in self.$field.iter_mut().filter(|(_, wanted)| wanted.is_none()) {
                    *wanted = below.iter().find_map(|table| table.$field.get(key)).cloned();
                })+
            }

            pub fn set(&mut self, item: Item) {
                match item { $(Item::$kind(key, value) => { self.$field.insert(key, Some(value)); }),+ }
            }

            pub fn unset(&mut self, key: Key) {
                match key { $(Key::$kind(key) => { self.$field.insert(key, None); }),+ }
            }

            /// Adds a newer patch on top of this one.
            pub fn merge(&mut self, newer: Self) {
                $(merge(&mut self.$field, newer.$field);)+
            }

            pub fn len(&self) -> usize {
                [$(self.$field.len()),+].iter().sum()
            }

            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }
        }

        /// Every item is wanted; of two who are the same object the later stays.
        impl FromIterator<Item> for Patches {
            fn from_iter<I: IntoIterator<Item = Item>>(items: I) -> Self {
                let mut rows = Rows::default();
                rows.sort_out(items);
                Self { $($field: all_wanted(rows.$field)),+ }
            }
        }

        /// Items by their kind. A map that is built of many rows at once is built in one go.
        #[derive(Default)]
        struct Rows {
            $($field: Vec<(<$kind as Kind>::Key, <$kind as Kind>::Value)>),+
        }

        impl Rows {
            fn sort_out(&mut self, items: impl IntoIterator<Item = Item>) {
                for item in items {
                    match item { $(Item::$kind(key, value) => self.$field.push((key, value))),+ }
                }
            }
        }
    };
}

kinds! {
    Sysctl sysctls,
    Link links,
    Engine engines,
    EnginePeer engine_peers,
    WireguardDevice wireguard_devices,
    WireguardPeer wireguard_peers,
    Port ports,
    Offload offloads,
    Address addresses,
    Neighbour neighbours,
    Fdb fdb,
    NextHop next_hops,
    Route routes,
    Set sets,
    Element elements,
    Chain chains,
    ForeignAccept foreign_accepts,
    Leftover leftovers,
}

/// Takes a patch into a table, and leaves of the patch what changed something.
fn absorb<K: Kind>(table: &mut Table<K>, patch: &mut Patch<K>) {
    if table.is_empty() {
        patch.retain(|_, wanted| wanted.is_some());
        let some =
            |(key, wanted): (&K::Key, &Option<K::Value>)| Some((key.clone(), wanted.clone()?));
        *table = patch.iter().filter_map(some).collect();
        return;
    }
    patch.retain(|key, wanted| {
        let changes = table.get(key) != wanted.as_ref();
        if changes {
            match wanted {
                Some(value) => table.insert(key.clone(), value.clone()),
                None => table.remove(key),
            };
        }
        changes
    });
}

fn absorb_both<K: Kind>(tables: [&mut Table<K>; 2], patches: [Patch<K>; 2]) -> Patch<K> {
    let [ours, theirs] = tables;
    let keys: BTreeSet<_> = patches.iter().flat_map(BTreeMap::keys).cloned().collect();
    let wanted = |ours: &Table<K>, theirs: &Table<K>, key: &K::Key| {
        ours.get(key).or_else(|| theirs.get(key)).cloned()
    };
    let before: Vec<_> = keys.into_iter().map(|key| (wanted(ours, theirs, &key), key)).collect();
    for (table, patch) in [&mut *ours, &mut *theirs].into_iter().zip(patches) {
        for (key, value) in patch {
            match value {
                Some(value) => table.insert(key, value),
                None => table.remove(&key),
            };
        }
    }
    let changed = before.into_iter().filter_map(|(old, key)| {
        let now = wanted(ours, theirs, &key);
        (now != old).then_some((key, now))
    });
    changed.collect()
}

fn patch_to<K: Kind>(older: &Table<K>, newer: Table<K>) -> Patch<K> {
    let gone: Vec<_> = older.keys().filter(|key| !newer.contains_key(key)).cloned().collect();
    let changed = newer.into_iter().filter(|(key, value)| older.get(key) != Some(value));
    let wanted = changed.map(|(key, value)| (key, Some(value)));
    gone.into_iter().map(|key| (key, None)).chain(wanted).collect()
}

fn all_wanted<K: Ord, V>(rows: Vec<(K, V)>) -> BTreeMap<K, Option<V>> {
    rows.into_iter().map(|(key, value)| (key, Some(value))).collect()
}

fn merge<K: Ord, V>(older: &mut BTreeMap<K, V>, newer: BTreeMap<K, V>) {
    if older.is_empty() {
        *older = newer;
    } else {
        older.extend(newer);
    }
}

/// Where a calculation puts what it wants.
#[derive(Clone, Debug, Default)]
pub struct Emit {
    pub items: Vec<Item>,
}

impl Emit {
    pub fn push(&mut self, item: Item) {
        self.items.push(item);
    }
}

#[cfg(test)]
mod tests {
    use russet_net::IfName;

    use super::*;
    use crate::{Flag, PortSpec};

    #[test]
    fn the_newest_wish_wins() {
        let name: IfName = "rst0".parse().unwrap();
        let port = |hairpin| Item::Port(name, PortSpec { hairpin });
        let mut patches = Patches::default();
        patches.set(port(Flag::Off));

        let mut newer = Patches::default();
        newer.set(port(Flag::On));
        patches.merge(newer);

        let mut tables = Tables::default();
        tables.apply(patches);
        assert_eq!(tables.ports[&name], PortSpec { hairpin: Flag::On });
    }

    #[test]
    fn only_what_changes_something_is_left_of_an_absorbed_patch() {
        let name = |text: &str| text.parse::<IfName>().unwrap();
        let port = |text, hairpin| Item::Port(name(text), PortSpec { hairpin });
        let mut tables = Tables::default();
        tables.insert(port("rst0", Flag::On));

        let mut newer = Tables::default();
        newer.insert(port("rst1", Flag::On));
        let patch = tables.patch_to(newer.clone());
        assert_eq!(patch.ports[&name("rst0")], None);

        let mut noisy = patch.clone();
        noisy.unset(Key::Port(name("rst2")));
        assert_eq!(tables.absorb(noisy), patch);
        assert_eq!(tables, newer);
        assert!(tables.contains(&Key::Port(name("rst1"))));
    }

    #[test]
    fn a_key_is_named_for_an_operator() {
        let key = Key::Port("rst0".parse().unwrap());
        assert_eq!(key.to_string(), "bridge port rst0");
    }
}
