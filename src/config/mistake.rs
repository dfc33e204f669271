//! What can be wrong with a value, and the words for it.

use serde::de::Unexpected;

use super::diagnostic::{Problem, nearest, quoted};
use super::source::Origin;

/// Why a value could not be read.
#[derive(Debug)]
pub(super) struct Mistake {
    /// What is wrong.
    pub(super) what: What,
    /// Where it was written.
    pub(super) origin: Option<Origin>,
    /// The way there, innermost step first.
    pub(super) trail: Vec<Step>,
}

/// What is wrong with a value.
#[derive(Debug)]
pub(super) enum What {
    /// The value says no for a reason of its own.
    Custom(String),
    /// A table has a key that it may not have.
    UnknownKey {
        key: String,
        known: &'static [&'static str],
        /// Whether it is the name of a table.
        table: bool,
    },
    /// A string is none of those it may be.
    UnknownVariant { found: String, known: &'static [&'static str] },
    /// A table lacks an entry.
    Missing {
        field: &'static str,
        /// A key of the table that was probably meant to be this one.
        near: Option<String>,
    },
    /// A value is of another type, or out of range.
    Invalid { found: String, expected: String },
    /// A table or array has too few or too many items.
    Length { found: usize, expected: String },
}

/// A step on the way from the root to a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Into the entry of a table.
    Key(String, Origin),
    /// Into an item of an array.
    Item(usize),
}

impl Step {
    pub(super) fn key(&self) -> Option<&Origin> {
        match self {
            Self::Key(_, origin) => Some(origin),
            Self::Item(_) => None,
        }
    }

    /// Whether it is the entry of this name, or was meant to be.
    pub(super) fn is_about(&self, name: &str) -> bool {
        matches!(self, Self::Key(key, _) if nearest(key, [name]).is_some())
    }
}

impl Mistake {
    /// The words for it.
    pub(super) fn describe(self) -> Problem {
        let Self { what, origin, trail } = self;
        let origin = origin.unwrap_or(Origin::BuiltIn);
        match what {
            What::Custom(message) => {
                Problem::new(format!("{} is not valid: {message}", place(&trail)), origin)
            }
            What::UnknownKey { key, known, table } => {
                let parent = trail.get(1..).unwrap_or_default();
                let title = match parent {
                    [] => format!("unknown key {}", quoted(&key)),
                    _ => format!("unknown key {} in {}", quoted(&key), place(parent)),
                };
                let problem = Problem::new(title, origin)
                    .alone()
                    .label("this key means nothing here")
                    .suggest(&key, known.iter().copied())
                    .known("the keys here are", known.iter().copied());
                match trail.as_slice() {
                    [Step::Key(end, _), Step::Key(start, _), Step::Key(list, _)] if table => {
                        let whole = quoted(&format!("[{list}.\"{start}.{end}\"]"));
                        problem.help(format!("a name with a dot stands in quotes: {whole}"))
                    }
                    _ => problem,
                }
            }
            What::UnknownVariant { found, known } => {
                Problem::new(format!("{} cannot be {}", place(&trail), quoted(&found)), origin)
                    .label("there is no such choice")
                    .suggest(&found, known.iter().copied())
                    .known("the choices are", known.iter().copied())
            }
            What::Missing { field, near } => {
                let problem =
                    Problem::new(format!("{} has no {}", place(&trail), quoted(field)), origin)
                        .label(format!("{} is missing here", quoted(field)));
                match near {
                    Some(near) => problem.help(format!("is {} meant to be it?", quoted(&near))),
                    None => problem,
                }
            }
            What::Invalid { found, expected } => {
                let problem = Problem::new(format!("{} must be {expected}", place(&trail)), origin)
                    .label(format!("this is {found}"));
                match trail.as_slice() {
                    [Step::Key(key, _)] if key == "profile" && found == "a string" => problem
                        .help("only a project's own file chooses with `profile`; elsewhere the key is `default_profile`"),
                    _ => problem,
                }
            }
            What::Length { found, expected } => {
                Problem::new(format!("{} must have {expected}", place(&trail)), origin)
                    .label(format!("this has {found}"))
            }
        }
    }
}

/// Where a value is, such as `profile.deploy.exchange[0]`.
fn place(trail: &[Step]) -> String {
    let mut path = String::new();
    for step in trail.iter().rev() {
        match step {
            Step::Key(name, _) => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(name);
            }
            Step::Item(index) => path.push_str(&format!("[{index}]")),
        }
    }
    if path.is_empty() { "the configuration".into() } else { quoted(&path) }
}

/// What a value is, in words. A string is not repeated: the snippet shows it.
pub(super) fn found(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Bool(yes) => format!("`{yes}`"),
        Unexpected::Unsigned(number) => format!("the number {number}"),
        Unexpected::Signed(number) => format!("the number {number}"),
        Unexpected::Float(number) => format!("the number {number}"),
        Unexpected::Char(_) | Unexpected::Str(_) => "a string".into(),
        Unexpected::Seq => "an array".into(),
        Unexpected::Map => "a table".into(),
        Unexpected::Other(words) => words.into(),
        _ => "something else".into(),
    }
}

/// What serde expects, in the words of TOML.
pub(super) fn expected(words: &str) -> String {
    let whole = "a whole number";
    match words {
        "a boolean" => "`true` or `false`".into(),
        "u8" => format!("{whole} from 0 to {}", u8::MAX),
        "u16" => format!("{whole} from 0 to {}", u16::MAX),
        "u32" => format!("{whole} from 0 to {}", u32::MAX),
        "u64" | "u128" | "usize" => format!("{whole} from 0"),
        "a nonzero u8" | "a nonzero u16" | "a nonzero u32" | "a nonzero u64"
        | "a nonzero usize" => {
            format!("{whole} from 1")
        }
        "i8" | "i16" | "i32" | "i64" | "i128" | "isize" => whole.into(),
        "f32" | "f64" => "a number".into(),
        "a sequence" => "an array".into(),
        "a map" => "a table".into(),
        "path string" | "string" | "variant identifier" | "a borrowed string" => "a string".into(),
        _ if words.starts_with("struct ") || words.starts_with("internally tagged enum ") => {
            "a table".into()
        }
        _ if words.starts_with("enum ") => "a string".into(),
        _ if words.starts_with("tuple ") => "an array".into(),
        _ => words.into(),
    }
}
