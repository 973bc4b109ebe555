//! YAML as a tree with places. An entry of a section is a tree of its own, so a file may be as large as it likes.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, ScanError, StrInput, Tag};

/// Levels of lists and maps; state files have six.
const MAX_DEPTH: usize = 32;
/// Values that aliases may repeat, so that a small file does not become a large one.
const MAX_REPEATED: usize = 100_000;
/// Bytes of them.
const MAX_REPEATED_BYTES: usize = 1 << 20;

/// A place in the text: line and column, from 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct At {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// A value.
#[derive(Clone)]
pub(super) struct Node<'a> {
    pub(super) at: At,
    pub(super) value: Value<'a>,
}

#[derive(Clone)]
pub(super) enum Value<'a> {
    Scalar {
        text: Cow<'a, str>,
        /// Without quotes.
        plain: bool,
    },
    List(Vec<Node<'a>>),
    Map(Vec<Pair<'a>>),
}

#[derive(Clone)]
pub(super) struct Pair<'a> {
    pub(super) at: At,
    pub(super) key: Cow<'a, str>,
    pub(super) value: Node<'a>,
}

impl Node<'_> {
    /// Whether it is nothing, as what stands behind `mtu:` at the end of a line.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true }
            if matches!(&**text, "" | "~" | "null" | "Null" | "NULL"))
    }

    fn size(&self) -> usize {
        1 + match &self.value {
            Value::Scalar { .. } => 0,
            Value::List(nodes) => nodes.iter().map(Self::size).sum(),
            Value::Map(pairs) => pairs.iter().map(|pair| pair.value.size()).sum(),
        }
    }

    fn bytes(&self) -> usize {
        match &self.value {
            Value::Scalar { text, .. } => text.len(),
            Value::List(nodes) => nodes.iter().map(Self::bytes).sum(),
            Value::Map(pairs) => {
                let pairs = pairs.iter();
                pairs.map(|it| it.key.len() + it.value.bytes()).sum()
            }
        }
    }
}

/// Why the text cannot be read any further.
pub(super) struct Broken {
    pub(super) at: At,
    pub(super) reason: String,
}

/// The text, event by event.
pub(super) struct Yaml<'a> {
    parser: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Node<'a>>,
    repeated: usize,
    repeated_bytes: usize,
    last: At,
}

/// What comes next.
pub(super) enum Next<'a> {
    /// A value, whole.
    Node(Node<'a>),
    /// A list begins.
    List,
    /// A map begins.
    Map,
    /// The list or map ends.
    End,
    /// The document ends.
    Over,
}

