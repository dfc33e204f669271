//! What configuration files hold before it is known what it means: a tree in
//! which every key and every value remembers where it was written.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};
use toml_parser::lexer::TokenKind;

use super::diagnostic::Problem;
use super::source::{Origin, Source};

/// A value and where it came from.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    /// The value.
    pub(super) value: Value,
    /// Where it was written; for a table, its header.
    pub(super) origin: Origin,
}

/// An entry of a table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    /// Where the key was written.
    pub(super) key: Origin,
    /// What it stands for.
    pub(super) node: Node,
}

/// A table.
pub(super) type Table = BTreeMap<String, Entry>;

/// A value, as TOML has them.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    /// A string.
    String(String),
    /// A whole number.
    Integer(i128),
    /// A number with a fraction.
    Float(f64),
    /// `true` or `false`.
    Boolean(bool),
    /// A date, a time or both; nothing in a configuration takes one.
    Datetime,
    /// An array.
    Array(Vec<Node>),
    /// A table.
    Table(Table),
}

impl Node {
    /// An empty table that was written nowhere.
    pub(super) fn empty() -> Self {
        Self { value: Value::Table(Table::new()), origin: Origin::BuiltIn }
    }

    /// Parses a TOML document. The first error is returned: what follows a
    /// syntax error is often only its echo.
    pub(super) fn parse(source: &Arc<Source>) -> Result<Self, Problem> {
        refuse_depth(source)?;
        let document = DeTable::parse(&source.text).map_err(|error| {
            let end = source.text.len();
            let span = error.span().unwrap_or(end..end);
            Problem::new(
                format!("this is not TOML: {}", error.message()),
                Origin::Text { source: source.clone(), span },
            )
            .without_text()
        })?;
        let value = table(source, document.get_ref())?;
        Ok(Self { value, origin: Origin::Text { source: source.clone(), span: 0..0 } })
    }

    /// The table, where it is one.
    pub(super) fn as_table(&self) -> Option<&Table> {
        match &self.value {
            Value::Table(table) => Some(table),
            _ => None,
        }
    }

    /// The entry that this path leads to. Steps into arrays are numbers, counted from 0.
    pub(super) fn find(&self, path: &[&str]) -> Option<Found<'_>> {
        let mut found = Found { key: &self.origin, node: self };
        for step in path {
            found = match &found.node.value {
                Value::Table(table) => {
                    let entry = table.get(*step)?;
                    Found { key: &entry.key, node: &entry.node }
                }
                Value::Array(items) => {
                    let node = items.get(step.parse::<usize>().ok()?)?;
                    Found { key: &node.origin, node }
                }
                _ => return None,
            };
        }
        Some(found)
    }

    /// Puts another layer over this one. Tables merge key by key; anything else
    /// is replaced. So is a table whose `type` is another one, because what it
    /// holds means something else.
    pub(super) fn merge(&mut self, over: Self) {
        let same_kind =
            self.kind().is_none() || over.kind().is_none() || self.kind() == over.kind();
        match (&mut self.value, over.value) {
            (Value::Table(below), Value::Table(above)) if same_kind => {
                for (name, entry) in above {
                    match below.get_mut(&name) {
                        Some(existing) => {
                            existing.key = entry.key;
                            existing.node.merge(entry.node);
                        }
                        None => {
                            below.insert(name, entry);
                        }
                    }
                }
            }
            (value, above) => *value = above,
        }
        self.origin = over.origin;
    }

    /// Puts one value over this tree, at this path.
    pub(super) fn set(&mut self, path: &[&str], value: Value, origin: &Origin) {
        let node = Self { value, origin: origin.clone() };
        let layer = path.iter().rev().fold(node, |node, step| Self {
            value: Value::Table(Table::from([(
                (*step).to_string(),
                Entry { key: origin.clone(), node },
            )])),
            origin: origin.clone(),
        });
        self.merge(layer);
    }

    fn kind(&self) -> Option<&str> {
        match &self.as_table()?.get("type")?.node.value {
            Value::String(kind) => Some(kind),
            _ => None,
        }
    }
}

/// What [`Node::find`] found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found<'a> {
    /// Where its key was written.
    pub(super) key: &'a Origin,
    /// The value.
    pub(super) node: &'a Node,
}

/// How deep tables and arrays may lie in each other.
const MAX_DEPTH: usize = 80;

/// Refuses a text whose tree would be too deep to be read and dropped by
/// recursion. The parser bounds dotted keys and nesting, but not their product.
fn refuse_depth(source: &Arc<Source>) -> Result<(), Problem> {
    // The dots of the present key, and those of the keys around it.
    let mut dots = 0;
    let mut around: Vec<usize> = Vec::new();
    let mut depth = 0;
    for token in toml_parser::Source::new(&source.text).lex() {
        match token.kind() {
            TokenKind::Dot => dots += 1,
            TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket => {
                depth += dots + 1;
                around.push(std::mem::take(&mut dots));
            }
            TokenKind::RightSquareBracket | TokenKind::RightCurlyBracket => {
                if let Some(outer) = around.pop() {
                    dots = outer;
                    depth -= dots + 1;
                }
            }
            TokenKind::Comma | TokenKind::Newline => dots = 0,
            _ => {}
        }
        if depth + dots > MAX_DEPTH {
            let span = token.span().start()..token.span().end();
            return Err(Problem::new(
                "tables and arrays lie too deep in each other",
                Origin::Text { source: source.clone(), span },
            ));
        }
    }
    Ok(())
}

