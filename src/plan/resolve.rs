//! From a request and the configuration to a plan.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use super::choose::{Choice, choose};
use super::{Identity, Plan, Reason, Request, detect, elevate};
use crate::config::diagnostic::{self, Problem, quoted};
use crate::config::rules::{self, pick, unknown_profile};
use crate::config::{self, Broken, Config, Origin, Profile};
use crate::credential::Proof;
use crate::error::{Error, ErrorKind, Result};
use crate::identity::Candidate;
use crate::mint;

/// Resolves what a run will do. Pure: it reads nothing but its arguments.
///
/// # Errors
/// Of kind [`ErrorKind::Config`], or [`ErrorKind::Usage`] where an option is wrong.
pub fn plan(request: &Request, config: &Config) -> Result<Plan> {
    let choice = choose(request, config)?;
    let resolver = Resolver::new(config, choice)?;
    resolver.plan(request)
}

/// The identity source to log in to or out of: the one of this name, or the only
/// one there is.
pub fn identity(config: &Config, name: Option<&str>) -> Result<Identity> {
    let all = &config.identities;
    if name.is_none() && all.len() > 1 {
        let names = diagnostic::list(all.keys().map(String::as_str)).unwrap_or_default();
        let message = format!("it is not said which identity is meant: there are {names}");
        return Err(Error::new(ErrorKind::Config, message).hint("name one of them"));
    }
    let named = name.map(|name| (name, Origin::BuiltIn));
    let (name, settings) = pick("identity", all, named, &Origin::BuiltIn)
        .map_err(|problem| problem.without_place().into_error())?;
    Ok(Identity { name: name.into(), settings: settings.clone() })
}

/// Resolves one profile.
struct Resolver<'a> {
    config: &'a Config,
    name: String,
    /// The profile and those that it extends, nearest first.
    line: Vec<(&'a str, &'a Profile)>,
    reasons: Vec<Reason>,
}

impl<'a> Resolver<'a> {
    fn new(config: &'a Config, choice: Choice) -> Result<Self> {
        let name = choice.profile;
        let line = config.lineage(&name).map_err(|broken| {
            let origin = config.origin(&["profile", &name, "extends"]);
            let problem = match &broken {
                Broken::Loop(names) => rules::circle(names, origin),
                Broken::TooLong => rules::too_long(&name, origin),
                Broken::Missing { name: missing, .. } => unknown_profile(config, missing, origin),
            };
            problem.into_error()
        })?;
        let reasons = vec![reason("profile", &name, choice.reason)];
        let mut resolver = Self { config, name, line, reasons };
        for (name, profile) in resolver.line.clone() {
            if let Some(base) = &profile.extends {
                let origin = config.origin(&["profile", name, "extends"]);
                resolver.explain("extends", base, origin);
            }
        }
        Ok(resolver)
    }

    fn plan(mut self, request: &Request) -> Result<Plan> {
        let identity = self.identity(&request.detected)?;
        let mut target = self.target()?;
        let exchanged = self.nearest(|p| p.exchange.as_deref()).is_some_and(|(_, e)| !e.is_empty());
        target
            .fit(identity.settings.portal(), exchanged)
            .map_err(|refusal| self.refused(refusal, request))?;
        let next = target.open().assertion_audience();
        // The role that is had under a grant is one of a broker: of the target, or of the way there.
        let elevate = request.elevate.as_deref();
        let (here, on_the_way) =
            if target.broker().is_some() { (elevate, None) } else { (None, elevate) };
        let exchanges = self.exchanges(next, on_the_way)?;
        let proof = identity.settings.proof();
        if proof == Proof::AwsAccessKeys && !exchanges.is_empty() {
            return Err(self.refused(mint::Refusal::access_keys(), request));
        }
        let role = match here {
            Some(role) => {
                elevate::check_role(role)?;
                self.explain("role", role, "--elevate");
                role.to_string()
            }
            None => self.text("role", request.role.as_deref(), |p| p.role.as_deref(), "deploy")?,
        };
        let (scope, audience) = match target.own_audience() {
            Some(own) => {
                self.refuse_idle(request)?;
                (Vec::new(), own)
            }
            None => {
                let scope = self.scope(request)?;
                let example = "https://api.example.com";
                let asked = request.audience.as_deref();
                (scope, self.text("audience", asked, |p| p.audience.as_deref(), example)?)
            }
        };
        let ttl = self.ttl(request, target.lasts(&role))?;
        let narrowed = target.narrow(&role, &request.narrowing);
        narrowed
            .and_then(|()| target.check(&role, request.role.is_some(), ttl, Some(proof)))
            .map_err(|refusal| self.refused(refusal, request))?;
        for (index, step) in target.steps(&role, proof).iter().enumerate() {
            self.explain(&format!("step {}", index + 1), step, "target");
        }
        let request = mint::Request { role, scope, audience, ttl, elevation: None };
        let expected_runtime = self.expected_runtime();
        let env = self.env();
        Ok(Plan {
            profile: self.name,
            identity,
            exchanges,
            target,
            request,
            env,
            expected_runtime,
            reasons: self.reasons,
        })
    }

