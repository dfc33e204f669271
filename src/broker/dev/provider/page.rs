//! The pages: small, self-contained, no scripts.

use aws_lc_rs::digest::{SHA256, digest};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, REFERRER_POLICY, SET_COOKIE,
    X_FRAME_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use url::{Host, Url};

use super::grants::Asked;
use super::person::Person;
use crate::broker::http::guard::RequestId;
use crate::error::Error;

const STYLE: &str = include_str!("style.css");

/// What is said to an answer from another page than the one that was shown.
pub(super) const NOT_OWN: &str = "This answer does not come from the page that was shown in this browser. Go back and load that page again.";

/// What is said to an answer that nobody waits for.
pub(super) const TOO_LATE: &str =
    "This was answered already, or nobody waits for it any more. Start the login again.";

/// A page that asks for consent.
pub(super) struct Consent<'a> {
    /// Where the answer goes.
    pub(super) action: Url,
    /// What the form carries besides.
    pub(super) hidden: &'a [(&'a str, &'a str)],
    /// What is asked for.
    pub(super) asked: &'a Asked,
    /// Who it probably is.
    pub(super) person: &'a Person,
    /// The code of the device that asks.
    pub(super) user_code: Option<&'a str>,
    /// What was wrong with the last answer.
    pub(super) wrong: Option<&'a str>,
}

/// Asks who it is, and whether they consent. `redirect_uri` is where the answer
/// leads in the end.
pub(super) fn consent(
    consent: &Consent<'_>,
    redirect_uri: Option<&Url>,
    cookie: Option<HeaderValue>,
) -> Response {
    let person = consent.person;
    let body = html! {
        h1 { "Who are you today?" }
        p { "A program on this machine asks you to log in." }
        @if let Some(code) = consent.user_code {
            p { "Go on only if it shows this code:" }
            p.code { (code) }
        }
        @if let Some(wrong) = consent.wrong { p.wrong role="alert" { (wrong) } }
        form method="post" action=(consent.action) autocomplete="off" {
            @for (name, value) in consent.hidden { input type="hidden" name=(name) value=(value); }
            label for="login" { "User name" }
            input id="login" name="login" value=(person.login) required maxlength="128" autocapitalize="none" spellcheck="false";
            label for="name" { "Full name" }
            input id="name" name="name" value=(person.name) maxlength="128" spellcheck="false";
            label for="groups" { "Groups" }
            input id="groups" name="groups" value=(person.groups.join(" ")) aria-describedby="groups-hint" autocapitalize="none" spellcheck="false";
            p.hint id="groups-hint" { "Separated by spaces. Change them to see what policy makes of it." }
            (wanted(consent.asked))
            div.answers {
                button.main name="answer" value="approve" { "Log in" }
                button name="answer" value="deny" formnovalidate { "Deny" }
            }
        }
    };
    let mut response = page(StatusCode::OK, "Log in", body, redirect_uri);
    if let Some(cookie) = cookie {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    response
}

fn wanted(asked: &Asked) -> Markup {
    let scope: Vec<&str> = asked.scope.iter().map(String::as_str).collect();
    html! {
        dl {
            @if !scope.is_empty() {
                dt { "Scope" } dd { (scope.join(" ")) }
            }
            @for resource in &asked.resources {
                dt { "For" } dd { (resource) }
            }
        }
    }
}

/// Asks for the code that a device shows.
pub(super) fn enter_code(action: &Url, wrong: Option<&str>) -> Response {
    let body = html! {
        h1 { "Enter the code" }
        p { "The program that asks you to log in shows it." }
        @if let Some(wrong) = wrong { p.wrong role="alert" { (wrong) } }
        form method="get" action=(action) autocomplete="off" {
            label for="user_code" { "Code" }
            input.code id="user_code" name="user_code" required maxlength="20" placeholder="XXXX-XXXX" autocapitalize="characters" spellcheck="false" autofocus;
            div.answers { button.main { "Continue" } }
        }
    };
    let status = if wrong.is_some() { StatusCode::NOT_FOUND } else { StatusCode::OK };
    page(status, "Enter the code", body, None)
}

/// Says that the device has its answer.
pub(super) fn done(approved: bool) -> Response {
    let title = if approved { "You are logged in" } else { "Denied" };
    let body = html! {
        h1 { (title) }
        p { "The program has been told. You can close this page." }
    };
    page(StatusCode::OK, title, body, None)
}

/// Says what is wrong with a request.
pub(super) fn failure(status: StatusCode, why: &str) -> Response {
    let body = html! {
        h1 { "This does not work" }
        p.wrong role="alert" { (why) }
    };
    page(status, "This does not work", body, None)
}

/// Says that the provider failed; the log says why.
pub(super) fn broken(error: &Error, id: RequestId) -> Response {
    tracing::error!(%error, "the provider failed");
    failure(
        StatusCode::INTERNAL_SERVER_ERROR,
        &format!("The provider failed. Its log says why, under the request id {id}."),
    )
}

/// A whole page, with the headers that keep it to itself.
pub(in crate::broker::dev) fn page(
    status: StatusCode,
    title: &str,
    body: Markup,
    redirect_uri: Option<&Url>,
) -> Response {
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex";
                title { (title) " · tmpcred development provider" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header { strong { "Development" } " · this machine only · nothing here is secret or kept" }
                main { (body) }
                footer { "tmpcred" }
            }
        }
    };
    let headers: [(HeaderName, String); 4] = [
        (CONTENT_SECURITY_POLICY, content_security_policy(redirect_uri)),
        (CACHE_CONTROL, "no-store".into()),
        // Without any, browsers would not say either that a form is our own.
        (REFERRER_POLICY, "same-origin".into()),
        (X_FRAME_OPTIONS, "DENY".into()),
    ];
    (status, headers, markup).into_response()
}

