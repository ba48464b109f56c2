//! Calico's resources, from the command line: get, apply, create, replace, delete, patch, validate.
//!
//! ```text
//!   files ─▶ sources ─▶ manifest ─▶ objects ─▶ preflight ─▶ write ─▶ datastore
//!                          └── told ◀─ faults ────┘    (all is checked before anything is written)
//!   datastore ─▶ get ─▶ columns (a table) or YAML and JSON that can be applied again
//! ```
//!
//! `at` says which store is meant, `calicoctl` what that program was told of it, `born` gives new objects what they
//! are born with, `patch` changes one that is there, `blocks` has what a pool's addresses say to a change of it.

mod at;
mod blocks;
mod born;
mod calicoctl;
mod columns;
mod datastore;
pub mod get;
mod manifest;
mod patch;
mod preflight;
mod sources;
mod told;
mod write;

use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::Args;
use russet_api::calico::Kind;
use russet_core::model::calico::Name;

pub use self::{
    at::DatastoreArgs,
    blocks::Blocks,
    born::now as born_now,
    datastore::{Datastore, Found, Listed},
    patch::PatchArgs,
    preflight::{pool_keys, pools_in},
    sources::{Source, of_folder},
    told::{Refused, clean},
};
use self::{
    manifest::{Manifest, Reading},
    sources::FileArgs,
    write::{Verb, Writer},
};
use crate::store::block_on;

/// Where objects of kinds that lie in namespaces are meant to be.
#[derive(Args, Clone, Debug, Default)]
pub struct NamespaceArgs {
    /// The namespace of objects that lie in one and do not say which [default: default]
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<Name>,
}

#[derive(Args, Debug)]
pub struct WriteArgs {
    #[command(flatten)]
    files: FileArgs,
    #[command(flatten)]
    namespace: NamespaceArgs,
    #[command(flatten)]
    store: DatastoreArgs,
    /// Refuses what else would only be warned of
    #[arg(long)]
    strict: bool,
}

#[derive(Args, Debug)]
pub struct CreateArgs {
    #[command(flatten)]
    write: WriteArgs,
    /// Passes over what exists
    #[arg(long)]
    skip_exists: bool,
}

#[derive(Args, Debug)]
pub struct ValidateArgs {
    #[command(flatten)]
    files: FileArgs,
    /// Refuses what else would only be warned of
    #[arg(long)]
    strict: bool,
}

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  russet delete ippool web
  russet delete bgppeers rack-1 rack-2 --skip-not-exists
  russet delete -f peers.yaml")]
pub struct DeleteArgs {
    /// Their kind
    #[arg(value_parser = kind_parser(), ignore_case = true, required_unless_present = "files")]
    kind: Option<Kind>,
    /// Their names
    #[arg(value_name = "NAME", required_unless_present = "files")]
    names: Vec<String>,
    #[command(flatten)]
    files: sources::OptionalFileArgs,
    #[command(flatten)]
    namespace: NamespaceArgs,
    #[command(flatten)]
    store: DatastoreArgs,
    /// Passes over what does not exist
    #[arg(long)]
    skip_not_exists: bool,
    /// Deletes a pool although its addresses are in use: their pods keep them, and nobody routes to them
    #[arg(long)]
    force: bool,
}

/// Reads a kind in any of its words.
pub fn kind_parser() -> impl clap::builder::TypedValueParser<Value = Kind> {
    use clap::builder::{PossibleValuesParser, TypedValueParser};
    PossibleValuesParser::new(kind_words()).try_map(|word| {
        Kind::of_word(&word).ok_or_else(|| format!("{word} is no kind that commands handle"))
    })
}

/// What help and completions list: the plural of each kind, and its other words hidden behind it.
pub fn kind_words() -> impl Iterator<Item = clap::builder::PossibleValue> {
    Kind::HANDLED.into_iter().filter_map(|kind| {
        let (first, others) = kind.words().split_first()?;
        Some(clap::builder::PossibleValue::new(*first).aliases(others.iter().copied()))
    })
}

pub fn apply(args: WriteArgs) -> Result<ExitCode> {
    write(args, Verb::Apply)
}

pub fn create(args: CreateArgs) -> Result<ExitCode> {
    write(args.write, if args.skip_exists { Verb::CreateMissing } else { Verb::Create })
}

pub fn replace(args: WriteArgs) -> Result<ExitCode> {
    write(args, Verb::Replace)
}

fn write(args: WriteArgs, verb: Verb) -> Result<ExitCode> {
    let reading = Reading { namespace: args.namespace.namespace, ..Reading::to_write() };
    let mut manifest = Manifest::read(args.files.read()?, &reading);
    preflight::among_themselves(&mut manifest);
    if args.strict {
        manifest.warnings_are_faults();
    }
    manifest.stop_at_faults("nothing was written")?;
    block_on(async {
        let store = args.store.open()?;
        let seen = preflight::against_the_store(&mut manifest, &store).await?;
        manifest.stop_at_faults("nothing was written")?;
        manifest.print_warnings();
        let objects = manifest.into_objects();
        Ok(Writer::new(&store, verb, seen).write_all(objects).await.print(verb.past()))
    })
}

pub fn validate(args: &ValidateArgs) -> Result<ExitCode> {
    let mut manifest = Manifest::read(args.files.read()?, &Reading::to_look_at());
    preflight::among_themselves(&mut manifest);
    if args.strict {
        manifest.warnings_are_faults();
    }
    manifest.stop_at_faults("no store was asked")?;
    manifest.print_warnings();
    let count = manifest.objects().len();
    println!("{count} {} good", if count == 1 { "object is" } else { "objects are" });
    Ok(ExitCode::SUCCESS)
}

pub fn delete(args: DeleteArgs) -> Result<ExitCode> {
    let namespace = args.namespace.namespace;
    let mut targets = Vec::new();
    if args.files.is_given() {
        ensure!(args.kind.is_none(), "KIND and NAME, or -f FILE: one of the two is wanted");
        let manifest =
            Manifest::read(args.files.read()?, &Reading { namespace, ..Reading::to_name() });
        manifest.stop_at_faults("nothing was deleted")?;
        targets.extend(manifest.into_ids());
    } else if let Some(kind) = args.kind {
        for name in &args.names {
            targets.push(write::named(kind, namespace.as_ref(), name)?);
        }
    }
    let deletion = write::Deletion { skip_missing: args.skip_not_exists, force: args.force };
    block_on(async {
        let store = args.store.open()?;
        Ok(write::delete_all(&store, targets, deletion).await.print("deleted"))
    })
}

pub fn patch(args: &PatchArgs) -> Result<ExitCode> {
    patch::run(args)
}
