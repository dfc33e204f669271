//! The target `aws-sso`: the credentials of a role that IAM Identity Center assigns.
//!
//! The role is the name of a permission set. How long its credentials last, the
//! permission set says. With a `chain`, that role's session is traded at AWS STS for one of
//! another role, and so on, as with the target `aws`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Lasts, Narrowing, Refusal, Request, Target, aws};
use crate::aws::sso::Server;
use crate::aws::sso::portal::Portal;
use crate::aws::{AccountId, EndpointUrl, Region};
use crate::credential::{Assertion, Credential, Lifetime, Material};
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::reach::Effort;

/// How long the name of a role may be:
/// <https://docs.aws.amazon.com/singlesignon/latest/APIReference/API_PermissionSet.html>.
const ROLE_MAX: usize = 32;

/// A profile's target: an account, in which the profile's `role` is the name of a
/// permission set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The account.
    pub account_id: AccountId,
    /// The region that commands are told.
    #[serde(default)]
    pub region: Option<Region>,
    /// Further roles, each assumed at AWS STS with the session of the one before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub chain: Vec<aws::Step>,
    /// Whether the further roles are assumed at an endpoint that complies with FIPS 140.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub use_fips: bool,
    /// Another server that speaks the protocol of STS, for the further roles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_url: Option<EndpointUrl>,
    /// A PEM file with certificate authorities to trust besides the system's, at that server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The accounts of which one must be that of the credential.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub expect_account: Vec<AccountId>,
}

/// The target, and the portal that the profile's identity logs in to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    settings: Settings,
    /// Filled in once the identity is known.
    portal: Option<Server>,
}

impl Plan {
    /// The plan, as far as the settings tell.
    pub fn new(settings: Settings) -> Self {
        Self { settings, portal: None }
    }

    /// Credentials come from this portal.
    pub fn at(&mut self, portal: Server) {
        self.portal = Some(portal);
    }

    /// The portal's address, which its tokens are bound to.
    pub fn audience(&self) -> String {
        self.portal.as_ref().map(|portal| portal.url().to_string()).unwrap_or_default()
    }

    /// The region that commands are told.
    pub fn region(&self) -> Option<&Region> {
        self.settings.region.as_ref()
    }

    /// The account.
    pub fn account(&self) -> &AccountId {
        &self.settings.account_id
    }

