//! A directory of which something is wrong, as far as it can be read. It says what people do not
//! have any more, and is good for nothing else.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::{Directory, Id, MAX_FILE, Person, Settings};
use crate::broker::trusted_file;
use crate::error::{Error, ErrorKind, Result};

/// The file, whatever is in its entries. One without people says nothing of who has left.
#[derive(Deserialize)]
struct Rough {
    #[serde(default)]
    group: BTreeMap<String, Value>,
    person: BTreeMap<String, Value>,
}

impl Directory {
    /// What can be read of the people of a directory that cannot be used. Whoever is not named in
    /// it has left. Whoever is has no more than their own entry says: what of that cannot be read
    /// is as it was in the one that is `known`, so that nobody is rid of a group that forbids
    /// something, either.
    ///
    /// # Errors
    /// Where the file cannot be read, is no table at all, or names no people.
    pub fn roughly(settings: &Settings, known: &Self) -> Result<Self> {
        let rough = read(&settings.file)?;
        // As an export that was cut off writes it.
        if rough.person.is_empty() {
            return Err(Error::new(ErrorKind::Config, "it names no people"));
        }
        Ok(Self::of_rough(rough, known))
    }

    fn of_rough(rough: Rough, known: &Self) -> Self {
        let person = |(name, entry): (String, Value)| {
            let before = known.people.get(&name);
            let ids = ids_of(&entry).or_else(|| before.map(|person| person.ids.clone()));
            let groups = groups_of(&entry, &rough.group)
                .or_else(|| before.map(|person| person.groups.clone()));
            let person = Person {
                name: String::new(),
                ids: ids.unwrap_or_default(),
                groups: groups.unwrap_or_default(),
                contacts: BTreeMap::default(),
            };
            (name, person)
        };
        Self {
            people: rough.person.into_iter().map(person).collect(),
            // Nobody is looked up in it.
            groups: BTreeMap::default(),
            by_id: HashMap::default(),
            issuers: BTreeSet::default(),
            said: BTreeSet::default(),
            as_of: None,
            max_age: None,
            own: known.own.clone(),
            hash: String::new(),
        }
    }
}

fn read(path: &Path) -> Result<Rough> {
    if path.extension().is_some_and(|extension| extension == "json") {
        return serde_json::from_slice(&trusted_file::read(path, MAX_FILE)?).map_err(|cause| {
            Error::new(ErrorKind::Config, "it is no JSON of a directory").because(cause)
        });
    }
    crate::config::read_file(path)
}

/// Somebody's ids, where each of them can be read.
fn ids_of(entry: &Value) -> Option<Vec<Id>> {
    let text = |id: &Value, what: &str| {
        id[what].as_str().filter(|text| !text.is_empty()).map(String::from)
    };
    let id = |id: &Value| Some(Id { issuer: text(id, "issuer")?, subject: text(id, "subject")? });
    entry["ids"].as_array()?.iter().map(id).collect()
}

