//! Configuration: files to typed values, each of which remembers where it came from.
//!
//! Layers, lowest first: built-in values, the machine's file, the user's, the
//! project's `.tmpcred.toml` where the person trusts it, the environment. What
//! the command line says wins over all of them when a run is planned.
//!
//! A file becomes a tree whose parts know their place (`tree`), the trees are
//! merged, and the types are read from the result (`de`, `model`). What is wrong
//! is shown with the offending line (`diagnostic`).

mod append;
pub mod aws;
mod de;
pub(crate) mod diagnostic;
mod load;
mod misfit;
mod mistake;
mod model;
mod project;
mod read;
pub(crate) mod rules;
mod schema;
mod source;
mod tagged;
mod tree;
mod trust;

pub use append::Addition;
pub(crate) use diagnostic::without_secret;
pub(crate) use load::PROFILE_VARIABLE;
pub use load::{
    Layer, LayerFile, check, layers, load, load_without_project, parse, read_checked, read_file,
    read_str,
};
pub use misfit::Misfit;
pub(crate) use model::Broken;
pub use model::{
    CacheSettings, Config, ConsoleSettings, Exchange, MAX_TTL, Profile, Project, check_name,
    check_ttl,
};
pub use project::{PROJECT_FILE, project_file};
pub use read::MAX_BYTES;
pub use schema::{EXAMPLE, schema};
pub use source::{Origin, Source, SourceKind};
pub use tagged::Tagged;
pub use trust::{Candidate, Standing, untrust};

#[cfg(test)]
pub(crate) mod tests;
