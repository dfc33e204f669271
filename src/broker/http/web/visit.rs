//! Who looks at a page, and whether a form is theirs.

use std::sync::Arc;

use axum::http::header::{LOCATION, ORIGIN};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use uuid::Uuid;

use super::super::book::Book;
use super::super::form::Form;
use super::super::operate::{Request, Shown};
use super::cookies::Cookies;
use super::frame::{self, Frame, Here};
use crate::broker::authenticate::{Caller, said};
use crate::broker::decide::Rules;
use crate::broker::operate::Asked;
use crate::broker::policy::{Administration, Moment, Operation};
use crate::broker::rulebook::Rulebook;
use crate::broker::web::{Ended, PAGES_PATH, Session};
use crate::broker::{Broker, config};

/// Where a request was made from, as browsers say it.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Somebody who is signed in and looks at a page.
pub(super) struct Visit<'a> {
    pub(super) request: Request<'a>,
    pub(super) who: Asked,
    pub(super) frame: Frame,
}

impl<'a> Visit<'a> {
    /// Who looks. Those who are not signed in are sent to where they can, and from there to
    /// the page at this path below the pages.
    pub(super) async fn open(
        broker: &'a Arc<Broker>,
        shown: Shown,
        headers: &'a HeaderMap,
        to: &str,
    ) -> Result<Self, Response> {
        let cookies = Cookies::of(broker);
        let id = shown.2;
        let Some(session) = cookies.session(headers) else {
            return Err(go_to(&signing_in(broker, to)));
        };
        let ended = match Self::of(broker, shown, headers, session).await {
            Ok(visit) => return visit.turned_away().map_or(Ok(visit), Err),
            Err(ended) => ended,
        };
        if matches!(ended, Ended::Over) {
            return Err(go_to(&signing_in(broker, to)));
        }
        let forget = !matches!(ended, Ended::Unavailable(_));
        let mut page = over(broker, ended, id);
        if forget {
            cookies.forget_session(headers, page.headers_mut());
        }
        Err(page)
    }

    /// The same for somebody who sends a form, and has to be signed in already.
    pub(super) async fn sending(
        broker: &'a Arc<Broker>,
        shown: Shown,
        headers: &'a HeaderMap,
        form: &Form,
        to: &str,
    ) -> Result<Self, Response> {
        let id = shown.2;
        if !is_from_here(broker, headers) {
            let why = "this form was sent from a page that is none of the broker's";
            return Err(frame::failure(None, StatusCode::FORBIDDEN, why, id));
        }
        let session = Cookies::of(broker).session(headers);
        let Some(session) = session.filter(|session| session.lasts(broker.clock.now()) > 0) else {
            let why = "You are not signed in any more, so nothing was done.";
            return Err(frame::sign_in_first(broker, to, why, StatusCode::UNAUTHORIZED));
        };
        let is_own = form.secret("csrf").is_ok_and(|token| token.ct_eq(session.csrf()));
        if !is_own {
            let why = "this form is not of the page that was shown to you last: nothing was done; load that page again";
            return Err(frame::failure(None, StatusCode::FORBIDDEN, why, id));
        }
        Self::of(broker, shown, headers, session).await.map_err(|ended| over(broker, ended, id))
    }

    /// Counts that they come; what they are told where they come too often.
    pub(super) fn turned_away(&self) -> Option<Response> {
        let counted = self.request.count(&self.who.caller);
        counted.err().map(|too_often| too_often.at(self.request.id))
    }

    /// Somebody whose session this is.
    pub(super) async fn of(
        broker: &'a Arc<Broker>,
        shown: Shown,
        headers: &'a HeaderMap,
        session: Session,
    ) -> Result<Self, Ended> {
        let (Book(book), source, id) = (shown.0.clone(), shown.1, shown.2);
        let caller = broker.caller_of(&book, &session).await?;
        let who = Asked { caller, source: source.0, request_id: id.0 };
        let frame = Frame {
            base: base(broker),
            name: name_of(&book, &who.caller),
            csrf: session.csrf().into(),
            reads_audit: reads_audit(broker, &book, &who),
            here: None,
        };
        let request =
            Request::new(broker, shown, headers, (config::Endpoint::Elevations, "GET", PAGES_PATH));
        Ok(Self { request, who, frame })
    }

    /// The same at this place.
    pub(super) fn at(mut self, here: Here) -> Self {
        self.frame.here = Some(here);
        self
    }
}

/// The path of the pages.
pub(super) fn base(broker: &Broker) -> String {
    broker.issuer.join(PAGES_PATH).path().to_string()
}

/// Where people sign in who want to go there.
pub(super) fn signing_in(broker: &Broker, to: &str) -> String {
    let base = base(broker);
    if to.is_empty() { format!("{base}/sign-in") } else { format!("{base}/sign-in?to={to}") }
}

/// Whether there is such a page below the pages, and nothing else behind it.
pub(super) fn is_place(to: &str) -> bool {
    ["", "active", "reviews", "mine", "audit"].contains(&to)
        || to.len() == 36 && Uuid::try_parse(to).is_ok()
}

/// Sends a browser elsewhere, by GET.
pub(super) fn go_to(address: &str) -> Response {
    let mut response = StatusCode::SEE_OTHER.into_response();
    if let Ok(address) = HeaderValue::from_str(address) {
        response.headers_mut().insert(LOCATION, address);
    }
    response
}

/// Whether a form was sent from one of the broker's own pages, by all that the browser says.
fn is_from_here(broker: &Broker, headers: &HeaderMap) -> bool {
    let own = broker.issuer.url().origin().ascii_serialization();
    let each = |name: HeaderName, wanted: &str| {
        headers.get_all(name).iter().all(|value| value.as_bytes() == wanted.as_bytes())
    };
    each(ORIGIN, &own) && each(SEC_FETCH_SITE, "same-origin")
}

fn name_of(book: &Rulebook, caller: &Caller) -> String {
    let person = book.directory().and_then(|people| people.person(caller.principal()));
    person.map_or_else(
        || caller.principal().subject.clone(),
        |(name, person)| if person.name.is_empty() { name.into() } else { person.name.clone() },
    )
}

/// Whether policy lets somebody read the audit log, as far as can be told without asking it
/// in earnest.
fn reads_audit(broker: &Broker, book: &Rulebook, who: &Asked) -> bool {
    let operation = Operation::Administer(Administration::ReadAudit);
    let moment = Moment { now: broker.clock.now(), source: who.source };
    Rules { policy: book, roles: book.roles() }.operate(&who.caller, &operation, moment).is_ok()
}

/// Says that somebody is signed in no more.
pub(super) fn over(broker: &Broker, ended: Ended, id: super::RequestId) -> Response {
    match ended {
        Ended::Over => {
            let why = "Your session is over, so nothing was done.";
            frame::sign_in_first(broker, "", why, StatusCode::UNAUTHORIZED)
        }
        Ended::CutOff => {
            let why = "Your session was ended by whoever operates the broker.";
            frame::sign_in_first(broker, "", why, StatusCode::UNAUTHORIZED)
        }
        Ended::Stranger => frame::stranger(broker),
        Ended::Unacceptable(error) => {
            tracing::info!(%error, "somebody who signed in is not accepted");
            let why = said(&error);
            frame::failure(None, StatusCode::FORBIDDEN, &why, id)
        }
        Ended::Unavailable(error) => {
            tracing::error!(%error, "it cannot be told whether a session was ended");
            let why = "the broker cannot tell at present who you are";
            frame::failure(None, StatusCode::SERVICE_UNAVAILABLE, why, id)
        }
    }
}
