mod encoders;
mod work;

use std::collections::BTreeSet;

use aho_corasick::MatchKind;
use aho_corasick::automaton::Automaton as _;
use aho_corasick::nfa::contiguous::NFA;
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::look::forms;
use super::*;

const TOKEN: &str = "eyJhbGciOi/J9.a+b ~c\"d&e*f";

fn patterns(secrets: &[&str]) -> Arc<Patterns> {
    let secrets: Vec<_> = secrets.iter().map(|secret| Secret::new(secret.to_string())).collect();
    Arc::new(Patterns::of(&secrets))
}

/// The same, and every byte is looked at.
fn unhurried(secrets: &[&str]) -> Arc<Patterns> {
    let secrets: Vec<_> = secrets.iter().map(|secret| Secret::new(secret.to_string())).collect();
    let mut look = Look::of(&secrets);
    look.unhurried = true;
    Arc::new(Patterns(Mutex::new(Known { first: secrets.len(), secrets, look: Arc::new(look) })))
}

fn masked(patterns: &Arc<Patterns>, chunks: &[&[u8]]) -> Vec<u8> {
    let (mut mask, mut out) = (Mask::new(Arc::clone(patterns)), Vec::new());
    for chunk in chunks {
        mask.feed(chunk, &mut out);
    }
    mask.finish(&mut out);
    out
}

fn text(secrets: &[&str], input: &str) -> String {
    String::from_utf8(masked(&patterns(secrets), &[input.as_bytes()])).unwrap()
}

#[test]
fn a_secret_is_replaced_wherever_it_is() {
    assert_eq!(text(&["hunter2hunter2"], "a hunter2hunter2, and hunter2."), "a ***, and hunter2.");
    assert_eq!(text(&["hunter2hunter2"], "hunter2hunter2hunter2hunter2"), "******");
    assert_eq!(text(&["abcdefgh", "abcdefghijkl"], "abcdefghijk abcdefghijkl"), "***ijk ***");
    assert_eq!(text(&[], "nothing"), "nothing");
    assert_eq!(text(&[""], "nothing"), "nothing");
}

#[test]
fn encodings_are_replaced() {
    let hex = |upper: bool| -> String {
        let digits = TOKEN.bytes();
        digits.map(|b| if upper { format!("{b:02X}") } else { format!("{b:02x}") }).collect()
    };
    for form in [
        TOKEN.to_string(),
        "eyJhbGciOi%2FJ9.a%2Bb%20~c%22d%26e*f".into(),
        "eyJhbGciOi%2FJ9.a%2Bb%20~c%22d%26e%2Af".into(),
        "eyJhbGciOi%2FJ9.a%2Bb+%7Ec%22d%26e*f".into(),
        "eyJhbGciOi/J9.a+b ~c\\\"d&e*f".into(),
        "eyJhbGciOi\\/J9.a+b ~c\\\"d&e*f".into(),
        // Python's `quote`, `encodeURI`, `encodeURIComponent`, .NET's `UrlEncode`.
        "eyJhbGciOi/J9.a%2Bb%20~c%22d%26e%2Af".into(),
        "eyJhbGciOi/J9.a+b%20~c%22d&e*f".into(),
        "eyJhbGciOi%2FJ9.a%2Bb%20~c%22d%26e*f".into(),
        "eyJhbGciOi%2fJ9.a%2bb+~c%22d%26e*f".into(),
        // JSON of .NET, of Gson, and of Go.
        "eyJhbGciOi/J9.a\\u002Bb ~c\\u0022d\\u0026e*f".into(),
        "eyJhbGciOi/J9.a+b ~c\\\"d\\u0026e*f".into(),
        "eyJhbGciOi\\/J9.a\\u002bb ~c\\u0022d\\u0026e*f".into(),
        hex(false),
        hex(true),
        STANDARD.encode(TOKEN),
        STANDARD_NO_PAD.encode(TOKEN),
        URL_SAFE.encode(TOKEN),
    ] {
        assert_eq!(text(&[TOKEN], &format!("<{form}>")), "<***>", "{form}");
    }
}

