//! Invariants over the whole list of formats, and what real readers make of them.

mod github_file;

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::tests::bearer;
use super::*;

fn variable(name: &str, value: &str) -> Variable {
    Variable { name: name.into(), value: Secret::new(value.into()) }
}

/// Variables `V0`, `V1`, … with these values.
fn changes<S: AsRef<str>>(values: &[S]) -> Changes {
    let set = values.iter().enumerate().map(|(n, v)| variable(&format!("V{n}"), v.as_ref()));
    Changes { unset: vec!["STALE".into()], set: set.collect() }
}

fn format(name: &str) -> Format {
    Format::named(name).unwrap()
}

fn written(name: &str, changes: &Changes) -> Result<String> {
    format(name).write(changes).map(|text| text.expose().clone())
}

/// Values that have broken somebody's quoting.
const HOSTILE: &[&str] = &[
    "plain",
    "",
    " ",
    "  leading and trailing  ",
    "two  spaces",
    "a'b",
    "'",
    "''",
    "it's '\"quoted\"'",
    "\"",
    "a\"b",
    "$HOME ${HOME} $(id) `id`",
    "$1$$",
    "%PATH%",
    "100%",
    "!!",
    "!PATH!",
    "\\",
    "\\\\",
    "trailing\\",
    "a\\nb",
    "\\'",
    "a^b&c|d<e>f(g)",
    "\"^&",
    "#comment",
    "a #b",
    "a=b==",
    "~/x",
    "*?[a]",
    "{a,b}",
    ";exit 3",
    "-n",
    "é漢字🔑",
    "’smart‘ “quotes”",
    "\u{feff}bom",
    "a\u{a0}b",
    r#"{"token":"abc"}"#,
    "eyJhbGciOi.J9-_x/+=",
];

/// Values that are more than one line, or have other control characters.
const CONTROLS: &[&str] =
    &["a\nb", "a\n", "\n", "a\r\nb", "tab\there", "\u{1b}[2Jx", "\u{7f}", "\u{1}\u{2}", "\u{85}"];

mod invariants {
    use super::*;

    #[test]
    fn names_are_unique_and_found_and_described() {
        for format in Format::all() {
            assert_eq!(Format::all().filter(|other| *other == format).count(), 1, "{format:?}");
            assert_eq!(Format::named(format.name()), Some(format));
            assert!(format.name().chars().all(|c| c.is_ascii_lowercase()));
            assert!(!format.about().is_empty() && !format.about().contains('\n'));
        }
        assert_eq!(Format::named("SH"), None);
    }

    #[test]
    fn each_has_every_variable_and_ends_its_last_line() {
        let changes = changes(&["canary-0", "canary-1"]);
        for format in Format::all() {
            let text = format.write(&changes).unwrap();
            let text = text.expose();
            assert!(text.ends_with('\n'), "{format:?}");
            assert!(text.find("canary-0") < text.find("canary-1"), "{format:?}");
        }
    }

    #[test]
    fn a_handout_goes_through_each() {
        let (credential, mapped, environment) = (
            bearer("canary"),
            BTreeMap::from([("MINE".to_string(), "Bearer {token}".to_string())]),
            Env::default(),
        );
        let handout = Handout {
            credential: &credential,
            profile: "p",
            env: &mapped,
            environment: &environment,
            outlet: None,
        };
        for format in Format::all() {
            let text = format.render(&handout).unwrap();
            for part in ["TMPCRED_ACTIVE_PROFILE", "2026-01-01T12:15:00Z", "MINE", "Bearer canary"]
            {
                assert!(text.expose().contains(part), "{format:?} lacks {part}");
            }
        }
    }

    #[test]
    fn what_is_refused_is_named_and_not_shown() {
        for format in Format::all() {
            for value in HOSTILE.iter().chain(CONTROLS) {
                let value = format!("canary{value}canary");
                if let Err(error) = format.write(&changes(&[&value])) {
                    assert_eq!(error.kind(), ErrorKind::Usage);
                    assert!(error.message().contains("V0"), "{error:?}");
                    assert!(!error.causes().is_empty() && !error.hints().is_empty());
                    assert!(!format!("{error:?}").contains("canary"), "{error:?}");
                }
            }
        }
    }

