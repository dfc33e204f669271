//! `tmpcred elevate request` and `status`: asking, waiting, beginning.

use std::cell::Cell;
use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use super::{drill, open, show, uses};
use crate::api::elevations::{Event, Listed, Wanted};
use crate::api::{Client, Failure};
use crate::cli::args::{At, Because, ElevateRequest, ElevateStatus, Patience};
use crate::cli::elsewhere::Elsewhere;
use crate::cli::show::{moment, printable};
use crate::cli::{App, misuse, signed};
use crate::deliver::supervisor::Beginning;
use crate::error::{Error, ErrorKind, Result};
use crate::host::clock::SKEW_NOISE;
use crate::host::interact::Waiting;
use crate::wire::elevation::Elevation;

/// How often it is looked whether somebody has approved.
const EVERY: Duration = Duration::from_secs(2);

/// How many times that is with the same proof of who asks: it may not be good for longer.
const LOOKS: usize = 30;

/// What is waited for where people log in.
const APPROVALS: &str = "approvals";

/// Who is asked how it stands.
pub(crate) const BROKER: &str = "the broker";

/// Who is asked before, who it is that asks.
const PROVER: &str = "the identity provider";

/// How long nobody need answer before that is said.
pub(crate) const SILENT: Duration = Duration::from_secs(10);

pub(super) fn run(app: &App, args: &ElevateRequest) -> Result<()> {
    signed::check(args.down.provider_down, &args.down.key)?;
    if args.down.provider_down {
        return super::sign::request(app, args);
    }
    let broker = open(app, &args.at)?;
    let start = args.start.as_deref().map(|text| start(text, app.host.clock.now())).transpose()?;
    let mut wanted = wanted(&args.role, &args.because)?;
    wanted.start = start.map(moment);
    wanted.audience = args.audience.as_deref();
    wanted.scope = (!args.scope.is_empty()).then(|| args.scope.join(" "));
    let asked = request(&broker, &wanted, None)?;
    let waits = match args.wait || args.patience.wait_at_most.is_some() {
        true => Some(args.patience),
        false if args.no_wait || args.at.json || !app.ui.stderr_is_terminal() => None,
        false => Some(args.patience),
    };
    follow(app, &broker, asked, &args.at, waits)
}

pub(super) fn status(app: &App, args: &ElevateStatus) -> Result<()> {
    let broker = open(app, &args.at)?;
    let found = match args.id.as_deref().map(Uuid::try_parse) {
        Some(Ok(id)) => broker.ask(async |client| client.elevation(id).await)?,
        // Its beginning, of which only one's own begin so.
        given => {
            let mine = Listed { which: "mine", limit: 200 };
            let page = broker.ask(async |client| client.elevations(&mine).await)?;
            let begins = args.id.as_deref().filter(|_| given.is_some()).unwrap_or_default();
            let mut found = page
                .elevations
                .into_iter()
                .filter(|one| one.id.starts_with(begins))
                .collect::<Vec<_>>();
            if !begins.is_empty() && found.len() > 1 {
                return Err(misuse(format!("several of your requests begin with '{begins}'"))
                    .hint("`tmpcred elevate list` shows their ids"));
            }
            if found.is_empty() {
                return Err(misuse("you have asked for nothing like that")
                    .hint("`tmpcred elevate list` shows what you have asked for"));
            }
            found.swap_remove(0)
        }
    };
    let patience = Patience { wait_at_most: args.wait_at_most };
    let waits = args.wait || args.wait_at_most.is_some();
    follow(app, &broker, found, &args.at, waits.then_some(patience))
}

