//! From texts to checked objects, and every fault of all of them with its place.

use std::{collections::BTreeMap, fmt::Write};

use anyhow::Result;
use russet_api::{
    calico::{FieldFault, Kind, Resource, ResourceId, strangers},
    manifest::{Complaint, Node, Shape, Span, read, text_of},
};
use russet_core::model::calico::Name;
use russet_net::Selector;
use serde_json::Value;

use super::{
    sources::Source,
    told::{Counts, Grade, Refused, Told},
};

/// How the texts are read.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// For objects that lie in a namespace and do not say which.
    pub namespace: Option<Name>,
    pub purpose: Purpose,
}

/// What for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// Objects are written: what only IPAM writes is refused.
    #[default]
    Write,
    /// Objects are only looked at.
    Look,
    /// Only kind and name count.
    Name,
}

impl Reading {
    pub fn to_write() -> Self {
        Self::default()
    }

    pub fn to_look_at() -> Self {
        Self { purpose: Purpose::Look, namespace: None }
    }

    pub fn to_name() -> Self {
        Self { purpose: Purpose::Name, namespace: None }
    }
}

/// An object, and where it stands.
#[derive(Clone, Debug)]
pub struct Wanted {
    pub id: ResourceId,
    /// `None` where only the name counts.
    pub resource: Option<Resource>,
    source: usize,
    node: Node,
}

/// Everything that was read.
#[derive(Debug, Default)]
pub struct Manifest {
    sources: Vec<Source>,
    objects: Vec<Wanted>,
    told: Vec<Told>,
    /// Of all complaints, also of those that were not kept.
    counts: Counts,
}

/// More complaints of a grade are counted and not kept: a hostile file may have millions.
const MOST_TOLD: usize = 200;

impl Manifest {
    pub fn read(sources: Vec<Source>, reading: &Reading) -> Self {
        let mut manifest = Self::default();
        for (at, source) in sources.iter().enumerate() {
            let mut reader = Reader { source: at, reading, manifest: &mut manifest };
            match text_of(&source.octets) {
                Err(complaint) => reader.tell("", Grade::Fault, complaint),
                Ok(text) => reader.text(text),
            }
        }
        manifest.sources = sources;
        if manifest.objects.is_empty() && manifest.counts.faults == 0 {
            // A text that broke off at its beginning is no success.
            manifest.warnings_are_faults();
        }
        manifest.refuse_twice();
        manifest.point_into_selectors();
        manifest
    }

    pub fn objects(&self) -> &[Wanted] {
        &self.objects
    }

    pub fn into_objects(self) -> Vec<Wanted> {
        self.objects
    }

    pub fn into_ids(self) -> Vec<ResourceId> {
        self.objects.into_iter().map(|object| object.id).collect()
    }

    /// Notes what is wrong with an object, or may be, at the field of this path.
    pub fn tell(&mut self, object: usize, grade: Grade, fault: &FieldFault) {
        if let Some(wanted) = self.objects.get(object) {
            let span = wanted.node.find(&fault.path).1;
            let told = Told {
                source: wanted.source,
                subject: called(&wanted.id),
                grade,
                complaint: Complaint::new(span, fault.to_string()),
            };
            self.push(told);
        }
    }

    /// Each grade has room of its own: no number of warnings hides a fault.
    fn push(&mut self, told: Told) {
        if self.counts.add(told.grade) <= MOST_TOLD {
            self.told.push(told);
        }
    }

    pub fn warnings_are_faults(&mut self) {
        self.told.iter_mut().for_each(|told| told.grade = Grade::Fault);
        self.counts.warnings_are_faults();
    }

    /// # Errors
    ///
    /// All that is wrong, if anything is.
    pub fn stop_at_faults(&self, after: &'static str) -> Result<(), Refused> {
        if self.counts.faults == 0 {
            return Ok(());
        }
        Err(Refused { shown: self.shown(), count: self.counts.to_string(), after })
    }

    /// Warnings alone hinder nothing.
    pub fn print_warnings(&self) {
        eprint!("{}", self.shown());
    }

