//! What browsers carry. Servers beside this one, on the same host, could read and write other
//! cookies than these: the prefix `__Host-` keeps them from it.

use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue};

use crate::broker::Broker;
use crate::broker::web::{PageSeal, Purpose, Session, SignIn};
use crate::error::{Error, ErrorKind, Result};

/// How long a cookie is at most, of which browsers take 4096 bytes with its name.
const PART: usize = 3600;

/// Into how many a session is divided at most: a request's headers are limited, too.
const PARTS: usize = 6;

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

    fn name(self, purpose: Purpose, part: usize) -> String {
        let prefix = if self.is_secure { "__Host-" } else { "" };
        let name = match purpose {
            Purpose::SignIn => "sign-in",
            Purpose::Session => "session",
        };
        match part {
            0 => format!("{prefix}tmpcred-{name}"),
            part => format!("{prefix}tmpcred-{name}-{part}"),
        }
    }

    /// Who is signed in, as far as the browser shows.
    pub(super) fn session(self, headers: &HeaderMap) -> Option<Session> {
        let part = |part| value(headers, &self.name(Purpose::Session, part));
        let (number, first) = part(0)?.split_once('.')?;
        let number: usize = number.parse().ok().filter(|number| *number <= PARTS)?;
        let mut text = first.to_string();
        for other in 1..number {
            text += part(other)?;
        }
        self.seal.open(Purpose::Session, &text)
    }

    /// What was to be remembered while somebody was at the provider.
    pub(super) fn sign_in(self, headers: &HeaderMap) -> Option<SignIn> {
        let text = value(headers, &self.name(Purpose::SignIn, 0))?;
        self.seal.open(Purpose::SignIn, text)
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
            self.set(&self.name(Purpose::Session, at), &text, seconds, answer);
        }
        Ok(())
    }

    /// Lets the browser remember a sign-in that has begun.
    pub(super) fn keep_sign_in(self, sign_in: &SignIn, answer: &mut HeaderMap) -> Result<()> {
        let text = self.seal.seal(Purpose::SignIn, sign_in)?;
        self.set(&self.name(Purpose::SignIn, 0), &text, SignIn::lasts(), answer);
        Ok(())
    }

    /// Lets the browser forget what it carries for this.
    pub(super) fn forget(self, purpose: Purpose, asked: &HeaderMap, answer: &mut HeaderMap) {
        for part in 0..PARTS {
            let name = self.name(purpose, part);
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
    let lines = headers.get_all(COOKIE).into_iter().filter_map(|line| line.to_str().ok());
    let pairs = lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(key, value)| (key.trim(), value.trim()))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}