    #[test]
    fn one_line_per_variable_where_lines_count() {
        for name in ["cmd", "dotenv"] {
            for value in CONTROLS {
                let error = written(name, &changes(&[value])).unwrap_err();
                assert!(error.causes()[0].contains("control character"), "{name} {value:?}");
            }
        }
    }

    #[test]
    fn names_that_are_code_to_a_shell_are_refused() {
        for bad in ["a-b", "1A", "A B", "A;id", "$(id)", "é", "npm_config_//host/:_authToken"] {
            let changes = Changes { unset: vec![], set: vec![variable(bad, "x")] };
            for format in Format::all() {
                let done = format.write(&changes);
                assert_eq!(done.is_ok(), format.name() == "json", "{format:?} {bad}");
            }
        }
    }
}

mod shell_of_the_person {
    use super::*;

    fn found(shell: &str) -> Result<Format> {
        Format::from_shell(&Env::from_pairs([("SHELL", shell)]))
    }

    #[test]
    fn it_is_told_by_its_file_name() {
        for (shell, name) in [
            ("/bin/bash", "sh"),
            ("/usr/bin/zsh", "sh"),
            ("dash", "sh"),
            ("/opt/homebrew/bin/fish", "fish"),
            ("/usr/bin/pwsh", "powershell"),
            (r"C:\Program Files\Git\usr\bin\bash.exe", "sh"),
        ] {
            assert_eq!(found(shell).unwrap().name(), name, "{shell}");
        }
    }

    #[test]
    fn an_unknown_one_is_an_error_that_names_the_choices() {
        let error = found("/bin/tcsh").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.message().contains("tcsh"));
        assert!(error.hints()[0].contains("sh, fish, powershell"), "{error:?}");
    }

    #[cfg(unix)]
    #[test]
    fn without_one_it_is_sh() {
        assert_eq!(Format::from_shell(&Env::default()).unwrap().name(), "sh");
    }
}

/// Real programs read what was written and tell what they understood.
#[cfg(unix)]
mod readers {
    use std::io::Write;
    use std::process::Stdio;

    use super::*;
    use crate::host::process::command;

