//! A broker with all that may be attacked, whoever vouches for its callers, and honest ones.

mod rows;
mod settings;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde_json::{Value, json};

use settings::{MORE, PEOPLE, POLICY};

use super::hostile::Hostile;
use super::keys::{Key, merged};
use super::sources;
use super::wire::{ANYBODY, Exchange, form, post};
use crate::support::broker::{API, Broker, BrokerOptions, KEK, Twin};
use crate::support::home::Home;
use crate::support::wait::{free_port, wait_until};

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

/// All of it.
pub(super) struct World {
    pub(super) broker: Broker,
    twin: RefCell<Twin>,
    pub(super) hostile: Hostile,
    /// Where nobody shall come.
    pub(super) trap: Hostile,
    pub(super) address: SocketAddr,
    pub(super) authz: SocketAddr,
    pub(super) admin: SocketAddr,
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
    files: Home,
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
        let (authz, admin) = (free_port(), free_port());
        let mut options = BrokerOptions::trusting(ISSUER);
        options.trusted = format!("{}/keys-are-html", hostile.url());
        options.audiences = vec![AUDIENCE.into()];
        options.policy = [POLICY, sources::POLICY].concat();
        // (Keys that are in no table come before the first one.)
        options.store = format!("trusted_proxies = [\"{}\"]\n{}", sources::PROXY, options.store);
        options.more = [sources::ROLE, MORE]
            .concat()
            .replace("{files}", &files.path("").display().to_string())
            .replace("{authz}", &authz.to_string())
            .replace("{admin}", &admin.to_string());
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
        // Another process of it has no port for what a proxy asks, nor for who operates it.
        let configured = std::fs::read_to_string(broker.home.path("broker.toml")).unwrap();
        let (before, rest) = configured.split_once("\n[authz]").unwrap();
        let (_, after) = rest.split_once("\n[trusted_issuer.").unwrap();
        broker.home.write("broker.toml", format!("{before}\n[trusted_issuer.{after}"));
        let twin = broker.twin();
        broker.home.write("broker.toml", configured);
        Self {
            broker,
            twin: twin.into(),
            hostile,
            trap,
            address,
            authz: SocketAddr::new(ANYBODY, authz),
            admin: SocketAddr::new(ANYBODY, admin),
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
            files,
        }
    }

    /// The broker's issuer.
    pub(super) fn url(&self) -> &str {
        self.broker.url()
    }

    pub(super) fn twin(&self) -> SocketAddr {
        self.twin.borrow().url.strip_prefix("http://").unwrap().parse().unwrap()
    }

    /// Ends the other process at once, as a power failure would, and starts it on what it left.
    pub(super) fn restart_twin(&self) {
        self.broker.restart_twin(&mut self.twin.borrow_mut());
    }

    /// Somebody is not in this group any more, from now on.
    pub(super) fn leaves(&self, who: &str, group: &str) {
        let people = std::fs::read_to_string(self.files.path("people.toml")).unwrap();
        let own = people.split("\n\n").find(|own| own.contains(&format!("[person.{who}]")));
        let own = own.unwrap();
        let without = own.replace(&format!(", \"{group}\""), "");
        if without == own {
            return;
        }
        let read = || self.broker.said().matches("decide from now on").count();
        let before = read();
        self.files.write("people.toml", people.replace(own, &without));
        self.broker.hang_up();
        wait_until("the directory to be read", Duration::from_secs(60), || {
            (read() > before).then_some(())
        });
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

    /// A token of somebody whom the issuer has put into the group, and whom nothing was denied so
    /// far: beyond so many denials of one caller the broker does not tell what is wrong any more.
    pub(super) fn somebody(&self) -> String {
        self.assertion(json!({"sub": uuid::Uuid::new_v4()}))
    }

    /// A token of somebody who has logged in just now and whom their token puts in no group.
    pub(super) fn person(&self, sub: &str, changes: Value) -> String {
        let own = json!({"sub": sub, "groups": [], "auth_time": now()});
        self.assertion(merged(own, changes))
    }

    /// A token of somebody of another issuer, who is called so there.
    pub(super) fn stranger(&self, sub: &str) -> String {
        let own = json!({"iss": OTHER, "sub": sub, "groups": [], "auth_time": now()});
        self.secret(self.other.sign(&self.other.header(json!({})), &self.claims(own)))
    }

    /// A key of somebody's, as they would enroll it: a new one, with its signature.
    pub(super) fn enrollment(&self, person: &str) -> String {
        let script = "cd \"$HOME\"; rm -f key key.pub statement statement.sig
            ssh-keygen -q -t ed25519 -N '' -f key
            cat >statement <<END
tmpcred statement 1
kind: enrollment
broker: $BROKER
nonce: $(head -c 16 /dev/urandom | base64 | tr '+/' '-_' | tr -d '=')
person: $PERSON
key: $(ssh-keygen -l -f key.pub | cut -d ' ' -f 2)
label: laptop
made: $(date -u +%Y-%m-%dT%H:%M:%SZ)
expires: $(date -u -d '1 hour' +%Y-%m-%dT%H:%M:%SZ)
END
            ssh-keygen -q -Y sign -n elevation@tmpcred -f key statement
            echo '-----BEGIN TMPCRED STATEMENT-----'; cat statement
            echo '-----END TMPCRED STATEMENT-----'; cat statement.sig";
        let run = self.files.command("sh").args(["-euc", script]);
        run.env("BROKER", self.url()).env("PERSON", person).run().ok().stdout
    }

    /// A token of a job.
    pub(super) fn job(&self, changes: Value) -> String {
        let own = json!({
            "iss": CI, "sub": "repo:acme/app:ref:refs/heads/main", "azp": null, "groups": null,
            "repository": "acme/app", "ref": "refs/heads/main", "cluster": "k8s-1", "team": "acme",
            "jti": uuid::Uuid::new_v4(),
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
        self.revoke_at(self.address, token);
    }

    /// The same at this process.
    #[track_caller]
    pub(super) fn revoke_at(&self, to: SocketAddr, token: &str) {
        let bytes = post("/revoke", &[], form(&[("token", token)]));
        let answers = Exchange { to, from: ANYBODY, bytes }.run().unwrap();
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

    /// How many secrets were looked for.
    pub(super) fn secrets(&self) -> usize {
        self.secrets.borrow().len()
    }
}

/// Seconds since 1970.
pub(super) fn now() -> i64 {
    time::OffsetDateTime::now_utc().unix_timestamp()
}
