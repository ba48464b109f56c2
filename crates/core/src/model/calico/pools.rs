//! All pools together: which overlap, and which of them an address comes from.

use std::collections::BTreeMap;

use russet_net::{Family, Labels, Prefix};

use super::{Assignment, IpPool, Name, Use};

/// Two pools that hold one address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("pool {inner} ({inner_cidr}) lies in pool {outer} ({outer_cidr}); pools must not overlap")]
pub struct Overlap {
    pub outer: Name,
    pub outer_cidr: Prefix,
    pub inner: Name,
    pub inner_cidr: Prefix,
}

/// Every pool that lies in another, each with the smallest that it lies in; sorted by address.
pub fn overlaps(pools: &BTreeMap<Name, IpPool>) -> Vec<Overlap> {
    let mut sorted: Vec<_> = pools.iter().map(|(name, pool)| (pool.cidr(), name)).collect();
    // A prefix comes right before all that lie in it.
    sorted.sort_unstable();
    let mut found = Vec::new();
    let mut around: Vec<(Prefix, &Name)> = Vec::new();
    for (cidr, name) in sorted {
        while around.pop_if(|(outer, _)| !outer.covers(cidr)).is_some() {}
        if let Some((outer_cidr, outer)) = around.last() {
            found.push(Overlap {
                outer: (*outer).clone(),
                outer_cidr: *outer_cidr,
                inner: name.clone(),
                inner_cidr: cidr,
            });
        }
        around.push((cidr, name));
    }
    found
}

/// A pool as somebody asks for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PoolRef {
    Name(Name),
    Cidr(Prefix),
}

/// Who asks for an address of one family, and for which pools. Who asks for none at all leaves it to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolRequest {
    /// The pod's annotation `ipv4pools` or `ipv6pools`.
    pub pod: Vec<PoolRef>,
    /// That of its namespace.
    pub namespace: Vec<PoolRef>,
    /// `ipv4_pools` or `ipv6_pools` of the CNI configuration.
    pub cni: Vec<PoolRef>,
    pub node_labels: Labels,
    pub namespace_labels: Labels,
}

/// Why there is no pool to take an address from.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPool {
    #[error("pool {0} is asked for and does not exist")]
    Unknown(String),
    #[error("pool {0} is asked for and is disabled")]
    Disabled(Name),
    #[error(
        "pool {0} is asked for, and Calico's controllers withhold it: it overlaps another, or it is going"
    )]
    Withheld(Name),
    #[error("pool {name} is asked for and is {is}, and an {wanted} address is wanted")]
    OtherFamily { name: Name, is: Family, wanted: Family },
    #[error("pool {0} is asked for, and its allowedUses do not include this use")]
    OtherUse(Name),
    #[error("no enabled {0} pool's selectors choose this node and this namespace")]
    NoneChosen(Family),
}

impl PoolRequest {
    /// The pools to try, in order: those asked for as they are asked for, whatever their selectors; else
    /// every enabled pool that chooses this node and namespace, by name.
    ///
    /// # Errors
    ///
    /// When a pool that is asked for cannot be had, or none is left.
    pub fn choose<'a>(
        &self,
        pools: &'a BTreeMap<Name, IpPool>,
        family: Family,
        usage: Use,
    ) -> Result<Vec<(&'a Name, &'a IpPool)>, NoPool> {
        let asked = [&self.pod, &self.namespace, &self.cni].into_iter().find(|a| !a.is_empty());
        if let Some(asked) = asked {
            return asked.iter().map(|asked| asked.find(pools, family, usage)).collect();
        }
        let chosen: Vec<_> =
            pools.iter().filter(|(_, pool)| self.is_chosen_by(pool, family, usage)).collect();
        if chosen.is_empty() { Err(NoPool::NoneChosen(family)) } else { Ok(chosen) }
    }

    fn is_chosen_by(&self, pool: &IpPool, family: Family, usage: Use) -> bool {
        pool.gives()
            && pool.family() == family
            && pool.assignment == Assignment::Automatic
            && pool.uses.contains(&usage)
            && pool.nodes.matches(&self.node_labels)
            && pool.namespaces.matches(&self.namespace_labels)
    }
}

impl PoolRef {
    fn find<'a>(
        &self,
        pools: &'a BTreeMap<Name, IpPool>,
        family: Family,
        usage: Use,
    ) -> Result<(&'a Name, &'a IpPool), NoPool> {
        let found = match self {
            Self::Name(name) => pools.get_key_value(name),
            Self::Cidr(cidr) => pools.iter().find(|(_, pool)| pool.cidr() == *cidr),
        };
        let (name, pool) = found.ok_or_else(|| NoPool::Unknown(self.to_string()))?;
        if pool.family() != family {
            let is = pool.family();
            return Err(NoPool::OtherFamily { name: name.clone(), is, wanted: family });
        }
        if pool.is_disabled() {
            return Err(NoPool::Disabled(name.clone()));
        }
        if !pool.gives() {
            return Err(NoPool::Withheld(name.clone()));
        }
        if !pool.uses.contains(&usage) {
            return Err(NoPool::OtherUse(name.clone()));
        }
        Ok((name, pool))
    }
}

