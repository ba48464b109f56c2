//! Holds the crates to the architecture's map: an edge that the table does not have is a failure, and so is
//! an external crate outside its place.

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

    /// Which of our crates each may name (ARCHITECTURE.md, "The map").
    const EDGES: &[(&str, &[&str])] = &[
        ("russet-net", &[]),
        ("russet-desired", &["russet-net"]),
        ("russet-core", &["russet-net", "russet-desired"]),
        ("russet-bgp", &["russet-net"]),
        ("russet-api", &["russet-net", "russet-core"]),
        ("russet-store", &[]),
        ("russet-kernel", &["russet-net", "russet-desired"]),
        ("russet-engine", &["russet-net", "russet-kernel"]),
        (
            "russet-agent",
            &[
                "russet-net",
                "russet-desired",
                "russet-core",
                "russet-bgp",
                "russet-api",
                "russet-store",
                "russet-kernel",
            ],
        ),
        ("russet-cni", &["russet-net", "russet-api"]),
        ("russet-lab", &["russet-net", "russet-api", "russet-kernel"]),
        (
            "russet",
            &[
                "russet-net",
                "russet-desired",
                "russet-core",
                "russet-api",
                "russet-store",
                "russet-kernel",
                "russet-engine",
                "russet-agent",
                "russet-lab",
                "russet-cni",
            ],
        ),
        (
            "russet-bench",
            &[
                "russet-net",
                "russet-bgp",
                "russet-desired",
                "russet-core",
                "russet-api",
                "russet-kernel",
                "russet-lab",
            ],
        ),
        ("russet-fuzz", &["russet-net", "russet-core", "russet-bgp", "russet-api", "russet-store"]),
        ("xtask", &[]),
    ];

    /// External crates that only the named ones may use.
    const CONFINED: &[(&str, &[&str])] = &[
        ("kube", &["russet-store"]),
        // The fuzz targets speak etcd's API with messages that are none.
        ("tonic", &["russet-store", "russet-fuzz"]),
        ("prost", &["russet-store", "russet-fuzz"]),
        ("rustls", &["russet-store"]),
        ("axum", &["russet-store"]),
        ("libc", &["russet-kernel"]),
        ("anyhow", &["russet", "russet-lab", "russet-bench", "xtask"]),
    ];

    /// Without any async runtime, however far away.
    const WITHOUT_RUNTIME: &[&str] = &[
        "russet-net",
        "russet-desired",
        "russet-core",
        "russet-bgp",
        "russet-api",
        "russet-kernel",
        "russet-engine",
        "russet-cni",
    ];

    #[test]
    fn every_edge_between_our_crates_is_on_the_map() {
        let metadata = metadata();
        let ours: BTreeSet<_> =
            metadata.workspace_packages().iter().map(|p| p.name.to_string()).collect();
        let map: BTreeMap<_, _> = EDGES.iter().copied().collect();
        for package in metadata.workspace_packages() {
            let allowed = map.get(package.name.as_str());
            let allowed = allowed.unwrap_or_else(|| panic!("{} is not on the map", package.name));
            for name in normal(package).filter(|name| ours.contains(*name)) {
                assert!(allowed.contains(&name), "{} may not name {name}", package.name);
            }
        }
    }

    #[test]
    fn confined_crates_stay_in_their_place() {
        for package in metadata().workspace_packages() {
            for (external, places) in CONFINED {
                let used = normal(package).any(|name| name == *external);
                let allowed = places.contains(&package.name.as_str());
                assert!(!used || allowed, "{} may not use {external}", package.name);
            }
        }
    }

    #[test]
    fn pure_crates_reach_no_async_runtime() {
        let metadata = metadata();
        for name in WITHOUT_RUNTIME {
            let reached = reached(&metadata, name);
            for runtime in ["tokio", "async-std", "smol"] {
                assert!(!reached.contains(runtime), "{name} reaches {runtime}");
            }
        }
    }

    fn metadata() -> Metadata {
        MetadataCommand::new().current_dir(crate::run::root()).exec().expect("cargo metadata")
    }

    fn normal(package: &Package) -> impl Iterator<Item = &str> {
        package
            .dependencies
            .iter()
            .filter(|d| d.kind == DependencyKind::Normal)
            .map(|d| d.name.as_str())
    }

    /// The names of all that a package depends on, tests and build scripts apart.
    fn reached(metadata: &Metadata, root: &str) -> BTreeSet<String> {
        let nodes: BTreeMap<_, _> =
            metadata.resolve.as_ref().expect("resolve").nodes.iter().map(|n| (&n.id, n)).collect();
        let start = metadata.packages.iter().find(|p| p.name.as_str() == root).expect(root);
        let mut todo = vec![&start.id];
        let mut seen = BTreeSet::new();
        while let Some(id) = todo.pop() {
            if !seen.insert(id) {
                continue;
            }
            for dep in &nodes[id].deps {
                if dep.dep_kinds.iter().any(|k| k.kind == DependencyKind::Normal) {
                    todo.push(&dep.pkg);
                }
            }
        }
        metadata
            .packages
            .iter()
            .filter(|p| seen.contains(&p.id))
            .map(|p| p.name.to_string())
            .collect()
    }
}