#[test]
fn a_secret_in_what_began_like_another_is_found() {
    let secrets = ["xaabzzzzzzzz", "aab"];
    assert_eq!(text(&secrets, "xaab"), "x***");
    assert_eq!(text(&secrets, "xaabzz"), "x***zz");
    let (mut mask, mut out) = (Mask::new(patterns(&secrets)), Vec::new());
    mask.feed(b"xaab", &mut out);
    mask.pause(&mut out);
    assert_eq!(out, b"x");
    mask.feed(b".", &mut out);
    assert_eq!(out, b"x***.");
}

#[test]
fn base64_is_found_whatever_stands_around() {
    for engine in [STANDARD, URL_SAFE] {
        for before in 0..7 {
            for after in 0..7 {
                let plain = format!("{}{TOKEN}{}", &"user:pw"[..before], &"\nhost=x"[..after]);
                let output = text(&[TOKEN], &engine.encode(&plain));
                // What is left are characters that others have a part in.
                let left = output.replace("***", "").replace('=', "");
                assert!(output.contains("***"), "{output}");
                assert!(left.len() <= (before + after) * 4 / 3 + 2, "{plain:?} {output}");
            }
        }
    }
}

#[test]
fn line_breaks_within_do_not_hide_a_secret() {
    let encoded = STANDARD.encode(TOKEN);
    let lines: Vec<_> = encoded.as_bytes().chunks(5).map(String::from_utf8_lossy).collect();
    for line_break in ["\n", "\r\n"] {
        let broken = format!("x\n{}\ny", lines.join(line_break));
        assert_eq!(text(&[TOKEN], &broken), "x\n***\ny");
    }
    assert_eq!(text(&["-----KEY\nabc\ndef\n"], "-----KEY\r\nabc\r\ndef\r\n"), "***\r\n");
    // No tool puts more than a few between two.
    let apart = |by: usize| format!("secr{}etive", "\n".repeat(by));
    assert_eq!(text(&["secretive"], &apart(BETWEEN)), "***");
    assert_eq!(text(&["secretive"], &apart(BETWEEN + 1)), apart(BETWEEN + 1));
}

#[test]
fn what_is_short_is_replaced_as_it_is_only() {
    assert_eq!(
        text(&["pass123"], "pass123 cGFzczEyMw== 70617373313233"),
        "*** cGFzczEyMw== 70617373313233"
    );
}

#[test]
fn only_what_may_be_a_secret_is_held_back() {
    let patterns = patterns(&["abcdefghijkl"]);
    let (mut mask, mut out) = (Mask::new(patterns), Vec::new());
    let mut after = |bytes: &str, pause: bool| {
        mask.feed(bytes.as_bytes(), &mut out);
        if pause {
            assert!(mask.is_waiting());
            mask.pause(&mut out);
            assert!(!mask.is_waiting());
        }
        String::from_utf8(std::mem::take(&mut out)).unwrap()
    };
    assert_eq!(after("Name? ", false), "Name? ");
    assert_eq!(after("grab", false), "gr");
    assert_eq!(after("", true), "ab");
    assert_eq!(after("\nabcdefgh", true), "\nabcd");
    // It was one after all: the rest of it is not shown.
    assert_eq!(after("ijkl.", false), "***.");
    assert_eq!(after("abcdef", true), "abcd");
    assert_eq!(after("x", false), "efx");
}

#[test]
fn a_secret_at_a_prompt_is_replaced_after_a_pause() {
    let (mut mask, mut out) = (Mask::new(patterns(&["abcdefgh", "abcdefghijkl"])), Vec::new());
    let mut after = |bytes: &str, pause: bool| {
        mask.feed(bytes.as_bytes(), &mut out);
        if pause {
            assert!(mask.is_waiting());
            mask.pause(&mut out);
            assert!(!mask.is_waiting());
        }
        String::from_utf8(std::mem::take(&mut out)).unwrap()
    };
    assert_eq!(after("It is abcdefgh", true), "It is ***");
    // Neither is it shown twice, nor does the rest of a longer one show.
    assert_eq!(after("? ", false), "? ");
    assert_eq!(after("abcdefgh", true), "***");
    assert_eq!(after("ij", false), "");
    assert_eq!(after("kl.", false), ".");
    assert_eq!(after("abc", true), "abc");
    assert_eq!(after("defghi", true), "***");
    assert_eq!(after("x", false), "ix");
}

