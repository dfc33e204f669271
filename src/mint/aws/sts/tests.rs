//! Where requests go.

use std::sync::Mutex;

use aws_sdk_sts::config::http::HttpRequest;
use aws_sdk_sts::config::{HttpClient, RuntimeComponents};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use serde_json::json;

use super::super::connector::refused;
use super::*;
use crate::credential::TokenType;
use crate::host::clock::SystemClock;
use crate::host::test_server::{self, run};

/// Keeps what would be sent, and sends nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept(Arc<Mutex<Sent>>);

/// What would be.
#[derive(Clone, Debug, Default)]
pub(super) struct Sent {
    pub(super) uri: String,
    pub(super) authorization: String,
}

impl Kept {
    /// What would have been sent last.
    pub(super) fn sent(&self) -> Sent {
        self.0.lock().unwrap().clone()
    }
}

impl HttpClient for Kept {
    fn http_connector(
        &self,
        _: &HttpConnectorSettings,
        _: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Kept {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let authorization = request.headers().get("authorization").unwrap_or_default().into();
        *self.0.lock().unwrap() = Sent { uri: request.uri().to_string(), authorization };
        HttpConnectorFuture::ready(Err(refused("nothing is sent".into())))
    }
}

fn place(settings: serde_json::Value) -> String {
    let settings: Settings = serde_json::from_value(settings).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let host = test_server::host(dir.path(), time::Duration::ZERO);
    let kept = Kept::default();
    let http = SharedHttpClient::new(kept.clone());
    let (effort, started) = (Effort::RENEW, Instant::now());
    let (person, grant_ends) = (Cell::default(), None);
    let sts =
        Sts { host: &host, settings: &settings, http, effort, started, person, grant_ends };
    let assertion = Assertion {
        token: Secret::new("canary".into()),
        token_type: TokenType::IdToken,
        principal: Principal { issuer: "i".into(), subject: "s".into() },
        expires_at: SystemClock.now(),
        grant_ends: None,
    };
    let role = RoleArn::parse("arn:aws:iam::123456789012:role/x").unwrap();
    assert!(run(sts.with_web_identity(&assertion, &role, None)).is_err());
    kept.sent().uri
}

#[test]
fn the_region_tells_the_endpoint() {
    for (settings, place_of_it) in [
        (json!({}), "https://sts.amazonaws.com/"),
        (json!({ "region": "eu-central-1" }), "https://sts.eu-central-1.amazonaws.com/"),
        (json!({ "region": "us-east-1" }), "https://sts.us-east-1.amazonaws.com/"),
        (json!({ "region": "cn-north-1" }), "https://sts.cn-north-1.amazonaws.com.cn/"),
        (json!({ "region": "us-gov-west-1" }), "https://sts.us-gov-west-1.amazonaws.com/"),
        (
            json!({ "region": "us-east-2", "use_fips": true }),
            "https://sts-fips.us-east-2.amazonaws.com/",
        ),
        (
            json!({ "region": "us-gov-west-1", "use_fips": true }),
            "https://sts.us-gov-west-1.amazonaws.com/",
        ),
        (
            json!({ "region": "cn-north-1", "use_fips": true }),
            "https://sts-fips.cn-north-1.amazonaws.com.cn/",
        ),
        (
            json!({ "region": "us-east-2", "endpoint_url": "https://sts.example/x" }),
            "https://sts.example/x/",
        ),
    ] {
            assert_eq!(place(settings.clone()), place_of_it);
        // What the circuit breaker knows it by.
        let settings: Settings = serde_json::from_value(settings).unwrap();
        assert_eq!(settings.address().trim_end_matches('/'), place_of_it.trim_end_matches('/'));
    }
}
