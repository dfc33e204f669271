//! The provider: what it says of itself, and the requests that are made to it.

use std::cell::OnceCell;
use std::time::Instant;

use hyper::Method;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use oauth2::basic::{
    BasicErrorResponse, BasicRevocationErrorResponse, BasicTokenIntrospectionResponse,
};
use oauth2::{
    AuthorizationCode, ClientId, EndpointNotSet, EndpointSet, PkceCodeVerifier, RedirectUrl,
    RefreshToken, StandardRevocableToken, TokenUrl,
};
use time::Duration;
use url::{Url, form_urlencoded};

use super::audiences::{first, is_resource};
use super::session::{Session, Token};
use super::tokens::TokenAnswer;
use super::transport::{Endpoint, Failure, Transport};
use super::{AudienceParameter, Settings, Strength};
use crate::credential::Lifetime;
use crate::error::{Error, ErrorKind, Result};
use crate::host::http::{HttpClient, Request};
use crate::host::process::{self, Postponed};
use crate::host::Host;
use crate::oidc::jwt::{self, ALGORITHMS, LEEWAY};
use crate::oidc::remote_keys::{self, RemoteKeys};
use crate::oidc::{Claims, Discovery, Documents, Expectations, id_token};
use crate::reach::{self, Effort};
use crate::secret::Secret;

/// The `oauth2` crate's client, with our own reading of token answers.
pub(super) type Client<Auth, Device, Token> = oauth2::Client<
    BasicErrorResponse,
    TokenAnswer,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
    Auth,
    Device,
    EndpointNotSet,
    EndpointNotSet,
    Token,
>;

/// A client of which no more is known than where the tokens are.
pub(super) type TokenClient = Client<EndpointNotSet, EndpointNotSet, EndpointSet>;

/// What people call it.
const WHO: &str = "the identity provider";

/// How long after a refusal without a word the provider is asked again.
const SECOND_TRY: std::time::Duration = std::time::Duration::from_millis(500);

/// What an access token is good for at an audience.
enum Access {
    /// It proves who the session is for.
    Good(Claims),
    /// The provider did not bind it to the audience.
    Unbound,
    /// It is bound to the audience, and not to be believed.
    Bad,
}

/// A provider, ready to be asked.
pub(super) struct Provider<'a> {
    pub(super) host: &'a Host,
    pub(super) settings: &'a Settings,
    pub(super) discovery: Discovery,
    /// How long the provider took, where it has just been asked for that.
    took: Option<std::time::Duration>,
    effort: Effort,
    started: Instant,
    http: HttpClient,
    keys: RemoteKeys,
    documents: &'a dyn Documents,
    /// What is wanted of a login.
    strength: Strength,
}

impl<'a> Provider<'a> {
    /// Learns what the provider says of itself, from what was kept where that
    /// is still good. So much is done for that and for renewing a session.
    pub(super) async fn open(
        host: &'a Host,
        settings: &'a Settings,
        documents: &'a dyn Documents,
        effort: Effort,
    ) -> Result<Self> {
        let started = Instant::now();
        let http = host.http(settings.ca_file.as_deref())?;
        let kept = Discovery::kept(&settings.issuer, documents);
        let (discovery, took) = match kept {
            Some(kept) => (kept, None),
            None => {
                let attempt = async |_: &str| {
                    let clock = host.clock.as_ref();
                    Ok(Discovery::fetch(&settings.issuer, &http, clock, documents).await?)
                };
                let addresses = [settings.issuer.as_str()];
                let asked = reach::ask(host, WHO, &addresses, effort, None, attempt).await?;
                (asked, Some(started.elapsed()))
            }
        };
        let keys = RemoteKeys::new(discovery.jwks_uri.clone(), http.clone(), host.clock.clone());
        let strength = Strength::default();
        Ok(Self { host, settings, discovery, took, effort, started, http, keys, documents, strength })
    }

    /// The same for a login that has to be as strong as this.
    pub(super) fn wanting(self, strength: Strength) -> Self {
        Self { strength, ..self }
    }

    /// What a login by a code is asked to be like.
    pub(super) fn wanted(&self) -> Vec<(&'static str, String)> {
        self.strength.parameters()
    }

    /// The parameters of the login page beyond those that every login has. What is wanted of
    /// this login goes before what the configuration says of all.
    pub(super) fn login_parameters(&self) -> Vec<(&str, String)> {
        let wanted: Vec<(&str, String)> = self.wanted();
        let configured = self.settings.login_parameters.iter();
        let others = configured.filter(|(name, _)| !wanted.iter().any(|(other, _)| other == name));
        let others: Vec<_> = others.map(|(name, value)| (name.as_str(), value.clone())).collect();
        wanted.into_iter().chain(others).collect()
    }

