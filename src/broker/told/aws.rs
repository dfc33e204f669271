//! What AWS reads of a token besides who it is about: session tags and the source
//! identity. `AssumeRoleWithWebIdentity` takes them as claims, never as parameters
//! (<https://docs.aws.amazon.com/IAM/latest/UserGuide/id_session-tags.html#id_session-tags_adding-assume-role-idp>,
//! <https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_temp_control-access_monitor.html>).

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::template::{Facts, Template};

/// How many tags a session may have, and how long their keys and values may be:
/// <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html>.
const MAX_TAGS: usize = 50;
const MAX_KEY: usize = 128;
const MAX_VALUE: usize = 256;
/// How long a source identity may be, and how short:
/// <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html>.
const SOURCE_IDENTITY: std::ops::RangeInclusive<usize> = 2..=64;
/// What tags of AWS's own begin with.
const RESERVED: &str = "aws:";

/// The table `[role.NAME.aws]`: what AWS is told about whoever has the role. In its
/// texts `{issuer}` and `{subject}` stand for the caller's issuer and subject, `{person}` for the name that the directory of
/// people has for them, and `{claim:NAME}` for the one value of a claim of the caller's token. Of a
/// role that is had by elevation `{elevation}`
/// is the id of the grant, `{elevation:path}` how it came about, and
/// `{elevation:reason_sha256}` the SHA-256 of the reason for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Session tags, by key.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, Template>,
    /// The keys of those tags that go on to roles assumed with the session.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub transitive_tags: BTreeSet<String>,
    /// Who acts, for the logs of AWS. It stays with the session and with those
    /// that are assumed with it. Of a role that is had by elevation it is the grant's id where
    /// left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_identity: Option<Template>,
}

/// The claims.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Claims {
    #[serde(rename = "https://aws.amazon.com/tags", skip_serializing_if = "Option::is_none")]
    tags: Option<Tags>,
    #[serde(
        rename = "https://aws.amazon.com/source_identity",
        skip_serializing_if = "Option::is_none"
    )]
    source_identity: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Tags {
    /// Lists that have one value each.
    principal_tags: BTreeMap<String, [String; 1]>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    transitive_tag_keys: BTreeSet<String>,
}

impl Settings {
    /// Tells what AWS would not take, whoever calls.
    pub(in crate::broker) fn check(&self) -> Result<(), String> {
        if self.tags.len() > MAX_TAGS {
            return Err(format!("has more than {MAX_TAGS} tags"));
        }
        let mut seen = BTreeSet::new();
        for (key, value) in &self.tags {
            if key.is_empty() || key.chars().count() > MAX_KEY || !key.chars().all(is_tag_char) {
                return Err(format!(
                    "has the tag {key:?}; a key has up to {MAX_KEY} letters, digits, spaces and `_.:/=+-@`"
                ));
            }
            if key.to_lowercase().starts_with(RESERVED) {
                return Err(format!("has the tag {key:?}; such keys are AWS's own"));
            }
            if !seen.insert(key.to_lowercase()) {
                return Err(format!("has the tag {key:?} twice: AWS does not tell cases apart"));
            }
            only_one(value)?;
        }
        if let Some(key) = self.transitive_tags.iter().find(|key| !self.tags.contains_key(*key)) {
            return Err(format!("has the transitive tag {key:?}, which is not among the tags"));
        }
        self.source_identity.as_ref().map_or(Ok(()), only_one)
    }

    /// Whether it tells anything of a grant.
    pub(in crate::broker) fn tells_of_grants(&self) -> bool {
        self.texts().any(Template::tells_of_grants)
    }

    /// Whether the id of the grant is among what it tells of a role that is had by elevation.
    pub(in crate::broker) fn names_grants(&self) -> bool {
        self.source_identity.is_none() || self.texts().any(Template::names_grants)
    }

    /// Whether something is so of any of its texts.
    pub(super) fn any(&self, is: fn(&Template) -> bool) -> bool {
        self.texts().any(is)
    }

    fn texts(&self) -> impl Iterator<Item = &Template> {
        self.tags.values().chain(&self.source_identity)
    }

    /// The source identity, of a role that is had by elevation or not.
    pub(in crate::broker) fn source_identity_of(&self, elevated: bool) -> Option<Template> {
        self.source_identity.clone().or_else(|| elevated.then(Template::of_grant))
    }

