//! `tests/fixtures/config/NAME/`: what is configured, what is asked, what is said.
//!
//! `config.toml` is the user's file, `system.toml` the machine's, `project.toml`
//! the project's, `env` has a variable a line, `request.toml` stands for the
//! command line. All may be missing. `expected.txt` is the plan's reasons, or
//! the error. Where it is missing it is written, and the test fails.

use std::fs;
use std::time::Duration;

use super::{World, fixtures, shown};
use crate::config::{check, read_str};
use crate::plan::{Request, plan};

#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RequestFile {
    profile: Option<String>,
    role: Option<String>,
    scope: Vec<String>,
    audience: Option<String>,
    ttl_ms: Option<u64>,
}

#[test]
fn every_fixture_says_what_is_expected() {
    let mut wrong = Vec::new();
    for folder in fixtures() {
        let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
        let mut world = World::new();
        for (from, to) in [
            ("config.toml", "config.toml"),
            ("system.toml", "system.toml"),
            ("project.toml", "checkout/.tmpcred.toml"),
        ] {
            if let Some(text) = read(from) {
                world.write(to, text);
            }
        }
        for line in read("env").iter().flat_map(|text| text.lines()) {
            let (name, value) = line.split_once('=').unwrap();
            world = world.set(name, value);
        }
        let asked: RequestFile =
            read_str("request.toml", &read("request.toml").unwrap_or_default()).unwrap();
        let request = Request {
            profile: asked.profile,
            role: asked.role,
            elevate: None,
            scope: asked.scope,
            audience: asked.audience,
            ttl: asked.ttl_ms.map(Duration::from_millis),
            detected: Vec::new(),
            narrowing: Default::default(),
        };
        let said = match check(&world.host).and_then(|config| plan(&request, &config)) {
            Ok(plan) => plan
                .reasons
                .iter()
                .map(|r| format!("{}: {} ({})\n", r.what, r.value, r.origin))
                .collect(),
            Err(error) => shown(&error),
        };
        let said = world.neutral(&said);
        match read("expected.txt") {
            Some(expected) if expected == said => {}
            Some(expected) => {
                wrong.push(format!(
                    "== {}\n-- expected\n{expected}-- said\n{said}",
                    folder.display()
                ));
            }
            None => {
                fs::write(folder.join("expected.txt"), &said).unwrap();
                wrong.push(format!("== {}: written, look at it\n{said}", folder.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
