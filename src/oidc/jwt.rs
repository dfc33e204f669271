//! Verification of signed JWTs (RFC 7515, RFC 7519, RFC 8725).

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use time::{Duration, OffsetDateTime};

pub use jsonwebtoken::Algorithm;

use super::json;
use super::keys::Keys;
use crate::credential::Principal;
use crate::error::{Error, ErrorKind, Result, foreign, roughly};

/// The longest token that is looked at, in bytes.
pub const MAX_TOKEN: usize = 64 * 1024;

/// The algorithms that are accepted where nobody says otherwise. All of them
/// have a public key; `none` and those with a shared secret are never accepted.
pub const ALGORITHMS: &[Algorithm] = &[
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
];

/// How far another clock may be off before a time in a token counts as wrong.
pub const LEEWAY: Duration = Duration::seconds(60);

/// What a token must say to be accepted.
#[derive(Clone, Debug)]
pub struct Expectations<'a> {
    /// The only issuer.
    pub issuer: &'a str,
    /// The audiences of which the token must name at least one.
    pub audiences: &'a [String],
    /// The algorithms, from [`ALGORITHMS`].
    pub algorithms: &'a [Algorithm],
    /// The `nonce` of an ID token, where one was sent.
    pub nonce: Option<&'a str>,
    /// The time.
    pub now: OffsetDateTime,
    /// What is forgiven at both ends of the token's time.
    pub leeway: Duration,
}

/// What a verified token says.
#[derive(Clone, Debug)]
pub struct Claims {
    /// Whom it is about.
    pub principal: Principal,
    /// Whom it is for.
    pub audience: Vec<String>,
    /// When it was issued, where it says.
    pub issued_at: Option<OffsetDateTime>,
    /// When it ends.
    pub expires_at: OffsetDateTime,
    /// All claims.
    pub all: Map<String, Value>,
}

/// A token taken apart, without any check.
#[derive(Clone)]
pub struct Unverified<'t> {
    token: &'t str,
    /// The header.
    pub header: Map<String, Value>,
    /// The claims.
    pub claims: Map<String, Value>,
}

impl fmt::Debug for Unverified<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { header, claims, .. } = self;
        f.debug_struct("Unverified").field("header", header).field("claims", claims).finish()
    }
}

impl<'t> Unverified<'t> {
    /// All of it.
    pub fn token(&self) -> &'t str {
        self.token
    }

    /// Verifies it: signature, algorithm, issuer, audience, times, nonce. Where that says that the
    /// key is not known, it can be tried again by other keys; what it says is handed over where
    /// it is good, and gone from here.
    pub fn verify(
        &mut self,
        keys: &Keys,
        expected: &Expectations<'_>,
    ) -> std::result::Result<Claims, Refusal> {
        let algorithm = algorithm(&self.header, expected).map_err(Refusal::Invalid)?;
        check_signature(self.token, &self.header, algorithm, keys)?;
        check_claims(std::mem::take(&mut self.claims), expected)
    }
}

/// Why a token was not accepted.
#[derive(Clone, Debug)]
pub enum Refusal {
    /// None of the keys at hand signed it; newer keys might have.
    UnknownKey(Error),
    /// It was good, and has ended.
    Expired(Error),
    /// It is not to be accepted.
    Invalid(Error),
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::UnknownKey(error) | Refusal::Expired(error) | Refusal::Invalid(error) => error,
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Invalid(error)
    }
}

/// How the refusal of a token begins.
pub const NOT_ACCEPTABLE: &str = "the token is not acceptable";

fn invalid(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::Verification, NOT_ACCEPTABLE).because_of(why)
}

/// Takes a token apart without checking anything. What it says proves nothing.
pub fn decode_unverified(token: &str) -> Result<Unverified<'_>> {
    let malformed = |what: &str| invalid(format!("it is not a signed JWT: {what}"));
    if token.len() > MAX_TOKEN {
        return Err(malformed("it is too long"));
    }
    let mut parts = token.split('.');
    let (Some(header), Some(claims), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(malformed("it does not have three parts"));
    };
    let object = |part: &str, name: &str| -> Result<Map<String, Value>> {
        let bytes = URL_SAFE_NO_PAD
            .decode(part)
            .map_err(|_| malformed(&format!("its {name} is not base64url")))?;
        json::object(&bytes).map_err(|_| {
            malformed(&format!("its {name} is not a JSON object in which nothing is there twice"))
        })
    };
    let (header, claims) = (object(header, "header")?, object(claims, "payload")?);
    Ok(Unverified { token, header, claims })
}

