//! The target `aws`: temporary credentials of AWS, from its Security Token Service.
//!
//! The assertion is traded for a session of a role (`AssumeRoleWithWebIdentity`),
//! and where the target has a `chain`, that session for one of another role
//! (`AssumeRole`), and so on. No credential is looked for in the environment, in
//! files or at a metadata server.

mod failure;
mod names;
mod policy;
mod sts;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use names::{AccountId, EndpointUrl, PolicyArn, Region, RoleArn, SessionName};
pub use policy::SessionPolicy;

use super::{Narrowing, Refusal, Request, Target};
use crate::credential::{Assertion, Credential, Lifetime, Material};
use crate::error::{Error, ErrorKind, Result, foreign};
use crate::host::Host;
use sts::{Session, Sts};

/// The audience that AWS's own tools and guides use for web identities.
const AUDIENCE: &str = "sts.amazonaws.com";
/// The shortest session:
/// <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html>.
const TTL_MIN: Duration = Duration::from_secs(900);
/// The longest session. A role may allow less.
const TTL_MAX: Duration = Duration::from_secs(43_200);
/// The longest session of a role that was assumed with another role's session.
const TTL_CHAINED_MAX: Duration = Duration::from_secs(3_600);

/// A profile's target: roles in AWS. The first is the profile's `role`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The region whose endpoint is asked, and that commands are told. Where left
    /// out: the global endpoint.
    #[serde(default)]
    pub region: Option<Region>,
    /// Whether to use endpoints that comply with FIPS 140.
    #[serde(default)]
    pub use_fips: bool,
    /// Another server that speaks the protocol of STS.
    #[serde(default)]
    pub endpoint_url: Option<EndpointUrl>,
    /// A PEM file with certificate authorities to trust besides the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// The audience that assertions are bound to. Where left out: `sts.amazonaws.com`.
    #[serde(default)]
    pub audience: Option<String>,
    /// The name of the session; `{subject}` stands for whoever is calling.
    #[serde(default)]
    pub session_name: Option<SessionName>,
    /// A session policy: what of the role's permissions the session keeps.
    #[serde(default)]
    pub policy: Option<String>,
    /// A JSON file with the session policy.
    #[serde(default)]
    pub policy_file: Option<PathBuf>,
    /// The ARNs of managed policies that are session policies.
    #[serde(default)]
    pub policy_arns: Vec<PolicyArn>,
    /// Further roles, each assumed with the session of the one before.
    #[serde(default)]
    pub chain: Vec<Step>,
    /// The accounts of which one must be that of the credential.
    #[serde(default)]
    pub expect_account: Vec<AccountId>,
}

/// A role that is assumed with the session of another.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// The role.
    pub role_arn: RoleArn,
    /// What the role's trust policy asks for where the role is somebody else's.
    #[serde(default)]
    pub external_id: Option<String>,
    /// The name of the session; `{subject}` stands for whoever is calling.
    #[serde(default)]
    pub session_name: Option<SessionName>,
    /// Who acts, for the logs of AWS. It stays with the session.
    #[serde(default)]
    pub source_identity: Option<String>,
    /// Session tags.
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// The keys of the tags that go on to the roles behind this one.
    #[serde(default)]
    pub transitive_tags: Vec<String>,
    /// A session policy: what of the role's permissions the session keeps.
    #[serde(default)]
    pub policy: Option<String>,
    /// A JSON file with the session policy.
    #[serde(default)]
    pub policy_file: Option<PathBuf>,
    /// The ARNs of managed policies that are session policies.
    #[serde(default)]
    pub policy_arns: Vec<PolicyArn>,
}

impl Settings {
    /// The audience that an assertion must be bound to.
    pub fn audience(&self) -> String {
        self.audience.clone().unwrap_or_else(|| AUDIENCE.to_string())
    }

