//! Who is calling: a token of an issuer that is on the list.
//!
//! The list is asked before anything is fetched: a token cannot make the broker
//! contact anybody.

pub(super) mod actor;
mod ahead;
mod asking;
mod caller;
pub mod client;
mod demands;
mod discovered;
mod fitting;
#[cfg(test)]
mod fuzz;
mod issuer;
mod kept;
mod key_file;
pub(super) mod names;
mod review;
mod signed;
mod signed_in;
mod waiting;

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use time::OffsetDateTime;

pub use actor::{Actor, MAX_ACTORS, MayAct};
pub use ahead::Ahead;
pub use asking::Asked;
pub(super) use caller::Fingerprint;
pub use caller::qualified as id_of;
pub use caller::{Caller, Parent, respelled};
pub use client::Clients;
use demands::Demands;
pub use fitting::Misfit;
use issuer::{Requirements, Trusted};
pub(super) use kept::KeysSeal;
pub(super) use signed::{BySignature, suppose_signer};
use waiting::{Everybody, Waiting};

use super::config::{self, Assertions, TrustedIssuer};
use super::policy::Needs;
use crate::credential::TokenType;
use crate::error::{Error, ErrorKind, Result, foreign};
use crate::host::Host;
use crate::oidc::{Claims, Issuer, Seen, jwt};
use crate::secret::Secret;
use crate::trace;

/// The `typ` that tokens may have (RFC 8725 section 3.11). Those of other kinds,
/// such as logout tokens and proofs, are no proof of who is calling.
const TYPES: [&str; 4] = ["jwt", "at+jwt", "application/at+jwt", "application/jwt"];

/// Why a caller was not let in.
#[derive(Debug)]
pub enum Rejection {
    /// The token is not acceptable; the caller may know why.
    Token(Fault, Error),
    /// The broker cannot tell at present, because the issuer's keys cannot be had.
    Unavailable(Error),
}

/// What is the matter with a token, as far as it is worth counting apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It was good, and has ended.
    Expired,
    /// It names a key that its issuer does not have, as far as is known.
    UnknownKey,
    /// Its issuer is not on the list.
    Untrusted,
    /// It is the broker's own, and was revoked.
    Revoked,
    /// It is bound to a key that was not proved.
    Bound,
    /// It may be used once, and was used.
    Reused,
    /// Anything else.
    Invalid,
}

/// What is known of the keys of an issuer or a client that are fetched.
#[derive(Clone, Debug)]
pub struct FetchedKeys<'a> {
    /// The name of its table in the configuration.
    pub name: &'a str,
    /// How long ago they were fetched; `None` where there are none.
    pub age: Option<time::Duration>,
    /// How old they may become.
    pub max_age: time::Duration,
    /// How often they could not be fetched.
    pub failures: u64,
    /// How far the issuer's clock is ahead, where that has been seen. Clients sign elsewhere than
    /// where their keys are, so nothing is known of theirs.
    pub skew: Option<time::Duration>,
    /// In how long they are fetched ahead of need again, where that has failed; zero where it has
    /// not, and for clients, whose keys are fetched where somebody needs them.
    pub retry_in: time::Duration,
    /// Which version they are; `None` where there are none.
    pub version: Option<String>,
}

impl Rejection {
    /// The token is not acceptable, for no reason that is counted apart.
    fn invalid(error: Error) -> Self {
        Self::Token(Fault::Invalid, error)
    }

    fn of(refusal: jwt::Refusal) -> Self {
        let fault = match &refusal {
            jwt::Refusal::Expired(_) => Fault::Expired,
            jwt::Refusal::UnknownKey(_) => Fault::UnknownKey,
            jwt::Refusal::Invalid(_) => Fault::Invalid,
        };
        Self::Token(fault, refusal.into())
    }
}

/// What a caller is told of why their token was not accepted.
pub fn said(error: &Error) -> String {
    let hints = error.hints().iter().map(|hint| format!("; {hint}")).collect::<String>();
    format!("{error}{hints}")
}

/// The list of trusted issuers, with their keys.
pub struct Authenticator {
    /// By identifier.
    trusted: BTreeMap<String, (Arc<Trusted>, Demands)>,
    clients: Clients,
    everybody: Everybody,
    seen: Arc<Seen>,
}

impl Authenticator {
    /// Reads what the configuration names. Nothing is fetched yet.
    ///
    /// `own` is the broker's issuer: the audience where an issuer's table has none.
    pub fn new(
        issuers: &BTreeMap<String, TrustedIssuer>,
        clients: &config::Clients,
        own: &Issuer,
        host: &Host,
    ) -> Result<Self> {
        let nobody = Self {
            trusted: BTreeMap::new(),
            clients: Clients::nobody(own, host),
            everybody: Everybody::default(),
            seen: Arc::default(),
        };
        nobody.anew(issuers, clients, own, host)
    }

    /// Reads what another configuration names. Who is the same as before goes on with the
    /// keys that were fetched.
    pub(super) fn anew(
        &self,
        issuers: &BTreeMap<String, TrustedIssuer>,
        clients: &config::Clients,
        own: &Issuer,
        host: &Host,
    ) -> Result<Self> {
        let everybody = self.everybody.clone();
        let clients = self.clients.anew(clients, own, host, &everybody)?;
        let trusted = issuers
            .iter()
            .map(|(name, config)| {
                let id = config.issuer.as_str().to_string();
                let waiting = Waiting::among(&everybody);
                let new = Trusted::new(name, config, own, host, (waiting, &self.seen)).map_err(
                    |error| error.context(format!("[trusted_issuer.{name}] cannot be used")),
                )?;
                let new = Arc::new(new);
                let before = self.trusted.get(&id).map(|(before, _)| before);
                let same = before.filter(|before| new.may_go_on_as(before));
                Ok((id, (same.unwrap_or(&new).clone(), Demands::of(config))))
            })
            .collect::<Result<_>>()?;
        Ok(Self { trusted, clients, everybody, seen: self.seen.clone() })
    }

