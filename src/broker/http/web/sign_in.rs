//! Signing in and out.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde::Deserialize;
use uuid::Uuid;

use super::super::book::Book;
use super::super::form::Posted;
use super::super::operate::{Shown, Unserved};
use super::cookies::Cookies;
use super::frame;
use super::visit::{self, Visit, base, go_to, is_place};
use crate::broker::Broker;
use crate::broker::authenticate::{Rejection, said};
use crate::broker::config::Login;
use crate::broker::rulebook::Rulebook;
use crate::broker::web::{Callback, Ended, Got, Pages, Session};
use crate::error::{Error, ErrorKind, Result as Outcome};

/// Where somebody wants to go.
#[derive(Deserialize)]
pub(super) struct To {
    to: Option<String>,
}

/// Sends somebody to the provider.
pub(super) async fn begin(
    State(broker): State<Arc<Broker>>,
    shown: Shown,
    headers: HeaderMap,
    query: Result<Query<To>, QueryRejection>,
) -> Response {
    let (Book(book), id) = (shown.0.clone(), shown.2);
    let to = query.ok().and_then(|Query(query)| query.to).filter(|to| is_place(to));
    let to = to.unwrap_or_default();
    let Some(pages) = book.pages() else {
        return frame::failure(None, StatusCode::NOT_FOUND, "there are no pages here", id);
    };
    let login = wanted(&broker, shown, &headers, &to).await.unwrap_or_default();
    let times = (broker.clock.now(), broker.clock.uptime());
    let begun = pages.begin(&login, &to, times).await.and_then(|(url, sign_in)| {
        let mut response = go_to(url.as_str());
        let cookies = Cookies::of(&broker);
        cookies.keep_sign_in(&sign_in, times.0, &headers, response.headers_mut())?;
        Ok(response)
    });
    begun.unwrap_or_else(|error| failed(&broker, &error, (&to, id)))
}

/// How somebody has to sign in again to decide about what is at the page that they want to go
/// to, where they are signed in, and not like that.
async fn wanted(
    broker: &Arc<Broker>,
    shown: Shown,
    headers: &HeaderMap,
    to: &str,
) -> Option<Login> {
    let id = Uuid::try_parse(to).ok()?;
    let session = Cookies::of(broker).session(headers)?;
    let Visit { request, who, .. } = Visit::of(broker, shown, headers, session).await.ok()?;
    let (elevation, _) = broker.elevation_visible_to(&request.book, &who, id).await.ok()?;
    broker.login_for(&request.book, &who, &elevation)
}

/// Takes what somebody brings back from the provider.
pub(super) async fn callback(
    State(broker): State<Arc<Broker>>,
    shown: Shown,
    headers: HeaderMap,
    query: Result<Query<Callback>, QueryRejection>,
) -> Response {
    let (Book(book), id) = (shown.0.clone(), shown.2);
    let cookies = Cookies::of(&broker);
    let callback = query.map(|Query(callback)| callback).ok();
    let begun = callback.as_ref().and_then(Callback::state);
    let begun = begun.and_then(|state| cookies.sign_in(&headers, state));
    let (Some(pages), Some(callback), Some(sign_in)) = (book.pages(), callback, begun) else {
        // Anybody can lead somebody here: it changes nothing, and ends no sign-in.
        let why = "This is no answer to a sign-in that is under way in this browser, or it took too long. Nothing was changed.";
        return frame::sign_in_first(&broker, "", why, StatusCode::BAD_REQUEST);
    };
    let times = (broker.clock.now(), broker.clock.uptime());
    let to = sign_in.to();
    let came = async {
        let got = pages.finish(&sign_in, callback, times).await?;
        let session = verified(&broker, &book, pages, (sign_in.nonce(), &got)).await?;
        let session = session.in_place_of(cookies.session(&headers));
        enter(&broker, &book, session, to).await
    };
    let mut response = came.await.unwrap_or_else(|stop| match stop {
        Stop::Ended(ended) => visit::over(&broker, ended, id),
        Stop::Failed(error) => failed(&broker, &error, (to, id)),
    });
    // It was used up, unless somebody could not be asked: then the same page may be loaded again.
    if !response.status().is_server_error() {
        cookies.forget_sign_in(&sign_in, response.headers_mut());
    }
    response
}

