//! `config schema`: a validator that editors' kin use takes what the program takes, and
//! refuses what is shaped otherwise.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::support::home::{Home, tmpcred};
use crate::support::schema::{Schema, judge, judge_schema};

/// How the names of fixtures begin whose mistake is one of shape. Others are of meaning,
/// which no schema knows.
const SHAPES: [&str; 5] =
    ["unknown-key", "unknown-table", "unknown-type", "missing-", "wrong-types"];

#[test]
fn an_independent_validator_judges_configurations_as_the_program_does() {
    let home = Home::new();
    let text = tmpcred(&home).args(["config", "schema"]).run().ok().stdout;
    let schema = home.write("schema.json", text);
    judge_schema(&home, &schema).ok();

    let (mut good, mut bad) = (Vec::new(), Vec::new());
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/config");
    for fixture in std::fs::read_dir(fixtures).unwrap().map(|entry| entry.unwrap().path()) {
        let read = |name: &str| std::fs::read_to_string(fixture.join(name)).ok();
        let name = fixture.file_name().unwrap().to_str().unwrap();
        for file in ["config.toml", "system.toml"] {
            let Some(text) = read(file) else { continue };
            let text = text.trim_start_matches('\u{feff}');
            let Ok(value) = toml::from_str::<Value>(text) else { continue };
            let is_good = !read("expected.txt").unwrap().starts_with("error");
            let is_bad =
                file == "config.toml" && SHAPES.iter().any(|start| name.starts_with(start));
            let write = || home.write(format!("{name}-{file}.json"), value.to_string());
            if is_bad {
                bad.push(write());
            } else if is_good {
                good.push(write());
            }
        }
    }
    good.push(example(&home));
    assert!(good.len() > 10 && bad.len() > 5, "{} and {}", good.len(), bad.len());
    judge(&home, Schema::File(&schema), &good).ok();
    let report = judge(&home, Schema::File(&schema), &bad).ended_with(1).json();
    for path in bad {
        let errors = report["errors"].as_array().unwrap().iter();
        let mut named = errors.filter_map(|error| error["filename"].as_str());
        assert!(named.any(|name| Path::new(name) == path), "{} was accepted", path.display());
    }
}

/// The file that `config init` writes.
fn example(home: &Home) -> PathBuf {
    tmpcred(home).args(["config", "init"]).run().ok();
    let text = std::fs::read_to_string(home.path(".config/tmpcred/config.toml")).unwrap();
    home.write("example.json", toml::from_str::<Value>(&text).unwrap().to_string())
}