    /// What the keys of issuers were seen to have signed.
    pub(super) fn seen(&self) -> &Arc<Seen> {
        &self.seen
    }

    /// The clients that authenticate.
    pub fn clients(&self) -> &Clients {
        &self.clients
    }

    /// What is known of the keys that are fetched, by issuer.
    pub fn keys(&self) -> impl Iterator<Item = FetchedKeys<'_>> {
        self.trusted.values().filter_map(|(trusted, _)| trusted.keys())
    }

    /// Whether tokens of this issuer may be for this audience.
    pub fn takes(&self, issuer: &str, audience: &str) -> bool {
        let trusted = self.trusted.get(issuer);
        trusted.is_some_and(|(trusted, _)| trusted.requirements().takes(audience))
    }

    /// Those issuers whose keys are fetched.
    pub(super) fn remote(&self) -> Vec<Arc<Trusted>> {
        let trusted = self.trusted.values().map(|(trusted, _)| trusted);
        trusted.filter(|trusted| trusted.has_remote_keys()).cloned().collect()
    }

    /// Verifies a token and says who is calling.
    ///
    /// The token must say all that the policies need which will decide: where one forbids
    /// something to a group of an issuer, its tokens must list groups; where one forbids
    /// by claims, no claim may be left out. A token that says less would escape what is
    /// forbidden.
    pub async fn authenticate(
        &self,
        token: &Secret<String>,
        token_type: TokenType,
        needs: &Needs,
    ) -> Result<Caller, Rejection> {
        let unverified = jwt::decode_unverified(token.expose()).map_err(Rejection::invalid)?;
        let text = |map: &serde_json::Map<String, serde_json::Value>, name: &str| {
            map.get(name).and_then(serde_json::Value::as_str).map(String::from)
        };
        check_type(unverified.header.get("typ"), token_type).map_err(Rejection::invalid)?;
        let issuer = text(&unverified.claims, "iss").unwrap_or_default();
        let (trusted, demands) = self.trusted.get(&issuer).ok_or_else(|| {
            let shown = foreign(&issuer);
            let error = unacceptable(format!("the issuer '{shown}' is not accepted here"));
            Rejection::Token(Fault::Untrusted, error)
        })?;
        trace::note("tmpcred.issuer", issuer.clone());
        let kid = text(&unverified.header, "kid");
        let verified = trusted.verify(unverified).await;
        trusted.note_keys();
        let claims = verified?;
        // Before, it is whatever somebody wrote there.
        if let Some(kid) = kid {
            trace::note("tmpcred.key.id", kid);
        }
        let caller = trusted
            .requirements()
            .caller(claims, token_type)
            .and_then(|caller| demands.accept(caller, needs))
            .map_err(Rejection::invalid)?;
        Ok(match demands.assertions() {
            Assertions::UntilExpiry => caller,
            Assertions::Once => {
                let name = fingerprint(token, caller.expires_at());
                caller.used_up_by(name)
            }
        })
    }
}

/// Whom a good token of this issuer with these claims would be of: for trying policies,
/// without any token.
pub fn suppose(
    name: &str,
    config: &TrustedIssuer,
    own: &Issuer,
    claims: Claims,
    needs: &Needs,
) -> Result<Caller> {
    let caller = Requirements::new(name, config, own).caller(claims, TokenType::Jwt)?;
    Demands::of(config).accept(caller, needs)
}

/// Names a token that ends then by what is signed of it. The signature stays out: some can be
/// changed and are good all the same.
///
/// What ends at about the same time has names that are near to each other, so that a store
/// which keeps them in order writes few pages for many of them: the seconds until the end, which
/// the token says, and 28 of the 32 bytes of the hash.
fn fingerprint(token: &Secret<String>, ends: OffsetDateTime) -> Fingerprint {
    let signed = token.expose().rsplit_once('.').map_or("", |(signed, _)| signed);
    let hash = digest(&SHA256, signed.as_bytes());
    let seconds = ends.unix_timestamp().to_be_bytes();
    let mut name = [0; 32];
    for (to, from) in name.iter_mut().zip(seconds[4..].iter().chain(hash.as_ref())) {
        *to = *from;
    }
    name
}

/// Says that the token is not acceptable.
pub(super) fn unacceptable(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::Verification, jwt::NOT_ACCEPTABLE).because_of(why)
}

fn check_type(typ: Option<&serde_json::Value>, token_type: TokenType) -> Result<()> {
    let Some(typ) = typ else { return Ok(()) };
    // What is no text is none of the types, and not the same as if there was nothing.
    let typ = typ.as_str().unwrap_or_default().to_ascii_lowercase();
    if !TYPES.contains(&typ.as_str()) {
        return Err(unacceptable("its header names another type than a JWT or an access token"));
    }
    if typ.ends_with("at+jwt") && token_type == TokenType::IdToken {
        return Err(unacceptable("it is an access token, not an ID token"));
    }
    Ok(())
}

#[cfg(test)]
pub(crate) use caller::tests as caller_tests;
#[cfg(test)]
mod tests;
