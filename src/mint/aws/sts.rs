//! The calls of STS, through the official SDK and our own HTTP client.

use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use aws_sdk_sts::config::http::HttpResponse;
use aws_sdk_sts::config::retry::RetryConfig;
use aws_sdk_sts::config::timeout::TimeoutConfig;
use aws_sdk_sts::config::{
    BehaviorVersion, Credentials, Region, SharedCredentialsProvider, SharedHttpClient,
    StalledStreamProtectionConfig,
};
use aws_sdk_sts::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_sts::types::{AssumedRoleUser, PolicyDescriptorType, Tag};
use aws_sdk_sts::{Client, Config, types};
use aws_smithy_async::time::TimeSource;
use time::OffsetDateTime;

use super::connector::Connector;
use super::failure::{self, Asked};
use super::lasting;
use super::policy::SessionPolicy;
use super::settings::Session as Wanted;
use super::{Mfa, RoleArn, Settings, UserArn};
use crate::credential::{AccessKeys, Assertion, Principal};
use crate::error::{Error, ErrorKind, Result, foreign};
use crate::host::Host;
use crate::host::clock::{Clock, SkewMeter};
use crate::reach::{self, Effort};
use crate::secret::Secret;

/// Who is asked, for people.
const WHO: &str = "AWS STS";
/// What the SDK calls the global endpoint.
const GLOBAL: &str = "aws-global";
/// How far the time of a signature may be off: AWS allows five minutes.
const SIGNED_FOR: time::Duration = time::Duration::minutes(4);
/// With another server the region counts for signatures only.
const ELSEWHERE: &str = "us-east-1";

/// A session of a role or of a user.
pub(super) struct Session {
    pub(super) access_key_id: Secret<String>,
    pub(super) secret_access_key: Secret<String>,
    pub(super) session_token: Secret<String>,
    pub(super) expires_at: OffsetDateTime,
    /// The ARN of the role and the session, or of the user.
    pub(super) user_arn: String,
}

/// Whoever signs a request.
pub(super) struct Signer<'a> {
    id: &'a Secret<String>,
    secret: &'a Secret<String>,
    session: Option<&'a Secret<String>>,
    /// When what it signs with ends, where that is known.
    until: Option<OffsetDateTime>,
    /// What people call it.
    pub(super) name: &'a str,
}

impl<'a> From<&'a Session> for Signer<'a> {
    fn from(session: &'a Session) -> Self {
        Self {
            id: &session.access_key_id,
            secret: &session.secret_access_key,
            session: Some(&session.session_token),
            until: Some(session.expires_at),
            name: &session.user_arn,
        }
    }
}

impl<'a> From<&'a AccessKeys> for Signer<'a> {
    fn from(keys: &'a AccessKeys) -> Self {
        let name = "whoever has the access keys";
        let (id, secret, session) = (&keys.id, &keys.secret, keys.session.as_ref());
        Self { id, secret, session, until: None, name }
    }
}

impl Signer<'_> {
    /// Whether these are access keys, not a session.
    pub(super) fn is_long_lived(&self) -> bool {
        self.session.is_none()
    }

    /// All that it signs with.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &Secret<String>> {
        [self.id, self.secret].into_iter().chain(self.session)
    }
}

/// The service.
pub(super) struct Sts<'a> {
    host: &'a Host,
    settings: &'a Settings,
    http: SharedHttpClient,
    effort: Effort,
    /// When the first call was made, or what came before it.
    started: Instant,
    /// How long since then a person took to type codes.
    person: Cell<Duration>,
    /// When the grant ends that it is about, where there is one.
    grant_ends: Option<OffsetDateTime>,
}

impl<'a> Sts<'a> {
    pub(super) fn new(
        host: &'a Host,
        settings: &'a Settings,
        effort: Effort,
        started: Instant,
    ) -> Result<Self> {
        let connector = Connector(host.http(settings.ca_file.as_deref())?);
        let http = SharedHttpClient::new(connector);
        let (person, grant_ends) = (Cell::default(), None);
        Ok(Self { host, settings, http, effort, started, person, grant_ends })
    }

