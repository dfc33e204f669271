//! Revoking tokens of others, one or many at once, and telling beforehand what that would be.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use schemars::JsonSchema;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::{
    MAX_NAME, Outcome, RETRY_AFTER, Request, Shown, Unserved, described, done, flag, reason,
    to_its_end,
};
use crate::broker::authenticate::{id_of, said};
use crate::broker::config::Config;
use crate::broker::cutoff::{Reached, Revoked, What, issuer_meant};
use crate::broker::http::api::{Answer, Endpoint, Field, Kind, Operation, Verb};
use crate::broker::http::client;
use crate::broker::http::form::{Form, Posted};
use crate::broker::http::refusal::Refusal;
use crate::broker::metrics::Revocation;
use crate::broker::policy::{self, Named, Tokens};
use crate::broker::store::Whose;
use crate::broker::{Broker, config};
use crate::credential::Principal;
use crate::error::ErrorKind;
use crate::wire::{
    self, REVOCATIONS_DRY_RUN_PATH, REVOCATIONS_PATH, RevocationReach, RevokedAwsSessions,
};

/// What a request may have.
const FIELDS: &[Field] = &[
    Field::optional("token", "The token that is revoked; one of these and no other says what is")
        .of(Kind::Secret),
    Field::optional("jti", "The token with this id"),
    Field::optional(
        "issuer",
        "All tokens of callers of this issuer: its URL, or the name of its table in the configuration",
    ),
    Field::optional("subject", "With `issuer`: only those of this subject, letter by letter"),
    Field::optional("role", "All tokens with this role"),
    Field::optional("client", "All tokens that were issued to this client"),
    Field::optional("all", "All tokens of this broker").of(Kind::OneOf(&["true"])),
    Field::optional(
        "before",
        "Only what was issued before this moment (RFC 3339), which has passed, or is as late as the newest record; else now. Not with `token` or `jti`",
    ),
    Field::optional("reason", "Why, for the audit log"),
];

const FORM: &[&[Field]] = &[FIELDS, client::FIELDS];

/// What was revoked.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Revocations")]
struct Answered {
    /// By what it was named: `token`, `subject`, `issuer`, `role`, `client` or `all`.
    revoked: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    jti: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    /// How many tokens that were good, as far as the log tells; `null` where they could not be
    /// counted, which changes nothing about them.
    tokens: Option<u64>,
    /// Whether any token of theirs of late is on record, be it good or not: where none is, they
    /// may be spelt otherwise. `null` where that was not looked at, or cannot be told.
    on_record: Option<bool>,
    /// Before when they were issued.
    issued_before: String,
    /// Whom the revocation reaches.
    revocation_reach: RevocationReach,
    /// What it does not reach, where AWS reads tokens of a role that is meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    aws_sessions: Option<RevokedAwsSessions>,
    /// Whether this is only what would be: then nothing was changed.
    dry_run: bool,
}

/// Whether it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Run {
    /// It is.
    Real,
    /// It is only told what would be.
    Dry,
}

impl Run {
    /// The path below that of the broker's issuer.
    fn path(self) -> &'static str {
        match self {
            Self::Real => REVOCATIONS_PATH,
            Self::Dry => REVOCATIONS_DRY_RUN_PATH,
        }
    }
}

/// The endpoints.
pub(super) fn endpoints(base: &str) -> [Endpoint<Arc<Broker>>; 2] {
    let real = Operation::new("revocations", "Revoke tokens of others, many at once")
        .about(
            "Policy decides (`Action::\"revoke\"`). It is durable, and counts at every process of the broker, when it is answered.",
        )
        .only(FORM)
        .answers(Answer::json::<Answered>(200, "They are good no more"));
    let dry = Operation::new("revocations-dry-run", "Tell what of that would be revoked")
        .about(
            "Whoever may revoke it is told (`Action::\"revoke\"`). Nothing is changed, and nothing but a denial is on record.",
        )
        .only(FORM)
        .answers(Answer::json::<Answered>(200, "They would be good no more"));
    [(Run::Real, real), (Run::Dry, dry)].map(|(run, operation)| {
        let handler =
            move |State(broker), shown: Shown, posted: Posted| serve(broker, shown, posted, run);
        let path = format!("{base}/{}", run.path());
        Endpoint::new(path, Verb::Post, post(handler), described(operation, Verb::Post))
            .shedding()
            .limited(config::Endpoint::Revocations)
    })
}

