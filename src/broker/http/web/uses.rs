//! What was done under a grant, as whoever reviews it sees it.

use maud::{Markup, html};

use super::frame::{moment, quoted};
use crate::broker::elevation::uses::{Kind, Known, Row};

/// The section of a page about it; nothing is known where that cannot be told at present.
pub(super) fn section(known: Option<&Known>) -> Markup {
    html! {
        section aria-labelledby="uses" {
            h2 id="uses" { "What was done under it" }
            @match known {
                None => p.notice role="status" { "It cannot be told at present." },
                Some(known) if known.sum.rows.is_empty() => p.soft { "Nothing is known of what was done under it." },
                Some(known) => { (table(&known.sum.rows)) (besides(known)) },
            }
        }
    }
}

fn table(rows: &[Row]) -> Markup {
    html! {
        table.stack role="table" {
            caption.hidden { "What was done, what was done last first" }
            thead role="rowgroup" { tr role="row" {
                @for heading in ["What", "Times", "Last", "Outcome", "By"] {
                    th scope="col" role="columnheader" { (heading) }
                }
            } }
            tbody role="rowgroup" {
                @for Row { what, times } in rows {
                    tr role="row" {
                        th scope="row" role="rowheader" { (quoted(&what.action)) " " (quoted(&what.resource)) }
                        td role="cell" data-label="Times" { div { (times.count) } }
                        td role="cell" data-label="Last" { div { (moment(times.last)) } }
                        td role="cell" data-label="Outcome" { div {
                            (quoted(&what.outcome))
                            @if !what.from.is_empty() { ", from " code { (quoted(&what.from)) } }
                        } }
                        td role="cell" data-label="By" { div {
                            @if what.kind != Kind::Outside { (what.kind.as_str()) ": " }
                            (quoted(&what.source))
                        } }
                    }
                }
            }
        }
    }
}

/// What the table does not have.
fn besides(known: &Known) -> Markup {
    html! {
        @if let Some(beyond) = &known.sum.beyond {
            p.soft { "And " (beyond.count) " things more, of so many kinds that they are not told apart." }
        }
        @if known.more_issued {
            p.soft { "More tokens were issued than are counted; the audit log has them." }
        }
        @if known.sum.lost > 0 { p.soft { (known.sum.lost) " were not written." } }
    }
}