    /// Tells what of a request cannot be had, before anybody is asked.
    ///
    /// # Errors
    /// With the name of the value that is wrong.
    pub fn check(
        &self,
        role: &str,
        role_is_option: bool,
        ttl: Option<Duration>,
    ) -> Result<(), Refusal> {
        let first = RoleArn::parse(role).map_err(|why| Refusal::new("role", why))?;
        if role_is_option && !self.chain.is_empty() {
            let why = "this profile goes through a chain of roles, and it is not said which one to replace";
            return Err(Refusal::new("role", why).hint("write a profile of its own for that role"));
        }
        self.check_ttl(ttl)?;
        if self.region.is_none() && self.endpoint_url.is_none() && first.partition() != "aws" {
            let why = format!("the partition `{}` has no global endpoint", first.partition());
            return Err(Refusal::new("target", why).hint("say `region` in the profile's target"));
        }
        let last = self.chain.last().map_or(&first, |step| &step.role_arn);
        if !self.expects(last.account()) {
            let account = last.account().unwrap_or("none");
            return Err(Refusal::new("role", format!("its account is {account}"))
                .hint("`expect_account` of the target lists the accounts that may be used"));
        }
        Ok(())
    }

    fn check_ttl(&self, ttl: Option<Duration>) -> Result<(), Refusal> {
        let Some(ttl) = ttl else { return Ok(()) };
        let shown = humantime::format_duration;
        // Another server may grant less; it will tell.
        let min = if self.endpoint_url.is_some() { Duration::ZERO } else { TTL_MIN };
        if !(min..=TTL_MAX).contains(&ttl) {
            let why = format!("sessions of AWS last from {} to {}", shown(TTL_MIN), shown(TTL_MAX));
            return Err(Refusal::new("ttl", why));
        }
        if !self.chain.is_empty() && ttl > TTL_CHAINED_MAX {
            let why = format!(
                "AWS ends the session of a role that another role assumed after {}, whatever the role allows",
                shown(TTL_CHAINED_MAX)
            );
            let hint = "ask for less, or let the identity provider's assertion assume the last role directly";
            return Err(Refusal::new("ttl", why).hint(hint));
        }
        Ok(())
    }

    /// Whether a credential of this account is one that is expected.
    fn expects(&self, account: Option<&str>) -> bool {
        self.expect_account.is_empty()
            || account.is_some_and(|is| self.expect_account.iter().any(|e| e.as_str() == is))
    }

    /// Makes the credential good for less than the role is.
    ///
    /// # Errors
    /// Where the profile has session policies already: what several of them allow
    /// adds up.
    pub fn narrow(&mut self, role: &str, by: &Narrowing) -> Result<(), Refusal> {
        if by.is_empty() {
            return Ok(());
        }
        let refused = |why: String| Refusal::new("policy", why);
        let mut arns = Vec::new();
        for arn in &by.policy_arns {
            arns.push(PolicyArn::parse(arn).map_err(|why| Refusal::new("policy-arn", why))?);
        }
        let last = match self.chain.last() {
            Some(step) => step.role_arn.clone(),
            None => RoleArn::parse(role).map_err(|why| Refusal::new("role", why))?,
        };
        if by.read_only {
            let arn = format!("arn:{}:iam::aws:policy/ReadOnlyAccess", last.partition());
            arns.push(PolicyArn::parse(&arn).map_err(refused)?);
        }
        let place = self.last_policy();
        if !place.is_empty() {
            let why = "the profile has a session policy already, and another one would widen it";
            return Err(refused(why.into()));
        }
        *place.policy = by.policy.clone();
        *place.policy_arns = arns;
        place.as_policy().check().map_err(refused)
    }

    /// Reads the files that the settings name, and checks all session policies.
    ///
    /// # Errors
    /// [`ErrorKind::Config`].
    pub fn complete(&mut self) -> Result<()> {
        let first = policy::Place {
            policy: &mut self.policy,
            file: &self.policy_file,
            policy_arns: &mut self.policy_arns,
        };
        let steps = self.chain.iter_mut().map(|step| policy::Place {
            policy: &mut step.policy,
            file: &step.policy_file,
            policy_arns: &mut step.policy_arns,
        });
        std::iter::once(first).chain(steps).try_for_each(policy::Place::complete)
    }

