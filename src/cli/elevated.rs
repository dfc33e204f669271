//! A run with a role that is had for a while: asked for before, given back afterwards.

use std::cell::Cell;
use std::sync::Arc;

use time::OffsetDateTime;
use uuid::Uuid;

use super::App;
use super::args::{Elevated as Args, Fresh};
use super::commands::elevate::request::{ended_by, is_past};
use super::commands::elevate::{self, request};
use super::elsewhere::Elsewhere;
use super::hold::{Hold, Left};
use super::misuse;
use super::onlooker::Onlooker;
use super::prepare::{Prepared, Proving};
use super::renewal::Own;
use super::show;
use crate::api::Failure;
use crate::api::elevations::{Event, Listed, Wanted};
use crate::credential::Credential;
use crate::deliver::deadline::{Recall, Told};
use crate::deliver::supervisor::Beginning;
use crate::error::{Error, ErrorKind, Result};
use crate::host::interact::Interact;
use crate::mint::Request;
use crate::pipeline::OwnCredential;
use crate::wire::RevocationReach;
use crate::wire::elevation::Elevation;

use super::signed::{self, Ask, SignedGrant};

/// How whoever runs it shows who they are.
enum Way {
    /// By a session at an identity provider.
    Session(Box<Elsewhere>),
    /// By what they sign.
    Signed(Arc<SignedGrant>),
}

/// A grant, under which a command runs.
pub(crate) struct Elevated {
    way: Way,
    id: Uuid,
    until: OffsetDateTime,
    /// Whether it began for this run, and so ends with it.
    own: bool,
    /// By which other runs know that this one has it, where they can be told.
    hold: Cell<Option<Hold>>,
}

impl Elevated {
    /// Asks for the role where that is wanted, waits until it is approved, and begins, which is
    /// told to `beginning`. What was asked for before, or is had, serves.
    pub(crate) fn begin(
        app: &App,
        prepared: &Prepared,
        args: &Args,
        beginning: &Beginning,
    ) -> Result<Option<Self>> {
        signed::check(args.down.provider_down, &args.down.key)?;
        let Some(role) = args.elevate.as_deref() else { return Ok(None) };
        if prepared.is_embedded() {
            return Err(misuse("--elevate is for a broker of yours, not for --dev"));
        }
        let least = prepared.plan.target.least_of_grant(prepared.plan.request.ttl);
        if let (Some(least), Some(lasting)) = (least, args.because.lasting)
            && lasting < least
        {
            return Err(misuse("--for is too short for a session of AWS")
                .because_of(
                    "one lasts 15 minutes at least, and must not be there when its grant is not",
                )
                .hint("ask for a longer grant, such as --for 30m"));
        }
        loop {
            let elevated = Self::once(app, prepared, (role, args), beginning)?;
            // Another run may have given it back, who was waited for.
            if elevated.own || elevated.stands(app) {
                app.host.interact.note(&format!(
                    "you have the role '{role}' until {}",
                    show::moment(elevated.until)
                ));
                return Ok(Some(elevated));
            }
            app.host.interact.note("another command has just given it back");
        }
    }

    fn once(
        app: &App,
        prepared: &Prepared,
        (role, args): (&str, &Args),
        beginning: &Beginning,
    ) -> Result<Self> {
        let asking = prepared.at_broker(&app.host)?;
        let request = asking.plan.request.clone();
        if args.down.provider_down {
            let ask = Ask {
                role,
                because: &args.because,
                down: &args.down,
                audience: Some(&request.audience),
                scope: (!request.scope.is_empty()).then(|| request.scope.join(" ")),
                rules: None,
                drill: false,
            };
            let (grant, elevation, own) =
                signed::begin(app, &asking, &ask, args.patience, Some(beginning))?;
            return Self::had(app, Way::Signed(Arc::new(grant)), &elevation, own);
        }
        let wanted = request::wanted(role, &args.because)?;
        let broker = Elsewhere::of(asking)?;
        // What the credential of this run is to cover, and no more.
        let scope = (!request.scope.is_empty()).then(|| request.scope.join(" "));
        let wanted = Wanted { audience: Some(&request.audience), scope, ..wanted };
        let known = Self::known(&broker, &request, app.host.corrected_now())?;
        let own = !known.as_ref().is_some_and(Elevation::is_had);
        let elevation = match known {
            Some(known) if !args.because.emergency || known.is_had() => {
                app.host.interact.note(&request::goes_on(&known, &wanted));
                known
            }
            _ => request::request(&broker, &wanted, Some(beginning))?,
        };
        let elevation = match elevation.is_had() {
            true => elevation,
            false => request::wait(app, &broker, elevation, args.patience, Some(beginning))?,
        };
        Self::had(app, Way::Session(Box::new(broker)), &elevation, own)
    }

