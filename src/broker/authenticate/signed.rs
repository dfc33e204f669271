//! Callers who signed what they want, because no provider can say who they are.
//!
//! Of them nothing is known but who they are: no groups and no claims of their issuer. Where
//! policies forbid by those, nobody is taken for who signed, so that nothing that is forbidden
//! is escaped.

use time::OffsetDateTime;

use super::{Authenticator, Caller};
use crate::broker::policy::Needs;
use crate::credential::Principal;
use crate::error::{Error, ErrorKind, Result};
use crate::sshsig::hex;

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
        format!("by a signature of the key {} of sha256:{}", self.key, hex(&self.statement))
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
        let unfit = |why: &str| {
            Error::new(ErrorKind::Denied, "a signature is not accepted in place of a login")
                .because_of(why)
        };
        let Some((trusted, demands)) = self.trusted.get(&principal.issuer) else {
            return Err(unfit(
                "the issuer by whose id its key was enrolled is not trusted any more",
            ));
        };
        if let Some(why) = needs.untold(Some(&principal.issuer)) {
            return Err(unfit(why));
        }
        let client = trusted.requirements().name().to_string();
        let caller = Caller::by_signature(principal, client, signed);
        demands.accept(caller, needs).map_err(|_| {
            unfit("tokens of its issuer have to list groups, which a signature does not tell")
        })
    }
}
