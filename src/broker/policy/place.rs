//! Where in a policy file something is wrong.

use std::fmt;
use std::path::{Path, PathBuf};

use miette::Diagnostic;
use serde::Serialize;

/// A place in a policy file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// The file.
    pub file: PathBuf,
    /// The line, the first being 1; `None` where only the file is known.
    pub line: Option<usize>,
    /// The column in it, in characters.
    pub column: Option<usize>,
    /// That line.
    pub text: String,
}

impl Place {
    /// The place at a byte offset.
    pub(super) fn at(path: &Path, text: &str, offset: usize) -> Self {
        let offset = text.floor_char_boundary(offset);
        let before = text.get(..offset).unwrap_or_default();
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let shown = text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default();
        Self {
            file: path.to_path_buf(),
            line: Some(before.matches('\n').count() + 1),
            column: Some(before.get(start..).unwrap_or_default().chars().count() + 1),
            text: shown.trim().to_string(),
        }
    }

    /// Somewhere in this file.
    pub(super) fn within(path: &Path) -> Self {
        Self { file: path.to_path_buf(), line: None, column: None, text: String::new() }
    }

    /// The place that a diagnostic of Cedar's names.
    pub(super) fn of(diagnostic: &dyn Diagnostic, path: &Path, text: &str) -> Self {
        match diagnostic.labels().and_then(|mut labels| labels.next()) {
            Some(label) => Self::at(path, text, label.offset()),
            None => Self::within(path),
        }
    }
}

/// What a diagnostic says, with its help.
pub(super) fn said(diagnostic: &dyn Diagnostic) -> String {
    match diagnostic.help() {
        Some(help) => format!("{diagnostic} ({help})"),
        None => diagnostic.to_string(),
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        for number in [self.line, self.column].into_iter().flatten() {
            write!(f, ":{number}")?;
        }
        Ok(())
    }
}