    /// It is had from now on.
    fn had(app: &App, way: Way, elevation: &Elevation, own: bool) -> Result<Self> {
        let id = Uuid::try_parse(&elevation.id);
        let until = elevation.grant.as_ref().and_then(|grant| elevate::moment(&grant.until));
        let (Ok(id), Some(until)) = (id, until) else {
            let message = "the broker does not say what grant there is, or when it ends";
            return Err(Error::new(ErrorKind::Verification, message));
        };
        // By this machine's clock.
        let skew = app.host.clock.now() - app.host.corrected_now();
        let until = until.saturating_add(skew);
        let hold = Hold::begin(&app.host, id, own);
        if let Err(error) = &hold {
            app.host.interact.warn(&format!(
                "other commands under this grant are not known of, and may end it, or lose it with this one: {error}"
            ));
        }
        Ok(Self { way, id, until, own, hold: Cell::new(hold.ok()) })
    }

    /// Whether it is had still, as far as that can be told.
    fn stands(&self, app: &App) -> bool {
        let latest = match &self.way {
            Way::Session(broker) => broker.ask(async |client| client.elevation(self.id).await),
            Way::Signed(grant) => grant.bring(),
        };
        latest.map_or(true, |latest| latest.is_had() && !is_past(&latest, app.host.corrected_now()))
    }

    /// What was asked for before, or is had, where it serves for what is asked for now.
    fn known(
        broker: &Elsewhere,
        asked: &Request,
        now: OffsetDateTime,
    ) -> Result<Option<Elevation>> {
        let mine = Listed { which: "mine", limit: 50 };
        let page = broker.ask(async |client| client.elevations(&mine).await)?;
        let key = broker.thumbprint()?;
        let live = ["pending", "approved", "active", "emergency-active"];
        let covers = |scope: &str| {
            asked.scope.iter().all(|wanted| scope.split(' ').any(|covered| covered == wanted))
        };
        let serves = |one: &Elevation| {
            !one.drill
                && one.role == asked.role
                && one.audience == asked.audience
                && live.contains(&one.access.as_str())
                && !is_past(one, now)
                && one.scope.as_deref().is_none_or(covers)
                && (one.key.is_none() || one.key == key)
        };
        let serving: Vec<_> = page.elevations.into_iter().filter(serves).collect();
        // What is had, before what is waited for.
        let had = serving.iter().position(|one| one.access.ends_with("active")).unwrap_or(0);
        Ok(serving.into_iter().nth(had))
    }

