//! Our part of `~/.aws/config`: sections between two comments. What is outside of them
//! is never touched.

use crate::error::{Error, ErrorKind, Result};

/// The comment before our part. It says what else was changed, for [`undo`].
const BEGIN: [(Kind, &str); 3] = [
    (Kind::Appended, "# >>> tmpcred >>>"),
    (Kind::EndedLine, "# >>> tmpcred, behind a line that had no end >>>"),
    (Kind::MadeFile, "# >>> tmpcred, in a file of its own making >>>"),
];
/// The comment behind it.
const END: &str = "# <<< tmpcred <<<";
const ABOUT: &str = "# Written by `tmpcred config install aws`, which replaces it. \
                     `tmpcred config install aws --undo` takes it out.";

/// What was done to the file to put our part there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Appended,
    /// The line before had to be ended.
    EndedLine,
    /// There was no file.
    MadeFile,
}

/// A profile to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name, with us and with AWS's tools.
    pub profile: String,
    /// The region that their commands use.
    pub region: Option<String>,
}

/// What is to become of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum After {
    /// It holds this.
    Text(String),
    /// It is removed: it was made by us, and has nothing else in it.
    Removed,
}

/// Our part, within a file.
struct Block {
    kind: Kind,
    /// Where it begins and ends, in bytes.
    range: std::ops::Range<usize>,
}

/// The file with these profiles in our part of it. `program` is how AWS's tools call us.
///
/// # Errors
/// [`ErrorKind::Config`] where the file has a profile of such a name already, or a part
/// of ours that has no beginning or no end.
pub fn install(before: Option<&str>, entries: &[Entry], program: &str) -> Result<String> {
    let text = before.unwrap_or_default();
    let block = find(text)?;
    let ours = block.as_ref().map_or(0..0, |block| block.range.clone());
    let mut at = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if !ours.contains(&at)
            && let Some(name) = section(line).and_then(profile)
            && entries.iter().any(|entry| entry.profile == name)
        {
            return Err(Error::new(
                ErrorKind::Config,
                format!("the profile {name} is there already"),
            )
            .because_of(format!("line {}: {}", number + 1, line.trim()))
            .hint("take that section out, or rename it; or choose with --profile what to write"));
        }
        at += line.len();
    }
    let kind = match (&block, before) {
        (Some(block), _) => block.kind,
        (None, None) => Kind::MadeFile,
        (None, Some(text)) if text.is_empty() || text.ends_with('\n') => Kind::Appended,
        (None, Some(_)) => Kind::EndedLine,
    };
    let mut after = String::new();
    match &block {
        Some(block) => after.push_str(&text[..block.range.start]),
        None => {
            after.push_str(text);
            after.push_str(if kind == Kind::EndedLine { "\n" } else { "" });
        }
    }
    let begin = BEGIN.iter().find(|(of, _)| *of == kind).map_or(BEGIN[0].1, |(_, line)| line);
    after.push_str(&format!("{begin}\n{ABOUT}\n"));
    for Entry { profile, region } in entries {
        let section = if profile == "default" { String::new() } else { "profile ".to_string() };
        after.push_str(&format!("[{section}{profile}]\n"));
        after.push_str(&format!("credential_process = {program} credential-process {profile}\n"));
        if let Some(region) = region {
            after.push_str(&format!("region = {region}\n"));
        }
    }
    after.push_str(&format!("{END}\n"));
    if let Some(block) = &block {
        after.push_str(&text[block.range.end..]);
    }
    Ok(after)
}

/// The file as it was before; `None` where we have no part in it.
///
/// # Errors
/// [`ErrorKind::Config`] where our part has no beginning or no end.
pub fn undo(text: &str) -> Result<Option<After>> {
    let Some(Block { kind, range }) = find(text)? else { return Ok(None) };
    let (before, behind) = (&text[..range.start], &text[range.end..]);
    Ok(Some(match kind {
        Kind::MadeFile if before.is_empty() && behind.is_empty() => After::Removed,
        // With something behind it the line has to keep its end.
        Kind::EndedLine if behind.is_empty() => {
            After::Text(before.strip_suffix('\n').unwrap_or(before).to_string())
        }
        _ => After::Text(format!("{before}{behind}")),
    }))
}

fn find(text: &str) -> Result<Option<Block>> {
    let odd = |what: &str, number: usize| {
        Error::new(ErrorKind::Config, "tmpcred's part of the file is not as it was written")
            .because_of(format!("line {number}: {what}"))
            .hint("take out what is between the two comments of tmpcred, and them, by hand")
    };
    let mut open: Option<(Kind, usize, usize)> = None;
    let mut found: Option<Block> = None;
    let mut at = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let (number, end) = (number + 1, at + line.len());
        let comment = line.trim_end();
        if let Some((kind, _)) = BEGIN.iter().find(|(_, begin)| *begin == comment) {
            if open.is_some() || found.is_some() {
                return Err(odd("it begins a second time", number));
            }
            open = Some((*kind, at, number));
        } else if comment == END {
            let Some((kind, start, _)) = open.take() else {
                return Err(odd("it ends without a beginning", number));
            };
            found = Some(Block { kind, range: start..end });
        }
        at = end;
    }
    match open {
        Some((_, _, number)) => Err(odd("it begins and does not end", number)),
        None => Ok(found),
    }
}

