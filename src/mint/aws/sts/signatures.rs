//! The vectors of AWS for its signatures, through the very client that asks STS: only the
//! request is another one.

use aws_runtime::auth::SigV4OperationSigningConfig;
use aws_sdk_sts::config::interceptors::BeforeTransmitInterceptorContextMut;
use aws_sdk_sts::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_sts::error::BoxError;
use aws_smithy_types::body::SdkBody;
use aws_types::SigningName;
use serde_json::{Value, json};

use super::tests::Kept;
use super::*;
use crate::host::clock::FixedClock;
use crate::host::test_server::{host, run};

const VECTORS: &str = include_str!("../../../../tests/vectors/sigv4.json");

/// Puts the request of a vector in place of the client's own, before it is signed.
#[derive(Debug)]
struct Instead {
    vector: Value,
    service: String,
}

impl Intercept for Instead {
    fn name(&self) -> &'static str {
        "Instead"
    }

    fn modify_before_signing(
        &self,
        context: &mut BeforeTransmitInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let text = |value: &Value| value.as_str().unwrap().to_string();
        let flag = |name: &str| self.vector[name].as_bool().unwrap();
        let request = context.request_mut();
        request.set_method(&text(&self.vector["method"]))?;
        request.set_uri(format!("https://example.amazonaws.com{}", text(&self.vector["path"])))?;
        let names: Vec<String> = request.headers().iter().map(|(name, _)| name.into()).collect();
        for name in names {
            request.headers_mut().remove(name);
        }
        for header in self.vector["headers"].as_array().unwrap() {
            request.headers_mut().append(text(&header[0]), text(&header[1]));
        }
        *request.body_mut() = SdkBody::from(text(&self.vector["body"]));
        let mut signing = SigV4OperationSigningConfig::default();
        signing.signing_options.double_uri_encode = true;
        signing.signing_options.normalize_uri_path = flag("normalize");
        signing.signing_options.content_sha256_header = flag("sign_body");
        signing.signing_options.omit_session_token = flag("omit_session_token");
        let state = config.interceptor_state();
        state.store_put(SigningName::from(self.service.clone()));
        state.store_put(signing);
        Ok(())
    }
}

#[test]
fn signatures_are_those_of_the_suite_of_aws() {
    let all: Value = serde_json::from_str(VECTORS).unwrap();
    let text = |value: &Value| Secret::new(value.as_str().unwrap().to_string());
    let home = tempfile::tempdir().unwrap();
    let mut host = host(home.path(), time::Duration::ZERO);
    let now = OffsetDateTime::from_unix_timestamp(all["time"].as_i64().unwrap()).unwrap();
    host.clock = Arc::new(FixedClock(now));
    let settings: Settings = serde_json::from_value(json!({
        "endpoint_url": "https://example.amazonaws.com", "region": all["region"],
    }))
    .unwrap();
    let sts = Sts::new(&host, &settings, Effort::LOOK, Instant::now()).unwrap();
    let vectors = all["vectors"].as_array().unwrap();
    assert!(vectors.len() >= 30);
    for vector in vectors {
        let session = vector["token"].as_str().map(|_| text(&vector["token"]));
        let keys = AccessKeys {
            id: text(&all["access_key_id"]),
            secret: text(&all["secret_access_key"]),
            session,
        };
        let signer = Signer::from(&keys);
        let kept = Kept::default();
        let service = all["service"].as_str().unwrap().to_string();
        let instead = Instead { vector: vector.clone(), service };
        let call = sts.client(Some(&signer)).get_caller_identity().customize();
        let call = call.interceptor(instead);
        let call = call.config_override(Config::builder().http_client(kept.clone()));
        let sent = run(call.send());
        let signed = kept.sent().authorization;
        let signature = format!("Signature={}", vector["signature"].as_str().unwrap());
        assert!(signed.ends_with(&signature), "{}: {signed}: {sent:?}", vector["name"]);
    }
}
