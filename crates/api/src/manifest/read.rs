//! From the parser's events to trees, within bounds.

use std::collections::HashMap;

use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, ScanError, StrInput, Tag, options};
use serde_json::Value;

use super::{Complaint, Member, Node, Shape, Span, scalar::plain};

/// A text may be this large.
pub const MOST_OCTETS: usize = 32 << 20;
/// What all documents of a text may grow to, aliases followed.
const MOST_NODES: usize = 1_000_000;
/// How deep values may lie in each other, aliases followed. Calico's objects need eight.
const MOST_DEPTH: usize = 64;
/// After so many complaints no more is read, and the document that they are of is left out.
const MOST_COMPLAINTS: usize = 100;
/// The longest name of a field.
const MOST_KEY: usize = 2_048;

/// One document of a text. One without anything in it is none.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    pub node: Node,
}

/// Reads octets as text.
///
/// # Errors
///
/// With the place of what is no UTF-8, or that it is too large.
pub fn text_of(octets: &[u8]) -> Result<&str, Complaint> {
    if octets.len() > MOST_OCTETS {
        let reason = format!("{} octets are more than {MOST_OCTETS}", octets.len());
        return Err(Complaint::new(Span::START, reason));
    }
    let octets = octets.strip_prefix(b"\xef\xbb\xbf").unwrap_or(octets);
    str::from_utf8(octets).map_err(|err| {
        let good = octets.get(..err.valid_up_to()).unwrap_or_default();
        let good = str::from_utf8(good).unwrap_or_default();
        let line = good.matches('\n').count() + 1;
        let column = good.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
        let octet = octets.get(err.valid_up_to()).copied().unwrap_or_default();
        let reason = format!("octet {octet:#04x} is no UTF-8; save the file in UTF-8");
        Complaint::new(Span { line, column, width: 1 }, reason)
    })
}

/// Reads every document, and tells all that is wrong. A document that cannot be read is left out; one with a slip,
/// such as a name that is twice, is there all the same, so that what else is wrong with it can be told.
pub fn read(text: &str) -> (Vec<Document>, Vec<Complaint>) {
    let settings = options! {
        emit_comments: false,
        simple_key_max_lookahead: MOST_KEY,
        flow_nesting_limit: NESTING,
        block_nesting_limit: NESTING,
    };
    let mut reader = Reader {
        parser: Parser::new_from_str_with_options(text, settings),
        anchors: HashMap::new(),
        nodes: 0,
        faults: Vec::new(),
    };
    let mut documents = Vec::new();
    while reader.faults.len() < MOST_COMPLAINTS {
        match reader.document() {
            Ok(Some(node)) if node.is_null() => {}
            Ok(Some(node)) => documents.push(Document { node }),
            Ok(None) | Err(Stop::Enough) => break,
            Err(Stop::Text(err)) => {
                reader.faults.push(told(&err));
                // A text that breaks off here and there may have whole documents behind it.
                if !reader.parser.proceed_next_document().unwrap_or(false) {
                    break;
                }
            }
            Err(Stop::Bound(complaint)) => {
                reader.faults.push(complaint);
                break;
            }
        }
    }
    (documents, reader.faults)
}

/// The parser's own limit comes a little later than ours, which says more.
const NESTING: usize = MOST_DEPTH + 8;
const _: () = assert!(NESTING < 255);

struct Reader<'t> {
    parser: Parser<'t, StrInput<'t>>,
    /// Of the present document.
    anchors: HashMap<usize, (Node, Size)>,
    nodes: usize,
    faults: Vec<Complaint>,
}

/// Why a document ends before its end.
enum Stop {
    Text(ScanError),
    Bound(Complaint),
    /// As much is wrong as is told.
    Enough,
}

/// How much a node is, aliases followed.
#[derive(Clone, Copy, Debug)]
struct Size {
    /// Names of fields count, too.
    nodes: usize,
    /// How many levels lie below it.
    height: usize,
}

