//! What clients authenticate by.

use serde_json::{Value, json};

use super::keys::{Key, hs256, message};
use super::wire::{ANYBODY, form, post};
use super::world::{ASSERTION, World, now};
use super::{Attack, Exchange, Lesson, Named, Who, attack, sending, sending_to};

/// One of the keys of a world.
type OfWorld = fn(&World) -> &Key;

const CLIENTS: Lesson =
    Lesson { name: "what clients authenticate by", refused: "401 invalid_client" };

/// A client that asks for a role that only `robot` gives.
fn by(world: &World, assertion: &str, changes: &[(&str, &str)]) -> Vec<Exchange> {
    let mut fields = vec![
        ("role", "robot"),
        ("client_assertion_type", ASSERTION),
        ("client_assertion", assertion),
    ];
    fields.extend(changes);
    super::asking(world, &world.assertion(json!({})), &fields)
}

pub(super) fn attacks() -> Vec<Attack> {
    let mut attacks = Vec::new();
    let claims: [Named<Value>; 22] = [
        ("for the token endpoint", |w| json!({"aud": format!("{}/token", w.url())})),
        ("for another broker", |_| json!({"aud": "https://other-broker.example"})),
        ("for the broker and another", |w| json!({"aud": [w.url(), "https://evil.example"]})),
        ("for a list of the broker", |w| json!({"aud": [w.url()]})),
        ("for the broker with a slash", |w| json!({"aud": format!("{}/", w.url())})),
        ("for nobody", |_| json!({"aud": null})),
        ("for an empty text", |_| json!({"aud": ""})),
        ("whose issuer is another", |_| json!({"iss": "drone"})),
        ("without an issuer", |_| json!({"iss": null})),
        ("whose subject is another", |_| json!({"sub": "drone"})),
        ("whose subject differs in case", |_| json!({"sub": "Robot", "iss": "Robot"})),
        ("whose subject is a list", |_| json!({"sub": ["robot"]})),
        ("without an end", |_| json!({"exp": null})),
        ("for an hour", |_| json!({"exp": now() + 3600})),
        ("for ever", |_| json!({"exp": 253_402_300_799_i64})),
        ("that has ended", |_| json!({"exp": now() - 120})),
        ("of tomorrow", |_| json!({"iat": now() + 86_400, "exp": now() + 86_460})),
        ("not valid yet", |_| json!({"nbf": now() + 120})),
        ("without an id", |_| json!({"jti": null})),
        ("with an empty id", |_| json!({"jti": ""})),
        ("with a number for an id", |_| json!({"jti": 7})),
        ("with an id of 10,000 bytes", |_| json!({"jti": "x".repeat(10_000)})),
    ];
    for (name, changes) in claims {
        attacks.push(attack(CLIENTS, Who::Stranger, name, move |w| {
            by(w, &w.client_assertion(&w.robot, "robot", changes(w)), &[])
        }));
    }
    let keys: [(&str, OfWorld); 3] = [
        ("by another client's key", |w| &w.drone),
        ("by the issuer's key", |w| &w.issuer),
        ("by a key that nobody knows", |w| &w.own),
    ];
    for (name, key) in keys {
        attacks.push(attack(CLIENTS, Who::Stranger, name, move |w| {
            let header = key(w).header(json!({"kid": "robot", "jwk": key(w).jwk()}));
            let claims = json!({
                "iss": "robot", "sub": "robot", "aud": w.url(), "exp": now() + 60,
                "jti": uuid::Uuid::new_v4(),
            });
            by(w, &key(w).sign(&header, &claims.to_string()), &[])
        }));
    }
    for alg in ["none", "HS256"] {
        attacks.push(attack(CLIENTS, Who::Stranger, format!("by {alg}"), move |w| {
            let header = w.robot.header(json!({ "alg": alg }));
            let claims = json!({
                "iss": "robot", "sub": "robot", "aud": w.url(), "exp": now() + 60, "jti": "x",
            });
            let made = match alg {
                "none" => format!("{}.", message(&header, &claims.to_string())),
                _ => hs256(&header, &claims.to_string(), w.robot.pem().as_bytes()),
            };
            by(w, &made, &[])
        }));
    }
    for typ in ["at+jwt", "dpop+jwt", "logout+jwt", "application/application/jwt"] {
        attacks.push(attack(CLIENTS, Who::Stranger, format!("of the type {typ}"), move |w| {
            let header = w.robot.header(json!({ "typ": typ }));
            let claims = json!({
                "iss": "robot", "sub": "robot", "aud": w.url(), "exp": now() + 60,
                "jti": uuid::Uuid::new_v4(),
            });
            by(w, &w.robot.sign(&header, &claims.to_string()), &[])
        }));
    }
    attacks.push(attack(CLIENTS, Who::Stranger, "of a client that is not the client_id", |w| {
        by(w, &w.client_assertion(&w.robot, "robot", json!({})), &[("client_id", "drone")])
    }));
    attacks.push(attack(CLIENTS, Who::Stranger, "of another kind", |w| {
        let assertion = w.client_assertion(&w.robot, "robot", json!({}));
        let saml = "urn:ietf:params:oauth:client-assertion-type:saml2-bearer";
        by(w, &assertion, &[("client_assertion_type", saml)])
    }));
    attacks.push(attack(CLIENTS, Who::Stranger, "of no kind", |w| {
        let assertion = w.client_assertion(&w.robot, "robot", json!({}));
        by(w, &assertion, &[("client_assertion_type", "")])
    }));
    attacks.push(attack(CLIENTS, Who::Stranger, "that says something twice", |w| {
        let claims = format!(
            r#"{{"iss":"robot","sub":"drone","sub":"robot","aud":"{}","exp":{},"jti":"{}"}}"#,
            w.url(),
            now() + 60,
            uuid::Uuid::new_v4()
        );
        by(w, &w.robot.sign(&w.robot.header(json!({})), &claims), &[])
    }));
    attacks.push(attack(CLIENTS, Who::Stranger, "a second time", |w| {
        let assertion = w.client_assertion(&w.robot, "robot", json!({}));
        let used = [
            ("role", "robot"),
            ("client_assertion_type", ASSERTION),
            ("client_assertion", &*assertion),
        ];
        w.honest(&w.assertion(json!({})), &used);
        by(w, &assertion, &[])
    }));
    attacks.push(attack(CLIENTS, Who::Stranger, "a second time, at another process", |w| {
        let assertion = w.client_assertion(&w.robot, "robot", json!({}));
        let used = [
            ("role", "robot"),
            ("client_assertion_type", ASSERTION),
            ("client_assertion", &*assertion),
        ];
        w.honest(&w.assertion(json!({})), &used);
        sending_to(w.twin(), ANYBODY, post("/token", &[], w.fields(&w.assertion(json!({})), &used)))
    }));
    let of_another = attack(CLIENTS, Who::Caller, "of another client, for a role of one", |w| {
        by(w, &w.client_assertion(&w.drone, "drone", json!({})), &[])
    });
    attacks.push(of_another.refused(&["400 access_denied"]));
    attacks.push(attack(CLIENTS, Who::Stranger, "not at all", |w| {
        super::asking(w, &w.assertion(json!({})), &[("role", "robot"), ("client_id", "robot")])
    }));
    attacks.push(attack(
        CLIENTS,
        Who::Stranger,
        "no key, by a client that has to prove one",
        |w| super::asking(w, &w.assertion(json!({})), &[("client_id", "pocket")]),
    ));
    let in_its_name = "a token of its name in its place, to be told about others'";
    let in_its_name = attack(CLIENTS, Who::Stranger, in_its_name, |w| {
        let asks = |client: &str| {
            let who = w.assertion(json!({"sub": "api", "azp": client, "client_id": client}));
            let who = format!("Authorization: Bearer {who}");
            post("/introspect", &[&who], form(&[("token", &w.token("deploy"))]))
        };
        let honest = Exchange { to: w.address, from: ANYBODY, bytes: asks("cli") };
        assert!(honest.run().unwrap().is_granted(), "it is for the name of the client alone");
        sending(w, asks("robot"))
    });
    attacks.push(in_its_name.refused(&["401 invalid_token"]));
    attacks.push(attack(CLIENTS, Who::Stranger, "an issuer's token in its place", |w| {
        let token = w.assertion(json!({"sub": "robot", "iss": "robot"}));
        by(w, &token, &[])
    }));
    attacks
}
