//! `russet get KIND`: objects of the datastore, for people or to be applied again.

use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use russet_api::calico::{Group, Kind, ResourceId, export};
use russet_core::model::calico::Name;
use russet_net::Selector;
use russet_store::StoreError;
use serde_json::{Value, json};

use super::{
    DatastoreArgs,
    columns::{Width, cells, titles},
    datastore::{Datastore, Found},
    manifest::{DEFAULT_NAMESPACE, Manifest, Reading, called},
    sources::OptionalFileArgs,
    told::clean,
};
use crate::{output::table, store::block_on};

/// How objects are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum ShowAs {
    #[default]
    #[value(alias = "ps")]
    Table,
    /// A table with more columns
    Wide,
    Json,
    Yaml,
    /// kind/name, one a line
    Name,
}

/// Which objects of a kind.
#[derive(Args, Debug)]
pub struct SelectArgs {
    /// Their names; all without
    #[arg(value_name = "NAME")]
    pub names: Vec<String>,
    /// Those whose labels it chooses: "rack == '1' && !has(edge)"
    #[arg(short = 'l', long)]
    selector: Option<Selector>,
    /// The namespace to look in, for kinds that lie in one [default: default]
    #[arg(short, long, value_name = "NAME", conflicts_with = "all_namespaces")]
    namespace: Option<Name>,
    /// Looks in every namespace
    #[arg(short = 'A', short_alias = 'a', long)]
    all_namespaces: bool,
    /// Leaves out what belongs to this store: uid, creationTimestamp, resourceVersion
    #[arg(long)]
    export: bool,
    #[command(flatten)]
    files: OptionalFileArgs,
    #[command(flatten)]
    store: DatastoreArgs,
}

impl SelectArgs {
    /// Whether files say what is meant.
    pub fn has_files(&self) -> bool {
        self.files.is_given()
    }

    /// What is said that has a meaning only for the datastore's objects.
    pub fn of_objects(&self) -> impl Iterator<Item = &'static str> {
        let said = [
            (!self.names.is_empty(), "NAME"),
            (self.selector.is_some(), "--selector"),
            (self.namespace.is_some(), "--namespace"),
            (self.all_namespaces, "--all-namespaces"),
            (self.export, "--export"),
            (self.store.names_a_file(), "--config"),
        ];
        said.into_iter().filter_map(|(is_said, word)| is_said.then_some(word))
    }
}

