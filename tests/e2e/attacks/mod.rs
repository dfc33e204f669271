//! The corpus of attacks on a broker: each lesson of advisories and incidents, tried on a
//! broker that runs, over sockets of our own. `docs/attacks.md` lists it.
//!
//! Nothing may be granted: each attack says with what it is refused. After it no token was issued
//! but those of honest callers, who are served as before; a stranger has left no row in the store;
//! and at the end no secret is in the log, or in the store.

mod claims;
mod clients;
mod delegation;
mod elevations;
mod exchange;
mod hostile;
mod http;
mod issuers;
mod keys;
mod operators;
mod proofs;
mod proxy;
mod requests;
mod sources;
mod tokens;
mod wire;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use serde_json::json;

use wire::{ANYBODY, Exchange, post};
use world::World;

/// Who attacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// Nobody that the broker knows: they leave no row.
    Stranger,
    /// Somebody whom an issuer vouches for: a denial is on record.
    Caller,
}

type Make = Box<dyn Fn(&World) -> Vec<Exchange>>;

/// What is made of a world, by its name in the corpus.
type Named<T> = (&'static str, fn(&World) -> T);

/// What advisories and incidents have taught.
#[derive(Clone, Copy)]
struct Lesson {
    /// As `docs/attacks.md` has it.
    name: &'static str,
    /// What its attacks are answered, but for those that say otherwise.
    refused: &'static str,
}

/// Something that must not be granted.
struct Attack {
    lesson: &'static str,
    name: String,
    who: Who,
    /// The answers, as [`wire::Answers::in_short`] has them: in their order, or one that all are.
    refused: Vec<&'static str>,
    /// Sends what has to be sent before, and tells what is not to be granted.
    make: Make,
}

impl Attack {
    /// It is answered so, and not as others of its lesson.
    fn refused(self, refused: &[&'static str]) -> Self {
        Self { refused: refused.to_vec(), ..self }
    }

    /// Whether that is how it is to be refused.
    fn is_refused_by(&self, answers: &[String]) -> bool {
        match self.refused[..] {
            [one] => !answers.is_empty() && answers.iter().all(|answer| answer == one),
            _ => answers == self.refused,
        }
    }
}

/// One that sends this.
fn attack(
    lesson: Lesson,
    who: Who,
    name: impl Into<String>,
    make: impl Fn(&World) -> Vec<Exchange> + 'static,
) -> Attack {
    let refused = vec![lesson.refused];
    Attack { lesson: lesson.name, name: name.into(), who, refused, make: Box::new(make) }
}

/// One that shows this token for the role `deploy`.
fn showing(
    lesson: Lesson,
    who: Who,
    name: impl Into<String>,
    token: impl Fn(&World) -> String + 'static,
) -> Attack {
    attack(lesson, who, name, move |world| asking(world, &token(world), &[]))
}

/// Sends bytes to the broker.
fn sending(world: &World, bytes: Vec<u8>) -> Vec<Exchange> {
    vec![Exchange { to: world.address, from: ANYBODY, bytes }]
}

/// Sends bytes elsewhere.
fn sending_to(to: SocketAddr, from: IpAddr, bytes: Vec<u8>) -> Vec<Exchange> {
    vec![Exchange { to, from, bytes }]
}

/// Asks for a token with this assertion.
fn asking(world: &World, assertion: &str, changes: &[(&str, &str)]) -> Vec<Exchange> {
    sending(world, post("/token", &[], world.fields(assertion, changes)))
}

/// All of it.
fn corpus() -> Vec<Attack> {
    [
        tokens::attacks(),
        claims::attacks(),
        requests::attacks(),
        exchange::attacks(),
        clients::attacks(),
        delegation::attacks(),
        proofs::attacks(),
        proxy::attacks(),
        http::attacks(),
        issuers::attacks(),
        sources::attacks(),
        elevations::attacks(),
        operators::attacks(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Tries one, and tells what is wrong with what came of it.
fn outcome(world: &World, attack: &Attack) -> Result<(), String> {
    let exchanges = (attack.make)(world);
    let before = world.rows();
    let mut all = Vec::new();
    for exchange in &exchanges {
        let answers = exchange.run()?;
        if answers.is_granted() {
            return Err(format!("ACCEPTED: {}", answers.beginning()));
        }
        all.push(answers);
    }
    // Each is looked at, and refused for what it is: not for being one too many, nor because the
    // broker fails, nor as something else.
    let answers: Vec<_> = all.iter().flat_map(wire::Answers::in_short).collect();
    if !attack.is_refused_by(&answers) {
        let shown: String = all.iter().map(wire::Answers::beginning).collect();
        return Err(format!("not {:?} but {answers:?}: {shown}", attack.refused));
    }
    let after = world.rows();
    if after.issued != before.issued {
        return Err("a token is on record that nobody was handed".into());
    }
    if attack.who == Who::Stranger && after != before {
        return Err(format!("a stranger left rows: {before:?} {after:?}"));
    }
    let honest = world.try_honest(&[], &world.fields(&world.assertion(json!({})), &[]));
    honest.map(drop).map_err(|why| format!("the honest are not served afterwards: {why}"))
}

#[test]
fn nothing_of_the_corpus_is_accepted() {
    let world = World::start();
    let victim = world.token("deploy");
    let corpus = corpus();
    let faults: Vec<_> = corpus
        .iter()
        .filter_map(|attack| {
            let why = outcome(&world, attack).err()?;
            Some(format!("{}: {}: {why}", attack.lesson, attack.name))
        })
        .collect();
    assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), corpus.len(), faults.join("\n\n"));
    assert_eq!(world.rows().issued, world.handed_out(), "a token that nobody was handed");
    assert!(world.is_good(&victim), "somebody revoked what is another's");
    assert!(world.trap.seen().is_empty(), "somebody was led there: {:?}", world.trap.seen());
    assert!(world.secrets() > corpus.len());
    assert_eq!(world.leaks(), [], "a secret is where it must not be");
    // In the two logs, and in the store or its log of changes: it is looked there.
    let said: BTreeSet<_> = world.places_of(&["deploy".into()]).into_iter().collect();
    assert!(said.len() >= 3, "{said:?}");
    let log = world.broker.said();
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn the_page_lists_each_lesson_and_counts_what_is_tried() {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/attacks.md");
    let page = std::fs::read_to_string(page).unwrap();
    let corpus = corpus();
    let lessons: BTreeSet<_> = corpus.iter().map(|attack| attack.lesson).collect();
    let rows = lessons.into_iter().map(|lesson| {
        let of: Vec<_> = corpus.iter().filter(|attack| attack.lesson == lesson).collect();
        let answers = told(of.iter().flat_map(|attack| &attack.refused));
        (format!("| {lesson} | {} | ", of.len()), answers)
    });
    // There may be more to say of what happens than the answers.
    let is_there = |begins: &str, answers: &str| {
        let row = page.lines().find_map(|row| row.strip_prefix(begins));
        let said = row.and_then(|row| row.split_once(" | ")?.1.strip_prefix(answers));
        said.is_some_and(|more| {
            more == " |" || more.strip_prefix("; ").is_some_and(|more| !more.starts_with(DIGITS))
        })
    };
    let missing: Vec<_> = rows
        .filter(|(begins, answers)| !is_there(begins, answers))
        .map(|(begins, answers)| format!("{begins}… | {answers} |"))
        .collect();
    assert!(missing.is_empty(), "docs/attacks.md lacks:\n{}", missing.join("\n"));
    let names: BTreeSet<_> = corpus.iter().map(|a| (a.lesson, a.name.clone())).collect();
    assert_eq!(names.len(), corpus.len(), "two attacks have one name");
}

/// What begins an answer.
const DIGITS: [char; 10] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9'];

/// Answers as the page has them: each status with the errors that come with it.
fn told<'a>(answers: impl Iterator<Item = &'a &'static str>) -> String {
    let mut told: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for answer in answers {
        let (status, error) = answer.split_once(' ').unwrap_or((answer, ""));
        told.entry(status).or_default().extend((!error.is_empty()).then_some(error));
    }
    let told = told.into_iter().map(|(status, errors)| {
        let errors: Vec<_> = errors.into_iter().map(|error| format!("`{error}`")).collect();
        format!("{status} {}", errors.join(", ")).trim_end().to_string()
    });
    told.collect::<Vec<_>>().join("; ")
}
