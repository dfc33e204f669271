//! A broker with all that may be attacked, whoever vouches for its callers, and honest ones.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{Connection as _, Row as _};

use super::hostile::Hostile;
use super::keys::{Key, merged};
use super::sources;
use super::wire::{ANYBODY, Exchange, form, post};
use crate::support::broker::{API, Broker, BrokerOptions, KEK, Twin};
use crate::support::home::Home;
use crate::support::wait::free_port;

/// The issuer whose people may have roles.
pub(super) const ISSUER: &str = "https://issuer.example";

/// One whose jobs may, each token once.
pub(super) const CI: &str = "https://ci.example";

/// One that the broker trusts, and for which no policy says anything.
pub(super) const OTHER: &str = "https://other.example";

/// Whom the tokens of these are for.
pub(super) const AUDIENCE: &str = "https://aud.example";

pub(super) const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
pub(super) const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
pub(super) const ID_TOKEN: &str = "urn:ietf:params:oauth:token-type:id_token";
pub(super) const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
pub(super) const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

const POLICY: &str = r#"
@id("deployers") @ttl("1h") @scope("deploy:read deploy:write")
permit (
    principal in Group::"https://issuer.example#platform",
    action == Action::"issue",
    resource == Role::"deploy"
);

@id("alice-reads") @ttl("15m") @scope("deploy:read")
permit (
    principal == User::"https://issuer.example#alice",
    action == Action::"issue",
    resource
) when { resource in [Role::"reader", Role::"bound", Role::"opaque"] };

@id("jobs") @ttl("15m") @scope("deploy:read")
permit (principal, action == Action::"issue", resource == Role::"deploy") when {
    principal.issuer == "https://ci.example" &&
    principal.subject like "repo:acme/app:*" &&
    principal.hasTag("repository") && principal.getTag("repository").contains("acme/app")
};

@id("exchanges") @ttl("1h") @scope("deploy:read deploy:write")
permit (principal, action == Action::"exchange", resource) when {
    principal.issuer == "{self}" && resource in [Role::"deploy", Role::"reader"]
};

@id("robots-only") @ttl("15m") @scope("deploy:read")
permit (
    principal == User::"https://issuer.example#alice",
    action == Action::"issue",
    resource == Role::"robot"
) when { context has client && context.client == "robot" };

@id("four-eyes") @ttl("15m") @scope("deploy:read")
permit (
    principal == User::"https://issuer.example#alice",
    action == Action::"issue",
    resource == Role::"guarded"
) when { context has actor && context.actor != principal };

@id("on-call") @ttl("15m") @scope("deploy:read")
permit (
    principal in DirectoryGroup::"on-call",
    action == Action::"issue",
    resource == Role::"guarded"
);

@id("the-bot-acts")
permit (
    principal == User::"https://issuer.example#bot",
    action == Action::"act",
    resource
) when { resource in [Role::"deploy", Role::"guarded"] };

@id("the-api-introspects")
permit (
    principal == User::"https://issuer.example#api",
    action == Action::"introspect",
    resource
) when { context.audience == "https://api.example.com" };
"#;

const MORE: &str = r#"
[role.bound]
audiences = ["https://api.example.com"]
scopes = ["deploy:read"]
max_ttl = "1h"
dpop = "required"

[role.opaque]
audiences = ["https://api.example.com", "https://elsewhere.example"]
scopes = ["deploy:read"]
max_ttl = "1h"
token_format = "opaque"

[role.robot]
audiences = ["https://api.example.com"]
scopes = ["deploy:read"]
max_ttl = "1h"

[role.guarded]
audiences = ["https://api.example.com"]
scopes = ["deploy:read"]
max_ttl = "1h"

[trusted_issuer.issuer]
issuer = "https://issuer.example"
audiences = ["https://aud.example"]
clients = ["cli", "robot"]
jwks_file = "{files}/issuer.json"

[trusted_issuer.ci]
issuer = "https://ci.example"
audiences = ["https://aud.example"]
jwks_file = "{files}/ci.json"
assertions = "once"
required_claims = { repository = "acme/app", ref = ["refs/heads/main", "refs/heads/release"], cluster = { matches = "(?i)k8s-\\d+" } }

[trusted_issuer.other]
issuer = "https://other.example"
audiences = ["https://aud.example"]
jwks_file = "{files}/other.json"

[trusted_issuer.self]
issuer = "{self}"
audiences = ["https://api.example.com"]
jwks_uri = "{self}/jwks.json"

[client.robot]
jwks_file = "{files}/robot.json"

[client.drone]
jwks_file = "{files}/drone.json"

[client.pocket]
auth = "none"
dpop = "required"

[directory]
file = "{files}/people.toml"