impl Size {
    const ONE: Self = Self { nodes: 1, height: 0 };

    /// Takes what lies directly within.
    fn add(&mut self, inner: Self) {
        self.nodes += inner.nodes;
        self.height = self.height.max(inner.height + 1);
    }
}

impl<'t> Reader<'t> {
    fn next(&mut self) -> Result<Option<(Event<'t>, Span)>, Stop> {
        match self.parser.next() {
            None => Ok(None),
            Some(Err(err)) => Err(Stop::Text(err)),
            Some(Ok((event, span))) => Ok(Some((event, place(&span)))),
        }
    }

    /// The next document's root, or `None` at the end.
    fn document(&mut self) -> Result<Option<Node>, Stop> {
        self.anchors.clear();
        while let Some((event, span)) = self.next()? {
            match event {
                Event::StreamStart | Event::DocumentStart(..) | Event::DocumentEnd => {}
                Event::StreamEnd => return Ok(None),
                event => {
                    let (node, _) = self.node(event, span, 0)?;
                    return Ok(Some(node));
                }
            }
        }
        Ok(None)
    }

    /// The node that begins with an event.
    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<(Node, Size), Stop> {
        if depth > MOST_DEPTH {
            return Err(Stop::Bound(Complaint::new(span, too_deep())));
        }
        self.charge(1, span)?;
        let (shape, anchor, size) = match event {
            Event::Alias(anchor) => return self.alias(anchor, span, depth),
            Event::Scalar(text, style, anchor, tag) => {
                let value = self.scalar(&text, style, tag.as_deref(), span)?;
                (Shape::Scalar(value), anchor, Size::ONE)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.no_tag(tag.as_deref(), span)?;
                let (items, size) = self.items(depth)?;
                (Shape::List(items), anchor, size)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.no_tag(tag.as_deref(), span)?;
                let (members, size) = self.members(depth)?;
                (Shape::Object(members), anchor, size)
            }
            // No other event begins a node.
            _ => (Shape::Scalar(Value::Null), 0, Size::ONE),
        };
        let node = Node { span, shape };
        if anchor != 0 {
            // Kept besides, so it counts again.
            self.charge(size.nodes, span)?;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        Ok((node, size))
    }

    /// An alias is as large and as deep as what it stands for: counted before it is copied.
    fn alias(&mut self, anchor: usize, span: Span, depth: usize) -> Result<(Node, Size), Stop> {
        let Some((_, size)) = self.anchors.get(&anchor) else {
            self.complain(span, "the alias stands within what it stands for")?;
            return Ok((Node { span, shape: Shape::Scalar(Value::Null) }, Size::ONE));
        };
        let size = *size;
        if depth + size.height > MOST_DEPTH {
            return Err(Stop::Bound(Complaint::new(span, too_deep())));
        }
        self.charge(size.nodes, span)?;
        let shape = self.anchors.get(&anchor).map(|(node, _)| node.shape.clone());
        Ok((Node { span, shape: shape.unwrap_or(Shape::Scalar(Value::Null)) }, size))
    }

    fn items(&mut self, depth: usize) -> Result<(Vec<Node>, Size), Stop> {
        let (mut items, mut size) = (Vec::new(), Size::ONE);
        while let Some((event, span)) = self.next()? {
            if event == Event::SequenceEnd {
                break;
            }
            let (node, more) = self.node(event, span, depth + 1)?;
            items.push(node);
            size.add(more);
        }
        Ok((items, size))
    }

    fn members(&mut self, depth: usize) -> Result<(Vec<Member>, Size), Stop> {
        let (mut members, mut size) = (Vec::<Member>::new(), Size::ONE);
        let mut seen = HashMap::new();
        while let Some((event, key_span)) = self.next()? {
            if event == Event::MappingEnd {
                break;
            }
            let key = self.key(event, key_span, depth)?;
            let Some((event, span)) = self.next()? else { break };
            let (node, more) = self.node(event, span, depth + 1)?;
            size.add(more);
            size.nodes += 1;
            let Some(key) = key else { continue };
            if key == "<<" {
                self.complain(key_span, "merge keys are not read; write the fields out")?;
            } else if let Some(first) = seen.insert(key.clone(), key_span) {
                let reason = format!(
                    "{key:?} is there already, in line {}; one of the two is wanted",
                    first.line
                );
                self.complain(key_span, reason)?;
            } else {
                members.push(Member { key, key_span, node });
            }
        }
        Ok((members, size))
    }

    /// A field's name, or `None` where it is none, which is told.
    fn key(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Option<String>, Stop> {
        self.charge(1, span)?;
        match event {
            Event::Scalar(text, _, _, _) => Ok(Some(text.into_owned())),
            other => {
                self.complain(span, "the name of a field is a text")?;
                if !matches!(other, Event::Alias(_)) {
                    self.node(other, span, depth + 1)?;
                }
                Ok(None)
            }
        }
    }

    fn scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        tag: Option<&Tag>,
        span: Span,
    ) -> Result<Value, Stop> {
        Ok(match tag.map(|tag| (tag, tag.core_suffix())) {
            None if style == ScalarStyle::Plain => plain(text),
            None | Some((_, Some("str"))) => Value::String(text.to_owned()),
            Some((_, Some("int" | "bool" | "null" | "float"))) => plain(text),
            Some((tag, _)) => {
                self.no_tag(Some(tag), span)?;
                Value::Null
            }
        })
    }

    fn no_tag(&mut self, tag: Option<&Tag>, span: Span) -> Result<(), Stop> {
        if let Some(tag) = tag.filter(|tag| !matches!(tag.core_suffix(), Some("map" | "seq"))) {
            let shown: String = tag.original().chars().take(40).collect();
            self.complain(span, format!("tag {shown:?} is not known; leave it out"))?;
        }
        Ok(())
    }

    /// Notes what is wrong, and goes on unless it is enough.
    fn complain(&mut self, span: Span, reason: impl Into<String>) -> Result<(), Stop> {
        self.faults.push(Complaint::new(span, reason));
        if self.faults.len() < MOST_COMPLAINTS { Ok(()) } else { Err(Stop::Enough) }
    }

    fn charge(&mut self, nodes: usize, span: Span) -> Result<(), Stop> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes <= MOST_NODES {
            return Ok(());
        }
        let reason = format!(
            "the text grows to more than {MOST_NODES} values here; are there aliases of aliases?"
        );
        Err(Stop::Bound(Complaint::new(span, reason)))
    }
}

fn place(span: &granit_parser::Span) -> Span {
    let (start, end) = (span.start, span.end);
    let on_one_line = start.line() == end.line();
    let width = if on_one_line { end.col().saturating_sub(start.col()) } else { 1 };
    Span { line: start.line(), column: start.col() + 1, width: width.max(1) }
}

/// The parser's complaint in its words, and what to do in ours.
fn told(err: &ScanError) -> Complaint {
    use ErrorKind::{
        RecursionLimitExceeded, TabAtBlockScalarStart, TabInBlockIndentation, TabInIndentation,
        TabInPlainScalar, TabNotAllowed,
    };
    let marker = err.marker();
    let reason = match err.kind() {
        TabNotAllowed
        | TabInBlockIndentation
        | TabAtBlockScalarStart
        | TabInIndentation
        | TabInPlainScalar => format!("{}; indent with blanks", err.info()),
        RecursionLimitExceeded => too_deep(),
        _ => err.info(),
    };
    Complaint::new(Span { line: marker.line().max(1), column: marker.col() + 1, width: 1 }, reason)
}

fn too_deep() -> String {
    format!("values lie more than {MOST_DEPTH} deep in each other")
}

#[cfg(test)]
mod tests;
