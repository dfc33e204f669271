//! Names where there are ids: claims and subjects that policies go by, whatever issuers call
//! them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::finding::{Finding, Rule};
use super::super::load::World;
use super::super::view::{View, entities_of, literal, path, walk};
use super::patterns::{COMPARING, text_of, texts};
use super::shape::Shape;
use crate::broker::config::{MappedClaim, RequiredClaim, TrustedIssuer};

/// Claims that are names, and what to go by instead.
const NAMES: [(&str, &str); 24] = [
    ("email", SUBJECT),
    ("preferred_username", SUBJECT),
    ("upn", SUBJECT),
    ("unique_name", SUBJECT),
    ("name", SUBJECT),
    ("nickname", SUBJECT),
    ("given_name", SUBJECT),
    ("family_name", SUBJECT),
    ("username", SUBJECT),
    ("login", SUBJECT),
    ("phone_number", SUBJECT),
    ("user_name", "user_id"),
    ("user_login", "user_id"),
    ("user_email", "user_id"),
    ("namespace_path", "namespace_id"),
    ("project_path", "project_id"),
    ("repository", "repository_id"),
    ("repository_owner", "repository_owner_id"),
    ("actor", "actor_id"),
    ("organization_slug", "organization_id"),
    ("pipeline_slug", "pipeline_id"),
    ("terraform_organization_name", "terraform_organization_id"),
    ("terraform_workspace_name", "terraform_workspace_id"),
    ("terraform_project_name", "terraform_project_id"),
];

/// Where a person is meant.
const SUBJECT: &str = "";

/// The claim with the subject.
pub(super) const SUB: &str = "sub";

/// The claim with the id of what this claim names.
pub(super) fn id_beside(name: &str) -> Option<&'static str> {
    let (_, id) = NAMES.iter().find(|(known, _)| *known == name)?;
    Some(if *id == SUBJECT { SUB } else { id })
}

/// The name of a claim, also where a pointer says it.
pub(super) fn plain(name: &str) -> &str {
    name.strip_prefix('/').filter(|rest| !rest.contains('/')).unwrap_or(name)
}

/// The claims that say by ids what this subject of this issuer says by names; nothing where the
/// subject has ids itself.
pub(super) fn ids_instead(issuer: &str, subject: &str) -> Option<[&'static str; 2]> {
    let (kind, rest) = subject.split_once(':')?;
    let ids = match kind {
        "repo" | "repository" | "repository_owner" if is_github(issuer) => {
            ["repository_id", "repository_owner_id"]
        }
        // Whose instance of GitLab it is does not matter.
        "project_path" => ["project_id", "namespace_id"],
        _ => return None,
    };
    let has_ids = ids.iter().any(|id| rest.contains(&format!("{id}:")));
    let (named, _) = rest.split_once(':').unwrap_or((rest, ""));
    (!has_ids && named.split('/').any(is_name)).then_some(ids)
}

/// GitHub, for an enterprise, or a server of somebody's own.
fn is_github(issuer: &str) -> bool {
    let rest = issuer.strip_prefix("https://").unwrap_or(issuer);
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    host == "token.actions.githubusercontent.com"
        || host.starts_with("token.actions.") && host.ends_with(".ghe.com")
        || path.trim_end_matches('/').ends_with("_services/token")
}

/// Whether a part of a subject is a name; where subjects are to stay the same, GitHub has the id
/// behind it: `octocat@123456`.
fn is_name(part: &str) -> bool {
    let id = part.rsplit_once('@').map(|(_, id)| id);
    let has_id = id.is_some_and(|id| id.starts_with(|c: char| c.is_ascii_digit()));
    !has_id && part.contains(|c| c != '*')
}

/// The issuers of which a policy's callers can be, as far as its text tells, by their tables.
pub(super) fn issuers_of<'w>(view: &View<'_>, world: World<'w>) -> Vec<Of<'w>> {
    let constraints = view.constraints();
    let named = constraints.get("principal.issuer").map(|(issuers, _)| issuers);
    let is_meant =
        |of: &Of<'_>| named.is_none_or(|named| named.contains(of.issuer.issuer.as_str()));
    let all = world.trusted.iter().map(|(table, issuer)| Of { table, issuer });
    all.filter(is_meant).collect()
}

