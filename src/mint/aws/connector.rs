//! Our HTTP client under the SDK of STS.

use std::fmt;

use aws_sdk_sts::config::http::{HttpRequest, HttpResponse};
use aws_sdk_sts::config::{HttpClient, RuntimeComponents};
use aws_sdk_sts::error::ConnectorError;
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use url::Url;

use super::sts::impossible;
use crate::error::{ErrorKind, Result};
use crate::host::http;
use crate::secret::Secret;

/// Our HTTP client, as the SDK wants it: one set of authorities, limits and TLS.
#[derive(Clone)]
pub(super) struct Connector(pub(super) http::HttpClient);

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

impl HttpClient for Connector {
    fn http_connector(
        &self,
        _: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let client = self.0.clone();
        HttpConnectorFuture::new(async move {
            let request = translate(&request).map_err(|error| refused(error.into()))?;
            let response = client.send(request).await.map_err(|error| match error.kind() {
                // Such a fault may pass.
                ErrorKind::Unreachable => ConnectorError::io(error.into()),
                _ => refused(error.into()),
            })?;
            let status = StatusCode::try_from(response.status.as_u16())
                .map_err(|cause| refused(cause.into()))?;
            let body = SdkBody::from(response.body.expose().clone());
            let mut answer = HttpResponse::new(status, body);
            for (name, value) in &response.headers {
                if let Ok(value) = value.to_str() {
                    let set = answer.headers_mut().try_append(name.as_str().to_string(), value.to_string());
                    set.map_err(|cause| refused(cause.into()))?;
                }
            }
            Ok(answer)
        })
    }
}

/// A fault that another attempt does not mend.
pub(super) fn refused(cause: Box<dyn std::error::Error + Send + Sync>) -> ConnectorError {
    ConnectorError::user(cause)
}

fn translate(request: &HttpRequest) -> Result<http::Request> {
    let method = Method::from_bytes(request.method().as_bytes()).map_err(impossible)?;
    let url = Url::parse(request.uri()).map_err(impossible)?;
    let mut headers = HeaderMap::new();
    for (name, value) in request.headers() {
        let name = HeaderName::try_from(name).map_err(impossible)?;
        headers.append(name, HeaderValue::try_from(value).map_err(impossible)?);
    }
    // The requests of STS are short and whole.
    let body = request.body().bytes().unwrap_or_default().to_vec();
    Ok(http::Request { method, url, headers, body: Secret::new(body) })
}
