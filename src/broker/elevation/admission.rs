//! What a request for a role has to be like to be taken.

use std::collections::BTreeSet;
use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::desk::{longest, span};
use super::names::{asker_of, issuer_of};
use super::verdict::{Busy, Refusal, Request};
use super::{Asked, Elevation, Path};
use crate::broker::Broker;
use crate::broker::authenticate::Caller;
use crate::broker::config::{Elevation as Rules, Login, Role};
use crate::broker::decide::{Denied, Why};
use crate::broker::rate::{Machine, Turn};
use crate::broker::rulebook::Rulebook;
use crate::broker::store::{UnderWay, Unless};
use crate::host::process::printed::{Answer, Limit, answered};
use crate::oidc::jwt::LEEWAY;

/// How long it may take to say whether there is a ticket.
const TICKET_LIMIT: Duration = Duration::from_secs(10);

/// How many commands may run at once that say whether there is one. Whoever may ask for a role
/// may ask as often as they like.
const TICKETS_AT_ONCE: usize = 8;

/// How many requests may wait for that, those included whose command runs: they keep nobody out
/// who wants something else of the broker.
const TICKETS_IN_LINE: usize = 40;

/// Who has tickets checked.
pub(in crate::broker) struct Tickets {
    in_line: Semaphore,
    at_once: Semaphore,
}

impl Default for Tickets {
    fn default() -> Self {
        let [in_line, at_once] = [TICKETS_IN_LINE, TICKETS_AT_ONCE].map(Semaphore::new);
        Self { in_line, at_once }
    }
}

impl Tickets {
    /// Waits for a turn; `None` where too many wait already, or it takes too long.
    async fn turn(&self) -> Option<[SemaphorePermit<'_>; 2]> {
        let in_line = self.in_line.try_acquire().ok()?;
        // As long as one of those may take that run already.
        let turn = tokio::time::timeout(TICKET_LIMIT, self.at_once.acquire());
        Some([in_line, turn.await.ok()?.ok()?])
    }
}

/// How much is read of what is said about a ticket.
const MAX_TICKET: usize = 16 * 1024;

/// Checks whether the audience that is named is one of the role's, or goes without saying.
pub(super) fn check_audience(audience: Option<&str>, role: &Role) -> Result<(), Refusal> {
    let is_known = match audience {
        Some(audience) => role.audiences.contains(audience),
        None => role.audiences.len() == 1,
    };
    if is_known {
        return Ok(());
    }
    let all: Vec<_> = role.audiences.iter().map(String::as_str).collect();
    let why = format!("the role is for one of these audiences: {}", all.join(", "));
    Err(Refusal::Malformed(why))
}

/// Checks a request against the rules of its role.
pub(super) fn check(
    asked: &Asked,
    rules: &Rules,
    scopes: &BTreeSet<String>,
    now: OffsetDateTime,
) -> Result<(), Refusal> {
    let malformed = |why: String| Err(Refusal::Malformed(why));
    check_extent(asked, rules, scopes).map_err(|denied| Refusal::Malformed(denied.said))?;
    if asked.reason.trim().is_empty() {
        return malformed("say why".into());
    }
    // There is no incident behind a drill, and so no ticket.
    if let Some(pattern) = &rules.reason
        && !asked.drill
        && !pattern.matches(&asked.reason)
    {
        return malformed(format!("the reason has to be like {}", pattern.as_str()));
    }
    match (&rules.ticket, &asked.ticket) {
        (Some(pattern), None) if !asked.drill => {
            return malformed(format!("a ticket is needed, which is like {}", pattern.as_str()));
        }
        (Some(pattern), Some(ticket)) if !asked.drill && !pattern.matches(ticket) => {
            return malformed(format!("the ticket has to be like {}", pattern.as_str()));
        }
        // To the command it would be an option.
        (_, Some(ticket)) if has_checked(rules, asked.drill) && ticket.starts_with('-') => {
            return malformed("a ticket's number cannot begin with '-'".into());
        }
        _ => {}
    }
    let Some(start) = asked.start else { return Ok(()) };
    if asked.path == Path::Emergency {
        return malformed("an emergency starts at once".into());
    }
    if start < now.saturating_sub(LEEWAY) {
        return malformed("it would start in the past".into());
    }
    if start > now.saturating_add(span(rules.start_ahead)) {
        let ahead = humantime::format_duration(rules.start_ahead);
        return malformed(format!("it may start at most {ahead} ahead"));
    }
    Ok(())
}

