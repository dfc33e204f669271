//! What is kept of a login between runs.

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use crate::credential::{Assertion, Lifetime, Principal, TokenType};
use crate::secret::{Secret, bare, bare_option};

/// The version of the form in which a session rests. One of another version
/// counts as absent: the person logs in again.
const VERSION: u32 = 1;

/// The least time that an assertion must still have, so that it outlives the
/// request it is for.
const MARGIN: Duration = Duration::seconds(30);

/// How many access tokens are kept, those that last longest: keyrings are small.
const MAX_ACCESS_TOKENS: usize = 8;

/// A session with a provider: who logged in, and what the provider gave for it.
///
/// It belongs to the issuer and the client that it names. What one issuer gave
/// is never shown to another.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Session {
    v: u32,
    issuer: String,
    client_id: String,
    subject: String,
    #[serde(with = "time::serde::timestamp")]
    pub(super) since: OffsetDateTime,
    #[serde(serialize_with = "bare_option")]
    pub(super) refresh_token: Option<Secret<String>>,
    id_token: Option<Token>,
    access_tokens: Vec<AccessToken>,
    /// The audiences that were asked for at the login and not refused: a
    /// refresh may ask for each of them.
    pub(super) granted: Vec<String>,
    /// The audiences for which the provider issues no access token: the ID
    /// token is shown there.
    refused: Vec<String>,
    /// Whether the provider has ended it. It tells whose it was, and no more.
    #[serde(default)]
    pub(super) ended: bool,
    /// The audiences for which the last access token proved nothing: the ID token is
    /// shown there, in this run only.
    #[serde(skip)]
    unproved: Vec<String>,
}

/// A verified token.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Token {
    #[serde(serialize_with = "bare")]
    pub(super) token: Secret<String>,
    pub(super) lifetime: Lifetime,
}

#[derive(Debug, Serialize, Deserialize)]
struct AccessToken {
    audience: String,
    token: Token,
}

impl Session {
    /// A session that holds nothing yet.
    pub(super) fn new(principal: Principal, client_id: &str, since: OffsetDateTime) -> Self {
        Self {
            v: VERSION,
            issuer: principal.issuer,
            client_id: client_id.into(),
            subject: principal.subject,
            since,
            refresh_token: None,
            id_token: None,
            access_tokens: Vec::new(),
            granted: Vec::new(),
            refused: Vec::new(),
            ended: false,
            unproved: Vec::new(),
        }
    }

    /// Writes the session down.
    pub(super) fn encode(&self) -> Secret<Vec<u8>> {
        // Strings, numbers and lists always have a JSON form.
        Secret::new(serde_json::to_vec(self).unwrap_or_default())
    }

    /// Reads a session back. `None` where it is broken, of another version, or
    /// not of this issuer and client.
    /// `by_clock` yields a lifetime by the clock as it stands now.
    pub(super) fn decode(
        bytes: &Secret<Vec<u8>>,
        issuer: &str,
        client_id: &str,
        by_clock: impl Fn(Lifetime) -> Lifetime,
    ) -> Option<Self> {
        let mut session: Self = serde_json::from_slice(bytes.expose()).ok()?;
        let access_tokens = session.access_tokens.iter_mut().map(|bound| &mut bound.token);
        for token in session.id_token.iter_mut().chain(access_tokens) {
            token.lifetime = by_clock(token.lifetime);
        }
        let ours = session.v == VERSION
            && session.issuer == issuer
            && session.client_id == client_id
            && !session.subject.is_empty();
        ours.then_some(session)
    }

    /// Reads a session back to end it, whoever made it.
    pub(super) fn of_any_issuer(bytes: &Secret<Vec<u8>>) -> Option<Self> {
        let session: Self = serde_json::from_slice(bytes.expose()).ok()?;
        (session.v == VERSION).then_some(session)
    }

    /// The issuer and the client that it belongs to.
    pub(super) fn made_by(&self) -> (&str, &str) {
        (&self.issuer, &self.client_id)
    }

    /// Who logged in.
    pub(super) fn principal(&self) -> Principal {
        Principal { issuer: self.issuer.clone(), subject: self.subject.clone() }
    }

    /// Whether another process made this one of `used`, whose refresh token the
    /// provider takes no longer.
    pub(super) fn is_renewal_of(&self, used: &Self) -> bool {
        let token = |session: &Self| session.refresh_token.clone();
        self.principal() == used.principal()
            && match (token(self), token(used)) {
                (Some(here), Some(used)) => !here.ct_eq(used.expose()),
                (here, used) => here.is_some() && used.is_none(),
            }
    }

    /// Keeps a verified ID token.
    pub(super) fn put_id_token(&mut self, token: Token) {
        self.id_token = Some(token);
    }

