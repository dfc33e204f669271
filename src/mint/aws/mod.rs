//! The target `aws`: temporary credentials of AWS, from its Security Token Service.
//!
//! The assertion is traded for a session of a role (`AssumeRoleWithWebIdentity`),
//! and where the target has a `chain`, that session for one of another role
//! (`AssumeRole`), and so on. Long-lived access keys, which only an identity of the
//! type `aws-keys` has, sign for a session of a role (`AssumeRole`) or of their user
//! (`GetSessionToken`). No credential is looked for in files or at a metadata server.

mod connector;
mod failure;
mod lasting;
mod mfa;
mod names;
mod policy;
mod settings;
mod sts;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use async_trait::async_trait;

pub(super) use lasting::least_of_grant;
pub use mfa::Mfa;
pub use names::{
    AccountId, EndpointUrl, MfaSerial, PolicyArn, Region, RoleArn, SessionName, Start, UserArn,
};
pub use policy::SessionPolicy;
pub use settings::{Settings, Step};

use super::{Refusal, Request, Target};
use crate::credential::{
    AccessKeys, Assertion, Credential, Lifetime, Material, Principal, Proof,
};
use crate::error::{Error, ErrorKind, Result, foreign};
use crate::host::Host;
use crate::reach::Effort;
use sts::{Session, Signer, Sts};

/// AWS as a target.
pub struct Aws {
    settings: Settings,
    effort: Effort,
}

impl Aws {
    /// The target that these settings describe.
    pub fn new(settings: Settings) -> Self {
        Self { settings, effort: Effort::MINT }
    }

    /// The first session, from what proves who is calling.
    async fn first(
        &self,
        sts: &Sts<'_>,
        assertion: &Assertion,
        start: &Start,
        ttl: Option<Duration>,
    ) -> Result<Session> {
        if assertion.proof() == Proof::Token {
            return match start {
                Start::Role(role) => sts.with_web_identity(assertion, role, ttl).await,
                // It was refused before.
                Start::User(_) => Err(Error::new(ErrorKind::Config, "a token gives no session of a user")),
            };
        }
        let keys = AccessKeys::read(&assertion.token)
            .ok_or_else(|| Error::new(ErrorKind::Other, "the access keys cannot be read"))?;
        let signer = Signer::from(&keys);
        match start {
            Start::Role(role) => {
                let session = self.settings.session();
                sts.of_role(&signer, role, &session, &assertion.principal, ttl).await
            }
            Start::User(user) => {
                let session = sts.of_user(&signer, user, self.settings.mfa.as_ref(), ttl).await?;
                match self.settings.chain.is_empty() {
                    true => sts.check_user(session, user).await,
                    // The roles' own trust policies say who may assume them.
                    false => Ok(session),
                }
            }
        }
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
        let start = Start::parse(&request.role)
            .map_err(|why| Error::new(ErrorKind::Config, "the role is none of AWS").because_of(why))?;
        self.settings
            .check(&request.role, false, request.ttl, Some(assertion.proof()))
            .map_err(Refusal::into_error)?;
        let sts = Sts::new(host, &self.settings, self.effort, Instant::now())?;
        let sts = sts.ending(assertion.grant_ends);
        let ttl = if chain.is_empty() { request.ttl } else { PASSING };
        let first = self.first(&sts, assertion, &start, ttl).await;
        host.tell_skew();
        let session = through(&sts, first?, chain, &assertion.principal, request.ttl).await?;
        check_account(&self.settings, &session)?;
        let role = self.settings.last(&start).to_string();
        Ok(session.into_credential(host, &self.settings, role, assertion.principal.clone()))
    }

    fn with_effort(&mut self, effort: Effort) {
        self.effort = effort;
    }
}

/// Goes on from the credential of a first role to that of the last role of the chain.
/// `started` is when somebody was first asked for it.
pub(super) async fn onward(
    host: &Host,
    settings: &Settings,
    (effort, started): (Effort, Instant),
    first: Credential,
    ttl: Option<Duration>,
) -> Result<Credential> {
    let Some(last) = settings.chain.last() else { return Ok(first) };
    let role = last.role_arn.to_string();
    let sts = Sts::new(host, settings, effort, started)?;
    let principal = first.principal.clone();
    let session = Session::of(first)
        .ok_or_else(|| Error::new(ErrorKind::Other, "the first role's credential is none of AWS"))?;
    let session = through(&sts, session, &settings.chain, &principal, ttl).await;
    host.tell_skew();
    let session = session?;
    check_account(settings, &session)?;
    Ok(session.into_credential(host, settings, role, principal))
}

/// How long a session is asked for that only assumes the next role: it need not last.
const PASSING: Option<Duration> = Some(settings::TTL_MIN);

/// Assumes each role of a chain with the session of the one before. The last is good for `ttl`.
async fn through(
    sts: &Sts<'_>,
    mut session: Session,
    chain: &[Step],
    principal: &Principal,
    ttl: Option<Duration>,
) -> Result<Session> {
    for (index, step) in chain.iter().enumerate() {
        let ttl = if index + 1 == chain.len() { ttl } else { PASSING };
        let (signer, wanted) = (Signer::from(&session), step.session());
        session = sts.of_role(&signer, &step.role_arn, &wanted, principal, ttl).await?;
    }
    Ok(session)
}

/// Refuses a session of an account that is not expected.
fn check_account(settings: &Settings, session: &Session) -> Result<()> {
    let account = names::account(&session.user_arn);
    if settings.expects(account) {
        return Ok(());
    }
    let is = account.unwrap_or("none");
    Err(Error::new(ErrorKind::Verification, "the credential is of another account than expected")
        .because_of(format!("the account is {}", foreign(is)))
        .hint(EXPECTED))
}

/// What to look at where an account is not expected.
pub(super) const EXPECTED: &str =
    "`expect_account` of the target lists the accounts that may be used";

impl Session {
    /// The session that a credential is of; `None` where it is none of AWS.
    fn of(credential: Credential) -> Option<Self> {
        let expires_at = credential.lifetime.expires_at;
        let user_arn = credential.role;
        match credential.material {
            Material::Aws { access_key_id, secret_access_key, session_token, .. } => Some(Self {
                access_key_id,
                secret_access_key,
                session_token,
                expires_at,
                user_arn,
            }),
            Material::Bearer { .. } | Material::Bound { .. } => None,
        }
    }

    fn into_credential(
        self,
        host: &Host,
        settings: &Settings,
        role: String,
        principal: Principal,
    ) -> Credential {
        let (skew, started) = (host.skew.get(), host.clock.machine_started());
        Credential {
            material: Material::Aws {
                access_key_id: self.access_key_id,
                secret_access_key: self.secret_access_key,
                session_token: self.session_token,
                region: settings.region.as_ref().map(ToString::to_string),
            },
            role,
            scope: Vec::new(),
            principal,
            lifetime: Lifetime::new(host.corrected_now(), self.expires_at, skew, started),
        }
    }
}
