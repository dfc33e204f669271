//! How the lines of a file of AWS belong together, which its readers see differently.
//!
//! - Python's (botocore, the AWS CLI) takes a line for a part of the setting above where it is
//!   indented further than that, whatever is in it, also the head of a section; behind a head
//!   an indented line is a setting of its own. Comments and empty lines change nothing.
//! - Those of Rust and Java take every indented line for a part of the setting above.
//! - Those of Go and JavaScript take an indented line for a setting of its own also below one
//!   that has a value, and for a head whatever its indent.

use zeroize::Zeroizing;

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing is in it.
    Blank,
    Comment,
    /// The head of a section.
    Head {
        /// All readers take it for one.
        is_clear: bool,
    },
    /// A setting, or more of the one above.
    Other,
}

/// The place in a text that is read line by line.
#[derive(Debug, Default)]
pub(super) struct Layout {
    /// How far the last setting of this section is indented, for Python's reader.
    setting: Option<usize>,
    /// The line above has an end that not all readers see.
    is_torn: bool,
}

impl Layout {
    /// What the next line is.
    pub(super) fn kind(&mut self, line: &str) -> Kind {
        let is_torn = std::mem::replace(&mut self.is_torn, !line.ends_with('\n'));
        let content = line.trim();
        if content.is_empty() {
            return Kind::Blank;
        }
        if content.starts_with(['#', ';']) {
            return Kind::Comment;
        }
        let indent = indent(line);
        let goes_on = self.setting.is_some_and(|setting| indent > setting);
        let Some((_, rest)) = head(line) else {
            if !goes_on {
                self.setting = Some(indent);
            }
            return Kind::Other;
        };
        if !goes_on {
            self.setting = None;
        }
        let comment = rest.trim_start();
        let is_alone =
            comment.is_empty() || (comment.len() < rest.len() && comment.starts_with(['#', ';']));
        Kind::Head { is_clear: !goes_on && !is_torn && is_alone }
    }
}

/// Lines, each with its end, and as they are read: a carriage return alone ends one for Python.
/// What is not in UTF-8 is no part of a name. Some editors put a byte order mark before the first.
pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = (&[u8], Zeroizing<String>)> {
    let goes_on = |byte: &u8, next: &u8| *byte != b'\n' && (*byte != b'\r' || *next == b'\n');
    text.chunk_by(goes_on).map(|line| {
        let read = String::from_utf8_lossy(line);
        (line, Zeroizing::new(read.trim_start_matches('\u{feff}').to_owned()))
    })
}

/// How many characters are before what is in a line.
pub(super) fn indent(line: &str) -> usize {
    line.chars().take_while(|c| c.is_whitespace()).count()
}

/// The name of the setting in a line.
pub(super) fn setting(line: &str) -> &str {
    line.split(['=', ':']).next().unwrap_or_default().trim()
}

/// The words in the head of a section.
pub(super) fn section(line: &str) -> Option<Vec<&str>> {
    let (head, _) = head(line)?;
    Some(head.split_whitespace().map(|word| word.trim_matches(['"', '\''])).collect())
}

/// What is between the brackets of a head, and behind them.
fn head(line: &str) -> Option<(&str, &str)> {
    line.trim_start().strip_prefix('[')?.split_once(']')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<Kind> {
        let mut layout = Layout::default();
        lines(text.as_bytes()).map(|(_, line)| layout.kind(&line)).collect()
    }

    #[test]
    fn a_head_is_clear_where_no_reader_takes_it_for_anything_else() {
        const CLEAR: Kind = Kind::Head { is_clear: true };
        const UNCLEAR: Kind = Kind::Head { is_clear: false };
        use Kind::{Blank, Comment, Other};
        assert_eq!(
            kinds("\u{feff}[a]\r\n x=1\r\n[b] # c\r\n\n # d\n  [c]\n x\n [d]\n  [e]\n"),
            [CLEAR, Other, CLEAR, Blank, Comment, CLEAR, Other, CLEAR, CLEAR]
        );
        assert_eq!(
            kinds("[a]\nx = 1\n\n [b]\n  y\n[c]"),
            [CLEAR, Other, Blank, UNCLEAR, Other, CLEAR]
        );
        assert_eq!(kinds("[a] b\n[c]#d\n[e]\t;f\n"), [UNCLEAR, UNCLEAR, CLEAR]);
        assert_eq!(
            kinds("[a]\rx = 1\r[b]\n[c]\r\r\n[d]"),
            [CLEAR, Other, UNCLEAR, CLEAR, Blank, CLEAR]
        );
    }
}
