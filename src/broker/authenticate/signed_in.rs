//! Who signed in to a page: an ID token that the provider issued to the broker itself, as
//! a client of its own there.
//!
//! Such a token is for that client and for nothing else: so the audiences and clients whose
//! tokens are accepted elsewhere do not matter, and all else that is required does.

use super::{Authenticator, Caller, Rejection, check_type, unacceptable};
use crate::broker::policy::Needs;
use crate::credential::TokenType;
use crate::error::Result;
use crate::oidc::{Claims, Issuer, id_token, jwt};
use crate::secret::Secret;

impl Authenticator {
    /// Verifies an ID token that was issued to this client for this sign-in, and says of whom.
    ///
    /// # Errors
    /// [`Rejection`].
    pub(in crate::broker) async fn signed_in(
        &self,
        issuer: &Issuer,
        (client, nonce): (&str, &str),
        token: &Secret<String>,
        access_token: Option<&Secret<String>>,
        needs: &Needs,
    ) -> Result<(Claims, Caller), Rejection> {
        let unknown = || Rejection::invalid(unacceptable("nobody signs in there any more"));
        let (trusted, _) = self.trusted.get(issuer.as_str()).ok_or_else(unknown)?;
        let unverified = jwt::decode_unverified(token.expose()).map_err(Rejection::invalid)?;
        check_type(unverified.header.get("typ"), TokenType::IdToken).map_err(Rejection::invalid)?;
        let claims = trusted.verify_for(unverified, &[client.to_string()], Some(nonce)).await;
        trusted.note_keys();
        let claims = claims?;
        let access_token = access_token.map(|token| token.expose().as_str());
        id_token::check(token.expose(), &claims, client, access_token)
            .map_err(Rejection::invalid)?;
        let caller = self.resumed(claims.clone(), client, needs).map_err(Rejection::invalid)?;
        Ok((claims, caller))
    }

    /// Whom a token tells of that was verified when they signed in by this client, by what is
    /// required now.
    ///
    /// # Errors
    /// Where it does not say enough.
    pub(in crate::broker) fn resumed(
        &self,
        claims: Claims,
        client: &str,
        needs: &Needs,
    ) -> Result<Caller> {
        let unknown = || unacceptable("nobody signs in there any more");
        let (trusted, demands) = self.trusted.get(&claims.principal.issuer).ok_or_else(unknown)?;
        let requirements = trusted.requirements().for_client(client);
        let caller = requirements.caller(claims, TokenType::IdToken)?;
        demands.accept(caller, needs)
    }
}