/// What is asked for; whoever is asked why says so.
pub(crate) fn wanted<'a>(role: &'a str, because: &'a Because) -> Result<Wanted<'a>> {
    let Some(reason) = because.reason.as_deref() else {
        return Err(misuse("--reason is missing")
            .because_of("those who approve, and the audit log, are told why")
            .hint("--reason \"INC-4711: the database is full\""));
    };
    Ok(Wanted {
        role,
        reason,
        ticket: because.ticket.as_deref(),
        ttl: because.lasting.map(|lasting| lasting.as_secs()),
        emergency: because.emergency.then_some(true),
        ..Wanted::default()
    })
}

/// Asks for it: once, also where the answer is lost and it is asked for again.
/// Where it begins at once, that is told to `beginning`.
pub(crate) fn request(
    broker: &Elsewhere,
    wanted: &Wanted<'_>,
    beginning: Option<&Beginning>,
) -> Result<Elevation> {
    let key = Uuid::new_v4().to_string();
    let jkt = broker.thumbprint()?;
    let wanted = Wanted { idempotency_key: &key, dpop_jkt: jkt.as_deref(), ..wanted.clone() };
    let beginning = beginning.filter(|_| wanted.emergency.is_some());
    broker.ask(async |client| begins(beginning, client.elevate(&wanted)).await)
}

/// Asks for something by which a grant may begin. Where it does, no signal ends this process any
/// more before whoever has `beginning` heeds it.
pub(crate) async fn begins(
    beginning: Option<&Beginning>,
    ask: impl Future<Output = Result<Elevation, Failure>>,
) -> Result<Elevation, Failure> {
    let Some(beginning) = beginning else { return ask.await };
    beginning.enter()?;
    let told = ask.await;
    if !told.as_ref().is_ok_and(Elevation::is_had) {
        beginning.leave()?;
    }
    told
}

/// Shows it, and waits for it where that is wanted.
pub(super) fn follow(
    app: &App,
    broker: &Elsewhere,
    elevation: Elevation,
    at: &At,
    waits: Option<Patience>,
) -> Result<()> {
    broker.forget_ended(&elevation);
    let undecided = ["pending", "approved"].contains(&elevation.access.as_str());
    let Some(patience) = waits.filter(|_| undecided) else {
        return uses::one(app, broker, &elevation, at.json);
    };
    if !at.json {
        show::one(app, &elevation, false)?;
    }
    let begun = wait(app, broker, elevation, patience, None)?;
    broker.forget_ended(&begun);
    let may_end = begun.may.iter().any(|may| may == "relinquish");
    match begun.drill {
        true if is_through(&begun) => drill::tell(app, &begun, at),
        true if may_end => drill::end(app, broker, &begun, at),
        _ => show::one(app, &begun, at.json),
    }
}

