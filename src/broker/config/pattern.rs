//! Regular expressions in a configuration.

use regex::Regex;
use regex_syntax::ast::{self, Ast};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A regular expression that all of a text has to match.
///
/// With `\d`, `\w`, `\s`, `\b` or `(?i)` in it, it is for texts in ASCII alone: whoever writes it has
/// names in mind, and not each sign that Unicode counts as a digit, or as a `k`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Pattern {
    text: String,
    regex: Regex,
    /// Whether it is for texts in ASCII alone.
    ascii: bool,
}

impl Pattern {
    /// Whether all of it is so.
    pub fn matches(&self, text: &str) -> bool {
        self.is_for(text) && self.regex.is_match(text)
    }

    /// What of a text is meant: what is in the parentheses, or all of it where there are none.
    /// Nothing where it is not so.
    pub(in crate::broker) fn found<'a>(&self, text: &'a str) -> Option<&'a str> {
        let group = self.groups().min(1);
        let captures = self.regex.captures(text).filter(|_| self.is_for(text))?;
        captures.get(group).map(|found| found.as_str())
    }

    /// How many parentheses it has of which the content is told.
    pub(super) fn groups(&self) -> usize {
        // The whole of it is one of them.
        self.regex.captures_len() - 1
    }

    fn is_for(&self, text: &str) -> bool {
        !self.ascii || text.is_ascii()
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl TryFrom<String> for Pattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        // It has to be one by itself: what closes the parentheses around it would not be anchored.
        // Whoever forgets to anchor one means all of it.
        Regex::new(&text)
            .and_then(|_| Regex::new(&format!(r"\A(?:{text})\z")))
            .map(|regex| Self { text: text.clone(), regex, ascii: is_loose(&text) })
            .map_err(|cause| format!("'{text}' is no regular expression: {cause}"))
    }
}

/// Whether an expression has something in it that means more signs than whoever writes it may
/// think of.
fn is_loose(text: &str) -> bool {
    // What is read as an expression is one here, too.
    let Ok(all) = ast::parse::Parser::new().parse(text) else { return true };
    ast::visit(&all, Loose::default()).unwrap_or(true)
}

#[derive(Default)]
struct Loose(bool);

impl Loose {
    fn ignores_case(flags: &ast::Flags) -> bool {
        flags.flag_state(ast::Flag::CaseInsensitive) == Some(true)
    }
}

impl ast::Visitor for Loose {
    type Output = bool;
    type Err = ();

    fn finish(self) -> Result<bool, ()> {
        Ok(self.0)
    }

    fn visit_pre(&mut self, part: &Ast) -> Result<(), ()> {
        self.0 |= match part {
            Ast::ClassPerl(_) => true,
            Ast::Assertion(assertion) => !matches!(
                assertion.kind,
                ast::AssertionKind::StartLine
                    | ast::AssertionKind::EndLine
                    | ast::AssertionKind::StartText
                    | ast::AssertionKind::EndText
            ),
            Ast::Flags(set) => Self::ignores_case(&set.flags),
            Ast::Group(group) => group.flags().is_some_and(Self::ignores_case),
            _ => false,
        };
        Ok(())
    }

    fn visit_class_set_item_pre(&mut self, item: &ast::ClassSetItem) -> Result<(), ()> {
        self.0 |= matches!(item, ast::ClassSetItem::Perl(_));
        Ok(())
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.text
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_a_text_has_to_match_and_what_is_in_the_parentheses_is_meant() {
        let pattern = |text: &str| Pattern::try_from(text.to_string()).unwrap();
        for (text, of, found) in [
            ("main", "main", Some("main")),
            ("main", "mainline", None),
            ("main|release", "release", Some("release")),
            ("main|release", "a-release", None),
            ("refs/heads/(.+)", "refs/heads/main", Some("main")),
            ("refs/heads/(.+)", "xrefs/heads/main", None),
            ("(?:refs/heads/)?(main)|other", "other", None),
            ("a(?<name>.)b", "axb", Some("x")),
            // A line's end is no end.
            ("main", "main\n", None),
            ("^main$", "main\nrelease", None),
            // Digits, letters and case are those of ASCII, however they stand there.
            (r"release-(\d+)", "release-12", Some("12")),
            (r"release-(\d+)", "release-٣", None),
            (r"(\w+)", "größe", None),
            ("(?i)k8s-(.+)", "K8s-admin", Some("admin")),
            ("(?i)k8s-(.+)", "\u{212a}8s-admin", None),
            ("(?i:k)8s-(.+)", "\u{212a}8s-admin", None),
            (r"[\d.]+", "1.٣", None),
            (r"(?:a\b)?(.+)", "ä", None),
            // All else is as it is written, sign by sign.
            ("(.{2})", "äö", Some("äö")),
            ("[ä-ö]+", "äö", Some("äö")),
            ("gr(ö)ße", "größe", Some("ö")),
            ("(.+)/größe", "ä/größe", Some("ä")),
            ("[^/]+/(.+)", "größe/x", Some("x")),
            // Nor does what closes the whole of it let anything through.
            ("(?m)^main$", "main\nrelease", None),
        ] {
            assert_eq!(pattern(text).found(of), found, "{text} of {of:?}");
            // (Of the other one nothing is in the parentheses.)
            assert_eq!(pattern(text).matches(of), found.is_some() || of == "other", "{text}");
        }
        assert_eq!(pattern("(.).*").found("äx"), Some("ä"));
        assert!(Pattern::try_from(")|(?:".to_string()).is_err());
    }
}
