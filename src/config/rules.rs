//! What types cannot tell: references that lead nowhere, circles, templates.

use std::collections::{BTreeMap, BTreeSet};

use super::diagnostic::{MAX_PROBLEMS, Problem, list, quoted};
use super::model::{Broken, Config, MAX_LINEAGE, Profile};
use super::source::Origin;
use crate::credential::{PARTS, Proof, Template, TemplateError};
use crate::mint;

/// Whatever is wrong with this configuration, whichever profile is used.
pub(super) fn references(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Some(name) = &config.default_profile
        && !config.profiles.contains_key(name)
    {
        problems.push(unknown_profile(config, name, config.origin(&["default_profile"])));
    }
    for (name, profile) in &config.profiles {
        if problems.len() >= MAX_PROBLEMS {
            break;
        }
        let at = Place { config, profile: name };
        problems.extend(lineage(&at));
        problems.extend(named(&at, profile));
        problems.extend(texts(&at, profile));
        problems.extend(variables(&at, profile));
    }
    problems
}

/// What the profiles lack that would be used as they are: all but those that
/// others extend.
pub(super) fn completeness(config: &Config) -> Vec<Problem> {
    let bases: BTreeSet<_> =
        config.profiles.values().filter_map(|p| p.extends.as_deref()).collect();
    let mut problems = Vec::new();
    for name in config.profiles.keys().filter(|name| !bases.contains(name.as_str())) {
        if problems.len() >= MAX_PROBLEMS {
            break;
        }
        let Ok(line) = config.lineage(name) else { continue };
        let target = line.iter().find_map(|(_, profile)| profile.target.as_ref());
        let origin = || config.origin(&["profile", name]);
        if line.iter().all(|(_, profile)| profile.role.is_none()) {
            problems.push(lacks(name, "role", "deploy", origin()));
        }
        let wants_audience = target.is_none_or(|target| target.0.wants_audience());
        if wants_audience && line.iter().all(|(_, profile)| profile.audience.is_none()) {
            problems.push(lacks(name, "audience", "https://api.example.com", origin()));
        }
        let named = line.iter().find_map(|(_, profile)| profile.identity.as_deref());
        let named = named.map(|name| (name, Origin::BuiltIn));
        let identity = pick("identity", &config.identities, named, &Origin::BuiltIn).ok();
        let proof = identity.map(|(_, settings)| settings.proof());
        let steps = line.iter().find_map(|(_, profile)| profile.exchange.as_ref());
        let has_steps = steps.is_some_and(|steps| !steps.is_empty());
        if proof == Some(Proof::AwsAccessKeys) && (wants_audience || has_steps) {
            problems.push(refused(name, mint::Refusal::access_keys(), origin()));
        }
        let mut anonymous = target.is_none();
        if let Some(target) = target {
            let plan = target.0.plan(|broker| {
                anonymous |= broker.is_none();
                Err::<_, ()>(())
            });
            let role = line.iter().find_map(|(_, profile)| profile.role.as_deref());
            let ttl = line.iter().find_map(|(_, profile)| profile.ttl);
            if let (Ok(mut plan), Some(role)) = (plan, role) {
                let fits = match identity {
                    Some((_, identity)) => plan.fit(identity.portal(), has_steps),
                    None => Ok(()),
                };
                if let Err(refusal) = fits.and_then(|()| plan.check(role, false, ttl, proof)) {
                    problems.push(refused(name, refusal, origin()));
                }
            }
        }
        let at_broker = target.is_none_or(|t| matches!(t.0, mint::Settings::Broker(_)));
        let role = line.iter().find_map(|(by, profile)| Some((by, profile.role.as_deref()?)));
        if at_broker
            && let Some((by, role)) = role
            && check_text(role).is_ok()
            && let Err(refusal) = mint::broker::check_role(role)
        {
            problems.push(refused(name, refusal, config.origin(&["profile", by, "role"])));
        }
        anonymous |= steps.into_iter().flatten().any(|step| step.broker.is_none());
        if anonymous {
            problems.extend(pick("broker", &config.brokers, None, &origin()).err());
        }
    }
    problems
}

/// That a profile says nothing of something it needs.
pub(crate) fn lacks(profile: &str, what: &str, example: &str, origin: Origin) -> Problem {
    Problem::new(format!("the profile {} has no {what}", quoted(profile)), origin)
        .label(format!("{} is missing here", quoted(what)))
        .help(format!("say `{what} = \"{example}\"` in it, or name one with `--{what}`"))
}