/// Waits until it is approved, begins, and returns what is had. That it begins is told to
/// `beginning`.
///
/// # Errors
/// [`ErrorKind::Denied`] where it is not had any more, [`ErrorKind::ApprovalPending`] where
/// that takes too long.
pub(crate) fn wait(
    app: &App,
    broker: &Elsewhere,
    elevation: Elevation,
    patience: Patience,
    beginning: Option<&Beginning>,
) -> Result<Elevation> {
    let id = Uuid::try_parse(&elevation.id).map_err(|cause| {
        Error::new(ErrorKind::Verification, "the broker gives an elevation no id").because(cause)
    })?;
    let (at, what) = (
        broker.at(),
        if elevation.access == "approved" && is_early(app, &elevation) {
            "its start"
        } else {
            "approval"
        },
    );
    app.host.interact.note(&format!(
        "waiting for {what}; Ctrl-C ends the waiting, not the request: `tmpcred elevate status {id} --wait{at}` goes on with it"
    ));
    let broker = broker.looking();
    let is_late = lateness(app, patience);
    // Who proves who asks may not answer either.
    let is_broker = Cell::new(false);
    let mut shown = Shown::new(app, APPROVALS);
    let (mut latest, mut silent) = (elevation, None::<std::time::Instant>);
    loop {
        // Whoever waits for it elsewhere has ended it.
        if is_through(&latest) {
            return Ok(latest);
        }
        if let Some(end) = over(&latest) {
            return Err(end);
        }
        if latest.is_had() {
            // Whoever began it.
            beginning.map_or(Ok(()), Beginning::enter)?;
            return Ok(latest);
        }
        if is_late() {
            return Err(pending(&latest, &broker));
        }
        shown.tell(&latest);
        let before = latest.clone();
        is_broker.set(false);
        let looked = broker.ask(async |client| {
            is_broker.set(true);
            let mut latest = before.clone();
            for looked in 0..LOOKS {
                if may_begin(app, &latest) {
                    match begins(beginning, begin(app, client, id, &latest)).await {
                        // Somebody may not approve any more who could when it was looked at.
                        Err(Failure::Short(error)) => {
                            tracing::info!(%error, "it is waited for others to approve");
                        }
                        // Not yet.
                        Ok(found) if found.version == before.version && !found.is_had() => {}
                        begun => return begun,
                    }
                }
                tokio::time::sleep(EVERY).await;
                latest = match client.elevation(id).await {
                    // It was accepted before, and has expired: the next one is another.
                    Err(Failure::Unaccepted(_)) if looked > 0 => break,
                    Err(failure @ (Failure::Unaccepted(_) | Failure::StepUp(_))) => {
                        is_broker.set(false);
                        return Err(failure);
                    }
                    found => found?,
                };
                if latest.version != before.version || is_late() {
                    break;
                }
            }
            Ok::<_, Failure>(latest)
        });
        match looked {
            Ok(found) => {
                latest = found;
                silent = None;
            }
            // Whoever cannot be reached may be again, as long as it is worth waiting for.
            Err(error) if error.kind() == ErrorKind::Unreachable && is_worth_it(app, &latest) => {
                let since = *silent.get_or_insert_with(std::time::Instant::now);
                if since.elapsed() > SILENT {
                    shown.silent(if is_broker.get() { BROKER } else { PROVER });
                }
                std::thread::sleep(EVERY);
            }
            Err(error) => return Err(error),
        }
    }
}

/// Whether it is a drill that was had, and is over as it should be.
pub(super) fn is_through(elevation: &Elevation) -> bool {
    elevation.drill && elevation.access == "relinquished" && elevation.tried.is_some()
}

/// Whether it is over by the clock: the broker puts that on record a moment later.
pub(crate) fn is_past(elevation: &Elevation, now: OffsetDateTime) -> bool {
    let until = elevation.grant.as_ref().and_then(|grant| show::moment(&grant.until));
    elevation.is_had() && until.is_some_and(|until| until <= now)
}

/// Whether that was waited for as long as it may be.
pub(crate) fn lateness(app: &App, patience: Patience) -> impl Fn() -> bool {
    let until = patience.wait_at_most.map(|most| {
        app.host.clock.now().saturating_add(most.try_into().unwrap_or(time::Duration::MAX))
    });
    move || until.is_some_and(|until| app.host.clock.now() >= until)
}

/// Begins it. Whoever waits elsewhere may have done so, or the answer was lost: whatever is
/// said, it counts how things stand afterwards.
async fn begin(
    app: &App,
    client: &Client<'_>,
    id: Uuid,
    latest: &Elevation,
) -> Result<Elevation, Failure> {
    let failure = match client.settle(id, "activate", &Event::default()).await {
        Err(failure) if !matches!(failure, Failure::StepUp(_)) => failure,
        answer => return answer,
    };
    match client.elevation(id).await {
        Ok(found) if found.version != latest.version || !may_begin(app, &found) => Ok(found),
        // By the broker's clock it may have been too early.
        Ok(found) if starts_now(app, &found) => Ok(found),
        _ => Err(failure),
    }
}

fn may_begin(app: &App, elevation: &Elevation) -> bool {
    elevation.may.iter().any(|may| may == "activate") && !is_early(app, elevation)
}