[authz]
proxy = "nginx"
listen = "127.0.0.1:{authz}"
proxies = ["127.0.0.1"]

[authz.route.api]
origins = ["https://api.example.com"]
audience = "https://api.example.com"
roles = ["deploy", "bound", "opaque"]
scopes = ["deploy:read"]
"#;

/// All of it.
pub(super) struct World {
    pub(super) broker: Broker,
    pub(super) twin: Twin,
    pub(super) hostile: Hostile,
    /// Where nobody shall come.
    pub(super) trap: Hostile,
    pub(super) address: SocketAddr,
    pub(super) authz: SocketAddr,
    pub(super) issuer: Key,
    pub(super) rsa: Key,
    pub(super) ci: Key,
    pub(super) other: Key,
    pub(super) robot: Key,
    pub(super) drone: Key,
    /// A key that nobody knows.
    pub(super) own: Key,
    /// The key of a device.
    pub(super) device: Key,
    issued: Cell<i64>,
    secrets: RefCell<Vec<String>>,
    _files: Home,
}

impl World {
    pub(super) fn start() -> Self {
        let (issuer, rsa, namesake) = (Key::new("one"), Key::rsa("rsa"), Key::new("one"));
        let (ci, other) = (Key::new("one"), Key::new("one"));
        let (robot, drone) = (Key::new("robot"), Key::new("drone"));
        let files = Home::new();
        let secret = json!({"kty": "oct", "k": "c2VjcmV0", "kid": "one", "alg": "HS256"});
        let set = |keys: &[&Key]| keys.iter().map(|key| key.jwk()).collect::<Vec<_>>();
        let issuers = [set(&[&issuer, &rsa, &namesake]), vec![secret]].concat();
        for (name, keys) in [
            ("issuer.json", issuers),
            ("ci.json", set(&[&ci])),
            ("other.json", set(&[&other])),
            ("robot.json", set(&[&robot])),
            ("drone.json", set(&[&drone])),
        ] {
            files.write(name, json!({ "keys": keys }).to_string());
        }
        files.write("people.toml", PEOPLE);
        let trap = Hostile::start("http://127.0.0.1:9/".into(), issuer.jwk());
        let hostile = Hostile::start(format!("{}/trap", trap.url()), issuer.jwk());
        let authz = free_port();
        let mut options = BrokerOptions::trusting(ISSUER);
        options.trusted = format!("{}/keys-are-html", hostile.url());
        options.audiences = vec![AUDIENCE.into()];
        options.policy = [POLICY, sources::POLICY].concat();
        // (Keys that are in no table come before the first one.)
        options.store = format!("trusted_proxies = [\"{}\"]\n{}", sources::PROXY, options.store);
        options.more = [sources::ROLE, MORE]
            .concat()
            .replace("{files}", &files.path("").display().to_string())
            .replace("{authz}", &authz.to_string());
        for way in super::hostile::WAYS.iter().filter(|way| **way != "keys-are-html") {
            let issuer = format!("{}/{way}", hostile.url());
            options.more += &format!(
                "\n[trusted_issuer.{way}]\nissuer = \"{issuer}\"\naudiences = [\"{AUDIENCE}\"]\n"
            );
        }
        let mut home = Home::new();
        home.set("TMPCRED_LOG", "debug");
        let broker = Broker::start_in(home, &options);
        let address = broker.url().strip_prefix("http://").unwrap().parse().unwrap();
        // Another process of it has no port for what a proxy asks.
        let configured = std::fs::read_to_string(broker.home.path("broker.toml")).unwrap();
        let (before, rest) = configured.split_once("\n[authz]").unwrap();
        let (_, after) = rest.split_once("\n[trusted_issuer.").unwrap();
        broker.home.write("broker.toml", format!("{before}\n[trusted_issuer.{after}"));
        let twin = broker.twin();
        broker.home.write("broker.toml", configured);
        Self {
            broker,
            twin,
            hostile,
            trap,
            address,
            authz: SocketAddr::new(ANYBODY, authz),
            issuer,
            rsa,
            ci,
            other,
            robot,
            drone,
            own: Key::new("one"),
            device: Key::new("device"),
            issued: Cell::new(0),
            secrets: RefCell::new(vec![KEK.into()]),
            _files: files,
        }
    }

    /// The broker's issuer.
    pub(super) fn url(&self) -> &str {
        self.broker.url()
    }

    pub(super) fn twin(&self) -> SocketAddr {
        self.twin.url.strip_prefix("http://").unwrap().parse().unwrap()
    }

    /// Nobody may read this anywhere.
    pub(super) fn secret(&self, secret: String) -> String {
        // What shows a token is its signature; the rest of one may well be on record.
        let shown = secret.rsplit('.').next().filter(|part| part.len() > 20);
        self.secrets.borrow_mut().extend(shown.map(String::from));
        secret
    }