/// Checks whether a role is had like that at all: on this path, for so long, and with these scopes.
///
/// # Errors
/// Why not.
pub(in crate::broker) fn check_extent(
    asked: &Asked,
    rules: &Rules,
    scopes: &BTreeSet<String>,
) -> Result<(), Denied> {
    let denied = |why, said: String| Err(Denied::new(why, said));
    let role = &asked.role;
    if asked.path == Path::Emergency && rules.emergency.is_none() {
        return denied(Why::Elevation, format!("the role '{role}' knows no emergencies"));
    }
    if asked.path == Path::ProviderDown && rules.provider_down.is_none() {
        return denied(Why::Elevation, format!("the role '{role}' is not had by signatures"));
    }
    let longest = longest(rules, asked.path);
    if asked.ttl == 0 || asked.ttl > longest.as_secs() {
        let longest = humantime::format_duration(longest);
        return denied(Why::Elevation, format!("the role is had for {longest} at most"));
    }
    if let Some(unknown) = asked.scope.iter().flatten().find(|scope| !scopes.contains(*scope)) {
        return denied(Why::Scope, format!("the role '{role}' has no scope '{unknown}'"));
    }
    Ok(())
}

/// Whether there is a command that tells whether there are the tickets of such requests.
fn has_checked(rules: &Rules, drill: bool) -> bool {
    !rules.ticket_command.is_empty() && !drill
}

/// Whether it is not looked whether there is the ticket of a request, though the role wants that:
/// who asks because all is down waits for no system that may be down with it, nor behind those
/// who have other tickets looked up.
pub(super) fn leaves_unchecked(rules: &Rules, request: &Request) -> bool {
    request.path != Path::Ordinary && request.ticket.is_some() && has_checked(rules, request.drill)
}

/// Whether somebody has logged in as they have to, by what their token says.
pub(super) fn check_login(
    caller: &Caller,
    wanted: &Login,
    now: OffsetDateTime,
) -> Result<(), Refusal> {
    let said = |claim: &str| caller.tags().get(claim).into_iter().flatten().next();
    let step_up = || Refusal::StepUp(wanted.clone());
    if let Some(max_age) = wanted.max_age {
        // What it does not say is not so.
        let at = said("auth_time").and_then(|text| text.parse::<i64>().ok());
        let at =
            at.and_then(|at| OffsetDateTime::from_unix_timestamp(at).ok()).ok_or_else(step_up)?;
        if now - at > span(max_age).saturating_add(LEEWAY) || at > now.saturating_add(LEEWAY) {
            return Err(step_up());
        }
    }
    if !wanted.acr.is_empty() && !said("acr").is_some_and(|acr| wanted.acr.contains(acr)) {
        return Err(step_up());
    }
    Ok(())
}

/// What must not be there for another request to be added.
pub(super) fn unless(rules: &Rules, path: Path, now: OffsetDateTime) -> Unless {
    let cooling =
        |cool_down: Duration| (!cool_down.is_zero()).then(|| now.saturating_sub(span(cool_down)));
    let emergency = rules.emergency.as_ref().filter(|_| path == Path::Emergency);
    Unless {
        under_way: match path {
            _ if rules.renewable => None,
            Path::Emergency => None,
            Path::Ordinary => Some(UnderWay::Any),
            // What was asked for by a login is of no use to somebody who cannot log in.
            Path::ProviderDown => Some(UnderWay::On(Path::ProviderDown.as_str())),
        },
        // It is an emergency whatever was before it.
        ended_after: cooling(rules.cool_down).filter(|_| path != Path::Emergency),
        over_at: Some(now),
        emergency: emergency.is_some(),
        emergency_ended_after: emergency.and_then(|emergency| cooling(emergency.cool_down)),
        askers: Vec::new(),
    }
}

/// What must not be there for one that was approved to begin: the time in which nobody may ask
/// for the role again has not begun since.
pub(super) fn beginning(rules: &Rules, next: &Elevation, now: OffsetDateTime) -> Unless {
    let Unless { ended_after, over_at, .. } = unless(rules, next.asked.path, now);
    Unless { ended_after, over_at, ..Unless::default() }
}

/// Who it may be whose request speaks against another one: it is by the name, too.
const WHO: &str = "you, or somebody whom the directory called as it calls you,";

/// What it may be that speaks against another request, for whoever asks.
pub(super) fn said_of(rules: &Rules, path: Path) -> String {
    match (path, &rules.emergency) {
        (Path::Emergency, Some(emergency)) => format!(
            "{WHO} had the role in an emergency that is under way, was not reviewed yet, or ended less than {} ago",
            humantime::format_duration(emergency.cool_down)
        ),
        _ if rules.renewable => said_of_beginning(rules),
        (path, _) => {
            let how = if path == Path::ProviderDown { " by a signature" } else { "" };
            match rules.cool_down.is_zero() {
                true => format!("{WHO} asked for the role{how} already, or had it just now"),
                false => format!(
                    "{WHO} asked for the role{how} already, or had it less than {} ago",
                    humantime::format_duration(rules.cool_down)
                ),
            }
        }
    }
}

