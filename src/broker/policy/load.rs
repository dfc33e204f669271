//! Policies from files. A broken one is refused as a whole, with its place.

mod actions;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{Context as Hasher, SHA256};
use cedar_policy::{
    Effect, Policy as CedarPolicy, PolicyId, PolicySet, ResourceConstraint, Schema, ValidationMode,
    Validator,
};
use data_encoding::HEXLOWER;
use miette::Diagnostic;

pub(super) use self::actions::action_of;
use super::finding::{Finding, Rule};
use super::limits::{Limits, Obligation};
use super::place::{Place, said};
use super::reads::OfApprovals;
use super::slices::Slices;
use super::syntax::{NamesRead, Needs, reads_prior_actors};
use super::terms::Terms;
use super::{
    ACT, ADMINISTER, APPROVE, BROKER, DIRECTORY_GROUP, ELEVATE, INTROSPECT, ISSUE, PERSON, Policy,
    REVOKE, schema,
};
use crate::broker::authenticate::respelled;
use crate::broker::config::{self, Client, Clients, Config, Notify, Role, TrustedIssuer};
use crate::broker::directory::Directory;
use crate::broker::trusted_file;
use crate::error::{Error, ErrorKind, Result, lasting};
use crate::oidc::Issuer;

const MAX_FILE: u64 = 4 * 1024 * 1024;

/// What may stand before a policy.
const ANNOTATIONS: [&str; 6] = ["id", "ttl", "scope", "obligations", "description", ANY_ISSUER];

/// Those that belong to what is granted.
const OF_GRANTS: [&str; 3] = ["ttl", "scope", "obligations"];

/// The annotation of a permit that is for callers of whatever issuer.
pub(super) const ANY_ISSUER: &str = "any_issuer";

/// The text of a policy file, and what to call it in errors.
#[derive(Clone, Debug)]
pub struct Source {
    /// Its path.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

impl Source {
    /// Reads a policy file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = String::from_utf8(trusted_file::read(path, MAX_FILE)?).map_err(|cause| {
            Error::new(ErrorKind::Config, format!("{} is not a text file", path.display()))
                .because(cause.utf8_error())
        })?;
        // Some editors write that nobody sees it.
        let text = text.strip_prefix('\u{feff}').map(String::from).unwrap_or(text);
        Ok(Self { path: path.to_path_buf(), text })
    }

    /// Reads all of them.
    pub fn read_all(paths: &[PathBuf]) -> Result<Vec<Self>> {
        paths.iter().map(|path| Self::read(path)).collect()
    }
}

/// What decides besides policies, and what they can refer to: the roles and clients that
/// exist, and the issuers from which callers and groups can be.
#[derive(Clone, Copy, Debug)]
pub struct World<'a> {
    /// The roles.
    pub roles: &'a BTreeMap<String, Role>,
    /// The trusted issuers, as configured.
    pub trusted: &'a BTreeMap<String, TrustedIssuer>,
    /// The clients, as configured.
    pub clients: &'a Clients,
    /// The broker's own issuer, of which clients are users where they ask in their own
    /// name.
    pub own: &'a Issuer,
    /// The directory of people, where there is one.
    pub directory: Option<&'a Arc<Directory>>,
    /// Where people are told what has happened.
    pub notify: &'a Notify,
}

impl<'a> World<'a> {
    /// What a broker with this configuration and this directory knows.
    pub fn of(config: &'a Config, directory: Option<&'a Arc<Directory>>) -> Self {
        Self {
            roles: &config.role,
            trusted: &config.trusted_issuer,
            clients: &config.client,
            own: &config.issuer,
            directory,
            notify: &config.notify,
        }
    }

    /// Whether callers can be of this issuer.
    pub(super) fn trusts(&self, issuer: &str) -> bool {
        self.is_trusted(issuer) || self.has_own_users() && issuer == self.own.as_str()
    }