fn is_early(app: &App, elevation: &Elevation) -> bool {
    let start = elevation.start.as_deref().and_then(show::moment);
    start.is_some_and(|start| app.host.corrected_now() < start)
}

/// Whether it starts about now: clocks that are no more apart count as the same, and moments are
/// told in seconds.
fn starts_now(app: &App, elevation: &Elevation) -> bool {
    let start = elevation.start.as_deref().and_then(show::moment);
    let apart = SKEW_NOISE + time::Duration::SECOND;
    start.is_some_and(|start| app.host.corrected_now() < start + apart)
}

fn is_worth_it(app: &App, elevation: &Elevation) -> bool {
    let until = elevation.begin_by.as_deref().unwrap_or(&elevation.lapses_at);
    show::moment(until).is_some_and(|until| app.host.corrected_now() < until)
}

/// That it is not had yet.
fn pending(elevation: &Elevation, broker: &Elsewhere) -> Error {
    let (id, at) = (&elevation.id, broker.at());
    unhad(elevation, APPROVALS)
        .hint(format!("`tmpcred elevate status {id} --wait{at}` goes on with it"))
        .hint(format!("`tmpcred elevate withdraw {id}{at}` takes it back"))
}

/// The same, and what of this kind is missing, but not what can be done.
pub(crate) fn unhad(elevation: &Elevation, what: &str) -> Error {
    let role = &elevation.role;
    let message = format!("you do not have the role '{role}' yet");
    let error = Error::new(ErrorKind::ApprovalPending, message);
    let needs = elevation.needs.iter().map(|need| show::needs(need, what));
    match elevation.access.as_str() {
        "approved" => error.because_of("it is approved and has not begun"),
        _ => needs.fold(error, Error::because_of),
    }
}

/// Who ended what was had, and why, where the clock did not; `None` as long as it is had.
pub(crate) fn ended_by(elevation: &Elevation) -> Option<String> {
    let how = match elevation.access.as_str() {
        "revoked" => "revoked",
        "relinquished" => "given back",
        "expired" => "at its end",
        _ => return None,
    };
    let ended = elevation.ended.as_ref();
    let by = ended.and_then(|ended| ended.by.as_ref()).filter(|_| how == "revoked");
    let by = by.map(|by| format!(" by {}", show::who(by))).unwrap_or_default();
    let why = ended.and_then(|ended| ended.reason.as_ref());
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    Some(printable(&format!("the grant is {how}{by}{why}")))
}

/// What is said where something that was asked for before is gone on with: what of it is
/// otherwise than `wanted`.
pub(crate) fn goes_on(known: &Elevation, wanted: &Wanted<'_>) -> String {
    let lasting = |seconds: u64| humantime::format_duration(Duration::from_secs(seconds));
    let quoted = |text: Option<&str>| text.map_or("none".into(), |text| format!("'{text}'"));
    let mut other = Vec::new();
    if known.reason != wanted.reason {
        other.push(format!("the reason '{}', not '{}'", known.reason, wanted.reason));
    }
    if wanted.ticket.is_some() && wanted.ticket != known.ticket.as_deref() {
        let known = quoted(known.ticket.as_deref());
        other.push(format!("the ticket {known}, not {}", quoted(wanted.ticket)));
    }
    if let Some(ttl) = wanted.ttl.filter(|ttl| *ttl != known.ttl) {
        other.push(format!("{}, not {}", lasting(known.ttl), lasting(ttl)));
    }
    if known.scope != wanted.scope {
        let all = |scope: &Option<String>| quoted(Some(scope.as_deref().unwrap_or("all of it")));
        other.push(format!("the scope {}, not {}", all(&known.scope), all(&wanted.scope)));
    }
    let until = match known.access.as_str() {
        "pending" => Some(("which waits for approval until", &known.lapses_at)),
        "approved" => known.begin_by.as_ref().map(|by| ("which is to be begun until", by)),
        _ => known.grant.as_ref().map(|grant| ("which is had until", &grant.until)),
    };
    let until =
        until.and_then(|(what, until)| Some(format!(", {what} {}", moment(show::moment(until)?))));
    let other = match other.is_empty() {
        true => String::new(),
        false => format!("; it was asked for with {}", other.join(", ")),
    };
    printable(&format!(
        "going on with the request {}{}{other}",
        known.id,
        until.unwrap_or_default()
    ))
}

