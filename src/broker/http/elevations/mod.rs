//! Elevations: asking for a role for a while, and what is done about that.

mod statements;
mod uses;
pub(super) mod view;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path as InPath, Query, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::api::{Answer, Endpoint, Field, Kind, Operation, Parameter, Verb};
use super::client;
use super::form::{Form, Posted};
use super::operate::{Outcome, Request, Shown, Unserved, described, done, flag, to_its_end};
use super::query;
use super::rates;
use super::refusal::Refusal;
use super::token::RETRY_AFTER;
use crate::broker::Broker;
use crate::broker::config::{self, Login};
use crate::broker::elevation::{self, Path, Refused, Verdict, Which};
use crate::broker::operate::Asked;
use crate::wire::elevation::{self as wire, ELEVATIONS_PATH};
use crate::wire::refusal::{
    ELEVATION_CONFLICT, ELEVATION_SHORT, ELEVATION_STATE, INSUFFICIENT_AUTHENTICATION,
};

/// How long a text that people write may be, in bytes: it goes on record.
const MAX_TEXT: usize = 1000;

/// How many a page has where nobody says, and at most.
const PAGE: u32 = 50;
const MOST: u32 = 200;

/// What a request for a role may have.
const REQUEST_FIELDS: &[Field] = &[
    Field::optional("role", "The role; it is needed where there is no `statement`"),
    Field::optional("audience", "Whom its tokens are for; may be left out where the role has one"),
    Field::optional("scope", "What they cover, separated by spaces; else all that policy gives"),
    Field::optional("ttl", "For how many seconds; else as long as can be had").of(Kind::Number),
    Field::optional("reason", "Why; it is needed where there is no `statement`"),
    Field::optional("ticket", "The ticket"),
    Field::optional("start", "When it is to start (RFC 3339); else once it is approved"),
    Field::optional("emergency", "At once, without approval").of(Kind::OneOf(&["true"])),
    Field::optional("drill", "To practise it: all is as it would be, and nothing is issued")
        .of(Kind::OneOf(&["true"])),
    Field::optional("dpop_jkt", "The thumbprint of the key that its tokens are to be bound to"),
    Field::optional(
        "idempotency_key",
        "The same where the same is asked for again, because the answer was lost",
    ),
    Field::optional(
        "statement",
        "In place of all else, and of showing who asks: what people signed (SSHSIG), one after the other; a request, and what is said about it, or either",
    ),
];

const REQUEST_FORM: &[&[Field]] = &[REQUEST_FIELDS, client::FIELDS];

/// What something that is done about one may have.
const EVENT_FIELDS: &[Field] = &[
    Field::optional("hash", "To approve: the `hash` of what is approved"),
    Field::optional("reason", "Why; to deny and to revoke it is needed"),
    Field::optional("outcome", "To review: what was found")
        .of(Kind::OneOf(&["reviewed", "disputed"])),
    Field::optional("note", "To review: what is to be known of it"),
    Field::optional(
        "statement",
        "In place of all else, and of showing who asks: an `approval` to approve, a `denial` to deny, a `use` to activate, an `ending` to withdraw, relinquish or revoke, signed (SSHSIG)",
    ),
];

const EVENT_FORM: &[&[Field]] = &[EVENT_FIELDS, client::FIELDS];

/// What is done, by the last part of the path.
pub(super) const EVENTS: [&str; 7] =
    ["approve", "deny", "withdraw", "activate", "relinquish", "revoke", "review"];