/// Somebody's groups, where all of them can be read and are there. Who is in none need not say so.
fn groups_of(entry: &Value, known: &BTreeMap<String, Value>) -> Option<BTreeSet<String>> {
    let group = |group: &Value| group.as_str().map(String::from);
    match entry.get("groups") {
        None => entry.is_object().then(BTreeSet::new),
        Some(groups) => {
            let groups: BTreeSet<_> =
                groups.as_array()?.iter().map(group).collect::<Option<_>>()?;
            groups.iter().all(|group| known.contains_key(group)).then_some(groups)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::directory_of;
    use super::*;

    const PEOPLE: &str = r#"
        [group.leads]
        [group.staff]
        [person.alice]
        ids = [{ issuer = "https://a.example", subject = "alice" }, { issuer = "https://b.example", subject = "al" }]
        groups = ["leads", "staff"]
        [person.bob]
        ids = [{ issuer = "https://a.example", subject = "bob" }]
        groups = ["leads"]
        [person.carol]
        ids = [{ issuer = "https://a.example", subject = "carol" }]
        groups = ["leads"]
    "#;

    fn less(newer: &str) -> Option<Directory> {
        let rough: Rough = crate::config::read_str("directory.toml", newer).unwrap();
        let known = directory_of(PEOPLE);
        known.less(&Directory::of_rough(rough, &known))
    }

    fn people(of: &Directory) -> Vec<String> {
        let told = |(name, person): (&str, &Person)| {
            let groups: Vec<_> = person.groups.iter().map(String::as_str).collect();
            format!("{name} {} {}", person.ids.len(), groups.join("+"))
        };
        of.people().map(told).collect()
    }

    #[test]
    fn what_is_wrong_in_one_entry_keeps_nobody_who_has_left_and_takes_nothing_from_others() {
        let without_bob = |text: &str| {
            let at = text.find("[person.bob]").unwrap();
            let end = text.find("[person.carol]").unwrap();
            format!("{}{}", &text[..at], &text[end..])
        };
        let all = ["alice 2 leads+staff", "carol 1 leads"];
        // A field that nobody knows, somebody without an id, an age that is none.
        for wrong in [
            "mail = \"x\"\n",
            "[person.dave]\nids = []\n",
            "[person.\"a b\"]\nids = 7\n",
            "[person.dave]\nids = [{ issuer = \"https://a.example\", subject = \"carol\" }]\n",
            "[persons.dave]\n",
        ] {
            let less = less(&format!("{}{wrong}", without_bob(PEOPLE))).unwrap();
            assert_eq!(people(&less), all, "{wrong}");
        }
        let less_of = |from: &str, to: &str| {
            assert!(PEOPLE.contains(from), "{from}");
            less(&PEOPLE.replacen(from, to, 1)).map(|less| people(&less))
        };
        let others = |one: &str| {
            let rest = ["bob 1 leads", "carol 1 leads"];
            Some([one].iter().chain(&rest).map(ToString::to_string).collect::<Vec<_>>())
        };
        // What can be read of an entry counts, and what cannot be is as it was.
        let both = "[\"leads\", \"staff\"]";
        assert_eq!(less_of(both, "[\"leads\"]\nmail = 7"), others("alice 2 leads"));
        let al = "{ issuer = \"https://b.example\", subject = \"al\" }";
        let one = PEOPLE.replacen(&format!(", {al}"), "", 1);
        let less = less(&one.replacen(both, "\"leads\"", 1)).unwrap();
        assert_eq!(Some(people(&less)), others("alice 1 leads+staff"));
        for (from, to) in [
            (both, "\"leads\""),
            (both, "[\"leads\", 7]"),
            (both, "[\"unknown\"]"),
            (al, "{ issuer = \"https://b.example\", subject = 7 }"),
            (al, "{ issuer = \"https://b.example\", subject = \"\" }"),
            ("[group.staff]", ""),
        ] {
            assert_eq!(less_of(from, to), None, "{to}");
        }
        assert_eq!(less_of("[group.leads]", "as_of = 7\n[group.leads]"), None);
    }

    #[test]
    fn what_is_no_directory_says_of_nobody_that_they_have_left() {
        for text in ["", "[people.alice]\n", "person = []\n", "[group.leads]\n"] {
            assert!(crate::config::read_str::<Rough>("directory.toml", text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_file_in_which_nobody_is_left_says_so_of_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let known = directory_of(PEOPLE);
        for (name, text) in [("a.json", "{\"person\": {}}"), ("a.toml", "[person]\n")] {
            let file = dir.path().join(name);
            crate::host::files::write_private(&file, text.as_bytes()).unwrap();
            let settings = Settings { file, max_age: None };
            let error = Directory::roughly(&settings, &known).unwrap_err();
            assert!(error.to_string().contains("names no people"), "{error}");
        }
    }
}
