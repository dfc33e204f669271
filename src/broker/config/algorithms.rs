//! Which signature algorithms are accepted of whoever shows something that they have signed.

use serde::de::Error;
use serde::{Deserialize, Deserializer};

use crate::oidc::jwt::{ALGORITHMS, Algorithm};

/// The names of [`ALGORITHMS`], in the same order (RFC 7518 section 3.1, RFC 8037).
const NAMES: &[&str] =
    &["ES256", "ES384", "EdDSA", "PS256", "PS384", "PS512", "RS256", "RS384", "RS512"];

struct Named(Algorithm);

impl<'de> Deserialize<'de> for Named {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let place = NAMES.iter().position(|known| *known == name);
        let algorithm = place.and_then(|place| ALGORITHMS.get(place));
        algorithm.copied().map(Self).ok_or_else(|| D::Error::unknown_variant(&name, NAMES))
    }
}

/// Reads a list of some of them: at least one, each with a public key.
pub(super) fn some<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<Algorithm>>, D::Error> {
    let named = Vec::<Named>::deserialize(deserializer)?;
    if named.is_empty() {
        return Err(D::Error::invalid_length(0, &"at least one algorithm"));
    }
    Ok(Some(named.into_iter().map(|Named(algorithm)| algorithm).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_algorithm_has_its_name() {
        let names: Vec<_> = ALGORITHMS.iter().map(|one| format!("{one:?}")).collect();
        assert_eq!(names, NAMES);
    }
}