/// The endpoints.
pub(super) fn endpoints(base: &str) -> Vec<Endpoint<Arc<Broker>>> {
    let id = Parameter::path("id", "The id of the elevation");
    let asked = Operation::new("elevations_request", "Ask for a role for a while")
        .about("Policy decides who may (`Action::\"elevate\"`). In an emergency the role is had when it is answered.")
        .only(REQUEST_FORM)
        .answers(Answer::json::<wire::Elevation>(201, "It is asked for"))
        .answers(Answer::json::<wire::Elevation>(200, "Of statements: it was asked for before"));
    let listed = Operation::new("elevations", "List elevations")
        .takes(&[
            Parameter::text(
                "which",
                "`mine`, `to-approve`, `active` or `to-review`; `mine` where left out",
            ),
            Parameter::number("limit", "How many at most: 50 where left out, 200 at most", false),
            Parameter::text("below", "Older ones than the one with this id"),
        ])
        .answers(Answer::json::<wire::Page>(200, "Those that match, the newest first"));
    let one = Operation::new("elevation", "Look at an elevation")
        .takes(&[id])
        .answers(Answer::json::<wire::Elevation>(200, "What became of it"));
    let event = Operation::new("elevation_event", "Do something about an elevation")
        .about("`approve`, `deny`, `withdraw`, `activate`, `relinquish`, `revoke` or `review`. Who may approve, deny, revoke and review is said by the directory of people and by policy (`Action::\"approve\"`).")
        .takes(&[id, Parameter::path("event", "What is done")])
        .only_or_none(EVENT_FORM)
        .answers(Answer::json::<wire::Elevation>(200, "It is done"));
    let at = |path: &str| format!("{base}/{ELEVATIONS_PATH}{path}");
    let own = [
        Endpoint::new(at(""), Verb::Post, post(request), refused(asked, Verb::Post)),
        Endpoint::new(at(""), Verb::Get, get(list), refused(listed, Verb::Get)),
        Endpoint::new(at("/{id}"), Verb::Get, get(show), refused(one, Verb::Get)),
        Endpoint::new(at("/{id}/{event}"), Verb::Post, post(settle), refused(event, Verb::Post)),
    ];
    own.into_iter()
        .chain([statements::rules_endpoint(base)])
        .chain(uses::endpoints(base))
        .map(|endpoint| endpoint.shedding().limited(config::Endpoint::Elevations))
        .collect()
}

/// What is said of all of them.
fn refused(operation: Operation, verb: Verb) -> Operation {
    let state = [ELEVATION_STATE, ELEVATION_SHORT, ELEVATION_CONFLICT];
    let stepping_up = "The caller has to log in for it (RFC 9470)";
    described(operation, verb)
        .answers(Answer::refusal(409, "It cannot be done as things stand", &state))
        .answers(Answer::refusal(404, "There is none, or none of theirs", &["not_found"]))
        .answers(Answer::refusal(401, stepping_up, &[INSUFFICIENT_AUTHENTICATION]))
}

async fn request(State(broker): State<Arc<Broker>>, shown: Shown, posted: Posted) -> Response {
    let (form, headers) = posted.described(REQUEST_FORM);
    let request = Request::new(
        &broker,
        shown,
        &headers,
        (config::Endpoint::Elevations, "POST", ELEVATIONS_PATH),
    );
    let mut is_drill = false;
    let perform = async {
        if let Some(text) = statements::of(&form, &headers)? {
            return statements::bring(&request, text, None, &mut is_drill).await;
        }
        let asked = identified(&request, form.as_ref().ok()).await?;
        let wanted = wanted(&form?.known()?)?;
        is_drill = wanted.drill;
        let elevation = {
            let (broker, book) = (broker.clone(), request.book.clone());
            to_its_end(async move {
                Ok(match broker.elevate(&book, &asked, wanted).await {
                    Ok(elevation) => broker.seen_by(&book, &asked, elevation).await,
                    Err(refusal) => Err(refusal),
                })
            })
            .await?
            .map_err(unserved)?
        };
        Ok((StatusCode::CREATED, done(view::elevation(&request.book, &elevation))).into_response())
    };
    let outcome = perform.await;
    answered(&request, ("request", is_drill), outcome)
}