/// Checks that a token says that it is an access token (RFC 9068 section 4). One that was
/// made to be shown to somebody else, such as an ID token, may have the right audience too.
pub fn check_access_token(token: &str) -> Result<()> {
    let header = decode_unverified(token)?.header;
    let typ = header.get("typ").and_then(Value::as_str).unwrap_or_default();
    if is_media_type(typ, "at+jwt") {
        return Ok(());
    }
    Err(invalid(format!("its type is '{}', not at+jwt", foreign(typ))))
}

/// Whether what a header says as `typ` or `cty` is this media type, which is written here
/// without the `application/` that may be left out (RFC 7515 sections 4.1.9 and 4.1.10).
pub fn is_media_type(said: &str, bare: &str) -> bool {
    let is_prefix = |prefix: &str| prefix.eq_ignore_ascii_case("application/");
    let rest = said.split_at_checked("application/".len());
    let rest = rest.filter(|(prefix, _)| is_prefix(prefix)).map_or(said, |(_, rest)| rest);
    rest.eq_ignore_ascii_case(bare)
}

/// Looks whether a header says anything by which what was signed is something else than the
/// claims that are read there.
///
/// # Errors
/// What it says.
pub fn check_understood(header: &Map<String, Value>) -> std::result::Result<(), &'static str> {
    // RFC 7515 section 4.1.11: what is critical and not understood must be refused.
    if header.contains_key("crit") {
        return Err("its header has a critical extension that is not understood");
    }
    // RFC 7519 section 7.2, step 8: then it is another token that was signed.
    match header.get("cty").and_then(Value::as_str) {
        Some(cty) if is_media_type(cty, "JWT") => {
            Err("its header says that there is another token in it ('cty')")
        }
        _ => Ok(()),
    }
}

/// Verifies a token: signature, algorithm, issuer, audience, times, nonce.
pub fn verify(
    token: &str,
    keys: &Keys,
    expected: &Expectations<'_>,
) -> std::result::Result<Claims, Refusal> {
    decode_unverified(token).map_err(Refusal::Invalid)?.verify(keys, expected)
}

/// What a token says, where that is what it has to say, down to its algorithm. Its
/// signature is not looked at, so this proves nothing: somebody else has to vouch for it.
pub fn look(
    token: Unverified<'_>,
    expected: &Expectations<'_>,
) -> std::result::Result<Claims, Refusal> {
    algorithm(&token.header, expected).map_err(Refusal::Invalid)?;
    check_claims(token.claims, expected)
}

/// What a token says, held against what it has to say. Its signature is not
/// looked at, so this proves nothing: it tells whoever is to send the token on
/// whether that makes sense.
pub fn check_unverified(token: &str, audience: &str, now: OffsetDateTime) -> Result<Claims> {
    let Unverified { header, claims: all, .. } = decode_unverified(token)?;
    check_understood(&header).map_err(invalid)?;
    let issuer = all.get("iss").and_then(Value::as_str).filter(|issuer| !issuer.is_empty());
    let issuer = issuer.ok_or_else(|| invalid("it names no issuer"))?.to_string();
    let expected = Expectations {
        issuer: &issuer,
        audiences: &[audience.to_string()],
        algorithms: ALGORITHMS,
        nonce: None,
        now,
        leeway: LEEWAY,
    };
    Ok(check_claims(all, &expected)?)
}

/// Whether an algorithm is called so. Of the one that has two curves only one is accepted, which
/// has a name of its own by now (RFC 9864 section 2.2).
pub fn is_name_of(name: &str, algorithm: Algorithm) -> bool {
    format!("{algorithm:?}") == name || (algorithm == Algorithm::EdDSA && name == "Ed25519")
}

fn algorithm(header: &Map<String, Value>, expected: &Expectations<'_>) -> Result<Algorithm> {
    check_understood(header).map_err(invalid)?;
    let name = header.get("alg").and_then(Value::as_str).unwrap_or_default();
    let allowed = expected.algorithms.iter().filter(|a| ALGORITHMS.contains(a));
    allowed.copied().find(|a| is_name_of(name, *a)).ok_or_else(|| {
        let allowed: Vec<_> = expected.algorithms.iter().map(|a| format!("{a:?}")).collect();
        invalid(format!(
            "its algorithm is '{}'; accepted are {}",
            foreign(name),
            allowed.join(", ")
        ))
    })
}

