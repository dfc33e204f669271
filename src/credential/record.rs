//! The form in which credentials rest in a keyring.
//!
//! Secrets have no `Serialize` on purpose: this writes those of credentials down, and
//! yields a secret itself. Sessions and access keys do so for their own.

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
    Bearer {
        token: String,
    },
    Bound {
        token: String,
        thumbprint: String,
    },
    Aws {
        access_key_id: String,
        secret_access_key: String,
        session_token: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        region: Option<String>,
    },
}

impl Drop for MaterialRecord {
    fn drop(&mut self) {
        match self {
            Self::Bearer { token } | Self::Bound { token, .. } => token.zeroize(),
            Self::Aws { access_key_id, secret_access_key, session_token, .. } => {
                access_key_id.zeroize();
                secret_access_key.zeroize();
                session_token.zeroize();
            }
        }
    }
}

/// Writes a credential down.
pub fn encode(credential: &Credential) -> Secret<Vec<u8>> {
    let material = match &credential.material {
        Material::Bearer { token } => MaterialRecord::Bearer { token: token.expose().clone() },
        Material::Bound { token, thumbprint } => {
            MaterialRecord::Bound { token: token.expose().clone(), thumbprint: thumbprint.clone() }
        }
        Material::Aws { access_key_id, secret_access_key, session_token, region } => {
            MaterialRecord::Aws {
                access_key_id: access_key_id.expose().clone(),
                secret_access_key: secret_access_key.expose().clone(),
                session_token: session_token.expose().clone(),
                region: region.clone(),
            }
        }
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
        MaterialRecord::Bound { token, thumbprint } if !token.is_empty() => {
            Material::Bound { token: Secret::new(token.clone()), thumbprint: thumbprint.clone() }
        }
        MaterialRecord::Aws { access_key_id, secret_access_key, session_token, region }
            if [access_key_id, secret_access_key, session_token].iter().all(|s| !s.is_empty()) =>
        {
            Material::Aws {
                access_key_id: Secret::new(access_key_id.clone()),
                secret_access_key: Secret::new(secret_access_key.clone()),
                session_token: Secret::new(session_token.clone()),
                region: region.clone(),
            }
        }
        MaterialRecord::Bearer { .. }
        | MaterialRecord::Bound { .. }
        | MaterialRecord::Aws { .. } => return None,
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
mod fuzz;

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
        assert_eq!(back.material.secret().expose(), "t");
        assert_eq!(back.lifetime, credential().lifetime);
        assert_eq!(back.principal, credential().principal);
        assert_eq!((back.role, back.scope), ("deploy".into(), vec!["a".to_string()]));
    }

    fn aws(session_token: &str, region: Option<&str>) -> Credential {
        Credential {
            material: Material::Aws {
                access_key_id: Secret::new("ASIA".into()),
                secret_access_key: Secret::new("k".into()),
                session_token: Secret::new(session_token.into()),
                region: region.map(String::from),
            },
            ..credential()
        }
    }

    #[test]
    fn credentials_of_aws_are_read_back_whole_or_not_at_all() {
        for region in [None, Some("eu-central-1")] {
            let variables = |credential: &Credential| {
                let variables = credential.material.variables("E").into_iter();
                variables.map(|(name, value)| (name, value.expose().clone())).collect::<Vec<_>>()
            };
            let credential = aws("s", region);
            let back = decode(&encode(&credential)).unwrap();
            assert_eq!(variables(&back), variables(&credential));
            assert_eq!(variables(&back).len(), if region.is_some() { 6 } else { 4 });
        }
        assert!(decode(&encode(&aws("", None))).is_none());
    }

    #[test]
    fn a_token_that_is_bound_is_read_back_as_such() {
        let material = Material::Bound { token: Secret::new("t".into()), thumbprint: "k".into() };
        let back = decode(&encode(&Credential { material, ..credential() })).unwrap();
        assert_eq!(back.material.key(), Some("k"));
        assert_eq!(back.material.token().unwrap().expose(), "t");
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
