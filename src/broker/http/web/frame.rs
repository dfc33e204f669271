//! What all pages have around them, and how things are written on them.

use aws_lc_rs::digest::{SHA256, digest};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use time::macros::format_description;

use super::super::guard::RequestId;
use super::super::operate::Unserved;
use super::visit::{base, signing_in};
use crate::broker::Broker;
use crate::broker::config::Login;
use crate::error::printable;
use crate::wire::elevation::{Party, machine};

const STYLE: &str = include_str!("style.css");

/// What is around a page for somebody who is signed in.
pub(super) struct Frame {
    /// The path of the pages.
    pub(super) base: String,
    /// What whoever looks is called.
    pub(super) name: String,
    /// What their forms have to say.
    pub(super) csrf: String,
    /// Whether they may read the audit log.
    pub(super) reads_audit: bool,
    /// Which of the places this is.
    pub(super) here: Option<Here>,
}

/// The places that are named on each page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Here {
    Waiting,
    Active,
    Reviews,
    Mine,
    Audit,
}

impl Here {
    const ALL: [Self; 5] = [Self::Waiting, Self::Active, Self::Reviews, Self::Mine, Self::Audit];

    /// Its path, below that of the pages.
    pub(super) fn path(self) -> &'static str {
        match self {
            Self::Waiting => "",
            Self::Active => "active",
            Self::Reviews => "reviews",
            Self::Mine => "mine",
            Self::Audit => "audit",
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Waiting => "Waiting",
            Self::Active => "Active",
            Self::Reviews => "Reviews",
            Self::Mine => "Mine",
            Self::Audit => "Audit",
        }
    }

    /// Its title, what it shows, and what is said where there is nothing.
    pub(super) fn said(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Waiting => (
                "Waiting for you",
                "Requests for a role that you may approve or deny.",
                "Nothing waits for you.",
            ),
            Self::Active => (
                "Active grants",
                "Roles that somebody has at this moment, with the time that is left.",
                "Nobody has a role under a grant that you may see.",
            ),
            Self::Reviews => (
                "Reviews due",
                "What was done under these grants is to be looked at by somebody who did not approve it.",
                "There is nothing for you to review.",
            ),
            Self::Mine => (
                "Your own requests",
                "What you have asked for, and what became of it.",
                "You have asked for nothing yet. Ask with `tmpcred elevate request`.",
            ),
            Self::Audit => {
                ("Audit log", "What is on record, the newest first.", "No record matches.")
            }
        }
    }
}

impl Frame {
    /// The address of a place below the pages.
    pub(super) fn at(&self, path: &str) -> String {
        if path.is_empty() { self.base.clone() } else { format!("{}/{path}", self.base) }
    }

    fn nav(&self) -> Markup {
        let places = Here::ALL.into_iter().filter(|here| *here != Here::Audit || self.reads_audit);
        html! {
            nav aria-label="Pages" {
                ul {
                    @for here in places {
                        li {
                            a href=(self.at(here.path())) aria-current=[(self.here == Some(here)).then_some("page")] {
                                (here.label())
                            }
                        }
                    }
                }
            }
            form.out method="post" action=(self.at("sign-out")) {
                (self.token())
                span.who { span.hidden { "Signed in as " } bdi { (printable(&self.name)) } }
                button.small { "Sign out" }
            }
        }
    }

    /// What makes a form one of this session.
    pub(super) fn token(&self) -> Markup {
        html! { input type="hidden" name="csrf" value=(self.csrf); }
    }
}

/// A whole page.
pub(super) fn page(
    frame: Option<&Frame>,
    status: StatusCode,
    title: &str,
    body: Markup,
) -> Response {
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (printable(title)) " · tmpcred" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                header.top {
                    div.in {
                        p.brand { "tmpcred " span.soft { "break-glass" } }
                        @if let Some(frame) = frame { (frame.nav()) }
                    }
                }
                main id="main" tabindex="-1" { (body) }
            }
        }
    };
    (status, markup).into_response()
}

/// Nothing but our own style, named by its hash. Forms lead to the broker alone: whoever signs
/// in follows a link.
pub(super) fn content_security_policy() -> String {
    let style = STANDARD.encode(digest(&SHA256, STYLE.as_bytes()));
    format!(
        "default-src 'none'; style-src 'sha256-{style}'; form-action 'self'; base-uri 'none'; \
         frame-ancestors 'none'"
    )
}

/// Says that something did not work, why, and what to do next.
pub(super) fn failure(
    frame: Option<&Frame>,
    status: StatusCode,
    why: &str,
    id: RequestId,
) -> Response {
    let (title, next) = match status {
        StatusCode::NOT_FOUND => (
            "Not found",
            "Whoever asked may have been somebody else, or it was long ago: the audit log has all of it.",
        ),
        StatusCode::FORBIDDEN => (
            "You may not do that",
            "Who may is said by the policies and the directory of people of whoever operates the broker.",
        ),
        StatusCode::CONFLICT => (
            "That cannot be done now",
            "Somebody else may have been quicker. Load the page of the request again to see how things stand.",
        ),
        StatusCode::BAD_REQUEST => {
            ("That cannot be done like this", "Go back, and change what you wrote.")
        }
        StatusCode::TOO_MANY_REQUESTS => {
            ("Too many requests", "Wait a moment, and load the page again.")
        }
        status if status.is_server_error() => (
            "The broker cannot do that at present",
            "Try again in a moment. Where it stays like this, tell whoever operates the broker.",
        ),
        _ => ("This did not work", "Go back, and try again."),
    };
    let body = html! {
        h1 { (title) }
        p.notice.wrong role="alert" { (sentence(why)) }
        p { (next) }
        @if let Some(frame) = frame { p { a.button href=(frame.at("")) { "To what waits for you" } } }
        p.soft { "Request " code { (id) } }
    };
    page(frame, status, title, body)
}

