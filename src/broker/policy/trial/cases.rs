//! Cases in a file, each with what is to come of it.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use time::OffsetDateTime;

use super::{Asking, Outcome, Trial, duration};
use crate::broker::decide::Why;
use crate::error::{Error, ErrorKind, Result};

/// A file of cases.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cases {
    /// The cases.
    pub case: Vec<Case>,
}

/// A table `[[case]]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it shows.
    pub name: String,
    /// What is asked.
    pub ask: Asking,
    /// What is to come of it.
    pub expect: Expected,
}

/// What is to come of a case: `permit`, with the id of the policy, or `deny`, with the
/// reason.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    /// The permit by which it is granted.
    #[serde(default)]
    pub permit: Option<String>,
    /// The lifetime that is granted; any where left out.
    #[serde(default, deserialize_with = "duration")]
    pub ttl: Option<Duration>,
    /// The scope that is granted, separated by spaces; any where left out.
    #[serde(default)]
    pub scope: Option<String>,
    /// What the token says besides, by the names of its claims; of those that are left out, anything.
    #[serde(default)]
    pub claims: Map<String, Value>,
    /// Why it is denied.
    #[serde(default)]
    pub deny: Option<Why>,
    /// The policy that forbids it; any where left out.
    #[serde(default)]
    pub by: Option<String>,
}

/// What came of a case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CaseResult {
    /// The case.
    pub name: String,
    /// Whether all is as expected.
    pub passed: bool,
    /// What is not.
    pub differences: Vec<Difference>,
    /// What is decided.
    pub got: Outcome,
}

/// Something that is not as expected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// What.
    pub what: &'static str,
    /// What it should be.
    pub expected: String,
    /// What it is.
    pub got: String,
}

impl Cases {
    /// Reads a file of cases. One that has none would always pass, and is refused.
    pub fn read(path: &Path) -> Result<Self> {
        let wrong = |why: String| {
            Err(Error::new(ErrorKind::Config, format!("{} cannot be used", path.display()))
                .because_of(why))
        };
        let cases: Self = crate::config::read_file(path)?;
        if cases.case.is_empty() {
            return wrong("there is no [[case]] in it".into());
        }
        let mut names = BTreeSet::new();
        for case in &cases.case {
            if !names.insert(&case.name) {
                return wrong(format!("there are two cases '{}'", case.name));
            }
            if let Err(why) = case.expect.check() {
                return wrong(format!("the case '{}' {why}", case.name));
            }
        }
        Ok(cases)
    }
}

impl Expected {
    fn check(&self) -> Result<(), &'static str> {
        match (&self.permit, &self.deny) {
            (Some(_), None) if self.by.is_some() => Err("expects a permit, so it has no `by`"),
            (None, Some(_))
                if self.ttl.is_some() || self.scope.is_some() || !self.claims.is_empty() =>
            {
                Err("expects a denial, so it has neither `ttl` nor `scope` nor `claims`")
            }
            (Some(_), None) | (None, Some(_)) => Ok(()),
            _ => Err("has to expect either `permit` or `deny`"),
        }
    }

    fn decision(&self) -> String {
        match (&self.permit, self.deny) {
            (_, Some(why)) => format!("deny: {}", why.name()),
            (policy, None) => format!("permit: {}", policy.as_deref().unwrap_or_default()),
        }
    }
}

fn joined<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    words.into_iter().collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(" ")
}

impl Trial<'_> {
    /// Tries a case.
    pub fn run(&self, case: &Case, now: OffsetDateTime) -> Result<CaseResult> {
        let got = self
            .decide(&case.ask, now)
            .map_err(|error| error.context(format!("the case '{}' cannot be tried", case.name)))?;
        let differences = differences(&case.expect, &got);
        Ok(CaseResult { name: case.name.clone(), passed: differences.is_empty(), differences, got })
    }
}

fn differences(expected: &Expected, got: &Outcome) -> Vec<Difference> {
    let mut differences = Vec::new();
    let mut compare = |what: &'static str, expected: Option<String>, got: String| {
        if let Some(expected) = expected.filter(|expected| *expected != got) {
            differences.push(Difference { what, expected, got });
        }
    };
    match got {
        Outcome::Permit { policy, ttl, scope, claims } => {
            compare("decision", Some(expected.decision()), format!("permit: {policy}"));
            let shown =
                |seconds: u64| humantime::format_duration(Duration::from_secs(seconds)).to_string();
            let ttl = ttl.map_or_else(|| "none".to_string(), shown);
            compare("ttl", expected.ttl.map(|ttl| shown(ttl.as_secs())), ttl);
            let scope = joined(scope.iter().flatten().map(String::as_str));
            let wanted = expected.scope.as_ref().map(|s| joined(s.split_ascii_whitespace()));
            compare("scope", wanted, scope);
            for (name, value) in &expected.claims {
                let got = claims.get(name).map_or("nothing".into(), Value::to_string);
                compare("claims", Some(format!("{name} = {value}")), format!("{name} = {got}"));
            }
        }
        Outcome::Deny { reason, policy, .. } => {
            compare("decision", Some(expected.decision()), format!("deny: {}", reason.name()));
            compare("by", expected.by.clone(), policy.clone().unwrap_or_default());
        }
    }
    differences
}
