//! What is asked for, approved and done by signatures of keys that people enrolled, because no
//! identity provider can say who they are.
//!
//! Whoever signed is the same person as if they had logged in: what comes of their statement is
//! weighed at the [`desk`](super::desk) by the same rules, and on record in the same way. Anybody
//! may bring what somebody signed. Nothing is written before a signature is found to be by a key
//! that counts.
//!
//! A request names the rules that it is made under, and all else names the request by its hash:
//! so what was signed before the broker saw any of it is void under other rules, too.

mod about;
mod live;
mod once;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use about::check_together;
pub(in crate::broker) use about::id_of;
pub(super) use live::{LiveKeys, resting_on};
pub(in crate::broker) use once::once_of;
pub(super) use once::{used_before, used_up};

use super::desk::{rules_of, span};
use super::eligible::Eligible;
use super::verdict::{Refusal, Request, UNCHECKABLE, Verdict};
use super::{Access, Elevation, Party, Path};
use crate::broker::Broker;
use crate::broker::audit::Record;
use crate::broker::authenticate::BySignature;
use crate::broker::config::{self, Elevation as Rules};
use crate::broker::operate::Asked as Who;
use crate::broker::rulebook::Rulebook;
use crate::error::{Error, ErrorKind};
use crate::oidc::jwt::LEEWAY;
use crate::sshsig::{self, Demands, Named, Said, Signed};

/// What was signed to ask for a role.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedRequest {
    /// The hash of the statement, as those name it who approve.
    pub statement: String,
    /// The fingerprint of the key.
    pub key: String,
    /// By which rules it was asked for.
    pub rules: String,
}

/// What was signed to approve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedApproval {
    /// The hash of the statement.
    pub statement: String,
    /// The fingerprint of the key.
    pub key: String,
}

impl SignedApproval {
    pub(super) fn of(signed: &BySignature) -> Self {
        Self { statement: HEXLOWER.encode(&signed.statement), key: signed.key.clone() }
    }
}

/// A statement of several that came to nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotTaken {
    /// What kind it is.
    pub kind: &'static str,
    /// Who said it, as it says.
    pub person: String,
    /// Why.
    pub why: String,
}

/// What came of statements.
pub(in crate::broker) struct Brought {
    /// The elevation that they are about.
    pub(in crate::broker) elevation: Elevation,
    /// Whether it was not known before.
    pub(in crate::broker) is_new: bool,
    /// Those that came to nothing.
    pub(in crate::broker) not_taken: Vec<NotTaken>,
}

/// By which request statements are brought, and from where.
#[derive(Clone, Copy, Debug)]
pub(in crate::broker) struct At<'a> {
    /// The elevation that they are to be about, and what is to be done.
    pub(in crate::broker) event: Option<(Uuid, &'a str)>,
    pub(in crate::broker) source: IpAddr,
    pub(in crate::broker) request_id: Uuid,
}

impl Broker {
    /// Takes statements: a request, or things about one, or both.
    ///
    /// # Errors
    /// [`Refusal`], where none of them came to anything.
    pub(in crate::broker) async fn bring(
        &self,
        book: &Rulebook,
        text: &str,
        at: At<'_>,
    ) -> Result<Brought, Refusal> {
        let statements = sshsig::read(text, book.config().enrollment.demands());
        let statements = statements.map_err(|error| said(&error))?;
        check_together(&statements, at)?;
        let alone = statements.len() == 1;
        let mut brought: Option<Brought> = None;
        let mut not_taken = Vec::new();
        for signed in &statements {
            let taken = match self.signer_of(book, signed, at).await {
                Ok(who) => self.take(book, &who, signed, at).await,
                Err(refusal) => Err(refusal),
            };
            match (taken, &mut brought) {
                (Ok((elevation, _)), Some(brought)) => brought.elevation = elevation,
                (Ok((elevation, is_new)), None) => {
                    brought = Some(Brought { elevation, is_new, not_taken: Vec::new() });
                }
                // Without its request nothing else comes to anything.
                (Err(refusal), None)
                    if alone || matches!(signed.statement.said, Said::Request { .. }) =>
                {
                    return Err(refusal.for_strangers());
                }
                (Err(refusal @ (Refusal::Unrecorded(_) | Refusal::Busy(_))), _) => {
                    return Err(refusal);
                }
                (Err(refusal), _) => not_taken.push((signed, refusal)),
            }
        }
        match brought {
            Some(brought) => {
                let not_taken = not_taken.into_iter().map(|(signed, refusal)| NotTaken {
                    kind: signed.statement.said.kind(),
                    person: signed.statement.person.clone(),
                    why: refusal.said(),
                });
                Ok(Brought { not_taken: not_taken.collect(), ..brought })
            }
            None => Err(not_taken.swap_remove(0).1.for_strangers()),
        }
    }

