//! The device flow (RFC 8628): for a program that cannot open a browser where it
//! runs.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::Provider;
use super::grants::{Asked, Denied, INTERVAL, PATIENCE};
use super::page::{self, Consent};
use super::person::Person;
use crate::broker::http::form::{Form, Posted};
use crate::broker::http::guard::RequestId;
use crate::broker::http::refusal::Refusal;

/// The grant type of device codes.
pub(super) const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// How often a device may ask where it is answered at once, in seconds.
const INTERVAL_APPROVED: i64 = 1;

/// Starts a flow (section 3.1).
pub(super) async fn start(
    State(provider): State<Arc<Provider>>,
    id: RequestId,
    posted: Posted,
) -> Response {
    let (form, _) = posted.repeating(&["resource"]);
    let outcome = form.and_then(|form| provider.start_device(&form));
    match outcome {
        Ok(answer) => ([(CACHE_CONTROL, "no-store")], Json(answer)).into_response(),
        Err(refusal) => refusal.at(id),
    }
}

/// Shows the page on which a code is typed; where the address has one already, the
/// page that asks for consent.
pub(super) async fn show(
    State(provider): State<Arc<Provider>>,
    id: RequestId,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let query = uri.query().unwrap_or_default();
    let Ok(form) = Form::parse(query.as_bytes(), &[]) else {
        return page::failure(StatusCode::BAD_REQUEST, "The address cannot be understood.");
    };
    match form.optional("user_code") {
        None => provider.code_page(None),
        Some(code) => provider.consent_page(code, &headers, None, id),
    }
}

/// Takes the person's answer.
pub(super) async fn decide(
    State(provider): State<Arc<Provider>>,
    id: RequestId,
    posted: Posted,
) -> Response {
    let (Ok(form), headers) = posted.form() else {
        return page::failure(StatusCode::BAD_REQUEST, "The form cannot be understood.");
    };
    let code = form.optional("user_code").unwrap_or_default();
    if !provider.sessions.is_own(&headers, &form_name(code), form.optional("csrf")) {
        return page::failure(StatusCode::FORBIDDEN, page::NOT_OWN);
    }
    let approved = form.optional("answer") == Some("approve");
    let answer = match Person::of_form(&form) {
        Ok(person) if approved => Ok(person),
        Err(wrong) if approved => return provider.consent_page(code, &headers, Some(wrong), id),
        _ => Err(Denied),
    };
    let now = provider.now();
    if !provider.grants().answer_device(code, answer, now) {
        return page::failure(StatusCode::GONE, page::TOO_LATE);
    }
    page::done(approved)
}

/// Ties a form to the code it is about.
fn form_name(user_code: &str) -> String {
    format!("device {user_code}")
}

impl Provider {
    fn start_device(&self, form: &Form) -> Result<serde_json::Value, Refusal> {
        self.check_client(form)?;
        let asked = Asked {
            scope: Self::scope(form.optional("scope")),
            resources: self.resources(form.all("resource"))?,
        };
        let auto = self.options.auto_approve;
        let interval = if auto { INTERVAL_APPROVED } else { INTERVAL };
        let now = self.now();
        let mut grants = self.grants();
        let (code, user_code) = grants.device(asked, interval, now).map_err(|error| {
            tracing::error!(%error, "the provider failed");
            Refusal::internal()
        })?;
        if auto {
            grants.answer_device(&user_code, Ok(self.options.person.clone()), now);
        }
        let page = self.options.issuer.join("device");
        let mut complete = page.clone();
        complete.query_pairs_mut().append_pair("user_code", &user_code);
        Ok(json!({
            "device_code": code.expose(),
            "user_code": user_code,
            "verification_uri": page,
            "verification_uri_complete": complete,
            "expires_in": PATIENCE.whole_seconds(),
            "interval": interval,
        }))
    }

    fn code_page(&self, wrong: Option<&str>) -> Response {
        page::enter_code(&self.options.issuer.join("device"), wrong)
    }

    fn consent_page(
        &self,
        user_code: &str,
        headers: &HeaderMap,
        wrong: Option<&'static str>,
        id: RequestId,
    ) -> Response {
        let now = self.now();
        let Some(asked) = self.grants().waiting(user_code, now) else {
            return self
                .code_page(Some("No device waits for this code. Codes end after ten minutes."));
        };
        match self.sessions.of_or_new(headers) {
            Ok(session) => {
                let token = self.sessions.token(&session, &form_name(user_code));
                let consent = Consent {
                    action: self.options.issuer.join("device"),
                    hidden: &[("user_code", user_code), ("csrf", &token)],
                    asked: &asked,
                    person: &self.options.person,
                    user_code: Some(user_code),
                    wrong,
                };
                page::consent(&consent, None, self.sessions.cookie(&session))
            }
            Err(error) => page::broken(&error, id),
        }
    }
}
