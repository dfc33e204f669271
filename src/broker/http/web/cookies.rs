//! What browsers carry. Servers beside this one, on the same host, could read and write other
//! cookies than these: the prefix `__Host-` keeps them from it.

use aws_lc_rs::digest::{SHA256, digest};
use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue};
use data_encoding::HEXLOWER;
use time::OffsetDateTime;

use crate::broker::Broker;
use crate::broker::web::{PageSeal, Purpose, Session, SignIn};
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;

/// How long a cookie is at most, of which browsers take 4096 bytes with its name.
const PART: usize = 3600;

/// Into how many a session is divided at most: a request's headers are limited, too.
const PARTS: usize = 6;

/// How many sign-ins a browser remembers at once: one for each tab that somebody opens from a
/// message before they are signed in.
const SIGN_INS: usize = 6;

/// Why somebody of whom more is said gets no session.
const TOO_LARGE: &str = "what the provider says of you is too much for a browser to carry";

/// The cookies of a broker.
#[derive(Clone, Copy)]
pub(super) struct Cookies<'a> {
    seal: &'a PageSeal,
    is_secure: bool,
}

impl<'a> Cookies<'a> {
    pub(super) fn of(broker: &'a Broker) -> Self {
        let is_secure = broker.issuer.url().scheme() == "https";
        Self { seal: &broker.pages_seal, is_secure }
    }

    fn prefix(self) -> &'static str {
        if self.is_secure { "__Host-" } else { "" }
    }

    fn session_name(self, part: usize) -> String {
        let prefix = self.prefix();
        match part {
            0 => format!("{prefix}tmpcred-session"),
            part => format!("{prefix}tmpcred-session-{part}"),
        }
    }

    /// How the names of all that is remembered of sign-ins begin.
    fn sign_in_names(self) -> String {
        format!("{}tmpcred-sign-in-", self.prefix())
    }

    /// Each sign-in has a cookie of its own, so that none ends another one.
    fn sign_in_name(self, state: &str) -> String {
        let hash = digest(&SHA256, state.as_bytes());
        self.sign_in_names() + &HEXLOWER.encode(&hash.as_ref()[..8])
    }

    /// Who is signed in, as far as the browser shows.
    pub(super) fn session(self, headers: &HeaderMap) -> Option<Session> {
        let part = |part| value(headers, &self.session_name(part));
        let (number, first) = part(0)?.split_once('.')?;
        let number: usize = number.parse().ok().filter(|number| *number <= PARTS)?;
        let mut text = first.to_string();
        for other in 1..number {
            text += part(other)?;
        }
        self.seal.open(Purpose::Session, &text)
    }

    /// What was to be remembered of the sign-in with this state, where it began in this browser.
    pub(super) fn sign_in(self, headers: &HeaderMap, state: &Secret<String>) -> Option<SignIn> {
        let text = value(headers, &self.sign_in_name(state.expose()))?;
        let sign_in: SignIn = self.seal.open(Purpose::SignIn, text)?;
        sign_in.is_of(state).then_some(sign_in)
    }

    /// Lets the browser carry a session for so many seconds.
    pub(super) fn keep_session(
        self,
        session: &Session,
        seconds: i64,
        answer: &mut HeaderMap,
    ) -> Result<()> {
        let text = self.seal.seal(Purpose::Session, session)?;
        let number = text.len().div_ceil(PART);
        if number > PARTS {
            return Err(Error::new(ErrorKind::Denied, TOO_LARGE)
                .hint("let the provider list fewer groups for this client"));
        }
        for (at, part) in text.as_bytes().chunks(PART).enumerate() {
            let part = std::str::from_utf8(part).unwrap_or_default();
            let text = if at == 0 { format!("{number}.{part}") } else { part.to_string() };
            self.set(&self.session_name(at), &text, seconds, answer);
        }
        Ok(())
    }

    /// Lets the browser remember a sign-in that has begun, and forget the oldest where there are
    /// too many.
    pub(super) fn keep_sign_in(
        self,
        sign_in: &SignIn,
        now: OffsetDateTime,
        asked: &HeaderMap,
        answer: &mut HeaderMap,
    ) -> Result<()> {
        let text = self.seal.seal(Purpose::SignIn, sign_in)?;
        let names = self.sign_in_names();
        let mut others: Vec<_> = pairs(asked)
            .filter(|(name, _)| name.starts_with(&names))
            .map(|(name, text)| {
                let known = self.seal.open::<SignIn>(Purpose::SignIn, text);
                (known.map_or(0, |known| known.left(now)), name)
            })
            .collect();
        others.sort_unstable();
        let over = others.iter().filter(|(left, _)| *left <= 0).count();
        let many = (others.len() + 1).saturating_sub(SIGN_INS);
        for (_, name) in others.iter().take(over.max(many)) {
            self.set(name, "", 0, answer);
        }
        self.set(&self.sign_in_name(sign_in.state()), &text, SignIn::lasts(), answer);
        Ok(())
    }

    /// Lets the browser forget a sign-in, and no other one.
    pub(super) fn forget_sign_in(self, sign_in: &SignIn, answer: &mut HeaderMap) {
        self.set(&self.sign_in_name(sign_in.state()), "", 0, answer);
    }

    /// Lets the browser forget who is signed in.
    pub(super) fn forget_session(self, asked: &HeaderMap, answer: &mut HeaderMap) {
        for part in 0..PARTS {
            let name = self.session_name(part);
            if part == 0 || value(asked, &name).is_some() {
                self.set(&name, "", 0, answer);
            }
        }
    }

    /// `Lax`, because people come back from the provider, and from messages, by links of
    /// others; what changes anything is a POST, with which it is not sent from elsewhere.
    fn set(self, name: &str, text: &str, seconds: i64, answer: &mut HeaderMap) {
        let secure = if self.is_secure { "; Secure" } else { "" };
        let cookie =
            format!("{name}={text}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
        if let Ok(mut cookie) = HeaderValue::from_str(&cookie) {
            cookie.set_sensitive(true);
            answer.append(SET_COOKIE, cookie);
        }
    }
}

/// The first cookie with this name.
fn value<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    pairs(headers).find(|(key, _)| *key == name).map(|(_, value)| value)
}

/// All cookies, by their names.
fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let lines = headers.get_all(COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.split_once('='));
    pairs.map(|(key, value)| (key.trim(), value.trim()))
}

#[cfg(test)]
mod fuzz;