/// A session of whom the tokens tell.
async fn verified(
    broker: &Arc<Broker>,
    book: &Rulebook,
    pages: &Pages,
    (nonce, got): (&str, &Got),
) -> Outcome<Session> {
    let web = pages.config();
    let mut claims = None;
    let proved = async {
        let by = (web.client_id.as_str(), nonce);
        let (verified, caller) = book
            .authenticator()
            .signed_in(pages.issuer(), by, &got.id_token, got.access_token.as_ref(), book.needs())
            .await?;
        claims = Some(verified);
        Ok(caller)
    };
    let caller =
        broker.metrics.authentication(proved).await.map_err(|rejection| match rejection {
            Rejection::Token(_, error) | Rejection::Unavailable(error) => error,
        })?;
    broker.saw_login(book, &caller);
    let ends_with_token = (book.config().trusted_issuer.get(&web.issuer))
        .is_some_and(|issuer| issuer.ends_with_token);
    let claims = claims.ok_or_else(|| Error::new(ErrorKind::Other, "nobody signed in"))?;
    Ok(Session::new(claims, web, ends_with_token, broker.clock.now()))
}

/// Why somebody does not get in.
enum Stop {
    Ended(Ended),
    Failed(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Lets somebody in, to the page that they wanted.
async fn enter(
    broker: &Arc<Broker>,
    book: &Rulebook,
    session: Session,
    to: &str,
) -> Result<Response, Stop> {
    let caller = broker.caller_of(book, &session).await.map_err(Stop::Ended)?;
    tracing::info!(caller = caller.id(), "signed in to the pages");
    let base = base(broker);
    let address = if to.is_empty() { base } else { format!("{base}/{to}") };
    let mut response = go_to(&address);
    let lasts = session.lasts(broker.clock.now());
    Cookies::of(broker).keep_session(&session, lasts, response.headers_mut())?;
    Ok(response)
}

/// Says that nobody signed in, and leads to where they can who want to go there. What tells of the
/// broker's network is for its log alone.
fn failed(broker: &Broker, error: &Error, (to, id): (&str, super::RequestId)) -> Response {
    let causes = error.causes().join(": ");
    match error.kind() {
        ErrorKind::Denied | ErrorKind::Verification => {
            tracing::info!(%error, causes, "somebody did not sign in");
            let why = format!("It did not work: {}.", said(error));
            frame::sign_in_first(broker, to, &why, StatusCode::FORBIDDEN)
        }
        _ => {
            tracing::error!(%error, causes, "people cannot sign in to the pages");
            let why = "the identity provider cannot be asked at present who you are, or the broker is not known there";
            frame::failure(None, StatusCode::SERVICE_UNAVAILABLE, why, id)
        }
    }
}

/// Lets the browser forget who is signed in.
pub(super) async fn sign_out(
    State(broker): State<Arc<Broker>>,
    shown: Shown,
    posted: Posted,
) -> Response {
    let id = shown.2;
    let (form, headers) = posted.form();
    let form = match form {
        Ok(form) => form,
        Err(refusal) => return frame::unserved(None, &Unserved::from(refusal), id),
    };
    if let Err(page) = Visit::sending(&broker, shown, &headers, &form, "").await {
        return page;
    }
    let why = "You are signed out here. At your identity provider you may still be signed in.";
    let mut page = frame::sign_in_first(&broker, "", why, StatusCode::OK);
    Cookies::of(&broker).forget_session(&headers, page.headers_mut());
    page
}