fn check_signature(
    token: &str,
    header: &Map<String, Value>,
    algorithm: Algorithm,
    keys: &Keys,
) -> std::result::Result<(), Refusal> {
    let kid = match header.get("kid") {
        None => None,
        Some(Value::String(kid)) => Some(kid.as_str()),
        // RFC 7515 section 4.1.4. Taken for none, it would let every key try.
        Some(_) => return Err(invalid("the id of its key is no text").into()),
    };
    let mut candidates = keys.candidates(kid, algorithm).peekable();
    if candidates.peek().is_none() {
        return Err(Refusal::UnknownKey(invalid(match kid {
            Some(kid) => format!("its issuer has no key '{}' for {algorithm:?}", foreign(kid)),
            None => format!("its issuer has no key for {algorithm:?}"),
        })));
    }
    if candidates.any(|key| key.has_signed(token)) {
        return Ok(());
    }
    let why = invalid("its signature does not match");
    // Without a key id, the key may be one that is not known yet.
    Err(if kid.is_none() { Refusal::UnknownKey(why) } else { Refusal::Invalid(why) })
}

pub(super) fn check_claims(
    all: Map<String, Value>,
    expected: &Expectations<'_>,
) -> std::result::Result<Claims, Refusal> {
    let text = |name: &str| all.get(name).and_then(Value::as_str).filter(|s| !s.is_empty());
    let issuer = text("iss").unwrap_or_default();
    if issuer != expected.issuer {
        return Err(invalid(format!(
            "it was issued by '{}', not by '{}'",
            foreign(issuer),
            expected.issuer
        ))
        .into());
    }
    let audience = audience(&all);
    if !audience.iter().any(|a| expected.audiences.contains(a)) {
        return Err(invalid(format!(
            "it is for {}, not for {}",
            quoted(&audience),
            quoted(expected.audiences)
        ))
        .into());
    }
    let subject = text("sub").ok_or_else(|| invalid("it names no subject"))?;
    if let Some(nonce) = expected.nonce
        && text("nonce") != Some(nonce)
    {
        return Err(invalid("its nonce is not the one that was sent").into());
    }
    let expires_at = moment(&all, "exp")?.ok_or_else(|| invalid("it has no expiry"))?;
    if expected.now >= expires_at.saturating_add(expected.leeway) {
        let error = invalid(format!("it expired {} ago", ago(expected.now - expires_at)))
            .hint("if it is fresh, check this machine's clock");
        return Err(Refusal::Expired(error));
    }
    let issued_at = moment(&all, "iat")?;
    for (name, time) in [("issued", issued_at), ("valid", moment(&all, "nbf")?)] {
        if let Some(time) = time
            && time > expected.now.saturating_add(expected.leeway)
        {
            return Err(invalid(format!(
                "it is {name} only from {} in the future",
                ago(time - expected.now)
            ))
            .hint("check this machine's clock")
            .into());
        }
    }
    let principal = Principal { issuer: issuer.to_string(), subject: subject.to_string() };
    Ok(Claims { principal, audience, issued_at, expires_at, all })
}

/// The audiences of a token: one string or a list of them (RFC 7519 section 4.1.3).
/// Anything else counts as none, also a list with something else in it.
pub fn audience(claims: &Map<String, Value>) -> Vec<String> {
    match claims.get("aud") {
        Some(Value::String(one)) if !one.is_empty() => vec![one.clone()],
        Some(Value::Array(many)) => {
            let text = |one: &Value| one.as_str().filter(|s| !s.is_empty()).map(String::from);
            many.iter().map(text).collect::<Option<_>>().unwrap_or_default()
        }
        _ => Vec::new(),
    }
}

/// A NumericDate (RFC 7519 section 2), which may have a fraction.
pub fn moment(claims: &Map<String, Value>, name: &str) -> Result<Option<OffsetDateTime>> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    #[expect(clippy::cast_possible_truncation, reason = "fractions of a second do not matter")]
    let seconds = value.as_i64().or_else(|| value.as_f64().map(|f| f as i64));
    seconds
        .and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok())
        .map(Some)
        .ok_or_else(|| invalid(format!("its '{name}' is not a time")))
}

fn ago(duration: Duration) -> String {
    let whole = std::time::Duration::from_secs(duration.whole_seconds().unsigned_abs());
    roughly(whole)
}

fn quoted(names: &[String]) -> String {
    if names.is_empty() {
        return "nobody".into();
    }
    names.iter().map(|n| format!("'{}'", foreign(n))).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests;
