//! Shows what is wrong with a configuration: the file, the line, the column, the
//! offending text, and what may have been meant.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use super::source::{Origin, Source};
use crate::error::{Error, ErrorKind};

/// How many characters of an offending line are shown around the place.
const SHOWN_BEFORE: usize = 60;
/// The same, from the place on.
const SHOWN_AFTER: usize = 80;
/// How many characters of a name or message are shown.
const QUOTED: usize = 80;
/// How many problems are looked for before the rest is left out.
pub(crate) const MAX_PROBLEMS: usize = 20;
/// How many names are listed before the rest is left out.
const LISTED: usize = 20;

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    title: String,
    label: Option<String>,
    origin: Origin,
    helps: Vec<String>,
    part: Part,
}

/// What is shown of the offending line, besides what is left out for its length, or as the value
/// of a secret by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// All of it.
    Line,
    /// The offending text, which is a key that nobody knows: its value may be anything, and so may
    /// those of others there.
    Key,
    /// Nothing in quotes: where the line is no TOML, nobody knows what that is.
    NoText,
}

impl Problem {
    /// `title` says what is wrong, in one line, without a full stop.
    pub(crate) fn new(title: impl Into<String>, origin: Origin) -> Self {
        let title = one_line(&title.into(), 4 * QUOTED);
        Self { title, label: None, origin, helps: Vec::new(), part: Part::Line }
    }

    /// The same about a key that nobody knows: its value may be anything, a secret too.
    pub(crate) fn alone(mut self) -> Self {
        self.part = Part::Key;
        self
    }

    /// The same about what is no TOML: what is in quotes there may be a secret.
    pub(crate) fn without_text(mut self) -> Self {
        self.part = Part::NoText;
        self
    }

    /// What to write at the offending text itself.
    pub(crate) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = Some(one_line(&label.into(), 2 * QUOTED));
        self
    }

    /// What to do about it.
    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.helps.push(help.into());
        self
    }

    /// Suggests the name that was probably meant.
    pub(crate) fn suggest<'a>(self, wrong: &str, names: impl Iterator<Item = &'a str>) -> Self {
        match nearest(wrong, names) {
            Some(name) => self.help(format!("did you mean {}?", quoted(name))),
            None => self,
        }
    }

    /// Lists the names that would be right, after `words`.
    pub(crate) fn known<'a>(self, words: &str, names: impl Iterator<Item = &'a str>) -> Self {
        match list(names) {
            Some(names) => self.help(format!("{words} {names}")),
            None => self,
        }
    }

    /// The same about something that was written nowhere, such as an argument.
    pub(crate) fn without_place(self) -> Self {
        Self { label: None, origin: Origin::BuiltIn, ..self }
    }

    /// The error for people.
    pub(crate) fn into_error(self) -> Error {
        let mut error = Error::new(ErrorKind::Config, self.title);
        if let Origin::Text { source, span } = &self.origin {
            error = error.because_of(snippet(source, span, self.label.as_deref(), self.part));
        } else if let Some(label) = self.label {
            error = error.because_of(label);
        }
        self.helps.into_iter().fold(error, Error::hint)
    }

    /// What problems are sorted by.
    fn position(&self) -> Option<(&str, usize)> {
        match &self.origin {
            Origin::Text { source, span } => Some((&source.name, span.start)),
            Origin::BuiltIn => None,
        }
    }

    /// All of it as one text, for a list of several.
    fn render(&self) -> String {
        let mut text = self.title.clone();
        if let Origin::Text { source, span } = &self.origin {
            text.push('\n');
            text.push_str(&snippet(source, span, self.label.as_deref(), self.part));
        }
        for help in &self.helps {
            text.push_str("\n  help: ");
            text.push_str(help);
        }
        text
    }
}

/// One error for everything that is wrong. `problems` is not empty.
pub(crate) fn into_error(mut problems: Vec<Problem>) -> Error {
    if problems.len() == 1 {
        return problems.remove(0).into_error();
    }
    problems.sort_by(|a, b| a.position().cmp(&b.position()));
    // Whoever looks for problems stops at that many.
    let more = if problems.len() < MAX_PROBLEMS { "" } else { " or more" };
    let shown = problems.len().min(MAX_PROBLEMS);
    let message = format!("the configuration has {shown} errors{more}");
    problems
        .iter()
        .take(shown)
        .fold(Error::new(ErrorKind::Config, message), |error, p| error.because_of(p.render()))
        .hint("mend the first one first: it may explain the others")
}

