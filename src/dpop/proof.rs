//! Checking a proof (RFC 9449 section 4.3).

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value, json};
use subtle::ConstantTimeEq;
use time::{Duration, OffsetDateTime};

use super::{Target, ath};
use crate::error::{Error, ErrorKind, foreign};
use crate::oidc::Keys;
use crate::oidc::jwt::{self, Algorithm};

/// The algorithms of proofs, by name. All of them have a public key.
pub const ALGORITHMS: [(&str, Algorithm); 4] = [
    ("ES256", Algorithm::ES256),
    // Two names for one thing (RFC 9864).
    ("Ed25519", Algorithm::EdDSA),
    ("EdDSA", Algorithm::EdDSA),
    ("RS256", Algorithm::RS256),
];

/// How old a proof may be, and how far ahead its maker's clock.
pub const WINDOW: Duration = Duration::seconds(60);

/// The longest proof that is looked at, in bytes.
pub const MAX_PROOF: usize = 8 * 1024;

/// The longest id of a proof, in bytes.
const MAX_ID: usize = 512;

/// What a proof says of itself, as a media type.
const TYPE: &str = "dpop+jwt";

/// What only the holder of a key may have, of all kinds of keys (RFC 7518 section 6).
const PRIVATE: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// The request that a proof has to be for.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// Its method.
    pub method: &'a str,
    /// The addresses that it may have gone to.
    pub targets: &'a [Target],
    /// The token that it shows.
    pub shown: Shown<'a>,
    /// The time.
    pub now: OffsetDateTime,
}

/// A token that goes with a proof.
#[derive(Clone, Copy)]
pub enum Shown<'a> {
    /// It is what the request is made with: the proof must be for this very token.
    With(&'a str),
    /// It is part of what is asked: a proof that speaks of a token must mean this one.
    Within(&'a str),
}

impl std::fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::With(_) => "With(redacted)",
            Self::Within(_) => "Within(redacted)",
        })
    }
}

/// A proof that is good, as far as it tells by itself: it may have been used before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The thumbprint of the key that made it (RFC 7638).
    pub thumbprint: String,
    /// What tells it from all others that are good at this time.
    pub id: String,
    /// The server's nonce that it has.
    pub nonce: Option<String>,
    /// Until when it may be good.
    pub until: OffsetDateTime,
}

/// What is the matter with a proof, as far as it is worth counting apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is none, or its key or algorithm is none of those that are accepted.
    Malformed,
    /// Its signature does not match.
    Signature,
    /// It is for another request.
    Request,
    /// It is for another token, or for none.
    Token,
    /// It is too old, or from the future.
    Time,
}

/// A proof that is not accepted.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// What is the matter with it.
    pub fault: Fault,
    /// The same for people.
    pub error: Error,
}

fn refused(fault: Fault, why: impl Into<String>) -> Refusal {
    let error =
        Error::new(ErrorKind::Verification, "the DPoP proof is not acceptable").because_of(why);
    Refusal { fault, error }
}

/// Checks a proof.
///
/// # Errors
/// Where it is not one for this request and this token, made now.
pub fn verify(proof: &str, expected: &Expected<'_>) -> Result<Proof, Refusal> {
    let malformed = |why: String| refused(Fault::Malformed, why);
    if proof.len() > MAX_PROOF {
        return Err(malformed(format!("it is longer than {MAX_PROOF} bytes")));
    }
    let jwt::Unverified { header, claims, .. } = jwt::decode_unverified(proof)
        .map_err(|error| malformed(error.causes().first().cloned().unwrap_or_default()))?;
    let thumbprint = signer(proof, &header)?;
    let id = id(&claims, &thumbprint)?;
    check_request(&claims, expected)?;
    check_token(&claims, expected.shown)?;
    let until = check_time(&claims, expected.now)?;
    let nonce = match claims.get("nonce") {
        None => None,
        Some(Value::String(nonce)) => Some(nonce.clone()),
        Some(_) => return Err(malformed("its nonce is no text".into())),
    };
    Ok(Proof { thumbprint, id, nonce, until })
}