    /// What the nearest profile says that says anything of `key`, and its name.
    fn nearest<T>(&self, get: impl Fn(&'a Profile) -> Option<T>) -> Option<(&'a str, T)> {
        self.line.iter().find_map(|(name, profile)| Some((*name, get(profile)?)))
    }

    fn origin(&self, profile: &str, path: &[&str]) -> Origin {
        self.config.origin(&[&["profile", profile], path].concat())
    }

    /// Where the planned profile itself is.
    fn here(&self) -> Origin {
        self.origin(&self.name, &[])
    }

    fn explain(&mut self, what: &str, value: impl Display, origin: impl Display) {
        self.reasons.push(reason(what, value, origin));
    }

    fn identity(&mut self, detected: &[Candidate]) -> Result<Identity> {
        let named = self.nearest(|profile| profile.identity.as_deref());
        if named.is_none() && self.config.identities.len() != 1 && !detected.is_empty() {
            let (found, why) = detect::choose(&self.name, detected)?;
            let (name, settings) = (found.name.clone(), found.settings.clone());
            self.explain("identity", format!("{name} ({})", settings.kind()), why);
            return Ok(Identity { name, settings });
        }
        let named = named.map(|(by, name)| (name, self.origin(by, &["identity"])));
        let why = named.as_ref().map(|(_, origin)| origin.to_string());
        let (name, settings) = pick("identity", &self.config.identities, named, &self.here())
            .map_err(Problem::into_error)?;
        let why = why.unwrap_or_else(|| self.only_one(&["identity", name]));
        self.explain("identity", format!("{name} ({})", settings.kind()), why);
        Ok(Identity { name: name.into(), settings: settings.clone() })
    }

    fn only_one(&self, path: &[&str]) -> String {
        format!("the only one, {}", self.config.origin(path))
    }

    /// The broker that is named at this place; without a name the only one.
    fn broker(
        &self,
        name: Option<&str>,
        origin: Origin,
    ) -> Result<(&'a str, mint::broker::Server, String)> {
        let why = name.map(|_| origin.to_string());
        let named = name.map(|name| (name, origin));
        let (name, server) = pick("broker", &self.config.brokers, named, &self.here())
            .map_err(Problem::into_error)?;
        let why = why.unwrap_or_else(|| self.only_one(&["broker", name]));
        Ok((name, server.clone(), why))
    }

    fn target(&mut self) -> Result<mint::Plan> {
        let named = self.nearest(|profile| profile.target.as_ref());
        let by = named.map_or("", |(by, _)| by);
        let default = mint::Settings::Broker(mint::broker::Settings { broker: None, dpop: None });
        let settings = named.map_or(&default, |(_, target)| &target.0);
        let mut explained = (settings.kind().to_string(), self.origin(by, &["target"]).to_string());
        match settings {
            mint::Settings::Aws(aws) => {
                explained.0 = format!("{} ({})", explained.0, aws.place());
            }
            mint::Settings::AwsSso(sso) => {
                explained.0 = format!("{} (account {})", explained.0, sso.account_id);
            }
            mint::Settings::Broker(_) => {}
        }
        let mut broker = "";
        let plan = settings.plan(|name| {
            let (name, server, why) = self.broker(name, self.origin(by, &["target", "broker"]))?;
            explained = (format!("{} {name} ({})", settings.kind(), server.url), why);
            broker = name;
            Ok::<_, Error>(server)
        })?;
        self.explain("target", explained.0, explained.1);
        if plan.binds() {
            let own = self.origin(by, &["target", "dpop"]);
            let origin = match own {
                Origin::BuiltIn => self.config.origin(&["broker", broker, "dpop"]),
                own => own,
            };
            self.explain("dpop", "the token is bound to the key of this device", origin);
        }
        Ok(plan)
    }

    /// The steps before the target. `last` is whom the last assertion must be
    /// for, unless the step says otherwise. `elevate` is the role of the only one.
    fn exchanges(&mut self, last: String, elevate: Option<&str>) -> Result<Vec<mint::Exchange>> {
        let (by, steps) = self.nearest(|profile| profile.exchange.as_deref()).unwrap_or(("", &[]));
        if let Some(role) = elevate {
            elevate::check_role(role)?;
            elevate::check_exchanges(&self.name, steps.len())?;
        }
        let mut next = last;
        let mut exchanges = Vec::new();
        let mut reasons = Vec::new();
        for (index, step) in steps.iter().enumerate().rev() {
            let at = index.to_string();
            let (name, server, _) =
                self.broker(step.broker.as_deref(), self.origin(by, &["exchange", &at, "broker"]))?;
            let audience = step.audience.clone().unwrap_or(next);
            next = server.audience();
            let role = elevate.unwrap_or(&step.role).to_string();
            let origin = match elevate {
                Some(_) => "--elevate".to_string(),
                None => self.origin(by, &["exchange", &at]).to_string(),
            };
            let value = format!("at {name}, as {role}, for {audience}");
            reasons.push(reason(&format!("exchange {}", index + 1), value, origin));
            let scope = step.scope.clone();
            exchanges.push(mint::Exchange { server, role, scope, audience, elevation: None });
        }
        exchanges.reverse();
        self.reasons.extend(reasons.into_iter().rev());
        Ok(exchanges)
    }

    /// A text that the plan cannot do without.
    fn text(
        &mut self,
        what: &str,
        option: Option<&str>,
        get: impl Fn(&'a Profile) -> Option<&'a str>,
        example: &str,
    ) -> Result<String> {
        if let Some(value) = option {
            rules::check_text(value)
                .map_err(|why| Error::new(ErrorKind::Usage, format!("`--{what}` {why}")))?;
            self.explain(what, value, format!("--{what}"));
            return Ok(value.into());
        }
        let Some((by, value)) = self.nearest(get) else {
            return Err(rules::lacks(&self.name, what, example, self.here()).into_error());
        };
        self.explain(what, value, self.origin(by, &[what]));
        Ok(value.into())
    }

    /// Refuses what this target has no use for: it would silently count for nothing.
    fn refuse_idle(&self, request: &Request) -> Result<()> {
        let why = "the profile's target has none";
        for (what, asked) in
            [("audience", request.audience.is_some()), ("scope", !request.scope.is_empty())]
        {
            if asked {
                return Err(Error::new(
                    ErrorKind::Usage,
                    format!("`--{what}` cannot be used here"),
                )
                .because_of(why));
            }
        }
        for (what, said) in [
            ("audience", self.nearest(|profile| profile.audience.as_ref().map(drop))),
            ("scope", self.nearest(|profile| profile.scope.as_ref().map(drop))),
        ] {
            if let Some((by, ())) = said {
                return Err(rules::idle(&self.name, what, self.origin(by, &[what])).into_error());
            }
        }
        Ok(())
    }

    /// The error for what the target cannot do: of the option, where one said it.
    fn refused(&self, refusal: mint::Refusal, request: &Request) -> Error {
        let by_option = match refusal.what {
            "role" => request.role.is_some(),
            "ttl" => request.ttl.is_some(),
            "target" | "identity" => false,
            _ => true,
        };
        if by_option {
            let title = format!("`--{}` cannot be used here", refusal.what);
            let error = Error::new(ErrorKind::Usage, title).because_of(refusal.why);
            return refusal.hint.into_iter().fold(error, Error::hint);
        }
        let by = self.line.iter().find(|(name, _)| {
            self.config.origin(&["profile", name, refusal.what]) != Origin::BuiltIn
        });
        let origin = by.map_or_else(|| self.here(), |(by, _)| self.origin(by, &[refusal.what]));
        rules::refused(&self.name, refusal, origin).into_error()
    }

    fn scope(&mut self, request: &Request) -> Result<Vec<String>> {
        if !request.scope.is_empty() {
            for scope in &request.scope {
                rules::check_scope(scope).map_err(|why| {
                    Error::new(ErrorKind::Usage, format!("`--scope` is not valid: {why}"))
                        .because_of(format!("it is {}", quoted(scope)))
                })?;
            }
            self.explain("scope", request.scope.join(" "), "--scope");
            return Ok(request.scope.clone());
        }
        match self.nearest(|profile| profile.scope.as_ref()) {
            Some((by, scope)) if !scope.is_empty() => {
                self.explain("scope", scope.join(" "), self.origin(by, &["scope"]));
                Ok(scope.clone())
            }
            said => {
                let origin = said.map_or(Origin::BuiltIn, |(by, _)| self.origin(by, &["scope"]));
                self.explain("scope", "all that policy gives", origin);
                Ok(Vec::new())
            }
        }
    }

    /// The lifetime to ask for. Where nobody says one, a credential `lasts` so long.
    fn ttl(&mut self, request: &Request, lasts: mint::Lasts) -> Result<Option<Duration>> {
        if let Some(ttl) = request.ttl {
            config::check_ttl(ttl).map_err(|why| {
                Error::new(ErrorKind::Usage, format!("`--ttl` is not valid: {why}"))
            })?;
            self.explain("ttl", humantime::format_duration(ttl), "--ttl");
            return Ok(Some(ttl));
        }
        match self.nearest(|profile| profile.ttl) {
            Some((by, ttl)) => {
                self.explain("ttl", humantime::format_duration(ttl), self.origin(by, &["ttl"]));
                Ok(Some(ttl))
            }
            None => {
                match lasts {
                    mint::Lasts::AsPolicySays => {
                        self.explain("ttl", "as long as policy gives", Origin::BuiltIn);
                    }
                    mint::Lasts::AsPermissionSetSays => {
                        self.explain("ttl", "as long as the permission set says", "target");
                    }
                    mint::Lasts::Usually(ttl) => {
                        let why = "what AWS gives where nobody asks for a lifetime";
                        self.explain("ttl", humantime::format_duration(ttl), why);
                    }
                }
                Ok(None)
            }
        }
    }

    fn expected_runtime(&mut self) -> Option<Duration> {
        let (by, expected) = self.nearest(|profile| profile.expected_runtime)?;
        let origin = self.origin(by, &["expected_runtime"]);
        self.explain("expected_runtime", humantime::format_duration(expected), origin);
        Some(expected)
    }

    /// The variables of all profiles in the line, those of the nearest first.
    fn env(&mut self) -> BTreeMap<String, String> {
        let mut env = BTreeMap::new();
        let mut reasons = BTreeMap::new();
        for (by, profile) in self.line.iter().rev() {
            for (name, template) in &profile.env {
                let origin = self.origin(by, &["env", name]);
                reasons.insert(name.clone(), reason(&format!("env.{name}"), template, origin));
                env.insert(name.clone(), template.clone());
            }
        }
        self.reasons.extend(reasons.into_values());
        env
    }
}

fn reason(what: &str, value: impl Display, origin: impl Display) -> Reason {
    Reason { what: what.into(), value: value.to_string(), origin: origin.to_string() }
}