async fn serve(broker: Arc<Broker>, shown: Shown, posted: Posted, run: Run) -> Response {
    let (_, _, id) = shown;
    match perform(&broker, shown, posted, run).await {
        Ok((outcome, answer)) => {
            // Of what is only tried, nothing was revoked.
            if run == Run::Real {
                broker.metrics.revoked(outcome);
            }
            done(answer)
        }
        Err(unserved) => {
            broker.metrics.revoked(unserved.outcome.into());
            unserved.at(id)
        }
    }
}

async fn perform(
    broker: &Arc<Broker>,
    shown: Shown,
    posted: Posted,
    run: Run,
) -> Result<(Revocation, Answered), Unserved> {
    let (form, headers) = posted.described(FORM);
    let at = (config::Endpoint::Revocations, "POST", run.path());
    let request = Request::new(broker, shown, &headers, at);
    let asked = request.identified(form.as_ref().ok()).await?;
    if run == Run::Dry {
        request.require_clock().await?;
    }
    let form = form?.known()?;
    let wanted = Wanted::read(&form, request.book.config())?;
    let why = reason(&form)?;
    let failed = |error| Unserved::of(&error);
    let one = match &wanted.of {
        Of::Many(..) => None,
        Of::One(jti) => Some(*jti),
        Of::Shown => broker.id_shown(form.secret("token")?).await.map_err(failed)?,
    };
    let (what, tokens) = match (wanted.of, one) {
        (Of::Many(whose, tokens), _) => (Some(What::Many { whose, before: wanted.before }), tokens),
        (_, Some(jti)) => {
            let tokens = broker.token_on_record(jti).await.map_err(failed)?;
            (tokens.role.is_some().then_some(What::Token(jti)), tokens)
        }
        (_, None) => (None, Tokens::named(Named::Token)),
    };
    let by = request.permitted(&asked, &policy::Operation::Revoke(tokens.clone())).await?;
    // Whoever may not revoke it is not told that there is none.
    let Some(what) = what else {
        let why = "this broker has issued no such token";
        return Err(Unserved::new(Outcome::Unknown, Refusal::invalid_request(why)));
    };
    broker.require_known(request.book.config(), &what).await.map_err(failed)?;
    let revoked = match run {
        Run::Real => {
            let (broker, what) = (broker.clone(), what.clone());
            to_its_end(async move { Ok(broker.revoke_for(by, &what, &why).await) }).await?
        }
        Run::Dry => broker.would_revoke_for(by, &what).await,
    };
    let revoked = revoked.map_err(|error| match error.kind() {
        // Clocks that differ are somebody's to set, and meanwhile there is another way.
        ErrorKind::Config => {
            tracing::error!(%error, "nothing is, or would be, revoked");
            Unserved::new(Outcome::Failed, Refusal::unavailable(said(&error), RETRY_AFTER))
        }
        _ => Unserved::of(&error),
    })?;
    let outcome = match (one, revoked.tokens) {
        (Some(_), Some(0)) => Revocation::Repeated,
        _ => Revocation::Revoked,
    };
    let mut reached = broker.reached(&request.book, &what, revoked.before).await;
    // Whoever may revoke what is somebody's need not know of all roles.
    if let Some(sessions) = reached.aws_sessions.as_mut().filter(|_| !is_of_roles(&what)) {
        sessions.roles.clear();
    }
    Ok((outcome, answered(run, &revoked, one, tokens, reached)))
}

/// Whether it is about roles, or all of them.
fn is_of_roles(what: &What) -> bool {
    matches!(what, What::Many { whose: Whose::Role(_) | Whose::Everybodys, .. })
}

fn answered(
    run: Run,
    revoked: &Revoked,
    jti: Option<Uuid>,
    tokens: Tokens,
    reached: Reached,
) -> Answered {
    // What the log has of one token is for those to read who may.
    let told = |value: Option<String>| value.filter(|_| jti.is_none());
    Answered {
        revoked: tokens.what.name(),
        jti,
        issuer: told(tokens.issuer),
        subject: told(tokens.subject.map(|subject| subject.subject)),
        role: told(tokens.role),
        client: told(tokens.client),
        tokens: revoked.tokens,
        on_record: revoked.on_record,
        issued_before: revoked.before.format(&Rfc3339).unwrap_or_default(),
        revocation_reach: reached.reach,
        aws_sessions: reached.aws_sessions,
        dry_run: run == Run::Dry,
    }
}

