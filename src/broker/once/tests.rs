use std::collections::BTreeMap;

use serde_json::json;

use super::*;
use crate::broker::own::Shown;
use crate::broker::testbed::{Bed, now, set};
use crate::credential::TokenType;
use crate::dpop::Proof;
use crate::secret::Secret;

fn asked() -> Ask {
    Ask {
        role: "deploy".into(),
        audience: "a".into(),
        scope: None,
        ttl: None,
        proof: None,
        elevation: None,
        idempotency_key: None,
        jwt: false,
        source: [192, 0, 2, 1].into(),
        request_id: Uuid::nil(),
    }
}

fn proof(thumbprint: &str, id: &str) -> Option<Proof> {
    let (thumbprint, id) = (thumbprint.into(), id.into());
    Some(Proof { thumbprint, id, nonce: None, until: now() })
}

/// Somebody, and who acts for them, where somebody does.
async fn caller(bed: &Bed, sub: &str, actor: Option<&str>) -> Caller {
    let token = |sub: &str| Secret::new(bed.key.token(json!({ "sub": sub })));
    let (subject, actor) = (token(sub), actor.map(token));
    let shown = |token| Shown { token, token_type: TokenType::Jwt };
    let book = bed.broker.policies();
    let actor = actor.as_ref().map(shown);
    bed.broker.parties(shown(&subject), actor, &book, None).await.unwrap()
}

/// Whatever of a request is another one makes it another request: who was to have the one has
/// nothing to do with the other.
#[tokio::test]
async fn a_request_is_the_same_where_all_of_it_is() {
    let bed = Bed::new().await;
    let alice = caller(&bed, "alice", None).await;
    let (first, second) = ([1; 32], [2; 32]);
    let asking = |change: fn(&mut Ask)| {
        let mut ask = asked();
        change(&mut ask);
        fingerprint(&[first], &alice, &ask, "")
    };
    let same = asking(|_| {});
    for (what, told) in [
        ("its id", asking(|ask| ask.request_id = Uuid::max())),
        ("where it comes from, unless that counts", asking(|ask| ask.source = [9; 4].into())),
        ("by which key it is asked again", asking(|ask| ask.idempotency_key = Some("k".into()))),
    ] {
        assert_eq!(told, same, "it is not another one by {what}");
    }
    let ask = asked();
    let plain = |caller, source| fingerprint(&[first], caller, &ask, source);
    let told = [
        ("nothing", same),
        ("role", asking(|ask| ask.role = "other".into())),
        ("audience", asking(|ask| ask.audience = "b".into())),
        ("scope", asking(|ask| ask.scope = Some(set("a")))),
        ("another scope", asking(|ask| ask.scope = Some(set("a b")))),
        ("lifetime", asking(|ask| ask.ttl = Some(std::time::Duration::from_secs(60)))),
        ("key", asking(|ask| ask.proof = proof("k", "1"))),
        ("another key", asking(|ask| ask.proof = proof("l", "1"))),
        ("grant", asking(|ask| ask.elevation = Some(Uuid::from_u128(1)))),
        ("another grant", asking(|ask| ask.elevation = Some(Uuid::from_u128(2)))),
        ("form", asking(|ask| ask.jwt = true)),
        ("source", plain(&alice, "192.0.2.1")),
        ("assertion", fingerprint(&[second], &alice, &ask, "")),
        ("assertions", fingerprint(&[first, second], &alice, &ask, "")),
        ("subject", plain(&caller(&bed, "bob", None).await, "")),
        ("client", plain(&alice.clone().through("deployer"), "")),
        ("actor", plain(&caller(&bed, "alice", Some("bot")).await, "")),
        ("another actor", plain(&caller(&bed, "alice", Some("robot")).await, "")),
        // What is in one place is not taken for what is in another.
        (
            "texts that are elsewhere",
            asking(|ask| {
                ask.role = "deploya".into();
                ask.audience = String::new();
            }),
        ),
    ];
    let mut seen = BTreeMap::new();
    for (what, print) in told {
        assert_eq!(seen.insert(print, what), None, "it is another one by {what}");
    }
    // Each proof is another one, and the same key.
    assert_eq!(
        asking(|ask| ask.proof = proof("k", "1")),
        asking(|ask| ask.proof = proof("k", "2")),
    );
}
