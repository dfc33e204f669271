use super::*;

const OWN: &str = "https://broker.example.com";

fn directory(text: &str, max_age: Option<Duration>) -> Result<Directory> {
    let file: File = crate::config::read_str("directory.toml", text)?;
    Directory::of(file, max_age, &Issuer::parse(OWN).unwrap(), now())
}

/// The directory that this text has.
pub(crate) fn directory_of(text: &str) -> Directory {
    directory(text, None).unwrap()
}

fn now() -> OffsetDateTime {
    time::macros::datetime!(2026-01-02 12:00 UTC)
}

const PEOPLE: &str = r#"
    as_of = "2026-01-02T11:00:00Z"
    [group.on-call]
    [group.staff]
    description = "All who work here"
    [person.alice]
    name = "Alice"
    ids = [{ issuer = "https://a.example", subject = "8e7f" }, { issuer = "https://b.example", subject = "a b" }]
    groups = ["staff", "on-call"]
    contacts = { email = "alice@example.com", phone = "1" }
    [person.bob]
    ids = [{ issuer = "https://a.example", subject = "bob" }]
"#;

fn of<'a>(directory: &'a Directory, issuer: &str, subject: &str) -> Option<&'a str> {
    let principal = Principal { issuer: issuer.into(), subject: subject.into() };
    directory.person(&principal).map(|(name, _)| name)
}

#[test]
fn people_are_found_by_issuer_and_subject_at_whichever_issuer() {
    let people = directory(PEOPLE, None).unwrap();
    assert_eq!(of(&people, "https://a.example", "8e7f"), Some("alice"));
    assert_eq!(of(&people, "https://b.example", "a b"), Some("alice"));
    assert_eq!(of(&people, "https://b.example", "8e7f"), None);
    assert_eq!(of(&people, "https://a.example", "Alice"), None);
    // By a token of the broker that was issued for them, however often.
    let alice = Principal { issuer: "https://a.example".into(), subject: "alice".into() };
    let ids = ids_from(&alice, OWN);
    let deepest = Principal { issuer: OWN.into(), subject: ids[MAX_NESTED - 2].clone() };
    assert_eq!(ids_of(&deepest, OWN), ids.iter().rev().cloned().collect::<Vec<_>>());
    let once = id_of("https://b.example", "a b");
    assert_eq!(of(&people, OWN, &once), Some("alice"));
    assert_eq!(of(&people, OWN, &id_of(OWN, &once)), Some("alice"));
    assert_eq!(of(&people, "https://a.example", &once), None);
    assert_eq!(people.len(), 2);
}

#[test]
fn it_says_nothing_once_it_is_too_old() {
    let people = directory(PEOPLE, Some(Duration::from_secs(7200))).unwrap();
    assert!(!people.is_stale(now()));
    assert!(!people.is_stale(now() + time::Duration::hours(1)));
    assert!(people.is_stale(now() + time::Duration::minutes(61)));
    assert!(!directory(PEOPLE, None).unwrap().is_stale(now() + time::Duration::days(999)));
}

#[test]
fn a_newer_one_takes_people_ids_and_groups_away_and_adds_none() {
    let people = directory(PEOPLE, None).unwrap();
    assert!(people.less(&directory(PEOPLE, None).unwrap()).is_none());
    let newer = PEOPLE
        .replace(", { issuer = \"https://b.example\", subject = \"a b\" }", "")
        .replace("groups = [\"staff\", \"on-call\"]", "groups = [\"on-call\"]")
        .replace("[person.bob]", "[person.carol]")
        .replace("subject = \"bob\"", "subject = \"carol\"");
    let less = people.less(&directory(&newer, None).unwrap()).unwrap();
    assert_eq!(of(&less, "https://a.example", "8e7f"), Some("alice"));
    assert_eq!(of(&less, "https://b.example", "a b"), None);
    assert_eq!(of(&less, "https://a.example", "bob"), None);
    assert_eq!(of(&less, "https://a.example", "carol"), None);
    assert_eq!(less.named("alice").unwrap().groups, ["on-call".to_string()].into());
    assert!(less.has_group("staff"));
    assert_ne!(less.hash(), people.hash());
    // Whoever is nobody's there has left.
    assert!(less.has_people_of("https://b.example"));
    let newest = directory(&newer, None).unwrap();
    assert!(!newest.has_people_of("https://b.example"));
    assert!(newest.following(&people).has_people_of("https://b.example"));
    // One that is said to be of people is for as long as that is said.
    let said = Issuer::parse("https://c.example").unwrap();
    let of_people = people.clone().with_people_of([&said].into_iter());
    let less = of_people.less(&newest).unwrap();
    assert!(
        of_people.has_people_of("https://c.example") && less.has_people_of("https://c.example")
    );
    assert!(!newest.following(&of_people).has_people_of("https://c.example"));
    assert!(of_people.following(&newest).has_people_of("https://c.example"));
    // Who comes back by another id only is somebody else.
    let other = PEOPLE.replace("subject = \"bob\"", "subject = \"robert\"");
    assert!(people.less(&directory(&other, None).unwrap()).unwrap().named("bob").is_none());
}

#[test]
fn the_hash_is_of_what_it_says_and_not_of_when() {
    let hash = |text: &str| directory(text, None).unwrap().hash().to_string();
    let later = PEOPLE.replace("11:00:00", "11:30:00");
    assert_eq!(hash(PEOPLE), hash(&later));
    assert_ne!(hash(PEOPLE), hash(&PEOPLE.replace("bob", "bert")));
}

#[test]
fn what_contradicts_itself_is_refused() {
    let id = r#"ids = [{ issuer = "https://a.example", subject = "x" }]"#;
    for (text, says) in [
        (format!("[person.a]\n{id}\n[person.b]\n{id}"), "have the same id"),
        (format!("[person.a]\n{id}\ngroups = [\"x\"]"), "there is no [group.x]"),
        ("[person.a]\nids = []".into(), "has no ids"),
        ("".into(), "names no people"),
        ("[group.leads]".into(), "names no people"),
        (format!("[person.\"a b\"]\n{id}"), "not a possible name"),
        (format!("as_of = \"2026-02-01T00:00:00Z\"\n[person.a]\n{id}"), "in the future"),
        (format!("as_of = \"today\"\n[person.a]\n{id}"), "is no moment"),
        (format!("[person.a]\n{id}\nmail = \"x\""), "mail"),
    ] {
        let error = directory(&text, None).unwrap_err();
        let said = format!("{error} {:?}", error.causes());
        assert!(said.contains(says), "{text}: {said}");
    }
    let undated = format!("[person.a]\n{id}");
    assert!(directory(&undated, None).is_ok());
    let error = directory(&undated, Some(Duration::from_secs(1))).unwrap_err();
    assert!(error.to_string().contains("does not say how old"), "{error}");
}
