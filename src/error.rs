//! Errors for the person who reads them: what failed, why, and what to do next.

use std::error::Error as StdError;
use std::fmt::{self, Write as _};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Exit codes of the command line. They are an interface: scripts rely on them.
///
/// `exec` is different: it ends with its child's own code, `128 + n` where
/// signal `n` ended the child, and the three last ones below for itself.
pub mod exit_code {
    /// Everything went well.
    pub const OK: u8 = 0;
    /// A failure that no other code names.
    pub const FAILURE: u8 = 1;
    /// The command line could not be understood.
    pub const USAGE: u8 = 2;
    /// The configuration is missing, broken or contradicts itself.
    pub const CONFIG: u8 = 3;
    /// Somebody has to log in first, and this run may not ask.
    pub const LOGIN_REQUIRED: u8 = 4;
    /// Policy said no.
    pub const DENIED: u8 = 5;
    /// The request waits for approval.
    pub const APPROVAL_PENDING: u8 = 6;
    /// A server could not be reached, or did not answer in time.
    pub const UNREACHABLE: u8 = 7;
    /// The keyring is locked, or did not answer in time.
    pub const KEYRING_LOCKED: u8 = 8;
    /// A token or a server's answer did not pass verification.
    pub const VERIFICATION: u8 = 9;
    /// `exec` only: tmpcred itself failed before the command ran.
    pub const EXEC_FAILURE: u8 = 125;
    /// `exec` only: the command exists but cannot be run.
    pub const EXEC_CANNOT_RUN: u8 = 126;
    /// `exec` only: no such command.
    pub const EXEC_NOT_FOUND: u8 = 127;
}

/// What went wrong, as far as a script needs to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// The command line could not be understood.
    Usage,
    /// The configuration is missing, broken or contradicts itself.
    Config,
    /// A login is needed that this run may not start.
    LoginRequired,
    /// Policy, or a person, said no.
    Denied,
    /// The request waits for approval.
    ApprovalPending,
    /// A server could not be reached or did not answer in time.
    Unreachable,
    /// The keyring is locked or did not answer in time.
    KeyringLocked,
    /// A token, signature or answer is not what it must be.
    Verification,
    /// A command that was to be run does not exist.
    CommandNotFound,
    /// A command that was to be run exists but cannot be started.
    CommandCannotRun,
    /// Reading or writing failed on this machine.
    Io,
    /// Anything else.
    Other,
}

impl ErrorKind {
    /// A name for programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Config => "config",
            Self::LoginRequired => "login_required",
            Self::Denied => "denied",
            Self::ApprovalPending => "approval_pending",
            Self::Unreachable => "unreachable",
            Self::KeyringLocked => "keyring_locked",
            Self::Verification => "verification",
            Self::CommandNotFound => "command_not_found",
            Self::CommandCannotRun => "command_cannot_run",
            Self::Io => "io",
            Self::Other => "other",
        }
    }

    /// The exit code of every command but `exec`.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Usage => exit_code::USAGE,
            Self::Config => exit_code::CONFIG,
            Self::LoginRequired => exit_code::LOGIN_REQUIRED,
            Self::Denied => exit_code::DENIED,
            Self::ApprovalPending => exit_code::APPROVAL_PENDING,
            Self::Unreachable => exit_code::UNREACHABLE,
            Self::KeyringLocked => exit_code::KEYRING_LOCKED,
            Self::Verification => exit_code::VERIFICATION,
            Self::CommandNotFound | Self::CommandCannotRun | Self::Io | Self::Other => {
                exit_code::FAILURE
            }
        }
    }

    /// The exit code of `exec`, where all codes below 125 belong to the child.
    pub fn exec_exit_code(self) -> u8 {
        match self {
            Self::CommandNotFound => exit_code::EXEC_NOT_FOUND,
            Self::CommandCannotRun => exit_code::EXEC_CANNOT_RUN,
            _ => exit_code::EXEC_FAILURE,
        }
    }
}

/// An error: its kind, what failed, the chain of causes, and what to do next.
///
/// It holds text only, so that a process that waited for another one's attempt
/// can inherit that attempt's failure. No part of it may hold a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    causes: Vec<String>,
    hints: Vec<String>,
}

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error without cause or hint. `message` says what failed, without a full stop.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), causes: Vec::new(), hints: Vec::new() }
    }

    /// Adds a cause, and that cause's own causes where it has any.
    #[must_use]
    pub fn because(mut self, cause: impl StdError) -> Self {
        let mut next: Option<&dyn StdError> = Some(&cause);
        while let Some(error) = next {
            let text = error.to_string();
            // Libraries like to repeat their source in their own text.
            if self.causes.last().is_none_or(|last| !last.contains(&text)) {
                self.causes.push(text);
            }
            next = error.source();
        }
        self
    }

    /// Adds a cause that is no error of its own.
    #[must_use]
    pub fn because_of(mut self, cause: impl Into<String>) -> Self {
        self.causes.push(cause.into());
        self
    }

    /// Adds what the reader can do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Puts this error behind a broader one: its message and causes become the
    /// causes of the new one, its kind and hints stay.
    #[must_use]
    pub fn context(self, message: impl Into<String>) -> Self {
        let mut causes = vec![self.message];
        causes.extend(self.causes);
        Self { kind: self.kind, message: message.into(), causes, hints: self.hints }
    }

    /// The same, of another kind: what it comes to depends on whose it is that fails.
    #[must_use]
    pub fn of_kind(self, kind: ErrorKind) -> Self {
        Self { kind, ..self }
    }

    /// What went wrong, as far as a script needs to tell.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// What failed.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Why, nearest cause first.
    pub fn causes(&self) -> &[String] {
        &self.causes
    }

    /// What to do next.
    pub fn hints(&self) -> &[String] {
        &self.hints
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        for cause in &self.causes {
            write!(f, ": {cause}")?;
        }
        Ok(())
    }
}

