//! How times and durations look, to people and in reports.

use comfy_table::presets::NOTHING;
use comfy_table::{ColumnConstraint, ContentArrangement, Table};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

pub(crate) use crate::error::printable;
use crate::error::roughly;

/// Columns under headings, within `width` where there is one. Control characters,
/// which a server may have chosen, do not get through.
pub(crate) fn columns<const N: usize>(
    width: Option<u16>,
    headings: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(headings.to_vec());
    let rows = rows.into_iter().map(|row| row.map(|cell| printable(&cell)));
    let (mut has_ids, mut taken) = ([false; N], [0; N]);
    for row in rows {
        for ((has, taken), cell) in has_ids.iter_mut().zip(&mut taken).zip(&row) {
            if is_id(cell) {
                (*has, *taken) = (true, (*taken).max(cell.len() + GAP));
            }
        }
        table.add_row(row.to_vec());
    }
    // Where ids leave too little for the rest, lines are as long as they are: a terminal breaks
    // them without breaking what is copied.
    let others = has_ids.iter().filter(|has| !**has).count();
    let least = taken.iter().sum::<usize>() + others * (LEAST + GAP);
    if let Some(width) = width.filter(|width| usize::from(*width) >= least) {
        table.set_width(width);
    }
    for (column, has_ids) in table.column_iter_mut().zip(has_ids) {
        // Rows start where the text above them does.
        column.set_padding((0, GAP as u16));
        // An id is there to be copied: broken in two it is none.
        if has_ids {
            column.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    table.trim_fmt()
}

/// How far columns are apart.
const GAP: usize = 2;
/// How narrow a column may become.
const LEAST: usize = 8;

/// Whether it is the id of something, which has letters and digits without a meaning: a UUID, or
/// a hash of 32 bytes, as keys have.
fn is_id(cell: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    Uuid::try_parse(cell).is_ok() || cell.len() == 43 && cell.bytes().all(is_part)
}

/// A moment in RFC 3339, in UTC and whole seconds.
pub(crate) fn moment(moment: OffsetDateTime) -> String {
    // Years beyond 9999 have no RFC 3339 form; nothing that expires is there.
    moment.replace_nanosecond(0).unwrap_or(moment).format(&Rfc3339).unwrap_or_default()
}

/// A duration in its two largest units.
pub(crate) fn duration(duration: Duration) -> String {
    let whole = std::time::Duration::from_secs(duration.whole_seconds().unsigned_abs());
    roughly(whole)
}

/// A number of things.
pub(crate) fn count(number: usize, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// How long ago something was.
pub(crate) fn ago(since: Duration) -> String {
    if since < Duration::MINUTE { "just now".into() } else { format!("{} ago", duration(since)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_cannot_steer_the_terminal() {
        assert_eq!(printable("ABCD\u{1b}[2J\r-EFGH"), "ABCD\u{fffd}[2J\u{fffd}-EFGH");
        assert!(!columns(None, ["A"], [["\u{1b}[2J".to_string()]]).contains('\u{1b}'));
    }

    #[test]
    fn an_id_stays_whole_however_narrow_it_is() {
        let id = "018f6a0e-0000-7000-8000-000000000000".to_string();
        let row = [id.clone(), "a text that is far too long for what is left".to_string()];
        let table = columns(Some(60), ["ID", "REASON"], [row]);
        assert!(table.contains(&id) && table.lines().count() > 2, "{table}");
        assert!(table.lines().all(|line| line.chars().count() <= 60), "{table}");
    }

    #[test]
    fn where_ids_leave_too_little_nothing_is_broken() {
        let id = "J8yE6zmqwgmR0jkMuUVbgcZ0hPIFN5Vn_NeZr-ldr3s".to_string();
        let row = [id, "the log".into(), "Ed25519".into(), "2026-11-30T07:51:37Z".into()];
        let wide = columns(None, ["KEY", "SIGNS", "ALGORITHM", "SINCE"], [row.clone()]);
        for width in [40, 60, 70] {
            let narrow =
                columns(Some(width), ["KEY", "SIGNS", "ALGORITHM", "SINCE"], [row.clone()]);
            assert_eq!(narrow, wide, "{width}");
        }
    }

    #[test]
    fn one_thing_is_not_many() {
        let counts = [0, 1, 2].map(|number| count(number, "identity", "identities"));
        assert_eq!(counts, ["0 identities", "1 identity", "2 identities"]);
    }

    #[test]
    fn durations_keep_their_two_largest_units() {
        assert_eq!(duration(Duration::seconds(3 * 3600 + 61)), "3h 1m");
        assert_eq!(duration(Duration::seconds(59)), "59s");
        assert_eq!(ago(Duration::seconds(-2)), "just now");
        assert_eq!(ago(Duration::minutes(61)), "1h 1m ago");
    }
}
