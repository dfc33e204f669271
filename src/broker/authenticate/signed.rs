//! Callers who signed what they want, because no provider can say who they are.
//!
//! Of them nothing is known but who they are: no groups and no claims of their issuer. Where
//! policies forbid by those, nobody is taken for who signed, so that nothing that is forbidden
//! is escaped.

use data_encoding::HEXLOWER;
use time::OffsetDateTime;

use super::demands::Demands;
use super::{Authenticator, Caller};
use crate::broker::config::TrustedIssuer;
use crate::broker::policy::Needs;
use crate::credential::Principal;
use crate::error::{Error, ErrorKind, Result};

/// What somebody signed, by which they are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::broker) struct BySignature {
    /// The fingerprint of their key.
    pub(in crate::broker) key: String,
    /// The hash of the statement.
    pub(in crate::broker) statement: [u8; 32],
    /// The hash of the request that it is about, where it is about one.
    pub(in crate::broker) request: Option<[u8; 32]>,
    /// Whether it is good for a token too, which uses it up in its own way.
    pub(in crate::broker) is_use: bool,
    /// What it is good once by.
    pub(in crate::broker) nonce: String,
    /// When it was made, as whoever signed it says.
    pub(in crate::broker) made: OffsetDateTime,
    /// Until when it is good.
    pub(in crate::broker) expires: OffsetDateTime,
    /// Whether it is by a security key that was told who holds it.
    pub(in crate::broker) verified: bool,
}

impl BySignature {
    /// How records name it.
    pub(in crate::broker) fn said(&self) -> String {
        format!(
            "by a signature of the key {} of sha256:{}",
            self.key,
            HEXLOWER.encode(&self.statement)
        )
    }
}

impl Authenticator {
    /// Whoever signed this, whom the broker knows by their key.
    ///
    /// # Errors
    /// Where a signature says too little, with the reason.
    pub(in crate::broker) fn signer(
        &self,
        principal: Principal,
        signed: BySignature,
        needs: &Needs,
    ) -> Result<Caller> {
        let Some((trusted, demands)) = self.trusted.get(&principal.issuer) else {
            return Err(unfit(
                "the issuer by whose id its key was enrolled is not trusted any more",
            ));
        };
        accepted((trusted.requirements().name(), demands), principal, signed, needs)
    }
}

/// Whoever signed this, of an issuer with this name and what is demanded of its tokens.
fn accepted(
    (name, demands): (&str, &Demands),
    principal: Principal,
    signed: BySignature,
    needs: &Needs,
) -> Result<Caller> {
    if let Some(why) = needs.untold(Some(&principal.issuer)) {
        return Err(unfit(why));
    }
    let caller = Caller::by_signature(principal, name.to_string(), signed);
    demands.accept(caller, needs).map_err(|_| {
        unfit("tokens of its issuer have to list groups, which a signature does not tell")
    })
}

fn unfit(why: &str) -> Error {
    Error::new(ErrorKind::Denied, "a signature is not accepted in place of a login").because_of(why)
}

/// Whom a good signature of somebody of this issuer would be of: for trying policies, without any
/// signature.
pub(in crate::broker) fn suppose_signer(
    name: &str,
    config: &TrustedIssuer,
    principal: Principal,
    needs: &Needs,
    now: OffsetDateTime,
) -> Result<Caller> {
    let signed = BySignature {
        key: String::new(),
        statement: [0; 32],
        request: None,
        is_use: false,
        nonce: String::new(),
        made: now,
        expires: now.saturating_add(time::Duration::DAY),
        verified: false,
    };
    accepted((name, &Demands::of(config)), principal, signed, needs)
}
