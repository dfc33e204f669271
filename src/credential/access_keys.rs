//! Long-lived access keys of AWS.

use serde::{Deserialize, Serialize};

use crate::secret::{Secret, bare, bare_option};

/// How long the parts may be, in bytes:
/// <https://docs.aws.amazon.com/IAM/latest/APIReference/API_AccessKey.html>; other
/// servers have shorter ones.
const MAX_ID: usize = 128;
const MAX_SECRET: usize = 1024;

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
        if !fits(&id, MAX_ID) {
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