    /// Who signed a statement, where that can be told by their key.
    ///
    /// # Errors
    /// [`Refusal`]; nothing of it is on record.
    pub(in crate::broker) async fn signer_of(
        &self,
        book: &Rulebook,
        Signed { statement, signatures }: &Signed,
        At { source, request_id, .. }: At<'_>,
    ) -> Result<Who, Refusal> {
        let now = self.clock.now();
        if book.directory().is_none_or(|directory| directory.is_stale(now)) {
            return Err(Refusal::Stale);
        }
        statement.check(&self.issuer, now).map_err(|error| said(&error))?;
        let [signature] = &signatures[..] else {
            return Err(Refusal::Malformed("the statement is signed by more than one key".into()));
        };
        // Whoever signs with any key is not told more of those that are enrolled.
        let Some(signer) = self.enrolled_signer(book, signature.key(), now).await? else {
            let why = "its key does not count: it is not enrolled or not approved, it has lapsed or was removed, or the directory does not have its owner any more";
            return Err(Refusal::Denied(why.into()));
        };
        if statement.person != signer.person {
            let why = "its key is not of the person whom the statement names";
            return Err(Refusal::Denied(why.into()));
        }
        let text = statement.text().map_err(|error| said(&error))?;
        let demands = Demands { user_verified: true, ..book.config().enrollment.demands() };
        let signed = BySignature {
            key: signature.key().fingerprint(),
            statement: statement.hash().map_err(|error| said(&error))?,
            request: statement.said.request().copied(),
            is_use: matches!(statement.said, Said::Use { .. }),
            nonce: statement.nonce.text(),
            made: statement.made,
            expires: statement.expires,
            verified: signature.key().kind().is_on_security_key()
                && signature.verify(text.as_bytes(), demands).is_ok(),
        };
        let caller = book.authenticator().signer(signer.principal, signed, book.needs());
        let caller = caller.map_err(|error| {
            let why = error.causes().first().map(|why| format!(": {why}")).unwrap_or_default();
            Refusal::Denied(format!("{error}{why}"))
        })?;
        Ok(Who { caller, source, request_id })
    }

    /// Does what a statement says. Returns also whether the elevation is new.
    async fn take(
        &self,
        book: &Rulebook,
        who: &Who,
        signed: &Signed,
        at: At<'_>,
    ) -> Result<(Elevation, bool), Refusal> {
        let elevation = match &signed.statement.said {
            Said::Request { .. } => return self.request_signed(book, who, signed).await,
            Said::Ending { of, reason } => {
                self.end_signed(book, who, (of, reason), at.event).await?
            }
            said => self.settle_signed(book, who, said).await?,
        };
        Ok((elevation, false))
    }