/// An issuer, and the name of its table.
#[derive(Clone, Copy)]
pub(super) struct Of<'w> {
    pub(super) table: &'w str,
    pub(super) issuer: &'w TrustedIssuer,
}

impl<'w> Of<'w> {
    fn mapped(&self, tag: &str) -> Option<&'w MappedClaim> {
        self.issuer.claims.get(tag)
    }

    /// Whether all of its tokens have the same of this claim.
    fn pins(&self, claim: &str) -> bool {
        self.issuer.required_claims.iter().any(|(name, value)| {
            plain(name) == claim
                && match value {
                    RequiredClaim::Text(_) | RequiredClaim::Number(_) => true,
                    RequiredClaim::AnyOf(values) => values.len() == 1,
                    RequiredClaim::Flag(_) | RequiredClaim::Like(_) => false,
                }
        })
    }
}

/// The tags that a policy reads.
#[derive(Default)]
struct Read {
    /// Those of which it looks at the values.
    got: BTreeSet<String>,
    /// Those of which it asks whether there are any.
    had: BTreeSet<String>,
}

impl Read {
    fn by(view: &View<'_>) -> Self {
        let mut read = Self::default();
        for part in view.parts() {
            walk(part.body, &mut |value| {
                let name = |operator: &str| literal(&value.get(operator)?["right"]);
                read.got.extend(name("getTag"));
                read.had.extend(name("hasTag"));
            });
        }
        read
    }

    /// Those by which it goes. To ask for one that is made by a pattern is to ask for its value.
    fn tags<'a>(&'a self, of: Option<Of<'a>>) -> impl Iterator<Item = &'a str> {
        let says_more = move |tag: &&String| {
            let mapped = of.and_then(|of| of.mapped(tag));
            !self.got.contains(*tag) && mapped.is_some_and(|mapped| mapped.matches.is_some())
        };
        self.got.iter().chain(self.had.iter().filter(says_more)).map(String::as_str)
    }

    /// Whether it goes by this claim of an issuer's tokens, or need not, because they all have
    /// the same.
    fn knows(&self, of: Option<Of<'_>>, claim: &str) -> bool {
        of.is_some_and(|of| of.pins(claim)) || self.tags(of).any(|tag| source(of, tag) == claim)
    }

    /// Where it says so.
    fn place(&self, tag: &str) -> String {
        let operator = if self.got.contains(tag) { "getTag" } else { "hasTag" };
        format!("{operator}(\"{tag}\")")
    }
}

/// The claim that a tag is made of.
fn source<'a>(of: Option<Of<'a>>, tag: &'a str) -> &'a str {
    of.and_then(|of| of.mapped(tag)).map_or(tag, |mapped| plain(&mapped.from))
}

/// Looks at one policy.
pub(super) fn look(view: &View<'_>, world: World<'_>, findings: &mut Vec<Finding>) {
    let mut found = |at: &str, message: String| {
        let finding = Finding::new(Rule::NameNotId, message);
        findings.push(finding.of(&view.id).at(view.place(Some(at))));
    };
    let read = Read::by(view);
    let mut issuers: Vec<_> = issuers_of(view, world).into_iter().map(Some).collect();
    if issuers.is_empty() {
        issuers.push(None);
    }
    look_at_claims(view, &read, &issuers, &mut found);
    look_at_subjects(view, &read, &issuers, world, &mut found);
}

