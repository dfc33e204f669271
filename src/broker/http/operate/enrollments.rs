//! Keys that people enroll, to sign with while no provider can say who they are.

use std::sync::Arc;

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::{get, post};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::{Outcome, Request, Shown, Unserved, described, done, reason, to_its_end};
use crate::broker::authenticate::said;
use crate::broker::enroll::{Refused, on_their_own, person_asking};
use crate::broker::http::api::{Answer, Endpoint, Field, Operation, Parameter, Verb};
use crate::broker::http::form::{Form, Posted};
use crate::broker::http::query::misread;
use crate::broker::http::refusal::Refusal;
use crate::broker::policy::{self, Administration};
use crate::broker::store::{Enrollment, EnrollmentState};
use crate::broker::{Broker, config};
use crate::wire::ENROLLMENTS_PATH;

/// What a request to enroll may have.
const ENROLL_FIELDS: &[Field] = &[Field::required(
    "statement",
    "That the key is the caller's, signed by it: a statement with its signature (SSHSIG)",
)];

const ENROLL_FORM: &[&[Field]] = &[ENROLL_FIELDS];

/// What a request to approve may have.
const APPROVE_FIELDS: &[Field] = &[Field::optional(
    "fingerprint",
    "Of the key that is meant, so that no other one is approved by mistake",
)];

const APPROVE_FORM: &[&[Field]] = &[APPROVE_FIELDS];

/// What a request to remove may have.
const REMOVE_FIELDS: &[Field] = &[Field::optional("reason", "Why, for the audit log")];

const REMOVE_FORM: &[&[Field]] = &[REMOVE_FIELDS];

/// A key that somebody enrolled.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "EnrolledKey")]
struct Key {
    #[schemars(with = "String")]
    id: Uuid,
    /// `SHA256:` and 43 characters, as `ssh-keygen -l` shows it.
    fingerprint: String,
    /// The key as a line of a file, nothing once it was removed.
    public_key: String,
    /// Whose it is, by their name in the directory.
    person: String,
    /// What they call it.
    label: String,
    /// `pending`, `approved`, `lapsed` or `removed`. It counts where it is approved.
    state: &'static str,
    enrolled_at: String,
    /// Who approved it, by their name in the directory.
    approved_by: Option<String>,
    approved_at: Option<String>,
    /// When its owner last logged in where the broker saw it, to the hour.
    last_login_at: String,
    /// When it lapses, if its owner does not log in before.
    lapses_at: String,
}

/// Keys that people enrolled.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "EnrolledKeys")]
struct Listed {
    /// The caller, by their name in the directory, where only theirs are listed.
    #[serde(skip_serializing_if = "Option::is_none")]
    person: Option<String>,
    /// The oldest first.
    keys: Vec<Key>,
}

/// Which keys are listed.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    mine: Option<bool>,
}

/// The endpoints.
pub(super) fn endpoints(base: &str) -> [Endpoint<Arc<Broker>>; 4] {
    let listed = Operation::new("enrollments", "List the keys that people enrolled")
        .about(
            "Everybody whom the directory has may list their own, with `mine`; of all others policy decides (`Action::\"administer\"`).",
        )
        .takes(&[Parameter::text("mine", "`true`: only those of the caller")])
        .answers(Answer::json::<Listed>(200, "The keys, but for such as were removed"));
    let enrolled = Operation::new("enrollments_enroll", "Enroll a key")
        .about(
            "It counts once somebody else has approved it. Everybody may whom the directory has.",
        )
        .only(ENROLL_FORM)
        .answers(Answer::json::<Key>(201, "It is to be approved"));
    let approved = Operation::new("enrollments_approve", "Approve somebody's key")
        .about(
            "From now on signatures by it count. Policy decides (`Action::\"administer\"`); nobody approves a key of their own.",
        )
        .takes(&[Parameter::path("id", "The id of the key")])
        .only(APPROVE_FORM)
        .answers(Answer::json::<Key>(200, "It is approved"));
    let removed = Operation::new("enrollments_remove", "Remove a key")
        .about(
            "From now on signatures by it count no more. Everybody may remove their own; of all others policy decides (`Action::\"administer\"`).",
        )
        .takes(&[Parameter::path("id", "The id of the key")])
        .only(REMOVE_FORM)
        .answers(Answer::json::<Key>(200, "It is removed"));
    let at = |below: &str| format!("{base}/{ENROLLMENTS_PATH}{below}");
    let (approve_at, remove_at) = (at("/{id}/approve"), at("/{id}/remove"));
    [
        Endpoint::new(at(""), Verb::Get, get(list), described(listed, Verb::Get)),
        Endpoint::new(at(""), Verb::Post, post(enroll), described(enrolled, Verb::Get)),
        Endpoint::new(approve_at, Verb::Post, post(approve), described(approved, Verb::Get)),
        Endpoint::new(remove_at, Verb::Post, post(remove), described(removed, Verb::Get)),
    ]
    .map(|endpoint| endpoint.shedding().limited(config::Endpoint::Enrollments))
}