/// Shows objects of a kind; exit code 1 when one that is asked for by name is not there.
pub fn run(kind: Option<Kind>, select: &SelectArgs, show: ShowAs) -> Result<ExitCode> {
    let (found, missing) = block_on(async {
        let store = select.store.open()?;
        match kind {
            Some(kind) if select.names.is_empty() => listed(&store, kind, select).await,
            Some(kind) => by_name(&store, kind, select).await,
            None => of_files(&store, select).await,
        }
    })?;
    let chosen = |found: &Found| {
        select.selector.as_ref().is_none_or(|selector| selector.matches(&found.resource.labels()))
    };
    let found: Vec<_> = found.into_iter().filter(chosen).collect();
    let single = kind.is_some() && select.names.len() == 1;
    print(kind, select, &found, show, single)?;
    for told in &missing {
        eprintln!("russet: {}", clean(told));
    }
    Ok(if missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Objects, and what is wrong with others.
type Answer = (Vec<Found>, Vec<String>);

async fn listed(store: &Datastore, kind: Kind, select: &SelectArgs) -> Result<Answer> {
    let usual = DEFAULT_NAMESPACE.parse()?;
    let namespace = select.namespace.as_ref().unwrap_or(&usual);
    let namespace = (kind.is_namespaced() && !select.all_namespaces).then_some(namespace);
    let listed = store.list(kind, namespace).await?;
    Ok((listed.found, listed.bad))
}

async fn by_name(store: &Datastore, kind: Kind, select: &SelectArgs) -> Result<Answer> {
    ensure!(
        !select.all_namespaces || !kind.is_namespaced(),
        "a name is one of a namespace: give -n NAMESPACE in the place of --all-namespaces"
    );
    if !kind.is_written_by_hand() {
        return by_name_in_list(store, kind, &select.names).await;
    }
    let id = |name: &String| super::write::named(kind, select.namespace.as_ref(), name);
    by_id(store, select.names.iter().map(id).collect::<Result<_>>()?).await
}

/// One that cannot be read hides no other; a store that does not answer is asked once.
async fn by_id(store: &Datastore, ids: Vec<ResourceId>) -> Result<Answer> {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for id in ids {
        match store.get(&id).await {
            Ok(Some(one)) => found.push(one),
            Ok(None) => missing.push(format!("{} does not exist", called(&id))),
            Err(err) if err.is::<StoreError>() => return Err(err),
            Err(err) => missing.push(format!("{err:#}")),
        }
    }
    Ok((found, missing))
}

/// The names of what IPAM writes are not those of its keys.
async fn by_name_in_list(store: &Datastore, kind: Kind, names: &[String]) -> Result<Answer> {
    let listed = store.list(kind, None).await?;
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for name in names {
        match listed.one(&format!("{kind} {name}"), |found| is_called(found, name)) {
            Ok(one) => found.push(one.clone()),
            Err(told) => missing.push(told.to_string()),
        }
    }
    Ok((found, missing))
}

/// A block by its prefix, too.
fn is_called(found: &Found, name: &str) -> bool {
    let own = found.resource.meta().is_some_and(|meta| meta.name.as_str() == name);
    own || found.resource.object().get("spec").and_then(|spec| spec.get("cidr"))
        == Some(&name.into())
}

async fn of_files(store: &Datastore, select: &SelectArgs) -> Result<Answer> {
    let reading = Reading { namespace: select.namespace.clone(), ..Reading::to_name() };
    let manifest = Manifest::read(select.files.read()?, &reading);
    manifest.stop_at_faults("no store was asked")?;
    by_id(store, manifest.into_ids()).await
}

fn print(
    kind: Option<Kind>,
    select: &SelectArgs,
    found: &[Found],
    show: ShowAs,
    single: bool,
) -> Result<()> {
    match show {
        ShowAs::Table | ShowAs::Wide => print_tables(kind, select, found, show),
        ShowAs::Name => found.iter().for_each(|one| println!("{}", name_of(one))),
        ShowAs::Json | ShowAs::Yaml => {
            // One that is missing is told besides, and an empty list would hide it.
            if single && found.is_empty() {
                return Ok(());
            }
            let value = to_show(kind, select, found, single);
            if show == ShowAs::Json {
                println!("{}", serde_json::to_string_pretty(&value)?);
            } else {
                print!("{}", serde_saphyr::to_string(&value).context("write YAML")?);
            }
        }
    }
    Ok(())
}

fn name_of(found: &Found) -> String {
    let kind = found.resource.kind().name().to_lowercase();
    let id = found.resource.id();
    id.map_or(kind.clone(), |id| match id.namespace {
        Some(namespace) => format!("{kind}/{namespace}/{}", id.name),
        None => format!("{kind}/{}", id.name),
    })
}

/// One object as it is, several as a list that can be applied again.
fn to_show(kind: Option<Kind>, select: &SelectArgs, found: &[Found], single: bool) -> Value {
    let shown = |one: &Found| {
        let mut object = one.shown();
        if select.export {
            export(&mut object);
        }
        object
    };
    let mut items: Vec<_> = found.iter().map(shown).collect();
    if single && items.len() == 1 {
        return items.swap_remove(0);
    }
    let (kind, version) = match kind {
        Some(kind) => (format!("{kind}List"), Group::V3.api_version()),
        None => ("List".to_owned(), "v1"),
    };
    json!({"kind": kind, "apiVersion": version, "metadata": {}, "items": items})
}

/// One table for each kind.
fn print_tables(kind: Option<Kind>, select: &SelectArgs, found: &[Found], show: ShowAs) {
    let width = match (show, select.all_namespaces) {
        (ShowAs::Wide, true) => Width::WideNamespaces,
        (ShowAs::Wide, false) => Width::Wide,
        (_, true) => Width::Namespaces,
        (_, false) => Width::Usual,
    };
    let mut kinds: Vec<_> = found.iter().map(|one| one.resource.kind()).chain(kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    for (i, kind) in kinds.into_iter().enumerate() {
        let rows = found.iter().map(|one| &one.resource).filter(|one| one.kind() == kind);
        let rows = rows.map(|one| cells(one, width).iter().map(|cell| clean(cell)).collect());
        let gap = if i > 0 { "\n" } else { "" };
        print!("{gap}{}", table(&titles(kind, width), rows));
    }
}