    /// Feeds `text` to a program and yields what it prints.
    fn fed(program: &str, arguments: &[&str], text: &str) -> String {
        let home = tempfile::tempdir().unwrap();
        let mut child = command(program)
            .args(arguments)
            .env_clear()
            .env("PATH", Env::of_process().get("PATH").unwrap())
            .env("HOME", home.path())
            .env("STALE", "old")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|cause| panic!("this test needs {program}: {cause}"));
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && errors.is_empty(), "{program}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn environment(program: &str, arguments: &[&str], text: &str) -> BTreeMap<String, String> {
        let shown = fed(program, arguments, text);
        shown
            .split_terminator('\0')
            .map(|entry| entry.split_once('=').unwrap())
            .map(|(name, value)| (name.to_string(), value.to_string()))
            .collect()
    }

    fn check(shell: &str, seen: &BTreeMap<String, String>, values: &[impl AsRef<str>]) {
        for (n, value) in values.iter().enumerate() {
            assert_eq!(seen.get(&format!("V{n}")).unwrap(), value.as_ref(), "{shell}");
        }
        assert_eq!(seen.get("STALE"), None, "{shell}");
    }

    const SHELLS: &[(&str, &[&str])] = &[
        ("sh", &[]),
        ("dash", &[]),
        ("bash", &["--norc", "--noprofile"]),
        ("bash", &["--posix"]),
        ("zsh", &["-f"]),
        ("zsh", &["-f", "-o", "rcquotes"]),
    ];

    #[test]
    fn posix_shells_get_every_value_as_it_is() {
        let values = [HOSTILE, CONTROLS].concat();
        let text = written("sh", &changes(&values)).unwrap();
        for (shell, options) in SHELLS {
            let script = "eval \"$(cat; echo :)\"; exec env -0";
            let seen = environment(shell, &[options, &["-c", script][..]].concat(), &text);
            check(shell, &seen, &values);
        }
    }

    /// `eval $(tmpcred env PROFILE)` is wrong but common.
    #[test]
    fn posix_shells_forgive_missing_quotes_where_no_value_has_spaces() {
        let values = ["abc", "eyJhbGciOi.J9-_x/+=", "p'q"];
        let text = written("sh", &changes(&values)).unwrap();
        for (shell, options) in SHELLS.iter().filter(|(shell, _)| *shell != "zsh") {
            let script = "eval $(cat); exec env -0";
            let seen = environment(shell, &[options, &["-c", script][..]].concat(), &text);
            check(shell, &seen, &values);
        }
    }

    #[test]
    fn fish_gets_every_value_as_it_is() {
        let values = [HOSTILE, CONTROLS].concat();
        let text = written("fish", &changes(&values)).unwrap();
        let seen = environment("fish", &["--no-config", "-c", "source; env -0"], &text);
        check("fish", &seen, &values);
    }

    fn node(text: &str) -> BTreeMap<String, String> {
        let script = "const t = require('fs').readFileSync(0, 'utf8'); \
                      console.log(JSON.stringify(require('util').parseEnv(t)))";
        let seen = fed("node", &["--no-warnings", "-e", script], text);
        serde_json::from_str(&seen).unwrap()
    }

    #[test]
    fn node_reads_from_dotenv_what_was_not_refused() {
        let accepted: Vec<_> =
            HOSTILE.iter().filter(|value| written("dotenv", &changes(&[value])).is_ok()).collect();
        assert!(accepted.len() > 20, "{accepted:?}");
        let seen = node(&written("dotenv", &changes(&accepted)).unwrap());
        for (n, value) in accepted.iter().enumerate() {
            assert_eq!(seen.get(&format!("V{n}")).unwrap(), **value);
        }
    }

    fn value() -> impl Strategy<Value = String> {
        let special =
            prop::sample::select("'\"\\$`%!^&|;#~*?{}()[]<>= \t\n\r".chars().collect::<Vec<_>>());
        let character =
            prop_oneof![4 => special, 2 => prop::char::range('a', 'z'), 1 => any::<char>()];
        prop::collection::vec(character, 0..24)
            .prop_map(|characters| characters.into_iter().filter(|c| *c != '\0').collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

        #[test]
        fn any_value_goes_through_sh(values in prop::collection::vec(value(), 8)) {
            let text = written("sh", &changes(&values)).unwrap();
            let seen = environment("sh", &["-c", "eval \"$(cat)\"; exec env -0"], &text);
            check("sh", &seen, &values);
        }

        #[test]
        fn any_value_goes_through_fish(values in prop::collection::vec(value(), 8)) {
            let text = written("fish", &changes(&values)).unwrap();
            let seen = environment("fish", &["--no-config", "-c", "source; env -0"], &text);
            check("fish", &seen, &values);
        }

        #[test]
        fn any_value_goes_through_dotenv_or_is_refused(values in prop::collection::vec(value(), 16)) {
            let values: Vec<_> = values
                .into_iter()
                .filter(|value| written("dotenv", &changes(&[value])).is_ok())
                .collect();
            let seen = node(&written("dotenv", &changes(&values)).unwrap());
            for (n, value) in values.iter().enumerate() {
                assert_eq!(seen.get(&format!("V{n}")).unwrap(), value);
            }
        }
    }
}

/// Readers that cannot run here, by their documented rules.
mod documented {
    use super::*;

    /// What PowerShell makes of one `$env:NAME = …` line: terms joined by `+`,
    /// each a single-quoted string or a `[char]` cast (about_Quoting_Rules,
    /// about_Environment_Variables).
    fn powershell(line: &str) -> (&str, Option<String>) {
        let (name, expression) = line.strip_prefix("$env:").unwrap().split_once(" = ").unwrap();
        if expression == "$null" {
            return (name, None);
        }
        let mut units: Vec<u16> = Vec::new();
        let mut rest = expression;
        loop {
            if let Some(number) = rest.strip_prefix("[char]") {
                let end = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
                units.push(number[..end].parse().unwrap());
                rest = &number[end..];
            } else {
                rest = rest.strip_prefix('\'').unwrap();
                loop {
                    let end = rest.find('\'').unwrap();
                    units.extend(rest[..end].encode_utf16());
                    rest = &rest[end + 1..];
                    let Some(after) = rest.strip_prefix('\'') else { break };
                    units.push(u16::from(b'\''));
                    rest = after;
                }
            }
            if rest.is_empty() {
                return (name, Some(String::from_utf16(&units).unwrap()));
            }
            rest = rest.strip_prefix(" + ").unwrap();
        }
    }

