//! Whatever is in a file, loading ends with an answer.

use proptest::prelude::*;

use super::World;
use crate::config::{EXAMPLE, load, parse, read_str};
use crate::plan::{Request, identity, plan};

/// Text that looks enough like a configuration to get past the parser.
fn likely() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "identity",
        "broker",
        "profile",
        "cache",
        "default_profile",
        "type",
        "oidc",
        "issuer",
        "client_id",
        "url",
        "role",
        "scope",
        "audience",
        "ttl",
        "env",
        "extends",
        "exchange",
        "target",
        "ca_file",
        "deploy",
        "corp",
        "main",
        "store",
        "a",
        "''",
        "\"\\u001b\"",
        "é",
    ]);
    let mark = prop::sample::select(vec![
        " = ",
        ".",
        "[",
        "]",
        "[[",
        "]]",
        "{",
        "}",
        ",",
        "\n",
        "\r\n",
        "\"",
        "'",
        "'''",
        "#",
        "-",
        "\"https://a.example\"",
        "\"15m\"",
        "\"deploy\"",
        "\"{token}\"",
        "true",
        "5",
        "1.5",
        "1979-05-27",
        "\u{0}",
        "\t",
    ]);
    prop::collection::vec(prop_oneof![word, mark], 0..60).prop_map(|parts| parts.concat())
}

/// Reads, and does what every command would do with the result.
fn use_it(text: &str) {
    let _ = read_str::<toml::Table>("f", text);
    if let Ok(config) = parse("f", text) {
        let names = config.profiles.keys().cloned().map(Some).chain([None]);
        for profile in names {
            let _ = plan(&Request { profile, ..Request::default() }, &config);
        }
        let _ = identity(&config, None);
    }
}

proptest! {
    #[test]
    fn any_bytes_end_with_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let world = World::new();
        world.write("config.toml", &bytes);
        world.write("checkout/.tmpcred.toml", &bytes);
        if let Err(error) = load(&world.host) {
            prop_assert!(!error.message().contains('\n'));
        }
    }

    #[test]
    fn likely_text_ends_with_an_answer(text in likely()) {
        use_it(&text);
    }

    #[test]
    fn a_damaged_configuration_ends_with_an_answer(
        at in 0..EXAMPLE.len(),
        length in 0..40usize,
        put in likely(),
    ) {
        prop_assume!(EXAMPLE.is_char_boundary(at));
        let end = (at..=(at + length).min(EXAMPLE.len())).rev().find(|end| EXAMPLE.is_char_boundary(*end));
        let text = format!("{}{put}{}", &EXAMPLE[..at], &EXAMPLE[end.unwrap_or(at)..]);
        use_it(&text);
    }
}
