//! How much work it is, counted and not timed.

use super::*;

/// How often a byte was read, for each byte of these chunks.
fn steps(secret: &str, chunks: impl Iterator<Item = Vec<u8>>, on_screen: bool) -> (usize, usize) {
    let new = if on_screen { Mask::of_terminal } else { Mask::new };
    let (mut mask, mut out, mut all) = (new(patterns(&[secret])), Vec::new(), 0);
    for chunk in chunks {
        all += chunk.len();
        mask.feed(&chunk, &mut out);
        out.clear();
    }
    mask.finish(&mut out);
    (mask.steps, all)
}

#[test]
fn ten_megabytes_that_go_on_beginning_like_a_secret_are_bounded_work() {
    let secret = "aaaaaaab";
    let longest = Look::of(&[Secret::new(secret.to_string())]).longest();
    let piece = b"aaaaaaax".repeat(4096);
    let (steps, all) = steps(secret, (0..320).map(|_| piece.clone()), false);
    assert!(all > 10_000_000);
    assert!(steps <= all * longest, "{steps} for {all}");
}

#[test]
fn whatever_begins_like_a_secret_is_read_no_more_often_than_the_longest_form_allows() {
    let secret = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab";
    let longest = Look::of(&[Secret::new(secret.to_string())]).longest();
    for (piece, often) in [
        ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaax".to_string(), 1),
        ("a".to_string(), 1),
        ("%61".to_string(), 3),
        ("\\u0061".to_string(), 6),
        // Nothing of these repeats counts.
        (format!("aaaaaaaa{}x", "\n".repeat(30_000)), 1),
        (format!("aaaaaaaa{}x", "\u{8}".repeat(30_000)), 1),
    ] {
        for on_screen in [false, true] {
            let piece = piece.repeat((60_000 / piece.len()).max(1)).into_bytes();
            for size in [piece.len(), 100] {
                let chunks = piece.chunks(size).map(<[u8]>::to_vec);
                let (steps, all) = steps(secret, chunks, on_screen);
                assert!(steps <= all * longest * often, "{steps} for {all}");
            }
        }
    }
}

#[test]
fn what_is_escaped_is_passed_over_where_no_secret_begins_so() {
    let secret = "/home/of/a/secret";
    let line = r#"{"html":"\u003cp class=\u0027x\u0027\u003e\u00e4 at%2Flog%2Ftmp%3Fx"}"#;
    for on_screen in [false, true] {
        let piece = format!("{line}\n").repeat(1000).into_bytes();
        let (steps, _) = steps(secret, std::iter::once(piece), on_screen);
        assert!(steps < 1000, "{steps} for a thousand lines");
    }
}

#[test]
fn what_does_not_count_is_not_held_back_without_end() {
    for between in ["\n", "\r\n", "\\n", "\u{8}", " \u{8}", "\u{1b}[1;1H"] {
        let (mut mask, mut out) = (Mask::of_terminal(patterns(&["secretive"])), Vec::new());
        mask.feed(b"se", &mut out);
        mask.feed(between.repeat(100_000 / between.len()).as_bytes(), &mut out);
        let held = mask.seen.len();
        assert!(held <= BETWEEN + 3, "{held} bytes of {between:?} are held back");
        // A little of that is searched for what it may be at each pause.
        let before = mask.steps;
        mask.pause(&mut out);
        mask.feed(b"x", &mut out);
        assert!(mask.steps - before <= 2 * (BETWEEN + 3), "{between:?}");
    }
}