    /// No session of a role may last longer than that.
    pub(super) fn ending(self, grant_ends: Option<OffsetDateTime>) -> Self {
        Self { grant_ends, ..self }
    }

    /// For how long a session of a role is asked for at this moment.
    fn lasting(&self, ttl: Option<Duration>) -> Result<Option<Duration>> {
        lasting::within(ttl, self.grant_ends, self.host.corrected_now())
    }

    /// Makes a call, and again where a fault may pass; `once`: with a code, which must not be
    /// sent again. `until` is when what STS is shown ends.
    async fn send<O, E>(
        &self,
        asked: &Asked<'_>,
        once: bool,
        until: Option<OffsetDateTime>,
        call: impl AsyncFn() -> Result<O, SdkError<E, HttpResponse>>,
    ) -> Result<O>
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let spent = self.started.elapsed().saturating_sub(self.person.get());
        let effort = self.effort.after(spent);
        let effort = if once { effort.once().admitted() } else { effort };
        let attempt = async |_: &str| {
            let believed = self.skew();
            let mut answer = call().await;
            let mistimed = (self.skew() - believed).abs() > SIGNED_FOR && asked.is_signed();
            // Where it is about something else, a code may have been looked at.
            let passes = if once { failure::is_of_the_signature } else { failure::is_refusal };
            if mistimed && answer.as_ref().is_err_and(passes) {
                tracing::debug!("signed at the wrong time: it is signed anew");
                answer = call().await;
            }
            let now = self.host.corrected_now();
            answer.map_err(|cause| failure::explain(&cause, asked, now))
        };
        let address = self.settings.address();
        let answer = reach::ask(self.host, WHO, &[&*address], effort, until, attempt).await;
        answer.map_err(|error| asked.context(error))
    }

    /// How far this machine's clock is off, as far as servers have told.
    fn skew(&self) -> time::Duration {
        self.host.skew.get().unwrap_or_default()
    }

    /// Trades an assertion for a session of a role.
    pub(super) async fn with_web_identity(
        &self,
        assertion: &Assertion,
        role: &RoleArn,
        ttl: Option<Duration>,
    ) -> Result<Session> {
        let wanted = self.settings.session();
        let asked = Asked::WebIdentity { role, assertion, audience: self.settings.audience() };
        let lasting = self.lasting(ttl).map_err(|error| asked.context(error))?;
        let call = self
            .client(None)
            .assume_role_with_web_identity()
            .role_arn(role.as_str())
            .role_session_name(wanted.name.fill(&assertion.principal))
            .web_identity_token(assertion.token.expose())
            .set_policy(written(wanted.policy)?)
            .set_policy_arns(managed(wanted.policy));
        let until = Some(assertion.expires_at);
        let send = async || {
            // Tries take time.
            let lasting = self.lasting(ttl).unwrap_or(lasting);
            call.clone().set_duration_seconds(seconds(lasting)).send().await
        };
        let answer = self.send(&asked, false, until, send).await?;
        self.session(answer.credentials, answer.assumed_role_user).map_err(|e| asked.context(e))
    }

    /// Gets a session of a role for whoever signs: a user or another session.
    pub(super) async fn of_role(
        &self,
        signer: &Signer<'_>,
        role: &RoleArn,
        wanted: &Wanted<'_>,
        principal: &Principal,
        ttl: Option<Duration>,
    ) -> Result<Session> {
        let lasting = self
            .lasting(ttl)
            .map_err(|error| Asked::Role { role, signer, code: None }.context(error))?;
        let code = self.code(wanted.mfa, &Asked::Role { role, signer, code: None }).await?;
        let asked = Asked::Role { role, signer, code: code.as_ref() };
        let mut call = self
            .client(Some(signer))
            .assume_role()
            .role_arn(role.as_str())
            .role_session_name(wanted.name.fill(principal))
            .set_external_id(wanted.external_id.map(String::from))
            .set_source_identity(wanted.source_identity.map(String::from))
            .set_policy(written(wanted.policy)?)
            .set_policy_arns(managed(wanted.policy))
            .set_serial_number(wanted.mfa.map(|mfa| mfa.serial.to_string()))
            .set_token_code(code.as_ref().map(|code| code.expose().clone()));
        for (key, value) in wanted.tags {
            let tag = Tag::builder().key(key).value(value).build();
            call = call.tags(tag.map_err(|cause| asked.context(impossible(cause)))?);
        }
        for key in wanted.transitive_tags {
            call = call.transitive_tag_keys(key);
        }
        let send = async || {
            let lasting = self.lasting(ttl).unwrap_or(lasting);
            call.clone().set_duration_seconds(seconds(lasting)).send().await
        };
        let answer = self.send(&asked, code.is_some(), signer.until, send).await?;
        self.session(answer.credentials, answer.assumed_role_user).map_err(|e| asked.context(e))
    }

    /// Gets a session of a user for that user's access keys.
    pub(super) async fn of_user(
        &self,
        signer: &Signer<'_>,
        user: &UserArn,
        mfa: Option<&Mfa>,
        ttl: Option<Duration>,
    ) -> Result<Session> {
        let code = self.code(mfa, &Asked::User { user, signer, code: None }).await?;
        let asked = Asked::User { user, signer, code: code.as_ref() };
        let call = self
            .client(Some(signer))
            .get_session_token()
            .set_duration_seconds(seconds(ttl))
            .set_serial_number(mfa.map(|mfa| mfa.serial.to_string()))
            .set_token_code(code.as_ref().map(|code| code.expose().clone()));
        let send = async || call.clone().send().await;
        let answer = self.send(&asked, code.is_some(), signer.until, send).await?;
        let session = self.session(answer.credentials, None).map_err(|e| asked.context(e))?;
        Ok(Session { user_arn: user.to_string(), ..session })
    }

    /// Refuses a session that is of another user. Servers other than AWS that do not
    /// know the call are believed, unless an account is expected.
    pub(super) async fn check_user(&self, session: Session, user: &UserArn) -> Result<Session> {
        let signer = Signer::from(&session);
        let asked = Asked::User { user, signer: &signer, code: None };
        let call = self.client(Some(&signer)).get_caller_identity();
        let Settings { endpoint_url, expect_account, .. } = self.settings;
        let send = async || match call.clone().send().await {
            Err(cause) => {
                let status = cause.raw_response().map(|response| response.status().as_u16());
                let is_unknown = endpoint_url.is_some() && matches!(status, Some(405 | 501));
                if is_unknown && expect_account.is_empty() { Ok(None) } else { Err(cause) }
            }
            answer => answer.map(Some),
        };
        let Some(answer) = self.send(&asked, false, signer.until, send).await? else {
            self.host
                .interact
                .note(&format!("the server does not tell whether the session is of {user}"));
            return Ok(session);
        };
        match answer.arn() {
            Some(arn) if arn == user.as_str() => Ok(session),
            is => Err(asked.context(
                Error::new(ErrorKind::Verification, "the access keys are of another user")
                    .because_of(format!("they are of {}", foreign(is.unwrap_or("nobody"))))
                    .hint("correct `role` of the profile, or take the right keys: `tmpcred login --force`"),
            )),
        }
    }

    /// A code for what is asked, where one is wanted. It counts as sent, so nobody is
    /// asked for one while STS is left alone.
    async fn code(
        &self,
        mfa: Option<&Mfa>,
        asked: &Asked<'_>,
    ) -> Result<Option<Secret<String>>> {
        let Some(mfa) = mfa else { return Ok(None) };
        reach::admit(self.host, &self.settings.address(), self.effort)
            .map_err(|error| asked.context(error))?;
        let begun = Instant::now();
        let code = mfa.code(self.host).await;
        self.person.set(self.person.get() + begun.elapsed());
        code.map(Some)
    }

    /// A client with nothing but what is said here: no credentials, profiles or
    /// settings from anywhere. Tries and time limits are not its own.
    fn client(&self, signer: Option<&Signer<'_>>) -> Client {
        let Settings { region, endpoint_url, use_fips, .. } = self.settings;
        let default = if endpoint_url.is_some() { ELSEWHERE } else { GLOBAL };
        let region = region.as_ref().map_or(default, super::Region::as_str).to_string();
        let now = Now { clock: self.host.clock.clone(), skew: self.host.skew.clone() };
        let mut config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(self.http.clone())
            .time_source(now)
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::disabled())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .region(Region::new(region))
            .use_fips(*use_fips);
        config.set_endpoint_url(endpoint_url.as_ref().map(ToString::to_string));
        config.set_credentials_provider(signer.map(|signer| {
            SharedCredentialsProvider::new(Credentials::new(
                signer.id.expose(),
                signer.secret.expose(),
                signer.session.map(|token| token.expose().clone()),
                None,
                "tmpcred",
            ))
        }));
        Client::from_conf(config.build())
    }

    /// What was answered, where it is whole and good.
    fn session(
        &self,
        credentials: Option<types::Credentials>,
        user: Option<AssumedRoleUser>,
    ) -> Result<Session> {
        let wrong = |why: &str| {
            Error::new(ErrorKind::Verification, "the answer of STS is not what was asked for")
                .because_of(why)
        };
        let credentials = credentials.ok_or_else(|| wrong("it has no credentials"))?;
        let user_arn = user.map(|user| user.arn).unwrap_or_default();
        // The SDK puts the start of 1970 where the answer has no end.
        let end = credentials.expiration;
        let expires_at = OffsetDateTime::from_unix_timestamp(end.secs())
            .map_err(|_| wrong("the credentials have no end"))?;
        let session = Session {
            access_key_id: Secret::new(credentials.access_key_id),
            secret_access_key: Secret::new(credentials.secret_access_key),
            session_token: Secret::new(credentials.session_token),
            expires_at,
            user_arn,
        };
        let parts = [&session.access_key_id, &session.secret_access_key, &session.session_token];
        // They go into headers and variables as they are.
        let plain = |part: &String| !part.is_empty() && part.bytes().all(|b| b.is_ascii_graphic());
        if !parts.iter().all(|part| plain(part.expose())) {
            return Err(wrong("a part is empty or has characters that no credential has"));
        }
        if expires_at == OffsetDateTime::UNIX_EPOCH {
            return Err(wrong("it does not say when the credentials end"));
        }
        if expires_at <= self.host.corrected_now() {
            return Err(wrong("the credentials have expired already"));
        }
        lasting::check(expires_at, self.grant_ends)?;
        Ok(session)
    }
}

