//! The form in which credentials rest in a keyring.
//!
//! Secrets have no `Serialize` on purpose, so this is the one place that writes
//! them down, and it yields a secret itself.

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use super::{Credential, Lifetime, Material, Principal};
use crate::secret::Secret;

/// The version of the form. An entry of another version counts as absent.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Record {
    v: u32,
    material: MaterialRecord,
    role: String,
    scope: Vec<String>,
    principal: Principal,
    lifetime: Lifetime,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
enum MaterialRecord {
    Bearer { token: String },
}

impl Drop for MaterialRecord {
    fn drop(&mut self) {
        match self {
            Self::Bearer { token } => token.zeroize(),
        }
    }
}

/// Writes a credential down.
pub fn encode(credential: &Credential) -> Secret<Vec<u8>> {
    let material = match &credential.material {
        Material::Bearer { token } => MaterialRecord::Bearer { token: token.expose().clone() },
    };
    let record = Record {
        v: VERSION,
        material,
        role: credential.role.clone(),
        scope: credential.scope.clone(),
        principal: credential.principal.clone(),
        lifetime: credential.lifetime,
    };
    // Strings and numbers always have a JSON form.
    Secret::new(serde_json::to_vec(&record).unwrap_or_default())
}

/// Reads a credential back. `None` where the entry is broken or of another
/// version: it is then minted anew.
pub fn decode(bytes: &Secret<Vec<u8>>) -> Option<Credential> {
    let record: Record = serde_json::from_slice(bytes.expose()).ok()?;
    if record.v != VERSION {
        return None;
    }
    let material = match &record.material {
        MaterialRecord::Bearer { token } if !token.is_empty() => {
            Material::Bearer { token: Secret::new(token.clone()) }
        }
        MaterialRecord::Bearer { .. } => return None,
    };
    Some(Credential {
        material,
        role: record.role,
        scope: record.scope,
        principal: record.principal,
        lifetime: record.lifetime,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    fn credential() -> Credential {
        Credential {
            material: Material::Bearer { token: Secret::new("t".into()) },
            role: "deploy".into(),
            scope: vec!["a".into()],
            principal: Principal { issuer: "https://i".into(), subject: "s".into() },
            lifetime: Lifetime::new(
                datetime!(2026-01-01 0:00 UTC),
                datetime!(2026-01-01 1:00 UTC),
                Some(time::Duration::seconds(-9)),
                datetime!(2025-12-31 0:00 UTC),
            ),
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let back = decode(&encode(&credential())).unwrap();
        assert_eq!(back.material.token().expose(), "t");
        assert_eq!(back.lifetime, credential().lifetime);
        assert_eq!(back.principal, credential().principal);
        assert_eq!((back.role, back.scope), ("deploy".into(), vec!["a".to_string()]));
    }

    #[test]
    fn broken_entries_count_as_absent() {
        let good = encode(&credential());
        for cut in 0..good.expose().len() {
            assert!(decode(&Secret::new(good.expose()[..cut].to_vec())).is_none());
        }
        let other = String::from_utf8(good.expose().clone()).unwrap().replace("\"v\":1", "\"v\":2");
        assert!(decode(&Secret::new(other.into_bytes())).is_none());
    }
}
