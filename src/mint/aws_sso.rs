//! The target `aws-sso`: the credentials of a role that IAM Identity Center assigns.
//!
//! The role is the name of a permission set. How long its credentials last, the
//! permission set says.

use async_trait::async_trait;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Narrowing, Refusal, Request, Target};
use crate::aws::sso::Server;
use crate::aws::sso::portal::Portal;
use crate::aws::{AccountId, Region};
use crate::credential::{Assertion, Credential, Lifetime, Material};
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;

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

    /// Tells what of a request cannot be had, before anybody is asked.
    ///
    /// # Errors
    /// With the name of the value that is wrong.
    pub fn check(&self, role: &str, ttl: Option<std::time::Duration>) -> Result<(), Refusal> {
        let legal = |c: char| c.is_ascii_alphanumeric() || "_+=,.@-".contains(c);
        if role.is_empty() || role.chars().count() > ROLE_MAX || !role.chars().all(legal) {
            let why = "this is no name of a permission set, such as `AdministratorAccess`";
            return Err(Refusal::new("role", why));
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
    /// Always: Identity Center knows no session policies.
    pub fn narrow(&self, by: &Narrowing) -> Result<(), Refusal> {
        let option = match by {
            by if by.is_empty() => return Ok(()),
            Narrowing { policy: Some(_), .. } => "policy",
            Narrowing { read_only: true, .. } => "read-only",
            _ => "policy-arn",
        };
        Err(Refusal::new(option, "IAM Identity Center knows no session policies")
            .hint("use a permission set that allows less, with `--role`"))
    }

    /// The steps, for people.
    pub fn steps(&self, role: &str) -> Vec<String> {
        vec![format!("GetRoleCredentials of {role} in the account {}", self.settings.account_id)]
    }
}

/// IAM Identity Center as a target.
pub struct AwsSso {
    plan: Plan,
}

impl AwsSso {
    /// The target of this plan.
    pub fn new(plan: Plan) -> Self {
        Self { plan }
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
        self.plan.check(&request.role, request.ttl).map_err(Refusal::into_error)?;
        let what = format!(
            "IAM Identity Center gives no credentials of the role {} in the account {}",
            request.role, settings.account_id
        );
        let Some(portal) = portal else {
            return Err(Error::new(ErrorKind::Config, what)
                .because_of("the profile's identity is none of the type `aws-sso`"));
        };
        let portal = Portal::new(host, portal, &assertion.token)?;
        let given = portal.role_credentials(&settings.account_id, &request.role).await;
        host.tell_skew();
        let given = given.map_err(|failure| failure.error(&what))?;
        let expires_at = given.checked().map_err(|error| error.context(&what))?;
        let lifetime = Lifetime::new(
            host.corrected_now(),
            expires_at,
            host.skew.get(),
            host.clock.machine_started(),
        );
        Ok(Credential {
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
        })
    }
}
