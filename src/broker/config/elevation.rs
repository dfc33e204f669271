//! The tables `[role.NAME.elevation]`: what has to be so for somebody to have a role for a
//! while.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

use super::{Pattern, duration, is_name, seconds};
use crate::broker::directory::Directory;
use crate::error::{Error, ErrorKind, Result, lasting};
use crate::sshsig::Kind;

/// The longest that anybody has a role without anybody's approval.
const MAX_EMERGENCY: Duration = Duration::from_secs(60 * 60);

/// The longest grant.
const MAX_GRANT: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest of all other spans.
const MAX_SPAN: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// A table `[role.NAME.elevation]`: the role is had under a grant only, and this is how one
/// comes about. Who may ask for it, and who may approve, is for the policies to say
/// (`Action::"elevate"`, `Action::"approve"`).
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Elevation {
    /// Who has to approve: each of these has to be met.
    #[serde(default)]
    pub approvals: Vec<Threshold>,
    /// The longest grant, such as `1h`; at most a day.
    #[serde(deserialize_with = "duration", serialize_with = "seconds")]
    #[schemars(with = "String")]
    pub longest: Duration,
    /// What the whole reason has to be like, as a regular expression; any text where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Pattern>,
    /// What the whole number of a ticket has to be like. Where left out, none is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket: Option<Pattern>,
    /// A command that says whether there is such a ticket: its last argument is the number
    /// of the ticket, and it ends with 0 where there is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ticket_command: Vec<String>,
    /// How long a request waits for approvals.
    #[serde(default = "an_hour", deserialize_with = "duration", serialize_with = "seconds")]
    #[schemars(with = "String")]
    pub pending: Duration,
    /// How far ahead the start of a grant may be asked for.
    #[serde(default = "a_day", deserialize_with = "duration", serialize_with = "seconds")]
    #[schemars(with = "String")]
    pub start_ahead: Duration,
    /// How long after its approval, or its start where that is later, a grant has to be begun.
    #[serde(default = "an_hour", deserialize_with = "duration", serialize_with = "seconds")]
    #[schemars(with = "String")]
    pub start_window: Duration,
    /// Whether somebody may ask for the role again while they have it, or wait for it.
    #[serde(default)]
    pub renewable: bool,
    /// How long after the end of a grant whoever had it may not ask for the same role again.
    #[serde(default, deserialize_with = "duration", serialize_with = "seconds")]
    #[schemars(with = "String")]
    pub cool_down: Duration,
    /// Within what time after its end a grant has to be reviewed; it needs no review where
    /// left out.
    #[serde(
        default,
        deserialize_with = "super::some_duration",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "Option<String>")]
    pub review_within: Option<Duration>,
    /// How those have to have logged in who approve, deny or review.
    #[serde(default, skip_serializing_if = "Login::is_any")]
    pub approver_login: Login,
    /// Without anybody's approval, where there is an emergency; not at all where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emergency: Option<Emergency>,
    /// By signatures of keys that people enrolled, where no identity provider can say who they
    /// are: as many have to approve as ever. Not at all where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_down: Option<ProviderDown>,
}

/// The table `[role.NAME.elevation.provider_down]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProviderDown {
    /// Whether a signature by a security key that was told who holds it, by a PIN or a finger, is
    /// as good as the login that `approver_login` asks for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub verified_as_login: bool,
}

/// So many people of these groups.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Threshold {
    /// How many different people.
    #[serde(deserialize_with = "people")]
    pub count: NonZeroU32,
    /// Of which groups of the directory: of any of these; of any at all where left out.
    #[serde(default)]
    pub groups: BTreeSet<String>,
}

fn people<'de, D: Deserializer<'de>>(deserializer: D) -> Result<NonZeroU32, D::Error> {
    let count = u32::deserialize(deserializer)?;
    NonZeroU32::new(count).ok_or_else(|| de::Error::custom("it takes one person at least"))
}

/// How somebody has to have logged in, as their token says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// How long ago at most (`auth_time`).
    #[serde(
        default,
        deserialize_with = "super::some_duration",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(with = "Option<String>")]
    pub max_age: Option<Duration>,
    /// How well: one of these (`acr`).
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub acr: BTreeSet<String>,
}

impl Login {
    /// Whether any login will do.
    pub(in crate::broker) fn is_any(&self) -> bool {
        *self == Self::default()
    }
}

