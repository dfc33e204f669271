//! Whether the key that signed a broker's token is good still. A broker publishes each key
//! for longer than its last token lives, unless it was revoked.

use super::broker::Server;
use crate::credential::Credential;
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::oidc::{Issuer, Keys, jwt};
use crate::reach::Effort;
use crate::wire::JWKS_PATH;

/// The id of the key that signed it, where it says one.
pub(super) fn key_of(credential: &Credential) -> Option<String> {
    let token = credential.material.token()?;
    let header = jwt::decode_unverified(token.expose()).ok()?.header;
    Some(header.get("kid")?.as_str()?.to_string())
}

/// Whether the broker publishes that key at this moment.
///
/// # Errors
/// Where it cannot be asked, or answers something else: then nobody can tell.
pub(super) async fn is_good(host: &Host, server: &Server, credential: &Credential) -> Result<bool> {
    let Some(kid) = key_of(credential) else { return Ok(true) };
    let http = host.http(server.ca_file.as_deref())?.telling_trace();
    let attempt = async |address: &Issuer| {
        let url = address.join(JWKS_PATH);
        let response = http.get(&url).await?;
        match response.outage(url.as_str()) {
            Some(outage) => Err(outage.into()),
            None => Ok(response),
        }
    };
    let response = server.ask(host, Effort::LOOK, None, attempt).await?;
    if !response.status.is_success() {
        let message = format!("the broker {} does not tell its keys", server.issuer());
        return Err(Error::new(ErrorKind::Unreachable, message)
            .because_of(format!("it answered {}", response.status.as_u16())));
    }
    Ok(Keys::parse(response.body.expose())?.has(&kid))
}
