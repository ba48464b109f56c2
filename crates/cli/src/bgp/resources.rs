//! `russet bgp --resources`: a speaker by Calico's resources in a folder, and what would become of them.

use std::{
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{Mutex, PoisonError},
};

use anyhow::Result;
use clap::Args;
use russet_agent::{
    bgp::resources::{AsNumbers, Base, Documents, Folder, Grade, Resources, Wished, derive},
    config::ConfigFaults,
};
use russet_net::Prefix;
use serde_json::Value;

use crate::{exit::REFUSED, output::table};

#[derive(Args, Debug)]
pub struct ResourcesArgs {
    /// A folder of Calico's resources, as docs/bgp.md lists them, as YAML or JSON, in the place of
    /// a configuration file
    #[arg(long, value_name = "DIR", requires = "node", conflicts_with = "config")]
    pub resources: Option<PathBuf>,
    /// Which of the nodes this is
    #[arg(long, requires = "resources", env = "RUSSET_NODE")]
    node: Option<String>,
    /// What this node announces, such as its blocks; may be given again
    #[arg(long, value_name = "PREFIX", requires = "resources")]
    announce: Vec<Prefix>,
    /// The folder of passwords, a file NAME/KEY for each that a resource names
    #[arg(long, value_name = "DIR", default_value = "/etc/russet/bgp-secrets")]
    secrets: PathBuf,
    /// The speaker's admin socket
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/run/russet/bgp.sock",
        requires = "resources"
    )]
    admin_socket: PathBuf,
    /// Where /metrics answers; nowhere unless told
    #[arg(long, value_name = "ADDRESS", requires = "resources")]
    http: Option<SocketAddr>,
}

/// Reads the folder, each time anew. An object that cannot be read stays what it was.
pub struct Reader {
    folder: PathBuf,
    node: String,
    base: Base,
    secrets: Folder,
    last: Mutex<Option<Resources>>,
}

impl Reader {
    /// A reader of this folder.
    pub fn new(folder: PathBuf, args: ResourcesArgs) -> Self {
        Self {
            folder,
            node: args.node.unwrap_or_default(),
            base: Base {
                admin_socket: args.admin_socket,
                http: args.http,
                announced: args.announce,
            },
            secrets: Folder(Some(args.secrets)),
            last: Mutex::new(None),
        }
    }

    pub fn read(&self, in_force: Option<AsNumbers>) -> Result<Wished, ConfigFaults> {
        // Nobody panics while holding it.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let resources = read(&self.folder, &self.node, last.as_ref())?;
        let wished = derive(&resources, &self.base, in_force, &self.secrets);
        *last = Some(resources);
        wished
    }
}

fn read(folder: &Path, node: &str, last: Option<&Resources>) -> Result<Resources, ConfigFaults> {
    let one = |text: String| ConfigFaults(vec![text]);
    let node = node.parse().map_err(|err| one(format!("--node: {err}")))?;
    let files = files(folder).map_err(|err| one(format!("{}: {err}", folder.display())))?;
    let mut documents = Documents::new(node, last);
    let mut faults = Vec::new();
    for file in files {
        let at = |err: &dyn std::fmt::Display| format!("{}: {err}", file.display());
        match read_file(&file) {
            Ok(all) => {
                let read = all.iter().map(|document| documents.read(document));
                faults.extend(read.filter_map(Result::err).map(|fault| at(&fault)));
            }
            Err(err) => faults.push(at(&err)),
        }
    }
    if faults.is_empty() { Ok(documents.done()) } else { Err(ConfigFaults(faults)) }
}

/// Sorted by name.
fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let kind = path.extension().and_then(|kind| kind.to_str());
        if matches!(kind, Some("yaml" | "yml" | "json")) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// JSON is YAML, too.
fn read_file(path: &Path) -> Result<Vec<Value>> {
    Ok(serde_saphyr::from_multiple::<Value>(&fs::read_to_string(path)?)?)
}

/// Shows the sessions that there would be, and what there is to tell of the objects.
pub fn check(wished: &Wished) -> ExitCode {
    let config = &wished.config;
    println!(
        "AS {}, identifier {}, cluster {}, listening on {}\n",
        config.local.asn,
        config.local.id,
        config.cluster,
        config.listen.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
    );
    println!("{}", table(&["peer", "port", "AS", "kind", "object"], wished.sessions()));
    if !wished.reports.is_empty() {
        let rows = wished.reports.iter().map(|report| {
            let object = format!("{} {}", report.kind, report.name);
            vec![object, report.grade.to_string(), report.reason.clone()]
        });
        println!("\n{}", table(&["object", "", "what"], rows));
    }
    let is_bad = wished.reports.iter().any(|report| report.grade == Grade::Fault);
    if is_bad { ExitCode::from(REFUSED) } else { ExitCode::SUCCESS }
}