pub(super) fn impossible(cause: impl std::error::Error) -> Error {
    Error::new(ErrorKind::Config, "the request cannot be written down").because(cause)
}

fn seconds(ttl: Option<Duration>) -> Option<i32> {
    ttl.and_then(|ttl| i32::try_from(ttl.as_secs()).ok())
}

fn written(policy: SessionPolicy<'_>) -> Result<Option<String>> {
    match (policy.text, policy.file) {
        (None, Some(file)) => Err(Error::new(ErrorKind::Other, "a session policy was not read")
            .because_of(format!("it is in {}", file.display()))),
        (text, _) => Ok(text.map(String::from)),
    }
}

fn managed(policy: SessionPolicy<'_>) -> Option<Vec<PolicyDescriptorType>> {
    let arn = |arn: &super::PolicyArn| PolicyDescriptorType::builder().arn(arn.as_str()).build();
    (!policy.arns.is_empty()).then(|| policy.arns.iter().map(arn).collect())
}

/// The time as servers see it: signatures are good for minutes only.
struct Now {
    clock: Arc<dyn Clock>,
    skew: SkewMeter,
}

impl TimeSource for Now {
    fn now(&self) -> SystemTime {
        (self.clock.now() + self.skew.get().unwrap_or(time::Duration::ZERO)).into()
    }
}

impl fmt::Debug for Now {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Now")
    }
}

#[cfg(test)]
mod signatures;
#[cfg(test)]
mod tests;