    /// What alice says, with changes; `null` takes something away.
    pub(super) fn claims(&self, changes: Value) -> String {
        let now = now();
        let claims = json!({
            "iss": ISSUER, "sub": "alice", "aud": AUDIENCE, "azp": "cli", "groups": ["platform"],
            "iat": now, "exp": now + 300,
        });
        merged(claims, changes).to_string()
    }

    /// A token of the issuer with these claims.
    pub(super) fn assertion(&self, changes: Value) -> String {
        let token = self.issuer.sign(&self.issuer.header(json!({})), &self.claims(changes));
        self.secret(token)
    }

    /// A token of a job.
    pub(super) fn job(&self, changes: Value) -> String {
        let own = json!({
            "iss": CI, "sub": "repo:acme/app:ref:refs/heads/main", "azp": null, "groups": null,
            "repository": "acme/app", "ref": "refs/heads/main", "cluster": "k8s-1", "jti": uuid::Uuid::new_v4(),
        });
        let claims = self.claims(merged(own, changes));
        self.secret(self.ci.sign(&self.ci.header(json!({})), &claims))
    }

    /// What a client authenticates by, with changes to its claims.
    pub(super) fn client_assertion(&self, key: &Key, client: &str, changes: Value) -> String {
        let now = now();
        let claims = json!({
            "iss": client, "sub": client, "aud": self.url(), "iat": now, "exp": now + 60,
            "jti": uuid::Uuid::new_v4(),
        });
        self.secret(key.sign(&key.header(json!({})), &merged(claims, changes).to_string()))
    }

    /// A proof by a key for a token request, with changes to header and claims.
    pub(super) fn proof(&self, key: &Key, header: Value, claims: Value) -> String {
        let mut jwk = key.jwk();
        jwk.as_object_mut().unwrap().remove("kid");
        let own = json!({"alg": "ES256", "kid": null, "typ": "dpop+jwt", "jwk": jwk});
        let header = key.header(merged(own, header));
        let own = json!({
            "jti": uuid::Uuid::new_v4(), "htm": "POST", "htu": format!("{}/token", self.url()),
            "iat": now(),
        });
        self.secret(key.sign(&header, &merged(own, claims).to_string()))
    }

    /// A nonce of the broker's, as it gives them to whoever asks.
    pub(super) fn nonce(&self) -> String {
        let proof = self.proof(&self.own, json!({}), json!({}));
        let bytes = post("/token", &[&format!("DPoP: {proof}")], self.fields(&proof, &[]));
        let answers = Exchange { to: self.address, from: ANYBODY, bytes }.run().unwrap();
        let (_, after) = answers.0.split_once("dpop-nonce: ").unwrap();
        after.split("\r\n").next().unwrap().to_string()
    }

    /// The fields of a request with this assertion for the role `deploy`, with others.
    pub(super) fn fields(&self, assertion: &str, changes: &[(&str, &str)]) -> String {
        let mut fields: BTreeMap<&str, &str> = BTreeMap::from([
            ("grant_type", GRANT),
            ("subject_token", assertion),
            ("subject_token_type", JWT),
            ("audience", API),
            ("role", "deploy"),
        ]);
        fields.extend(changes.iter().copied());
        form(&fields.into_iter().collect::<Vec<_>>())
    }

    /// Asks for a token, as somebody honest. What is said, where it is not granted.
    pub(super) fn try_honest(&self, lines: &[&str], body: &str) -> Result<String, String> {
        self.try_honest_from(ANYBODY, lines, body)
    }

    /// The same from this address.
    pub(super) fn try_honest_from(
        &self,
        from: IpAddr,
        lines: &[&str],
        body: &str,
    ) -> Result<String, String> {
        let bytes = post("/token", lines, body);
        let answers = Exchange { to: self.address, from, bytes }.run()?;
        let answer: Value =
            serde_json::from_str(answers.body()).map_err(|_| format!("no JSON: {answers:?}"))?;
        let token = answer["access_token"].as_str().ok_or(format!("{answer}"))?;
        self.issued.set(self.issued.get() + 1);
        Ok(self.secret(token.to_string()))
    }

    /// A token for somebody honest.
    #[track_caller]
    pub(super) fn honest(&self, assertion: &str, changes: &[(&str, &str)]) -> String {
        self.try_honest(&[], &self.fields(assertion, changes)).unwrap()
    }

    /// A token of alice's.
    #[track_caller]
    pub(super) fn token(&self, role: &str) -> String {
        self.honest(&self.assertion(json!({})), &[("role", role)])
    }

