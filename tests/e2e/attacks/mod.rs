//! The corpus of attacks on a broker: each lesson of advisories and incidents, tried on a
//! broker that runs, over sockets of our own. `docs/attacks.md` lists it.
//!
//! Nothing may be granted. After each attack no token was issued but those of honest
//! callers, who are served as before; a stranger has left no row in the store; and at the
//! end no secret is in the log, or in the store.

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

use std::collections::BTreeSet;
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

/// Something that must not be granted.
struct Attack {
    /// The lesson, as `docs/attacks.md` has it.
    lesson: &'static str,
    name: String,
    who: Who,
    /// Whether all is granted that is answered with a success.
    does: bool,
    /// Sends what has to be sent before, and tells what is not to be granted.
    make: Make,
}

/// One that sends this.
fn attack(
    lesson: &'static str,
    who: Who,
    name: impl Into<String>,
    make: impl Fn(&World) -> Vec<Exchange> + 'static,
) -> Attack {
    Attack { lesson, name: name.into(), who, does: false, make: Box::new(make) }
}

/// One that would have something done: whoever is told that it is has got what they were after.
fn doing(
    lesson: &'static str,
    who: Who,
    name: impl Into<String>,
    make: impl Fn(&World) -> Vec<Exchange> + 'static,
) -> Attack {
    Attack { does: true, ..attack(lesson, who, name, make) }
}

/// One that shows this token for the role `deploy`.
fn showing(
    lesson: &'static str,
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
    for exchange in &exchanges {
        let answers = exchange.run()?;
        let shown = || answers.0.chars().take(600).collect::<String>();
        let statuses = answers.statuses();
        let is_done = attack.does && statuses.iter().any(|status| (200..300).contains(status));
        if answers.is_granted() || is_done {
            return Err(format!("ACCEPTED: {}", shown()));
        }
        if attack.does && (statuses.is_empty() || statuses.contains(&429)) {
            return Err(format!("it was not looked at: {}", shown()));
        }
        // What fails the broker itself is no refusal.
        let may_fail = attack.lesson == issuers::LESSON;
        let failed = statuses.into_iter().any(|status| match status {
            503 => !may_fail,
            status => status >= 500,
        });
        if failed || answers.0.contains("server_error") {
            return Err(format!("it failed: {}", shown()));
        }
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
    let counted = |lesson: &str| corpus.iter().filter(|attack| attack.lesson == lesson).count();
    let rows = lessons.into_iter().map(|lesson| format!("| {lesson} | {} |", counted(lesson)));
    let missing: Vec<_> = rows.filter(|row| !page.contains(row)).collect();
    assert!(missing.is_empty(), "docs/attacks.md lacks:\n{}", missing.join("\n"));
    let names: BTreeSet<_> = corpus.iter().map(|a| (a.lesson, a.name.clone())).collect();
    assert_eq!(names.len(), corpus.len(), "two attacks have one name");
}
