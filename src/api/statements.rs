//! What people signed, brought to a broker by anybody.

use serde::Serialize;
use uuid::Uuid;

use super::{Client, Failure};
use crate::wire::elevation::{ELEVATIONS_PATH, Elevation, RULES_PATH, Rules};

#[derive(Serialize)]
struct Brought<'a> {
    statement: &'a str,
}

impl Client<'_> {
    /// Brings statements: a request, and what is said about it, or either. Whoever asks shows
    /// nothing else, so this is for [`Client::of_nobody`].
    ///
    /// # Errors
    /// As with [`Client::post`].
    pub async fn bring(&self, statements: &str) -> Result<Elevation, Failure> {
        self.post(ELEVATIONS_PATH, &Brought { statement: statements }).await
    }

    /// Brings a statement to what it is about: whoever signed it wants this to be done.
    ///
    /// # Errors
    /// As with [`Client::post`].
    pub async fn bring_to(
        &self,
        id: Uuid,
        what: &str,
        statement: &str,
    ) -> Result<Elevation, Failure> {
        self.post(&format!("{ELEVATIONS_PATH}/{id}/{what}"), &Brought { statement }).await
    }

    /// The rules that are in force, which a signed request names.
    ///
    /// # Errors
    /// As with [`Client::get`].
    pub async fn rules(&self) -> Result<Rules, Failure> {
        self.get(RULES_PATH, &()).await
    }
}
