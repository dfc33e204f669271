//! The pages, without a browser, and with a provider that says what no good one would.

mod forms;
mod many;
mod queries;
mod sign_in;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use axum::http::{HeaderMap, Method, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use url::Url;

use crate::broker::config::{TrustedIssuer, Web};
use crate::broker::directory::Settings;
use crate::broker::testbed::{Bed, IssuerKey, Options, Served, Shifted, now};
use crate::oidc::Issuer;

const RULES: &str = r#"
@id("staff-asks")
permit (principal in DirectoryGroup::"staff", action == Action::"elevate", resource == Role::"admin");

@id("leads-approve")
permit (principal in DirectoryGroup::"leads", action == Action::"approve", resource == Role::"admin");
"#;

const ELEVATION: &str = "longest = \"1h\"\napprovals = [{ count = 1, groups = [\"leads\"] }]";

/// What the provider answers for a code.
#[derive(Default)]
struct Said {
    id_token: Mutex<String>,
}

/// A broker with pages, and a provider.
struct Place {
    _dir: tempfile::TempDir,
    clock: Arc<Shifted>,
    bed: Bed,
    provider: Served,
    said: Arc<Said>,
    key: IssuerKey,
    client: reqwest::Client,
}

/// An answer that was read to its end.
struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    fn parameter(&self, name: &str) -> String {
        let location = Url::parse(self.header("location")).unwrap();
        let value = location.query_pairs().find(|(known, _)| known == name);
        value.unwrap_or_else(|| panic!("no {name}: {location}")).1.into_owned()
    }

    /// The value of a hidden field.
    fn field(&self, name: &str) -> String {
        let start = format!("name=\"{name}\" value=\"");
        let (_, rest) = self.text.split_once(&start).unwrap_or_else(|| panic!("{}", self.text));
        rest.split('"').next().unwrap().to_string()
    }
}

/// A browser's cookies.
#[derive(Clone, Default)]
struct Jar(BTreeMap<String, String>);

impl Jar {
    fn keep(&mut self, answer: &Answer) {
        for cookie in answer.headers.get_all("set-cookie") {
            let cookie = cookie.to_str().unwrap();
            let (pair, rest) = cookie.split_once(';').unwrap();
            let (name, value) = pair.split_once('=').unwrap();
            assert!(rest.contains("; HttpOnly; SameSite=Lax; Secure"), "{cookie}");
            assert!(rest.contains("Path=/;") && name.starts_with("__Host-tmpcred-"), "{cookie}");
            match value {
                "" => drop(self.0.remove(name)),
                value => drop(self.0.insert(name.into(), value.into())),
            }
        }
    }

    /// How many sign-ins it remembers.
    fn sign_ins(&self) -> usize {
        self.0.keys().filter(|name| name.starts_with("__Host-tmpcred-sign-in-")).count()
    }

    fn header(&self) -> String {
        let all: Vec<_> = self.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        all.join("; ")
    }
}

/// The provider, as far as somebody signs in there.
fn provider(said: &Arc<Said>, keys: Value) -> Served {
    let said = said.clone();
    Served::start(
        |address| {
            let at = format!("http://{address}");
            let document = json!({
                "issuer": at,
                "authorization_endpoint": format!("{at}/auth"),
                "token_endpoint": format!("{at}/token"),
                "jwks_uri": format!("{at}/jwks"),
                "authorization_response_iss_parameter_supported": true,
            });
            let token = move || async move {
                let id_token = said.id_token.lock().unwrap().clone();
                match id_token.as_str() {
                    "" => (StatusCode::BAD_REQUEST, Json(json!({ "error": "invalid_grant" }))),
                    id_token => (
                        StatusCode::OK,
                        Json(json!({
                            "access_token": "a", "token_type": "Bearer", "id_token": id_token,
                        })),
                    ),
                }
            };
            Router::new()
                .route("/.well-known/openid-configuration", get(|| async { Json(document) }))
                .route("/jwks", get(|| async { Json(keys) }))
                .route("/token", post(token))
        },
        None,
    )
}

impl Place {
    async fn new() -> Self {
        Self::with(ELEVATION, |_| {}).await
    }

    async fn with(elevation: &str, change: impl FnOnce(&mut Web)) -> Self {
        Self::built(elevation, change, |_| {}).await
    }

    /// With other options besides.
    async fn built(
        elevation: &str,
        change: impl FnOnce(&mut Web),
        more: impl FnOnce(&mut Options),
    ) -> Self {
        let (dir, key) = (tempfile::tempdir().unwrap(), IssuerKey::new());
        let said = Arc::new(Said::default());
        let provider = provider(&said, key.jwks());
        let issuer = format!("http://{}", provider.address);
        let file = dir.path().join("people.toml");
        let person = |name: &str, groups: &str| {
            format!(
                "[person.{name}]\nname = \"{} Example\"\nids = [{{ issuer = \"{issuer}\", subject = \"{name}\" }}]\ngroups = [{groups}]\n",
                name.to_uppercase()
            )
        };
        let people = [
            "[group.staff]\n[group.leads]\n".to_string(),
            person("alice", "\"staff\""),
            person("bob", "\"leads\""),
            person("carol", "\"leads\""),
        ];
        crate::host::files::write_private(&file, people.concat().as_bytes()).unwrap();
        let clock = Arc::new(Shifted::default());
        let bed = Bed::with(|options| {
            let config = &mut options.config;
            let mut role = config.role["deploy"].clone();
            role.elevation = Some(toml::from_str(elevation).unwrap());
            config.role.insert("admin".into(), role);
            config.directory = Some(Settings { file: file.clone(), max_age: None });
            let trusted = TrustedIssuer::new(Issuer::parse(&issuer).unwrap());
            config.trusted_issuer.insert("people".into(), trusted);
            let mut web: Web =
                toml::from_str("issuer = \"people\"\nclient_id = \"pages\"").unwrap();
            change(&mut web);
            config.web = Some(web);
            options.policies += RULES;
            options.clock = clock.clone();
            more(options);
        })
        .await;
        #[expect(clippy::disallowed_methods, reason = "redirects are looked at, not followed")]
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .unwrap();
        Self { _dir: dir, clock, bed, provider, said, key, client }
    }

