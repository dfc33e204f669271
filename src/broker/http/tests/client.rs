//! Clients that authenticate by what they sign (RFC 7523), and those that need not.

mod keys;
mod parties;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::IntoResponse;
use serde_json::{Value, json};

use super::dpop::Device;
use super::header_of;
use crate::broker::audit::Decision;
use crate::broker::config::{Binding, Client, ClientAuth, Nonces};
use crate::broker::store::{Store, sqlite};
use crate::broker::testbed::{
    API, Bed, CORP, IssuerKey, Options, Served, Standing, claims_of, json_of, now,
};
use crate::host::http::{Request, Response};
use crate::oidc::jwt::Algorithm;
use crate::secret::Secret;

const BROKER: &str = "https://broker.example.com";
const TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// A client that signs.
pub(super) struct Signer(IssuerKey);

impl Signer {
    pub(super) fn new() -> Self {
        Self(IssuerKey::new())
    }

    /// A good assertion of the client `deployer`, with changes; `null` takes one away.
    fn claims(&self, changes: Value) -> Value {
        let at = now().unix_timestamp();
        let own = json!({
            "iss": "deployer", "sub": "deployer", "aud": BROKER, "exp": at + 60, "iat": at,
            "jti": uuid::Uuid::new_v4(), "groups": null, "azp": null,
        });
        let mut all = own.as_object().unwrap().clone();
        all.extend(changes.as_object().unwrap().clone());
        self.0.claims(Value::Object(all))
    }

    pub(super) fn assertion(&self, changes: Value) -> String {
        self.typed("JWT", changes)
    }

    fn typed(&self, typ: &str, changes: Value) -> String {
        self.0.0.sign(typ, &self.claims(changes)).unwrap().expose().clone()
    }

    /// Makes it the client `deployer` of a broker, and of another one `public`, which
    /// proves a key.
    pub(super) fn configure(&self, options: &mut Options) {
        let corp = options.config.trusted_issuer["corp"].jwks_file.clone().unwrap();
        let jwks = corp.with_file_name(format!("{}.json", self.0.0.kid()));
        crate::host::files::write_private(&jwks, self.0.jwks().to_string().as_bytes()).unwrap();
        let deployer = Client {
            jwks_file: Some(jwks),
            algorithms: Some(vec![Algorithm::ES256]),
            ..Client::default()
        };
        let public =
            Client { auth: ClientAuth::None, dpop: Binding::Required, ..Client::default() };
        let clients = [("deployer".to_string(), deployer), ("public".into(), public)];
        options.config.client = clients.into();
        options.config.dpop.nonces = Nonces::Optional;
    }
}

/// A broker with the client, which policy wants for the role `deploy`.
async fn bed() -> (Bed, Signer) {
    bed_with(|_| {}).await
}

async fn bed_with(change: impl FnOnce(&mut Options)) -> (Bed, Signer) {
    let signer = Signer::new();
    let bed = Bed::with(|options| {
        signer.configure(options);
        change(options);
        options.policies += r#"
@id("by-the-deployer")
forbid (principal, action == Action::"issue", resource == Role::"deploy")
when { context.scope.contains("deploy:write") }
unless { context has client && context.client == "deployer" };
"#;
    })
    .await;
    (bed, signer)
}

/// The parameters by which a client authenticates.
pub(super) fn by(assertion: &str) -> [(&str, &str); 2] {
    [("client_assertion_type", TYPE), ("client_assertion", assertion)]
}

async fn refused(bed: &Bed, changes: &[(&str, &str)]) -> (u16, String, String) {
    let response = bed.exchange(&bed.key.token(json!({})), changes).await;
    assert_eq!(header_of(&response, "cache-control"), "no-store");
    let body = json_of(&response);
    let text = |name: &str| body[name].as_str().unwrap_or_default().to_string();
    (response.status.as_u16(), text("error"), text("error_description"))
}

