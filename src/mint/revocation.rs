//! Revoking a token at the broker that issued it (RFC 7009).

use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use url::form_urlencoded;

use super::broker::Server;
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::host::http::Request;
use crate::oidc::Issuer;
use crate::reach::Effort;
use crate::secret::Secret;
use crate::wire::{REVOCATION_PATH, VERSION, VERSION_HEADER};

/// Asks the broker to revoke a token.
///
/// # Errors
/// [`ErrorKind::Unreachable`] where no answer comes in time or the broker cannot
/// serve, [`ErrorKind::Denied`] where it refuses.
pub(super) async fn revoke(host: &Host, server: &Server, token: &Secret<String>) -> Result<()> {
    let who = || format!("the broker {}", server.issuer());
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("token", token.expose())
        .append_pair("token_type_hint", "access_token")
        .finish();
    let headers = HeaderMap::from_iter([
        (CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded")),
        (HeaderName::from_static(VERSION_HEADER), HeaderValue::from(VERSION)),
    ]);
    let form = Secret::new(form.into_bytes());
    let http = host.http(server.ca_file.as_deref())?.telling_trace();
    let attempt = async |address: &Issuer| {
        let request = Request {
            method: Method::POST,
            url: address.join(REVOCATION_PATH),
            headers: headers.clone(),
            body: Secret::new(form.expose().clone()),
        };
        let response = http.send(request).await?;
        match response.outage(&who()) {
            Some(outage) => Err(outage.into()),
            None => Ok(response),
        }
    };
    let response = server.ask(host, Effort::REVOKE, None, attempt).await?;
    if !response.status.is_success() {
        return Err(Error::new(ErrorKind::Denied, format!("{} does not revoke it", who()))
            .because_of(format!("it answered {}", response.status.as_u16())));
    }
    Ok(())
}
