//! `tmpcred elevate drill`: to practise what is done in earnest.

use time::Duration;
use uuid::Uuid;

use super::{open, request, show};
use crate::api::elevations::{Event, Wanted};
use crate::cli::App;
use crate::cli::args::{At, Because, ElevateDrill, Patience};
use crate::cli::elsewhere::Elsewhere;
use crate::cli::show::{self as shown, printable};
use crate::cli::signed::{self, Ask, Desk};
use crate::error::{Error, ErrorKind, Result};
use crate::wire::elevation::Elevation;

/// Why, where nobody says.
const WHY: &str = "to practise it";

pub(super) fn run(app: &App, args: &ElevateDrill) -> Result<()> {
    signed::check(args.down.provider_down, &args.down.key)?;
    let why = || Some(WHY.to_string());
    let because =
        Because { reason: args.because.reason.clone().or_else(why), ..args.because.clone() };
    if args.down.provider_down {
        let (_, prepared) = Desk::open(app, args.at.at.as_deref())?;
        let ask = Ask {
            role: &args.role,
            because: &because,
            down: &args.down,
            audience: args.audience.as_deref(),
            scope: None,
            rules: None,
            drill: true,
        };
        let (grant, ..) = signed::begin(app, &prepared, &ask, Patience::default(), None)?;
        return tell(app, &grant.end(app, WHY)?, &args.at);
    }
    let broker = open(app, &args.at)?;
    let wanted = Wanted {
        audience: args.audience.as_deref(),
        drill: Some(true),
        ..request::wanted(&args.role, &because)?
    };
    let asked = request::request(&broker, &wanted, None)?;
    let is_emergency = asked.path == "emergency";
    match is_emergency {
        // It has begun already.
        true => end(app, &broker, &asked, &args.at),
        false => {
            let waits = (!args.no_wait).then(Patience::default);
            request::follow(app, &broker, asked, &args.at, waits)
        }
    }
}

/// Ends one that has begun, and shows how it went.
pub(super) fn end(app: &App, broker: &Elsewhere, begun: &Elevation, at: &At) -> Result<()> {
    let id = Uuid::try_parse(&begun.id).map_err(|cause| {
        Error::new(ErrorKind::Verification, "the broker gives an elevation no id").because(cause)
    })?;
    let event = Event::default();
    let ended = broker.ask(async |client| {
        match client.settle(id, "relinquish", &event).await {
            Ok(ended) => Ok(ended),
            // Whoever waits for it elsewhere may have been quicker.
            Err(failure) => match client.elevation(id).await {
                Ok(found) if request::is_through(&found) => Ok(found),
                _ => Err(failure),
            },
        }
    })?;
    tell(app, &ended, at)
}

/// Shows what came of one.
pub(super) fn tell(app: &App, ended: &Elevation, at: &At) -> Result<()> {
    show::one(app, ended, at.json)?;
    if !at.json {
        app.ui.line("")?;
        let rows = steps(ended).into_iter().map(|(step, after)| [step, shown::duration(after)]);
        app.ui.table(["STEP", "AFTER"], rows)?;
    }
    // It would not have been had in earnest: then it has not gone well.
    match ended.tried.as_ref().filter(|tried| !tried.issued) {
        Some(tried) => Err(Error::new(ErrorKind::Denied, "no token would have been issued")
            .because_of(printable(&tried.said))
            .hint("whoever runs the broker: a policy has to permit Action::\"issue\" of this role under a grant")),
        None => Ok(()),
    }
}

/// What has happened, and how long after it was asked for.
fn steps(elevation: &Elevation) -> Vec<(String, Duration)> {
    let approvals = elevation.approvals.iter();
    let approvals = approvals.map(|one| (format!("approved by {}", show::short(&one.by)), &one.at));
    let grant = elevation.grant.as_ref();
    let ended = elevation.ended.as_ref();
    let all = approvals
        .chain(elevation.approved_at.as_ref().map(|at| ("enough have approved".into(), at)))
        .chain(grant.map(|grant| ("begun".into(), &grant.from)))
        .chain(ended.map(|ended| (elevation.access.clone(), &ended.at)));
    let Some(asked) = show::moment(&elevation.asked_at) else { return Vec::new() };
    all.filter_map(|(step, at)| Some((step, (show::moment(at)? - asked).max(Duration::ZERO))))
        .collect()
}
