//! The directions between the rooms of `src/`, kept by reading the imports.
//!
//! `main → cli → pipeline → {plan, cache, identity, mint}`; what each room must
//! leave alone is in [`rules`], and how the imports are found in [`sources`].

mod rules;
mod snippets;
mod sources;

use std::path::Path;

use sources::Sources;

#[test]
fn the_rooms_keep_their_directions() {
    let sources = Sources::read(Path::new(env!("CARGO_MANIFEST_DIR")));
    let violations = rules::check(&sources);
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

#[test]
fn no_file_grows_beyond_what_can_be_read() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let violations = rules::check_lengths(&sources::lengths(root), rules::LONG_FILES);
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}
