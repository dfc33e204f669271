//! What the documentation prints works: configurations load, policies too,
//! commands exist, tables of keys are whole, quoted errors are those of the program.

#[cfg(feature = "broker")]
mod broker;
mod conformance;
#[cfg(feature = "broker")]
mod platforms;

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::support::home::{Home, tmpcred};
use super::support::walk::files;

/// A fenced block of a page.
struct Block {
    page: String,
    /// What stands behind the three ticks, such as `toml broker.toml`.
    kind: String,
    text: String,
}

/// The README and all pages below `docs`, by their paths.
fn pages() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut below: Vec<String> = files(&root.join("docs"))
        .into_iter()
        .filter_map(|file| {
            let path = file.path.strip_prefix(root).unwrap_or(&file.path).to_path_buf();
            let path = if path.starts_with("docs") { path } else { Path::new("docs").join(path) };
            (path.extension()? == "md").then(|| path.display().to_string())
        })
        .collect();
    // The page to start from comes before those that add to it.
    below.sort();
    ["README.md".to_string()].into_iter().chain(below).collect()
}

fn page(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn blocks() -> Vec<Block> {
    let mut blocks = Vec::new();
    for path in pages() {
        let text = page(&path);
        // Every second part is within a fence.
        for fenced in text.split("\n```").skip(1).step_by(2) {
            let (kind, text) = fenced.split_once('\n').unwrap();
            blocks.push(Block {
                page: path.clone(),
                kind: kind.trim().into(),
                text: format!("{text}\n"),
            });
        }
    }
    blocks
}

/// The blocks of this kind; at least so many.
#[track_caller]
fn of_kind(kind: &str, at_least: usize) -> Vec<Block> {
    let blocks: Vec<_> = blocks().into_iter().filter(|block| block.kind == kind).collect();
    assert!(blocks.len() >= at_least, "only {} blocks of the kind '{kind}'", blocks.len());
    blocks
}

#[test]
fn every_block_is_of_a_kind_that_is_looked_at() {
    let known = [
        "caddyfile",
        "cedar",
        "cedar more-elevation",
        "cedar more-enrollment",
        "cedar more-uses",
        "ini",
        "json",
        "nginx",
        "sh",
        "sh alice",
        "sh bob",
        "sh broker",
        "sh erin",
        "text",
        "toml",
        "toml .tmpcred.toml",
        "toml broker.toml",
        "toml broker.toml behind-a-proxy",
        "toml broker.toml keys",
        "toml broker.toml more",
        "toml broker.toml more-admin",
        "toml broker.toml more-authz",
        "toml broker.toml more-client",
        "toml broker.toml more-dpop",
        "toml broker.toml more-elevation",
        "toml broker.toml more-enrollment",
        "toml broker.toml more-limits",
        "toml broker.toml more-notify",
        "toml broker.toml more-provider-down",
        "toml broker.toml more-review",
        "toml broker.toml more-role-claims",
        "toml broker.toml more-roles",
        "toml broker.toml more-sinks",
        "toml broker.toml more-claims",
        "toml broker.toml more-telemetry",
        "toml broker.toml more-web",
        "toml broker.toml store",
        "toml broker.toml with-tls",
        "toml cases.toml",
        "toml people.toml",
        "yaml",
        "yaml azure-pipelines",
        "yaml buildkite",
        "yaml circle-ci",
        "yaml envoy",
        "yaml github-workflows",
        "yaml github-workflows steps",
        "yaml gitlab-ci",
        "yaml traefik",
    ];
    for block in blocks() {
        assert!(known.contains(&&*block.kind), "{}: ```{}", block.page, block.kind);
    }
}

/// Where a page about this may be, and what its title says.
fn page_about(kind: &str, folder: &str) -> String {
    let own = format!("docs/{folder}/{kind}.md");
    // Some pages are about a source and a target at once.
    let shared = format!("docs/{kind}.md");
    let has = |path: &String| pages().contains(path);
    [own, shared].into_iter().find(has).unwrap_or_else(|| panic!("{kind} has no page in {folder}"))
}

#[test]
fn each_source_target_and_way_out_has_a_page_with_an_example_and_the_index_lists_it() {
    let index = page("docs/README.md");
    let about = |kind: &str, folder: &str, example: &str| {
        let path = page_about(kind, folder);
        let text = page(&path);
        assert!(text.contains(example), "{path} has no example with {example}");
        assert!(index.contains(&path["docs/".len()..]), "the index does not list {path}");
    };
    for kind in tmpcred::identity::KINDS {
        about(kind, "sources", &format!("type = \"{kind}\""));
    }
    for kind in tmpcred::mint::KINDS {
        about(kind, "targets", &format!("type = \"{kind}\""));
    }
    for kind in ["exec", "env", "token", "credential-process", "console"] {
        about(kind, "ways-out", &format!("tmpcred {kind}"));
    }
    about("renewal", "ways-out", "tmpcred exec prod --renew");
    for format in tmpcred::deliver::env::Format::all() {
        let row = format!("\n| `{}` |", format.name());
        assert!(page("docs/ways-out/env.md").contains(&row), "{}", format.name());
    }
}

#[test]
fn links_lead_to_pages_and_titles_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut followed = 0;
    for path in pages() {
        let file = root.join(&path);
        for link in page(&path).split("](").skip(1) {
            let link = link.split(')').next().unwrap();
            if link.contains("://") {
                continue;
            }
            let (to, title) = link.split_once('#').unwrap_or((link, ""));
            let to = if to.is_empty() { file.clone() } else { file.parent().unwrap().join(to) };
            assert!(to.exists(), "{path}: {link}: there is no such page");
            if !title.is_empty() {
                let text = std::fs::read_to_string(&to).unwrap();
                let mut titles = text.lines().filter(|line| line.starts_with('#')).map(anchor);
                let is_there = titles.any(|there| there == title);
                assert!(is_there, "{path}: {link}: there is no such title");
            }
            followed += 1;
        }
    }
    assert!(followed >= 50, "only {followed} links were found");
}