    fn shown(&self) -> String {
        let mut order: Vec<_> = self.told.iter().collect();
        order.sort_by_key(|told| (told.source, told.complaint.span));
        let lines = self.lines();
        let mut out = String::new();
        for told in order {
            let Some(source) = self.sources.get(told.source) else { continue };
            let lines = lines.get(told.source).map(Vec::as_slice).unwrap_or_default();
            // Nothing fails that is only written into memory.
            let _ = told.show(&mut out, &source.name, lines);
        }
        let untold = self.counts.all().saturating_sub(self.told.len());
        if untold > 0 {
            let _ = writeln!(out, "and {untold} more");
        }
        out
    }

    /// The lines of each text that something is told of, cut once for all that is told.
    fn lines(&self) -> Vec<Vec<&str>> {
        let mut all = Vec::new();
        for (at, source) in self.sources.iter().enumerate() {
            let is_told = self.told.iter().any(|told| told.source == at);
            let text = if is_told { text_of(&source.octets).unwrap_or_default() } else { "" };
            all.push(text.lines().collect());
        }
        all
    }

    fn refuse_twice(&mut self) {
        let mut first = BTreeMap::new();
        let mut twice = Vec::new();
        for object in &self.objects {
            let Some(before) = first.insert(&object.id, object) else { continue };
            let file = self.sources.get(before.source).map_or("", |source| &source.name);
            let line = before.node.find("").1.line;
            let reason = format!(
                "it is there already, from line {line} of {file} on; one of the two is wanted"
            );
            twice.push(Told {
                source: object.source,
                subject: called(&object.id),
                grade: Grade::Fault,
                complaint: Complaint::new(object.node.find("metadata.name").1, reason),
            });
        }
        for told in twice {
            self.push(told);
        }
    }

    /// A selector says where within it something is wrong; the mark goes there when the line has it as it is read.
    fn point_into_selectors(&mut self) {
        let mut told = self.told.clone();
        let lines = self.lines();
        for told in &mut told {
            let lines = lines.get(told.source).map(Vec::as_slice).unwrap_or_default();
            let line = lines.get(told.complaint.span.line.saturating_sub(1)).copied();
            point_into(&mut told.complaint, line.unwrap_or_default());
        }
        self.told = told;
    }
}

fn point_into(complaint: &mut Complaint, line: &str) {
    let span = complaint.span;
    let shown: Vec<char> =
        line.chars().skip(span.column.saturating_sub(1)).take(span.width).collect();
    let (inner, quote) = match shown.as_slice() {
        ['\'' | '"', inner @ .., '\'' | '"'] => (inner, 1),
        whole => (whole, 0),
    };
    let Err(err) = String::from_iter(inner).parse::<Selector>() else { return };
    // Only a complaint that is about this selector says the same.
    if complaint.reason.contains(&err.to_string()) {
        let column = span.column + quote + err.column().saturating_sub(1);
        complaint.span = Span { column, width: 1, ..span };
    }
}

struct Reader<'a> {
    source: usize,
    reading: &'a Reading,
    manifest: &'a mut Manifest,
}