/// The table `[role.NAME.elevation.emergency]`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Emergency {
    /// The longest that the role is had; at most an hour.
    #[serde(deserialize_with = "duration", serialize_with = "seconds")]
    #[schemars(with = "String")]
    pub longest: Duration,
    /// How long ago at most whoever asks has to have logged in.
    #[serde(default = "five_minutes", deserialize_with = "duration", serialize_with = "seconds")]
    #[schemars(with = "String")]
    pub max_age: Duration,
    /// How long after the end of one the same person gets the role in no other emergency,
    /// even if it was reviewed.
    #[serde(deserialize_with = "duration", serialize_with = "seconds")]
    #[schemars(with = "String")]
    pub cool_down: Duration,
}

fn an_hour() -> Duration {
    Duration::from_secs(60 * 60)
}

fn a_day() -> Duration {
    Duration::from_secs(24 * 60 * 60)
}

fn five_minutes() -> Duration {
    Duration::from_secs(5 * 60)
}

impl Elevation {
    /// Checks what its types cannot say.
    pub(super) fn check(&self, role: &str) -> Result<()> {
        let wrong = |why: String| {
            Err(Error::new(ErrorKind::Config, format!("[role.{role}.elevation] {why}")))
        };
        let longest =
            |what: &str, span: Duration, most: Duration| match span.is_zero() || span > most {
                true => wrong(format!(
                    "has {what} = \"{}\"; it must be more than nothing and at most {}",
                    lasting(span),
                    lasting(most)
                )),
                false => Ok(()),
            };
        longest("longest", self.longest, MAX_GRANT)?;
        longest("pending", self.pending, MAX_SPAN)?;
        longest("start_window", self.start_window, MAX_SPAN)?;
        if let Some(review) = self.review_within {
            longest("review_within", review, MAX_SPAN)?;
        }
        if self.start_ahead > MAX_SPAN || self.cool_down > MAX_SPAN {
            return wrong(format!("has a start_ahead or cool_down beyond {}", lasting(MAX_SPAN)));
        }
        if self.approvals.is_empty() {
            return Err(Error::new(
                ErrorKind::Config,
                format!(
                    "[role.{role}.elevation] has no approvals, so nobody would have to approve"
                ),
            )
            .hint(format!(
                "say how many have to, such as [[role.{role}.elevation.approvals]] count = 1"
            )));
        }
        let names = self.approvals.iter().flat_map(|threshold| &threshold.groups);
        if let Some(bad) = names.into_iter().find(|name| !is_name(name)) {
            return wrong(format!("names the group {bad:?}, which is no possible name"));
        }
        if !self.ticket_command.is_empty() && self.ticket.is_none() {
            return wrong("has a ticket_command, and no pattern says what a ticket is".into());
        }
        if let Some(down) = &self.provider_down
            && !self.approver_login.is_any()
            && !down.verified_as_login
        {
            return wrong(
                "has provider_down and approver_login: a signature is no login, so nobody could approve; \
                 say provider_down.verified_as_login = true, or leave one of them out"
                    .into(),
            );
        }
        let Some(emergency) = &self.emergency else { return Ok(()) };
        longest("emergency.longest", emergency.longest, MAX_EMERGENCY)?;
        longest("emergency.max_age", emergency.max_age, MAX_SPAN)?;
        longest("emergency.cool_down", emergency.cool_down, MAX_SPAN)?;
        if self.review_within.is_none() {
            return wrong("has emergencies, which are always reviewed: say review_within".into());
        }
        Ok(())
    }

    /// Checks that those could sign who approve while a provider is down.
    pub(super) fn check_keys(&self, role: &str, kinds: &[Kind]) -> Result<()> {
        let needs_security_key = self.provider_down.is_some() && !self.approver_login.is_any();
        if needs_security_key && !kinds.iter().any(|kind| kind.is_on_security_key()) {
            let message = format!(
                "[role.{role}.elevation] wants signatures by security keys in place of a login"
            );
            return Err(Error::new(ErrorKind::Config, message)
                .because_of("[enrollment] kinds has none of those"));
        }
        Ok(())
    }

