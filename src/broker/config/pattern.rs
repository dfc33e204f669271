//! Regular expressions in a configuration.

use regex::bytes::{Regex, RegexBuilder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A regular expression that all of a text has to match.
///
/// `\d`, `\w`, `\s` and `\b` are about ASCII, and so is case that does not matter: whoever writes a
/// pattern has names in mind, and not each sign that Unicode counts as a digit, or as a `k`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Pattern {
    text: String,
    regex: Regex,
}

impl Pattern {
    /// Whether all of it is so.
    pub fn matches(&self, text: &str) -> bool {
        self.regex.is_match(text.as_bytes())
    }

    /// What of a text is meant: what is in the parentheses, or all of it where there are none.
    /// Nothing where it is not so.
    pub(in crate::broker) fn found<'a>(&self, text: &'a str) -> Option<&'a str> {
        let group = self.groups().min(1);
        let found = self.regex.captures(text.as_bytes())?.get(group)?;
        // Parentheses that begin or end amid a sign hold nothing that anybody could mean.
        text.get(found.range())
    }

    /// How many parentheses it has of which the content is told.
    pub(super) fn groups(&self) -> usize {
        // The whole of it is one of them.
        self.regex.captures_len() - 1
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
        let read = |text: &str| RegexBuilder::new(text).unicode(false).build();
        read(&text)
            .and_then(|_| read(&format!(r"\A(?:{text})\z")))
            .map(|regex| Self { text: text.clone(), regex })
            .map_err(|cause| format!("'{text}' is no regular expression: {cause}"))
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
            // Digits, letters and case are those of ASCII; all else can be named.
            (r"release-(\d+)", "release-12", Some("12")),
            (r"release-(\d+)", "release-٣", None),
            (r"(\w+)", "größe", None),
            ("(?i)k8s-(.+)", "K8s-admin", Some("admin")),
            ("(?i)k8s-(.+)", "\u{212a}8s-admin", None),
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
        // What is in the parentheses is no part of a sign.
        assert_eq!(pattern("(.).*").found("ä"), None);
        for wrong in [")|(?:", "[ä-ö]+", r"\p{Greek}"] {
            assert!(Pattern::try_from(wrong.to_string()).is_err(), "{wrong}");
        }
    }
}
