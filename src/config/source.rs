//! Where configuration was written: files and what stands for them.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// A text that configuration was read from.
#[derive(PartialEq, Eq)]
pub struct Source {
    /// Its full name, such as a path.
    pub name: String,
    /// Its name as a person would write it, such as a path that starts with `~`.
    pub short: String,
    /// What it is.
    pub kind: SourceKind,
    /// The text.
    pub text: String,
}

/// What a [`Source`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceKind {
    /// A file, or a text that stands for one.
    File,
    /// An environment variable; the text is `NAME=value`.
    Variable,
}

/// The name only: the text would be repeated with every value in it.
impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Source {
    /// A text that stands for a file of this name.
    pub fn text(name: &str, text: impl Into<String>) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            short: name.into(),
            kind: SourceKind::File,
            text: text.into(),
        })
    }

    /// An environment variable.
    pub fn variable(name: &str, value: &str) -> Arc<Self> {
        Arc::new(Self {
            name: "environment".into(),
            short: name.into(),
            kind: SourceKind::Variable,
            text: format!("{name}={value}"),
        })
    }

    /// The line and the column of a byte, both counted from 1, the column in characters.
    pub fn place(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let line = before.bytes().filter(|b| *b == b'\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |at| at + 1);
        (line, before[start..].chars().count() + 1)
    }
}

/// Where a key or a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From the program itself.
    BuiltIn,
    /// From these bytes of a text.
    Text {
        /// The text.
        source: Arc<Source>,
        /// The bytes.
        span: Range<usize>,
    },
}

impl Origin {
    /// The value of an environment variable.
    pub fn variable(name: &str, value: &str) -> Self {
        let source = Source::variable(name, value);
        let span = name.len() + 1..source.text.len();
        Self::Text { source, span }
    }
}

impl fmt::Display for Origin {
    /// In a few characters, such as `~/.config/tmpcred/config.toml:12`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BuiltIn => f.write_str("built-in"),
            Self::Text { source, span } => match source.kind {
                SourceKind::Variable => f.write_str(&source.short),
                SourceKind::File => write!(f, "{}:{}", source.short, source.place(span.start).0),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_counted_in_characters() {
        let source = Source::text("f", "é\nßé = 1\n");
        assert_eq!(source.place("é\nßé".len()), (2, 3));
        assert_eq!(source.place(0), (1, 1));
        assert_eq!(source.place(999), (3, 1));
    }

    #[test]
    fn origins_are_named_in_a_few_characters() {
        assert_eq!(Origin::BuiltIn.to_string(), "built-in");
        let origin = |source| Origin::Text { source, span: 2..3 };
        assert_eq!(origin(Source::text("f", "a\nb\n")).to_string(), "f:2");
        assert_eq!(origin(Source::variable("V", "x")).to_string(), "V");
    }
}