async fn settle(
    State(broker): State<Arc<Broker>>,
    shown: Shown,
    path: Result<InPath<(String, String)>, PathRejection>,
    posted: Posted,
) -> Response {
    let (form, headers) = posted.described_or_none(EVENT_FORM);
    let InPath((id, event)) = path.unwrap_or_else(|_| InPath(Default::default()));
    let at = format!("{ELEVATIONS_PATH}/{id}/{event}");
    let request =
        Request::new(&broker, shown, &headers, (config::Endpoint::Elevations, "POST", &at));
    let mut is_drill = false;
    let perform = async {
        if let Some(text) = statements::of(&form, &headers)? {
            let about = Some((known_id(&id)?, event.as_str()));
            return statements::bring(&request, text, about, &mut is_drill).await;
        }
        let asked = identified(&request, form.as_ref().ok()).await?;
        let id = known_id(&id)?;
        let verdict = verdict(&event, &form?.known()?)?;
        let (broker, book) = (broker.clone(), request.book.clone());
        let (seen, drill) = to_its_end(async move {
            let outcome = broker.settle(&book, &asked, id, &verdict).await;
            let drill = broker.is_drill(&outcome, id).await;
            let seen = match outcome {
                Ok(elevation) => broker.seen_by(&book, &asked, elevation).await,
                Err(refusal) => Err(refusal),
            };
            Ok((seen, drill))
        })
        .await?;
        is_drill = drill;
        Ok(done(view::elevation(&request.book, &seen.map_err(unserved)?)))
    };
    let outcome = perform.await;
    let event = EVENTS.into_iter().find(|known| *known == event).unwrap_or("unknown");
    answered(&request, (event, is_drill), outcome)
}

async fn show(
    State(broker): State<Arc<Broker>>,
    shown: Shown,
    path: Result<InPath<String>, PathRejection>,
    query: RawQuery,
    headers: HeaderMap,
) -> Response {
    let InPath(id) = path.unwrap_or_else(|_| InPath(String::new()));
    let at = format!("{ELEVATIONS_PATH}/{id}");
    let request =
        Request::new(&broker, shown, &headers, (config::Endpoint::Elevations, "GET", &at));
    let mut is_drill = false;
    let perform = async {
        let asked = identified(&request, None).await?;
        request.require_clock().await?;
        query::none(&query)?;
        let seen = broker.elevation_for(&request.book, &asked, known_id(&id)?).await;
        let seen = seen.map_err(unserved)?;
        is_drill = seen.elevation.asked.drill;
        Ok(done(view::elevation(&request.book, &seen)))
    };
    let outcome = perform.await;
    answered(&request, ("show", is_drill), outcome)
}

/// Which elevations are listed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    which: Option<String>,
    limit: Option<u32>,
    below: Option<String>,
}

async fn list(
    State(broker): State<Arc<Broker>>,
    shown: Shown,
    query: Result<Query<Listed>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    let request = Request::new(
        &broker,
        shown,
        &headers,
        (config::Endpoint::Elevations, "GET", ELEVATIONS_PATH),
    );
    let perform = async {
        let asked = identified(&request, None).await?;
        request.require_clock().await?;
        let known = ["which", "limit", "below"];
        let Query(listed) = query.map_err(|rejected| query::misread(&rejected, &known))?;
        let which = listed.which.as_deref().unwrap_or("mine");
        let which = Which::from_name(which).ok_or_else(|| {
            Unserved::malformed(format!("'which' is one of {}", Which::NAMES.join(", ")))
        })?;
        let limit = listed.limit.unwrap_or(PAGE);
        if limit == 0 || limit > MOST {
            return Err(Unserved::malformed(format!("'limit' is from 1 to {MOST}")));
        }
        let below = listed.below.as_deref().map(known_id).transpose()?;
        let page = broker.elevations_for(&request.book, &asked, which, below, limit as usize).await;
        Ok(done(view::page(&request.book, &page.map_err(unserved)?)))
    };
    let outcome = perform.await;
    answered(&request, ("list", false), outcome)
}

/// Who asks: that they show a token of a login keeps the keys that they enrolled, also of those
/// who never do anything but approve.
async fn identified(request: &Request<'_>, form: Option<&Form>) -> Result<Asked, Unserved> {
    let asked = request.identified(form).await?;
    super::token::summarize(request.broker).await;
    request.broker.saw_login(&request.book, &asked.caller);
    Ok(asked)
}