impl std::fmt::Display for PoolRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Cidr(cidr) => cidr.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use russet_desired::Flag;

    use super::*;
    use crate::model::calico::Encapsulation;

    #[test]
    fn each_pool_in_another_is_found_with_the_smallest_around_it() {
        let pools = pools([
            ("all", "10.0.0.0/8"),
            ("a", "10.1.0.0/16"),
            ("b", "10.1.128.0/17"),
            ("c", "10.2.0.0/16"),
            ("twin", "10.2.0.0/16"),
            ("apart", "11.0.0.0/16"),
            ("six", "fd00::/48"),
        ]);
        let found: Vec<_> =
            overlaps(&pools).into_iter().map(|o| format!("{} in {}", o.inner, o.outer)).collect();
        assert_eq!(found, ["a in all", "b in a", "c in all", "twin in c"]);
    }

    #[test]
    fn who_asks_goes_first_the_pod_before_its_namespace_before_the_cni_configuration() {
        let pools = pools([("a", "10.1.0.0/16"), ("b", "10.2.0.0/16"), ("c", "10.3.0.0/16")]);
        let mut request = PoolRequest::default();
        assert_eq!(chosen(&request, &pools), ["a", "b", "c"]);
        request.cni = vec![named("c")];
        assert_eq!(chosen(&request, &pools), ["c"]);
        request.namespace = vec![PoolRef::Cidr("10.2.0.0/16".parse().unwrap()), named("a")];
        assert_eq!(chosen(&request, &pools), ["b", "a"]);
        request.pod = vec![named("a")];
        assert_eq!(chosen(&request, &pools), ["a"]);
    }

    #[test]
    fn selectors_count_only_where_nobody_asks() {
        let mut pools = pools([("a", "10.1.0.0/16"), ("b", "10.2.0.0/16"), ("c", "10.3.0.0/16")]);
        pools.get_mut(&name("a")).unwrap().nodes = "zone == 'west'".parse().unwrap();
        pools.get_mut(&name("b")).unwrap().assignment = Assignment::Manual;
        pools.get_mut(&name("c")).unwrap().namespaces = "has(team)".parse().unwrap();
        let mut request = PoolRequest::default();
        let none = request.choose(&pools, Family::V4, Use::Workload);
        assert_eq!(none, Err(NoPool::NoneChosen(Family::V4)));
        request.namespace_labels = Labels::from_iter([("team", "")]);
        assert_eq!(chosen(&request, &pools), ["c"]);
        request.node_labels = Labels::from_iter([("zone", "west")]);
        assert_eq!(chosen(&request, &pools), ["a", "c"]);
        request.node_labels = Labels::new();
        request.cni = vec![named("b"), named("a")];
        assert_eq!(chosen(&request, &pools), ["b", "a"]);
    }

    #[test]
    fn a_pool_that_is_asked_for_and_cannot_be_had_is_told_by_name() {
        let mut pools = pools([("a", "10.1.0.0/16"), ("six", "fd00::/48")]);
        let off = IpPool::new("10.9.0.0/16".parse().unwrap(), None, Encapsulation::None, Flag::On);
        pools.insert(name("off"), off.unwrap());
        let mut going = pools[&name("a")].clone();
        going.withheld = Flag::On;
        pools.insert(name("going"), going);
        for (asked, usage, part) in [
            ("gone", Use::Workload, "does not exist"),
            ("off", Use::Workload, "is disabled"),
            ("going", Use::Workload, "withhold it"),
            ("six", Use::Workload, "is IPv6"),
            ("a", Use::LoadBalancer, "allowedUses"),
        ] {
            let request = PoolRequest { pod: vec![named(asked)], ..PoolRequest::default() };
            let told = request.choose(&pools, Family::V4, usage).unwrap_err().to_string();
            assert!(told.contains(part) && told.contains(asked), "{told}");
        }
    }

    fn chosen(request: &PoolRequest, pools: &BTreeMap<Name, IpPool>) -> Vec<String> {
        let chosen = request.choose(pools, Family::V4, Use::Workload).unwrap();
        chosen.into_iter().map(|(name, _)| name.to_string()).collect()
    }

    fn pools<const N: usize>(pools: [(&str, &str); N]) -> BTreeMap<Name, IpPool> {
        let pool = |cidr: &str| {
            IpPool::new(cidr.parse().unwrap(), None, Encapsulation::None, Flag::Off).unwrap()
        };
        pools.into_iter().map(|(n, cidr)| (name(n), pool(cidr))).collect()
    }

    fn named(text: &str) -> PoolRef {
        PoolRef::Name(name(text))
    }

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }
}
