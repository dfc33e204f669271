//! Revoking a token at the broker that issued it (RFC 7009).

use std::time::Duration;

use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use url::form_urlencoded;

use super::broker::Server;
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::host::http::Request;
use crate::secret::Secret;
use crate::wire::{REVOCATION_PATH, VERSION, VERSION_HEADER};

/// How long it may take: somebody waits for the end of their command.
const LIMIT: Duration = Duration::from_secs(5);

/// Asks the broker to revoke a token.
///
/// # Errors
/// [`ErrorKind::Unreachable`] where no answer comes in time or the broker cannot
/// serve, [`ErrorKind::Denied`] where it refuses.
pub(super) async fn revoke(host: &Host, server: &Server, token: &Secret<String>) -> Result<()> {
    let who = || format!("the broker {}", server.url);
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("token", token.expose())
        .append_pair("token_type_hint", "access_token")
        .finish();
    let headers = HeaderMap::from_iter([
        (CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded")),
        (HeaderName::from_static(VERSION_HEADER), HeaderValue::from(VERSION)),
    ]);
    let request = Request {
        method: Method::POST,
        url: server.url.join(REVOCATION_PATH),
        headers,
        body: Secret::new(form.into_bytes()),
    };
    let http = host.http(server.ca_file.as_deref())?;
    let response = tokio::time::timeout(LIMIT, http.send(request)).await.map_err(|_| {
        Error::new(ErrorKind::Unreachable, format!("{} did not answer", who()))
            .because_of(format!("the limit is {} seconds", LIMIT.as_secs()))
    })??;
    if let Some(outage) = response.outage(&who()) {
        return Err(outage);
    }
    if !response.status.is_success() {
        return Err(Error::new(ErrorKind::Denied, format!("{} does not revoke it", who()))
            .because_of(format!("it answered {}", response.status.as_u16())));
    }
    Ok(())
}