    fn last_policy(&mut self) -> policy::Place<'_> {
        match self.chain.last_mut() {
            Some(step) => policy::Place {
                policy: &mut step.policy,
                file: &step.policy_file,
                policy_arns: &mut step.policy_arns,
            },
            None => policy::Place {
                policy: &mut self.policy,
                file: &self.policy_file,
                policy_arns: &mut self.policy_arns,
            },
        }
    }

    /// The steps, for people.
    pub fn steps(&self, role: &str) -> Vec<String> {
        let step = |what: &str, role: &str, name: &Option<SessionName>, policy: SessionPolicy<'_>| {
            let name = name.clone().unwrap_or_default();
            format!("{what} of {role}, as {name}{}", policy.shown())
        };
        let first =
            step("AssumeRoleWithWebIdentity", role, &self.session_name, self.session_policy());
        let rest = self.chain.iter().map(|s| {
            step("AssumeRole", s.role_arn.as_str(), &s.session_name, s.session_policy())
        });
        std::iter::once(first).chain(rest).collect()
    }

    /// Who is asked, for people.
    pub fn place(&self) -> String {
        match (&self.endpoint_url, &self.region) {
            (Some(url), _) => url.to_string(),
            (None, Some(region)) => region.to_string(),
            (None, None) => "global endpoint".to_string(),
        }
    }

    fn session_policy(&self) -> SessionPolicy<'_> {
        let text = self.policy.as_deref();
        SessionPolicy { text, file: self.policy_file.as_deref(), arns: &self.policy_arns }
    }
}

impl Step {
    fn session_policy(&self) -> SessionPolicy<'_> {
        let text = self.policy.as_deref();
        SessionPolicy { text, file: self.policy_file.as_deref(), arns: &self.policy_arns }
    }
}

/// AWS as a target.
pub struct Aws {
    settings: Settings,
}

impl Aws {
    /// The target that these settings describe.
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// Refuses a session of an account that is not expected.
    fn check_account(&self, session: &Session) -> Result<()> {
        let account = names::account(&session.user_arn);
        if self.settings.expects(account) {
            return Ok(());
        }
        let is = account.unwrap_or("none");
        Err(Error::new(ErrorKind::Verification, "the credential is of another account than expected")
            .because_of(format!("the account is {}", foreign(is)))
            .hint("`expect_account` of the target lists the accounts that may be used"))
    }
}

#[async_trait(?Send)]
impl Target for Aws {
    fn assertion_audience(&self) -> String {
        self.settings.audience()
    }

    async fn mint(
        &self,
        host: &Host,
        assertion: &Assertion,
        request: &Request,
    ) -> Result<Credential> {
        let Settings { chain, .. } = &self.settings;
        let role = RoleArn::parse(&request.role)
            .map_err(|why| Error::new(ErrorKind::Config, "the role is none of AWS").because_of(why))?;
        self.settings.check(&request.role, false, request.ttl).map_err(Refusal::into_error)?;
        let sts = Sts::new(host, &self.settings)?;
        // A session that only assumes the next role need not last.
        let ttl = |last: bool| if last { request.ttl } else { Some(TTL_MIN) };
        let minted = sts.with_web_identity(assertion, &role, ttl(chain.is_empty())).await;
        host.tell_skew();
        let mut session = minted?;
        for (index, step) in chain.iter().enumerate() {
            let last = index + 1 == chain.len();
            session = sts.with_session(&session, step, &assertion.principal, ttl(last)).await?;
        }
        self.check_account(&session)?;
        let lifetime = Lifetime::new(
            host.corrected_now(),
            session.expires_at,
            host.skew.get(),
            host.clock.machine_started(),
        );
        let last = chain.last().map_or(&role, |step| &step.role_arn);
        Ok(Credential {
            material: Material::Aws {
                access_key_id: session.access_key_id,
                secret_access_key: session.secret_access_key,
                session_token: session.session_token,
                region: self.settings.region.as_ref().map(ToString::to_string),
            },
            role: last.to_string(),
            scope: Vec::new(),
            principal: assertion.principal.clone(),
            lifetime,
        })
    }
}