/// Why it is not had, where it will not be.
pub(crate) fn over(elevation: &Elevation) -> Option<Error> {
    let said = match elevation.access.as_str() {
        "denied" => "somebody said no",
        "withdrawn" => "it was taken back",
        "lapsed" => "it has lapsed",
        "revoked" => "it was revoked",
        "expired" | "relinquished" => "it has ended",
        _ => return None,
    };
    let message = format!("you do not have the role '{}': {said}", elevation.role);
    let mut error = Error::new(ErrorKind::Denied, message);
    if let Some(ended) = &elevation.ended {
        let by = ended.by.as_ref().map(|by| format!("{}: ", show::who(by))).unwrap_or_default();
        if let Some(reason) = &ended.reason {
            error = error.because_of(format!("{by}{reason}"));
        }
    }
    Some(error.hint(format!("`tmpcred elevate status {}` shows all of it", elevation.id)))
}

/// What is shown of the waiting.
pub(crate) struct Shown<'a> {
    app: &'a App,
    /// What is waited for.
    what: &'static str,
    said: String,
    /// Shown until it is dropped.
    spinner: Option<Box<dyn Waiting>>,
}

impl<'a> Shown<'a> {
    /// Nothing yet. `what` is waited for.
    pub(crate) fn new(app: &'a App, what: &'static str) -> Self {
        Self { app, what, said: String::new(), spinner: None }
    }

    /// How it stands.
    pub(crate) fn tell(&mut self, elevation: &Elevation) {
        let needs = elevation.needs.iter().map(|need| show::needs(need, self.what));
        let needs: Vec<_> = needs.collect();
        let said = match elevation.access.as_str() {
            "approved" if is_early(self.app, elevation) => {
                format!("approved; it starts at {}", elevation.start.as_deref().unwrap_or_default())
            }
            _ => needs.join("; "),
        };
        self.say(said);
    }

    /// That it is not known how it stands, because `who` does not answer.
    pub(crate) fn silent(&mut self, who: &str) {
        self.say(format!("{who} does not answer; still waiting"));
    }

    fn say(&mut self, said: String) {
        if said != self.said {
            // One at a time.
            self.spinner = None;
            self.spinner = Some(self.app.host.interact.waiting(&said));
            self.said = said;
        }
    }
}

/// When it is to start: a moment, or in how long.
fn start(text: &str, now: OffsetDateTime) -> Result<OffsetDateTime> {
    if let Some(at) = show::moment(text) {
        return Ok(at);
    }
    let ahead = humantime::parse_duration(text).ok();
    let ahead = ahead.and_then(|ahead| time::Duration::try_from(ahead).ok());
    ahead.and_then(|ahead| now.checked_add(ahead)).ok_or_else(|| {
        misuse(format!("--start: '{text}' is no moment such as 2026-01-31T08:00:00Z, nor in how long, such as 2h"))
    })
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::start;

    #[test]
    fn a_start_is_a_moment_or_in_how_long() {
        let now = datetime!(2026-01-31 08:00 UTC);
        assert_eq!(start("2h", now).unwrap(), datetime!(2026-01-31 10:00 UTC));
        let moment = start("2026-02-01T08:00:00+01:00", now).unwrap();
        assert_eq!(moment, datetime!(2026-02-01 07:00 UTC));
        for other in ["", "tomorrow", "99999999999999y", "-1h"] {
            assert!(start(other, now).is_err(), "{other}");
        }
    }
}