fn on_screen(secrets: &[&str], chunks: &[&[u8]]) -> String {
    let (mut mask, mut out) = (Mask::of_terminal(patterns(secrets)), Vec::new());
    for chunk in chunks {
        mask.feed(chunk, &mut out);
    }
    mask.finish(&mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn what_programs_do_at_the_end_of_a_line_does_not_hide_a_secret() {
    let secrets = ["abcdefghijklmnop", "aab"];
    for (written, shown) in [
        // As it is.
        ("<abcdefghijklmnop>", "<***>"),
        // As `less` does.
        ("<abcde \u{8}fghijklmno \u{8}p>", "<***** \u{8}********** \u{8}*>"),
        // As `vim` does.
        (
            "<abcdefgg\u{1b}[2;1Hhijklmm\u{1b}[3;1Hnop>\u{1b}[1m",
            "<********\u{1b}[2;1H*******\u{1b}[3;1H***>\u{1b}[1m",
        ),
        ("<a\u{1b}[2;1Hbcdefghijklmnop>", "<*\u{1b}[2;1H***************>"),
        ("<aa\u{1b}[2;1Hbcdefghijklmnop>", "<**\u{1b}[2;1H***************>"),
        ("<a \u{8}bcdefghijklmnop>", "<* \u{8}***************>"),
        ("abcdefghijklmnop\u{1b}[1;1H", "***\u{1b}[1;1H"),
        ("abcde f \u{1b}[Kabc\u{1b}M \u{8}", "abcde f \u{1b}[Kabc\u{1b}M \u{8}"),
    ] {
        let bytes = written.as_bytes();
        assert_eq!(on_screen(&secrets, &[bytes]), shown, "{written:?}");
        for at in 0..bytes.len() {
            let (first, second) = bytes.split_at(at);
            assert_eq!(on_screen(&secrets, &[first, second]), shown, "{written:?} at {at}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(on_screen(&secrets, &single), shown, "{written:?}");
    }
}

#[test]
fn a_pause_leaves_the_cursor_where_it_belongs() {
    let (mut mask, mut out) =
        (Mask::of_terminal(patterns(&["abcdefgh", "abcdefghijkl"])), Vec::new());
    let mut after = |bytes: &str| {
        mask.feed(bytes.as_bytes(), &mut out);
        mask.pause(&mut out);
        String::from_utf8(std::mem::take(&mut out)).unwrap()
    };
    assert_eq!(after("la\u{1b}[K\u{1b}[2;1H"), "la\u{1b}[K\u{1b}[2;1H");
    assert_eq!(after("x"), "x");
    assert_eq!(after("abcdefgh\u{1b}[K\u{1b}[2;1H"), "***\u{1b}[K\u{1b}[2;1H");
    assert_eq!(after("x"), "x");
    assert_eq!(after("abcdefgh\u{1b}[K"), "***\u{1b}[K");
    assert_eq!(after("ijkl."), ".");
    assert_eq!(after("aa"), "aa");
    assert_eq!(after("a "), "a ");
}

#[test]
fn no_pause_shows_more_than_a_little() {
    let secret = "abcdefghijkl";
    let (mut mask, mut out) = (Mask::new(patterns(&[secret])), Vec::new());
    for byte in secret.bytes() {
        mask.feed(&[byte], &mut out);
        mask.pause(&mut out);
    }
    mask.finish(&mut out);
    assert_eq!(String::from_utf8(out).unwrap(), "abcd***");
}

/// What the library itself makes of it, in one go and without streaming.
fn oracle(forms: &BTreeSet<Vec<u8>>, input: &[u8]) -> Vec<u8> {
    let search = NFA::builder().match_kind(MatchKind::LeftmostLongest).build(forms).unwrap();
    search.try_replace_all_bytes(input, &vec![INSTEAD; forms.len()]).unwrap()
}

const SECRETS: [&str; 5] = ["aabaabaac", "abaabaacd", "aab", "baacdaab", "zzzzzzzz\u{e4}"];

/// Pieces that are secrets, parts of secrets, encodings, and other things.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let encoded = STANDARD.encode("xaabaabaacxx");
    let piece = prop_oneof![
        select(&SECRETS[..]).prop_map(|secret| secret.as_bytes().to_vec()),
        (select(&SECRETS[..]), any::<Index>())
            .prop_map(|(secret, at)| { secret.as_bytes()[..at.index(secret.len())].to_vec() }),
        Just(encoded.into_bytes()),
        "[abcdz\\n]{0,6}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..8),
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

/// The same among what moves the cursor, and with characters that are escaped.
fn screens() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        pieces(),
        select(
            &[" \u{8}", "\u{1b}[2;1H", "\u{1b}[K", "\u{1b}M", "\u{1b}", "[", "\u{8}", " ", "\r\n"]
                [..]
        )
        .prop_map(|piece| piece.as_bytes().to_vec()),
        select(&["aaba", "aabaac", "aa", "b", "a", "c"][..])
            .prop_map(|piece| piece.as_bytes().to_vec()),
        select(
            &[
                "%61",
                "%6",
                "%",
                "\\",
                "\\u0061",
                "\\u00",
                "\\n",
                "%0a",
                "a%62",
                "%7az%7A",
                "\\u007azz",
                "\\u003c",
                "\\u003ca",
                "%2F",
                "%61b",
                "%61a"
            ][..]
        )
        .prop_map(|piece| piece.as_bytes().to_vec()),
        select(
            &["aab%61\\u0061baac", "zzzzzzzz\\u00E4", "zzz%7azzzz%C3%a4", "z\\nzzzzzzz\\u00e4"][..]
        )
        .prop_map(|piece| piece.as_bytes().to_vec()),
    ];
    proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn chunks_make_no_difference(input in pieces(), cuts in proptest::collection::vec(any::<Index>(), 0..9)) {
        let patterns = patterns(&SECRETS);
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
        cuts.extend([0, input.len()]);
        cuts.sort_unstable();
        let chunks: Vec<&[u8]> = cuts.windows(2).map(|cut| &input[cut[0]..cut[1]]).collect();
        let whole = masked(&patterns, &[&input]);
        prop_assert_eq!(&masked(&patterns, &chunks), &whole);
        let single: Vec<&[u8]> = input.chunks(1).collect();
        prop_assert_eq!(&masked(&patterns, &single), &whole);
    }

    #[test]
    fn it_is_what_the_library_replaces(input in pieces()) {
        let input: Vec<u8> = input.into_iter().filter(|byte| !is_break(*byte)).collect();
        let mut forms_of_all = BTreeSet::new();
        for secret in SECRETS {
            forms(secret.as_bytes(), &mut forms_of_all);
        }
        prop_assert_eq!(masked(&patterns(&SECRETS), &[&input]), oracle(&forms_of_all, &input));
    }

    #[test]
    fn no_secret_is_left_and_pauses_change_nothing_of_that(
        input in pieces(),
        pauses in proptest::collection::vec(any::<bool>(), 200),
    ) {
        let (mut mask, mut out) = (Mask::new(patterns(&SECRETS[..2])), Vec::new());
        for (byte, pause) in input.iter().zip(pauses) {
            mask.feed(&[*byte], &mut out);
            if pause {
                mask.pause(&mut out);
            }
        }
        mask.finish(&mut out);
        let squeezed: Vec<u8> = out.into_iter().filter(|byte| !is_break(*byte)).collect();
        for secret in &SECRETS[..2] {
            let is_left = squeezed.windows(secret.len()).any(|part| part == secret.as_bytes());
            prop_assert!(!is_left, "{}", String::from_utf8_lossy(&squeezed));
        }
    }

    #[test]
    fn chunks_make_no_difference_on_a_screen(
        input in screens(),
        cuts in proptest::collection::vec(any::<Index>(), 0..9),
    ) {
        let through = |chunks: &[&[u8]]| {
            let (mut mask, mut out) = (Mask::of_terminal(patterns(&SECRETS)), Vec::new());
            chunks.iter().for_each(|chunk| mask.feed(chunk, &mut out));
            mask.finish(&mut out);
            out
        };
        let whole = through(&[&input]);
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
        cuts.extend([0, input.len()]);
        cuts.sort_unstable();
        let chunks: Vec<&[u8]> = cuts.windows(2).map(|cut| &input[cut[0]..cut[1]]).collect();
        prop_assert_eq!(&through(&chunks), &whole);
        let single: Vec<&[u8]> = input.chunks(1).collect();
        prop_assert_eq!(&through(&single), &whole);
    }

    #[test]
    fn passing_over_what_is_no_beginning_changes_nothing(
        input in screens(),
        cuts in proptest::collection::vec(any::<Index>(), 0..9),
        pauses in proptest::collection::vec(any::<bool>(), 10),
        on_screen in any::<bool>(),
    ) {
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
        cuts.extend([0, input.len()]);
        cuts.sort_unstable();
        let through = |patterns: Arc<Patterns>| {
            let new = if on_screen { Mask::of_terminal } else { Mask::new };
            let (mut mask, mut out) = (new(patterns), Vec::new());
            for (cut, pause) in cuts.windows(2).zip(&pauses) {
                mask.feed(&input[cut[0]..cut[1]], &mut out);
                if *pause {
                    mask.pause(&mut out);
                }
            }
            mask.finish(&mut out);
            out
        };
        prop_assert_eq!(through(patterns(&SECRETS)), through(unhurried(&SECRETS)));
    }

    #[test]
    fn other_bytes_are_unharmed_on_a_screen(
        input in proptest::collection::vec(any::<u8>(), 0..5000),
        pauses in any::<bool>(),
    ) {
        let patterns = patterns(&["a-secret-that-is-long-enough-not-to-turn-up"]);
        let (mut mask, mut out) = (Mask::of_terminal(patterns), Vec::new());
        for chunk in input.chunks(7) {
            mask.feed(chunk, &mut out);
            if pauses {
                mask.pause(&mut out);
            }
        }
        mask.finish(&mut out);
        prop_assert_eq!(&out, &input);
    }

    #[test]
    fn other_bytes_are_unharmed(input in proptest::collection::vec(any::<u8>(), 0..5000)) {
        let patterns = patterns(&["a-secret-that-is-long-enough-not-to-turn-up"]);
        let chunks: Vec<&[u8]> = input.chunks(7).collect();
        prop_assert_eq!(&masked(&patterns, &chunks), &input);
    }
}

#[test]
fn what_is_added_is_found_in_what_was_held_back() {
    let patterns = patterns(&["first-secret"]);
    let mut mask = Mask::new(Arc::clone(&patterns));
    let mut out = Vec::new();
    mask.feed(b"a fir", &mut out);
    assert_eq!(out, b"a ");
    patterns.add([&Secret::new("first-and-second".to_string())]);
    mask.feed(b"st-and-second first-secret ", &mut out);
    mask.finish(&mut out);
    assert_eq!(out, b"a *** *** ");
    // A little was passed on, and the rest is a secret after all.
    let mut out = Vec::new();
    mask.feed(b"firs", &mut out);
    mask.pause(&mut out);
    patterns.add([&Secret::new("another".to_string())]);
    mask.feed(b"t-secret another", &mut out);
    mask.finish(&mut out);
    assert_eq!(out, b"firs*** ***");
    for number in 0..100 {
        patterns.add([&Secret::new(format!("number-{number}-"))]);
    }
    let mut out = Vec::new();
    mask.feed(b"first-secret number-1- number-99-", &mut out);
    mask.finish(&mut out);
    assert_eq!(out, b"*** number-1- ***", "those from the beginning and the last ones");
}
