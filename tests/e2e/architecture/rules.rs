//! What each room may know of the others.

use std::collections::{BTreeMap, BTreeSet};

use super::sources::{Kind, Mention, Module, Sources};

/// Files may have so many lines.
const MOST_LINES: usize = 500;

/// Files that are longer, and why they are one idea all the same.
pub(crate) const LONG_FILES: &[(&str, &str)] = &[];

/// Rooms that only these others may know.
const KNOWN_ONLY_TO: &[(&str, &[&str], &str)] = &[
    ("cli", &["main"], "the command line is the outermost room"),
    ("pipeline", &["cli"], "only the command line starts a run"),
    ("api", &["cli"], "only the command line operates a broker from elsewhere"),
    ("deliver", &["cli"], "only the command line hands a credential out"),
    ("broker", &["cli"], "only the command line starts the broker"),
];

/// Rooms that know nothing but these.
const KNOWS_ONLY: &[(&str, &[&str], &str)] = &[(
    "main",
    &["cli", "error", "host"],
    "main calls the command line, and ends the process as it says",
)];

/// Rooms that leave others alone.
const LEAVES_ALONE: &[(&str, &[&str], &str)] = &[
    ("identity", &["mint"], "they meet in Assertion"),
    ("mint", &["identity"], "they meet in Assertion"),
    ("identity", &["config"], "it is handed its settings"),
    ("mint", &["config"], "it is handed its settings"),
    ("api", &["config"], "it is handed a broker and an assertion"),
    ("deliver", &["config"], "it sees a credential, never the configuration"),
    ("cache", &["config"], "it is handed its settings"),
    (
        "broker",
        &["cli", "plan", "pipeline", "cache", "deliver"],
        "the broker is another program that happens to be in the same binary",
    ),
];

/// Crates that only one room knows.
const CRATES: &[(&[&str], &[&str], &str)] = &[
    (&["clap", "clap_complete", "clap_mangen"], &["cli"], "only the command line knows clap"),
    (&["anstream", "indicatif"], &["cli", "ui"], "only cli::ui writes to the terminal"),
];

/// Rooms that write to the terminal.
const WRITERS: &[&[&str]] = &[
    &["cli", "ui"],
    // The log goes to standard error too, and is no output of any command.
    &["telemetry"],
];

/// Macros that write to the terminal.
const PRINTING: &[&str] = &["print", "println", "eprint", "eprintln", "dbg"];

/// Everything in `sources` that is against the rules, one line each.
pub(crate) fn check(sources: &Sources) -> Vec<String> {
    let (modules, orphans) = sources.modules();
    let rooms: BTreeSet<&str> =
        modules.iter().filter_map(|module| Some(module.path.first()?.as_str())).collect();
    let mut violations: Vec<String> =
        orphans.iter().map(|file| format!("{file}: belongs to no module")).collect();
    let mut edges: Edges = BTreeMap::new();
    for module in &modules {
        for mention in &module.mentions {
            let place = format!("{}:{}", module.file, mention.line);
            let found = against_imports(module, mention, &rooms)
                .or_else(|| against_terminal(module, mention))
                .or_else(|| against_ending(module, mention))
                .or_else(|| against_globals(module, mention));
            violations.extend(found.map(|what| format!("{place}: {what}")));
            if let Some((from, to)) = edge(module, mention, &rooms) {
                edges.entry(from).or_default().entry(to).or_insert(place);
            }
        }
    }
    violations.extend(circles(&edges));
    violations.sort();
    violations.dedup();
    violations
}

/// Files that are too long, and entries of `listed` that are not needed.
pub(crate) fn check_lengths(
    lengths: &BTreeMap<String, usize>,
    listed: &[(&str, &str)],
) -> Vec<String> {
    let is_listed = |file: &str| listed.iter().any(|(name, _)| *name == file);
    let too_long = lengths
        .iter()
        .filter(|(file, lines)| **lines > MOST_LINES && !is_listed(file))
        .map(|(file, lines)| {
            format!("{file}: {lines} lines ask to become two files, or to be listed with a reason")
        });
    let needless = listed
        .iter()
        .filter(|(file, _)| lengths.get(*file).is_none_or(|lines| *lines <= MOST_LINES))
        .map(|(file, _)| format!("{file}: needs no place in the list of long files"));
    too_long.chain(needless).collect()
}

/// The room that a module is in; `lib.rs` is in none.
fn room(module: &Module) -> Option<&str> {
    module.path.first().map(String::as_str)
}

/// The room of this crate that a path leads to.
fn target<'a>(mention: &'a Mention, rooms: &BTreeSet<&str>) -> Option<&'a str> {
    match mention.path.as_slice() {
        [start, room, ..] if start == "crate" && rooms.contains(room.as_str()) => Some(room),
        _ => None,
    }
}

fn edge<'a>(
    module: &'a Module,
    mention: &'a Mention,
    rooms: &BTreeSet<&str>,
) -> Option<(&'a str, &'a str)> {
    let (from, to) = (room(module)?, target(mention, rooms)?);
    (mention.kind == Kind::Path && from != to).then_some((from, to))
}

