//! How times and durations look, to people and in reports.

use std::borrow::Cow;
use std::iter;
use std::ops::Range;

use comfy_table::presets::NOTHING;
use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width};
use textwrap::core::display_width;
use textwrap::{Options, WordSeparator, WordSplitter};
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
    let rows = rows.into_iter().map(|row| row.map(|cell| printable(&cell)).to_vec());
    let rows: Vec<Vec<String>> =
        iter::once(headings.map(String::from).to_vec()).chain(rows).collect();
    let columns: Vec<Column> =
        (0..N).map(|n| Column::of(rows.iter().map(|row| &*row[n]))).collect();
    let least = columns.iter().map(|column| column.least + GAP).sum::<usize>();
    match width.map(usize::from) {
        // Where it cannot be that narrow, rows are of several lines, in which nothing is broken.
        Some(width) if width < least => below_each_other(width, &columns, &rows),
        _ => table(width, &columns, &rows, 0..N),
    }
}

/// What is known of a column before it is laid out.
struct Column {
    /// How wide it is where nothing in it is broken.
    widest: usize,
    /// How narrow it may become.
    least: usize,
    /// Whether something in it is a whole cell that must not be broken.
    is_whole: bool,
}

impl Column {
    fn of<'a>(cells: impl Iterator<Item = &'a str>) -> Self {
        let mut column = Self { widest: 0, least: 0, is_whole: false };
        for cell in cells {
            let width = display_width(cell);
            column.widest = column.widest.max(width);
            column.is_whole |= is_id(cell) || is_moment(cell);
            let moment = cell.split(' ').find(|word| is_moment(word)).map_or(0, str::len);
            column.least = column.least.max(width.min(LEAST)).max(moment);
        }
        if column.is_whole {
            column.least = column.widest;
        }
        column
    }
}

/// Some of the columns, side by side.
fn table(
    width: Option<u16>,
    columns: &[Column],
    rows: &[Vec<String>],
    these: Range<usize>,
) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    for (n, row) in rows.iter().enumerate() {
        let row = row[these.clone()].to_vec();
        match n {
            0 => table.set_header(row),
            _ => table.add_row(row),
        };
    }
    let columns = &columns[these];
    let widths = match width {
        Some(width) => {
            table.set_width(width);
            shared_out(usize::from(width), columns)
        }
        None => columns.iter().map(|column| column.widest).collect(),
    };
    for ((shown, column), width) in table.column_iter_mut().zip(columns).zip(widths) {
        // Rows start where the text above them does.
        shown.set_padding((0, GAP as u16));
        if width < column.widest {
            let width = u16::try_from(width + GAP).unwrap_or(u16::MAX);
            shown.set_constraint(ColumnConstraint::Absolute(Width::Fixed(width)));
        } else {
            shown.set_constraint(ColumnConstraint::ContentWidth);
        }
    }
    table.trim_fmt()
}

/// How wide each column becomes: none is narrower than it may be, and those that could use more
/// share what is left.
fn shared_out(width: usize, columns: &[Column]) -> Vec<usize> {
    let mut widths: Vec<usize> = columns.iter().map(|column| column.least).collect();
    let taken = widths.iter().map(|width| width + GAP).sum::<usize>();
    let mut left = width.saturating_sub(taken);
    loop {
        let wanting =
            columns.iter().zip(&widths).filter(|(column, width)| column.widest > **width).count();
        if wanting == 0 || left == 0 {
            return widths;
        }
        let share = (left / wanting).max(1);
        for (column, width) in columns.iter().zip(&mut widths) {
            let more = share.min(column.widest.saturating_sub(*width)).min(left);
            *width += more;
            left -= more;
        }
    }
}

/// The columns, as many in a line as there is room for: those that follow are below, line by line.
fn below_each_other(width: usize, columns: &[Column], rows: &[Vec<String>]) -> String {
    let (mut parts, mut start, mut taken) = (Vec::new(), 0, 0);
    for (n, column) in columns.iter().enumerate() {
        if n > start && taken + column.widest > width {
            parts.push(start..n);
            (start, taken) = (n, GAP);
        }
        taken += column.widest + GAP;
    }
    parts.push(start..columns.len());
    let parts: Vec<String> =
        parts.into_iter().map(|part| table(None, columns, rows, part)).collect();
    let parts: Vec<Vec<&str>> = parts.iter().map(|part| part.split('\n').collect()).collect();
    let mut lines = Vec::new();
    for n in 0..rows.len() {
        for (below, part) in parts.iter().enumerate() {
            let line = part.get(n).map_or("", |line| line.trim_end());
            match below {
                0 => lines.push(line.to_string()),
                _ if line.is_empty() => {}
                // A text that is longer than a line has several, between words.
                _ => lines.extend(pieces(line, width).map(|piece| format!("{:GAP$}{piece}", ""))),
            }
        }
    }
    lines.join("\n")
}