    async fn request_signed(
        &self,
        book: &Rulebook,
        who: &Who,
        signed: &Signed,
    ) -> Result<(Elevation, bool), Refusal> {
        let (Some(by), Said::Request { subject, rules, ticket, reason }) =
            (who.caller.signed(), &signed.statement.said)
        else {
            return Err(Refusal::Malformed("it is no request".into()));
        };
        let statement = HEXLOWER.encode(&by.statement);
        // The same again is the same, and changes nothing.
        if let Some(known) = self.elevation_with(id_of(&by.statement)).await?
            && known.asked.signed.as_ref().is_some_and(|signed| signed.statement == statement)
        {
            return Ok((known, false));
        }
        check_rules(book, rules)?;
        let malformed = |why: &str| Refusal::Malformed(why.into());
        if !config::is_name(&subject.role) {
            return Err(malformed("its role is not the name of a role"));
        }
        let scope = subject.scope.as_deref().map(|text| {
            let scope: BTreeSet<_> = text.split(' ').map(String::from).collect();
            scope.iter().all(|one| config::is_scope_token(one)).then_some(scope)
        });
        let is_thumbprint = |key: &String| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            key.len() == 43 && key.bytes().all(plain)
        };
        if !subject.bound_to.as_ref().is_none_or(is_thumbprint) {
            return Err(malformed("'bound-to' is no thumbprint of a key"));
        }
        let request = Request {
            path: Path::ProviderDown,
            role: subject.role.clone(),
            audience: subject.audience.clone(),
            scope: match scope {
                Some(None) => return Err(malformed("its scope is malformed")),
                Some(scope) => scope,
                None => None,
            },
            ttl: Some(Duration::from_secs(subject.seconds)),
            start: None,
            key: subject.bound_to.clone(),
            reason: reason.clone(),
            ticket: ticket.clone(),
            idempotency_key: None,
            signed: Some(SignedRequest { statement, key: by.key.clone(), rules: rules.clone() }),
            drill: subject.drill,
        };
        Ok((self.elevate(book, who, request).await?, true))
    }

    async fn settle_signed(
        &self,
        book: &Rulebook,
        who: &Who,
        said: &Said,
    ) -> Result<Elevation, Refusal> {
        let Some(by) = who.caller.signed() else { return Err(Refusal::Unknown) };
        let Some(request) = &by.request else { return Err(Refusal::Unknown) };
        let elevation = self.asked_by(request).await?;
        let (id, asked) = (elevation.id, elevation.asked.signed.as_ref());
        let asked = asked.ok_or(Refusal::Unknown)?;
        let rules = book.rules_hash();
        let verdict = match said {
            Said::Approval { .. } => {
                check_rules(book, &asked.rules)?;
                let (hash, statement) = (elevation.hash(rules), HEXLOWER.encode(&by.statement));
                let is_there = elevation.approvals.iter().any(|approval| {
                    let same = |signed: &SignedApproval| signed.statement == statement;
                    approval.hash == hash && approval.signed.as_ref().is_some_and(same)
                });
                if is_there {
                    return Ok(elevation);
                }
                Verdict::Approve { hash, reason: None }
            }
            Said::Denial { reason, .. } => Verdict::Deny { reason: reason.clone() },
            Said::Use { .. } => {
                if !is_allowed(book, &elevation.asked.role) {
                    let why =
                        format!("the role '{}' is not had by signatures", elevation.asked.role);
                    return Err(Refusal::conflict(why));
                }
                Verdict::Activate
            }
            Said::Ending { .. } | Said::Request { .. } | Said::Enrollment { .. } => {
                return Err(Refusal::Unknown);
            }
        };
        self.settle(book, who, id, &verdict).await
    }

    /// Ends what somebody asked for: their own, or what they may end of others. It makes no
    /// difference whether it was asked for by a signature: who has a role by a login has it, too,
    /// while nobody can log in any more.
    async fn end_signed(
        &self,
        book: &Rulebook,
        who: &Who,
        (of, reason): (&Named, &str),
        event: Option<(Uuid, &str)>,
    ) -> Result<Elevation, Refusal> {
        let elevation = match of {
            Named::Request(request) => self.asked_by(request).await?,
            Named::Elevation(id) => self.elevation_with(*id).await?.ok_or(Refusal::Unknown)?,
        };
        let by = self.known(book, &who.caller, self.clock.now())?;
        if !self.sees(book, who, &elevation, &by)? {
            return Err(Refusal::Unknown);
        }
        if self.has_ended(who, &elevation, &by, event).await? {
            return Ok(elevation);
        }
        // What was asked for by a signature can be ended by one whatever the role says by now.
        if elevation.asked.signed.is_none() && !is_allowed(book, &elevation.asked.role) {
            let why = format!("the role '{}' is not had by signatures", elevation.asked.role);
            return Err(Refusal::conflict(why));
        }
        let those = Eligible::new(rules_of(book), &elevation.asked, self.clock.now());
        let verdict = match (those.is_asker(&by), elevation.access.is_had()) {
            (true, true) => Verdict::Relinquish,
            (true, false) => Verdict::Withdraw,
            (false, _) => Verdict::Revoke { reason: reason.into() },
        };
        // Whoever brings it does not make more or less of it than whoever signed it could.
        if let Some((_, event)) = event
            && event != verdict.name()
        {
            let why = format!("that would be to {} it, not to {event} it", verdict.name());
            return Err(Refusal::conflict(why));
        }
        self.settle(book, who, elevation.id, &verdict).await
    }

    /// Whether it is this statement again by which somebody has ended it: that changes nothing.
    async fn has_ended(
        &self,
        who: &Who,
        elevation: &Elevation,
        by: &Party,
        event: Option<(Uuid, &str)>,
    ) -> Result<bool, Refusal> {
        let done = match elevation.access {
            Access::Relinquished => "relinquish",
            Access::Withdrawn => "withdraw",
            Access::Revoked => "revoke",
            _ => return Ok(false),
        };
        let ended_by = elevation.ended.as_ref().and_then(|ended| ended.by.as_ref());
        let theirs = ended_by.is_some_and(|ended| ended.is(by));
        let fits = event.is_none_or(|(_, event)| event == done);
        Ok(theirs && fits && self.is_used(who).await?)
    }

    /// What was asked for by the request with this hash.
    async fn asked_by(&self, request: &[u8; 32]) -> Result<Elevation, Refusal> {
        let elevation = self.elevation_with(id_of(request)).await?.ok_or(Refusal::Unknown)?;
        let asked = elevation.asked.signed.as_ref();
        match asked.is_some_and(|asked| asked.statement == HEXLOWER.encode(request)) {
            true => Ok(elevation),
            false => Err(Refusal::Unknown),
        }
    }
}

