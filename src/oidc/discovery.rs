//! Discovery documents (OpenID Connect Discovery 1.0, RFC 8414).

use serde::{Deserialize, Serialize};
use url::Url;

use super::Issuer;
use super::documents::{Documents, Freshness};
use crate::error::{Error, ErrorKind, Result, foreign};
use crate::host::clock::Clock;
use crate::host::http::{HttpClient, require_secure};

/// Where the document is, below the issuer.
pub const WELL_KNOWN: &str = ".well-known/openid-configuration";

/// What a provider says of itself, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Discovery {
    /// Its identifier.
    pub issuer: String,
    /// Where people log in. Issuers of workload tokens have none.
    #[serde(default)]
    pub authorization_endpoint: Option<Url>,
    /// Where tokens are issued.
    #[serde(default)]
    pub token_endpoint: Option<Url>,
    /// Where the device flow starts (RFC 8628 section 4).
    #[serde(default)]
    pub device_authorization_endpoint: Option<Url>,
    /// Where tokens are revoked (RFC 7009).
    #[serde(default)]
    pub revocation_endpoint: Option<Url>,
    /// Where it tells whether a token is good (RFC 7662).
    #[serde(default)]
    pub introspection_endpoint: Option<Url>,
    /// Where its keys are.
    pub jwks_uri: Url,
    /// Whether it sends `iss` with the authorization response (RFC 9207).
    #[serde(default)]
    pub authorization_response_iss_parameter_supported: bool,
    /// The PKCE methods it knows (RFC 7636).
    #[serde(default)]
    pub code_challenge_methods_supported: Vec<String>,
}

impl Discovery {
    /// Fetches the document of an issuer, or takes the one that was kept.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`] where it cannot be had, [`ErrorKind::Verification`]
    /// where it is not this issuer's, or names addresses that may not be used.
    pub async fn fetch(
        issuer: &Issuer,
        http: &HttpClient,
        clock: &dyn Clock,
        documents: &dyn Documents,
    ) -> Result<Self> {
        Self::fetch_at(issuer, issuer, http, clock, documents).await
    }

    /// The same for an issuer that is found at another address too. The document has
    /// to be the issuer's own, and what it says is below the issuer is looked for
    /// below the address.
    ///
    /// # Errors
    /// As [`fetch`](Self::fetch).
    pub async fn fetch_at(
        address: &Issuer,
        issuer: &Issuer,
        http: &HttpClient,
        clock: &dyn Clock,
        documents: &dyn Documents,
    ) -> Result<Self> {
        if let Some(kept) = Self::kept_at(address, issuer, documents) {
            return Ok(kept);
        }
        let url = address.join(WELL_KNOWN);
        let (discovery, Freshness { age, keep }) = Self::ask(address, issuer, http).await?;
        // Unknown members are dropped, so only what was checked is kept.
        if keep && let Ok(bytes) = serde_json::to_vec(&discovery) {
            documents.put(url.as_str(), &bytes, clock.now() + age);
        }
        Ok(discovery.moved(issuer, address))
    }

    /// The document of an issuer that was kept and is still good.
    pub fn kept(issuer: &Issuer, documents: &dyn Documents) -> Option<Self> {
        Self::kept_at(issuer, issuer, documents)
    }

    fn kept_at(address: &Issuer, issuer: &Issuer, documents: &dyn Documents) -> Option<Self> {
        let kept = documents.get(address.join(WELL_KNOWN).as_str())?;
        let discovery: Self = serde_json::from_slice(&kept).ok()?;
        discovery.check(issuer).is_ok().then(|| discovery.moved(issuer, address))
    }

    /// Asks for the document of an issuer at an address, and tells how long it is good.
    ///
    /// # Errors
    /// As [`fetch`](Self::fetch).
    pub async fn ask(
        address: &Issuer,
        issuer: &Issuer,
        http: &HttpClient,
    ) -> Result<(Self, Freshness)> {
        let url = address.join(WELL_KNOWN);
        let context = format!("the issuer {issuer} cannot be used");
        let response = http.get(&url).await.map_err(|error| error.context(&context))?;
        if let Some(outage) = response.outage(url.as_str()) {
            return Err(outage.context(&context));
        }
        if !response.status.is_success() {
            return Err(Error::new(ErrorKind::Unreachable, context)
                .because_of(format!("{url} answered {}", response.status.as_u16()))
                .hint("check the issuer in the configuration"));
        }
        let discovery: Self =
            response.json("its discovery document").map_err(|error| error.context(&context))?;
        discovery.check(issuer).map_err(|error| error.context(&context))?;
        Ok((discovery, Freshness::of(&response)))
    }

