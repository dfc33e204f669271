//! How it looks what was done under a grant.

use serde::Serialize;
use uuid::Uuid;

use super::show::{self, moment};
use crate::cli::App;
use crate::cli::elsewhere::Elsewhere;
use crate::cli::show as shown;
use crate::error::Result;
use crate::wire::elevation::Elevation;
use crate::wire::uses::{Use, Uses};

/// An elevation, and what was done under it.
#[derive(Serialize)]
struct Report<'a> {
    #[serde(flatten)]
    elevation: &'a Elevation,
    #[serde(skip_serializing_if = "Option::is_none")]
    uses: Option<&'a Uses>,
}

/// Shows an elevation, with what was done under it where it was had.
pub(super) fn one(app: &App, broker: &Elsewhere, elevation: &Elevation, json: bool) -> Result<()> {
    let uses = of(app, broker, elevation);
    with(app, elevation, uses.as_ref(), json)
}

/// The same, where it is known already what was done.
pub(super) fn with(
    app: &App,
    elevation: &Elevation,
    uses: Option<&Uses>,
    json: bool,
) -> Result<()> {
    if json {
        return app.ui.json(&Report { elevation, uses });
    }
    show::one(app, elevation, false)?;
    uses.map_or(Ok(()), |uses| table(app, uses))
}

/// What was done under it; nothing where it was never had, or where that cannot be told, which
/// is said.
pub(super) fn of(app: &App, broker: &Elsewhere, elevation: &Elevation) -> Option<Uses> {
    asked(broker, elevation).unwrap_or_else(|error| {
        app.host.interact.warn(&format!("what was done under it cannot be told: {error}"));
        None
    })
}

/// The same.
///
/// # Errors
/// Where it was had, and that cannot be told.
pub(super) fn asked(broker: &Elsewhere, elevation: &Elevation) -> Result<Option<Uses>> {
    let id = Uuid::try_parse(&elevation.id).ok().filter(|_| elevation.grant.is_some());
    id.map(|id| broker.ask(async |client| client.uses(id).await)).transpose()
}

/// What was done, what was done last first.
pub(super) fn table(app: &App, uses: &Uses) -> Result<()> {
    app.ui.line("")?;
    if uses.uses.is_empty() {
        app.ui.line("Nothing is known of what was done under it.")?;
    } else {
        app.ui.table(["TIMES", "LAST", "BY", "WHAT", "OUTCOME"], uses.uses.iter().map(row))?;
    }
    if let Some(beyond) = &uses.beyond {
        app.ui.line(format!(
            "(and {} of so many kinds that they are not told apart)",
            shown::count(usize::try_from(beyond.count).unwrap_or(usize::MAX), "thing", "things")
        ))?;
    }
    if uses.more_issued {
        app.ui.line("(more tokens were issued than are counted; the audit log has them)")?;
    }
    if uses.lost > 0 {
        app.ui.line(format!("{} were not written", uses.lost))?;
    }
    Ok(())
}

fn row(one: &Use) -> [String; 5] {
    let last = moment(&one.times.last).map_or(one.times.last.clone(), shown::moment);
    let by = match one.kind.as_str() {
        "outside" => one.source.clone(),
        kind => format!("{kind}: {}", one.source),
    };
    let from = if one.from.is_empty() { String::new() } else { format!(" from {}", one.from) };
    let what = format!("{} {}", one.action, one.resource);
    let outcome = format!("{}{from}", one.outcome);
    [one.times.count.to_string(), last, by, what.trim_end().to_string(), outcome]
}
