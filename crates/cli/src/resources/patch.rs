//! `russet patch`: changes fields of an object that is there.

use std::process::ExitCode;

use anyhow::{Context, Result, anyhow, bail, ensure};
use clap::{Args, ValueEnum};
use russet_api::{
    calico::{Kind, Resource, ResourceId},
    manifest,
};
use serde_json::Value;

use super::{
    DatastoreArgs, NamespaceArgs,
    datastore::{Datastore, Found},
    kind_parser,
    preflight::{self, Seen},
    told::clean,
    write::{Did, Verb, Writer, named},
};
use crate::store::block_on;

#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  russet patch ippool web -p '{\"spec\": {\"natOutgoing\": true}}'
  russet patch bgppeer rack-1 --type json -p '[{\"op\": \"remove\", \"path\": \"/spec/password\"}]'")]
pub struct PatchArgs {
    /// Its kind
    #[arg(value_parser = kind_parser(), ignore_case = true)]
    kind: Kind,
    /// Its name
    name: String,
    /// The change, in JSON or YAML
    #[arg(short, long, value_name = "PATCH")]
    patch: String,
    /// How the change is meant
    #[arg(short, long, value_enum, default_value_t)]
    r#type: PatchType,
    #[command(flatten)]
    namespace: NamespaceArgs,
    #[command(flatten)]
    store: DatastoreArgs,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum PatchType {
    /// calicoctl's; of what Calico's objects have it is the same as merge, lists are replaced whole
    #[default]
    Strategic,
    /// Fields are set, null takes one away (RFC 7396)
    Merge,
    /// A list of operations (RFC 6902)
    Json,
}

pub fn run(args: &PatchArgs) -> Result<ExitCode> {
    let change = Change::read(args.r#type, &args.patch)?;
    let id = named(args.kind, args.namespace.namespace.as_ref(), &args.name)?;
    let did = block_on(async {
        let store = args.store.open()?;
        patch(&store, &id, &change).await
    })?;
    let said = if did == Did::Nothing { "unchanged" } else { "changed" };
    println!(
        "{}: {said}\nSuccessfully patched 1 '{}' resource",
        super::manifest::called(&id),
        id.kind
    );
    Ok(ExitCode::SUCCESS)
}

#[derive(Clone, Debug)]
enum Change {
    Merge(Value),
    Operations(json_patch::Patch),
}

impl Change {
    fn read(kind: PatchType, text: &str) -> Result<Self> {
        let value = value_of(text)?;
        match kind {
            PatchType::Json => {
                let read = serde_json::from_value(value);
                Ok(Self::Operations(
                    read.context("read the patch as a list of operations (RFC 6902)")?,
                ))
            }
            PatchType::Merge | PatchType::Strategic => {
                ensure!(
                    value.is_object(),
                    "the patch is no object, such as '{{\"spec\": {{\"natOutgoing\": true}}}}'"
                );
                if kind == PatchType::Strategic {
                    refuse_directives(&value)?;
                }
                Ok(Self::Merge(value))
            }
        }
    }

    fn apply(&self, object: &mut Value) -> Result<()> {
        match self {
            Self::Merge(change) => json_patch::merge(object, change),
            Self::Operations(operations) => json_patch::patch(object, operations)?,
        }
        Ok(())
    }
}

/// A strategic patch may have orders among its fields, which nobody means to have written into the object:
/// `$patch`, `$retainKeys`, `$deleteFromPrimitiveList/…`, `$setElementOrder/…`. No name of Calico's begins so.
fn refuse_directives(value: &Value) -> Result<()> {
    match value {
        Value::Object(fields) => fields.iter().try_for_each(|(name, value)| {
            ensure!(
                !name.starts_with('$'),
                "the patch has {}, an order that is not followed here; --type json says what to take away",
                clean(&name.chars().take(60).collect::<String>())
            );
            refuse_directives(value)
        }),
        Value::Array(items) => items.iter().try_for_each(refuse_directives),
        _ => Ok(()),
    }
}

/// One value of YAML or JSON.
fn value_of(text: &str) -> Result<Value> {
    let (documents, complaints) = manifest::read(text);
    if let Some(complaint) = complaints.first() {
        let (line, column) = (complaint.span.line, complaint.span.column);
        bail!("the patch, line {line}, column {column}: {}", clean(&complaint.reason));
    }
    match documents.as_slice() {
        [one] => Ok(one.node.value()),
        _ => bail!("the patch is not one document"),
    }
}

/// Reads, changes and writes; what came in between is met by doing it again.
async fn patch(store: &Datastore, id: &ResourceId, change: &Change) -> Result<Did> {
    for _ in 0..TRIES {
        let Some(found) = store.get(id).await? else {
            bail!("{} {} does not exist", id.kind, id.name)
        };
        let resource = patched(&found, id, change)?;
        let seen = check_pool(store, &resource).await?;
        // It bears the version that it was read at, so a write in between is a conflict.
        match Writer::new(store, Verb::Replace, seen).write(id, &resource).await {
            Err(_) if is_newer(store, &found).await? => {}
            outcome => return outcome,
        }
    }
    bail!("it changes faster than it can be written")
}

fn patched(found: &Found, id: &ResourceId, change: &Change) -> Result<Resource> {
    let mut object = found.shown();
    change.apply(&mut object)?;
    let resource = Resource::read(id.kind, object).map_err(|fault| {
        let faults: Vec<_> = fault.faults.iter().map(ToString::to_string).collect();
        anyhow!(
            "what it would become is refused:\n  {}",
            faults.iter().map(|fault| clean(fault)).collect::<Vec<_>>().join("\n  ")
        )
    })?;
    ensure!(resource.id().as_ref() == Some(id), "a patch does not change kind, namespace or name");
    Ok(resource)
}

async fn is_newer(store: &Datastore, found: &Found) -> Result<bool> {
    Ok(store.entry(&found.key).await?.is_none_or(|now| now.modified != found.entry.modified))
}

/// A pool that is patched meets the others as one that is applied does; its blocks are met when it is written.
async fn check_pool(store: &Datastore, after: &Resource) -> Result<Seen> {
    let Resource::IpPool(pool) = after else { return Ok(Seen::default()) };
    let name = pool.meta().map(|meta| meta.name.clone()).context("the pool has no name")?;
    preflight::look_again(store, &name, pool.value()).await
}

const TRIES: usize = 8;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What becomes of an object by a change that is read as one of this type.
    fn changed(kind: PatchType, text: &str) -> Result<Value> {
        let mut object = json!({"spec": {"a": {"b": 1, "c": 2}, "list": [1, 2], "gone": true}});
        Change::read(kind, text)?.apply(&mut object)?;
        Ok(object["spec"].take())
    }

    #[test]
    fn strategic_is_merge_fields_are_set_null_takes_away_and_lists_are_replaced() {
        for kind in [PatchType::Merge, PatchType::Strategic] {
            let spec = changed(kind, "spec: {a: {b: 3}, list: [4], gone: null, new: {x: null}}");
            assert_eq!(spec.unwrap(), json!({"a": {"b": 3, "c": 2}, "list": [4], "new": {}}));
            assert!(changed(kind, "[]").is_err());
        }
    }

    #[test]
    fn an_order_of_a_strategic_patch_is_refused_and_not_written_as_a_field() {
        for text in ["spec: {$patch: replace, b: 1}", "metadata: {list: [{$patch: delete}]}"] {
            let err = changed(PatchType::Strategic, text).unwrap_err().to_string();
            assert!(err.contains("$patch") && err.contains("--type json"), "{err}");
        }
        assert!(changed(PatchType::Merge, "spec: {$patch: replace}").is_ok());
    }

    #[test]
    fn operations_are_done_in_order_and_all_or_none() {
        let text = r#"[{"op":"test","path":"/spec/a/b","value":1},{"op":"add","path":"/spec/list/-","value":3},
                       {"op":"remove","path":"/spec/gone"},{"op":"move","from":"/spec/a/c","path":"/spec/d"}]"#;
        let spec = changed(PatchType::Json, text).unwrap();
        assert_eq!(spec, json!({"a": {"b": 1}, "list": [1, 2, 3], "d": 2}));
        for bad in [
            "{}",
            r#"[{"op":"jump","path":"/spec"}]"#,
            r#"[{"op":"remove","path":"/spec/nothing"}]"#,
            r#"[{"op":"remove","path":"/spec/a"},{"op":"test","path":"/spec/list/0","value":9}]"#,
        ] {
            assert!(changed(PatchType::Json, bad).is_err(), "{bad}");
        }
    }
}