/// The place, where it is one of a text, and the line with what is meant marked in it.
pub(super) fn shown(origin: &Origin) -> Option<String> {
    match origin {
        Origin::Text { source, span } => Some(snippet(source, span, None, Part::Line)),
        Origin::BuiltIn => None,
    }
}

/// The same place, and nothing of what stands there.
pub(super) fn told(origin: &Origin) -> Option<String> {
    match origin {
        Origin::Text { source, span } => {
            let (line, column) = source.place(span.start);
            Some(format!("it stands in {}:{line}:{column}", one_line(&source.name, usize::MAX)))
        }
        Origin::BuiltIn => None,
    }
}

/// The place and the offending line, with the offending text marked. Never more
/// than that one line, of a very long one only what is near, and no value that may be a secret.
fn snippet(source: &Source, span: &Range<usize>, label: Option<&str>, part: Part) -> String {
    let (line, column) = source.place(span.start);
    let (shown, marked) = excerpt(&source.text, span, part);
    let annotation = AnnotationKind::Primary.span(marked).label(label);
    let group = Group::with_level(Level::ERROR)
        .element(Snippet::source(shown).line_start(line).annotation(annotation));
    // The renderer would count the column in the excerpt.
    let indent = " ".repeat(line.to_string().len());
    let place = format!("{indent}--> {}:{line}:{column}\n", one_line(&source.name, usize::MAX));
    place + &Renderer::plain().render(&[group])
}

/// The line in which `span` starts, and where in it the part of `span` is that
/// lies in this line.
fn excerpt(text: &str, span: &Range<usize>, part: Part) -> (String, Range<usize>) {
    let from = floor(text, span.start);
    let start = text[..from].rfind('\n').map_or(0, |at| at + 1);
    let end = text[from..].find('\n').map_or(text.len(), |at| from + at);
    let line = text[start..end].trim_end_matches('\r');
    let from = (from - start).min(line.len());
    let to = floor(line, span.end.saturating_sub(start)).max(from);
    let hidden = hidden_from(line, to, part);
    let line = hidden.map_or(line, |hidden| line[..hidden].trim_end());
    let (from, to) = (from.min(line.len()), to.min(line.len()));

    let left = line[..from].char_indices().rev().take(SHOWN_BEFORE).last().map_or(from, |(i, _)| i);
    let has_others = part == Part::Key && line[..from].contains('=');
    let left = if has_others { from } else { left };
    let right = line[from..].char_indices().nth(SHOWN_AFTER).map_or(line.len(), |(i, _)| from + i);
    let to = to.min(right);

    let mut shown = String::from(if left > 0 { "…" } else { "" });
    shown.extend(line[left..from].chars().map(harmless));
    let marked = shown.len();
    shown.extend(line[from..to].chars().map(harmless));
    let marked = marked..shown.len();
    shown.extend(line[to..right].chars().map(harmless));
    match hidden {
        _ if right < line.len() => shown.push('…'),
        Some(_) => shown.push_str(" …"),
        None => {}
    }
    (shown, marked)
}

/// From where on a line is not shown: the value of what is a secret by its name, and what stands
/// behind this place where the part is a key, or in quotes where nothing of that is.
fn hidden_from(line: &str, to: usize, part: Part) -> Option<usize> {
    let mut equals = line.match_indices('=').map(|(at, _)| at);
    let value = equals.find(|at| {
        let is_part = |c: char| c.is_alphanumeric() || "_-.\"'".contains(c);
        let key = line[..*at].trim_end().rsplit(|c| !is_part(c)).next();
        part == Part::Key && *at >= to || key.is_some_and(is_secret)
    });
    let value = value.map(|at| at + 1);
    if part != Part::NoText || line.trim_start().starts_with('[') {
        return value;
    }
    // As somebody writes it who is used to another language.
    let start = line.len() - line.trim_start().len();
    let word = line[start..].find(|c: char| c.is_whitespace() || "=:".contains(c));
    let word = word.map(|length| start + length).filter(|end| is_secret(&line[start..*end]));
    let quoted = line[start..].char_indices().skip(1).find(|(_, c)| "\"'".contains(*c));
    let quoted = quoted.map(|(at, _)| start + at);
    [value, word, quoted].into_iter().flatten().min()
}

