//! `russet bgp --resources`: a speaker by Calico's resources in a folder, and what would become of them.

use std::{
    fmt,
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
use russet_api::manifest::{self, Document, Span, text_of};
use russet_net::Prefix;

use crate::{
    exit::REFUSED,
    output::table,
    resources::{Source, clean, of_folder},
};

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
    let sources = of_folder(folder).map_err(|err| one(format!("{err:#}")))?;
    let mut documents = Documents::new(node, last);
    let mut faults = Vec::new();
    for Source { name, octets } in &sources {
        let (all, complaints) = match text_of(octets) {
            Ok(text) => manifest::read(text),
            Err(complaint) => (Vec::new(), vec![complaint]),
        };
        faults.extend(
            complaints.iter().map(|complaint| placed(name, complaint.span, &complaint.reason)),
        );
        for Document { node } in &all {
            if let Err(fault) = documents.read(&node.value()) {
                faults.push(placed(name, node.span, &fault));
            }
        }
    }
    if faults.is_empty() { Ok(documents.done()) } else { Err(ConfigFaults(faults)) }
}

fn placed(name: &str, at: Span, what: &dyn fmt::Display) -> String {
    clean(&format!("{name}:{}:{}: {what}", at.line, at.column))
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_cannot_be_read_is_told_with_its_place_in_every_file() {
        let folder = tempfile::tempdir().unwrap();
        let node = "apiVersion: projectcalico.org/v3\nkind: Node\nmetadata: {name: n1}\nspec: {}\n";
        fs::write(folder.path().join("a.yaml"), format!("{node}---\na: [\n")).unwrap();
        fs::write(folder.path().join("b.json"), b"{\"kind\": \"\xff\"}").unwrap();
        fs::write(folder.path().join("c.yml"), "kind: BGPPeer\nmetadata: {}\nspec: {}\n").unwrap();
        fs::write(folder.path().join("notes.txt"), "a: [").unwrap();
        let ConfigFaults(faults) = read(folder.path(), "n1", None).unwrap_err();
        assert_eq!(faults.len(), 3, "{faults:#?}");
        for (fault, place) in faults.iter().zip(["a.yaml:", "b.json:1:11: ", "c.yml:1:1: "]) {
            assert!(fault.contains(place), "{fault}");
        }

        fs::write(folder.path().join("a.yaml"), node).unwrap();
        fs::remove_file(folder.path().join("b.json")).unwrap();
        fs::remove_file(folder.path().join("c.yml")).unwrap();
        assert_eq!(read(folder.path(), "n1", None).unwrap().nodes.len(), 1);
    }
}