async fn count(bed: &Bed, outcome: &str) -> u32 {
    let metrics = bed.admin.get("/metrics").await.body;
    let metrics = String::from_utf8(metrics.expose().clone()).unwrap();
    let name = format!("tmpcred_client_authentications_total{{outcome=\"{outcome}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse().unwrap()
}

#[tokio::test]
async fn the_client_that_has_authenticated_is_known_to_policy_token_and_record() {
    let (bed, signer) = bed().await;
    let assertion = signer.assertion(json!({}));
    let token = bed.issued(json!({}), &by(&assertion)).await;
    assert_eq!(claims_of(&token)["client_id"], "deployer");
    assert_eq!(claims_of(&token)["sub"], format!("{CORP}#alice"));
    let (_, record) = bed.records(0, 9).await.pop().unwrap();
    assert_eq!((record.decision, record.client.as_str()), (Decision::Issued, "deployer"));
    assert_eq!(count(&bed, "authenticated").await, 1);

    // Nobody else has what policy gives to it alone.
    let response = bed.exchange(&bed.key.token(json!({})), &[]).await;
    assert_eq!(json_of(&response)["error"], "access_denied");
    let narrower = bed.issued(json!({}), &[("scope", "deploy:read")]).await;
    assert_eq!(claims_of(&narrower)["client_id"], "cli");

    // Its type may be said, as the newer drafts have it, or left out.
    let typed = signer.typed("client-authentication+jwt", json!({}));
    bed.issued(json!({}), &[&by(&typed)[..], &[("client_id", "deployer")]].concat()).await;
}

#[tokio::test]
async fn nobody_comes_as_a_client_that_has_to_authenticate_without_doing_so() {
    let (bed, signer) = bed().await;
    let read = ("scope", "deploy:read");
    let (status, code, said) = refused(&bed, &[("client_id", "deployer"), read]).await;
    assert_eq!((status, code.as_str()), (401, "invalid_client"));
    assert!(said.contains("has to authenticate"), "{said}");
    // Nor by a token that was issued to a client of that name.
    for name in ["azp", "client_id"] {
        let token = bed.key.token(json!({ name: "deployer", "azp": "deployer" }));
        let response = bed.exchange(&token, &[read]).await;
        assert_eq!(response.status, StatusCode::UNAUTHORIZED);
        assert_eq!(json_of(&response)["error"], "invalid_client");
        let assertion = signer.assertion(json!({}));
        let through = bed.exchange(&token, &[&by(&assertion)[..], &[read]].concat()).await;
        assert_eq!(through.status, StatusCode::OK);
    }
    assert_eq!(count(&bed, "missing").await, 3);
    // Names that are nobody's here say nothing, as ever.
    let response =
        bed.exchange(&bed.key.token(json!({})), &[("client_id", "somebody"), read]).await;
    assert_eq!(response.status, StatusCode::OK);
}

#[tokio::test]
async fn an_assertion_that_is_not_for_this_broker_now_and_alone_is_refused() {
    // By one that runs, what is too long by a second is not any more, a second later.
    let clock = Arc::new(Standing::default());
    let (bed, signer) = bed_with(|options| options.clock = clock.clone()).await;
    let at = clock.seconds();
    let other = Signer::new();
    let mut cases = Vec::new();
    for (changes, says) in [
        (json!({"aud": format!("{BROKER}/token")}), "alone, as a text"),
        (json!({"aud": format!("{BROKER}/")}), "alone, as a text"),
        (json!({"aud": [BROKER]}), "alone, as a text"),
        (json!({"aud": [BROKER, "https://evil.example"]}), "alone, as a text"),
        (json!({"aud": null}), "alone, as a text"),
        (json!({"iss": "somebody"}), "it was issued by 'somebody'"),
        (json!({"iss": null}), "it was issued by ''"),
        (json!({"sub": null}), "no client ''"),
        (json!({"sub": "nobody", "iss": "nobody"}), "no client 'nobody'"),
        (json!({"sub": "public", "iss": "public"}), "no client 'public'"),
        (json!({"exp": null}), "no expiry"),
        (json!({"exp": at - 60, "iat": null}), "it expired"),
        (json!({"exp": at + 361}), "longer than 5 minutes"),
        (json!({"iat": at + 90}), "in the future"),
        (json!({"nbf": at + 90}), "in the future"),
        (json!({"jti": null}), "its jti"),
        (json!({"jti": ""}), "its jti"),
        (json!({"jti": 7}), "its jti"),
        (json!({"jti": "x".repeat(513)}), "its jti"),
    ] {
        cases.push((signer.assertion(changes), says));
    }
    cases.push((signer.typed("dpop+jwt", json!({})), "another type"));
    cases.push((signer.typed("at+jwt", json!({})), "another type"));
    cases.push((other.assertion(json!({})), "has no key"));
    cases.push((other.0.token_with_own_key(None, signer.claims(json!({}))), "signature"));
    cases.push((signer.assertion(json!({})) + "A", "signature"));
    cases.push(("x".into(), "not a signed JWT"));
    for (assertion, says) in &cases {
        let (status, code, said) = refused(&bed, &by(assertion)).await;
        assert_eq!((status, code.as_str()), (401, "invalid_client"), "{says}: {said}");
        assert!(said.contains(says), "{says}: {said}");
        assert!(assertion.len() < 20 || !said.contains(&assertion[..20]), "{said}");
    }
    let good = || signer.assertion(json!({}));
    // What is wrong with how it is shown.
    for (changes, code) in [
        (vec![("client_assertion_type", "x"), ("client_assertion", &*good())], "invalid_client"),
        (vec![("client_assertion", &*good())], "invalid_client"),
        (vec![("client_assertion_type", TYPE)], "invalid_request"),
        ([&by(&good())[..], &[("client_id", "public")]].concat(), "invalid_client"),
        ([&by(&good())[..], &[("client_secret", "x")]].concat(), "invalid_request"),
    ] {
        assert_eq!(refused(&bed, &changes).await.1, code, "{changes:?}");
    }
    assert_eq!(bed.records(0, 9).await, [], "strangers leave no rows");
    assert_eq!(count(&bed, "unknown").await, 3);
    // The longest that are accepted, by clocks that differ as far as that is forgiven, and the oldest.
    for exp in [at + 300, at + 360, at - 59] {
        let assertion = signer.assertion(json!({"exp": exp, "iat": null}));
        bed.issued(json!({}), &by(&assertion)).await;
    }
}

#[tokio::test]
async fn an_assertion_is_good_once_at_all_processes_and_endpoints_whatever_came_of_it() {
    let signer = Signer::new();
    let store: Arc<dyn Store> = Arc::new(sqlite::in_memory().await.unwrap());
    let one = async |store: Arc<dyn Store>| {
        Bed::with(|options| {
            signer.configure(options);
            options.store = store;
            options.root_key = crate::broker::keys::RootKey::new(Secret::new([7; 32]));
        })
        .await
    };
    let beds = Arc::new([one(store.clone()).await, one(store).await]);
    let assertion = signer.assertion(json!({}));
    let mut tasks = tokio::task::JoinSet::new();
    for n in 0..20 {
        let (beds, assertion) = (beds.clone(), assertion.clone());
        tasks.spawn(async move {
            let bed = &beds[n % 2];
            bed.exchange(&bed.key.token(json!({})), &by(&assertion)).await.status
        });
    }
    let statuses = tasks.join_all().await;
    let with = |status| statuses.iter().filter(|s| **s == status).count();
    assert_eq!((with(StatusCode::OK), with(StatusCode::UNAUTHORIZED)), (1, 19), "{statuses:?}");
    let (_, code, said) = refused(&beds[1], &by(&assertion)).await;
    assert_eq!(code, "invalid_client");
    assert!(said.contains("used before"), "{said}");
    assert_eq!(revoke(&beds[0], &assertion, "x").await.status, StatusCode::UNAUTHORIZED);

    // Also where it came to nothing, whoever's fault that was.
    let spent = signer.assertion(json!({}));
    let response = beds[0].exchange("no token", &by(&spent)).await;
    assert_eq!(json_of(&response)["error"], "invalid_request");
    assert_eq!(refused(&beds[1], &by(&spent)).await.1, "invalid_client");
    assert_eq!(count(&beds[0], "replayed").await + count(&beds[1], "replayed").await, 22);
    // The same id of another client is another one.
    let (_, _, said) = refused(&beds[0], &by(&signer.assertion(json!({"jti": "1"})))).await;
    assert_eq!(said, "");
}

/// Asks with a proof of a key.
async fn proved(bed: &Bed, device: &Device, changes: &[(&str, &str)], azp: &str) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", "application/x-www-form-urlencoded".parse().unwrap());
    headers.append("dpop", HeaderValue::from_str(&device.proof(None)).unwrap());
    let form = bed.form(&bed.key.token(json!({ "azp": azp })), changes);
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let body = Secret::new(body.into_bytes());
    let request = Request { method: Method::POST, url: bed.url("/token"), headers, body };
    bed.client.send(request).await.unwrap()
}