impl Refusal {
    /// The same for whoever brings what somebody signed: which one it is that is in the way is
    /// told to nobody who does not show that it is theirs.
    fn for_strangers(self) -> Self {
        match self {
            Self::Conflict { why, .. } => Self::conflict(why),
            other => other,
        }
    }

    /// What is told of it, where it is one of several.
    fn said(self) -> String {
        match self {
            Self::Unknown => "there is no such request, or it is none of theirs".into(),
            Self::Malformed(why) | Self::Conflict { why, .. } | Self::Denied(why) => why,
            Self::Refused(refused) => refused.to_string(),
            Self::Counted { .. } => "it is denied".into(),
            Self::TooOften(_) => "roles were asked for too often".into(),
            Self::StepUp(_) => "it needs a login".into(),
            Self::Stale => "the directory of people is out of date".into(),
            Self::Busy(busy) => busy.to_string(),
            Self::Uncheckable => UNCHECKABLE.into(),
            Self::Unrecorded(_) => "it cannot be done at present".into(),
        }
    }
}

/// Checks that what was signed under these rules is still by those in force.
fn check_rules(book: &Rulebook, rules: &str) -> Result<(), Refusal> {
    if rules == book.rules_hash() {
        return Ok(());
    }
    let now = book.rules_hash();
    Err(Refusal::conflict(format!(
        "it was asked for by other rules than are in force now, which are {now}: ask anew"
    )))
}

/// Whether a signature is good for this grant.
pub(super) fn serves(signed: &BySignature, grant: &Elevation) -> bool {
    let request = signed.request.filter(|_| signed.is_use).map(|hash| HEXLOWER.encode(&hash));
    let asked = grant.asked.signed.as_ref().map(|asked| &asked.statement);
    grant.asked.path == Path::ProviderDown && request.is_some() && request.as_ref() == asked
}

/// Whether the role is had by signatures.
pub(super) fn is_allowed(book: &Rulebook, role: &str) -> bool {
    let rules = book.roles().get(role).and_then(|role| role.elevation.as_ref());
    rules.is_some_and(|rules| rules.provider_down.is_some())
}

/// Whether a signature is as good as the login that is asked of those who decide.
pub(super) fn check_login(
    signed: &BySignature,
    rules: &Rules,
    now: OffsetDateTime,
) -> Result<(), Refusal> {
    let wanted = &rules.approver_login;
    if wanted.max_age.is_none() && wanted.acr.is_empty() {
        return Ok(());
    }
    let stands = rules.provider_down.as_ref().is_some_and(|down| down.verified_as_login);
    let is_recent =
        wanted.max_age.is_none_or(|most| now - signed.made <= span(most).saturating_add(LEEWAY));
    match stands && signed.verified && is_recent {
        true => Ok(()),
        false if !stands => Err(Refusal::Denied(
            "the role asks for a login of those who decide, and a signature is none".into(),
        )),
        false => Err(Refusal::Denied(
            "the role asks for a signature by a security key that was told who holds it, made just now".into(),
        )),
    }
}

/// Until when it can be approved: no longer than the statement is good.
pub(super) fn lapses_at(who: &Who, at: OffsetDateTime) -> OffsetDateTime {
    who.caller.signed().map_or(at, |signed| at.min(signed.expires))
}

/// The same record, with how whoever it is of is known.
pub(super) fn noted(record: Record, who: &Who) -> Record {
    match who.caller.signed() {
        Some(signed) => {
            Record { reason: format!("{}; {}", record.reason, signed.said()), ..record }
        }
        None => record,
    }
}

/// What is wrong with a statement.
fn said(error: &Error) -> Refusal {
    if error.kind() != ErrorKind::Verification {
        return Refusal::Malformed("the statement cannot be read".into());
    }
    let why = error.causes().first().map(|why| format!(": {why}")).unwrap_or_default();
    let hints: String = error.hints().iter().map(|hint| format!("; {hint}")).collect();
    Refusal::Malformed(format!("{error}{why}{hints}"))
}