/// A line of a configuration, of TOML or one of AWS's tools, without the value of what is a
/// secret by its name, and what stands behind that.
pub(crate) fn without_secret(line: &str) -> String {
    match hidden_from(line, line.len(), Part::Line) {
        Some(at) => format!("{} …", &line[..at]),
        None => line.to_string(),
    }
}

/// Whether the value of a key is a secret by its name, and not where one is, or how it is used.
fn is_secret(key: &str) -> bool {
    let key = key.to_lowercase();
    let name = key.trim_matches(['"', '\'']);
    let is_about = |words: &[&str]| words.iter().any(|word| name.ends_with(word));
    let has = ["pass", "pwd", "secret", "credential"].iter().any(|word| name.contains(word));
    (has || is_about(&["token", "key", "kek"]))
        && !is_about(&[
            "file", "path", "env", "url", "uri", "command", "method", "format", "process",
        ])
}

/// What is shown for a character: the renderer knows the older control
/// characters, but not those from 0x80, to which terminals listen too.
fn harmless(c: char) -> char {
    if ('\u{80}'..='\u{9f}').contains(&c) { char::REPLACEMENT_CHARACTER } else { c }
}

/// The last character boundary at or before `at`.
fn floor(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// A name in backquotes, made harmless: one line, no control characters, not too long.
pub(crate) fn quoted(name: &str) -> String {
    format!("`{}`", one_line(name, QUOTED))
}

/// Several names in backquotes, as a sentence lists them; `None` where there are none.
pub(crate) fn list<'a>(names: impl Iterator<Item = &'a str>) -> Option<String> {
    let names: Vec<_> = names.collect();
    let shown: Vec<_> = names.iter().take(LISTED).map(|name| quoted(name)).collect();
    match names.len() {
        0 => None,
        n if n > LISTED => Some(format!("{} and {} more", shown.join(", "), n - LISTED)),
        _ => Some(shown.join(", ")),
    }
}

fn one_line(text: &str, max: usize) -> String {
    let mut line = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == max {
            line.push('…');
            break;
        }
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    line
}