    /// What gets a credential under it: by the session that there is, or by what somebody signs.
    pub(crate) fn minting(
        &self,
        app: &App,
        prepared: &Prepared,
        fresh: &Fresh,
        own: &Arc<Own>,
    ) -> Result<impl FnOnce() -> Result<Credential> + Send + 'static> {
        let proving: Option<Proving> = match &self.way {
            Way::Session(_) => None,
            Way::Signed(grant) => Some(Box::new(grant.proving(app, prepared)?)),
        };
        prepared.minting(fresh, proving, own)
    }

    /// Its id.
    pub(crate) fn id(&self) -> Uuid {
        self.id
    }

    /// Looks from time to time whether it still stands, while a command runs under it.
    pub(crate) fn look_after(&self, recall: &Recall) -> Result<()> {
        let onlooker = match &self.way {
            Way::Session(broker) => Onlooker::at(broker, self.id),
            Way::Signed(grant) => Onlooker::of(grant)?,
        };
        onlooker.begin(recall.clone())
    }

    /// When it ends, by this machine's clock.
    pub(crate) fn until(&self) -> OffsetDateTime {
        self.until
    }

    /// The run is over, and so is its grant, before its time: says what lasts all the same.
    pub(crate) fn ended(&self, app: &App, prepared: &Prepared, minted: &[OwnCredential]) {
        // Nobody has to give it back.
        drop(self.hold.take().map(Hold::end));
        if let Some(until) = session(app, prepared, minted) {
            app.host.interact.note(&format!(
                "the session of AWS lasts until {until}; `tmpcred elevate status {}` has the policy by which its role denies it, where there is one",
                self.id
            ));
        }
    }

    /// The run is over: gives the grant back, where it began for this run or for another one that
    /// had it too, and no other one has it. With it, all that was issued under it is revoked; where
    /// it goes on, only what this run has. Says what lasts all the same. Failing is told and no
    /// more.
    pub(crate) fn end(&self, app: &App, prepared: &Prepared, minted: &[OwnCredential]) {
        let interact = &app.host.interact;
        let session = session(app, prepared, minted);
        let left = self.hold.take().map(Hold::end).transpose();
        let is_last = match &left {
            Ok(Some(left)) => matches!(left, Left::Last { .. }),
            // Each run is for itself then.
            Ok(None) | Err(_) => self.own,
        };
        if !is_last {
            if let (true, Ok(Some(Left::Others))) = (self.own, &left) {
                interact.note("the grant stays for another command that runs under it");
            }
            match session {
                Some(until) => interact
                    .note(&format!("the session of AWS lasts until {until}: it cannot be revoked")),
                None => prepared.revoke(minted),
            }
            return;
        }
        if app.host.clock.now() >= self.until {
            return;
        }
        let event = Event::default();
        let done = match &self.way {
            Way::Session(broker) => {
                let broker = broker.ending();
                broker.ask(async |client| {
                    match client.settle(self.id, "relinquish", &event).await {
                        // It may have ended already, by whoever revoked it.
                        Err(Failure::Other(error)) if error.kind() != ErrorKind::Unreachable => {
                            let found = client.elevation(self.id).await;
                            found.ok().filter(|found| ended_by(found).is_some()).ok_or(error.into())
                        }
                        done => done,
                    }
                })
            }
            Way::Signed(grant) => grant.end(app, "the command has ended"),
        };
        match done {
            Ok(ended) => {
                let how = match ended.access.as_str() {
                    "relinquished" => None,
                    _ => ended_by(&ended),
                };
                let lasts = lasting(&ended, session.as_deref(), minted.is_empty());
                if how.is_some() || lasts.is_some() {
                    let how = how.unwrap_or_else(|| "the grant has been given back".into());
                    let lasts = lasts.map(|lasts| format!("; {lasts}")).unwrap_or_default();
                    interact.note(&format!("{how}{lasts}"));
                }
            }
            Err(error) => interact.warn(&format!(
                "the grant could not be given back and lasts until {}: {error}",
                show::moment(self.until)
            )),
        }
    }
}

/// Until when a session of AWS lasts that a run had.
fn session(app: &App, prepared: &Prepared, minted: &[OwnCredential]) -> Option<String> {
    let lasts = minted.iter().map(|one| one.credential.lifetime.expires_at_local()).max();
    let lasts = lasts.filter(|end| *end > app.host.clock.now()).map(show::moment);
    lasts.filter(|_| prepared.plan.target.yields_aws())
}

/// What lasts although its grant has ended, for people. `session`: until when a session of AWS
/// lasts that this run had.
fn lasting(ended: &Elevation, session: Option<&str>, nothing: bool) -> Option<String> {
    let how = match &ended.aws_sessions {
        Some(_) => format!(
            ", unless its role denies that: `tmpcred elevate status {}` has the policy",
            ended.id
        ),
        None => String::new(),
    };
    match (session, ended.revocation_reach) {
        (Some(until), _) => Some(format!("the session of AWS lasts until {until}{how}")),
        (None, Some(RevocationReach::Introspection)) if !nothing => {
            Some("whoever does not ask the broker takes what was issued until it expires".into())
        }
        _ => None,
    }
}

/// Tells how it goes on with the grant of a command that runs.
pub(crate) fn tell(interact: &dyn Interact, told: Told) {
    match told {
        Told::Left(left) => {
            let left = time::Duration::try_from(left).unwrap_or_default();
            interact.warn(&format!("the grant of this command ends in {}", show::duration(left)));
        }
        Told::Ending(why) => {
            let why = why.as_deref().unwrap_or("the grant has ended");
            interact.warn(&format!("{why}, so the command is ended"));
        }
        Told::Over(why) => {
            let why = why.as_deref().unwrap_or("the grant has ended");
            interact.warn(&format!("{why}, and the command goes on without it"));
        }
    }
}
