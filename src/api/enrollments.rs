//! Keys that people enroll, as a broker is asked for them.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Client, Failure};
use crate::wire::ENROLLMENTS_PATH;

/// A key that somebody enrolled. Times are as RFC 3339 has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// Its id.
    pub id: String,
    /// Its fingerprint.
    pub fingerprint: String,
    /// Whose it is, by their name in the broker's directory.
    pub person: String,
    /// What they call it.
    pub label: String,
    /// `pending`, `approved`, `lapsed` or `removed`.
    pub state: String,
    /// When it was enrolled.
    pub enrolled_at: String,
    /// Who approved it.
    pub approved_by: Option<String>,
    /// When it lapses, if its owner does not log in before.
    pub lapses_at: String,
}

/// Keys that people enrolled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    /// Whoever asks, by their name in the broker's directory, where only theirs are listed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<String>,
    /// The oldest first.
    pub keys: Vec<Key>,
}

#[derive(Serialize)]
struct Which {
    mine: Option<bool>,
}

#[derive(Default, Serialize)]
struct Form<'a> {
    statement: Option<&'a str>,
    fingerprint: Option<&'a str>,
    reason: Option<&'a str>,
}

impl Client<'_> {
    /// The keys that people enrolled, or those of whoever asks.
    ///
    /// # Errors
    /// As with [`Client::get`].
    pub async fn enrolled_keys(&self, mine: bool) -> Result<Keys, Failure> {
        self.get(ENROLLMENTS_PATH, &Which { mine: mine.then_some(true) }).await
    }

    /// Enrolls the key that signed this.
    ///
    /// # Errors
    /// As with [`Client::post`].
    pub async fn enroll(&self, statement: &str) -> Result<Key, Failure> {
        let form = Form { statement: Some(statement), ..Form::default() };
        self.post(ENROLLMENTS_PATH, &form).await
    }

    /// Approves the key with this id and fingerprint.
    ///
    /// # Errors
    /// As with [`Client::post`].
    pub async fn approve_key(&self, id: Uuid, fingerprint: &str) -> Result<Key, Failure> {
        let form = Form { fingerprint: Some(fingerprint), ..Form::default() };
        self.post(&format!("{ENROLLMENTS_PATH}/{id}/approve"), &form).await
    }

    /// Removes the key with this id.
    ///
    /// # Errors
    /// As with [`Client::post`].
    pub async fn remove_key(&self, id: Uuid, reason: &str) -> Result<Key, Failure> {
        let form = Form { reason: Some(reason), ..Form::default() };
        self.post(&format!("{ENROLLMENTS_PATH}/{id}/remove"), &form).await
    }
}