impl StdError for Error {}

/// The longest text of somebody else's that a message quotes, in characters.
const FOREIGN_MAX: usize = 300;

/// Replaces what could steer a terminal or turn the direction of writing, and what does not show.
pub fn printable(text: &str) -> String {
    let hides = |c: char| c.is_control() || is_hidden(c);
    text.chars().map(|c| if hides(c) { '\u{fffd}' } else { c }).collect()
}

/// JSON that means the same, in which signs that do not show are escaped: for terminals, and for
/// what takes one of them for the end of a line.
pub fn printable_json(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for c in json.chars() {
        // Below these JSON has them escaped already, or they are between texts.
        if c >= '\u{7f}' && (c.is_control() || is_hidden(c)) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(shown, "\\u{unit:04x}");
            }
        } else {
            shown.push(c);
        }
    }
    shown
}

/// A duration as people write it: `1 day 1h`, `15m`.
pub fn lasting(duration: Duration) -> String {
    // Nobody knows how long a month is.
    let days = duration.as_secs() / DAY;
    let rest = duration.saturating_sub(Duration::from_secs(days * DAY));
    match (days, rest.is_zero()) {
        (0, _) => in_units(rest, usize::MAX),
        (days, is_whole) => {
            let days = format!("{days} {}", if days == 1 { "day" } else { "days" });
            if is_whole { days } else { format!("{days} {}", in_units(rest, usize::MAX)) }
        }
    }
}

/// The seconds of a day.
const DAY: u64 = 24 * 60 * 60;

/// The same in its two largest units, of whole seconds.
pub fn roughly(duration: Duration) -> String {
    in_units(Duration::from_secs(duration.as_secs()), 2)
}

fn in_units(duration: Duration, most: usize) -> String {
    let text = humantime::format_duration(duration).to_string();
    let part = |part: &str| {
        let at = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        let (number, unit) = part.split_at(at);
        // Whole words stand by themselves.
        let between = if unit.len() > 2 { " " } else { "" };
        format!("{number}{between}{unit}")
    };
    text.split(' ').take(most).map(part).collect::<Vec<_>>().join(" ")
}

/// Whether a sign does not show, or ends a line: what Unicode calls default ignorable
/// (`Default_Ignorable_Code_Point` of DerivedCoreProperties.txt) but for the selectors of
/// variants up to U+FE0F, by which the sign before them shows as a picture; separators of lines
/// and paragraphs; annotations.
fn is_hidden(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
        | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}'
    )
}

/// Makes text that a server or a token brought fit to be shown: nothing in it
/// steers a terminal or turns the direction of writing, and it is short.
pub fn foreign(text: &str) -> String {
    let mut shown: String = printable(text).chars().take(FOREIGN_MAX).collect();
    if text.chars().nth(FOREIGN_MAX).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_in_words_that_stand_by_themselves() {
        let (minute, day) = (60, 24 * 3600);
        for (seconds, whole, rough) in [
            (0, "0s", "0s"),
            (90, "1m 30s", "1m 30s"),
            (day, "1 day", "1 day"),
            (25 * 60 * minute, "1 day 1h", "1 day 1h"),
            (2 * day + 61, "2 days 1m 1s", "2 days 1m"),
            (30 * day, "30 days", "30 days"),
        ] {
            let duration = Duration::from_secs(seconds);
            assert_eq!((&*lasting(duration), &*roughly(duration)), (whole, rough));
        }
        assert_eq!(roughly(Duration::from_secs(1_793_000_000)), "56 years 9 months");
        assert_eq!(lasting(Duration::from_millis(1500)), "1s 500ms");
    }

    #[test]
    fn json_says_the_same_without_what_does_not_show() {
        let said = "a\u{9b}31m\u{7f}\u{202e}\u{2028}\u{e0041}\n\u{1b}ü€";
        for json in [
            serde_json::to_string(&[said]).unwrap(),
            serde_json::to_string_pretty(&[said]).unwrap(),
        ] {
            let shown = printable_json(&json);
            assert_eq!(serde_json::from_str::<Vec<String>>(&shown).unwrap(), [said]);
            assert_eq!(printable(&shown.replace('\n', "")), shown.replace('\n', ""));
            assert!(shown.contains("\\u009b31m\\u007f\\u202e\\u2028\\udb40\\udc41"), "{shown}");
            assert!(shown.contains("ü€"), "{shown}");
        }
    }

    #[test]
    fn foreign_text_cannot_steer_a_terminal() {
        assert_eq!(foreign("no such user"), "no such user");
        assert_eq!(foreign("\u{1b}[2Jx\r\n\u{202e}y"), "\u{fffd}[2Jx\u{fffd}\u{fffd}\u{fffd}y");
        for hidden in
            "\u{ad}\u{61c}\u{180e}\u{200d}\u{2028}\u{2060}\u{2069}\u{feff}\u{e0041}".chars()
        {
            assert_eq!(printable(&format!("a{hidden}b")), "a\u{fffd}b", "{hidden:?}");
        }
        for shown in ["Zoë Müller", "東京", "نص", "⚠\u{fe0f} down"] {
            assert_eq!(printable(shown), shown);
        }
        let long = foreign(&"é".repeat(1000));
        assert_eq!(long.chars().count(), FOREIGN_MAX + 1);
        assert!(long.ends_with('…'));
    }
}
