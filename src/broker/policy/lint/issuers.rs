//! What trusted issuers' tables say of claims: names where there are ids, and patterns that take
//! more than is meant.

use std::collections::BTreeMap;

use super::super::finding::{Finding, Rule};
use super::super::load::World;
use super::super::view::{View, literal, walk};
use super::names::{self, SUB, ids_instead, issuers_of, plain};
use super::shape::{Matters, Shape};
use crate::broker::config::{Pattern, RequiredClaim, TrustedIssuer};

/// Ids that tokens have only where whoever asks for them asks for these, too.
const ON_REQUEST: [&str; 2] = ["organization_id", "pipeline_id"];

/// Looks at all of them.
pub(super) fn look(views: &[View<'_>], world: World<'_>, findings: &mut Vec<Finding>) {
    for (table, issuer) in world.trusted {
        look_at_required(table, issuer, findings);
        for (name, mapped) in &issuer.claims {
            let Some(pattern) = &mapped.matches else { continue };
            let is_for = |view: &&View<'_>| {
                issuers_of(view, world).iter().any(|of| of.table == table.as_str())
            };
            let uses = views.iter().filter(is_for).filter_map(|view| Use::by(view, name));
            let at = format!("[trusted_issuer.{table}] claims.{name}");
            look_at_pattern(&at, pattern, &uses.collect::<Vec<_>>(), findings);
        }
    }
    look_at_people(world, findings);
}

/// Nobody is found in the directory by an id at an issuer that is not trusted. One finding for
/// each of those: there may be many people.
fn look_at_people(world: World<'_>, findings: &mut Vec<Finding>) {
    let mut dangling: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, person) in world.directory.iter().flat_map(|directory| directory.people()) {
        for id in person.ids.iter().filter(|id| !world.trusts(&id.issuer)) {
            dangling.entry(&id.issuer).or_default().push(name);
        }
    }
    for (issuer, people) in dangling {
        let [first, others @ ..] = &people[..] else { continue };
        let more = match others.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let message = format!(
            "the directory has ids at {issuer}, which is not trusted: that of '{first}'{more}"
        );
        findings.push(Finding::new(Rule::DirectoryIssuer, message));
    }
}

fn look_at_required(table: &str, issuer: &TrustedIssuer, findings: &mut Vec<Finding>) {
    let requires = |id: &str| {
        let mut all = issuer.required_claims.iter();
        all.any(|(name, value)| plain(name) == id && !is_anything(value))
    };
    let by = |what: String, ids: &[&str]| {
        let instead = names::claims(ids);
        let message =
            format!("[trusted_issuer.{table}] required_claims goes by {what}; there is {instead}");
        Finding::new(Rule::NameNotId, message)
    };
    for (claim, value) in &issuer.required_claims {
        let name = plain(claim);
        if let Some(id) = names::id_beside(name)
            && !ON_REQUEST.contains(&id)
            && !requires(id)
        {
            findings.push(by(format!("'{name}'"), &[id]));
        }
        for (subject, beginnings) in subjects(name, value) {
            let of = |beginning: &String| ids_instead(issuer.issuer.as_str(), beginning);
            if let Some(ids) = beginnings.iter().find_map(of)
                && !ids.iter().any(|id| requires(id))
            {
                let what = format!("the subject \"{subject}\", which is made of names");
                findings.push(by(what, &ids));
            }
        }
        if let RequiredClaim::Like(like) = value {
            let at = format!("[trusted_issuer.{table}] required_claims.{claim}");
            look_at_pattern(
                &at,
                &like.matches,
                &[Use { policy: None, matters: Matters::All }],
                findings,
            );
        }
    }
}

/// The subjects that are required as they are written, with what they have to begin with.
fn subjects(name: &str, value: &RequiredClaim) -> Vec<(String, Vec<String>)> {
    let whole = |text: &String| (text.clone(), vec![text.clone()]);
    match value {
        _ if name != SUB => Vec::new(),
        RequiredClaim::Text(text) => vec![whole(text)],
        RequiredClaim::AnyOf(texts) => texts.iter().map(whole).collect(),
        RequiredClaim::Like(like) => {
            let shape = Shape::of(&like.matches);
            let beginnings = shape.map(|shape| shape.beginnings()).unwrap_or_default();
            vec![(like.matches.as_str().to_string(), beginnings)]
        }
        RequiredClaim::Flag(_) | RequiredClaim::Number(_) => Vec::new(),
    }
}

fn is_anything(value: &RequiredClaim) -> bool {
    let RequiredClaim::Like(like) = value else { return false };
    Shape::of(&like.matches).is_some_and(|shape| shape.takes_anything())
}

/// Where more is permitted by a pattern, or less forbidden.
struct Use<'a> {
    /// By which policy; all are, where tokens have to be like it.
    policy: Option<&'a str>,
    matters: Matters,
}

impl<'a> Use<'a> {
    /// A policy compares all that it sees of a claim, unless it asks only whether there is
    /// something to see.
    fn by(view: &'a View<'_>, name: &str) -> Option<Self> {
        let (mut has, mut gets) = (false, false);
        for part in view.parts().iter().filter(|part| view.forbids() == part.unless) {
            walk(part.body, &mut |value| {
                let reads = |operator: &str| {
                    let read = value.get(operator).and_then(|tag| literal(&tag["right"]));
                    read.is_some_and(|read| read == name)
                };
                has |= reads("hasTag");
                gets |= reads("getTag");
            });
        }
        let matters = if gets { Matters::Unseen } else { Matters::All };
        (has || gets).then_some(Self { policy: Some(&view.id), matters })
    }
}

fn look_at_pattern(at: &str, pattern: &Pattern, uses: &[Use<'_>], findings: &mut Vec<Finding>) {
    let Some(shape) = Shape::of(pattern) else { return };
    let text = pattern.as_str();
    let mut found = |rule, what: &str, by: Option<&Use<'_>>| {
        let by = by.and_then(|by| by.policy);
        let by = by.map(|id| format!("; the policy '{id}' goes by it")).unwrap_or_default();
        let message = format!("{at} has the pattern \"{text}\", which {what}{by}");
        findings.push(Finding::new(rule, message));
    };
    let first = |is: &dyn Fn(Matters) -> bool| uses.iter().find(|one| is(one.matters));
    if shape.takes_anything() {
        found(Rule::LikeAnything, "matches anything", None);
    } else if let Some(by) = first(&|matters| shape.begins_with_anything(matters)) {
        found(Rule::LikeUnanchored, "begins with anything", Some(by));
    } else if let Some(by) = first(&|matters| shape.ends_amid_a_name(matters)) {
        found(Rule::LikeOpenEnd, "ends amid a name", Some(by));
    }
}