async fn list(
    State(broker): State<Arc<Broker>>,
    shown: Shown,
    headers: HeaderMap,
    query: Result<Query<Which>, QueryRejection>,
) -> Response {
    let request = Request::new(
        &broker,
        shown,
        &headers,
        (config::Endpoint::Enrollments, "GET", ENROLLMENTS_PATH),
    );
    request.counted(listed(&request, query).await)
}

async fn listed(
    request: &Request<'_>,
    query: Result<Query<Which>, QueryRejection>,
) -> Result<Response, Unserved> {
    let asked = request.identified(None).await?;
    request.require_clock().await?;
    let Query(Which { mine }) = query.map_err(|rejected| misread(&rejected, &["mine"]))?;
    let (broker, now) = (request.broker, request.broker.clock.now());
    broker.saw_login(&request.book, &asked.caller);
    let person = match mine {
        Some(true) => Some(person_asking(&request.book, &asked.caller, now)?),
        _ => {
            let by = request.administers(&asked, Administration::ListEnrollments).await?;
            tracing::info!(by = by.said(), "the enrolled keys are listed");
            None
        }
    };
    let all = broker.all_enrollments().await.map_err(|error| Unserved::of(&error))?;
    let wanted = all.iter().filter(|one| person.is_none_or(|person| one.person == person));
    let keys = wanted.map(|one| Key::of(one, now)).collect();
    Ok(done(Listed { person: person.map(String::from), keys }))
}

async fn enroll(State(broker): State<Arc<Broker>>, shown: Shown, posted: Posted) -> Response {
    let (form, headers) = posted.described(ENROLL_FORM);
    let request = Request::new(
        &broker,
        shown,
        &headers,
        (config::Endpoint::Enrollments, "POST", ENROLLMENTS_PATH),
    );
    request.counted(enrolled(&request, form).await)
}

async fn enrolled(
    request: &Request<'_>,
    form: Result<Form, Refusal>,
) -> Result<Response, Unserved> {
    let asked = request.identified(None).await?;
    let statement = form?.known()?.required("statement")?.to_string();
    let (broker, book) = (request.broker.clone(), request.book.clone());
    broker.saw_login(&book, &asked.caller);
    let enrolling = async move { Ok(broker.enroll(&book, &asked, &statement).await) };
    let new = to_its_end(enrolling).await??;
    let mut response = done(Key::of(&new, new.enrolled_at));
    *response.status_mut() = axum::http::StatusCode::CREATED;
    Ok(response)
}

async fn approve(
    State(broker): State<Arc<Broker>>,
    shown: Shown,
    id: Result<Path<String>, PathRejection>,
    posted: Posted,
) -> Response {
    let (form, headers) = posted.described(APPROVE_FORM);
    let at = path_of(id.as_ref(), "approve");
    let request =
        Request::new(&broker, shown, &headers, (config::Endpoint::Enrollments, "POST", &at));
    request.counted(approved(&request, id_of(id), form).await)
}