    /// The claims for a caller of whom this is so.
    ///
    /// # Errors
    /// Where something is missing or AWS would not take what comes of it: a session
    /// whose tags say less than they should could be mistaken for another's.
    pub(super) fn fill(&self, facts: Facts<'_>) -> Result<Claims, String> {
        let mut principal_tags = BTreeMap::new();
        for (key, value) in &self.tags {
            let what = format!("the session tag '{key}'");
            let value = value.fill(&what, facts)?;
            if value.chars().count() > MAX_VALUE || !value.chars().all(is_tag_char) {
                return Err(format!("AWS does not take the value that {what} would have"));
            }
            principal_tags.insert(key.clone(), [value]);
        }
        let source_identity = match self.source_identity_of(facts.grant.is_some()) {
            None => None,
            Some(text) => {
                let what = "the source identity";
                let filled = text.fill(what, facts)?;
                let legal = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
                if !SOURCE_IDENTITY.contains(&filled.len()) || !filled.chars().all(legal) {
                    return Err(format!("AWS does not take {what} that the caller would have"));
                }
                Some(filled)
            }
        };
        let tags = (!principal_tags.is_empty())
            .then(|| Tags { principal_tags, transitive_tag_keys: self.transitive_tags.clone() });
        Ok(Claims { tags, source_identity })
    }
}

/// What the names of the claims begin with that AWS reads.
const CLAIMS: &str = "https://aws.amazon.com/";

/// Whether AWS was told something, in these claims as a record has them.
pub(in crate::broker) fn is_told(claims: &str) -> bool {
    let claims: Result<serde_json::Map<_, _>, _> = serde_json::from_str(claims);
    claims.is_ok_and(|claims| claims.keys().any(|name| name.starts_with(CLAIMS)))
}

/// The policy by which a role denies everything to sessions that began before this moment: what
/// AWS itself puts on a role whose sessions are revoked
/// (<https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_use_revoke-sessions.html>).
pub(in crate::broker) fn denial(begun_before: &str) -> serde_json::Value {
    serde_json::json!({
        "Version": "2012-10-17",
        "Statement": [{
            "Effect": "Deny",
            "Action": "*",
            "Resource": "*",
            "Condition": { "DateLessThan": { "aws:TokenIssueTime": begun_before } },
        }],
    })
}

/// A tag and the source identity are one text each.
fn only_one(text: &Template) -> Result<(), String> {
    match text.several() {
        0 => Ok(()),
        _ => Err(format!("has the text \"{text}\", which may stand for several")),
    }
}

