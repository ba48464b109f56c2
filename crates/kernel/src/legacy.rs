//! What flannel, or Felix, left by `iptables-legacy`, which keeps its rules where netlink does not reach. It is only looked at: no
//! rule of that kind is ever changed here, because each change replaces a whole table under everybody's hands.

use std::{fmt, fs, io};

use russet_net::Family;

use crate::sys::xtables;

/// A chain of flannel's, and what removes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LegacyChain {
    family: Family,
    kind: &'static ChainKind,
}

#[derive(Debug, PartialEq, Eq)]
struct ChainKind {
    table: &'static str,
    name: &'static str,
    /// Where the rule stands that leads to it, and its comment.
    from: &'static str,
    comment: &'static str,
}

/// Looks for them in the tables that are in use, without bringing any into use.
///
/// # Errors
///
/// When a table that is in use cannot be read.
pub fn flannel_chains() -> io::Result<Vec<LegacyChain>> {
    let mut found = Vec::new();
    for family in Family::BOTH {
        let in_use = tables(family);
        for kind in &KINDS {
            if !in_use.lines().any(|table| table == kind.table) {
                continue;
            }
            if has(&read_table(family, kind.table)?, kind.name) {
                found.push(LegacyChain { family, kind });
            }
        }
    }
    Ok(found)
}

/// The families in whose tables Felix has its chains.
///
/// # Errors
///
/// When a table that is in use cannot be read.
pub fn with_felix() -> io::Result<Vec<Family>> {
    let mut found = Vec::new();
    for family in Family::BOTH {
        let in_use = tables(family);
        if in_use.lines().any(|table| table == FILTER) && has(&read_table(family, FILTER)?, FELIX) {
            found.push(family);
        }
    }
    Ok(found)
}

/// A table that changes while it is read is read again.
fn read_table(family: Family, table: &str) -> io::Result<Vec<u8>> {
    let mut tries = 0;
    loop {
        match xtables::read_table(family, table) {
            Err(err) if err.kind() == io::ErrorKind::WouldBlock && tries < 3 => tries += 1,
            result => return result,
        }
    }
}

/// Without the module there is no file, and no table either.
fn tables(family: Family) -> String {
    let path = match family {
        Family::V4 => "/proc/thread-self/net/ip_tables_names",
        Family::V6 => "/proc/thread-self/net/ip6_tables_names",
    };
    fs::read_to_string(path).unwrap_or_default()
}

/// A chain's head bears its name, and so does nothing else: a rule says by an offset where it leads to.
fn has(entries: &[u8], chain: &str) -> bool {
    let name: Vec<u8> = chain.bytes().chain([0]).collect();
    entries.windows(name.len()).any(|octets| octets == name)
}

impl LegacyChain {
    /// The commands that remove it, for a shell.
    pub fn removal(&self) -> String {
        let ChainKind { table, name, from, comment } = self.kind;
        let run = format!("{} -t {table}", self.program());
        format!(
            "{run} -D {from} -m comment --comment \"{comment}\" -j {name}; {run} -F {name}; {run} -X {name}"
        )
    }

    const fn program(&self) -> &'static str {
        match self.family {
            Family::V4 => "iptables-legacy",
            Family::V6 => "ip6tables-legacy",
        }
    }
}

impl fmt::Display for LegacyChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "chain {} in table {} of {}", self.kind.name, self.kind.table, self.program())
    }
}

const FILTER: &str = "filter";
/// The chain that all that is forwarded goes through.
const FELIX: &str = "cali-FORWARD";

const KINDS: [ChainKind; 2] = [
    ChainKind {
        table: "nat",
        name: "FLANNEL-POSTRTG",
        from: "POSTROUTING",
        comment: "flanneld masq",
    },
    ChainKind {
        table: "filter",
        name: "FLANNEL-FWD",
        from: "FORWARD",
        comment: "flanneld forward",
    },
];