/// The answer, which is counted, unless it is about a drill.
fn answered(
    request: &Request<'_>,
    (event, is_drill): (&'static str, bool),
    outcome: Result<Response, Unserved>,
) -> Response {
    let said = outcome.as_ref().map_or_else(|unserved| unserved.outcome.as_str(), |_| "done");
    if !is_drill {
        request.broker.metrics.elevated(event, said);
    }
    outcome.unwrap_or_else(|unserved| unserved.at(request.id))
}

fn known_id(text: &str) -> Result<Uuid, Unserved> {
    Uuid::try_parse(text).map_err(|_| unserved(elevation::Refusal::Unknown))
}

/// What a form asks for.
fn wanted(form: &Form) -> Result<elevation::Request, Unserved> {
    let malformed = Unserved::malformed;
    let role = form.required("role")?;
    if !config::is_name(role) {
        return Err(malformed("the parameter 'role' is not the name of a role"));
    }
    let scope = form.optional("scope").map(|text| {
        let scope: BTreeSet<String> =
            text.split(' ').filter(|one| !one.is_empty()).map(String::from).collect();
        match !scope.is_empty() && scope.iter().all(|one| config::is_scope_token(one)) {
            true => Ok(scope),
            false => Err(malformed("the scope is malformed")),
        }
    });
    let ttl = form.optional("ttl").map(|text| match text.parse::<u64>() {
        Ok(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds)),
        _ => Err(malformed("the parameter 'ttl' is not a number of seconds above zero")),
    });
    let start = form.optional("start").map(|text| {
        OffsetDateTime::parse(text, &Rfc3339).map_err(|_| {
            malformed("the parameter 'start' is no moment such as 2026-01-31T08:00:00Z")
        })
    });
    let key = form.optional("dpop_jkt").map(|text| {
        let graphic = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        match graphic && text.len() == 43 {
            true => Ok(text.to_string()),
            false => Err(malformed("the parameter 'dpop_jkt' is no thumbprint of a key")),
        }
    });
    let idempotency_key = form.optional("idempotency_key").map(|text| {
        match text.len() <= 128 && text.bytes().all(|byte| byte.is_ascii_graphic()) {
            true => Ok(text.to_string()),
            false => Err(malformed("the parameter 'idempotency_key' is too long, or no text")),
        }
    });
    Ok(elevation::Request {
        path: if flag(form, "emergency")? { Path::Emergency } else { Path::Ordinary },
        drill: flag(form, "drill")?,
        role: role.into(),
        audience: form.optional("audience").map(String::from),
        scope: scope.transpose()?,
        ttl: ttl.transpose()?,
        start: start.transpose()?,
        key: key.transpose()?,
        reason: needed(form, "reason")?,
        ticket: text(form, "ticket")?,
        idempotency_key: idempotency_key.transpose()?,
        signed: None,
    })
}

/// What a form says is to be done.
pub(super) fn verdict(event: &str, form: &Form) -> Result<Verdict, Unserved> {
    Ok(match event {
        "approve" => {
            Verdict::Approve { hash: form.required("hash")?.into(), reason: text(form, "reason")? }
        }
        "deny" => Verdict::Deny { reason: needed(form, "reason")? },
        "withdraw" => Verdict::Withdraw,
        "activate" => Verdict::Activate,
        "relinquish" => Verdict::Relinquish,
        "revoke" => Verdict::Revoke { reason: needed(form, "reason")? },
        "review" => Verdict::Review {
            in_order: match form.required("outcome")? {
                "reviewed" => true,
                "disputed" => false,
                _ => {
                    let why = "the parameter 'outcome' is 'reviewed' or 'disputed'";
                    return Err(Unserved::malformed(why));
                }
            },
            note: needed(form, "note")?,
        },
        _ => {
            let why = format!("what can be done is to {}", EVENTS.join(", "));
            return Err(Unserved::malformed(why));
        }
    })
}

