//! Tokens that a job has or is handed. What they say is read without verification,
//! only to know whom they are about, and whether it makes sense to send them: a
//! token for somebody else would be given away by asking.

use serde_json::{Map, Value};

use crate::credential::{Assertion, Job, Principal, TokenType};
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::oidc::jwt::{self, MAX_TOKEN};
use crate::secret::Secret;

/// How many bytes are read of what should be a token, with some space around it.
pub(super) const MAX_BYTES: usize = MAX_TOKEN + 1024;

/// Claims that differ between two tokens about the same job or workload.
const PASSING: &[&str] =
    &["at_hash", "auth_time", "exp", "iat", "jti", "nbf", "nonce", "updated_at", "warnafter"];

/// A token, and what people call it: «the token in the file …».
pub(super) struct Given {
    token: Secret<String>,
    what: String,
}

impl Given {
    /// Takes a token, without the space around it.
    pub(super) fn new(token: &str, what: impl Into<String>) -> Self {
        Self { token: Secret::new(token.trim_ascii().into()), what: what.into() }
    }

    /// The same for bytes.
    pub(super) fn from_bytes(bytes: &Secret<Vec<u8>>, what: impl Into<String>) -> Result<Self> {
        let what = what.into();
        match std::str::from_utf8(bytes.expose()) {
            Ok(text) => Ok(Self::new(text, what)),
            Err(_) => Err(unusable(&what).because_of("it is not text")),
        }
    }

    fn claims(&self) -> Result<Map<String, Value>> {
        if self.token.expose().is_empty() {
            return Err(unusable(&self.what).because_of("it is empty"));
        }
        let decoded = jwt::decode_unverified(self.token.expose());
        decoded.map(|token| token.claims).map_err(|error| self.refused(error))
    }

    /// Whom it is about.
    pub(super) fn principal(&self) -> Result<Principal> {
        let claims = self.claims()?;
        let text = |name: &str| {
            let value = claims.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
            value.map(String::from).ok_or_else(|| {
                unusable(&self.what).because_of(format!("it has no `{name}`, or not as a text"))
            })
        };
        Ok(Principal { issuer: text("iss")?, subject: text("sub")? })
    }

    /// Adds to `job` what the token says of it and would say again when it is
    /// renewed: the pod, the run, the branch.
    pub(super) fn particular(&self, job: Job) -> Result<Job> {
        let mut claims = Value::Object(self.claims()?);
        forget_passing(&mut claims);
        Ok(job.with("claims", claims.to_string()))
    }

    /// Adds the token itself to `job`: one that no other job has.
    pub(super) fn own(&self, job: Job) -> Job {
        job.with("token", self.token.expose())
    }

    /// Whether it may be shown to `audience`, and still be good.
    pub(super) fn suits(&self, host: &Host, audience: &str) -> bool {
        jwt::check_unverified(self.token.expose(), audience, host.corrected_now()).is_ok()
    }

    /// The token as an assertion for `audience`. `hint` says how to get one for
    /// another audience.
    ///
    /// # Errors
    /// [`ErrorKind::Verification`] where it is opaque, has no end or is over, or is
    /// for somebody else. An opaque token is refused always: neither its audience
    /// nor its end can be told before it is sent.
    pub(super) fn assertion(self, host: &Host, audience: &str, hint: &str) -> Result<Assertion> {
        let ours = jwt::audience(&self.claims()?).iter().any(|one| one == audience);
        let checked = jwt::check_unverified(self.token.expose(), audience, host.corrected_now());
        let claims = checked.map_err(|error| {
            let error = self.refused(error);
            if ours { error } else { error.hint(hint) }
        })?;
        Ok(Assertion {
            token: self.token,
            token_type: TokenType::Jwt,
            principal: claims.principal,
            expires_at: claims.expires_at,
            grant_ends: None,
        })
    }

    fn refused(&self, error: Error) -> Error {
        error.context(unusable(&self.what).message())
    }
}

fn unusable(what: &str) -> Error {
    Error::new(ErrorKind::Verification, format!("{what} cannot be used"))
}

fn forget_passing(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|name, _| !PASSING.contains(&name.as_str()));
            map.values_mut().for_each(forget_passing);
        }
        Value::Array(items) => items.iter_mut().for_each(forget_passing),
        _ => {}
    }
}

#[cfg(test)]
mod tests;