fn table(source: &Arc<Source>, table: &DeTable<'_>) -> Result<Value, Problem> {
    let origin = |span| Origin::Text { source: source.clone(), span };
    let entries = table.iter().map(|(key, value)| {
        let node = node(source, value.get_ref(), value.span())?;
        Ok((key.get_ref().to_string(), Entry { key: origin(key.span()), node }))
    });
    Ok(Value::Table(entries.collect::<Result<_, Problem>>()?))
}

fn node(source: &Arc<Source>, value: &DeValue<'_>, span: Range<usize>) -> Result<Node, Problem> {
    let origin = Origin::Text { source: source.clone(), span };
    let value = match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => match i128::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => return Err(Problem::new("this number is too large", origin)),
        },
        DeValue::Float(number) => match number.as_str().parse() {
            Ok(number) => Value::Float(number),
            Err(_) => return Err(Problem::new("this is not a number", origin)),
        },
        DeValue::Boolean(yes) => Value::Boolean(*yes),
        DeValue::Datetime(_) => Value::Datetime,
        DeValue::Array(items) => Value::Array(
            items
                .iter()
                .map(|item| node(source, item.get_ref(), item.span()))
                .collect::<Result<_, _>>()?,
        ),
        DeValue::Table(entries) => table(source, entries)?,
    };
    Ok(Node { value, origin })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str, text: &str) -> Node {
        Node::parse(&Source::text(name, text)).unwrap()
    }

    fn place(node: &Node, path: &[&str]) -> String {
        node.find(path).unwrap().node.origin.to_string()
    }

    #[test]
    fn every_value_knows_its_line() {
        let tree = parse("f", "\na = 1\n[b]\nc = [\n 'x',\n 'y' ]\n");
        assert_eq!(place(&tree, &["a"]), "f:2");
        assert_eq!(place(&tree, &["b"]), "f:3");
        assert_eq!(place(&tree, &["b", "c", "1"]), "f:6");
        assert!(tree.find(&["b", "c", "2"]).is_none());
        assert!(tree.find(&["a", "b"]).is_none());
    }

    #[test]
    fn tables_merge_and_everything_else_is_replaced() {
        let mut tree = parse("low", "a = [1, 2]\n[t]\nx = 1\ny = 1\n");
        tree.merge(parse("high", "a = [3]\n[t]\ny = 2\nz = 2\n"));
        for (path, place_of) in
            [("x", "low:3"), ("y", "high:3"), ("z", "high:4")].map(|(k, p)| (["t", k], p))
        {
            assert_eq!(place(&tree, &path), place_of);
        }
        assert!(tree.find(&["a", "1"]).is_none());
        assert_eq!(place(&tree, &["t"]), "high:2");
    }

    #[test]
    fn a_table_of_another_type_replaces_the_old_one() {
        let mut tree = parse("low", "[t]\ntype = 'a'\nx = 1\n");
        tree.merge(parse("same", "[t]\ny = 1\n"));
        assert!(tree.find(&["t", "x"]).is_some());
        tree.merge(parse("other", "[t]\ntype = 'b'\n"));
        assert!(tree.find(&["t", "x"]).is_none());
    }

    #[test]
    fn one_value_can_be_set() {
        let mut tree = parse("f", "[cache]\nother = 1\n");
        let origin = Origin::Text { source: Source::variable("V", "x"), span: 2..3 };
        tree.set(&["cache", "store"], Value::String("x".into()), &origin);
        assert_eq!(place(&tree, &["cache", "store"]), "V");
        assert_eq!(place(&tree, &["cache", "other"]), "f:2");
    }

    #[test]
    fn numbers_that_do_not_fit_are_told() {
        let source = Source::text("f", format!("a = {}", "9".repeat(60)));
        assert!(Node::parse(&source).is_err());
    }

    /// Trees are dropped and read by recursion, so their depth must be bounded.
    #[test]
    fn depth_is_bounded() {
        let flat =
            format!("a = [{}]\nb.c = {{ d.e = [[1.5]] }}\n", "1.5, {x.y = 2},\n".repeat(1000));
        assert!(Node::parse(&Source::text("f", flat)).is_ok());
        let path = ["a"; 79].join(".");
        let mut text = format!("[{path}]\n{path} = ");
        // Legal by itself, and the parser takes it: 79 times 79 tables.
        text.push_str(&format!("{{{path}=").repeat(79));
        text.push('1');
        text.push_str(&"}".repeat(79));
        for (i, text) in [
            text,
            format!("{}a = 1", "a.".repeat(500_000)),
            format!("[{}a]", "a.".repeat(500_000)),
            format!("[[{}a]]", "a.".repeat(500_000)),
            format!("a = {}", "[".repeat(500_000)),
            format!("a = {}", "{a=".repeat(300_000)),
        ]
        .into_iter()
        .enumerate()
        {
            let error = Node::parse(&Source::text("f", text)).unwrap_err().into_error();
            assert!(error.message().contains("too deep"), "case {i}: {error}");
        }
    }
}
