//! A stand-in for the token endpoints of GitHub Actions and Azure Pipelines,
//! which cannot run here. It is written from what they publish:
//!
//! - GitHub: `GET $ACTIONS_ID_TOKEN_REQUEST_URL&audience=…` with the bearer token
//!   `ACTIONS_ID_TOKEN_REQUEST_TOKEN` yields `{"count": …, "value": "<JWT>"}`
//!   (docs.github.com, «OpenID Connect reference»).
//! - Azure: `POST $SYSTEM_OIDCREQUESTURI?api-version=7.1-preview.1` with the bearer
//!   token `SYSTEM_ACCESSTOKEN` yields `{"oidcToken": "<JWT>"}`
//!   (learn.microsoft.com, «Oidctoken - Create»).
//!
//! Its tokens are signed by a key of its own, which a real broker finds by its
//! discovery document. It misbehaves on demand.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use url::Url;

/// The audience of every token of Azure Pipelines.
pub(super) const AZURE: &str = "api://AzureADTokenExchange";

/// What it does instead of its job.
#[derive(Clone, Debug)]
pub(super) enum Fault {
    /// Answers this.
    Answers(u16, &'static str),
    /// Takes the request and says nothing.
    Hangs,
    /// Takes the request and breaks the connection.
    Gone,
    /// Does this once, and then its job.
    Once(Box<Self>),
    /// Sends so many bytes.
    Huge(usize),
    /// Changes claims of its tokens; `null` takes one out.
    Claims(Value),
}

impl Fault {
    /// The same, but only the first time.
    pub(super) fn once(self) -> Self {
        Self::Once(Box::new(self))
    }
}

/// The stand-in.
pub(super) struct Platform {
    origin: String,
    state: Arc<State>,
}

struct State {
    key: EncodingKey,
    jwk: Value,
    fault: Mutex<Option<Fault>>,
    asked: Mutex<Vec<Asked>>,
    handed_out: Mutex<Vec<String>>,
    hanging: Mutex<Vec<TcpStream>>,
}

/// A request for a token.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) method: String,
    pub(super) url: Url,
    pub(super) bearer: String,
}

impl Asked {
    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        self.url.query_pairs().find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    }
}

impl Platform {
    pub(super) fn start() -> Self {
        let random = SystemRandom::new();
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let key = EncodingKey::from_ec_der(pkcs8.as_ref());
        let jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap();
        let mut jwk = serde_json::to_value(jwk).unwrap();
        jwk["kid"] = json!("k");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let (fault, asked, handed_out, hanging) = Default::default();
        let state = Arc::new(State { key, jwk, fault, asked, handed_out, hanging });
        let platform = Self { origin: origin.clone(), state: Arc::clone(&state) };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (origin, state) = (origin.clone(), Arc::clone(&state));
                // A client that goes away is no failure of the test's.
                std::thread::spawn(move || state.serve(&origin, stream));
            }
        });
        platform
    }

    /// Its address, which is the issuer of its tokens.
    pub(super) fn issuer(&self) -> &str {
        &self.origin
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    pub(super) fn fault(&self, fault: impl Into<Option<Fault>>) {
        *self.state.fault.lock().unwrap() = fault.into();
    }

    /// The requests for tokens so far.
    pub(super) fn asked(&self) -> Vec<Asked> {
        self.state.asked.lock().unwrap().clone()
    }

    /// The tokens that jobs were given.
    pub(super) fn handed_out(&self) -> Vec<String> {
        self.state.handed_out.lock().unwrap().clone()
    }

    /// A token for `audience`, with these claims besides or instead.
    pub(super) fn token(&self, audience: &str, changes: &Value) -> String {
        self.state.token(&self.origin, audience, changes)
    }
}

/// The time, in seconds.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

impl State {
    fn token(&self, issuer: &str, audience: &str, changes: &Value) -> String {
        let mut claims = json!({
            "iss": issuer,
            "sub": "repo:example/shop:ref:refs/heads/main",
            "aud": audience,
            "repository": "example/shop",
            "ref": "refs/heads/main",
            "jti": uuid::Uuid::new_v4().to_string(),
            "iat": now(),
            "nbf": now() - 600,
            "exp": now() + 300,
        });
        for (name, value) in changes.as_object().unwrap() {
            match value {
                Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
                value => claims[name] = value.clone(),
            }
        }
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some("k".into());
        jsonwebtoken::encode(&header, &claims, &self.key).unwrap()
    }

    fn serve(&self, origin: &str, mut stream: TcpStream) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        let mut first = String::new();
        reader.read_line(&mut first).ok()?;
        let (mut bearer, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            match name.to_ascii_lowercase().as_str() {
                "authorization" => bearer = value.strip_prefix("Bearer ")?.into(),
                "content-length" => length = value.parse().ok()?,
                _ => {}
            }
        }
        reader.take(length).read_to_end(&mut Vec::new()).ok()?;
        let mut words = first.split_whitespace();
        let (method, path) = (words.next()?.to_string(), words.next()?);
        let url = Url::parse(&format!("{origin}{path}")).ok()?;
        let body = match url.path() {
            "/.well-known/openid-configuration" => {
                json!({ "issuer": origin, "jwks_uri": format!("{origin}/jwks") })
            }
            "/jwks" => json!({ "keys": [self.jwk] }),
            _ => {
                let asked = Asked { method, url, bearer };
                self.asked.lock().unwrap().push(asked.clone());
                let fault = {
                    let mut fault = self.fault.lock().unwrap();
                    match fault.take() {
                        Some(Fault::Once(once)) => Some(*once),
                        always => {
                            fault.clone_from(&always);
                            always
                        }
                    }
                };
                match fault {
                    Some(Fault::Answers(status, body)) => return answer(&mut stream, status, body),
                    Some(Fault::Hangs) => {
                        self.hanging.lock().unwrap().push(stream);
                        return None;
                    }
                    Some(Fault::Gone | Fault::Once(_)) => return None,
                    Some(Fault::Huge(bytes)) => {
                        return answer(&mut stream, 200, &"x".repeat(bytes));
                    }
                    Some(Fault::Claims(changes)) => self.hand_out(origin, &asked, &changes)?,
                    None => self.hand_out(origin, &asked, &json!({}))?,
                }
            }
        };
        answer(&mut stream, 200, &body.to_string())
    }

    fn hand_out(&self, origin: &str, asked: &Asked, changes: &Value) -> Option<Value> {
        match (asked.url.path(), asked.method.as_str()) {
            // Without an audience it would be the repository owner's address.
            ("/github", "GET") => {
                let audience = asked.parameter("audience")?;
                let token = self.token(origin, &audience, changes);
                self.handed_out.lock().unwrap().push(token.clone());
                Some(json!({ "count": token.len(), "value": token }))
            }
            ("/azure", "POST") => {
                asked.parameter("api-version").filter(|version| version == "7.1-preview.1")?;
                let id = asked.parameter("serviceConnectionId");
                let subject = id.map_or("p://org/project/pipe".into(), |id| format!("sc://{id}"));
                let mut changes = changes.clone();
                changes["sub"] = json!(subject);
                Some(json!({ "oidcToken": self.token(origin, AZURE, &changes) }))
            }
            _ => None,
        }
    }
}

fn answer(stream: &mut TcpStream, status: u16, body: &str) -> Option<()> {
    let head =
        format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nConnection: close");
    let length = body.len();
    write!(stream, "{head}\r\nContent-Length: {length}\r\n\r\n{body}").ok()
}