    fn issuer(&self) -> String {
        format!("http://{}", self.provider.address)
    }

    fn later(&self, seconds: i64) {
        self.clock.0.fetch_add(seconds, Ordering::Relaxed);
    }

    /// Sends a request as a browser would, with these headers besides.
    async fn send(
        &self,
        (method, path): (Method, &str),
        jar: &Jar,
        headers: &[(&str, &str)],
        form: &[(&str, &str)],
    ) -> Answer {
        let mut request = self.client.request(method.clone(), self.bed.url(path));
        request = request.header("cookie", jar.header());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if method == Method::POST {
            let body =
                url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
            let kind = "application/x-www-form-urlencoded";
            request = request.header("content-type", kind).body(body);
        }
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        Answer { status, headers, text: response.text().await.unwrap() }
    }

    async fn get(&self, path: &str, jar: &Jar) -> Answer {
        self.send((Method::GET, path), jar, &[], &[]).await
    }

    /// What a form of ours is sent with.
    async fn post(&self, path: &str, jar: &Jar, form: &[(&str, &str)]) -> Answer {
        let headers = [("origin", OWN), ("sec-fetch-site", "same-origin")];
        self.send((Method::POST, path), jar, &headers, form).await
    }

    /// Begins to sign in, and returns the cookies, the state and the nonce.
    async fn begin(&self, to: &str) -> (Jar, String, String) {
        let mut jar = Jar::default();
        let (state, nonce) = self.begin_in(&mut jar, to).await;
        (jar, state, nonce)
    }

    /// The same in a browser that has cookies.
    async fn begin_in(&self, jar: &mut Jar, to: &str) -> (String, String) {
        let answer = self.get(&format!("/elevations/sign-in?to={to}"), jar).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text);
        jar.keep(&answer);
        (answer.parameter("state"), answer.parameter("nonce"))
    }

    /// What the provider says for the next code, with these changes.
    fn says(&self, subject: &str, nonce: &str, changes: Value) {
        let at = now().unix_timestamp() + self.clock.0.load(Ordering::Relaxed);
        let mut claims = json!({
            "iss": self.issuer(), "sub": subject, "aud": "pages", "azp": null, "nonce": nonce,
            "iat": at, "exp": at + 300, "auth_time": at, "groups": [],
        });
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        *self.said.id_token.lock().unwrap() = self.key.token(claims);
    }

    /// Comes back from the provider.
    async fn come_back(&self, jar: &Jar, state: &str, more: &[(&str, &str)]) -> Answer {
        let issuer = self.issuer();
        let mut query = vec![("code", "c"), ("state", state), ("iss", issuer.as_str())];
        query.retain(|(name, _)| !more.iter().any(|(other, _)| other == name));
        query.extend(more.iter().filter(|(_, value)| !value.is_empty()));
        let query =
            url::form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        self.get(&format!("/elevations/callback?{query}"), jar).await
    }

    /// The cookies of somebody who has signed in.
    async fn signed_in(&self, subject: &str) -> Jar {
        let (mut jar, state, nonce) = self.begin("").await;
        self.says(subject, &nonce, json!({}));
        let answer = self.come_back(&jar, &state, &[]).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text);
        jar.keep(&answer);
        assert_eq!(jar.sign_ins(), 0, "it is used up");
        jar
    }

    /// Alice asks for the role; its id.
    async fn requested(&self) -> String {
        self.asked_for("").await
    }

    /// The same with more in its form.
    async fn asked_for(&self, more: &str) -> String {
        let form = format!("role=admin&reason=all+is+down&ttl=600{more}");
        let answer = self.api("alice", "", form).await;
        answer["id"].as_str().unwrap_or_else(|| panic!("{answer}")).to_string()
    }

    /// What somebody is answered who sends this without a browser.
    async fn api(&self, subject: &str, path: &str, form: String) -> Value {
        let at = now().unix_timestamp() + self.clock.0.load(Ordering::Relaxed);
        let token = self.key.token(json!({
            "iss": self.issuer(), "sub": subject, "groups": [], "iat": at, "exp": at + 300,
        }));
        let request = self.client.post(self.bed.url(&format!("/v1/elevations{path}")));
        let request = request.header("authorization", format!("Bearer {token}"));
        let kind = "application/x-www-form-urlencoded";
        let request = request.header("content-type", kind).body(form);
        let answer = request.send().await.unwrap().text().await.unwrap();
        serde_json::from_str(&answer).unwrap()
    }
}

/// The broker's origin.
const OWN: &str = "https://broker.example.com";
