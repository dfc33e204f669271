//! What becomes of what was decided where somebody else was quicker: for each kind of
//! thing that is good once, and for what the token was to come of.

use axum::http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::json;

use super::dpop::{Device, ask, nonce, refusal, rejected};
use super::lineage::{Site, first, revoke_key, signer};
use super::once::{OTHER, strict};
use crate::broker::audit::Decision;
use crate::broker::issue::{Ask, Refusal};
use crate::broker::testbed::{API, Bed};
use crate::credential::TokenType;
use crate::dpop::Proof;
use crate::secret::Secret;

/// Somebody who was identified, and has proved a key, and is about to be issued a token.
struct Slow<'a> {
    bed: &'a Bed,
    token: Secret<String>,
    proof: Option<(String, Proof)>,
}

impl<'a> Slow<'a> {
    fn new(bed: &'a Bed, token: &str) -> Self {
        Self { bed, token: Secret::new(token.into()), proof: None }
    }

    async fn proving(self, device: &Device) -> Self {
        let text = device.proof(Some(&nonce(self.bed).await));
        let mut headers = HeaderMap::new();
        headers.append("dpop", HeaderValue::from_str(&text).unwrap());
        let proof = self.bed.broker.token_proof(&headers, &self.token).unwrap().unwrap();
        Self { proof: Some((text, proof)), ..self }
    }

    /// Goes on once something else was done.
    async fn overtaken_by(&self, role: &str, other: impl Future<Output = ()>) -> Refusal {
        let policy = self.bed.broker.policies();
        let proof = self.proof.as_ref().map(|(_, proof)| proof.clone());
        let caller = self.bed.broker.caller(&self.token, TokenType::Jwt, &policy, proof.as_ref());
        let caller = caller.await.unwrap();
        other.await;
        let ask = Ask {
            role: role.into(),
            audience: API.into(),
            scope: None,
            ttl: None,
            elevation: None,
            idempotency_key: None,
            jwt: false,
            source: [127, 0, 0, 1].into(),
            request_id: uuid::Uuid::nil(),
            proof,
        };
        let before = issued(self.bed).await;
        let refusal = self.bed.broker.issue(&policy, &caller, &ask).await.unwrap_err();
        assert_eq!(issued(self.bed).await, before);
        let (_, record) = self.bed.records(0, 99).await.pop().unwrap();
        assert_eq!((record.decision, record.jti), (Decision::Denied, None));
        refusal
    }

    /// Whether the proof can still be used.
    async fn has_proof(&self) -> bool {
        let (text, _) = self.proof.as_ref().unwrap();
        let token = self.bed.key.token(json!({"jti": "another"}));
        ask(self.bed, &token, &[text], &[]).await.status == StatusCode::OK
    }
}

async fn issued(bed: &Bed) -> usize {
    let records = bed.records(0, 99).await;
    records.iter().filter(|(_, record)| record.decision == Decision::Issued).count()
}

#[tokio::test]
async fn by_who_revokes_what_it_comes_of() {
    let site = Site::new();
    let bed = site.start().await;
    let parent = first(&bed).await;
    let slow = Slow::new(&bed, &parent).proving(&Device::new()).await;
    let refusal = slow.overtaken_by("again", async {
        assert_eq!(bed.revoke(&parent).await, 200);
    });
    let refusal = refusal.await;
    assert!(matches!(&refusal, Refusal::Denied { said, .. } if said.contains("was revoked")));
    // It went with the denial.
    assert!(!slow.has_proof().await);
    assert_eq!(rejected(&bed, "replayed").await, "1");
}

#[tokio::test]
async fn by_who_revokes_the_key_of_what_it_comes_of() {
    let site = Site::new();
    let bed = site.start().await;
    let parent = first(&bed).await;
    let slow = Slow::new(&bed, &parent);
    let refusal = slow.overtaken_by("again", revoke_key(&bed, &signer(&parent))).await;
    assert!(matches!(&refusal, Refusal::Denied { said, .. } if said.contains("was revoked")));
}

#[tokio::test]
async fn by_who_uses_the_same_proof() {
    let bed = Bed::new().await;
    let slow = Slow::new(&bed, &bed.key.token(json!({}))).proving(&Device::new()).await;
    let refusal = slow.overtaken_by("deploy", async { assert!(slow.has_proof().await) }).await;
    assert!(matches!(refusal, Refusal::Replayed), "{refusal}");
}

#[tokio::test]
async fn by_who_uses_the_same_proof_although_the_assertion_is_good_once() {
    let bed = Bed::with(strict).await;
    let assertion = bed.key.token(json!({}));
    let slow = Slow::new(&bed, &assertion).proving(&Device::new()).await;
    let refusal = slow.overtaken_by("deploy", async { assert!(slow.has_proof().await) }).await;
    assert!(matches!(refusal, Refusal::Replayed), "{refusal}");
    // The assertion was not used up for that.
    let proof = Device::new().proof(Some(&nonce(&bed).await));
    assert_eq!(ask(&bed, &assertion, &[&proof], &[]).await.status, StatusCode::OK);
}

#[tokio::test]
async fn by_who_uses_the_assertion() {
    let bed = Bed::with(strict).await;
    let assertion = bed.key.token(json!({}));
    let slow = Slow::new(&bed, &assertion).proving(&Device::new()).await;
    let refusal = slow.overtaken_by("deploy", async {
        let response = ask(&bed, &assertion, &[], &[("audience", OTHER)]).await;
        assert_eq!(response.status, StatusCode::OK);
    });
    let refusal = refusal.await;
    assert!(matches!(refusal, Refusal::Reused), "{refusal}");
    assert!(!slow.has_proof().await);
}

#[tokio::test]
async fn by_who_uses_proof_and_assertion() {
    let bed = Bed::with(strict).await;
    let assertion = bed.key.token(json!({}));
    let slow = Slow::new(&bed, &assertion).proving(&Device::new()).await;
    let (text, _) = slow.proof.as_ref().unwrap();
    let again = async || ask(&bed, &assertion, &[text], &[("audience", OTHER)]).await;
    let overtaken = slow.overtaken_by("deploy", async {
        assert_eq!(again().await.status, StatusCode::OK);
    });
    let overtaken = overtaken.await;
    assert!(matches!(overtaken, Refusal::Replayed), "{overtaken}");
    assert_eq!(refusal(&again().await), "invalid_dpop_proof");
}