#[tokio::test]
async fn a_public_client_proves_a_key_and_is_taken_for_nobody_in_particular() {
    let (bed, _) = bed().await;
    let read = ("scope", "deploy:read");
    let (status, code, said) = refused(&bed, &[("client_id", "public"), read]).await;
    assert_eq!((status, code.as_str()), (401, "invalid_client"));
    assert!(said.contains("DPoP proof"), "{said}");
    let device = Device::new();
    let response = proved(&bed, &device, &[("client_id", "public"), read], "cli").await;
    let grant = json_of(&response);
    assert_eq!(grant["token_type"], "DPoP", "{grant}");
    // Anybody can say that: so it stands nowhere.
    assert_eq!(claims_of(grant["access_token"].as_str().unwrap())["client_id"], "cli");
    // What an issuer says counts as much.
    let token = bed.key.token(json!({"azp": "public"}));
    assert_eq!(bed.exchange(&token, &[read]).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(proved(&bed, &device, &[read], "public").await.status, StatusCode::OK);
    // To policy it is no client that has authenticated.
    let all = proved(&bed, &device, &[("client_id", "public")], "cli").await;
    assert_eq!(json_of(&all)["error"], "access_denied");
}

#[tokio::test]
async fn a_client_may_have_to_do_both() {
    let signer = Signer::new();
    let bed = Bed::with(|options| {
        signer.configure(options);
        options.config.client.get_mut("deployer").unwrap().dpop = Binding::Required;
    })
    .await;
    let (status, _, said) = refused(&bed, &by(&signer.assertion(json!({})))).await;
    assert_eq!(status, 401);
    assert!(said.contains("DPoP proof"), "{said}");
    let device = Device::new();
    let alone = proved(&bed, &device, &[("client_id", "deployer")], "cli").await;
    assert_eq!(alone.status, StatusCode::UNAUTHORIZED);
    let both = proved(&bed, &device, &by(&signer.assertion(json!({}))), "cli").await;
    assert_eq!(json_of(&both)["token_type"], "DPoP");
}

async fn revoke(bed: &Bed, assertion: &str, token: &str) -> Response {
    let form = [&by(assertion)[..], &[("token", token)]].concat();
    let form: Vec<_> = form.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
    bed.post("/revoke", &form).await
}

#[tokio::test]
async fn who_revokes_as_a_client_shows_it_and_is_on_record() {
    let (bed, signer) = bed().await;
    let token = bed.issued(json!({}), &[("scope", "deploy:read")]).await;
    let form = [("client_id", "deployer"), ("token", &*token)];
    let form = form.map(|(n, v)| (n.to_string(), v.to_string()));
    let refused = bed.post("/revoke", &form).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    assert_eq!(json_of(&refused)["error"], "invalid_client");
    let bad = revoke(&bed, &signer.assertion(json!({"aud": "x"})), &token).await;
    assert_eq!(bad.status, StatusCode::UNAUTHORIZED);
    assert_eq!(bed.records(1, 9).await, [], "and the token is good still");
    let good = revoke(&bed, &signer.assertion(json!({})), &token).await;
    assert_eq!(good.status, StatusCode::OK);
    let (_, record) = bed.records(0, 9).await.pop().unwrap();
    assert_eq!(record.decision, Decision::Revoked);
    assert!(record.reason.contains("the client 'deployer'"), "{}", record.reason);
}

#[tokio::test]
async fn a_client_introspects_in_its_own_name_where_policy_lets_it() {
    let signer = Signer::new();
    let bed = Bed::with(|options| {
        signer.configure(options);
        options.policies += &format!(
            r#"
@id("deployer-introspects")
permit (principal == User::"{BROKER}#deployer", action == Action::"introspect", resource)
when {{ context.audience == "{API}" }};
"#
        );
    })
    .await;
    let token = bed.issued(json!({}), &[]).await;
    let ask = async |form: &[(&str, &str)]| {
        let form: Vec<_> = form.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        bed.post("/introspect", &form).await
    };
    let assertion = signer.assertion(json!({}));
    let told = ask(&[&by(&assertion)[..], &[("token", &token)]].concat()).await;
    assert_eq!(json_of(&told)["active"], true);
    let again = ask(&[&by(&assertion)[..], &[("token", &token)]].concat()).await;
    assert_eq!(again.status, StatusCode::UNAUTHORIZED);
    assert_eq!(json_of(&again)["error"], "invalid_client");
    // To name it is no proof, and nor is it to have a table.
    let named = ask(&[("client_id", "deployer"), ("token", &token)]).await;
    assert_eq!(named.status, StatusCode::UNAUTHORIZED);
    assert_eq!(json_of(&named)["error"], "invalid_client");
    let named = ask(&[("client_id", "public"), ("token", &token)]).await;
    assert_eq!(named.status, StatusCode::UNAUTHORIZED);
    assert!(header_of(&named, "www-authenticate").starts_with("Bearer"));
    // Without a policy for it, it is told nothing.
    let other = Signer::new();
    let bed = Bed::with(|options| other.configure(options)).await;
    let token = bed.issued(json!({}), &[]).await;
    let assertion = other.assertion(json!({}));
    let form = [&by(&assertion)[..], &[("token", &token)]].concat();
    let form: Vec<_> = form.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
    assert_eq!(json_of(&bed.post("/introspect", &form).await), json!({"active": false}));
}

#[tokio::test]
async fn keys_are_fetched_for_clients_that_are_known_and_without_them_nobody_is_let_in() {
    let signer = Signer::new();
    let (jwks, down) = (signer.0.jwks(), Arc::new(AtomicBool::new(true)));
    let is_down = down.clone();
    let answer = move || async move {
        if is_down.load(Ordering::Relaxed) {
            StatusCode::BAD_GATEWAY.into_response()
        } else {
            axum::Json(jwks).into_response()
        }
    };
    let app = axum::Router::new().route("/jwks", axum::routing::get(answer));
    let served = Served::start(|_| app, None);
    let uri = format!("http://{}/jwks", served.address).parse().unwrap();
    let bed = Bed::with(|options| {
        signer.configure(options);
        let deployer = options.config.client.get_mut("deployer").unwrap();
        deployer.jwks_file = None;
        deployer.jwks_uri = Some(uri);
    })
    .await;
    let (status, code, said) = refused(&bed, &by(&signer.assertion(json!({})))).await;
    assert_eq!((status, code.as_str()), (503, "temporarily_unavailable"));
    assert!(said.contains("the keys of the client 'deployer'"), "{said}");
    assert!(!said.contains(&served.address.to_string()), "{said}");
    assert_eq!(count(&bed, "unavailable").await, 1);
    down.store(false, Ordering::Relaxed);
    // A server that failed is left alone for a moment.
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while refused(&bed, &by(&signer.assertion(json!({})))).await.0 != 200 {
        assert!(tokio::time::Instant::now() < deadline, "it is never asked again");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn metadata_tells_how_clients_authenticate() {
    let (bed, _) = bed().await;
    let plain = Bed::new().await;
    for path in ["/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"] {
        let (told, without) = (json_of(&bed.get(path).await), json_of(&plain.get(path).await));
        let shown: [(&str, &[&str]); 3] = [
            ("token", &["none"]),
            ("revocation", &["none"]),
            ("introspection", &["Bearer", "DPoP"]),
        ];
        for (endpoint, first) in shown {
            let methods = format!("{endpoint}_endpoint_auth_methods_supported");
            let algorithms = format!("{endpoint}_endpoint_auth_signing_alg_values_supported");
            assert_eq!(told[&methods], json!([first, &["private_key_jwt"]].concat()));
            assert_eq!(told[&algorithms], json!(["ES256"]));
            assert_eq!(without[&methods], json!(first));
            assert_eq!(without.get(&algorithms), None);
        }
    }
}

/// RFC 6749 section 5.2: a method that is not supported is an `invalid_client`, and who has
/// tried it in the header is told so by a challenge.
#[tokio::test]
async fn whoever_shows_a_secret_is_told_that_no_client_has_one() {
    let bed = Bed::new().await;
    let token = bed.issued(json!({}), &[]).await;
    let of = |form: &[(&str, &str)]| {
        form.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect::<Vec<_>>()
    };
    let send = async |path: &str, authorization: Option<&str>, form: &[(String, String)]| {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/x-www-form-urlencoded".parse().unwrap());
        if let Some(authorization) = authorization {
            headers.insert("authorization", authorization.parse().unwrap());
        }
        let body = url::form_urlencoded::Serializer::new(String::new());
        let body = Secret::new({ body }.extend_pairs(form).finish().into_bytes());
        let request = Request { method: Method::POST, url: bed.url(path), headers, body };
        bed.client.send(request).await.unwrap()
    };
    let bearer = format!("Bearer {token}");
    let paths = ["/token", "/revoke", "/introspect", "/v1/revocations", "/v1/revocations/dry-run"];
    for path in paths {
        let form = match path {
            "/token" => bed.form(&bed.key.token(json!({})), &[]),
            "/revoke" | "/introspect" => of(&[("token", &token)]),
            _ => of(&[("role", "deploy")]),
        };
        let secret = [&form[..], &of(&[("client_id", "x"), ("client_secret", "hunter2")])].concat();
        for (authorization, form, challenge) in [
            (Some("Basic Y2xpOmh1bnRlcjI="), &form, "Basic realm=\"tmpcred\""),
            (Some("bASIC Y2xpOmh1bnRlcjI="), &form, "Basic realm=\"tmpcred\""),
            (Some("Basic"), &form, "Basic realm=\"tmpcred\""),
            (Some("Basic Y2xpOmh1bnRlcjI="), &secret, "Basic realm=\"tmpcred\""),
            (Some(&*bearer), &secret, ""),
            (None, &secret, ""),
        ] {
            let response = send(path, authorization, form).await;
            let refusal = json_of(&response);
            assert_eq!(response.status, StatusCode::UNAUTHORIZED, "{path}: {refusal}");
            assert_eq!(refusal["error"], "invalid_client", "{path}");
            assert_eq!(header_of(&response, "www-authenticate"), challenge, "{path}");
            let said = refusal["error_description"].as_str().unwrap();
            assert!(said.contains("no client has a secret here"), "{path}: {said}");
            assert!(!said.contains("hunter2"), "{said}");
        }
    }
    assert_eq!(count(&bed, "invalid").await, 30);
    // Nothing came of any of them, and other schemes are no way to be a client.
    assert_eq!(bed.records(1, 9).await, []);
    assert_eq!(json_of(&bed.introspect(Some(&token), &token).await)["active"], true);
    let form = bed.form(&bed.key.token(json!({})), &[]);
    assert_eq!(send("/token", Some("Bearer x"), &form).await.status, StatusCode::OK);
    // Who authenticates in two ways at once is not asked which one they mean.
    let both = [&form[..], &of(&by("x"))].concat();
    let response = send("/token", Some("Basic Y2xpOmh1bnRlcjI="), &both).await;
    assert_eq!(json_of(&response)["error"], "invalid_request");
}
