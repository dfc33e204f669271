//! Whether those who are trusted have keys for what is accepted of them. A broker starts where
//! they have none, as keys may change; nobody gets in by them until then.

use std::path::Path;

use super::Authenticator;
use crate::error::{Error, ErrorKind};
use crate::oidc::Keys;
use crate::oidc::jwt::Algorithm;

/// What is wrong with the keys of somebody.
#[derive(Debug)]
pub enum Misfit {
    /// Nothing that they sign is ever accepted.
    All(Error),
    /// Of some of them nothing is.
    Some(Error),
}

/// Keys that are at hand, and what they are to be for.
pub(super) struct Fitting<'a> {
    /// The table in the configuration.
    pub(super) table: String,
    /// Where they are from.
    pub(super) place: String,
    pub(super) keys: Keys,
    /// The algorithms that are accepted.
    pub(super) accepted: &'a [Algorithm],
}

impl Authenticator {
    /// What is wrong with the keys that are at hand: those in files, and what was fetched.
    pub(in crate::broker) fn misfits(&self) -> Vec<Misfit> {
        let issuers = self.trusted.values().filter_map(|(trusted, _)| trusted.fitting());
        issuers.chain(self.clients.fitting()).filter_map(|one| one.misfit()).collect()
    }
}

impl Fitting<'_> {
    fn misfit(&self) -> Option<Misfit> {
        let Self { table, place, keys, accepted } = self;
        // That there are none is told by who has fetched them.
        if keys.is_empty() {
            return None;
        }
        if accepted.iter().all(|algorithm| keys.candidates(None, *algorithm).next().is_none()) {
            let there = match keys.algorithms() {
                none if none.is_empty() => "none that such keys can be for".to_string(),
                some => listed(&some),
            };
            let said = format!("[{table}] accepts nothing that its keys can sign");
            return Some(Misfit::All(
                Error::new(ErrorKind::Config, said)
                    .because_of(format!(
                        "`algorithms` are {}; the keys of {place} are for {there}",
                        listed(accepted)
                    ))
                    .hint("correct `algorithms`, or have the keys exchanged: until then nobody gets in by them"),
            ));
        }
        let (key, named) = keys.misnamed().next()?;
        let said = format!("[{table}] has a key that nothing can be verified by: {key}");
        Some(Misfit::Some(
            Error::new(ErrorKind::Config, said)
                .because_of(format!("its `alg` in {place} is {named}, which it cannot be for"))
                .hint("whoever keeps the keys has to correct that"),
        ))
    }
}

fn listed(algorithms: &[Algorithm]) -> String {
    let names: Vec<_> = algorithms.iter().map(|one| format!("{one:?}")).collect();
    names.join(", ")
}

/// Names a file with keys.
pub(super) fn named(file: Option<&Path>) -> String {
    file.map(|path| path.display().to_string()).unwrap_or_default()
}