/// The thumbprint of the key that signed it, which it brings along.
fn signer(proof: &str, header: &Map<String, Value>) -> Result<String, Refusal> {
    let malformed = |why: String| refused(Fault::Malformed, why);
    let text = |name: &str| header.get(name).and_then(Value::as_str).unwrap_or_default();
    if !jwt::is_media_type(text("typ"), TYPE) {
        return Err(malformed(format!("its type is '{}', not {TYPE}", foreign(text("typ")))));
    }
    jwt::check_understood(header).map_err(|why| malformed(why.into()))?;
    let named = text("alg");
    let algorithm = ALGORITHMS.into_iter().find(|(name, _)| *name == named);
    let (_, algorithm) = algorithm.ok_or_else(|| {
        let accepted = ALGORITHMS.map(|(name, _)| name);
        malformed(format!(
            "its algorithm is '{}'; accepted are {}",
            foreign(named),
            accepted.join(", ")
        ))
    })?;
    let Some(Value::Object(jwk)) = header.get("jwk") else {
        return Err(malformed("its header has no key".into()));
    };
    if let Some(private) = PRIVATE.iter().find(|name| jwk.contains_key(**name)) {
        return Err(malformed(format!("its key has the private part '{private}'")));
    }
    let keys = json!({ "keys": [jwk] });
    let keys = Keys::parse(keys.to_string().as_bytes()).unwrap_or_default();
    let key = keys.candidates(None, algorithm).next();
    let key = key.ok_or_else(|| malformed(format!("its key is not one for {algorithm:?}")))?;
    if !key.has_signed(proof) {
        return Err(refused(Fault::Signature, "its signature does not match"));
    }
    Ok(key.thumbprint().to_string())
}

/// What tells a proof from others: its `jti`, and its key, so that nobody can use up the
/// ids of others. A hash, whatever the maker put there.
fn id(claims: &Map<String, Value>, thumbprint: &str) -> Result<String, Refusal> {
    let jti = claims.get("jti").and_then(Value::as_str).unwrap_or_default();
    if jti.is_empty() || jti.len() > MAX_ID {
        return Err(refused(
            Fault::Malformed,
            format!("its 'jti' is missing or longer than {MAX_ID} bytes"),
        ));
    }
    // A thumbprint always has the same length.
    Ok(URL_SAFE_NO_PAD.encode(digest(&SHA256, format!("{thumbprint}{jti}").as_bytes())))
}

fn check_request(claims: &Map<String, Value>, expected: &Expected<'_>) -> Result<(), Refusal> {
    let text = |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or_default();
    let other = |what: &str, is: &str, wanted: &str| {
        refused(Fault::Request, format!("it is for the {what} '{}', not {wanted}", foreign(is)))
    };
    if text("htm") != expected.method {
        return Err(other("method", text("htm"), expected.method));
    }
    let target = Target::parse(text("htu"));
    if target.is_none_or(|target| !expected.targets.contains(&target)) {
        let wanted: Vec<_> = expected.targets.iter().map(Target::as_str).collect();
        return Err(other("address", text("htu"), &wanted.join(", ")));
    }
    Ok(())
}

fn check_token(claims: &Map<String, Value>, shown: Shown<'_>) -> Result<(), Refusal> {
    let said = claims.get("ath").map(|said| said.as_str().unwrap_or_default());
    let (token, said) = match (shown, said) {
        (Shown::Within(_), None) => return Ok(()),
        (Shown::With(_), None) => {
            return Err(refused(Fault::Token, "it does not say which token it goes with ('ath')"));
        }
        (Shown::With(token) | Shown::Within(token), Some(said)) => (token, said),
    };
    if bool::from(ath(token).as_bytes().ct_eq(said.as_bytes())) {
        Ok(())
    } else {
        Err(refused(Fault::Token, "it goes with another token ('ath')"))
    }
}

/// Returns until when it may be good.
fn check_time(claims: &Map<String, Value>, now: OffsetDateTime) -> Result<OffsetDateTime, Refusal> {
    let issued_at = jwt::moment(claims, "iat").ok().flatten();
    let issued_at =
        issued_at.ok_or_else(|| refused(Fault::Malformed, "it does not say when it was made"))?;
    let until = issued_at.saturating_add(WINDOW);
    let off = |how: &str| {
        let mut refusal = refused(Fault::Time, format!("it was made more than {} {how}", WINDOW));
        refusal.error = refusal.error.hint("check this machine's clock");
        refusal
    };
    if now > until {
        return Err(off("ago"));
    }
    if issued_at > now.saturating_add(WINDOW) {
        return Err(off("in the future"));
    }
    // It need not say either, but what it says counts (RFC 7519 sections 4.1.4 and 4.1.5).
    let said = |name: &str| {
        let moment = jwt::moment(claims, name);
        moment.map_err(|_| refused(Fault::Malformed, format!("its '{name}' is not a time")))
    };
    if said("exp")?.is_some_and(|end| now >= end.saturating_add(WINDOW)) {
        return Err(refused(Fault::Time, "it has ended ('exp')"));
    }
    if said("nbf")?.is_some_and(|begin| begin > now.saturating_add(WINDOW)) {
        return Err(refused(Fault::Time, "it is not good yet ('nbf')"));
    }
    Ok(until)
}
