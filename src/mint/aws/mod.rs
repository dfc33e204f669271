//! The target `aws`: temporary credentials of AWS, from its Security Token Service.
//!
//! The assertion is traded for a session of a role (`AssumeRoleWithWebIdentity`),
//! and where the target has a `chain`, that session for one of another role
//! (`AssumeRole`), and so on. Long-lived access keys, which only an identity of the
//! type `aws-keys` has, sign for a session of a role (`AssumeRole`) or of their user
//! (`GetSessionToken`). No credential is looked for in files or at a metadata server.

mod failure;
mod mfa;
mod names;
mod policy;
mod settings;
mod sts;
#[cfg(test)]
mod tests;

use async_trait::async_trait;

pub use mfa::Mfa;
pub use names::{
    AccountId, EndpointUrl, MfaSerial, PolicyArn, Region, RoleArn, SessionName, Start, UserArn,
};
pub use policy::SessionPolicy;
pub use settings::{Settings, Step};

use super::{Refusal, Request, Target};
use crate::credential::{AccessKeys, Assertion, Credential, Lifetime, Material, Proof};
use crate::error::{Error, ErrorKind, Result, foreign};
use crate::host::Host;
use sts::{Session, Signer, Sts};

/// AWS as a target.
pub struct Aws {
    settings: Settings,
}

impl Aws {
    /// The target that these settings describe.
    pub fn new(settings: Settings) -> Self {
        Self { settings }
    }

    /// The first session, from what proves who is calling.
    async fn first(
        &self,
        sts: &Sts<'_>,
        assertion: &Assertion,
        start: &Start,
        ttl: Option<std::time::Duration>,
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
        let start = Start::parse(&request.role)
            .map_err(|why| Error::new(ErrorKind::Config, "the role is none of AWS").because_of(why))?;
        self.settings
            .check(&request.role, false, request.ttl, Some(assertion.proof()))
            .map_err(Refusal::into_error)?;
        let sts = Sts::new(host, &self.settings)?;
        // A session that only assumes the next role need not last.
        let ttl = |last: bool| if last { request.ttl } else { Some(settings::TTL_MIN) };
        let first = self.first(&sts, assertion, &start, ttl(chain.is_empty())).await;
        host.tell_skew();
        let mut session = first?;
        for (index, step) in chain.iter().enumerate() {
            let last = index + 1 == chain.len();
            let (signer, wanted) = (Signer::from(&session), step.session());
            session = sts
                .of_role(&signer, &step.role_arn, &wanted, &assertion.principal, ttl(last))
                .await?;
        }
        self.check_account(&session)?;
        let lifetime = Lifetime::new(
            host.corrected_now(),
            session.expires_at,
            host.skew.get(),
            host.clock.machine_started(),
        );
        Ok(Credential {
            material: Material::Aws {
                access_key_id: session.access_key_id,
                secret_access_key: session.secret_access_key,
                session_token: session.session_token,
                region: self.settings.region.as_ref().map(ToString::to_string),
            },
            role: self.settings.last(&start).to_string(),
            scope: Vec::new(),
            principal: assertion.principal.clone(),
            lifetime,
        })
    }
}