    /// Keeps a verified access token that is bound to `audience`.
    pub(super) fn put_access_token(&mut self, audience: &str, token: Token) {
        self.refused.retain(|a| a != audience);
        self.unproved.retain(|a| a != audience);
        self.access_tokens.retain(|t| t.audience != audience);
        self.access_tokens.push(AccessToken { audience: audience.into(), token });
        self.access_tokens.sort_by_key(|t| std::cmp::Reverse(t.token.lifetime.expires_at));
        self.access_tokens.truncate(MAX_ACCESS_TOKENS);
    }

    /// Notes that the provider issues no access token for `audience`.
    pub(super) fn put_refused(&mut self, audience: &str) {
        self.granted.retain(|a| a != audience);
        if !self.is_refused(audience) {
            self.refused.push(audience.into());
        }
    }

    /// Whether the provider is known to issue no access token for `audience`.
    pub(super) fn is_refused(&self, audience: &str) -> bool {
        self.refused.iter().any(|a| a == audience)
    }

    /// Drops all tokens: the provider takes none of them any more. Who it was stays, and
    /// what the next login has to ask for.
    pub(super) fn end(&mut self) {
        self.refresh_token = None;
        self.id_token = None;
        self.access_tokens.clear();
        self.ended = true;
    }

    /// Notes that there is no access token for `audience` that proves anything, for as
    /// long as this run lasts.
    pub(super) fn put_unproved(&mut self, audience: &str) {
        self.unproved.push(audience.into());
    }

    /// Drops the tokens that have expired.
    pub(super) fn drop_expired(&mut self, local_now: OffsetDateTime) {
        let alive = |token: &Token| token.lifetime.remaining(local_now) > Duration::ZERO;
        self.id_token = self.id_token.take().filter(alive);
        self.access_tokens.retain(|t| alive(&t.token));
    }

    /// The assertion for `audience` that is at hand, if it lasts long enough:
    /// an access token that is bound to it, or the ID token where `id_token_fits`
    /// or the provider is known to have no better.
    pub(super) fn assertion(
        &self,
        audience: &str,
        id_token_fits: bool,
        local_now: OffsetDateTime,
    ) -> Option<Assertion> {
        let lasts = |token: &&Token| {
            // A token may live for less than the margin altogether.
            let margin = MARGIN.min(token.lifetime.ttl() / 4);
            token.lifetime.remaining(local_now) > margin
        };
        let access = self.access_tokens.iter().find(|t| t.audience == audience);
        if let Some(token) = access.map(|t| &t.token).filter(lasts) {
            return Some(self.assert(token, TokenType::AccessToken));
        }
        let unproved = self.unproved.iter().any(|a| a == audience);
        let id_token_fits = id_token_fits || self.is_refused(audience) || unproved;
        let token = self.id_token.as_ref().filter(|_| id_token_fits).filter(lasts)?;
        Some(self.assert(token, TokenType::IdToken))
    }

    /// All assertions at hand that may prove to `audience` who this is, the best first.
    pub(super) fn candidates(
        &self,
        audience: &str,
        local_now: OffsetDateTime,
    ) -> impl Iterator<Item = Assertion> {
        let best = self.assertion(audience, false, local_now);
        let bound = best.filter(|best| best.token_type == TokenType::AccessToken);
        let lasts = |token: &&Token| token.lifetime.remaining(local_now) > Duration::ZERO;
        let id_token = self.id_token.as_ref().filter(lasts);
        bound.into_iter().chain(id_token.map(|token| self.assert(token, TokenType::IdToken)))
    }

    /// Whether the session yields anything without a refresh.
    pub(super) fn has_unexpired(&self, local_now: OffsetDateTime) -> bool {
        let tokens = self.access_tokens.iter().map(|t| &t.token).chain(&self.id_token);
        tokens
            .into_iter()
            .any(|t| t.lifetime.remaining(local_now) > MARGIN.min(t.lifetime.ttl() / 4))
    }