/// What is to be revoked.
enum Of {
    /// The token of the request.
    Shown,
    One(Uuid),
    Many(Whose, Tokens),
}

struct Wanted {
    of: Of,
    before: Option<OffsetDateTime>,
}

impl Wanted {
    fn read(form: &Form, config: &Config) -> Result<Self, Unserved> {
        let all = flag(form, "all")?;
        let names = ["token", "jti", "issuer", "role", "client"];
        // As of a variable that is not set: what is left would say much more.
        if let Some(name) =
            ["all", "subject", "before"].iter().chain(&names).find(|name| form.is_bare(name))
        {
            return Err(Unserved::malformed(format!("the parameter '{name}' has no value")));
        }
        let given = names
            .into_iter()
            .filter(|name| form.optional(name).is_some())
            .chain(all.then_some("all"));
        let given: Vec<_> = given.collect();
        let [one] = given[..] else {
            let one_of = "one of 'token', 'jti', 'issuer', 'role', 'client' and 'all'";
            return Err(Unserved::malformed(format!("a request needs {one_of}, and no other")));
        };
        if form.optional("subject").is_some() && one != "issuer" {
            return Err(Unserved::malformed("a 'subject' goes with its 'issuer'"));
        }
        let before = before(form)?;
        if before.is_some() && matches!(one, "token" | "jti") {
            return Err(Unserved::malformed("'before' says nothing of one token"));
        }
        Ok(Self { of: of(form, one, config)?, before })
    }
}

fn of(form: &Form, one: &str, config: &Config) -> Result<Of, Unserved> {
    let text = |name| name_of(form, name);
    Ok(match one {
        "token" => Of::Shown,
        "jti" => {
            let jti = form.required("jti")?.parse();
            Of::One(
                jti.map_err(|_| Unserved::malformed("the parameter 'jti' is no id of a token"))?,
            )
        }
        "issuer" => {
            let issuer = issuer_meant(config, &text("issuer")?);
            match form.optional("subject") {
                Some(_) => {
                    let subject = text("subject")?;
                    let whose = Whose::Subject(id_of(&issuer, &subject));
                    let subject = Some(Principal { issuer: issuer.clone(), subject });
                    let tokens = Tokens { subject, ..Tokens::named(Named::Subject) };
                    Of::Many(whose, Tokens { issuer: Some(issuer), ..tokens })
                }
                None => {
                    let whose = Whose::Issuer(issuer.clone());
                    let tokens = Tokens::named(Named::Issuer);
                    Of::Many(whose, Tokens { issuer: Some(issuer), ..tokens })
                }
            }
        }
        "role" => {
            let role = form.required("role")?.to_string();
            if !wire::is_role(&role) {
                return Err(Unserved::malformed("the parameter 'role' is not the name of a role"));
            }
            let tokens = Tokens { role: Some(role.clone()), ..Tokens::named(Named::Role) };
            Of::Many(Whose::Role(role), tokens)
        }
        "client" => {
            let client = text("client")?;
            let tokens = Tokens { client: Some(client.clone()), ..Tokens::named(Named::Client) };
            Of::Many(Whose::Client(client), tokens)
        }
        _ => Of::Many(Whose::Everybodys, Tokens::named(Named::All)),
    })
}

fn name_of(form: &Form, name: &str) -> Result<String, Unserved> {
    let text = form.required(name)?;
    match text.len() <= MAX_NAME && !text.chars().any(char::is_control) {
        true => Ok(text.to_string()),
        false => Err(Unserved::malformed(format!(
            "the parameter '{name}' must be a line of at most {MAX_NAME} bytes"
        ))),
    }
}

fn before(form: &Form) -> Result<Option<OffsetDateTime>, Unserved> {
    let Some(text) = form.optional("before") else { return Ok(None) };
    let moment = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| {
        Unserved::malformed("the parameter 'before' is no moment such as 2026-01-01T12:00:00Z")
    })?;
    Ok(Some(moment))
}