/// The same of what was refused.
pub(super) fn unserved(frame: Option<&Frame>, unserved: &Unserved, id: RequestId) -> Response {
    let refusal = &unserved.refusal;
    refusal.log();
    failure(frame, refusal.status(), refusal.description(), id)
}

/// Says why somebody has to sign in, and leads there.
pub(super) fn sign_in_first(broker: &Broker, to: &str, why: &str, status: StatusCode) -> Response {
    let title = if status == StatusCode::OK { "Signed out" } else { "Sign in" };
    let body = html! {
        h1 { (title) }
        p.notice role="status" { (printable(why)) }
        p { a.button.main href=(signing_in(broker, to)) { "Sign in" } }
    };
    page(None, status, title, body)
}

/// Says that somebody is not in the directory.
pub(super) fn stranger(broker: &Broker) -> Response {
    let title = "You are not in the directory of people";
    let body = html! {
        h1 { (title) }
        p.notice.wrong role="alert" {
            "The identity provider says who you are, and the broker knows nobody with that name. So there is nothing here that you could do."
        }
        p { "Tell whoever looks after the directory of people, and sign in again once you are in it." }
        p { a.button href=(format!("{}/sign-in", base(broker))) { "Sign in again" } }
    };
    page(None, StatusCode::FORBIDDEN, title, body)
}

/// Says that somebody has to sign in again to decide.
pub(super) fn step_up(frame: &Frame, id: &str, login: &Login, status: StatusCode) -> Response {
    let title = "Sign in again";
    let body = html! {
        h1 { (title) }
        p { "Nothing was done yet." }
        (again(frame, id, login))
    };
    page(Some(frame), status, title, body)
}

/// What it takes to decide, and the way there and back.
pub(super) fn again(frame: &Frame, id: &str, login: &Login) -> Markup {
    html! {
        div.notice role="status" {
            p {
                "To decide about this role you have to sign in "
                @if let Some(max_age) = login.max_age {
                    "no longer than " (humantime::format_duration(max_age)) " before"
                }
                @if login.max_age.is_some() && !login.acr.is_empty() { ", and " }
                @if !login.acr.is_empty() { "with a stronger login" }
                ". You come back to this page."
            }
            p { a.button.main href={ (frame.at("sign-in")) "?to=" (id) } { "Sign in again" } }
        }
    }
}

/// A sentence of what a program says.
pub(super) fn sentence(text: &str) -> String {
    let text = printable(text);
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_uppercase().collect::<String>());
    let rest = letters.as_str();
    let end = if text.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{}{rest}{end}", first.unwrap_or_default())
}

/// What somebody wrote, which turns no direction of writing.
pub(super) fn quoted(text: &str) -> Markup {
    html! { bdi { (printable(text)) } }
}

/// What somebody is called.
pub(super) fn called(party: &Party) -> String {
    let machine = || machine(&party.issuer, &party.subject);
    let person = party.name.clone().or_else(|| party.person.clone());
    printable(&person.unwrap_or_else(machine))
}

/// The same on a page.
pub(super) fn party(party: &Party) -> Markup {
    quoted(&called(party))
}

/// Somebody, by all that is known of who they are.
pub(super) fn whole_party(one: &Party) -> Markup {
    html! {
        @if one.person.is_none() && one.name.is_none() { "A machine" } @else { (party(one)) }
        @if let Some(person) = &one.person { " (" bdi { (person) } ")" }
        br;
        span.id { (printable(&one.subject)) " at " (printable(&one.issuer)) }
    }
}

/// A moment, for people and for programs.
pub(super) fn moment(at: OffsetDateTime) -> Markup {
    let at = at.to_offset(time::UtcOffset::UTC);
    let people = at.format(format_description!("[year]-[month]-[day] [hour]:[minute] UTC"));
    let machine = at.replace_nanosecond(0).unwrap_or(at).format(&Rfc3339).unwrap_or_default();
    html! { time datetime=(machine) { (people.unwrap_or_default()) } }
}

/// How long that is.
pub(super) fn lasting(seconds: u64) -> String {
    humantime::format_duration(std::time::Duration::from_secs(seconds)).to_string()
}

/// How much time is left.
pub(super) fn left(until: OffsetDateTime, now: OffsetDateTime) -> String {
    let seconds = (until - now).whole_seconds().max(0).unsigned_abs();
    // Who reads it does not see it pass.
    lasting(if seconds >= 120 { seconds / 60 * 60 } else { seconds })
}
