//! Telling a person's own answer from one that another page sends in their name.

use aws_lc_rs::hmac;
use axum::http::header::{COOKIE, ORIGIN};
use axum::http::{HeaderMap, HeaderValue};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::grants::random;
use crate::error::{Error, ErrorKind, Result};
use crate::oidc::Issuer;
use crate::secret::Secret;

/// The header in which browsers say which page a request comes from.
const FETCH_SITE: &str = "sec-fetch-site";

/// The key that ties a form to the browser it was shown in.
pub(super) struct Sessions {
    key: hmac::Key,
    cookie: String,
    path: String,
    origin: String,
}

/// The browser of one person.
pub(super) struct Session(Secret<String>);

impl Sessions {
    pub(super) fn new(issuer: &Issuer) -> Result<Self> {
        let mut bytes = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(bytes.as_mut_slice())
            .map_err(|_| Error::new(ErrorKind::Other, "the system gives no random numbers"))?;
        let url = issuer.url();
        Ok(Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, bytes.as_slice()),
            // Cookies know no ports: another program's must not be taken for ours.
            cookie: format!("tmpcred-dev-{}", url.port().unwrap_or_default()),
            path: url.path().to_string(),
            origin: url.origin().ascii_serialization(),
        })
    }

    /// The browser that sent these headers, where it was here before.
    pub(super) fn of(&self, headers: &HeaderMap) -> Option<Session> {
        let mut found = headers
            .get_all(COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .filter(|(name, _)| *name == self.cookie)
            .map(|(_, value)| value);
        match (found.next(), found.next()) {
            (Some(value), None) if value.len() == 43 => {
                Some(Session(Secret::new(value.to_string())))
            }
            _ => None,
        }
    }

    /// The browser that sent these headers; a new one where it never was here.
    pub(super) fn of_or_new(&self, headers: &HeaderMap) -> Result<Session> {
        match self.of(headers) {
            Some(session) => Ok(session),
            None => Ok(Session(random()?)),
        }
    }

    /// The header that makes a browser known.
    pub(super) fn cookie(&self, session: &Session) -> Option<HeaderValue> {
        let (name, value, path) = (&self.cookie, session.0.expose(), &self.path);
        let cookie = format!("{name}={value}; Path={path}; HttpOnly; SameSite=Strict");
        let mut value = HeaderValue::from_str(&cookie).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// What a form shown in this browser carries. `form` tells forms apart.
    pub(super) fn token(&self, session: &Session, form: &str) -> String {
        let tag = hmac::sign(&self.key, &message(session, form));
        URL_SAFE_NO_PAD.encode(tag.as_ref())
    }

    /// Whether an answer comes from the very form that was shown in this browser.
    pub(super) fn is_own(&self, headers: &HeaderMap, form: &str, token: Option<&str>) -> bool {
        let elsewhere = |name: &str, here: &str| {
            headers.get(name).is_some_and(|value| value.as_bytes() != here.as_bytes())
        };
        if elsewhere(ORIGIN.as_str(), &self.origin) || elsewhere(FETCH_SITE, "same-origin") {
            return false;
        }
        let Some(session) = self.of(headers) else { return false };
        let Some(tag) = token.and_then(|token| URL_SAFE_NO_PAD.decode(token).ok()) else {
            return false;
        };
        hmac::verify(&self.key, &message(&session, form), &tag).is_ok()
    }
}

fn message(session: &Session, form: &str) -> Vec<u8> {
    // The session has a fixed length, so the two cannot run into each other.
    [session.0.expose().as_bytes(), form.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, String)]) -> HeaderMap {
        pairs.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect()
    }

    #[test]
    fn only_the_form_that_was_shown_is_accepted() {
        let issuer = Issuer::parse("http://127.0.0.1:7/provider").unwrap();
        let sessions = Sessions::new(&issuer).unwrap();
        let session = sessions.of_or_new(&HeaderMap::new()).unwrap();
        let cookie = sessions.cookie(&session).unwrap().to_str().unwrap().to_string();
        assert!(cookie.starts_with("tmpcred-dev-7=") && cookie.contains("SameSite=Strict"));
        let cookie = cookie.split(';').next().unwrap().to_string();
        let token = sessions.token(&session, "f");
        let own = |pairs: &[(&'static str, String)], form, token: Option<&str>| {
            sessions.is_own(&headers(pairs), form, token)
        };
        let here = ("origin", "http://127.0.0.1:7".to_string());
        let known = ("cookie", format!("a=b; {cookie}"));
        assert!(own(&[known.clone(), here.clone()], "f", Some(&token)));
        assert!(
            own(std::slice::from_ref(&known), "f", Some(&token)),
            "not every browser says from where"
        );
        assert!(!own(&[known.clone(), here.clone()], "g", Some(&token)));
        assert!(!own(&[known.clone(), here.clone()], "f", Some("")));
        assert!(!own(&[known.clone(), here.clone()], "f", None));
        assert!(!own(std::slice::from_ref(&here), "f", Some(&token)));
        let other = sessions.of_or_new(&HeaderMap::new()).unwrap();
        assert!(!own(std::slice::from_ref(&known), "f", Some(&sessions.token(&other, "f"))));
        for origin in ["http://127.0.0.1:8", "http://localhost:7", "null", "https://127.0.0.1:7"] {
            assert!(!own(&[known.clone(), ("origin", origin.into())], "f", Some(&token)));
        }
        let site = |site: &str| [known.clone(), here.clone(), ("sec-fetch-site", site.to_string())];
        assert!(own(&site("same-origin"), "f", Some(&token)));
        assert!(!own(&site("cross-site"), "f", Some(&token)));
        assert!(!own(&site("same-site"), "f", Some(&token)));
        let twice = [known.clone(), ("cookie", cookie)];
        assert!(!sessions.is_own(
            &{
                let mut map = HeaderMap::new();
                for (name, value) in twice {
                    map.append(name, value.parse().unwrap());
                }
                map
            },
            "f",
            Some(&token)
        ));
    }
}