fn against_imports(module: &Module, mention: &Mention, rooms: &BTreeSet<&str>) -> Option<String> {
    if mention.kind != Kind::Path {
        return None;
    }
    let path = mention.path.join("::");
    for (crates, home, why) in CRATES {
        if crates.contains(&mention.path[0].as_str()) && !module.path.starts_with_all(home) {
            return Some(format!("{path}: {why}"));
        }
    }
    let from = room(module)?;
    if let [start, name, ..] = mention.path.as_slice()
        && start == "crate"
        && !rooms.contains(name.as_str())
    {
        return Some(format!("{path}: names no room; import it from where it lives"));
    }
    let to = target(mention, rooms)?;
    if from == to {
        return None;
    }
    for (hidden, friends, why) in KNOWN_ONLY_TO {
        if *hidden == to && !friends.contains(&from) {
            return Some(format!("{from} knows {to}: {why}"));
        }
    }
    for (who, known, why) in KNOWS_ONLY {
        if *who == from && !known.contains(&to) {
            return Some(format!("{from} knows {to}: {why}"));
        }
    }
    for (who, others, why) in LEAVES_ALONE {
        if *who == from && others.contains(&to) {
            return Some(format!("{from} knows {to}: {why}"));
        }
    }
    None
}

/// Only `cli::ui` writes to the terminal.
fn against_terminal(module: &Module, mention: &Mention) -> Option<String> {
    if WRITERS.iter().any(|writer| module.path.starts_with_all(writer)) {
        return None;
    }
    let writes = match mention.kind {
        Kind::Macro => PRINTING.contains(&mention.path.last()?.as_str()),
        Kind::Path => match mention.path.as_slice() {
            [.., module, stream] => {
                module == "io"
                    && ["stdout", "stderr", "Stdout", "Stderr"].contains(&stream.as_str())
            }
            _ => false,
        },
        _ => false,
    };
    writes.then(|| format!("{}: only cli::ui writes to the terminal", mention.path.join("::")))
}

/// Only `main` ends the process.
fn against_ending(module: &Module, mention: &Mention) -> Option<String> {
    if room(module) == Some("main") {
        return None;
    }
    let path: Vec<&str> = mention.path.iter().map(String::as_str).collect();
    let ends = match (mention.kind, path.as_slice()) {
        (Kind::Path, [.., "process", "exit" | "abort"] | ["libc", "exit" | "_exit" | "abort"]) => {
            true
        }
        // clap's ways: an error that shows itself, a parser that shows errors.
        (Kind::BareCall, ["exit" | "get_matches"] | [_, .., "parse"]) => true,
        _ => false,
    };
    ends.then(|| format!("{}: only main ends the process", path.join("::")))
}

/// Two brokers fit in one process; and nothing that can be changed is global.
fn against_globals(module: &Module, mention: &Mention) -> Option<String> {
    let name = mention.path.join("::");
    match mention.kind {
        Kind::StaticMut => Some(format!("static mut {name}: nothing that changes is global")),
        Kind::Static if room(module) == Some("broker") => {
            Some(format!("static {name}: the broker has no globals"))
        }
        Kind::Macro if room(module) == Some("broker") => {
            let global = ["thread_local", "lazy_static"].contains(&mention.path.last()?.as_str());
            global.then(|| format!("{name}!: the broker has no globals"))
        }
        _ => None,
    }
}

/// From each room to the rooms it knows, and where it says so first.
type Edges<'a> = BTreeMap<&'a str, BTreeMap<&'a str, String>>;

/// One line for each circle: rooms that know each other, be it through others.
fn circles(edges: &Edges<'_>) -> Vec<String> {
    let mut found = BTreeSet::new();
    for start in edges.keys() {
        if let Some(circle) = shortest_way_back(edges, start) {
            let steps = circle
                .windows(2)
                .map(|step| format!("{} → {} ({})", step[0], step[1], edges[step[0]][step[1]]));
            let mut rooms = circle[1..].to_vec();
            rooms.sort_unstable();
            found.insert((rooms, steps.collect::<Vec<_>>().join(", ")));
        }
    }
    let mut seen = BTreeSet::new();
    found.retain(|(rooms, _)| seen.insert(rooms.clone()));
    found.into_iter().map(|(_, steps)| format!("a circle: {steps}")).collect()
}

fn shortest_way_back<'a>(edges: &Edges<'a>, start: &'a str) -> Option<Vec<&'a str>> {
    let mut ways = vec![vec![start]];
    let mut seen = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            for next in edges.get(way.last()?).into_iter().flat_map(BTreeMap::keys) {
                let way = [way.as_slice(), &[*next]].concat();
                if *next == start {
                    return Some(way);
                }
                if seen.insert(*next) {
                    longer.push(way);
                }
            }
        }
        ways = longer;
    }
    None
}

/// Whether a path starts with these names.
trait StartsWith {
    fn starts_with_all(&self, names: &[&str]) -> bool;
}

impl StartsWith for Vec<String> {
    fn starts_with_all(&self, names: &[&str]) -> bool {
        self.len() >= names.len() && self.iter().zip(names).all(|(part, name)| part == name)
    }
}