    /// The same, with everything that is below the issuer below another address.
    fn moved(mut self, issuer: &Issuer, address: &Issuer) -> Self {
        let endpoints = [
            &mut self.authorization_endpoint,
            &mut self.token_endpoint,
            &mut self.device_authorization_endpoint,
            &mut self.revocation_endpoint,
            &mut self.introspection_endpoint,
        ];
        let base = format!("{}/", issuer.as_str().trim_end_matches('/'));
        for url in endpoints.into_iter().flatten().chain([&mut self.jwks_uri]) {
            if issuer != address
                && let Some(path) = url.as_str().strip_prefix(&base)
                && let Ok(below) =
                    Url::parse(&format!("{}/", address.as_str().trim_end_matches('/')))
                && let Ok(moved) = below.join(&format!("./{path}"))
            {
                *url = moved;
            }
        }
        self
    }

    /// Checks that the document is this issuer's own (OpenID Connect Discovery
    /// section 4.3) and that every address in it may be used.
    pub(super) fn check(&self, issuer: &Issuer) -> Result<()> {
        if self.issuer != issuer.as_str() {
            return Err(Error::new(
                ErrorKind::Verification,
                format!(
                    "its discovery document is that of '{}', not of '{issuer}'",
                    foreign(&self.issuer)
                ),
            )
            .hint("the issuer in the configuration must match letter by letter"));
        }
        let endpoints = [
            &self.authorization_endpoint,
            &self.token_endpoint,
            &self.device_authorization_endpoint,
            &self.revocation_endpoint,
            &self.introspection_endpoint,
        ];
        for url in endpoints.into_iter().flatten().chain([&self.jwks_uri]) {
            require_secure(url)?;
            if issuer.url().scheme() == "https" && url.scheme() != "https" {
                return Err(Error::new(
                    ErrorKind::Verification,
                    format!("its discovery document leads from https to {url}"),
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(issuer: &str, jwks: &str) -> Discovery {
        serde_json::from_value(serde_json::json!({"issuer": issuer, "jwks_uri": jwks})).unwrap()
    }

    #[test]
    fn the_issuer_must_match_letter_by_letter() {
        let issuer = Issuer::parse("https://i.example").unwrap();
        assert!(document("https://i.example", "https://i.example/k").check(&issuer).is_ok());
        for other in ["https://i.example/", "https://I.example", "https://evil.example"] {
            assert!(document(other, "https://i.example/k").check(&issuer).is_err(), "{other}");
        }
    }

    #[test]
    fn at_another_address_it_finds_what_is_below_the_issuer() {
        let issuer = Issuer::parse("https://i.example/t").unwrap();
        let address = Issuer::parse("https://b.example/u/").unwrap();
        for (jwks, moved) in [
            ("https://i.example/t/keys/1?x=y", "https://b.example/u/keys/1?x=y"),
            ("https://i.example/t//evil.example/k", "https://b.example/u//evil.example/k"),
            (
                "https://i.example/t/https://evil.example/k",
                "https://b.example/u/https://evil.example/k",
            ),
            ("https://i.example/other/keys", "https://i.example/other/keys"),
            ("https://keys.example/t/1", "https://keys.example/t/1"),
        ] {
            let found = document(issuer.as_str(), jwks).moved(&issuer, &address);
            assert_eq!(found.jwks_uri.as_str(), moved);
            assert_eq!(found.issuer, issuer.as_str());
        }
        let same = document(issuer.as_str(), "https://i.example/t/k").moved(&issuer, &issuer);
        assert_eq!(same.jwks_uri.as_str(), "https://i.example/t/k");
    }

    #[test]
    fn what_is_not_understood_is_passed_over() {
        let known =
            serde_json::json!({"issuer": "https://i.example", "jwks_uri": "https://i.example/k"});
        let mut more = known.clone();
        more["grant_management_endpoint"] = "https://i.example/grants".into();
        more["of the future"] =
            serde_json::json!({"deep": [null, {"issuer": "https://evil.example"}]});
        more["scopes_supported"] = 7.into();
        let read = |document| serde_json::from_value::<Discovery>(document).unwrap();
        assert_eq!(format!("{:?}", read(more)), format!("{:?}", read(known)));
    }

    #[test]
    fn addresses_must_be_secure() {
        let issuer = Issuer::parse("https://i.example").unwrap();
        for bad in ["http://i.example/k", "http://127.0.0.1/k", "file:///k"] {
            assert!(document("https://i.example", bad).check(&issuer).is_err(), "{bad}");
        }
    }
}
