//! Each test that the pages about standards name exists, and each demand there has one, or
//! says why it has none.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use syn::{Attribute, Item};

use super::{page, pages};

#[test]
fn each_demand_of_a_standard_has_a_test_that_exists() {
    let tests = tests();
    assert!(tests.len() >= 1000, "only {} tests were found", tests.len());
    let (mut demands, mut named) = (0, 0);
    for path in pages().iter().filter(|path| path.starts_with("docs/conformance")) {
        let mut last_title = None;
        for line in page(path).lines() {
            let Some(row) = line.strip_prefix('|').and_then(|row| row.strip_suffix('|')) else {
                last_title = None;
                for name in names(line) {
                    assert!(tests.contains(name), "{path}: there is no test {name}");
                }
                continue;
            };
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let Some(&last) = cells.last() else { continue };
            let Some(title) = last_title else {
                last_title = Some(last);
                continue;
            };
            for name in names(last) {
                assert!(tests.contains(name), "{path}: there is no test {name}");
                named += 1;
            }
            if title == "test" && !last.starts_with("---") {
                let shown = names(last).next().is_some();
                assert!(shown || last.starts_with("not here: "), "{path}: {line}");
                demands += 1;
            }
        }
    }
    assert!(demands >= 100 && named >= 150, "{demands} demands, {named} tests");
}

/// What a text names that may be a test.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let quoted = text.split('`').skip(1).step_by(2);
    let of_path = |b: u8| b.is_ascii_alphanumeric() || b"_:".contains(&b);
    quoted.filter(move |name| name.contains("::") && name.bytes().all(of_path))
}

/// The tests there are, by their path: those of `tests/e2e` begin with `e2e`.
fn tests() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests = BTreeSet::new();
    below(&root.join("src"), &mut Vec::new(), &mut tests);
    below(&root.join("tests/e2e"), &mut vec!["e2e".into()], &mut tests);
    tests
}

fn below(folder: &Path, path: &mut Vec<String>, tests: &mut BTreeSet<String>) {
    let mut entries: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for entry in entries {
        let name = entry.file_stem().unwrap().to_str().unwrap().to_string();
        let is_root = matches!(&*name, "mod" | "lib" | "main");
        if !is_root {
            path.push(name);
        }
        if entry.is_dir() {
            below(&entry, path, tests);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            let file = syn::parse_file(&std::fs::read_to_string(&entry).unwrap()).unwrap();
            within(&file.items, path, tests);
        }
        if !is_root {
            path.pop();
        }
    }
}

fn within(items: &[Item], path: &mut Vec<String>, tests: &mut BTreeSet<String>) {
    for item in items {
        match item {
            Item::Fn(function) if function.attrs.iter().any(is_test) => {
                tests.insert(format!("{}::{}", path.join("::"), function.sig.ident));
            }
            Item::Mod(module) => {
                let Some((_, items)) = &module.content else { continue };
                path.push(module.ident.to_string());
                within(items, path, tests);
                path.pop();
            }
            _ => {}
        }
    }
}

/// `#[test]`, `#[tokio::test]`.
fn is_test(attribute: &Attribute) -> bool {
    attribute.path().segments.last().is_some_and(|last| last.ident == "test")
}
