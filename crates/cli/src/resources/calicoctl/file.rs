//! calicoctl's configuration file, a `CalicoAPIConfig` in YAML or JSON.
//!
//! Its form is checked as strictly as calicoctl does it, and all that is wrong is told with its place. Passwords
//! and keys are in such files: of one that has any no line is shown.

use anyhow::Error;
use russet_api::manifest::{Complaint, Node, Shape, Span, read, text_of};
use serde_json::Value;

use super::{ALL, Setting, Settings};
use crate::resources::{
    sources::Source,
    told::{Counts, Grade, Refused, Told},
};

/// A file whose form is right.
pub struct Config {
    source: Source,
    node: Node,
}

impl Config {
    /// Reads and checks it.
    ///
    /// # Errors
    ///
    /// All that is wrong, each with line and column.
    pub fn read(source: Source) -> Result<Self, Refused> {
        match document(&source.octets) {
            Ok(node) => Ok(Self { source, node }),
            Err(complaints) => Err(refused(&source, complaints)),
        }
    }
}

impl Settings for Config {
    fn text(&self, setting: Setting) -> Option<String> {
        let spec = self.node.get("spec")?;
        spec.get(setting.field)?.text().filter(|text| !text.is_empty()).map(str::to_owned)
    }

    fn refuse(&self, setting: Setting, reason: &str) -> Error {
        let path = format!("spec.{}", setting.field);
        let complaint = at(&self.node, &path, reason);
        refused(&self.source, vec![complaint]).into()
    }
}

/// The one document, its form checked.
fn document(octets: &[u8]) -> Result<Node, Vec<Complaint>> {
    let text = text_of(octets).map_err(|complaint| vec![complaint])?;
    let (documents, mut complaints) = read(text);
    let mut nodes = documents.into_iter().map(|document| document.node);
    let node = nodes.next();
    if let Some(second) = nodes.next() {
        complaints.push(Complaint::new(second.span, "one document is wanted, and this is another"));
    }
    if !complaints.is_empty() {
        return Err(complaints);
    }
    let node = node.ok_or_else(|| vec![Complaint::new(Span::START, WANTED)])?;
    let faults = faults(&node);
    if faults.is_empty() { Ok(node) } else { Err(faults) }
}

fn faults(node: &Node) -> Vec<Complaint> {
    if !matches!(node.shape, Shape::Object(_)) {
        return vec![Complaint::new(node.span, WANTED)];
    }
    // What is something else has other fields: nothing of them is told besides.
    let mut faults = is_it(node, "kind", KIND).unwrap_or_default();
    faults.extend(is_it(node, "apiVersion", VERSION).unwrap_or_default());
    if faults.is_empty() {
        faults.extend(strangers(node, "", |name| ENVELOPE.contains(&name)));
        match node.get("spec") {
            Some(spec) if matches!(spec.shape, Shape::Object(_)) => faults.extend(of_spec(spec)),
            Some(spec) if !spec.is_null() => faults.push(at(node, "spec", "an object is wanted")),
            _ => {}
        }
    }
    faults
}

/// `None` when the field says what it must.
fn is_it(node: &Node, field: &str, wanted: &str) -> Option<Vec<Complaint>> {
    let said = node.get(field).map(Node::value);
    if said.as_ref().and_then(Value::as_str) == Some(wanted) {
        return None;
    }
    let shown = said.map_or_else(|| "nothing".to_owned(), |said| said.to_string());
    let shown: String = shown.chars().take(60).collect();
    Some(vec![at(node, field, &format!("{wanted} is wanted, and it says {shown}"))])
}

fn of_spec(spec: &Node) -> Vec<Complaint> {
    let is_known = |name: &str| {
        ALL.iter().any(|setting| setting.field == name)
            || KUBERNETES_ALONE.contains(&name)
            || INLINE.contains(&name)
    };
    let mut faults = strangers(spec, "spec.", is_known);
    for member in spec.members() {
        let is_text = member.node.text().is_some() || member.node.is_null();
        let is_said = member.node.text().is_none_or(|text| !text.is_empty());
        if ALL.iter().any(|setting| setting.field == member.key) && !is_text {
            let reason = format!("spec.{}: a text is wanted; put it in quotes", member.key);
            faults.push(Complaint::new(member.node.span, reason));
        } else if INLINE.contains(&member.key.as_str()) && is_said && !member.node.is_null() {
            let reason = format!(
                "spec.{0}: what is written in here is not read; write it to a file, and name that as {0}File",
                member.key
            );
            faults.push(Complaint::new(member.key_span, reason));
        }
    }
    faults
}

/// A field that is not calicoctl's is a slip: something else would be done than was meant.
fn strangers(node: &Node, path: &str, is_known: impl Fn(&str) -> bool) -> Vec<Complaint> {
    let unknown = node.members().iter().filter(|member| !is_known(&member.key));
    let told = unknown.map(|member| {
        let shown: String = member.key.chars().take(60).collect();
        Complaint::new(member.key_span, format!("unknown field `{path}{shown}`"))
    });
    told.collect()
}

fn at(node: &Node, path: &str, reason: &str) -> Complaint {
    Complaint::new(node.find(path).1, format!("{path}: {reason}"))
}

fn refused(source: &Source, mut complaints: Vec<Complaint>) -> Refused {
    let text = text_of(&source.octets).unwrap_or_default();
    let lines: Vec<_> = if has_secret(text) { Vec::new() } else { text.lines().collect() };
    complaints.sort_by_key(|complaint| complaint.span);
    let (mut shown, mut counts) = (String::new(), Counts::default());
    for complaint in complaints {
        counts.add(Grade::Fault);
        let told = Told { source: 0, subject: String::new(), grade: Grade::Fault, complaint };
        // Nothing fails that is only written into memory.
        let _ = told.show(&mut shown, &source.name, &lines);
    }
    Refused { shown, count: counts.to_string(), after: "no store was asked" }
}

/// Whether a text may have a password, a key or a token in it, also under a name that is misspelt.
fn has_secret(text: &str) -> bool {
    let text = text.to_lowercase();
    ["pas", "etcdkey:", "etcdkey\"", "private", "token", "inline"]
        .iter()
        .any(|word| text.contains(word))
}

const WANTED: &str = "a CalicoAPIConfig is wanted: kind, apiVersion and spec";
const KIND: &str = "CalicoAPIConfig";
const VERSION: &str = "projectcalico.org/v3";
const ENVELOPE: [&str; 4] = ["apiVersion", "kind", "metadata", "spec"];
/// PEM texts in the file itself.
const INLINE: [&str; 3] = ["etcdKey", "etcdCert", "etcdCACert"];
/// What is only for a store in Kubernetes' API. (libcalico-go: apiconfig.KubeConfig)
const KUBERNETES_ALONE: [&str; 13] = [
    "kubeconfig",
    "kubeconfigInline",
    "k8sAPIEndpoint",
    "k8sKeyFile",
    "k8sCertFile",
    "k8sCAFile",
    "k8sAPIToken",
    "k8sInsecureSkipTLSVerify",
    "k8sDisableNodePoll",
    "usePodCIDR",
    "k8sClientQPS",
    "k8sCurrentContext",
    "calicoAPIGroup",
];

#[cfg(test)]
mod tests;
