//! What people are told.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use url::Url;

use crate::error::printable;
use crate::host::http::is_loopback;

/// How long what is said may be, in characters: title, label and value of a fact, and whatever
/// names something.
const MAX_TITLE: usize = 150;
const MAX_LABEL: usize = 60;
const MAX_VALUE: usize = 1000;
const MAX_NAME: usize = 256;

/// How many facts there may be.
const MAX_FACTS: usize = 20;

/// What people are told of something that has happened, or that they have to do.
///
/// It is put on record by [`Effect::Tell`](crate::broker::store::Effect::Tell), in the commit of
/// what it tells of. Nothing of it is refused: what is too long is cut short, and what steers
/// a terminal or breaks a line is replaced, so that no text of a caller keeps anybody from being
/// told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    key: String,
    kind: String,
    urgency: Urgency,
    title: String,
    facts: Vec<Fact>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    link: Option<Url>,
    about: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    role: Option<String>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty", default)]
    ends: BTreeSet<String>,
    people: BTreeSet<String>,
    channels: bool,
    #[serde(with = "time::serde::rfc3339")]
    at: OffsetDateTime,
}

/// A label and what it has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fact {
    /// What it is.
    pub label: String,
    /// What there is of it.
    pub value: String,
}

/// How much of a hurry there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Urgency {
    /// Somebody should know at once, whatever the hour. It overtakes the others.
    Alarm,
    /// Somebody has to do something.
    ActionWanted,
    /// Good to know.
    Info,
}

impl Urgency {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Alarm => "alarm",
            Self::ActionWanted => "action-wanted",
            Self::Info => "info",
        }
    }

    /// The same for people.
    pub fn said(self) -> &'static str {
        match self {
            Self::Alarm => "Alarm",
            Self::ActionWanted => "Action wanted",
            Self::Info => "Information",
        }
    }
}

impl Message {
    /// A message for nobody yet. Of those with the same key the first one counts. The kind is a
    /// short name, such as `review-due`, by which channels choose.
    pub fn new(key: &str, kind: &str, urgency: Urgency, title: &str, at: OffsetDateTime) -> Self {
        Self {
            key: one_line(key, MAX_NAME),
            kind: one_line(kind, MAX_NAME),
            urgency,
            title: one_line(title, MAX_TITLE),
            facts: Vec::new(),
            link: None,
            about: String::new(),
            role: None,
            ends: BTreeSet::new(),
            people: BTreeSet::new(),
            channels: false,
            at,
        }
    }

    /// With something to know besides. Of too many the first ones are told.
    #[must_use]
    pub fn fact(mut self, label: &str, value: &str) -> Self {
        if self.facts.len() < MAX_FACTS && !value.trim().is_empty() {
            let (label, value) = (one_line(label, MAX_LABEL), one_line(value, MAX_VALUE));
            self.facts.push(Fact { label, value });
        }
        self
    }

    /// With a page to go to: of https, or on this machine.
    #[must_use]
    pub fn link(mut self, link: &Url) -> Self {
        if link.scheme() == "https" || link.scheme() == "http" && is_loopback(link) {
            self.link = Some(link.clone());
        }
        self
    }

    /// With the id of what it is about.
    #[must_use]
    pub fn about(mut self, id: &str) -> Self {
        self.about = one_line(id, MAX_NAME);
        self
    }

    /// With the role that it is about: some channels are for some roles.
    #[must_use]
    pub fn role(mut self, role: &str) -> Self {
        self.role = Some(one_line(role, MAX_NAME));
        self
    }

    /// After which nothing comes any more of what messages of these kinds said of the same thing.
    #[must_use]
    pub fn ends(mut self, kinds: &[&str]) -> Self {
        self.ends.extend(kinds.iter().map(|kind| one_line(kind, MAX_NAME)));
        self
    }

    /// For these people, by their names in the directory.
    #[must_use]
    pub fn people<N: Into<String>>(mut self, people: impl IntoIterator<Item = N>) -> Self {
        self.people.extend(people.into_iter().map(Into::into));
        self
    }

