//! The environment variables, read once.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::Arc;

/// The names of the profiles for which `credential-process` is being asked already,
/// with spaces between them. What this program starts to get a credential has them
/// in its environment, so that none is asked for to get itself.
pub const ASKED_FOR: &str = "TMPCRED_CREDENTIAL_PROCESS";

/// The key under which the cache is sealed into files where there is no keyring.
/// Nothing that this program starts gets it, but for itself where it renews ahead.
pub const CACHE_KEY: &str = "TMPCRED_CACHE_KEY";

/// A snapshot of environment variables.
///
/// Its `Debug` form shows names only: values may be secrets. Clones share the
/// variables.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Env(Arc<Variables>);

type Variables = BTreeMap<OsString, OsString>;

/// Whether `Path` is `PATH`: on Windows it is, and most names there have small letters.
const ANY_CASE: bool = cfg!(windows);

/// A name as it is spelled among these variables.
fn spelled<'a>(all: &'a Variables, name: &OsStr, any_case: bool) -> Option<&'a OsString> {
    match any_case {
        true => all.keys().find(|known| known.eq_ignore_ascii_case(name)),
        false => all.get_key_value(name).map(|(known, _)| known),
    }
}

impl Env {
    /// The variables this process was started with.
    #[expect(clippy::disallowed_methods, reason = "this is the port to the environment")]
    pub fn of_process() -> Self {
        Self(Arc::new(std::env::vars_os().collect()))
    }

    /// The variables handed in, for tests.
    pub fn from_pairs<K: Into<OsString>, V: Into<OsString>>(
        pairs: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        Self(Arc::new(pairs.into_iter().map(|(k, v)| (k.into(), v.into())).collect()))
    }

    /// A variable's value. An empty one counts as unset, as it does for most tools.
    pub fn get_os(&self, name: &str) -> Option<&OsStr> {
        let name = spelled(&self.0, OsStr::new(name), ANY_CASE)?;
        self.0.get(name).map(OsString::as_os_str).filter(|v| !v.is_empty())
    }

    /// A variable's value where it is valid Unicode and not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.get_os(name).and_then(OsStr::to_str)
    }

    /// The home directory, as it is named here.
    pub fn home(&self) -> Option<&Path> {
        ["HOME", "USERPROFILE"].iter().find_map(|name| self.get_os(name)).map(Path::new)
    }

    /// The same with one more variable, or another value of it.
    #[must_use]
    pub fn with(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        let name = name.into();
        let name = spelled(&self.0, &name, ANY_CASE).cloned().unwrap_or(name);
        Arc::make_mut(&mut self.0).insert(name, value.into());
        self
    }

    /// The same without a variable.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        if let Some(name) = spelled(&self.0, OsStr::new(name), ANY_CASE).cloned() {
            Arc::make_mut(&mut self.0).remove(&name);
        }
        self
    }

    /// Whether a variable says yes: set, and neither `0`, `false`, `no` nor `off`.
    pub fn flag(&self, name: &str) -> bool {
        self.get_os(name).is_some_and(|value| {
            !["0", "false", "no", "off"].iter().any(|no| value.eq_ignore_ascii_case(no))
        })
    }

    /// The names of the variables that a CI platform sets for its own programs:
    /// those that begin with `prefix`, and those by which programs find their way
    /// through a network.
    pub fn of_platform(&self, prefix: &str) -> Vec<&str> {
        const NETWORK: &[&str] = &[
            "HTTPS_PROXY",
            "HTTP_PROXY",
            "NO_PROXY",
            "SSL_CERT_DIR",
            "SSL_CERT_FILE",
            "https_proxy",
            "http_proxy",
            "no_proxy",
        ];
        let names = self.0.keys().filter_map(|name| name.to_str());
        names.filter(|name| name.starts_with(prefix) || NETWORK.contains(name)).collect()
    }

    /// All variables, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.0.iter().map(|(k, v)| (k.as_os_str(), v.as_os_str()))
    }
}

impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_means_unset_and_flags_know_no() {
        let env = Env::from_pairs([("A", ""), ("B", "1"), ("C", "False"), ("D", "yes")]);
        assert_eq!(env.get("A"), None);
        assert!(!env.flag("A") && env.flag("B") && !env.flag("C") && env.flag("D"));
        assert!(!env.flag("missing"));
    }

    #[test]
    fn names_are_found_whatever_their_case_where_it_makes_no_difference() {
        let env = Env::from_pairs([("Path", "p"), ("SystemRoot", "s")]);
        let find = |name: &str, any_case| {
            let spelled = spelled(&env.0, OsStr::new(name), any_case)?;
            spelled.to_str()
        };
        for (name, known) in [("PATH", "Path"), ("SYSTEMROOT", "SystemRoot"), ("Path", "Path")] {
            assert_eq!(find(name, true), Some(known));
            assert_eq!(find(name, false), (name == known).then_some(known));
        }
        assert_eq!(find("PAT", true), None);
        let other = env.clone().with("PATH", "q");
        assert_eq!(other.iter().count(), if cfg!(windows) { 2 } else { 3 });
        assert_eq!(other.get("PATH"), Some("q"));
        assert_eq!(other.without("PATH").get("PATH"), None);
    }

    #[test]
    fn debug_shows_no_values() {
        let env = Env::from_pairs([("TOKEN", "hunter2")]);
        assert!(!format!("{env:?}").contains("hunter2"));
    }
}