/// The same of what was approved and is to begin.
pub(super) fn said_of_beginning(rules: &Rules) -> String {
    let cool_down = humantime::format_duration(rules.cool_down);
    format!("{WHO} had the role less than {cool_down} ago")
}

impl Broker {
    /// Counts that somebody asks for a role, unless nothing comes of it.
    pub(super) fn turn_to_ask(&self, book: &Rulebook, asked: &Asked) -> Result<Turn, Refusal> {
        let (by, own) = (&asked.by, self.issuer.as_str());
        let (name, machine) = match by.person {
            Some(_) => (by.key(), None),
            // By a token of the broker's own it is the same one.
            None => {
                let machine = Machine { issuer: issuer_of(by, own), role: &asked.role };
                (asker_of(by, own), Some(machine))
            }
        };
        let turn = book.rates().elevation(&name, machine.as_ref(), self.clock.uptime());
        turn.map_err(|too_often| {
            self.metrics.limited(too_often);
            Refusal::TooOften(too_often)
        })
    }

    /// Whether there is the ticket that a request names, where there is a command that tells.
    pub(super) async fn check_ticket(&self, rules: &Rules, asked: &Asked) -> Result<(), Refusal> {
        let (Some(ticket), true) = (&asked.ticket, has_checked(rules, asked.drill)) else {
            return Ok(());
        };
        let Some(_turn) = self.tickets.turn().await else {
            return Err(Busy::Tickets.into());
        };
        let words = [rules.ticket_command.as_slice(), std::slice::from_ref(ticket)].concat();
        let limit = Limit(TICKET_LIMIT);
        match answered(&self.env, "ticket", &words, limit, MAX_TICKET).await {
            Ok(Answer::Yes) => Ok(()),
            // It is not the caller's mistake, and another process may be able to.
            Err(error) => {
                tracing::error!(%error, causes = error.causes().join(": "), "tickets cannot be checked");
                Err(Refusal::Uncheckable)
            }
            Ok(Answer::No(error)) => {
                tracing::info!(%error, causes = error.causes().join(": "), "a ticket was not found");
                Err(Refusal::Malformed("there is no such ticket, as far as can be told".into()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::broker::testbed::Bed;
    use crate::credential::TokenType;
    use crate::secret::Secret;

    /// What a token says of when somebody logged in counts where it can be so: a login that is yet
    /// to come is none, and by one that is not told nobody can say how old it is.
    #[tokio::test]
    async fn a_login_is_neither_too_old_nor_yet_to_come() {
        let bed = Bed::new().await;
        let now = OffsetDateTime::from_unix_timestamp(bed.broker.clock.now().unix_timestamp());
        let now = now.unwrap();
        let at = |seconds: i64| json!(now.unix_timestamp() + seconds);
        let wanted = Login { max_age: Some(Duration::from_secs(300)), ..Login::default() };
        for (login, good) in [
            (at(0), true),
            (at(-355), true),
            (at(-360), true),
            (at(-361), false),
            (at(-365), false),
            (at(55), true),
            (at(60), true),
            (at(61), false),
            (at(65), false),
            (json!(i64::MAX), false),
            (Value::Null, false),
            (json!("yesterday"), false),
            (json!(true), false),
        ] {
            let token = Secret::new(bed.key.token(json!({ "auth_time": login })));
            let book = bed.broker.policies();
            let caller = bed.broker.caller(&token, TokenType::Jwt, &book, None).await.unwrap();
            match check_login(&caller, &wanted, now) {
                Ok(()) => assert!(good, "{login}"),
                Err(Refusal::StepUp(told)) => {
                    assert_eq!((good, told.max_age), (false, wanted.max_age), "{login}");
                }
                Err(other) => panic!("{login}: {other:?}"),
            }
            // Where nobody asks when it was, it need not be told.
            assert!(check_login(&caller, &Login::default(), now).is_ok(), "{login}");
        }
    }

    #[tokio::test]
    async fn who_has_a_ticket_checked_waits_in_a_short_line() {
        let tickets = Tickets::default();
        let mut turns = Vec::new();
        for _ in 0..TICKETS_AT_ONCE {
            turns.push(tickets.turn().await.unwrap());
        }
        let mut waiting: Vec<_> =
            (TICKETS_AT_ONCE..TICKETS_IN_LINE).map(|_| Box::pin(tickets.turn())).collect();
        let a_moment = Duration::from_millis(1);
        for one in &mut waiting {
            assert!(tokio::time::timeout(a_moment, one.as_mut()).await.is_err());
        }
        // There is no place left to wait.
        assert!(tokio::time::timeout(a_moment, tickets.turn()).await.unwrap().is_none());
        // Whoever is first in line is next.
        turns.pop();
        assert!(waiting.remove(0).await.is_some());
    }
}