    /// Also for the channels of teams.
    #[must_use]
    pub fn channels(mut self) -> Self {
        self.channels = true;
        self
    }

    /// What it is told apart by.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What kind of message it is.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// How much of a hurry there is.
    pub fn urgency(&self) -> Urgency {
        self.urgency
    }

    /// What it says, on one line.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// What there is to know besides.
    pub fn facts(&self) -> &[Fact] {
        &self.facts
    }

    /// The page to go to.
    pub fn page(&self) -> Option<&Url> {
        self.link.as_ref()
    }

    /// The id of what it is about; empty where there is none.
    pub fn id(&self) -> &str {
        &self.about
    }

    /// The role that it is about.
    pub fn of_role(&self) -> Option<&str> {
        self.role.as_deref()
    }

    /// The kinds of messages about the same thing that are over with it.
    pub fn ended(&self) -> &BTreeSet<String> {
        &self.ends
    }

    /// Whom it is for, by their names in the directory.
    pub fn names(&self) -> &BTreeSet<String> {
        &self.people
    }

    /// Whether it is for the channels of teams, too.
    pub fn is_for_teams(&self) -> bool {
        self.channels
    }

    /// When what it tells of came about.
    pub fn at(&self) -> OffsetDateTime {
        self.at
    }

    /// As plain text: the facts, a line each, and the page.
    pub fn text(&self) -> String {
        let lines = self.facts.iter().map(|fact| format!("{}: {}", fact.label, fact.value));
        let page = self.link.iter().map(Url::to_string);
        lines.chain(page).collect::<Vec<_>>().join("\n")
    }
}

/// This on one line, of at most so many characters, of which none steers anything.
fn one_line(text: &str, most: usize) -> String {
    let text = printable(&text.split_whitespace().collect::<Vec<_>>().join(" "));
    if text.chars().nth(most).is_none() {
        return text;
    }
    let mut short: String = text.chars().take(most - 1).collect();
    short.push('…');
    short
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A message that has everything.
    pub(crate) fn message(key: &str) -> Message {
        let at = time::macros::datetime!(2026-01-01 12:00:00.5 UTC);
        Message::new(key, "emergency", Urgency::Alarm, "Alice took the role admin", at)
            .fact("Reason", "the database is down <&> [x](https://evil.example) *b*")
            .fact("Until", "2026-01-01 13:00 UTC")
            .link(&"https://broker.example.com/elevations/7?a=1&b=|".parse().unwrap())
            .about("7")
            .role("admin")
            .people(["alice", "bob"])
            .channels()
    }

    #[test]
    fn whatever_callers_write_becomes_lines_that_steer_nothing() {
        let at = OffsetDateTime::UNIX_EPOCH;
        let message = Message::new("k\r\nx", "a\0b", Urgency::Info, &"é\n".repeat(400), at)
            .fact("R\nBcc: x", "a\r\nb\u{202e}\u{1b}[2J")
            .fact("empty", " \n")
            .link(&"javascript:alert(1)".parse().unwrap())
            .link(&"http://other.example/".parse().unwrap());
        assert_eq!((message.key(), message.kind()), ("k x", "a\u{fffd}b"));
        assert_eq!(message.title().chars().count(), MAX_TITLE);
        assert!(message.title().ends_with('…'));
        let [fact] = message.facts() else { panic!("{message:?}") };
        assert_eq!((&*fact.label, &*fact.value), ("R Bcc: x", "a b\u{fffd}\u{fffd}[2J"));
        assert_eq!(message.page(), None);
        let many = (0..99).fold(message, |message, n| message.fact("n", &n.to_string()));
        assert_eq!(many.facts().len(), MAX_FACTS);
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        let message = message("k");
        let text = serde_json::to_string(&message).unwrap();
        assert_eq!(serde_json::from_str::<Message>(&text).unwrap(), message);
        assert!(text.contains("\"urgency\":\"alarm\""), "{text}");
    }

    #[test]
    fn an_alarm_comes_before_the_rest() {
        assert!(Urgency::Alarm < Urgency::ActionWanted && Urgency::ActionWanted < Urgency::Info);
    }
}
