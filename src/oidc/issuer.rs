//! Issuer identifiers.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de};
use url::Url;

use crate::host::http;

/// An issuer identifier (OpenID Connect Core section 2, RFC 8414 section 2): an
/// https URL, or http to loopback, without query, fragment or user name.
///
/// It is kept as written, because issuers are compared letter by letter.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Issuer {
    text: String,
    #[serde(skip)]
    url: Url,
}

impl Issuer {
    /// Takes an issuer identifier, or tells what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|cause| format!("'{text}' is not a URL: {cause}"))?;
        if url.query().is_some() || url.fragment().is_some() {
            return Err(format!(
                "'{text}' has a query or a fragment, which an issuer may not have"
            ));
        }
        http::require_secure(&url).map_err(|error| error.to_string())?;
        Ok(Self { text: text.to_string(), url })
    }

    /// The identifier, as written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The identifier as a URL, for connecting only.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// An address below the issuer.
    pub fn join(&self, path: &str) -> Url {
        let mut url = self.url.clone();
        let base = url.path().trim_end_matches('/').to_string();
        url.set_path(&format!("{base}/{path}"));
        url
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

impl fmt::Display for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Issuer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

impl JsonSchema for Issuer {
    fn schema_name() -> Cow<'static, str> {
        "Issuer".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": "uri",
            "description": "An issuer identifier: an https URL, or http to loopback, without query or fragment.",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_kept_as_written() {
        for text in ["https://a.example", "https://a.example/", "https://A.example/x"] {
            assert_eq!(Issuer::parse(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn paths_are_joined_without_doubling_the_slash() {
        for (issuer, joined) in [
            ("https://a.example", "https://a.example/token"),
            ("https://a.example/", "https://a.example/token"),
            ("https://a.example/t/1", "https://a.example/t/1/token"),
        ] {
            assert_eq!(Issuer::parse(issuer).unwrap().join("token").as_str(), joined);
        }
    }

    #[test]
    fn what_is_no_issuer_is_refused() {
        for bad in [
            "",
            "a",
            "http://a.example",
            "https://a.example?x=1",
            "https://a.example#f",
            "https://u:p@a.example",
        ] {
            assert!(Issuer::parse(bad).is_err(), "{bad}");
        }
    }
}