    fn is_trusted(&self, issuer: &str) -> bool {
        self.trusted.values().any(|trusted| trusted.issuer.as_str() == issuer)
    }

    /// Whether clients may ask in their own name.
    fn has_own_users(&self) -> bool {
        self.clients.values().any(Client::authenticates)
    }

    /// Whether a client may authenticate by this id.
    pub(super) fn authenticates(&self, client: &str) -> bool {
        self.clients.get(client).is_some_and(Client::authenticates)
    }

    /// Whether this can be somebody, where they are of the broker's own issuer.
    fn can_be(&self, issuer: &str, kind: &str, name: &str) -> bool {
        self.is_trusted(issuer)
            || issuer != self.own.as_str()
            || kind == "User" && self.authenticates(name)
    }
}

impl Policy {
    /// Reads policies and checks them against the schema, the roles and the
    /// trusted issuers.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], with all that is wrong, each with file and line
    /// where Cedar can tell.
    pub fn load(sources: &[Source], world: World<'_>) -> Result<Self> {
        Self::check(sources, world)?.map_err(|wrong| {
            let error = Error::new(ErrorKind::Config, "the policies cannot be used");
            wrong.iter().fold(error, |error, finding| error.because_of(finding.to_string()))
        })
    }

    /// The same, with what is wrong as findings.
    pub(super) fn check(
        sources: &[Source],
        world: World<'_>,
    ) -> Result<std::result::Result<Self, Vec<Finding>>> {
        let (schema, _) = Schema::from_cedarschema_str(schema()).map_err(|cause| {
            Error::new(ErrorKind::Other, "the policy schema is broken").because(cause)
        })?;
        let mut loader = Loader {
            world,
            ids: BTreeSet::new(),
            all: PolicySet::new(),
            limits: BTreeMap::new(),
            needs: Needs::default(),
            claims: NamesRead::default(),
            attributes: NamesRead::default(),
            by_directory: BTreeSet::new(),
            approving: OfApprovals::default(),
            issues: false,
            wrong: Vec::new(),
        };
        for source in sources {
            loader.add(source);
        }
        if loader.wrong.is_empty() {
            loader.validate(&schema, sources);
        }
        if loader.wrong.is_empty() && !loader.issues {
            let none = "there is no permit to issue: everything would be denied";
            loader.wrong.push(Finding::new(Rule::NoPermit, none));
        }
        if !loader.wrong.is_empty() {
            return Ok(Err(loader.wrong));
        }
        let hash = hash(sources, world, true)?;
        let rules_hash = self::hash(sources, world, false)?;
        let Loader { all: policies, limits, needs, by_directory, approving, .. } = loader;
        let directory = world.directory.cloned();
        let terms = Terms::new(loader.claims, loader.attributes)?;
        let own = world.own.as_str().to_string();
        let scopes = world.roles.iter().map(|(name, role)| (name.clone(), role.scopes.clone()));
        let scopes = scopes.collect();
        Ok(Ok(Self {
            terms,
            own,
            schema,
            policies: Slices::of(policies),
            limits,
            needs,
            by_directory,
            approving,
            directory,
            scopes,
            hash,
            rules_hash,
            #[cfg(test)]
            asked_of_approvers: Default::default(),
        }))
    }
}

struct Loader<'a> {
    world: World<'a>,
    /// The ids of what was looked at.
    ids: BTreeSet<String>,
    all: PolicySet,
    limits: BTreeMap<String, Limits>,
    needs: Needs,
    claims: NamesRead,
    attributes: NamesRead,
    by_directory: BTreeSet<String>,
    approving: OfApprovals,
    /// Whether there is a permit to issue.
    issues: bool,
    wrong: Vec<Finding>,
}