impl Reader<'_> {
    fn tell(&mut self, subject: &str, grade: Grade, complaint: Complaint) {
        let subject = subject.to_owned();
        self.manifest.push(Told { source: self.source, subject, grade, complaint });
    }

    fn text(&mut self, text: &str) {
        let (documents, complaints) = read(text);
        let nothing = documents.is_empty() && complaints.is_empty();
        for complaint in complaints {
            self.tell("", Grade::Fault, complaint);
        }
        for document in documents {
            self.document(&document.node, 0);
        }
        if nothing {
            let complaint = Complaint::new(Span::START, "there is no object in it");
            self.tell("", Grade::Warning, complaint);
        }
    }

    /// An object, a list of them, or several in a row; lists may lie in lists, once.
    fn document(&mut self, node: &Node, depth: usize) {
        if let Shape::List(items) = &node.shape {
            return self.items(items, depth);
        }
        let Some(kind) = node.get("kind").and_then(Node::text) else {
            let (_, span) = node.find("kind");
            let what = "an object is wanted: kind, apiVersion, metadata and spec";
            return self.tell("", Grade::Fault, Complaint::new(span, what));
        };
        match (kind.strip_suffix("List"), node.get("items")) {
            (Some(of), Some(items)) if of.is_empty() || Kind::of_object(of).is_some() => {
                if let Shape::List(items) = &items.shape {
                    return self.items(items, depth);
                }
                let complaint = Complaint::new(node.find("items").1, "items: a list is wanted");
                self.tell(kind, Grade::Fault, complaint);
            }
            _ => self.object(node, kind),
        }
    }

    fn items(&mut self, items: &[Node], depth: usize) {
        if depth > 1 {
            let span = items.first().map_or(Span::START, |first| first.span);
            return self.tell("", Grade::Fault, Complaint::new(span, "a list in a list in a list"));
        }
        for item in items {
            self.document(item, depth + 1);
        }
    }

    fn object(&mut self, node: &Node, called_: &str) {
        let kind = match self.kind(called_) {
            Ok(kind) => kind,
            Err(reason) => {
                let (_, span) = node.find("kind");
                return self.tell(
                    "",
                    Grade::Fault,
                    Complaint::new(span, format!("kind: {reason}")),
                );
            }
        };
        let mut object = node.value();
        self.fill_in(kind, &mut object);
        let subject = subject(kind, node);
        for stranger in strangers(kind, &object) {
            let reason = match stranger.near {
                Some(near) => format!("unknown field `{}`; did you mean `{near}`?", stranger.name),
                None => {
                    format!("unknown field `{}`; it is kept, and nobody looks at it", stranger.name)
                }
            };
            let complaint = Complaint::new(node.find_name(&stranger.path), reason);
            self.tell(&subject, Grade::Warning, complaint);
        }
        match Resource::read(kind, object) {
            Ok(resource) => self.keep(node, resource),
            Err(fault) => {
                for fault in fault.faults {
                    let complaint = Complaint::new(node.find(&fault.path).1, fault.to_string());
                    self.tell(&subject, Grade::Fault, complaint);
                }
            }
        }
    }

    fn keep(&mut self, node: &Node, resource: Resource) {
        let Some(id) = resource.id() else { return };
        if id.kind == Kind::IpamConfiguration && id.name.as_str() != "default" {
            let what = "there is one configuration of IPAM, and it is called default";
            let complaint =
                Complaint::new(node.find("metadata.name").1, format!("metadata.name: {what}"));
            return self.tell(&called(&id), Grade::Fault, complaint);
        }
        let resource = (self.reading.purpose != Purpose::Name).then_some(resource);
        let node = node.clone();
        self.manifest.objects.push(Wanted { id, resource, source: self.source, node });
    }

    fn kind(&self, name: &str) -> Result<Kind, String> {
        let Some(kind) = Kind::of_object(name) else {
            let shown: String = name.chars().take(60).collect();
            return Err(match Kind::nearest(name) {
                Some(near) => format!("{shown:?} is none of Calico's; did you mean {near}?"),
                None => format!("{shown:?} is none of Calico's"),
            });
        };
        if !kind.is_handled() {
            return Err(format!("commands do not handle {kind} yet"));
        }
        if self.reading.purpose != Purpose::Look && !kind.is_written_by_hand() {
            return Err(format!(
                "objects of kind {kind} are written by whoever hands out addresses; see russet ipam"
            ));
        }
        Ok(kind)
    }

    /// What a kind that lies in a namespace does not say.
    fn fill_in(&self, kind: Kind, object: &mut Value) {
        let Some(Value::Object(metadata)) = object.get_mut("metadata") else { return };
        let says = metadata.get("namespace").is_some_and(|text| !text.is_null() && text != "");
        if kind.is_namespaced() && !says {
            let namespace = self.reading.namespace.as_ref().map_or(DEFAULT_NAMESPACE, Name::as_str);
            metadata.insert("namespace".to_owned(), namespace.into());
        }
    }
}

pub const DEFAULT_NAMESPACE: &str = "default";

/// `IPPool web`, as far as it can be said of an object that may be wrong.
fn subject(kind: Kind, node: &Node) -> String {
    let name = node.find("metadata.name").0.and_then(Node::text);
    name.map_or_else(
        || kind.to_string(),
        |name| format!("{kind} {}", name.chars().take(60).collect::<String>()),
    )
}

/// `IPPool web`, `WorkloadEndpoint default/web`.
pub fn called(id: &ResourceId) -> String {
    match &id.namespace {
        Some(namespace) => format!("{} {namespace}/{}", id.kind, id.name),
        None => format!("{} {}", id.kind, id.name),
    }
}

#[cfg(test)]
mod tests;