/// The name that is nearest to a wrong one, if any is near enough to have been meant.
pub(crate) fn nearest<'a>(
    wrong: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let wrong = wrong.to_lowercase();
    let length = wrong.chars().count();
    if length > QUOTED {
        return None;
    }
    // A third of the letters wrong is a slip; more is another word.
    let limit = (length / 3).max(1);
    names
        .into_iter()
        .filter(|name| name.chars().count().abs_diff(length) <= limit)
        .map(|name| (strsim::damerau_levenshtein(&wrong, &name.to_lowercase()), name))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn at(source: &Arc<Source>, span: Range<usize>) -> Origin {
        Origin::Text { source: source.clone(), span }
    }

    #[test]
    fn an_error_shows_place_text_and_help() {
        let source = Source::text("dir/f.toml", "a = 1\nrol = 2\n");
        let problem = Problem::new("unknown key `rol`", at(&source, 6..9))
            .label("this")
            .suggest("rol", ["role", "scope"].into_iter());
        let error = problem.into_error();
        assert_eq!(error.message(), "unknown key `rol`");
        let wanted = " --> dir/f.toml:2:1\n  |\n2 | rol = 2\n  | ^^^ this";
        assert_eq!(error.causes(), [wanted]);
        assert_eq!(error.hints(), ["did you mean `role`?"]);
    }

    #[test]
    fn no_value_is_shown_that_may_be_a_secret() {
        for (line, of, wanted) in [
            ("kek = \"hunter2\"", "kek", "kek = …"),
            ("store.\"password\" = \"hunter2", "hunter2", "store.\"password\" = …"),
            ("a = { client_secret=\"hunter2\", b = 1 }", "b = 1", "a = { client_secret= …"),
            ("url = \"https://h/?token=hunter2\"", "url", "url = \"https://h/?token= …"),
            ("secret_file = \"hunter2\"", "\"hunter2\"", "secret_file = \"hunter2\""),
            ("token_format = \"hunter2\"", "\"hunter2\"", "token_format = \"hunter2\""),
            ("max_ttl = \"hunter2\"", "max_ttl", "max_ttl = \"hunter2\""),
        ] {
            let start = line.find(of).unwrap();
            let source = Source::text("f", line);
            let problem = Problem::new("x", at(&source, start..start + of.len()));
            let shown = problem.clone().into_error().causes()[0].clone();
            assert!(shown.lines().any(|one| one == format!("1 | {wanted}")), "{shown}");
            // Nor of a key that nobody knows.
            let alone = problem.alone().into_error();
            assert!(!alone.causes()[0].contains("hunter2") || line.ends_with(of), "{alone}");
        }
    }

    #[test]
    fn of_what_is_no_toml_nothing_is_shown_that_may_be_a_secret() {
        for (line, wanted) in [
            ("password: \"hunter2\"", "password …"),
            ("client_secret hunter2", "client_secret …"),
            ("pasword \"hunter2\"", "pasword …"),
            ("url = \"https://hooks.example/hunter2", "url = …"),
            ("secret_env = 'hunter2", "secret_env = …"),
            ("role = deploy", "role = deploy"),
            ("[profile.\"a b\"", "[profile.\"a b\""),
        ] {
            let end = line.len();
            let problem = Problem::new("x", at(&Source::text("f", line), end..end));
            let shown = problem.without_text().into_error().causes()[0].clone();
            let has = |one: &str| one == format!("1 | {wanted}");
            assert!(shown.lines().any(has) && !shown.contains("hunter2"), "{shown}");
        }
        // Nor of another key that nobody knows, on the same line.
        let line = "t = { secrte = \"hunter2\", frob = 1 }";
        let start = line.find("frob").unwrap();
        let problem = Problem::new("x", at(&Source::text("f", line), start..start + 4));
        let shown = problem.alone().into_error().causes()[0].clone();
        assert!(shown.contains("| …frob = …") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn several_errors_become_one_that_shows_all() {
        let source = Source::text("f", "a = 1\nb = 2\n");
        let error = into_error(vec![
            Problem::new("one", at(&source, 0..1)).help("h1"),
            Problem::new("two", at(&source, 6..7)),
        ]);
        assert_eq!(error.message(), "the configuration has 2 errors");
        assert!(error.causes()[0].starts_with("one\n --> f:1:1\n"), "{error}");
        assert!(error.causes()[0].ends_with("help: h1"), "{error}");
        assert!(error.causes()[1].contains("f:2:1"), "{error}");
    }

    #[test]
    fn of_a_huge_line_little_is_shown() {
        let text = format!("{} = {}", "k".repeat(500_000), "v".repeat(500_000));
        let source = Source::text("f", text);
        let error = Problem::new("x", at(&source, 500_003..1_000_003)).into_error();
        assert!(error.causes()[0].len() < 600, "{error}");
        assert!(error.causes()[0].contains("f:1:500004"), "{error}");
        assert!(error.causes()[0].contains("kkk = vvv"), "{error}");
    }

    #[test]
    fn only_the_first_line_of_a_long_value_is_shown() {
        let source = Source::text("f", "a = '''secret\r\nmore'''\nb = 1\n");
        let error = Problem::new("x", at(&source, 4..22)).into_error();
        assert!(!error.to_string().contains("more"), "{error}");
        assert!(error.to_string().contains("^^^^^^^^^"), "{error}");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let source = Source::text("f\u{1b}[2J", "a = \u{1b}[31m\u{7}\u{9b}x\n");
        let error = Problem::new("bad \u{1b}[31m", at(&source, 4..5))
            .label("\u{1b}")
            .suggest("\u{1b}x", ["\u{1b}y"].into_iter())
            .into_error();
        let everything = format!("{error}{:?}", error.hints());
        assert!(!everything.chars().any(|c| c.is_control() && c != '\n'), "{everything:?}");
    }

    #[test]
    fn every_place_can_be_shown() {
        for text in ["", "a", "a\n", "\n\n", "é\n\té", "\r\n"] {
            let source = Source::text("f", text);
            for start in 0..=text.len() + 2 {
                for end in start..=text.len() + 2 {
                    let error = Problem::new("x", at(&source, start..end)).into_error();
                    assert!(error.causes()[0].contains("--> f:"), "{error}");
                }
            }
        }
    }

    #[test]
    fn only_near_names_are_suggested() {
        let names = ["identity", "scope", "role", "ttl"];
        assert_eq!(nearest("identiy", names), Some("identity"));
        assert_eq!(nearest("Rloe", names), Some("role"));
        assert_eq!(nearest("tll", names), Some("ttl"));
        assert_eq!(nearest("endpoint", names), None);
        assert_eq!(nearest(&"x".repeat(100_000), names), None);
    }
}