impl Loader<'_> {
    fn add(&mut self, source: &Source) {
        let parsed = match PolicySet::from_str(&source.text) {
            Ok(parsed) => parsed,
            Err(errors) => {
                self.wrong.extend(errors.iter().map(|error| {
                    let place = Place::of(error, &source.path, &source.text);
                    Finding::new(Rule::Syntax, said(error)).at(place)
                }));
                return;
            }
        };
        if let Some(template) = parsed.templates().next() {
            let at = source.text.find(&template.to_cedar());
            let place = match at {
                Some(at) => Place::at(&source.path, &source.text, at),
                None => Place::within(&source.path),
            };
            let finding = Finding::new(Rule::Template, "templates are not supported");
            self.wrong.push(finding.at(place));
        }
        for policy in parsed.policies() {
            if let Err((rule, why)) = self.add_policy(policy) {
                let place = Place::at(&source.path, &source.text, offset_of(policy, &source.text));
                let finding = Finding::new(rule, why).at(place);
                self.wrong.push(match policy.annotation("id") {
                    Some(id) => finding.of(id),
                    None => finding,
                });
            }
        }
    }

    fn add_policy(&mut self, policy: &CedarPolicy) -> Result<(), (Rule, String)> {
        let by = |rule: Rule| move |why: String| (rule, why);
        let id = policy.annotation("id").filter(|id| !id.is_empty()).ok_or_else(|| {
            let none = "a policy has no @id, by which audit records would name it";
            (Rule::Annotation, none.to_string())
        })?;
        if let Some((name, _)) = policy.annotations().find(|(name, _)| !ANNOTATIONS.contains(name))
        {
            let unknown = format!(
                "the policy '{id}' has the unknown annotation @{name}; known are @{}",
                ANNOTATIONS.join(", @")
            );
            return Err((Rule::Annotation, unknown));
        }
        if !self.ids.insert(id.to_string()) {
            let why = format!("there is another policy with the id '{id}'");
            return Err((Rule::DuplicateId, why));
        }
        self.check_references(id, policy).map_err(by(Rule::UnknownReference))?;
        let json = policy
            .to_json()
            .map_err(|cause| (Rule::Syntax, format!("the policy '{id}': {cause}")))?;
        self.needs.add(&json);
        self.claims.add_claims(&json);
        self.attributes.add_attributes(&json);
        self.approving.add(policy, &json);
        let kinds = policy.entity_literals().into_iter().map(|uid| uid.type_name().to_string());
        if kinds.into_iter().any(|kind| [PERSON, DIRECTORY_GROUP].contains(&kind.as_str())) {
            self.by_directory.insert(id.to_string());
        }
        self.check_approvals(id, policy, &json).map_err(by(Rule::ApprovesByToken))?;
        match policy.effect() {
            Effect::Permit => {
                let action = action_of(id, policy).map_err(by(Rule::OneAction))?;
                self.check_issuer(id, policy, &action, &json).map_err(by(Rule::AnyIssuer))?;
                if reads_prior_actors(&json) {
                    let why = format!(
                        "the permit '{id}' looks at context.actors, with those who acted before; say context.actor"
                    );
                    return Err((Rule::PriorActors, why));
                }
                if [INTROSPECT, ACT, REVOKE, ADMINISTER, ELEVATE, APPROVE]
                    .contains(&action.as_str())
                {
                    without_limits(id, policy, "grants no token").map_err(by(Rule::Annotation))?;
                } else {
                    let limits = self.limits_of(id, policy).map_err(by(Rule::Annotation))?;
                    self.limits.insert(id.to_string(), limits);
                    self.issues |= action == ISSUE;
                }
            }
            Effect::Forbid => {
                without_limits(id, policy, "forbids").map_err(by(Rule::Annotation))?;
                self.check_evasion(id, policy).map_err(by(Rule::ForbidsHalf))?;
                if policy.annotation(ANY_ISSUER).is_some() {
                    let why = format!("the policy '{id}' forbids, so it cannot have @{ANY_ISSUER}");
                    return Err((Rule::Annotation, why));
                }
            }
        }
        let added = self.all.add(policy.new_id(PolicyId::new(id)));
        added.map_err(|cause| (Rule::Syntax, format!("the policy '{id}': {cause}")))
    }

    fn limits_of(&self, id: &str, permit: &CedarPolicy) -> Result<Limits, String> {
        let ttl = permit
            .annotation("ttl")
            .ok_or_else(|| format!("the permit '{id}' has no @ttl, such as @ttl(\"15m\")"))?;
        let ttl = config::parse_duration(ttl).map_err(|why| format!("the permit '{id}': {why}"))?;
        if ttl.is_zero() || ttl > config::MAX_TTL {
            return Err(format!(
                "the permit '{id}' has a @ttl of {}; it must be more than nothing and at most {}",
                lasting(ttl),
                lasting(config::MAX_TTL)
            ));
        }
        let scope: BTreeSet<String> = permit
            .annotation("scope")
            .unwrap_or_default()
            .split_ascii_whitespace()
            .map(String::from)
            .collect();
        let known = |scope: &&String| self.world.roles.values().any(|r| r.scopes.contains(*scope));
        if let Some(unknown) = scope.iter().find(|scope| !known(scope)) {
            return Err(format!("the permit '{id}' has the scope '{unknown}', which no role has"));
        }
        let mut obligations = BTreeSet::new();
        let names = permit.annotation("obligations").unwrap_or_default();
        for name in names.split_ascii_whitespace() {
            obligations.insert(Obligation::from_name(name).ok_or_else(|| {
                let known = Obligation::ALL.map(Obligation::name).join(", ");
                format!("the permit '{id}' has the unknown obligation '{name}'; known are {known}")
            })?);
        }
        if obligations.contains(&Obligation::Opaque)
            && let Some((role, _)) = self.roles_of(permit).find(|(_, role)| role.aws.is_some())
        {
            return Err(format!(
                "the permit '{id}' wants opaque tokens, and is for the role '{role}' among others, whose tokens AWS reads"
            ));
        }
        Ok(Limits { ttl: Duration::from_secs(ttl.as_secs()), scope, obligations })
    }

    /// The roles that a policy can be for.
    fn roles_of(&self, policy: &CedarPolicy) -> impl Iterator<Item = (&String, &Role)> {
        let one = match policy.resource_constraint() {
            ResourceConstraint::Any | ResourceConstraint::Is(_) => None,
            ResourceConstraint::In(uid)
            | ResourceConstraint::Eq(uid)
            | ResourceConstraint::IsIn(_, uid) => Some(uid.id().unescaped().to_string()),
        };
        self.world.roles.iter().filter(move |(name, _)| one.as_ref().is_none_or(|one| one == *name))
    }

    /// Refuses a policy that speaks of what cannot exist: a rule that can never
    /// match is a mistake, and one that forbids a dangerous one.
    fn check_references(&self, id: &str, policy: &CedarPolicy) -> Result<(), String> {
        for literal in policy.entity_literals() {
            let name = literal.id().unescaped();
            match literal.type_name().to_string().as_str() {
                "Role" if !self.world.roles.contains_key(name) => {
                    return Err(format!(
                        "the policy '{id}' speaks of Role::\"{name}\", which is not configured"
                    ));
                }
                BROKER if name != self.world.own.as_str() => {
                    return Err(format!(
                        "the policy '{id}' speaks of Broker::\"{name}\", and this one is Broker::\"{}\"",
                        self.world.own.as_str()
                    ));
                }
                kind @ (PERSON | DIRECTORY_GROUP) if self.world.directory.is_none() => {
                    return Err(format!(
                        "the policy '{id}' speaks of {kind}::\"{name}\", and there is no [directory]"
                    ));
                }
                // A person may leave; a group is what rules are about.
                DIRECTORY_GROUP if !self.world.directory.is_some_and(|d| d.has_group(name)) => {
                    return Err(format!(
                        "the policy '{id}' speaks of DirectoryGroup::\"{name}\", which is not in the directory"
                    ));
                }
                kind @ ("User" | "Group") => {
                    let issuer = name.split_once('#').map(|(issuer, _)| issuer);
                    if !issuer.is_some_and(|issuer| self.world.trusts(issuer)) {
                        return Err(format!(
                            "the policy '{id}' speaks of {kind}::\"{name}\", which does not begin with a trusted issuer and '#'"
                        ));
                    }
                    if let Some((issuer, name)) = name.split_once('#')
                        && !self.world.can_be(issuer, kind, name)
                    {
                        return Err(format!(
                            "the policy '{id}' speaks of {kind}::\"{issuer}#{name}\", and there is no client of that name that authenticates"
                        ));
                    }
                    if let Some(spelled) = respelled(name) {
                        return Err(format!(
                            "the policy '{id}' speaks of {kind}::\"{name}\", whom nobody is; callers have it as {kind}::\"{spelled}\""
                        ));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn validate(&mut self, schema: &Schema, sources: &[Source]) {
        let result = Validator::new(schema.clone()).validate(&self.all, ValidationMode::Strict);
        // A warning, such as a policy that is never true, is a mistake as well.
        let errors = result.validation_errors().map(|e| (e.policy_id(), e as &dyn Diagnostic));
        let warnings = result.validation_warnings().map(|w| (w.policy_id(), w as &dyn Diagnostic));
        for (id, diagnostic) in errors.chain(warnings) {
            let id: &str = id.as_ref();
            let finding = Finding::new(Rule::Schema, said(diagnostic)).of(id);
            self.wrong.push(match sources.iter().find(|source| has_id(source, id)) {
                Some(source) => finding.at(Place::of(diagnostic, &source.path, &source.text)),
                None => finding,
            });
        }
    }
}

fn without_limits(id: &str, policy: &CedarPolicy, why: &str) -> Result<(), String> {
    match OF_GRANTS.iter().find(|name| policy.annotation(name).is_some()) {
        Some(name) => Err(format!("the policy '{id}' {why}, so it cannot have @{name}")),
        None => Ok(()),
    }
}

fn has_id(source: &Source, id: &str) -> bool {
    PolicySet::from_str(&source.text)
        .is_ok_and(|set| set.policies().any(|policy| policy.annotation("id") == Some(id)))
}

/// Where a policy begins, as far as its id tells; the beginning of the file otherwise.
pub(super) fn offset_of(policy: &CedarPolicy, text: &str) -> usize {
    // Of two with the same id each is found by its own text, as Cedar has it.
    let own = policy.to_cedar().and_then(|own| text.find(&own));
    let after = own.unwrap_or(0);
    let by_id = policy.annotation("id").and_then(|id| text[after..].find(&format!("\"{id}\"")));
    by_id.map(|at| after + at).or(own).unwrap_or(0)
}

/// Hashes policies, roles and what is required of tokens: together they decide.
fn hash(sources: &[Source], world: World<'_>, with_people: bool) -> Result<String> {
    let written = |what: &str, done: serde_json::Result<Vec<u8>>| {
        done.map_err(|cause| {
            Error::new(ErrorKind::Other, format!("{what} cannot be written")).because(cause)
        })
    };
    let roles = written("the roles", serde_json::to_vec(world.roles))?;
    let trusted = written("the trusted issuers", serde_json::to_vec(world.trusted))?;
    let mut hasher = Hasher::new(&SHA256);
    let clients = written("the clients", serde_json::to_vec(world.clients))?;
    let people = world.directory.filter(|_| with_people);
    let people = people.map_or("", |directory| directory.hash());
    let settings = [schema().as_bytes(), &roles, &trusted, &clients, people.as_bytes()];
    for part in settings.into_iter().chain(sources.iter().map(|s| s.text.as_bytes())) {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    Ok(HEXLOWER.encode(hasher.finish().as_ref()))
}