fn is_tag_char(c: char) -> bool {
    c.is_alphanumeric() || c == ' ' || "_.:/=+-@".contains(c)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::broker::authenticate::caller_tests;
    use crate::broker::elevation::ElevationClaim;

    #[test]
    fn the_cloud_is_told_of_the_grant_so_that_its_own_log_leads_back() {
        let told = settings(json!({
            "tags": {"Elevation": "{elevation}", "Path": "{elevation:path}", "Why": "{elevation:reason_sha256}"},
            "source_identity": "{elevation}",
        }));
        assert!(told.check().is_ok() && told.tells_of_grants());
        let grant = ElevationClaim {
            id: uuid::Uuid::from_u128(7),
            path: crate::broker::elevation::Path::Emergency,
            reason_sha256: "ab".repeat(32),
        };
        let claims = fill(&told, "alice", Some(&grant)).unwrap();
        let id = grant.id.to_string();
        assert_eq!(claims.source_identity.as_ref(), Some(&id));
        let tags = claims.tags.unwrap().principal_tags;
        assert_eq!((&tags["Elevation"], &tags["Path"]), (&[id], &["emergency".to_string()]));
        // Whoever is to be told of a grant is never told of none.
        assert!(fill(&told, "alice", None).unwrap_err().contains("no grant"));
        assert!(!settings(json!({"source_identity": "{subject}"})).tells_of_grants());
    }

    #[test]
    fn under_a_grant_the_source_identity_is_the_grant_where_nothing_else_is_said() {
        let grant = ElevationClaim {
            id: uuid::Uuid::from_u128(7),
            path: crate::broker::elevation::Path::Ordinary,
            reason_sha256: "ab".repeat(32),
        };
        let (id, silent) = (grant.id.to_string(), settings(json!({"tags": {"team": "x"}})));
        let under = fill(&silent, "alice", Some(&grant)).unwrap();
        assert_eq!(under.source_identity, Some(id));
        // Without a grant nothing is as it was not.
        assert_eq!(fill(&silent, "alice", None).unwrap().source_identity, None);
        let own = settings(json!({"source_identity": "{subject}"}));
        let under = fill(&own, "alice", Some(&grant)).unwrap();
        assert_eq!(under.source_identity.as_deref(), Some("alice"));
        assert!(silent.names_grants() && !own.names_grants());
        let (path, tag) = ("{elevation:path}", "{elevation}");
        for (tag, names) in [(path, false), (tag, true)] {
            let own = json!({"source_identity": "{subject}", "tags": {"Grant": tag}});
            assert_eq!(settings(own).names_grants(), names, "{tag}");
        }
    }

    fn fill(
        settings: &Settings,
        subject: &str,
        grant: Option<&ElevationClaim>,
    ) -> Result<Claims, String> {
        let caller = caller_tests::caller("https://i.example", subject, claims()).unwrap();
        settings.fill(Facts { caller: &caller, person: None, grant })
    }

    fn settings(value: Value) -> Settings {
        serde_json::from_value(value).unwrap()
    }

    fn claims() -> Value {
        json!({
            "repository": "acme/shop", "team": {"name": "blue"}, "amr": ["mfa", "pwd"],
            "note": "a\nb",
        })
    }

    #[test]
    fn the_claims_have_the_shape_that_aws_documents() {
        let settings = settings(json!({
            "tags": { "repo": "{claim:repository}", "who": "x-{subject}/{claim:/team/name}" },
            "transitive_tags": ["repo"], "source_identity": "{subject}@example.com",
        }));
        settings.check().unwrap();
        assert_eq!(
            serde_json::to_value(fill(&settings, "alice", None).unwrap()).unwrap(),
            json!({
                "https://aws.amazon.com/tags": {
                    "principal_tags": { "repo": ["acme/shop"], "who": ["x-alice/blue"] },
                    "transitive_tag_keys": ["repo"],
                },
                "https://aws.amazon.com/source_identity": "alice@example.com",
            })
        );
        let none = fill(&Settings::default(), "alice", None).unwrap();
        assert_eq!(serde_json::to_value(none).unwrap(), json!({}));
    }

    #[test]
    fn what_cannot_be_said_whole_is_not_said() {
        for (text, why) in [
            ("{claim:missing}", "'missing'"),
            ("{claim:amr}", "the one value"),
            ("{claim:note}", "does not take"),
            (&*"x".repeat(257), "does not take"),
        ] {
            let tag = settings(json!({ "tags": { "t": text } }));
            tag.check().unwrap();
            assert!(fill(&tag, "alice", None).unwrap_err().contains(why), "{text}");
        }
        for (subject, good) in [("alice", true), ("a", false), ("repo:a/b", false), ("a b", false)]
        {
            let who = settings(json!({ "source_identity": "{subject}" }));
            assert_eq!(fill(&who, subject, None).is_ok(), good, "{subject}");
        }
        let who = settings(json!({ "source_identity": "{subject}" }));
        assert!(fill(&who, &"x".repeat(65), None).is_err());
    }

    #[test]
    fn mistakes_are_found_before_anybody_calls() {
        let many: BTreeMap<_, _> = (0..51).map(|n| (n.to_string(), "x")).collect();
        for bad in [
            json!({ "tags": many }),
            json!({ "tags": { "": "x" } }),
            json!({ "tags": { "a#": "x" } }),
            json!({ "tags": { "aws:x": "x" } }),
            json!({ "tags": { "Team": "x", "team": "y" } }),
            json!({ "tags": { "t": "{sub}" } }),
            json!({ "tags": { "t": "{claim:}" } }),
            json!({ "tags": { "t": "{subject" } }),
            json!({ "tags": { "t": "subject}" } }),
            json!({ "tags": { "t": "x" }, "transitive_tags": ["u"] }),
            json!({ "source_identity": "{who}" }),
            json!({ "source_identity": "{groups}" }),
            json!({ "tags": { "t": "{claims:amr}" } }),
        ] {
            let read = serde_json::from_value::<Settings>(bad.clone());
            assert!(read.is_err() || read.unwrap().check().is_err(), "{bad}");
        }
    }
}