    /// Checks that enough people are there for each of its thresholds.
    pub(in crate::broker) fn check_people(
        &self,
        role: &str,
        directory: Option<&Directory>,
    ) -> Result<()> {
        let wrong = |why: String| {
            Err(Error::new(ErrorKind::Config, format!("[role.{role}.elevation] {why}")))
        };
        let Some(directory) = directory else {
            return Err(Error::new(
                ErrorKind::Config,
                format!("[role.{role}.elevation] needs a [directory]"),
            )
            .because_of("who may approve is said by the directory of people"));
        };
        for threshold in &self.approvals {
            if let Some(group) = threshold.groups.iter().find(|group| !directory.has_group(group)) {
                return wrong(format!(
                    "names the group '{group}', which the directory does not have"
                ));
            }
            let there = directory.people().filter(|(_, person)| threshold.takes(&person.groups));
            let there = there.count();
            if there < threshold.count.get() as usize {
                return wrong(format!(
                    "wants {} people {}, and there are {there}: nobody could ever have the role",
                    threshold.count,
                    threshold.said()
                ));
            }
        }
        Ok(())
    }
}

impl Threshold {
    /// Whether somebody of these groups counts.
    pub fn takes(&self, groups: &BTreeSet<String>) -> bool {
        self.groups.is_empty() || !self.groups.is_disjoint(groups)
    }

    /// Of which groups, for people.
    pub fn said(&self) -> String {
        let names: Vec<_> = self.groups.iter().map(|group| format!("'{group}'")).collect();
        match names.is_empty() {
            true => "of the directory".into(),
            false => format!("of {}", names.join(" or ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Elevation> {
        let elevation: Elevation = crate::config::read_str("broker.toml", text)?;
        elevation.check("admin").map(|()| elevation)
    }

    const LEAST: &str = "longest = \"1h\"\napprovals = [{ count = 2, groups = [\"leads\"] }]\n";

    #[test]
    fn what_is_left_out_is_as_safe_as_it_can_be() {
        let elevation = read(LEAST).unwrap();
        assert_eq!(elevation.pending, Duration::from_secs(3600));
        assert!(!elevation.renewable && elevation.emergency.is_none());
        assert!(elevation.provider_down.is_none());
    }

    #[test]
    fn signatures_stand_for_a_login_only_where_that_is_said_and_can_be() {
        let verified = "provider_down = { verified_as_login = true }";
        let text = format!("{LEAST}approver_login = {{ max_age = \"5m\" }}\n{verified}");
        let elevation = read(&text).unwrap();
        elevation.check_keys("admin", &Kind::ALL).unwrap();
        let error = elevation.check_keys("admin", &[Kind::Ed25519]).unwrap_err();
        assert!(error.causes().join(" ").contains("none of those"), "{error}");
        let plain = read(&format!("{LEAST}provider_down = {{}}")).unwrap();
        plain.check_keys("admin", &[Kind::Ed25519]).unwrap();
    }

    #[test]
    fn patterns_are_for_the_whole_text() {
        let pattern = Pattern::try_from("INC-[0-9]+|x".to_string()).unwrap();
        assert!(pattern.matches("INC-4711") && pattern.matches("x"));
        for other in ["INC-4711 ", "an INC-4711", "xy", "INC-1\nx", ""] {
            assert!(!pattern.matches(other), "{other:?}");
        }
        assert!(Pattern::try_from("(".to_string()).is_err());
    }

    #[test]
    fn what_cannot_work_is_refused() {
        for (text, says) in [
            ("longest = \"1h\"".into(), "no approvals"),
            (LEAST.replace("1h", "25h"), "at most 1 day"),
            (LEAST.replace("1h", "0s"), "more than nothing"),
            (LEAST.replace("leads", "the leads"), "no possible name"),
            (LEAST.replace("count = 2", "count = 0"), "it takes one person at least"),
            (format!("{LEAST}ticket_command = [\"x\"]"), "no pattern"),
            (
                format!("{LEAST}approver_login = {{ max_age = \"5m\" }}\nprovider_down = {{}}"),
                "a signature is no login",
            ),
            (
                format!("{LEAST}emergency = {{ longest = \"1h\", cool_down = \"1h\" }}"),
                "say review_within",
            ),
            (
                format!(
                    "{LEAST}review_within = \"1d\"\nemergency = {{ longest = \"61m\", cool_down = \"1h\" }}"
                ),
                "at most 1h",
            ),
        ] {
            let error = read(&text).unwrap_err();
            let said = format!("{error} {:?}", error.causes());
            assert!(said.contains(says), "{text}: {said}");
        }
    }
}
