//! The authorization endpoint (RFC 6749 section 4.1.1, RFC 7636, RFC 9207).

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, LOCATION, REFERRER_POLICY};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use url::{Host, Url};

use super::Provider;
use super::grants::{Asked, Authorization};
use super::page::{self, Consent};
use super::person::Person;
use crate::broker::http::form::{Form, Posted};
use crate::broker::http::guard::RequestId;
use crate::secret::Secret;

/// What must not be sent on to the client's redirect address, because it may not
/// be the client's.
struct Untrusted(&'static str);

/// What the client is told at its redirect address.
struct Refused {
    redirect_uri: Url,
    state: Option<String>,
    code: &'static str,
}

enum Failure {
    Page(Untrusted),
    Redirect(Box<Refused>),
}

pub(super) async fn show(
    State(provider): State<Arc<Provider>>,
    id: RequestId,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let wanted = match provider.read(uri.query().unwrap_or_default()) {
        Ok(wanted) => wanted,
        Err(Failure::Page(Untrusted(why))) => return page::failure(StatusCode::BAD_REQUEST, why),
        Err(Failure::Redirect(refused)) => return provider.refuse(*refused, StatusCode::FOUND),
    };
    if provider.options.auto_approve {
        let person = provider.options.person.clone();
        return provider.approve(wanted, person, StatusCode::FOUND, id);
    }
    let redirect_uri = wanted.redirect_uri.clone();
    let asked = wanted.asked.clone();
    let ready = provider.sessions.of_or_new(&headers).and_then(|session| {
        let page = provider.grants().ask(wanted, provider.now())?;
        Ok((session, page))
    });
    match ready {
        Ok((session, handle)) => {
            let token = provider.sessions.token(&session, handle.expose());
            let consent = Consent {
                action: provider.options.issuer.join("authorize"),
                hidden: &[("page", handle.expose()), ("csrf", &token)],
                asked: &asked,
                person: &provider.options.person,
                user_code: None,
                wrong: None,
            };
            page::consent(&consent, Some(&redirect_uri), provider.sessions.cookie(&session))
        }
        Err(error) => page::broken(&error, id),
    }
}

pub(super) async fn decide(
    State(provider): State<Arc<Provider>>,
    id: RequestId,
    posted: Posted,
) -> Response {
    let (Ok(form), headers) = posted.form() else {
        return page::failure(StatusCode::BAD_REQUEST, "The form cannot be understood.");
    };
    let handle = form.optional("page").unwrap_or_default();
    if !provider.sessions.is_own(&headers, handle, form.optional("csrf")) {
        return page::failure(StatusCode::FORBIDDEN, page::NOT_OWN);
    }
    let person = Person::of_form(&form);
    let approved = form.optional("answer") == Some("approve");
    if approved && let Err(wrong) = person {
        return page::failure(StatusCode::BAD_REQUEST, wrong);
    }
    let now = provider.now();
    let Some(wanted) = provider.grants().answered(handle, now) else {
        return page::failure(StatusCode::GONE, page::TOO_LATE);
    };
    match person {
        Ok(person) if approved => provider.approve(wanted, person, StatusCode::SEE_OTHER, id),
        _ => {
            let (redirect_uri, state) = (wanted.redirect_uri, wanted.state);
            let refused = Refused { redirect_uri, state, code: "access_denied" };
            provider.refuse(refused, StatusCode::SEE_OTHER)
        }
    }
}

impl Provider {
    /// Reads an authorization request. Whoever asks is known to be the client only
    /// once the client and its redirect address are.
    fn read(&self, query: &str) -> Result<Authorization, Failure> {
        let page = |why| Failure::Page(Untrusted(why));
        let form = Form::parse(query.as_bytes(), &["resource"])
            .map_err(|_| page("The request has a parameter twice, or too many of them."))?;
        if !self.knows_client(form.optional("client_id")) {
            return Err(page("The client_id is not known here."));
        }
        let redirect_uri = form
            .optional("redirect_uri")
            .and_then(loopback_redirect)
            .ok_or_else(|| page("The redirect_uri is not an http address on loopback."))?;
        let state = form.optional("state").map(String::from);
        let refused = |code| {
            let (redirect_uri, state) = (redirect_uri.clone(), state.clone());
            Failure::Redirect(Box::new(Refused { redirect_uri, state, code }))
        };
        match form.optional("response_type") {
            Some("code") => {}
            Some(_) => return Err(refused("unsupported_response_type")),
            None => return Err(refused("invalid_request")),
        }
        if form.optional("request").is_some() {
            return Err(refused("request_not_supported"));
        }
        if form.optional("request_uri").is_some() {
            return Err(refused("request_uri_not_supported"));
        }
        if !matches!(form.optional("response_mode"), None | Some("query")) {
            return Err(refused("invalid_request"));
        }
        if form.optional("prompt") == Some("none") && !self.options.auto_approve {
            return Err(refused("interaction_required"));
        }
        // RFC 7636 section 4.4.1; `plain` would give the verifier away.
        let challenge = form.optional("code_challenge").filter(|challenge| {
            challenge.len() == 43 && form.optional("code_challenge_method") == Some("S256")
        });
        let challenge = challenge.ok_or_else(|| refused("invalid_request"))?.to_string();
        let resources =
            self.resources(form.all("resource")).map_err(|_| refused("invalid_target"))?;
        Ok(Authorization {
            state: form.optional("state").map(String::from),
            nonce: form.optional("nonce").map(String::from),
            challenge,
            asked: Asked { scope: Self::scope(form.optional("scope")), resources },
            redirect_uri,
        })
    }

    fn approve(
        &self,
        wanted: Authorization,
        person: Person,
        status: StatusCode,
        id: RequestId,
    ) -> Response {
        let (to, state) = (wanted.redirect_uri.clone(), wanted.state.clone());
        let now = self.now();
        let code = self.grants().code(wanted, person, now);
        match code {
            Ok(code) => self.redirect(to, state, status, ("code", &code)),
            Err(error) => page::broken(&error, id),
        }
    }

    fn refuse(&self, refused: Refused, status: StatusCode) -> Response {
        let Refused { redirect_uri, state, code } = refused;
        self.redirect(redirect_uri, state, status, ("error", &Secret::new(code.to_string())))
    }

    fn redirect(
        &self,
        mut to: Url,
        state: Option<String>,
        status: StatusCode,
        (name, value): (&str, &Secret<String>),
    ) -> Response {
        {
            let mut query = to.query_pairs_mut();
            query.append_pair(name, value.expose());
            if let Some(state) = &state {
                query.append_pair("state", state);
            }
            query.append_pair("iss", self.options.issuer.as_str());
        }
        let headers = [
            (LOCATION, to.as_str()),
            (CACHE_CONTROL, "no-store"),
            (REFERRER_POLICY, "no-referrer"),
        ];
        (status, headers).into_response()
    }
}

/// A redirect address of a native client: any port and path on loopback
/// (RFC 8252 section 7.3).
fn loopback_redirect(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let loopback = match url.host()? {
        Host::Ipv4(ip) => ip.is_loopback(),
        Host::Ipv6(ip) => ip.is_loopback(),
        Host::Domain(name) => name == "localhost",
    };
    let bare = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    (loopback && bare && url.scheme() == "http").then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_go_to_this_machine_only() {
        for good in ["http://127.0.0.1:1/cb", "http://[::1]:2/", "http://localhost:3/a?b=c"] {
            assert!(loopback_redirect(good).is_some(), "{good}");
        }
        for bad in [
            "https://127.0.0.1/cb",
            "http://evil.example/",
            "http://127.0.0.1.evil.example/",
            "http://127.0.0.1@evil.example/",
            "http://a@127.0.0.1/",
            "http://127.0.0.1/#f",
            "http://localhost.evil/",
            "javascript:alert(1)",
            "//127.0.0.1/",
            "",
        ] {
            assert!(loopback_redirect(bad).is_none(), "{bad}");
        }
    }
}