/// That the target has no use for something a profile says.
pub(crate) fn idle(profile: &str, what: &str, origin: Origin) -> Problem {
    Problem::new(format!("the target of {} has no {what}", quoted(profile)), origin)
        .label("this would count for nothing")
        .help("take it out, or let the profile extend one that does not say it")
}

/// That the target cannot do what a profile says.
pub(crate) fn refused(profile: &str, refusal: mint::Refusal, origin: Origin) -> Problem {
    let title = format!("the {} of the profile {} cannot be used", refusal.what, quoted(profile));
    let problem = Problem::new(title, origin).label(refusal.why);
    refusal.hint.into_iter().fold(problem, Problem::help)
}

/// That there is no such profile.
pub(crate) fn unknown_profile(config: &Config, name: &str, origin: Origin) -> Problem {
    unknown("profile", name, &config.profiles, origin)
}

/// That a name leads nowhere.
pub(crate) fn unknown<T>(
    what: &str,
    name: &str,
    all: &BTreeMap<String, T>,
    origin: Origin,
) -> Problem {
    let names = || all.keys().map(String::as_str);
    let plural = if what == "identity" { "identities".into() } else { format!("{what}s") };
    let problem = Problem::new(format!("there is no {what} {}", quoted(name)), origin)
        .label(format!("no {} is configured", quoted(&format!("[{what}.{name}]"))))
        .suggest(name, names());
    match all.is_empty() {
        true => problem.help(format!("no {plural} are configured")),
        false => problem.known(&format!("the {plural} are"), names()),
    }
}

/// The one of this name; without a name, the only one there is. `asker` is who
/// left the name out.
pub(crate) fn pick<'a, T>(
    what: &str,
    all: &'a BTreeMap<String, T>,
    name: Option<(&str, Origin)>,
    asker: &Origin,
) -> Result<(&'a str, &'a T), Problem> {
    if let Some((name, origin)) = name {
        return all
            .get_key_value(name)
            .map(|(name, value)| (name.as_str(), value))
            .ok_or_else(|| unknown(what, name, all, origin));
    }
    let mut each = all.iter();
    match (each.next(), each.next()) {
        (Some((name, value)), None) => Ok((name, value)),
        (None, _) => Err(Problem::new(format!("no {what} is configured"), asker.clone())
            .label(format!("this needs one, as a table `[{what}.NAME]`"))
            .help("`tmpcred config init` writes a configuration to start from")),
        (Some(_), Some(_)) => {
            let names = list(all.keys().map(String::as_str)).unwrap_or_default();
            Err(Problem::new(
                format!("it is not said which {what} to use: there are {names}"),
                asker.clone(),
            )
            .label(format!("no `{what}` is named here"))
            .help(match what {
                "broker" => {
                    "name one: `target = { broker = \"NAME\" }`, and likewise in each exchange"
                        .into()
                }
                _ => format!("name one in the profile: `{what} = \"NAME\"`"),
            }))
        }
    }
}

/// A profile that is being looked at.
struct Place<'a> {
    config: &'a Config,
    profile: &'a str,
}

impl Place<'_> {
    fn origin(&self, path: &[&str]) -> Origin {
        self.config.origin(&[&["profile", self.profile], path].concat())
    }

    fn key(&self, path: &[&str]) -> Origin {
        self.config.key_origin(&[&["profile", self.profile], path].concat())
    }
}

fn lineage(at: &Place<'_>) -> Option<Problem> {
    let name = at.profile;
    match at.config.lineage(name).err()? {
        // Each circle is told once, by the first of its members.
        Broken::Loop(names) if names.first().map(String::as_str) == Some(name) => {
            (names.iter().min() == names.first()).then(|| circle(&names, at.origin(&["extends"])))
        }
        // Told where it is named.
        Broken::Missing { name: missing, by } if by.as_deref() == Some(name) => {
            Some(unknown_profile(at.config, &missing, at.origin(&["extends"])))
        }
        Broken::TooLong => Some(too_long(name, at.origin(&["extends"]))),
        Broken::Loop(_) | Broken::Missing { .. } => None,
    }
}

/// That profiles extend each other in a circle.
pub(crate) fn circle(names: &[String], origin: Origin) -> Problem {
    Problem::new(format!("profiles extend each other in a circle: {}", names.join(" -> ")), origin)
        .label("this is part of the circle")
        .help("let one of them stand for itself")
}

/// That too many profiles extend each other.
pub(crate) fn too_long(profile: &str, origin: Origin) -> Problem {
    let title = format!("the profile {} extends more than {MAX_LINEAGE} others", quoted(profile));
    Problem::new(title, origin).help("let it extend a profile that is nearer to the base")
}