impl<'a> Yaml<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            parser: Parser::new_from_str(text),
            anchors: HashMap::new(),
            repeated: 0,
            repeated_bytes: 0,
            last: At { line: 1, column: 1 },
        }
    }

    /// What comes next, and where. Lists and maps are begun, to be read part by part.
    pub(super) fn next(&mut self) -> Result<(At, Next<'a>), Broken> {
        let (event, at) = self.event()?;
        let next = match event {
            Event::SequenceStart(_, 0, tag) => self.check(at, tag.as_deref(), Next::List)?,
            Event::MappingStart(_, 0, tag) => self.check(at, tag.as_deref(), Next::Map)?,
            Event::SequenceEnd | Event::MappingEnd => Next::End,
            Event::DocumentEnd | Event::StreamEnd => Next::Over,
            Event::DocumentStart(..) => return self.next(),
            event => Next::Node(self.whole(event, at, 0)?),
        };
        Ok((at, next))
    }

    /// What is left of a list or map that was begun, or of the value that came.
    pub(super) fn rest(&mut self, at: At, next: Next<'a>) -> Result<Node<'a>, Broken> {
        let value = match next {
            Next::Node(node) => return Ok(node),
            Next::List => Value::List(self.list(0)?),
            Next::Map => Value::Map(self.map(0)?),
            Next::End | Next::Over => return Err(self.broken(at, "a value is missing")),
        };
        Ok(Node { at, value })
    }

    /// Whether another document follows, and where.
    pub(super) fn more(&mut self) -> Result<Option<At>, Broken> {
        loop {
            match self.event()? {
                (Event::StreamEnd, _) => return Ok(None),
                (Event::DocumentStart(..), at) => return Ok(Some(at)),
                _ => {}
            }
        }
    }

    fn event(&mut self) -> Result<(Event<'a>, At), Broken> {
        loop {
            let Some(next) = self.parser.next() else {
                return Ok((Event::StreamEnd, self.last));
            };
            let (event, span) = next.map_err(|error| broken(&error))?;
            self.last = At {
                line: span.start.line(),
                column: span.start.col() + 1,
            };
            let nothing = matches!(
                event,
                Event::StreamStart | Event::Comment(..) | Event::Anchor(..)
            );
            if !nothing {
                return Ok((event, self.last));
            }
        }
    }

    fn node(&mut self, depth: usize) -> Result<Option<Node<'a>>, Broken> {
        match self.event()? {
            (Event::SequenceEnd | Event::MappingEnd, _) => Ok(None),
            (event, at) => self.whole(event, at, depth).map(Some),
        }
    }

    fn whole(&mut self, event: Event<'a>, at: At, depth: usize) -> Result<Node<'a>, Broken> {
        if depth > MAX_DEPTH {
            return Err(self.broken(at, "lists and maps within each other go too deep"));
        }
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = style == ScalarStyle::Plain && tag.is_none();
                (
                    self.check(at, tag.as_deref(), Value::Scalar { text, plain })?,
                    anchor,
                )
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.check(at, tag.as_deref(), ())?;
                (Value::List(self.list(depth)?), anchor)
            }
            Event::MappingStart(_, anchor, tag) => {
                self.check(at, tag.as_deref(), ())?;
                (Value::Map(self.map(depth)?), anchor)
            }
            Event::Alias(anchor) => return self.repeat(at, anchor),
            _ => return Err(self.broken(at, "a value is missing")),
        };
        let node = Node { at, value };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Vec<Node<'a>>, Broken> {
        let mut nodes = Vec::new();
        while let Some(node) = self.node(depth + 1)? {
            nodes.push(node);
        }
        Ok(nodes)
    }

    fn map(&mut self, depth: usize) -> Result<Vec<Pair<'a>>, Broken> {
        let mut pairs = Vec::new();
        while let Some(key) = self.node(depth + 1)? {
            let at = key.at;
            let Value::Scalar { text: key, .. } = key.value else {
                return Err(self.broken(at, "a list or a map is no name of a field"));
            };
            let value = self.node(depth + 1)?;
            let value = value.ok_or_else(|| self.broken(at, "a value is missing"))?;
            pairs.push(Pair { at, key, value });
        }
        Ok(pairs)
    }

    /// What an alias stands for.
    fn repeat(&mut self, at: At, anchor: usize) -> Result<Node<'a>, Broken> {
        let Some(node) = self.anchors.get(&anchor) else {
            return Err(self.broken(at, "an alias within what it stands for"));
        };
        let node = node.clone();
        self.repeated += node.size();
        if self.repeated > MAX_REPEATED {
            let reason = format!("aliases repeat more than {MAX_REPEATED} values");
            return Err(Broken { at, reason });
        }
        self.repeated_bytes += node.bytes();
        if self.repeated_bytes > MAX_REPEATED_BYTES {
            let reason = "aliases repeat more than 1 MiB of text".to_owned();
            return Err(Broken { at, reason });
        }
        Ok(Node { at, ..node })
    }

    fn check<T>(&self, at: At, tag: Option<&Tag>, value: T) -> Result<T, Broken> {
        match tag {
            Some(tag) if !tag.is_yaml_core_schema() => {
                Err(self.broken(at, "a tag that state files do not have"))
            }
            _ => Ok(value),
        }
    }

    fn broken(&self, at: At, reason: &str) -> Broken {
        Broken {
            at,
            reason: reason.to_owned(),
        }
    }
}

/// The parser's words, without what it was about when it met the mistake. They are fixed texts: none is of the file.
fn broken(error: &ScanError) -> Broken {
    let info = error.info();
    let reason = info
        .strip_prefix("while ")
        .and_then(|info| info.split_once(", "));
    Broken {
        at: At {
            line: error.marker().line(),
            column: error.marker().col() + 1,
        },
        reason: format!(
            "this is no YAML: {}",
            reason.map_or(&*info, |(_, reason)| reason)
        ),
    }
}
