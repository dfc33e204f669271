//! What the claims of a good token make of its bearer.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::config::TrustedIssuer;
use super::super::policy::Needs;
use super::{respelled, suppose};
use crate::credential::Principal;
use crate::fuzz::{
    Fate::{Accepted, Refused},
    NOW, hold,
};
use crate::oidc::{Claims, Issuer, jwt};

const ISSUER: &str = "https://i.example";

#[test]
fn caller() {
    let own = Issuer::parse("https://broker.example").unwrap();
    let config: TrustedIssuer = serde_json::from_value(json!({
        "issuer": ISSUER, "clients": ["cli"], "required_claims": {"repository": "acme/app", "level": 3},
    }))
    .unwrap();
    hold("caller", [], move |input| {
        let Ok(Value::Object(all)) = serde_json::from_slice(input) else { return Refused };
        let Some(subject) = all.get("sub").and_then(Value::as_str).map(String::from) else {
            return Refused;
        };
        let principal = Principal { issuer: ISSUER.into(), subject: subject.clone() };
        let audience = jwt::audience(&all);
        let said = all.clone();
        let claims = Claims { principal, audience, issued_at: None, expires_at: NOW, all };
        let Ok(caller) = suppose("corp", &config, &own, claims, &Needs::default()) else {
            return Refused;
        };
        assert!(subject.len() <= 1024 && !subject.chars().any(char::is_control));
        // Nobody can have the id of somebody else.
        let id = caller.id();
        assert!(id.starts_with("https://i.example#") && id.matches('#').count() == 1);
        assert!(id.is_ascii() && respelled(id).is_none());
        for group in caller.groups() {
            assert!(group.starts_with("https://i.example#") && respelled(group).is_none());
        }
        assert_eq!(caller.client(), "cli");
        let is = |name: &str, wanted: Value| match &said[name] {
            Value::Array(values) => values.contains(&wanted),
            value => *value == wanted,
        };
        assert!(is("repository", json!("acme/app")) && is("level", json!(3)));
        assert!(caller.actors().len() <= 4 && said.get("events").is_none());
        let values: BTreeMap<_, _> = caller.tags().iter().map(|(k, v)| (k, v.len())).collect();
        assert!(values.values().sum::<usize>() <= 5_000);
        Accepted
    });
}