/// A line that is to be below others, in pieces for which there is room.
fn pieces(line: &str, width: usize) -> impl Iterator<Item = Cow<'_, str>> {
    let room = width.saturating_sub(GAP);
    let options = Options::new(room)
        .word_separator(WordSeparator::AsciiSpace)
        .word_splitter(WordSplitter::NoHyphenation)
        .break_words(false);
    let pieces = match display_width(line) <= room {
        true => vec![Cow::Borrowed(line)],
        false => textwrap::wrap(line, options),
    };
    pieces.into_iter()
}

/// How far columns are apart, and what is below others to the right of them.
const GAP: usize = 2;
/// How narrow a column may become.
const LEAST: usize = 8;

/// Whether it is the id of something, which has letters and digits without a meaning: a UUID, or
/// a hash of 32 bytes, as keys have.
fn is_id(cell: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    Uuid::try_parse(cell).is_ok() || cell.len() == 43 && cell.bytes().all(is_part)
}

/// Whether it is a moment, as [`moment`] writes it.
fn is_moment(cell: &str) -> bool {
    cell.ends_with('Z') && OffsetDateTime::parse(cell, &Rfc3339).is_ok()
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
    fn where_ids_leave_too_little_rows_are_of_several_lines() {
        let id = "J8yE6zmqwgmR0jkMuUVbgcZ0hPIFN5Vn_NeZr-ldr3s";
        let (since, next) = ("2026-11-30T07:51:37Z", "signs from 2026-12-01T07:51:37Z");
        let row = [id, "the log", "Ed25519", "published", since, next].map(String::from);
        let headings = ["KEY", "SIGNS", "ALGORITHM", "STATE", "SINCE", ""];
        for width in [40, 60, 80, 100] {
            let table = columns(Some(width), headings, [row.clone(), row.clone()]);
            for cell in &row {
                assert_eq!(table.matches(cell.as_str()).count(), 2, "{width}\n{table}");
            }
            let longest = table.lines().map(|line| line.chars().count()).max().unwrap();
            assert!(longest <= usize::from(width.max(43)), "{width}\n{table}");
        }
        let table = columns(Some(80), headings, [row.clone()]);
        let expected = "\
KEY                                          SIGNS    ALGORITHM  STATE
  SINCE
J8yE6zmqwgmR0jkMuUVbgcZ0hPIFN5Vn_NeZr-ldr3s  the log  Ed25519    published
  2026-11-30T07:51:37Z  signs from 2026-12-01T07:51:37Z";
        assert_eq!(table, expected);
        // Where there is room, a row is a line.
        assert_eq!(columns(Some(140), headings, [row.clone()]).lines().count(), 2);
        assert_eq!(columns(None, headings, [row]).lines().count(), 2);
    }

    #[test]
    fn a_time_stays_whole_and_the_reason_becomes_narrower() {
        let at = "2026-12-01T03:33:49Z";
        let reason =
            "somebody who holds the token asked for what was issued before 2026-01-01T00:00:00Z";
        let row = ["12", at, "revoked", "alice", "reader", "127.0.0.1", reason].map(String::from);
        let headings = ["RECORD", "AT", "DECISION", "SUBJECT", "ROLE", "FROM", "REASON"];
        for width in [80, 100, 120] {
            let table = columns(Some(width), headings, [row.clone()]);
            for whole in [at, "revoked", "2026-01-01T00:00:00Z"] {
                assert!(table.contains(whole), "{width}\n{table}");
            }
        }
        let table = columns(Some(100), headings, [row.clone()]);
        assert!(table.lines().all(|line| line.chars().count() <= 100), "{table}");
        assert!(table.lines().count() > 2 && table.contains("127.0.0.1"), "{table}");
        // Below the others it is broken between words.
        let table = columns(Some(60), headings, [row]);
        assert!(table.lines().all(|line| line.chars().count() <= 60), "{table}");
        assert!(table.ends_with(" was issued\n  before 2026-01-01T00:00:00Z"), "{table}");
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
