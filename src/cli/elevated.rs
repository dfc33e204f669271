//! A run with a role that is had for a while: asked for before, given back afterwards.

use time::OffsetDateTime;
use uuid::Uuid;

use super::App;
use super::args::Elevated as Args;
use super::commands::elevate::{self, request};
use super::elsewhere::Elsewhere;
use super::misuse;
use super::onlooker::Onlooker;
use super::prepare::Prepared;
use super::show;
use crate::api::elevations::{Event, Listed, Wanted};
use crate::credential::Credential;
use crate::deliver::deadline::{Recall, Told};
use crate::error::{Error, ErrorKind, Result};
use crate::host::interact::Interact;
use crate::wire::elevation::Elevation;

use super::signed::{self, Ask, SignedGrant};

/// How whoever runs it shows who they are.
enum Way {
    /// By a session at an identity provider.
    Session(Box<Elsewhere>),
    /// By what they sign.
    Signed(Box<SignedGrant>),
}

/// A grant, under which a command runs.
pub(crate) struct Elevated {
    way: Way,
    id: Uuid,
    until: OffsetDateTime,
    /// Whether it began for this run, and so ends with it.
    own: bool,
}

impl Elevated {
    /// Asks for the role where that is wanted, waits until it is approved, and begins. What
    /// was asked for before, or is had, serves.
    pub(crate) fn begin(app: &App, prepared: &Prepared, args: &Args) -> Result<Option<Self>> {
        signed::check(args.down.provider_down, &args.down.key)?;
        let Some(role) = args.elevate.as_deref() else { return Ok(None) };
        if prepared.is_embedded() {
            return Err(misuse("--elevate is for a broker of yours, not for --dev"));
        }
        if args.down.provider_down {
            let request = &prepared.plan.request;
            let ask = Ask {
                role,
                because: &args.because,
                down: &args.down,
                audience: Some(&request.audience),
                scope: (!request.scope.is_empty()).then(|| request.scope.join(" ")),
                rules: None,
                drill: false,
            };
            let (grant, elevation, own) = signed::begin(app, prepared, &ask)?;
            return Self::had(app, Way::Signed(Box::new(grant)), elevation, own).map(Some);
        }
        let wanted = request::wanted(role, &args.because)?;
        let broker = Elsewhere::open(app, Some(&prepared.plan.profile))?;
        let run = &prepared.plan.request;
        let audience = run.audience.as_str();
        // What the credential of this run is to cover, and no more.
        let scope = (!run.scope.is_empty()).then(|| run.scope.join(" "));
        let wanted = Wanted { audience: Some(audience), scope, ..wanted };
        let known = Self::known(&broker, role, audience)?;
        let had = |one: &Elevation| ["active", "emergency-active"].contains(&one.access.as_str());
        let own = !known.as_ref().is_some_and(had);
        let elevation = match known {
            Some(known) if !args.because.emergency || had(&known) => {
                app.host.interact.note(&request::goes_on(&known, &wanted));
                known
            }
            _ => request::request(&broker, &wanted)?,
        };
        let elevation = match had(&elevation) {
            true => elevation,
            false => request::wait(app, &broker, elevation, args.patience)?,
        };
        Self::had(app, Way::Session(Box::new(broker)), elevation, own).map(Some)
    }

    /// Tells that it is had, and until when.
    fn had(app: &App, way: Way, elevation: Elevation, own: bool) -> Result<Self> {
        let id = Uuid::try_parse(&elevation.id);
        let until = elevation.grant.as_ref().and_then(|grant| elevate::moment(&grant.until));
        let (Ok(id), Some(until)) = (id, until) else {
            let message = "the broker does not say what grant there is, or when it ends";
            return Err(Error::new(ErrorKind::Verification, message));
        };
        // By this machine's clock.
        let skew = app.host.clock.now() - app.host.corrected_now();
        let until = until.saturating_add(skew);
        app.host.interact.note(&format!(
            "you have the role '{}' until {}",
            elevation.role,
            show::moment(until)
        ));
        Ok(Self { way, id, until, own })
    }

    /// What was asked for, or is had, for this role and audience.
    fn known(broker: &Elsewhere, role: &str, audience: &str) -> Result<Option<Elevation>> {
        let mine = Listed { which: "mine", limit: 50 };
        let page = broker.ask(async |client| client.elevations(&mine).await)?;
        let live = ["pending", "approved", "active", "emergency-active"];
        let serves = |one: &Elevation| {
            !one.drill
                && one.role == role
                && one.audience == audience
                && live.contains(&one.access.as_str())
        };
        Ok(page.elevations.into_iter().find(serves))
    }

    /// A credential under it, where it is had by what somebody signs; else there is a session to
    /// get one by.
    pub(crate) fn signed_credential(
        &self,
        app: &App,
        prepared: &Prepared,
    ) -> Option<Result<Credential>> {
        match &self.way {
            Way::Session(_) => None,
            Way::Signed(grant) => Some(grant.mint(app, prepared)),
        }
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

    /// Whether it ends with this run.
    pub(crate) fn is_own(&self) -> bool {
        self.own
    }

    /// Gives it back, where it is of this run. Failing is told and no more.
    pub(crate) fn end(&self, app: &App) {
        if !self.own || app.host.clock.now() >= self.until {
            return;
        }
        let event = Event::default();
        let done = match &self.way {
            Way::Session(broker) => {
                broker.ask(async |client| client.settle(self.id, "relinquish", &event).await)
            }
            Way::Signed(grant) => grant.end(app, "the command has ended"),
        };
        if let Err(error) = done {
            app.host.interact.warn(&format!(
                "the grant could not be given back and lasts until {}: {error}",
                show::moment(self.until)
            ));
        }
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
