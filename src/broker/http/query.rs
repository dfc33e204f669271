//! What stands in a query, where it cannot be taken.

use axum::extract::RawQuery;
use axum::extract::rejection::QueryRejection;

use super::form::cut;
use super::refusal::Refusal;

/// How its reader begins.
const READER: &str = "Failed to deserialize query string: ";

/// The refusal of a query that cannot be read, of an endpoint that takes these. It says what is
/// wrong with it, as far as its reader does.
pub(super) fn misread(rejected: &QueryRejection, known: &[&str]) -> Refusal {
    let why = rejected.body_text();
    let why = why.strip_prefix(READER).unwrap_or(&why);
    let named =
        |before: &str| Some(why.split_once(before)?.1.split('`').next().unwrap_or_default());
    Refusal::invalid_request(if let Some(name) = named("unknown field `") {
        // It quotes what stands there, which is cut.
        format!("the query has an unknown field `{}`; it may have {}", cut(name), known.join(", "))
    } else if let Some(name) = named("missing field `") {
        format!("the query lacks '{}'; it may have {}", cut(name), known.join(", "))
    } else {
        format!("the query has something twice, or what is no value of it: {}", cut(why))
    })
}

/// Refuses a query where nothing is taken: whoever sends one would have less than they asked for,
/// or more.
pub(super) fn none(RawQuery(query): &RawQuery) -> Result<(), Refusal> {
    match query.as_deref().unwrap_or_default() {
        "" => Ok(()),
        _ => Err(Refusal::invalid_request("nothing can be said in the query here")),
    }
}