    /// A token of alice's that is bound to a key.
    #[track_caller]
    pub(super) fn bound_token(&self, key: &Key) -> String {
        let proof = self.proof(key, json!({}), json!({ "nonce": self.nonce() }));
        let fields = self.fields(&self.assertion(json!({})), &[("role", "bound")]);
        self.try_honest(&[&format!("DPoP: {proof}")], &fields).unwrap()
    }

    /// Revokes a token, as its holder.
    #[track_caller]
    pub(super) fn revoke(&self, token: &str) {
        let bytes = post("/revoke", &[], form(&[("token", token)]));
        let answers = Exchange { to: self.address, from: ANYBODY, bytes }.run().unwrap();
        assert_eq!(answers.statuses(), [200], "{answers:?}");
    }

    /// Whether a token is good, as it says itself.
    pub(super) fn is_good(&self, token: &str) -> bool {
        let who = format!("Authorization: Bearer {token}");
        let bytes = post("/introspect", &[&who], form(&[("token", token)]));
        let answers = Exchange { to: self.address, from: ANYBODY, bytes }.run().unwrap();
        answers.is_granted()
    }

    /// How many tokens honest callers have.
    pub(super) fn handed_out(&self) -> i64 {
        self.issued.get()
    }

    /// How many rows each table has, and how many tokens are on record.
    pub(super) fn rows(&self) -> Rows {
        let path = self.broker.home.path("broker.db");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let options = SqliteConnectOptions::new().filename(path).read_only(true);
            let mut store = SqliteConnection::connect_with(&options).await.unwrap();
            let names = "select name from sqlite_master where type = 'table'";
            let mut counts = BTreeMap::new();
            for row in sqlx::query(names).fetch_all(&mut store).await.unwrap() {
                let name: String = row.get(0);
                // What the broker does by itself, now and then.
                if matches!(name.as_str(), "audit_checkpoint" | "audit_tile" | "probe") {
                    continue;
                }
                let count = sqlx::AssertSqlSafe(format!("select count(*) from \"{name}\""));
                let count: i64 = sqlx::query(count).fetch_one(&mut store).await.unwrap().get(0);
                counts.insert(name, count);
            }
            // Keys of an issuer on its list it fetches by itself, whenever they are due. Of
            // any other it must not have one.
            let configured = std::fs::read_to_string(self.broker.home.path("broker.toml")).unwrap();
            let issuers = "select issuer from issuer_key_set";
            let issuers = sqlx::query(issuers).fetch_all(&mut store).await.unwrap().into_iter();
            let unknown = issuers.filter(|row| {
                let issuer: String = row.get(0);
                !configured.contains(&format!("issuer = \"{issuer}\"\n"))
            });
            counts.insert("issuer_key_set".into(), unknown.count() as i64);
            // What the broker tells of itself, such as how often it has denied something.
            let own = "select count(*) from audit_record where request_id like '00000000-%'";
            let own: i64 = sqlx::query(own).fetch_one(&mut store).await.unwrap().get(0);
            counts.entry("audit_record".into()).and_modify(|all| *all -= own);
            let issued = "select count(*) from audit_record where decision = 'issued'";
            let issued = sqlx::query(issued).fetch_one(&mut store).await.unwrap().get(0);
            Rows { counts, issued }
        })
    }

    /// Which of the secrets are in the log of the broker, or in its files.
    pub(super) fn leaks(&self) -> Vec<(String, PathBuf)> {
        let mut places = vec![("the log".into(), self.broker.said().into_bytes())];
        places.push(("the other log".into(), self.twin.said().into_bytes()));
        for name in ["broker.db", "broker.db-wal"] {
            let path = self.broker.home.path(name);
            places.push((path.clone(), std::fs::read(path).unwrap_or_default()));
        }
        let mut leaks: Vec<(String, PathBuf)> = Vec::new();
        for (place, bytes) in &places {
            let text = String::from_utf8_lossy(bytes);
            for secret in self.secrets.borrow().iter().filter(|secret| text.contains(*secret)) {
                leaks.push((secret.clone(), Path::new(place).to_path_buf()));
            }
        }
        leaks
    }

    /// How many secrets were looked for.
    pub(super) fn secrets(&self) -> usize {
        self.secrets.borrow().len()
    }
}

/// What the store has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rows {
    pub(super) counts: BTreeMap<String, i64>,
    pub(super) issued: i64,
}

const PEOPLE: &str = r#"
as_of = "2026-01-01T12:00:00Z"

[group.on-call]

[person.carol]
name = "Carol"
ids = [{ issuer = "https://issuer.example", subject = "carol" }]
groups = ["on-call"]
"#;

/// Seconds since 1970.
pub(super) fn now() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
}