    /// The partition of its credentials: that of the Identity Center.
    pub fn partition(&self) -> Option<&'static str> {
        self.portal.as_ref().map(|portal| portal.region().partition())
    }

    /// The addresses that are asked.
    pub fn addresses(&self) -> Vec<String> {
        let sts = (!self.settings.chain.is_empty()).then(|| self.sts().address());
        std::iter::once(self.audience()).chain(sts).collect()
    }

    /// How the further roles are assumed: at the STS of the region that commands are told, or
    /// of the Identity Center's.
    fn sts(&self) -> aws::Settings {
        let Settings { region, chain, use_fips, endpoint_url, ca_file, expect_account, .. } =
            &self.settings;
        let home = self.portal.as_ref().map(|portal| portal.region().clone());
        aws::Settings {
            region: region.clone().or(home),
            use_fips: *use_fips,
            endpoint_url: endpoint_url.clone(),
            ca_file: ca_file.clone(),
            chain: chain.clone(),
            expect_account: expect_account.clone(),
            ..aws::Settings::default()
        }
    }

    /// Tells what of a request cannot be had, before anybody is asked. `role_is_option`: the
    /// role is not the profile's own.
    ///
    /// # Errors
    /// With the name of the value that is wrong.
    pub fn check(
        &self,
        role: &str,
        role_is_option: bool,
        ttl: Option<Duration>,
    ) -> Result<(), Refusal> {
        let legal = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
        if role.is_empty() || role.chars().count() > ROLE_MAX || !role.chars().all(legal) {
            let why = "this is no name of a permission set, such as `AdministratorAccess`";
            return Err(Refusal::new("role", why));
        }
        if let Some(step) = self.settings.chain.last() {
            let mut sts = self.sts();
            // Whose STS it will be is not known before the Identity Center is.
            sts.use_fips &= self.portal.is_some() || sts.region.is_some();
            return sts.check(step.role_arn.as_str(), role_is_option, ttl, None);
        }
        let account = self.account().as_str();
        if !self.sts().expects(Some(account)) {
            return Err(Refusal::new("target", format!("its account is {account}"))
                .hint(aws::EXPECTED));
        }
        if ttl.is_some() {
            let why = "the permission set says how long its credentials last";
            return Err(Refusal::new("ttl", why));
        }
        Ok(())
    }

    /// Makes the credential good for less than the role is.
    ///
    /// # Errors
    /// Without further roles: Identity Center knows no session policies.
    pub fn narrow(&mut self, by: &Narrowing) -> Result<(), Refusal> {
        if let Some(step) = self.settings.chain.last() {
            let (role, mut sts) = (step.role_arn.to_string(), self.sts());
            sts.narrow(&role, by)?;
            self.settings.chain = sts.chain;
            return Ok(());
        }
        let option = match by {
            by if by.is_empty() => return Ok(()),
            Narrowing { policy: Some(_), .. } => "policy",
            Narrowing { read_only: true, .. } => "read-only",
            _ => "policy-arn",
        };
        Err(Refusal::new(option, "IAM Identity Center knows no session policies")
            .hint("use a permission set that allows less, with `--role`"))
    }

    /// Reads the files that the settings name, and checks all session policies.
    ///
    /// # Errors
    /// [`ErrorKind::Config`].
    pub fn complete(&mut self) -> Result<()> {
        let mut sts = self.sts();
        sts.complete()?;
        self.settings.chain = sts.chain;
        Ok(())
    }

    /// How long its credentials last where nobody asks for a lifetime.
    pub fn lasts(&self) -> Lasts {
        match self.settings.chain.last() {
            Some(step) => Lasts::Usually(self.sts().usual_ttl(step.role_arn.as_str())),
            None => Lasts::AsPermissionSetSays,
        }
    }

    /// The steps, for people.
    pub fn steps(&self, role: &str) -> Vec<String> {
        let account = &self.settings.account_id;
        let first = format!("GetRoleCredentials of {role} in the account {account}");
        std::iter::once(first).chain(self.sts().further_steps()).collect()
    }
}

/// IAM Identity Center as a target.
pub struct AwsSso {
    plan: Plan,
    effort: Effort,
}

impl AwsSso {
    /// The target of this plan.
    pub fn new(plan: Plan) -> Self {
        Self { plan, effort: Effort::MINT }
    }
}

#[async_trait(?Send)]
impl Target for AwsSso {
    fn assertion_audience(&self) -> String {
        self.plan.audience()
    }

    async fn mint(
        &self,
        host: &Host,
        assertion: &Assertion,
        request: &Request,
    ) -> Result<Credential> {
        let Plan { settings, portal } = &self.plan;
        self.plan.check(&request.role, false, request.ttl).map_err(Refusal::into_error)?;
        let what = format!(
            "IAM Identity Center gives no credentials of the role {} in the account {}",
            request.role, settings.account_id
        );
        let Some(portal) = portal else {
            return Err(Error::new(ErrorKind::Config, what)
                .because_of("the profile's identity is none of the type `aws-sso`"));
        };
        let started = Instant::now();
        let portal = Portal::new(host, portal, &assertion.token)?
            .with_effort(self.effort, assertion.expires_at);
        let given = portal.role_credentials(&settings.account_id, &request.role).await;
        host.tell_skew();
        let given = given.map_err(|failure| failure.error(&what))?;
        let expires_at = given.checked().map_err(|error| error.context(&what))?;
        let now = host.corrected_now();
        if expires_at <= now {
            return Err(Error::new(ErrorKind::Verification, what)
                .because_of("the credentials in the answer have expired already")
                .hint("check this machine's clock"));
        }
        let lifetime = Lifetime::new(
            now,
            expires_at,
            host.skew.get(),
            host.clock.machine_started(),
        );
        let first = Credential {
            material: Material::Aws {
                access_key_id: given.access_key_id,
                secret_access_key: given.secret_access_key,
                session_token: given.session_token,
                region: settings.region.as_ref().map(ToString::to_string),
            },
            role: request.role.clone(),
            scope: Vec::new(),
            principal: assertion.principal.clone(),
            lifetime,
        };
        aws::onward(host, &self.plan.sts(), (self.effort, started), first, request.ttl).await
    }

    fn with_effort(&mut self, effort: Effort) {
        self.effort = effort;
    }
}