    /// What is left of the effort.
    pub(super) fn effort(&self) -> Effort {
        self.effort.after(self.started.elapsed())
    }

    /// The crate's client.
    pub(super) fn client(&self) -> Result<TokenClient> {
        let endpoint = self.discovery.token_endpoint.clone();
        let endpoint = endpoint.ok_or_else(|| self.lacks("token endpoint"))?;
        Ok(Client::new(ClientId::new(self.settings.client_id.clone()))
            .set_token_uri(TokenUrl::from_url(endpoint)))
    }

    /// The way to an endpoint.
    pub(super) fn transport(&self, endpoint: Endpoint) -> Transport<'_> {
        Transport::new(&self.http, endpoint)
    }

    /// The error for an endpoint that the discovery document does not name.
    pub(super) fn lacks(&self, what: &str) -> Error {
        Error::new(
            ErrorKind::Config,
            format!("the identity provider {} has no {what}", self.settings.issuer),
        )
        .because_of("its discovery document names none")
    }

    /// The parameters that bind an access token to `audiences`.
    pub(super) fn audience_parameters<'b>(
        &self,
        audiences: &'b [String],
    ) -> Vec<(&'static str, &'b str)> {
        match self.settings.audience_parameter {
            AudienceParameter::None => Vec::new(),
            // A list has no meaning here; the first is the one wanted now.
            AudienceParameter::Audience => {
                audiences.first().map(|a| ("audience", a.as_str())).into_iter().collect()
            }
            AudienceParameter::Resource => audiences
                .iter()
                .filter(|a| is_resource(a))
                .map(|a| ("resource", a.as_str()))
                .collect(),
        }
    }

    /// Trades an authorization code for tokens.
    pub(super) async fn exchange_code(
        &self,
        code: &Secret<String>,
        verifier: PkceCodeVerifier,
        redirect: &Url,
        audiences: &[String],
    ) -> Result<TokenAnswer, Failure> {
        let client = self
            .client()
            .map_err(Failure::Failed)?
            .set_redirect_uri(RedirectUrl::from_url(redirect.clone()));
        let mut request = client
            .exchange_code(AuthorizationCode::new(code.expose().clone()))
            .set_pkce_verifier(verifier);
        for (name, value) in self.audience_parameters(first(audiences)) {
            request = request.add_extra_param(name, value);
        }
        let transport = self.transport(Endpoint::Token);
        request.request_async(&transport).await.map_err(|error| Failure::of(error, &transport))
    }

    /// Trades a refresh token for fresh tokens. The session's lock is held. From when the
    /// token is sent the end of this process is `postponed`.
    ///
    /// A provider that gives no answer may have taken the request all the same, and a
    /// refresh token that is used twice ends the session at many. So it is sent once, and
    /// waited for to its end; and where nobody needs it now, or the provider has failed of
    /// late, only to one that has just shown that it answers. Where nobody needs it, it must
    /// do so quickly.
    pub(super) async fn refresh(
        &self,
        refresh_token: &Secret<String>,
        audience: Option<&str>,
        postponed: &OnceCell<Postponed>,
    ) -> Result<TokenAnswer, Failure> {
        let issuer = &self.settings.issuer;
        match self.took {
            Some(took) => self.has_time(took).map_err(Failure::Failed)?,
            None if self.effort.is_spare() || reach::has_failed(self.host, issuer.as_str()) => {
                self.probe().await.map_err(Failure::Failed)?;
            }
            None => {}
        }
        let attempt = async |_: &str| {
            let transport = self.transport(Endpoint::Token);
            match self.send_refresh(&transport, refresh_token, audience).await {
                Err(Failure::Failed(error)) if error.kind() == ErrorKind::Unreachable => {
                    Err(reach::Failure::wishing(error, transport.wish(self.host.corrected_now())))
                }
                answer => Ok(answer),
            }
        };
        postponed.get_or_init(process::postpone_end);
        reach::ask(self.host, WHO, &[issuer.as_str()], self.effort().once(), None, attempt)
            .await
            .map_err(Failure::Failed)?
    }

    /// Looks whether the provider answers.
    async fn probe(&self) -> Result<()> {
        let issuer = &self.settings.issuer;
        let attempt = async |_: &str| {
            let asked = Instant::now();
            Discovery::ask(issuer, issuer, &self.http).await?;
            Ok(self.has_time(asked.elapsed())?)
        };
        reach::ask(self.host, WHO, &[issuer.as_str()], self.effort().look(), None, attempt).await
    }

    /// Whether there is time for a request to a provider that takes so long. Whoever needs
    /// the answer takes the time.
    fn has_time(&self, took: std::time::Duration) -> Result<()> {
        let left = self.effort.total().saturating_sub(self.started.elapsed());
        if !self.effort.is_spare() || took < left {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Unreachable, "the identity provider is slow").because_of(format!(
            "it took {:.0} seconds to answer, and a renewal that nobody needs now is not begun without the time to end it",
            took.as_secs_f64()
        )))
    }

    /// A refusal without a word ends a session only if it comes twice: it may be that of
    /// something on the way which is just being started.
    async fn send_refresh(
        &self,
        transport: &Transport<'_>,
        refresh_token: &Secret<String>,
        audience: Option<&str>,
    ) -> Result<TokenAnswer, Failure> {
        let client = self.client().map_err(Failure::Failed)?;
        let refresh_token = RefreshToken::new(refresh_token.expose().clone());
        let audiences: Vec<String> = audience.map(String::from).into_iter().collect();
        let ask = async || {
            let mut request = client.exchange_refresh_token(&refresh_token);
            for (name, value) in self.audience_parameters(&audiences) {
                request = request.add_extra_param(name, value.to_string());
            }
            request.request_async(transport).await
        };
        let mut answer = ask().await;
        if transport.was_mute() {
            tracing::debug!("a refusal without a word: the provider is asked once more");
            tokio::time::sleep(SECOND_TRY).await;
            answer = ask().await;
        }
        answer.map_err(|error| Failure::of(error, transport))
    }

    /// Revokes a refresh token (RFC 7009), which ends what came of it too.
    ///
    /// The `oauth2` crate would refuse a loopback address here.
    pub(super) async fn revoke(&self, refresh_token: &Secret<String>) -> Result<()> {
        let endpoint = self.discovery.revocation_endpoint.clone();
        let url = endpoint.ok_or_else(|| self.lacks("revocation endpoint"))?;
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("token", refresh_token.expose())
            .append_pair("token_type_hint", "refresh_token")
            .append_pair("client_id", &self.settings.client_id)
            .finish();
        let headers = HeaderMap::from_iter([(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        )]);
        let body = Secret::new(form.into_bytes());
        let response = self.http.send(Request { method: Method::POST, url, headers, body }).await?;
        let who = "the revocation endpoint of the identity provider";
        if let Some(outage) = response.outage(who) {
            return Err(outage);
        }
        if !response.status.is_success() {
            return Err(Error::new(ErrorKind::Denied, format!("{who} refused"))
                .because_of(format!("it answered {}", response.status.as_u16())));
        }
        Ok(())
    }

    /// A session from the answer to a login. `asked` are the audiences that the
    /// login asked for, the one wanted now first; `refused` those that it was
    /// refused.
    pub(super) async fn establish(
        &self,
        answer: &TokenAnswer,
        nonce: Option<&Secret<String>>,
        asked: &[String],
        refused: &[String],
    ) -> Result<Session> {
        let Some(id_token) = answer.id_token() else {
            return Err(Error::new(
                ErrorKind::Verification,
                "the identity provider did not say who logged in",
            )
            .because_of("its answer has no ID token")
            .hint("check that the client may use the scope `openid`"));
        };
        let claims = self.verify_id_token(id_token, nonce, answer).await?;
        let now = self.host.corrected_now();
        let mut session = Session::new(claims.principal.clone(), &self.settings.client_id, now);
        session.refresh_token = answer.refresh_token();
        session.granted = asked.to_vec();
        session.put_id_token(self.keep(id_token, &claims, None));
        for audience in refused {
            session.put_refused(audience);
        }
        self.take_access_token(&mut session, answer, asked.first().map(String::as_str)).await?;
        Ok(session)
    }

    /// Takes the answer to a refresh into the session. The refresh token in it
    /// has been kept already.
    pub(super) async fn renew(
        &self,
        session: &mut Session,
        answer: &TokenAnswer,
        audience: Option<&str>,
    ) -> Result<()> {
        // Keys may have to be fetched.
        reach::within(self.effort(), WHO, self.take(session, answer, audience)).await
    }

    async fn take(
        &self,
        session: &mut Session,
        answer: &TokenAnswer,
        audience: Option<&str>,
    ) -> Result<()> {
        if let Some(id_token) = answer.id_token() {
            let claims = self.verify_id_token(id_token, None, answer).await?;
            // OpenID Connect Core section 12.2.
            if claims.principal != session.principal() {
                return Err(Error::new(
                    ErrorKind::Verification,
                    "the identity provider changed who is logged in",
                )
                .because_of(format!(
                    "the session is that of '{}', the new ID token that of '{}'",
                    session.principal().subject,
                    claims.principal.subject
                )));
            }
            session.put_id_token(self.keep(id_token, &claims, None));
        }
        session.drop_expired(self.host.clock.now());
        self.take_access_token(session, answer, audience).await
    }

    /// Keeps the access token if it can be shown to `audience`, or that it can't.
    async fn take_access_token(
        &self,
        session: &mut Session,
        answer: &TokenAnswer,
        audience: Option<&str>,
    ) -> Result<()> {
        let (Some(audience), Some(token)) = (audience, answer.access_token()) else {
            return Ok(());
        };
        if !self.settings.wants_access_token() {
            return Ok(());
        }
        match self.verify_access_token(&token, audience, session).await? {
            Access::Good(claims) => {
                session.put_access_token(audience, self.keep(&token, &claims, answer.lasts()));
            }
            Access::Unbound => session.put_refused(audience),
            // The next one may be better, so this says nothing of the provider.
            Access::Bad => session.put_unproved(audience),
        }
        Ok(())
    }

    async fn verify_id_token(
        &self,
        token: &Secret<String>,
        nonce: Option<&Secret<String>>,
        answer: &TokenAnswer,
    ) -> Result<Claims> {
        let context = "the ID token of the identity provider is not accepted";
        let audiences = [self.settings.client_id.clone()];
        let nonce = nonce.map(|nonce| nonce.expose().as_str());
        let claims = self.verify(token, &audiences, nonce).await;
        let claims = claims.map_err(|failure| Error::from(failure).context(context))?;
        let access = answer.access_token();
        let access = access.as_ref().map(|token| token.expose().as_str());
        id_token::check(token.expose(), &claims, &self.settings.client_id, access)
            .map_err(|error| error.context(context))?;
        Ok(claims)
    }

    /// Tells whether an access token is a JWT that proves to `audience` who the
    /// session is for. Where it is not, the ID token has to do.
    async fn verify_access_token(
        &self,
        token: &Secret<String>,
        audience: &str,
        session: &Session,
    ) -> Result<Access> {
        let Ok(unverified) = jwt::decode_unverified(token.expose()) else {
            return Ok(Access::Unbound);
        };
        if !jwt::audience(&unverified.claims).iter().any(|a| a == audience) {
            return Ok(Access::Unbound);
        }
        match self.verify(token, &[audience.to_string()], None).await {
            Ok(claims) if claims.principal == session.principal() => Ok(Access::Good(claims)),
            Ok(_) => {
                tracing::debug!("the access token is about another subject than the ID token");
                Ok(Access::Bad)
            }
            Err(remote_keys::Failure::Refused(refusal)) => {
                let error = Error::from(refusal);
                tracing::debug!(%error, "the access token is not used");
                Ok(Access::Bad)
            }
            Err(remote_keys::Failure::NoKeys(error)) => Err(error),
        }
    }

    async fn verify(
        &self,
        token: &Secret<String>,
        audiences: &[String],
        nonce: Option<&str>,
    ) -> Result<Claims, remote_keys::Failure> {
        let expected = Expectations {
            issuer: self.settings.issuer.as_str(),
            audiences,
            algorithms: ALGORITHMS,
            nonce,
            now: self.host.corrected_now(),
            leeway: LEEWAY,
        };
        let mut token = jwt::decode_unverified(token.expose()).map_err(jwt::Refusal::from)?;
        self.keys.verify(&mut token, &expected, self.documents).await
    }

    /// A verified token with its lifetime: as long as it says itself, or as the
    /// answer says where that is less.
    fn keep(
        &self,
        token: &Secret<String>,
        claims: &Claims,
        lasts: Option<std::time::Duration>,
    ) -> Token {
        let now = self.host.corrected_now();
        let said = lasts
            .and_then(|lasts| Duration::try_from(lasts).ok())
            .and_then(|lasts| now.checked_add(lasts))
            .unwrap_or(claims.expires_at);
        let lifetime = Lifetime::new(
            now,
            claims.expires_at.min(said),
            self.host.skew.get(),
            self.host.clock.machine_started(),
        );
        Token { token: token.clone(), lifetime }
    }
}
