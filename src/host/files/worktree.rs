//! Whether a place belongs to a project that people share.

use std::path::Path;

/// What lies at the top of one.
const MARKS: [&str; 5] = [".git", ".hg", ".jj", ".svn", ".tmpcred.toml"];

/// Whether what is written at `path` would be written into somebody's project: a
/// checkout, from which it may be committed, packed or copied into an image. The path
/// need not exist.
pub fn is_in_project(path: &Path) -> bool {
    let marked = |place: &Path| MARKS.iter().any(|mark| super::exists(place.join(mark)));
    // A symbolic link on the way may lead into one.
    let real = path.ancestors().find_map(|place| super::canonical(place).ok());
    // What both ways have in common is looked at once.
    let elsewhere = real.filter(|real| !path.starts_with(real));
    path.ancestors().any(marked) || elsewhere.is_some_and(|real| real.ancestors().any(marked))
}