async fn approved(
    request: &Request<'_>,
    id: Result<Uuid, Unserved>,
    form: Result<Form, Refusal>,
) -> Result<Response, Unserved> {
    let asked = request.identified(None).await?;
    let (form, id) = (form?.known()?, id?);
    let meant = form.optional("fingerprint").map(str::to_string);
    let (broker, book) = (request.broker.clone(), request.book.clone());
    broker.saw_login(&book, &asked.caller);
    let what = Administration::ApproveEnrollments;
    let by = request.administers(&asked, what).await?;
    let asked = Arc::new(asked);
    let approving = {
        let asked = asked.clone();
        async move { Ok(broker.approve_enrollment(&book, &asked, &by, (id, meant)).await) }
    };
    match to_its_end(approving).await? {
        Ok(key) => Ok(done(Key::of(&key, request.broker.clock.now()))),
        // Whoever wants to approve a key of their own is on record.
        Err(Refused::Denied(error)) => {
            let what = policy::Operation::Administer(what);
            Err(request.denied(&asked, &what, said(&error)).await)
        }
        Err(refused) => Err(refused.into()),
    }
}

async fn remove(
    State(broker): State<Arc<Broker>>,
    shown: Shown,
    id: Result<Path<String>, PathRejection>,
    posted: Posted,
) -> Response {
    let (form, headers) = posted.described(REMOVE_FORM);
    let at = path_of(id.as_ref(), "remove");
    let request =
        Request::new(&broker, shown, &headers, (config::Endpoint::Enrollments, "POST", &at));
    request.counted(removed(&request, id_of(id), form).await)
}

async fn removed(
    request: &Request<'_>,
    id: Result<Uuid, Unserved>,
    form: Result<Form, Refusal>,
) -> Result<Response, Unserved> {
    let asked = request.identified(None).await?;
    let (form, id) = (form?.known()?, id?);
    let (broker, book, why) = (request.broker.clone(), request.book.clone(), reason(&form)?);
    broker.saw_login(&book, &asked.caller);
    let own = broker.is_their_own(&book, &asked.caller, id).await;
    let by = match own.map_err(|error| Unserved::of(&error))? {
        true => on_their_own(&book, &asked),
        false => request.administers(&asked, Administration::RemoveEnrollments).await?,
    };
    let removing = async move { Ok(broker.remove_enrollment(&asked, (&by, &why), id).await) };
    let key = to_its_end(removing).await??;
    Ok(done(Key::of(&key, request.broker.clock.now())))
}

/// The path that a request went to, which a proof is for.
fn path_of(id: Result<&Path<String>, &PathRejection>, what: &str) -> String {
    let id = id.map_or("", |Path(id)| id);
    format!("{ENROLLMENTS_PATH}/{id}/{what}")
}

fn id_of(id: Result<Path<String>, PathRejection>) -> Result<Uuid, Unserved> {
    let id = id.ok().and_then(|Path(id)| id.parse().ok());
    id.ok_or_else(|| Unserved::malformed("the path has no id of an enrolled key"))
}

impl From<Refused> for Unserved {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Malformed(error) => Self::malformed(said(&error)),
            Refused::Denied(error) => Self::new(Outcome::Denied, Refusal::forbidden(said(&error))),
            Refused::Unknown(error) => {
                Self::new(Outcome::Unknown, Refusal::invalid_request(said(&error)))
            }
            Refused::Failed(error) => Self::of(&error),
        }
    }
}

impl Key {
    fn of(key: &Enrollment, now: OffsetDateTime) -> Self {
        let moment = |at: OffsetDateTime| at.format(&Rfc3339).unwrap_or_default();
        let (approved_by, approved_at) =
            key.approved.as_ref().map(|(by, at)| (by.clone(), moment(*at))).unzip();
        Self {
            id: key.id,
            fingerprint: key.fingerprint.clone(),
            public_key: key.public_key.clone(),
            person: key.person.clone(),
            label: key.label.clone(),
            state: match key.state {
                EnrollmentState::Removed => "removed",
                _ if now >= key.lapses_at() => "lapsed",
                state => state.as_str(),
            },
            enrolled_at: moment(key.enrolled_at),
            approved_by,
            approved_at,
            last_login_at: moment(key.seen_at),
            lapses_at: moment(key.lapses_at()),
        }
    }
}