fn named(at: &Place<'_>, profile: &Profile) -> Vec<Problem> {
    let mut problems = Vec::new();
    let (identities, brokers) = (&at.config.identities, &at.config.brokers);
    if let Some(name) = profile.identity.as_ref().filter(|name| !identities.contains_key(*name)) {
        problems.push(unknown("identity", name, identities, at.origin(&["identity"])));
    }
    let mut broker = |name: Option<&str>, path: &[&str]| {
        if let Some(name) = name.filter(|name| !brokers.contains_key(*name)) {
            problems.push(unknown("broker", name, brokers, at.origin(path)));
        }
    };
    for (index, step) in profile.exchange.iter().flatten().enumerate() {
        broker(step.broker.as_deref(), &["exchange", &index.to_string(), "broker"]);
    }
    if let Some(target) = &profile.target {
        // Only what it names is looked at here, not whether a plan can be made.
        let _ = target.0.plan(|name| {
            broker(name, &["target", "broker"]);
            Err::<_, ()>(())
        });
    }
    problems
}

fn texts(at: &Place<'_>, profile: &Profile) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut check = |scope: &[String], path: &[&str]| {
        for (index, item) in scope.iter().enumerate() {
            if let Err(why) = check_scope(item) {
                let origin = at.origin(&[path, &["scope", &index.to_string()]].concat());
                problems.push(Problem::new(format!("{why}: {}", quoted(item)), origin));
            }
        }
    };
    check(profile.scope.as_deref().unwrap_or_default(), &[]);
    for (index, step) in profile.exchange.iter().flatten().enumerate() {
        check(&step.scope, &["exchange", &index.to_string()]);
    }
    let mut text = |value: Option<&str>, path: &[&str]| {
        if let Some(Err(why)) = value.map(check_text) {
            let what = quoted(path.last().unwrap_or(&""));
            problems.push(Problem::new(format!("{what} {why}"), at.origin(path)));
        }
    };
    text(profile.role.as_deref(), &["role"]);
    text(profile.audience.as_deref(), &["audience"]);
    for (index, step) in profile.exchange.iter().flatten().enumerate() {
        let index = index.to_string();
        text(Some(&step.role), &["exchange", &index, "role"]);
        text(step.audience.as_deref(), &["exchange", &index, "audience"]);
    }
    for (index, step) in profile.exchange.iter().flatten().enumerate() {
        // Steps are always taken at brokers.
        if check_text(&step.role).is_ok()
            && let Err(refusal) = mint::broker::check_role(&step.role)
        {
            let origin = at.origin(&["exchange", &index.to_string(), "role"]);
            problems.push(refused(at.profile, refusal, origin));
        }
    }
    problems
}

/// Tells what is wrong with a role or an audience.
pub(crate) fn check_text(text: &str) -> Result<(), &'static str> {
    if text.trim().is_empty() {
        return Err("cannot be empty");
    }
    if text.contains(char::is_control) {
        return Err("cannot have control characters");
    }
    Ok(())
}

/// Tells what is wrong with one scope (RFC 6749 section 3.3).
pub(crate) fn check_scope(scope: &str) -> Result<(), &'static str> {
    if scope.contains(char::is_whitespace) {
        return Err("each scope is an item of its own, without spaces");
    }
    let legal = |b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e);
    if scope.is_empty() || !scope.bytes().all(legal) {
        return Err("a scope has printable ASCII characters but `\"` and `\\`");
    }
    Ok(())
}

fn variables(at: &Place<'_>, profile: &Profile) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (name, template) in &profile.env {
        if let Err(why) = check_variable(name) {
            let problem = Problem::new(format!("{why}: {}", quoted(name)), at.key(&["env", name]));
            problems.push(problem);
        }
        if let Err(error) = Template::parse(template) {
            let title = format!("the template of {} is not valid: {error}", quoted(name));
            let problem = Problem::new(title, at.origin(&["env", name]));
            problems.push(match &error {
                TemplateError::UnknownPart(part) => problem
                    .suggest(part, PARTS.iter().copied())
                    .known("the parts are", PARTS.iter().copied())
                    .help("write `{{` and `}}` for the braces themselves"),
                _ => problem,
            });
        }
    }
    problems
}

fn check_variable(name: &str) -> Result<(), &'static str> {
    let start = name.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if !start || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err("a variable's name has letters, digits and `_`, and starts with no digit");
    }
    if name.to_ascii_uppercase().starts_with("TMPCRED_") {
        return Err("variables that start with `TMPCRED_` are set by tmpcred itself");
    }
    Ok(())
}
