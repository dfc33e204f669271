//! Where in a policy file something is wrong.

use std::fmt::Write;
use std::path::Path;

use miette::Diagnostic;

/// What a diagnostic says, with file, line, column and the offending line.
pub(super) fn describe(diagnostic: &dyn Diagnostic, path: &Path, text: &str) -> String {
    let mut said = diagnostic.to_string();
    if let Some(help) = diagnostic.help() {
        let _ = write!(said, " ({help})");
    }
    match diagnostic.labels().and_then(|mut labels| labels.next()) {
        Some(label) => at(path, text, label.offset(), &said),
        None => format!("{}: {said}", path.display()),
    }
}

/// A message with file, line, column and the line at a byte offset.
pub(super) fn at(path: &Path, text: &str, offset: usize, said: &str) -> String {
    let offset = text.floor_char_boundary(offset);
    let before = text.get(..offset).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let column = before.get(start..).unwrap_or_default().chars().count() + 1;
    let shown = text.get(start..).and_then(|rest| rest.lines().next()).unwrap_or_default().trim();
    format!("{}:{line}:{column}: {said}: {shown}", path.display())
}