/// Nothing but our own style, named by its hash. A form may lead to this provider,
/// and on from it to the client's address: browsers apply `form-action` to
/// redirects as well.
fn content_security_policy(redirect_uri: Option<&Url>) -> String {
    let style = STANDARD.encode(digest(&SHA256, STYLE.as_bytes()));
    let on = match redirect_uri {
        None => String::new(),
        // A source cannot name an IPv6 address (CSP 3 section 2.3.1).
        Some(url) if matches!(url.host(), Some(Host::Ipv6(_))) => " http:".into(),
        Some(url) => format!(" {}", url.origin().ascii_serialization()),
    };
    format!(
        "default-src 'none'; style-src 'sha256-{style}'; form-action 'self'{on}; \
         base-uri 'none'; frame-ancestors 'none'"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_and_programs_say_is_escaped() {
        let nasty = "\"><script>alert(1)</script>";
        let person = Person { login: nasty.into(), name: nasty.into(), groups: vec![nasty.into()] };
        let asked = Asked { scope: [nasty.into()].into(), resources: [nasty.into()].into() };
        let made = Consent {
            action: Url::parse("http://127.0.0.1:1/x").unwrap(),
            hidden: &[("a", nasty)],
            asked: &asked,
            person: &person,
            user_code: Some(nasty),
            wrong: Some(nasty),
        };
        let response = consent(&made, None, None);
        let runtime = crate::host::process::runtime().unwrap();
        let body = runtime.block_on(axum::body::to_bytes(response.into_body(), 1 << 20)).unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert!(text.contains("&lt;script&gt;") && !text.contains("<script"), "{text}");
    }

    #[test]
    fn forms_lead_only_to_the_provider_and_the_client() {
        let csp = |url: &str| content_security_policy(Some(&Url::parse(url).unwrap()));
        assert!(csp("http://127.0.0.1:7/cb?x").contains("form-action 'self' http://127.0.0.1:7;"));
        assert!(csp("http://[::1]:7/cb").contains("form-action 'self' http:;"));
        assert!(content_security_policy(None).contains("form-action 'self';"));
    }
}
