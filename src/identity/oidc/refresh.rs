//! Renewing a session by its refresh token (RFC 6749 section 6).

use std::cell::OnceCell;

use super::provider::Provider;
use super::session::Session;
use super::transport::Refusal;
use crate::error::Result;

/// How a renewal ended that did not fail.
pub(super) enum Renewed {
    /// The session goes on.
    Alive(Session),
    /// The provider has ended it, and says why.
    Ended(Session, Refusal),
}

/// Renews a session, so that it yields an assertion for `audience`. Its lock is
/// held: some providers end a session when two processes use one refresh token.
///
/// Where the provider refuses, `stored` tells what is kept now: another process may have
/// been quicker, on another machine or with its locks elsewhere. Then its session is the
/// one to go on with.
///
/// `keep` is called with the session as soon as its refresh token has been
/// rotated, before anything else can fail, and again at the end.
///
/// # Errors
/// Whatever else goes wrong. The session stays good then.
pub(super) async fn renew(
    provider: &Provider<'_>,
    session: Session,
    audience: Option<&str>,
    keep: impl Fn(&Session),
    stored: impl Fn() -> Result<Option<Session>>,
) -> Result<Renewed> {
    let (used, refusal) = match attempt(provider, session, audience, &keep).await? {
        Renewed::Ended(used, refusal) => (used, refusal),
        alive => return Ok(alive),
    };
    let Some(newer) = stored()?.filter(|stored| stored.is_renewal_of(&used)) else {
        return Ok(Renewed::Ended(used, refusal));
    };
    let now = provider.host.clock.now();
    let id_token_fits = !provider.settings.wants_access_token();
    let has_it = match audience {
        Some(audience) => newer.assertion(audience, id_token_fits, now).is_some(),
        None => newer.has_unexpired(now),
    };
    if has_it { Ok(Renewed::Alive(newer)) } else { attempt(provider, newer, audience, &keep).await }
}

async fn attempt(
    provider: &Provider<'_>,
    mut session: Session,
    audience: Option<&str>,
    keep: &impl Fn(&Session),
) -> Result<Renewed> {
    let Some(refresh_token) = session.refresh_token.clone() else {
        return Ok(Renewed::Ended(session, refusal("the session has no refresh token")));
    };
    let asked =
        audience.filter(|a| provider.settings.wants_access_token() && !session.is_refused(a));
    // Whoever is killed before the new refresh token is kept has lost the session.
    let postponed = OnceCell::new();
    let mut answer = provider.refresh(&refresh_token, asked, &postponed).await;
    if let (Err(failure), Some(audience)) = (&answer, asked)
        && failure.is("invalid_target")
    {
        session.put_refused(audience);
        keep(&session);
        if session.assertion(audience, false, provider.host.clock.now()).is_some() {
            return Ok(Renewed::Alive(session));
        }
        answer = provider.refresh(&refresh_token, None, &postponed).await;
    }
    let answer = match answer {
        Ok(answer) => answer,
        Err(super::transport::Failure::Refused(refusal)) if refusal.code == "invalid_grant" => {
            return Ok(Renewed::Ended(session, refusal));
        }
        Err(failure) => return Err(failure.error("the session could not be renewed")),
    };
    if let Some(rotated) = answer.refresh_token() {
        session.refresh_token = Some(rotated);
        keep(&session);
    }
    drop(postponed);
    let asked = asked.filter(|a| !session.is_refused(a)).map(String::from);
    provider
        .renew(&mut session, &answer, asked.as_deref())
        .await
        .map_err(|error| error.context("the session could not be renewed"))?;
    keep(&session);
    Ok(Renewed::Alive(session))
}

fn refusal(words: &str) -> Refusal {
    Refusal { code: "invalid_grant".into(), words: Some(words.into()) }
}