    #[test]
    fn powershell_gets_every_value_line_by_line_in_ascii() {
        let values = [HOSTILE, CONTROLS].concat();
        let text = written("powershell", &changes(&values)).unwrap();
        assert!(text.bytes().all(|b| b == b'\n' || (b' '..=b'~').contains(&b)));
        let mut lines = text.lines();
        assert_eq!(powershell(lines.next().unwrap()), ("STALE", None));
        for (n, value) in values.iter().enumerate() {
            let (name, seen) = powershell(lines.next().unwrap());
            assert_eq!((name, seen.as_deref()), (format!("V{n}").as_str(), Some(*value)));
        }
        assert_eq!(lines.next(), None);
    }

    /// What cmd.exe makes of one `set "NAME=value"` line, whether read from a
    /// batch file or run by `for /f`: nothing may be special in either.
    fn cmd(line: &str) -> (&str, &str) {
        let mut quoted = false;
        for c in line.chars() {
            match c {
                '"' => quoted = !quoted,
                '&' | '|' | '<' | '>' | '^' => assert!(quoted, "{c} is special in {line}"),
                _ => assert_ne!(c, '%'),
            }
        }
        let argument = line.strip_prefix("set \"").unwrap();
        argument[..argument.rfind('"').unwrap()].split_once('=').unwrap()
    }

    #[test]
    fn cmd_gets_the_value_or_it_is_refused() {
        let mut refused = Vec::new();
        for value in HOSTILE {
            match written("cmd", &changes(&[value])) {
                Ok(text) => {
                    let lines: Vec<_> = text.strip_suffix("\r\n").unwrap().split("\r\n").collect();
                    assert_eq!(lines[0], "set \"STALE=\"");
                    assert_eq!(cmd(lines[1]), ("V0", *value));
                    assert_eq!(lines.len(), 2);
                }
                Err(_) => refused.push(*value),
            }
        }
        assert_eq!(refused, ["%PATH%", "100%", "\"^&"]);
    }

    #[test]
    fn cmd_refuses_what_its_command_line_cannot_hold() {
        // `set "V0="` takes nine of the 8,191 characters.
        assert!(written("cmd", &changes(&["x".repeat(8182)])).is_ok());
        assert!(written("cmd", &changes(&["x".repeat(8183)])).is_err());
    }

    #[test]
    fn dotenv_refuses_what_readers_disagree_about() {
        let refused: Vec<_> =
            HOSTILE.iter().filter(|value| written("dotenv", &changes(&[value])).is_err()).collect();
        let expected =
            ["it's '\"quoted\"'", "$HOME ${HOME} $(id) `id`", "\\", "\\\\", "trailing\\", "\\'"];
        assert_eq!(refused, expected.iter().collect::<Vec<_>>());
        let text = written("dotenv", &changes(&["eyJ.a-b_c/+=", "a b", "it's"])).unwrap();
        assert_eq!(text, "V0=eyJ.a-b_c/+=\nV1='a b'\nV2=\"it's\"\n");
    }

    #[test]
    fn json_is_one_object_in_order() {
        let values = [HOSTILE, CONTROLS].concat();
        let text = written("json", &changes(&values)).unwrap();
        let seen: BTreeMap<String, String> = serde_json::from_str(&text).unwrap();
        assert_eq!(seen.len(), values.len());
        for (n, value) in values.iter().enumerate() {
            assert_eq!(seen.get(&format!("V{n}")).unwrap(), value);
        }
        assert!(text.find("\"V1\"") < text.find("\"V10\""));
    }
}
