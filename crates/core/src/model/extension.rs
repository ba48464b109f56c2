//! The operator's own commands in the place of a transport (flannel's `extension`).

use std::{collections::BTreeMap, sync::Arc};

/// The commands, each as it is written in the configuration; `None` is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtensionConfig {
    /// Run before a subnet is leased. What it prints goes into this node's lease.
    pub pre_startup: Option<Arc<str>>,
    /// Run once the subnet is leased.
    pub post_startup: Option<Arc<str>>,
    /// Run for each peer, and again when what its lease says changes.
    pub subnet_add: Option<Arc<str>>,
    /// Run for each peer that has left, and before what its lease said is replaced.
    pub subnet_remove: Option<Arc<str>>,
}

/// What the `PreStartupCommand`s of this node came to, by command: what it printed, or why that is of no use.
pub type Prepared = BTreeMap<Arc<str>, Result<Arc<str>, Arc<str>>>;

/// The name of [`ExtensionConfig::pre_startup`], as flannel's documentation spells it.
pub const PRE_STARTUP: &str = "PreStartupCommand";