/// Claims that are read and are names, unless the id is looked at as well.
fn look_at_claims(
    view: &View<'_>,
    read: &Read,
    issuers: &[Option<Of<'_>>],
    found: &mut impl FnMut(&str, String),
) {
    // Once for each, whichever issuer it is.
    let mut seen: BTreeMap<&str, String> = BTreeMap::new();
    for of in issuers {
        for tag in read.tags(*of) {
            let name = source(*of, tag);
            let ids = match id_beside(name) {
                Some(SUB) => None,
                Some(id) => Some(vec![id]),
                None if name == SUB => match named_by(*of, tag) {
                    Some(ids) => Some(ids.to_vec()),
                    None => continue,
                },
                None => continue,
            };
            if ids.iter().flatten().any(|id| read.knows(*of, id)) {
                continue;
            }
            let instead = match ids {
                Some(ids) => claims(&ids),
                None => "a User, whose id is issuer and subject, or a Group".to_string(),
            };
            let by = match of.filter(|of| of.mapped(tag).is_some()) {
                Some(of) => {
                    format!("'{tag}', which [trusted_issuer.{}] makes of '{name}'", of.table)
                }
                None => format!("'{tag}'"),
            };
            let message = format!("the policy '{}' goes by {by}; there is {instead}", view.id);
            seen.entry(tag).or_insert(message);
        }
    }
    for (tag, message) in seen {
        found(&read.place(tag), message);
    }
}

/// By which claims to go instead of one that is made of subjects that are made of names.
fn named_by(of: Option<Of<'_>>, tag: &str) -> Option<[&'static str; 2]> {
    let of = of?;
    let shape = Shape::of(of.mapped(tag)?.matches.as_ref()?)?;
    shape.beginnings().iter().find_map(|text| ids_instead(of.issuer.issuer.as_str(), text))
}

/// Subjects that are made of names, unless an id is looked at as well.
fn look_at_subjects(
    view: &View<'_>,
    read: &Read,
    issuers: &[Option<Of<'_>>],
    world: World<'_>,
    found: &mut impl FnMut(&str, String),
) {
    let mut look = |of: Option<Of<'_>>, issuer: &str, subject: &str| {
        let Some(ids) = ids_instead(issuer, subject) else { return };
        if ids.iter().any(|id| read.knows(of, id)) {
            return;
        }
        let (id, instead) = (&view.id, claims(&ids));
        let message = format!(
            "the policy '{id}' goes by the subject \"{subject}\", which is made of names; there is {instead}"
        );
        found(subject, message);
    };
    let (users, subjects) = compared(view);
    for user in users {
        let Some((issuer, subject)) = user.split_once('#') else { continue };
        let mut all = world.trusted.iter().map(|(table, issuer)| Of { table, issuer });
        look(all.find(|of| of.issuer.issuer.as_str() == issuer), issuer, subject);
    }
    for subject in subjects {
        for of in issuers.iter().flatten() {
            look(Some(*of), of.issuer.issuer.as_str(), &subject);
        }
    }
}

/// The ids of users and the subjects of which a policy speaks.
fn compared(view: &View<'_>) -> (BTreeSet<String>, BTreeSet<String>) {
    let scope = entities_of(view.scope("principal")).into_iter();
    let mut users: BTreeSet<_> =
        scope.filter(|(kind, _)| kind == "User").map(|(_, id)| id).collect();
    let mut subjects = BTreeSet::new();
    let is_subject = |value: &Value| {
        value.get("getTag").is_some() || path(value).is_some_and(|path| path.ends_with(".subject"))
    };
    for part in view.parts() {
        walk(part.body, &mut |value| {
            let user = literal(value);
            users.extend(user.and_then(|user| Some(user.strip_prefix("User::")?.to_string())));
            if let Some(like) = value.get("like").filter(|like| is_subject(&like["left"])) {
                subjects.insert(text_of(&like["pattern"]));
            }
            for operands in COMPARING.iter().filter_map(|operator| value.get(*operator)) {
                if is_subject(&operands["left"]) || is_subject(&operands["right"]) {
                    subjects.extend(texts(operands));
                }
            }
        });
    }
    (users, subjects)
}

/// These claims, as something there is.
pub(super) fn claims(ids: &[&str]) -> String {
    format!("the claim '{}'", ids.join("', or '"))
}