/// What a link calls a title.
fn anchor(title: &str) -> String {
    let words = title.trim_start_matches('#').trim().to_lowercase();
    let kept = words.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn configurations_of_the_client_are_valid() {
    for block in of_kind("toml", 3) {
        let home = Home::new();
        home.config(&block.text);
        let checked = tmpcred(&home).args(["config", "check"]).run();
        assert_eq!(checked.code, Some(0), "{}:\n{}\n{}", block.page, block.text, checked.stderr);
    }
}

#[test]
fn what_is_json_is_json() {
    for block in of_kind("json", 2) {
        let read = serde_json::from_str::<Value>(&block.text);
        assert!(read.is_ok_and(|value| value.is_object()), "{}:\n{}", block.page, block.text);
    }
}

#[test]
fn a_projects_file_may_say_what_the_page_says() {
    let [project] = &of_kind("toml .tmpcred.toml", 1)[..] else { panic!("there are several") };
    let config = of_kind("toml", 1).into_iter().find(|b| b.page == project.page).unwrap();
    let home = Home::new();
    home.config(&config.text);
    home.write("work/.tmpcred.toml", &project.text);
    let plan = tmpcred(&home).args(["explain", "--json"]).run().ok().json();
    assert_eq!(plan["plan"]["profile"], "readonly", "{plan}");
}

#[test]
fn the_table_of_the_clients_keys_is_whole() {
    let home = Home::new();
    let schema = tmpcred(&home).args(["config", "schema"]).run().ok().json();
    names_all(
        "docs/configuration.md",
        &schema,
        &["broker", "cache", "console", "identity", "profile"],
    );
}

#[test]
fn the_table_of_exit_codes_is_that_of_the_program() {
    let help = tmpcred(&Home::new()).args(["--help"]).run().ok().stdout;
    let listed = help.split("\nExit codes:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let listed: Vec<_> = listed.lines().map(|line| line.trim().split_once("  ").unwrap()).collect();
    let text = page("docs/configuration.md");
    let section = text.split("\n## Exit codes\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    let rows: Vec<_> = rows.skip(1).map(|row| row.split_once(" | ").unwrap()).collect();
    assert_eq!(rows, listed);
    use tmpcred::error::exit_code;
    assert_eq!(listed.len(), usize::from(exit_code::VERIFICATION) + 1);
    let exec = [exit_code::EXEC_FAILURE, exit_code::EXEC_CANNOT_RUN, exit_code::EXEC_NOT_FOUND];
    for code in exec {
        assert!(section.contains(&format!(" {code} where")), "{code}");
    }
}

#[test]
fn the_commands_of_the_runbooks_are_understood() {
    let text = page("docs/runbooks.md");
    let commands = text.split('`').skip(1).step_by(2);
    let commands: Vec<_> =
        commands.filter_map(|code| code.strip_prefix("tmpcred broker ")).collect();
    assert!(commands.len() >= 9, "{commands:?}");
    let home = Home::new();
    for command in commands {
        let words = command.split(' ').map(|word| match word {
            "JTI" => "018f3b5e-7c00-7000-8000-000000000000",
            "URL" => "https://login.example.com",
            word => word,
        });
        let run = tmpcred(&home).args(["broker"]).args(words).run();
        // There is no such file here: it is the configuration that is wrong, not the command.
        let said = run.ended_with(3).stderr;
        assert!(said.contains("broker.toml"), "{command}: {said}");
    }
}

#[test]
fn the_least_rust_is_that_of_the_manifest() {
    let manifest: toml::Table = page("Cargo.toml").parse().unwrap();
    let version = manifest["package"]["rust-version"].as_str().unwrap();
    for path in ["README.md", "CONTRIBUTING.md"] {
        let text = page(path);
        assert!(text.contains(&format!("Rust {version} or newer")), "{path}: Rust {version}");
    }
}

/// That a page has a row for each key of a schema, a title for each table, and
/// neither for what is not there.
#[track_caller]
fn names_all(path: &str, schema: &Value, tables: &[&str]) {
    let mut keys = BTreeSet::new();
    collect(schema, &mut keys);
    for table in tables {
        assert!(keys.contains(*table), "the schema has no table {table}");
    }
    let text = page(path);
    let rows = text.split("## All keys").nth(1).unwrap().split("\n## ").next().unwrap();
    let documented: BTreeSet<String> = rows
        .lines()
        .filter_map(|line| {
            let row = line.strip_prefix("| `").and_then(|row| row.split_once('`'));
            let table = line.strip_prefix("**`").and_then(|title| title.split_once("`**"));
            let title = table.map(|(title, rest)| (title.trim_matches(['[', ']']), rest));
            title.or(row)
        })
        // `[profile.NAME]` is a row of `profile`.
        .map(|(key, _)| key.split('.').next().unwrap_or(key).to_string())
        .collect();
    assert_eq!(documented, keys, "{path}");
}

fn collect(schema: &Value, keys: &mut BTreeSet<String>) {
    match schema {
        Value::Object(map) => {
            if let Some(properties) = map.get("properties").and_then(Value::as_object) {
                keys.extend(properties.keys().cloned());
            }
            map.values().for_each(|value| collect(value, keys));
        }
        Value::Array(list) => list.iter().for_each(|value| collect(value, keys)),
        _ => {}
    }
}

#[test]
fn commands_exist_with_their_options() {
    let home = Home::new();
    let mut tried = 0;
    let typed = |block: &Block| block.kind == "sh" || block.kind.starts_with("sh ");
    for block in blocks().into_iter().filter(typed) {
        for line in block.text.lines() {
            let line = line.split(" #").next().unwrap();
            // Also where it stands within another command.
            let Some(at) = line.find("tmpcred ").filter(|at| {
                line[..*at].chars().last().is_none_or(|before| " (\"".contains(before))
            }) else {
                continue;
            };
            let command = line[at + "tmpcred ".len()..].split([')', '>', '|']).next().unwrap();
            let own = command.split(" -- ").next().unwrap().trim();
            let words: Vec<&str> = own.split_whitespace().chain(["--help"]).collect();
            let run = tmpcred(&home).args(&words).run();
            assert_eq!(run.code, Some(0), "{}: {line}\n{}", block.page, run.stderr);
            // Help that is not the command's own tells that there is no such command.
            let name = format!("tmpcred {}", words[0]);
            assert!(words[0].starts_with('-') || run.stdout.contains(&name), "{line}");
            tried += 1;
        }
    }
    assert!(tried >= 10, "only {tried} commands were found");
}

#[test]
fn quoted_errors_are_those_of_the_program() {
    let source: String = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"))
        .into_iter()
        .map(|file| String::from_utf8_lossy(&file.bytes).into_owned())
        .collect();
    let text: String = pages().iter().map(|path| page(path)).collect();
    let mut seen = 0;
    for quoted in text.split('«').skip(1) {
        let quoted = quoted.split('»').next().unwrap();
        // What varies is left out: names in quotes, and what the ellipsis stands for.
        let fixed = quoted.split(['…', '`', '\'']).map(|part| part.trim_matches([' ', ',']));
        for part in fixed.filter(|part| part.len() >= 15 && !part.contains("://")) {
            // `tmpcred login corp`: the name is the person's own.
            let part = part.strip_suffix(" corp").unwrap_or(part);
            assert!(source.contains(part), "no error says: {part}");
            seen += 1;
        }
    }
    assert!(seen >= 15, "only {seen} quotations were found");
}

/// The key-encryption key, private to its owner as the broker wants it.
#[cfg(feature = "broker")]
fn write_kek(home: &Home) {
    use std::os::unix::fs::PermissionsExt as _;
    let path = home.write("kek", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}