/// A line that somebody wrote.
fn text(form: &Form, name: &str) -> Result<Option<String>, Unserved> {
    let Some(text) = form.optional(name) else { return Ok(None) };
    match text.len() <= MAX_TEXT && !text.chars().any(char::is_control) {
        true => Ok(Some(text.trim().to_string()).filter(|text| !text.is_empty())),
        false => Err(Unserved::malformed(format!(
            "the parameter '{name}' must be a line of at most {MAX_TEXT} bytes"
        ))),
    }
}

fn needed(form: &Form, name: &str) -> Result<String, Unserved> {
    form.required(name)?;
    text(form, name)?
        .ok_or_else(|| Unserved::malformed(format!("the parameter '{name}' says nothing")))
}

pub(super) fn unserved(refusal: elevation::Refusal) -> Unserved {
    use elevation::Refusal as Why;
    let state = |code, why: String, with| {
        let refusal = Refusal::new(StatusCode::CONFLICT, code, why).because_of(with);
        Unserved::new(Outcome::Denied, refusal)
    };
    match refusal {
        Why::Unknown => {
            let why = "there is no such elevation, or it is none of yours";
            let refusal = Refusal::new(StatusCode::NOT_FOUND, "not_found", why);
            Unserved::new(Outcome::Unknown, refusal)
        }
        Why::Malformed(why) => Unserved::malformed(why),
        // Others may still approve: whoever waits need not end.
        Why::Refused(refused @ Refused::Short(_)) => {
            state(ELEVATION_SHORT, refused.to_string(), None)
        }
        Why::Refused(refused) => state(ELEVATION_STATE, refused.to_string(), None),
        Why::Conflict { why, with } => state(ELEVATION_CONFLICT, why, with),
        Why::Denied(why) => Unserved::new(Outcome::Denied, Refusal::forbidden(why)),
        Why::Counted { retry_after } => {
            let why =
                "it is denied, and so many requests were denied lately that they are only counted";
            let refusal = Refusal::forbidden(why).retrying(retry_after);
            Unserved::new(Outcome::Denied, refusal)
        }
        Why::TooOften(too_often) => Unserved::new(Outcome::Denied, rates::told(too_often)),
        Why::StepUp(login) => step_up(&login),
        Why::Stale => {
            let why = "the directory of people is out of date, so nobody can be told from others";
            Unserved::new(Outcome::Denied, Refusal::forbidden(why))
        }
        Why::Busy(busy) => {
            let refusal = Refusal::unavailable(busy.to_string(), RETRY_AFTER);
            Unserved::new(Outcome::Failed, refusal)
        }
        Why::Uncheckable => {
            let refusal = Refusal::unavailable(elevation::UNCHECKABLE, RETRY_AFTER);
            Unserved::new(Outcome::Failed, refusal)
        }
        Why::Unrecorded(error) => Unserved::of(&error),
    }
}

/// How to log in for it (RFC 9470 section 3).
fn step_up(login: &Login) -> Unserved {
    let mut challenge =
        format!("Bearer realm=\"tmpcred\", error=\"{INSUFFICIENT_AUTHENTICATION}\"");
    let mut how = Vec::new();
    if let Some(max_age) = login.max_age {
        challenge += &format!(", max_age=\"{}\"", max_age.as_secs());
        how.push(format!("within the last {}", humantime::format_duration(max_age)));
    }
    if !login.acr.is_empty() {
        let acr: Vec<_> = login.acr.iter().map(String::as_str).collect();
        challenge += &format!(", acr_values=\"{}\"", acr.join(" ").replace(['"', '\\'], ""));
        how.push(format!("with one of the levels {}", acr.join(", ")));
    }
    let why = format!("this needs a login {}, as the token says", how.join(" and "));
    let refusal = Refusal::new(StatusCode::UNAUTHORIZED, INSUFFICIENT_AUTHENTICATION, why);
    Unserved::new(Outcome::Unauthenticated, refusal.challenging(challenge))
}
