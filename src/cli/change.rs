//! Changing a file that is somebody's own: what changes is shown, and asked for.

use std::io::Write;
use std::path::Path;

use anstyle::{AnsiColor, Style};
use similar::algorithms::{Capture, Replace, myers};
use similar::udiff::UnifiedHunkHeader;
use similar::{ChangeTag, DiffOp};

use crate::config;
use crate::error::{Error, ErrorKind, Result};
use crate::host::files;
use crate::host::interact::Interact;

use super::App;
use super::show::printable;
use super::ui::written;

const OUT: Style = AnsiColor::Red.on_default();
const IN: Style = AnsiColor::Green.on_default();
const PLACE: Style = AnsiColor::Cyan.on_default();

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

    /// The change, as `diff -U 0` shows it: what is around it is none of it, and may be secret.
    fn show(&self, app: &App) -> Result<()> {
        let (before, after) = (self.before.unwrap_or_default(), self.after.unwrap_or_default());
        let (before, after) = (lines(before), lines(after));
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
        for (style, text) in differences(&before, &after) {
            line(style, &text)?;
        }
        Ok(())
    }
}

/// The lines, without their ends: a last line that had none, and gets one because something
/// comes behind it, is no other line.
fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

/// The lines that differ, and where they are, with no value that is a secret by its name.
fn differences(before: &[&str], after: &[&str]) -> Vec<(Style, String)> {
    let mut shown = Vec::new();
    for hunk in hunks(before, after) {
        shown.push((PLACE, UnifiedHunkHeader::new(&hunk).to_string()));
        let sides = hunk.iter().flat_map(|op| op.iter_slices(before, after));
        for (tag, text) in sides.flat_map(|(tag, some)| some.iter().map(move |one| (tag, one))) {
            let (sign, style) = match tag {
                ChangeTag::Delete => ('-', OUT),
                ChangeTag::Insert => ('+', IN),
                ChangeTag::Equal => continue,
            };
            shown.push((style, format!("{sign}{}", config::without_secret(text))));
        }
    }
    shown
}

/// What differs, in groups with nothing in between. (The comparison of whole texts
/// that the crate offers brings all its algorithms into the program, which take more room
/// there than TLS does.)
fn hunks(before: &[&str], after: &[&str]) -> Vec<Vec<DiffOp>> {
    let mut found = Replace::new(Capture::new());
    let (old, new) = (0..before.len(), 0..after.len());
    let Ok(()) = myers::diff_deadline_raw(&mut found, before, old, after, new, None);
    found.into_inner().into_grouped_ops(0)
}

#[cfg(test)]
mod tests {
    use super::{differences, lines};

    fn shown(before: &str, after: &str) -> String {
        let all = differences(&lines(before), &lines(after));
        all.into_iter().map(|(_, text)| text + "\n").collect()
    }

    #[test]
    fn differences_are_shown_as_diff_shows_them() {
        assert_eq!(shown("a\nb\n", "a\nb\n"), "");
        assert_eq!(shown("", "a\n"), "@@ -0,0 +1 @@\n+a\n");
        assert_eq!(shown("a\n", ""), "@@ -1 +0,0 @@\n-a\n");
        let before = "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n11\n12\n";
        let after = "1\n2\nthree\n4\n5\n6\n7\n8\n9\n10\n11\n12\n13\n";
        // What `diff -U 0` of GNU diffutils 3.8 says of these two.
        let expected = "@@ -3 +3 @@\n-3\n+three\n@@ -12,0 +13 @@\n+13\n";
        assert_eq!(shown(before, after), expected);
        // A line that is ended, because something comes behind it, is the same.
        assert_eq!(shown(before.trim_end(), after), expected);
    }

    #[test]
    fn no_secret_is_shown_of_a_file() {
        let before = "[a]\naws_secret_access_key = canary";
        let after = format!("{before}\n# ours\n[b]\ncredential_process = tmpcred b\n");
        let shown_of = shown(before, &after);
        assert!(shown_of.ends_with("+credential_process = tmpcred b\n"), "{shown_of}");
        assert!(!shown_of.contains("canary") && !shown_of.contains("[a]"), "{shown_of}");
        // Where somebody wrote into what is taken out.
        for (line, left) in [
            ("aws_secret_access_key = canary", "aws_secret_access_key = …"),
            ("aws_session_token=canary", "aws_session_token= …"),
            (
                "env = { USER = \"me\", PASSWORD = \"canary\" }",
                "env = { USER = \"me\", PASSWORD = …",
            ),
        ] {
            assert_eq!(shown(line, ""), format!("@@ -1 +0,0 @@\n-{left}\n"));
        }
    }
}
