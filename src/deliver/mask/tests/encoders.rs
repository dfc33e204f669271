//! Secrets as encoders write them.

use super::*;

#[test]
fn what_is_escaped_is_read_in_every_way() {
    for (secret, forms) in [
        // Its own signs may look like the escapes of something else.
        (
            "100%41abc\\u0041\\n",
            &["100%41abc\\u0041\\n", "100%2541abc%5Cu0041%5cn", "100%41abc\\\\u0041\\\\n"][..],
        ),
        ("p\u{e4}ss\u{1f600}word", &["p\\u00e4ss\\uD83D\\ude00word", "p%C3%a4ss%f0%9F%98%80word"]),
        ("%25252525", &["%25252525", "%2525252525", "%2525%32%35%32%35%32%35"]),
        ("+ + + + +", &["+ + + + +", "%2B+%2B+%2B+%2B+%2B"]),
    ] {
        for form in forms {
            for before in ["", "%", "%2", "\\", "\\u00", "%5", "=\""] {
                let output = text(&[secret], &format!("{before}{form}!"));
                assert_eq!(output, format!("{before}***!"), "{form}");
            }
        }
    }
    for line_break in ["\\n", "\\r\\n", "%0A", "%0d%0a", "\\u000a"] {
        let written = ["-----KEY", "abc", "def", "ghi"].join(line_break);
        assert_eq!(text(&["-----KEY\nabc\ndef\n"], &written), format!("***{line_break}ghi"));
    }
}

/// A secret as AWS makes them.
fn secret_of_aws() -> impl Strategy<Value = String> {
    prop_oneof!["[A-Za-z0-9/+]{40}", "[A-Za-z0-9/+]{300}={0,2}", "[/+]{0,9}[A-Za-z0-9/+]{40}"]
}

/// How an encoder writes it: percent-encoded or for JSON, with what it leaves as it is.
fn encoders() -> impl Strategy<Value = fn(&str, usize, bool) -> String> {
    fn digits(byte: u8, upper: bool) -> String {
        if upper { format!("{byte:02X}") } else { format!("{byte:02x}") }
    }
    fn percent(secret: &str, safe: usize, upper: bool) -> String {
        // Of `quote`, `encodeURI`, `encodeURIComponent`, and of those that leave nothing.
        let safe = ["/", ";,/?:@&=+$#-_.!~*'()", "-_.!~*'()", ""][safe % 4];
        let one = |byte: u8| match byte.is_ascii_alphanumeric() || safe.contains(byte as char) {
            true => char::from(byte).to_string(),
            false => format!("%{}", digits(byte, upper)),
        };
        secret.bytes().map(one).collect()
    }
    fn json(secret: &str, escaped: usize, upper: bool) -> String {
        let escaped = ["+", "=&<>'", "+&<>'\"=", "+/="][escaped % 4];
        let one = |byte: u8| match byte {
            byte if escaped.contains(byte as char) => format!("\\u00{}", digits(byte, upper)),
            b'/' if upper => "\\/".into(),
            byte => char::from(byte).to_string(),
        };
        secret.bytes().map(one).collect()
    }
    fn mixed(secret: &str, seed: usize, upper: bool) -> String {
        let one = |(at, byte): (usize, u8)| match (at * 7 + seed) % 5 {
            0 => format!("%{}", digits(byte, upper)),
            1 => format!("\\u00{}", digits(byte, !upper)),
            _ => char::from(byte).to_string(),
        };
        secret.bytes().enumerate().map(one).collect()
    }
    fn base64(secret: &str, safe: usize, upper: bool) -> String {
        let encoded = STANDARD.encode(secret);
        if safe.is_multiple_of(2) {
            percent(&encoded, safe, upper)
        } else {
            json(&encoded, safe, upper)
        }
    }
    select(vec![percent as fn(&str, usize, bool) -> String, json, mixed, base64])
}

proptest! {
    #[test]
    fn what_encoders_make_of_a_secret_is_replaced(
        secret in secret_of_aws(),
        encoder in encoders(),
        (safe, upper) in any::<(usize, bool)>(),
        before in select(&["", "key=", "\"", "%", "%2", "%3D", "\\", "\\u002", "aA0+/"][..]),
        cuts in proptest::collection::vec(any::<Index>(), 0..9),
        on_screen in any::<bool>(),
    ) {
        let input = format!("{before}{}\"& and so on", encoder(&secret, safe % 1000, upper));
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(input.len() + 1)).collect();
        cuts.extend([0, input.len()]);
        cuts.sort_unstable();
        let new = if on_screen { Mask::of_terminal } else { Mask::new };
        let (mut mask, mut out) = (new(patterns(&[&secret])), Vec::new());
        for cut in cuts.windows(2) {
            mask.feed(&input.as_bytes()[cut[0]..cut[1]], &mut out);
        }
        mask.finish(&mut out);
        // What stands before may be taken for the beginning of an escape.
        let out = String::from_utf8(out).unwrap();
        let left = out.strip_suffix("***\"& and so on");
        prop_assert!(left.is_some_and(|left| before.starts_with(left)), "{out}");
    }
}
