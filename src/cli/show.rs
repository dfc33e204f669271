//! How times and durations look, to people and in reports.

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

pub(crate) use crate::error::printable;

/// Columns under headings, within `width` where there is one. Control characters,
/// which a server may have chosen, do not get through.
pub(crate) fn columns<const N: usize>(
    width: Option<u16>,
    headings: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    if let Some(width) = width {
        table.set_width(width);
    }
    table.set_header(headings.to_vec());
    table.add_rows(rows.into_iter().map(|row| row.map(|cell| printable(&cell)).to_vec()));
    // Rows start where the text above them does.
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// A moment in RFC 3339, in UTC and whole seconds.
pub(crate) fn moment(moment: OffsetDateTime) -> String {
    // Years beyond 9999 have no RFC 3339 form; nothing that expires is there.
    moment.replace_nanosecond(0).unwrap_or(moment).format(&Rfc3339).unwrap_or_default()
}

/// A duration in its two largest units.
pub(crate) fn duration(duration: Duration) -> String {
    let whole = std::time::Duration::from_secs(duration.whole_seconds().unsigned_abs());
    let text = humantime::format_duration(whole).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
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