    fn assert(&self, token: &Token, token_type: TokenType) -> Assertion {
        Assertion {
            token: token.token.clone(),
            token_type,
            principal: self.principal(),
            expires_at: token.lifetime.expires_at,
            grant_ends: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);
    const ISSUER: &str = "https://i.example";

    fn token(text: &str, ttl: i64) -> Token {
        let expires_at = NOW + Duration::seconds(ttl);
        Token {
            token: Secret::new(text.into()),
            lifetime: Lifetime::new(NOW, expires_at, None, NOW),
        }
    }

    fn session() -> Session {
        let principal = Principal { issuer: ISSUER.into(), subject: "alice".into() };
        let mut session = Session::new(principal, "cli", NOW);
        session.refresh_token = Some(Secret::new("canary-refresh".into()));
        session.put_id_token(token("canary-id", 300));
        session.put_access_token("https://b.example", token("canary-access", 60));
        session
    }

    fn shown(session: &Session, audience: &str, fits: bool, at: i64) -> Option<String> {
        let assertion = session.assertion(audience, fits, NOW + Duration::seconds(at))?;
        Some(format!("{:?} {}", assertion.token_type, assertion.token.expose()))
    }

    fn decode(bytes: &Secret<Vec<u8>>, issuer: &str, client_id: &str) -> Option<Session> {
        Session::decode(bytes, issuer, client_id, |lifetime| lifetime)
    }

    #[test]
    fn what_is_written_is_read_back_for_the_same_issuer_and_client_only() {
        let bytes = session().encode();
        let back = decode(&bytes, ISSUER, "cli").unwrap();
        assert_eq!(back.refresh_token.as_ref().unwrap().expose(), "canary-refresh");
        assert_eq!(back.principal().subject, "alice");
        assert_eq!(
            shown(&back, "https://b.example", false, 0),
            shown(&session(), "https://b.example", false, 0)
        );
        assert!(decode(&bytes, "https://evil.example", "cli").is_none());
        assert!(decode(&bytes, "https://i.example/", "cli").is_none());
        assert!(decode(&bytes, ISSUER, "other").is_none());
    }

    #[test]
    fn broken_sessions_count_as_absent() {
        let bytes = session().encode();
        for cut in 0..bytes.expose().len() {
            assert!(
                decode(&Secret::new(bytes.expose()[..cut].to_vec()), ISSUER, "cli")
                    .is_none()
            );
        }
        let other =
            String::from_utf8(bytes.expose().clone()).unwrap().replace("\"v\":1", "\"v\":2");
        assert!(decode(&Secret::new(other.into_bytes()), ISSUER, "cli").is_none());
    }

    #[test]
    fn an_access_token_is_for_its_own_audience_only() {
        let s = session();
        assert_eq!(shown(&s, "https://b.example", false, 0).unwrap(), "AccessToken canary-access");
        assert_eq!(shown(&s, "https://b.example/", false, 0), None);
        assert_eq!(shown(&s, "https://c.example", false, 0), None);
    }

    #[test]
    fn the_id_token_serves_where_there_is_no_better() {
        let mut s = session();
        assert_eq!(shown(&s, "https://c.example", true, 0).unwrap(), "IdToken canary-id");
        s.put_refused("https://c.example");
        assert_eq!(shown(&s, "https://c.example", false, 0).unwrap(), "IdToken canary-id");
        assert_eq!(shown(&s, "https://d.example", false, 0), None);
        s.put_access_token("https://c.example", token("fresh", 60));
        assert!(!s.is_refused("https://c.example"));
    }

    #[test]
    fn what_is_about_to_expire_is_not_shown() {
        let s = session();
        // A quarter of the 60 seconds, and 30 of the 300.
        assert!(shown(&s, "https://b.example", false, 44).is_some());
        assert!(shown(&s, "https://b.example", false, 45).is_none());
        assert!(shown(&s, "x", true, 269).is_some());
        assert!(shown(&s, "x", true, 270).is_none());
        assert!(s.has_unexpired(NOW + Duration::seconds(269)));
        assert!(!s.has_unexpired(NOW + Duration::seconds(270)));
    }

    #[test]
    fn expired_tokens_are_dropped_and_few_are_kept() {
        let mut s = session();
        s.drop_expired(NOW + Duration::seconds(60));
        let written = String::from_utf8(s.encode().expose().clone()).unwrap();
        assert!(written.contains("canary-id") && !written.contains("canary-access"));
        for n in 0..20 {
            s.put_access_token(&format!("https://{n}.example"), token("t", 100 + n));
        }
        assert_eq!(s.access_tokens.len(), MAX_ACCESS_TOKENS);
        assert!(shown(&s, "https://19.example", false, 0).is_some());
    }

    #[test]
    fn one_that_has_ended_tells_whose_it_was_and_holds_no_token() {
        let mut s = session();
        s.granted = vec!["https://b.example".into()];
        s.end();
        let bytes = s.encode();
        assert!(!String::from_utf8(bytes.expose().clone()).unwrap().contains("canary"));
        let back = decode(&bytes, ISSUER, "cli").unwrap();
        assert!(back.ended && !back.has_unexpired(NOW));
        assert_eq!(back.principal().subject, "alice");
        assert_eq!(back.granted, ["https://b.example"]);
        // One that an earlier version wrote says nothing of it.
        let text = String::from_utf8(session().encode().expose().clone()).unwrap();
        let old = Secret::new(text.replace(",\"ended\":false", "").into_bytes());
        assert!(!decode(&old, ISSUER, "cli").unwrap().ended);
    }

    #[test]
    fn debug_shows_no_secret() {
        assert!(!format!("{:?}", session()).contains("canary"));
    }
}
