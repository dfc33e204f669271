//! Public keys in a file, of an issuer or of a client.

use std::path::Path;

use serde_json::Value;

use crate::broker::trusted_file;
use crate::error::{Error, ErrorKind, Result};
use crate::oidc::Keys;

/// How large such a file may be, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// What only the private half of a key has (RFC 7518 sections 6.2.2 and 6.3.2).
const PRIVATE: &str = "d";

/// Reads the keys in this file.
///
/// # Errors
/// [`ErrorKind::Config`] where the file cannot be trusted, is no key set, has no key by which a
/// signature could be verified, or has private ones.
pub(super) fn read(path: &Path) -> Result<Keys> {
    let unusable = || format!("{} cannot be used", path.display());
    let refused = |why: &str| Error::new(ErrorKind::Config, unusable()).because_of(why);
    let bytes = trusted_file::read(path, MAX_FILE)?;
    let keys = Keys::parse(&bytes)
        .map_err(|error| error.of_kind(ErrorKind::Config).context(unusable()))?;
    if has_private(&bytes) {
        return Err(refused("it has private keys").hint(
            "name a file with the public ones alone; where others could read this one, replace the keys",
        ));
    }
    if keys.is_empty() {
        return Err(refused("it has no public key by which a signature could be verified")
            .hint("a JWKS is an object with `keys`: RFC 7517 section 5"));
    }
    Ok(keys)
}

fn has_private(bytes: &[u8]) -> bool {
    let set: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let keys = set["keys"].as_array().into_iter().flatten();
    keys.into_iter().any(|key| key.get(PRIVATE).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::files;

    #[test]
    fn a_file_has_public_keys_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("jwks.json");
        let read = |text: &str| {
            files::write_private(&path, text.as_bytes()).unwrap();
            read(&path)
        };
        let public = r#""kty": "EC", "crv": "P-256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0""#;
        let good = format!(r#"{{"keys": [{{{public}, "kid": "a"}}]}}"#);
        assert!(read(&good).unwrap().has("a"));
        for (text, why) in [
            ("nonsense", "cannot be understood"),
            ("{}", "cannot be understood"),
            (r#"{"keys": []}"#, "no public key"),
            // For another purpose.
            (&format!(r#"{{"keys": [{{{public}, "use": "enc"}}]}}"#), "no public key"),
            (&format!(r#"{{"keys": [{{{public}, "d": "AA"}}]}}"#), "private keys"),
            (r#"{"keys": [{"kty": "oct", "k": "AA"}]}"#, "no public key"),
        ] {
            let error = read(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{error}");
            let said = format!("{error} {:?}", error.causes());
            assert!(said.contains(why) && said.contains("jwks.json cannot be used"), "{said}");
        }
    }
}
