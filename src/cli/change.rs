//! Changing a file that is somebody's own: what changes is shown, and asked for.

use std::io::Write;
use std::path::Path;

use anstyle::{AnsiColor, Style};
use similar::{ChangeTag, TextDiff};

use crate::error::{Error, ErrorKind, Result};
use crate::host::files;
use crate::host::interact::Interact;

use super::App;
use super::show::printable;
use super::ui::written;

const OUT: Style = AnsiColor::Red.on_default();
const IN: Style = AnsiColor::Green.on_default();
const PLACE: Style = AnsiColor::Cyan.on_default();
/// How many lines around a change are shown.
const AROUND: usize = 3;

/// A change of a file. `None` stands for «no file».
pub(crate) struct Change<'a> {
    pub path: &'a Path,
    pub before: Option<&'a str>,
    pub after: Option<&'a str>,
}

impl Change<'_> {
    /// Shows the change, asks unless `yes` was said, and makes it. Tells whether it was made.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] where nobody may be asked.
    pub(crate) fn make(&self, app: &App, yes: bool) -> Result<bool> {
        if self.before == self.after {
            app.host.interact.note(&format!("{}: nothing is to be changed", self.path.display()));
            return Ok(false);
        }
        self.show(app)?;
        if !yes && !self.is_wanted(app)? {
            app.host.interact.note("nothing has been changed");
            return Ok(false);
        }
        let before = self.before.map(str::as_bytes);
        files::rewrite(self.path, before, self.after.map(str::as_bytes))?;
        let done = if self.after.is_some() { "has been written" } else { "has been removed" };
        app.host.interact.note(&format!("{} {done}", self.path.display()));
        Ok(true)
    }

    fn is_wanted(&self, app: &App) -> Result<bool> {
        if !app.ui.may_ask() {
            return Err(Error::new(ErrorKind::Usage, "nobody may be asked whether to change it")
                .because_of("--no-input, TMPCRED_NO_INPUT or CI is set, or there is no terminal")
                .hint("to change it without being asked, say --yes"));
        }
        app.ui.confirm("Change the file?")
    }

    /// The change, as `diff -u` shows it.
    fn show(&self, app: &App) -> Result<()> {
        let (before, after) = (self.before.unwrap_or_default(), self.after.unwrap_or_default());
        let diff = TextDiff::from_lines(before, after);
        let mut out = app.ui.out();
        let name = |side: Option<&str>| match side {
            Some(_) => self.path.display().to_string(),
            None => "/dev/null".to_string(),
        };
        let mut line = |style: Style, text: &str| {
            written(writeln!(out, "{style}{}{style:#}", printable(text)))
        };
        line(Style::new().bold(), &format!("--- {}", name(self.before)))?;
        line(Style::new().bold(), &format!("+++ {}", name(self.after)))?;
        for hunk in diff.unified_diff().context_radius(AROUND).iter_hunks() {
            line(PLACE, &hunk.header().to_string())?;
            for change in hunk.iter_changes() {
                let (sign, style) = match change.tag() {
                    ChangeTag::Delete => ('-', OUT),
                    ChangeTag::Insert => ('+', IN),
                    ChangeTag::Equal => (' ', Style::new()),
                };
                let text = change.value().trim_end_matches(['\r', '\n']);
                line(style, &format!("{sign}{text}"))?;
                if change.missing_newline() {
                    line(Style::new(), "\\ No newline at end of file")?;
                }
            }
        }
        Ok(())
    }
}
