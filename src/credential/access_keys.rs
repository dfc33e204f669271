//! Long-lived access keys of AWS.

use serde::{Deserialize, Serialize};

use crate::secret::{Secret, bare, bare_option};

/// How long the parts may be, in bytes:
/// <https://docs.aws.amazon.com/IAM/latest/APIReference/API_AccessKey.html>; other
/// servers have shorter ones.
const MAX_ID: usize = 128;
const MAX_SECRET: usize = 1024;

/// What an access key ID may have besides letters and digits. AWS's own have none of these but
/// the first one; other servers let people choose theirs. What its secrets have, which `+`, `/`
/// and `=` belong to, is not among them: an ID is shown to whoever is asked, and a secret is not.
const IN_ID: &[u8] = b"_-.:@";

/// The keys of an IAM user, or of whoever the environment says. They sign
/// requests, and are themselves sent to nobody.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AccessKeys {
    /// The access key ID.
    #[serde(serialize_with = "bare")]
    pub id: Secret<String>,
    /// The secret access key.
    #[serde(serialize_with = "bare")]
    pub secret: Secret<String>,
    /// The session token, where they are those of a session.
    #[serde(default, serialize_with = "bare_option", skip_serializing_if = "Option::is_none")]
    pub session: Option<Secret<String>>,
}

impl AccessKeys {
    /// Keys that look like some.
    ///
    /// # Errors
    /// What is wrong with them; nothing of them is in it.
    pub fn new(
        id: Secret<String>,
        secret: Secret<String>,
        session: Option<Secret<String>>,
    ) -> Result<Self, &'static str> {
        let fits = |text: &Secret<String>, max| {
            let text = text.expose();
            (1..=max).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
        };
        if is_id_of_aws(secret.expose()) {
            return Err(match is_id_of_aws(id.expose()) {
                false => "the access key ID and the secret access key are swapped",
                true => "that is no secret access key, but an access key ID",
            });
        }
        let in_id = |byte: u8| byte.is_ascii_alphanumeric() || IN_ID.contains(&byte);
        if !fits(&id, MAX_ID) || !id.expose().bytes().all(in_id) {
            return Err("that is no access key ID");
        }
        if !fits(&secret, MAX_SECRET)
            || session.as_ref().is_some_and(|token| !fits(token, 64 * 1024))
        {
            return Err("that is no secret access key");
        }
        Ok(Self { id, secret, session })
    }

    /// Writes the keys down.
    pub fn write(&self) -> Secret<String> {
        // Strings always have a JSON form.
        Secret::new(serde_json::to_string(self).unwrap_or_default())
    }

    /// Reads them back.
    pub fn read(text: &Secret<String>) -> Option<Self> {
        let keys: Self = serde_json::from_str(text.expose()).ok()?;
        Self::new(keys.id, keys.secret, keys.session).ok()
    }
}

/// Whether this is what AWS makes an access key ID like: of a user, or of a session
/// (<https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html>).
fn is_id_of_aws(text: &str) -> bool {
    let rest = text.strip_prefix("AKIA").or_else(|| text.strip_prefix("ASIA"));
    rest.is_some_and(|rest| {
        rest.len() == 16
            && rest.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::AccessKeys;

    const ID: &str = "AKIAIOSFODNN7EXAMPLE";
    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    /// One that has nothing in it that an ID cannot have.
    const PLAIN: &str = "wJalrXUtnFEMIaK7MDENGabPxRfiCYEXAMPLEKEY";

    fn wrong(id: &str, secret: &str) -> Option<&'static str> {
        AccessKeys::new(id.to_string().into(), secret.to_string().into(), None).err()
    }

    #[test]
    fn keys_that_are_swapped_are_refused() {
        for id in [ID, "ASIAIOSFODNN7EXAMPLE", "0555b35654ad1656d804", "alice", "test-user_1"] {
            assert_eq!([wrong(id, SECRET), wrong(id, PLAIN)], [None, None], "{id}");
        }
        for secret in [SECRET, PLAIN] {
            assert!(wrong(secret, ID).unwrap().ends_with("are swapped"));
            assert_eq!(AccessKeys::read(&swapped(secret)).map(|_| ()), None, "nor is it read");
        }
        assert_eq!(wrong(ID, ID), Some("that is no secret access key, but an access key ID"));
        for id in [SECRET, "", "a b", "key=", "a\u{e9}"] {
            assert_eq!(wrong(id, SECRET), Some("that is no access key ID"), "{id}");
        }
    }

    fn swapped(secret: &str) -> crate::secret::Secret<String> {
        format!(r#"{{"id":"{secret}","secret":"{ID}"}}"#).into()
    }
}