/// What stands between the brackets, where a line begins a section.
pub(super) fn section(line: &str) -> Option<&str> {
    let inside = line.trim().strip_prefix('[')?;
    Some(inside.split_once(']')?.0.trim())
}

/// The profile that a section of the configuration is about.
pub(super) fn profile(section: &str) -> Option<&str> {
    let name = match section.split_once([' ', '\t']) {
        None if section == "default" => section,
        Some(("profile", name)) => name.trim(),
        _ => return None,
    };
    let quoted = ['"', '\''].iter().find_map(|q| name.strip_prefix(*q)?.strip_suffix(*q));
    Some(quoted.unwrap_or(name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entries(names: &[&str]) -> Vec<Entry> {
        let entry = |name: &&str| Entry { profile: (*name).into(), region: Some("eu-x-1".into()) };
        names.iter().map(entry).collect()
    }

    fn installed(before: Option<&str>, names: &[&str]) -> String {
        install(before, &entries(names), "/bin/tmpcred").unwrap()
    }

    #[test]
    fn it_is_what_the_tools_of_aws_read() {
        let text = installed(Some("[profile a]\nregion = x\n"), &["prod", "default"]);
        let expected = format!(
            "[profile a]\nregion = x\n# >>> tmpcred >>>\n{ABOUT}\n[profile prod]\n\
             credential_process = /bin/tmpcred credential-process prod\nregion = eu-x-1\n[default]\n\
             credential_process = /bin/tmpcred credential-process default\nregion = eu-x-1\n\
             # <<< tmpcred <<<\n"
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn doing_it_again_replaces_it_where_it_is() {
        let once = installed(Some("# mine\n"), &["a", "b"]);
        assert_eq!(installed(Some(&once), &["a", "b"]), once);
        let more = once.clone() + "[profile theirs]\n";
        let other = installed(Some(&more), &["c"]);
        assert!(other.starts_with("# mine\n# >>> tmpcred >>>\n"), "{other}");
        assert!(other.ends_with("# <<< tmpcred <<<\n[profile theirs]\n"), "{other}");
        assert!(!other.contains("[profile a]") && other.contains("[profile c]"), "{other}");
    }

    #[test]
    fn a_profile_of_the_same_name_is_named_with_its_line() {
        for (line, name) in [
            ("[profile prod]", "prod"),
            ("[ profile   \"prod\" ] # old", "prod"),
            ("[profile\tprod]", "prod"),
            ("[default]", "default"),
            ("[profile default]", "default"),
        ] {
            let text = format!("# x\n{line}\nregion = x\n");
            let error = install(Some(&text), &entries(&[name]), "p").unwrap_err();
            assert!(error.message().contains(name), "{line}: {error:?}");
            assert!(error.causes()[0].starts_with("line 2: ["), "{line}: {error:?}");
        }
        for other in ["[prod]", "[sso-session prod]", "[profile production]", "#[profile prod]"] {
            install(Some(&format!("{other}\n")), &entries(&["prod"]), "p").unwrap();
        }
    }

    #[test]
    fn a_part_that_somebody_cut_is_left_alone() {
        let whole = installed(Some("a = 1\n"), &["a"]);
        let end = whole.find(END).unwrap();
        let twice = format!("{whole}{}", &whole["a = 1\n".len()..]);
        for (bad, why) in [
            (&whole[..end], "line 2: it begins and does not end"),
            (&whole[end..], "line 1: it ends without a beginning"),
            (&twice, "it begins a second time"),
        ] {
            for error in
                [install(Some(bad), &entries(&["b"]), "p").unwrap_err(), undo(bad).unwrap_err()]
            {
                assert!(error.causes()[0].contains(why), "{error:?}");
            }
        }
    }

    #[test]
    fn a_file_of_our_making_goes_unless_somebody_wrote_into_it() {
        let made = installed(None, &["a"]);
        assert_eq!(undo(&made).unwrap(), Some(After::Removed));
        assert_eq!(undo(&installed(Some(&made), &["b"])).unwrap(), Some(After::Removed));
        let more = made + "[default]\n";
        assert_eq!(undo(&more).unwrap(), Some(After::Text("[default]\n".into())));
        assert_eq!(undo("[default]\n").unwrap(), None);
        assert_eq!(undo(&installed(Some(""), &["a"])).unwrap(), Some(After::Text("".into())));
    }

    #[test]
    fn a_line_that_had_no_end_has_none_again_unless_something_follows() {
        let text = installed(Some("region = x"), &["a"]);
        assert_eq!(undo(&text).unwrap(), Some(After::Text("region = x".into())));
        let more = text + "[default]\n";
        assert_eq!(undo(&more).unwrap(), Some(After::Text("region = x\n[default]\n".into())));
    }

    proptest! {
        #[test]
        fn undoing_it_restores_every_byte(before in "([\\[\\]a-z =#\r\t]{0,12}\n){0,6}[a-z =]{0,5}") {
            if let Ok(text) = install(Some(&before), &entries(&["q1", "q2"]), "p") {
                let again = install(Some(&text), &entries(&["q3"]), "p").unwrap();
                for text in [text, again] {
                    prop_assert_eq!(undo(&text).unwrap(), Some(After::Text(before.clone())));
                }
            }
        }
    }
}
