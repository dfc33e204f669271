//! Tokens of the broker's own that are exchanged, and what comes of them.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::broker::audit::Decision;
use crate::broker::config::{self, Role, TrustedIssuer};
use crate::broker::issue::{Ask, Refusal};
use crate::broker::keys::{Keeper, KeyRing, RootKey, Rules, TOKENS};
use crate::broker::store::{Store, sqlite};
use crate::broker::testbed::failing::Failing;
use crate::broker::testbed::{API, Bed, CORP, Options, claims_of, json_of, set};
use crate::credential::TokenType;
use crate::host::clock::{Clock, SystemClock};
use crate::oidc::Issuer;
use crate::secret::Secret;

pub(super) const OWN: &str = "https://broker.example.com";

/// Where a broker lives that trusts itself, so that it can be started again.
pub(super) struct Site {
    dir: tempfile::TempDir,
}

pub(super) fn root_key() -> RootKey {
    RootKey::new(Secret::new([7; 32]))
}

/// Who changes keys; another one signs as soon as it is published.
fn keeper(store: Arc<dyn Store>) -> Keeper {
    let rules = Rules::from(&config::Keys::default());
    Keeper {
        store,
        root_key: root_key(),
        clock: Arc::new(SystemClock),
        rules: Rules { publish_before: time::Duration::ZERO, ..rules },
        issuer: Issuer::parse(OWN).unwrap(),
        name: "broker",
        seen: Arc::default(),
    }
}

/// Has this key revoked, beside the brokers.
pub(super) async fn revoke_key(bed: &Bed, kid: &str) {
    let keeper = keeper(bed.store.clone());
    let (rules, kids) = (keeper.rules, [kid.to_string()]);
    keeper.settle(|keys| rules.revocation(keys, &kids, "it leaked")).await.unwrap();
}

pub(super) fn signer(token: &str) -> String {
    let header = crate::oidc::jwt::decode_unverified(token).unwrap().header;
    header["kid"].as_str().unwrap().to_string()
}

async fn until(what: &str, is: impl AsyncFn() -> bool) {
    let waiting = async {
        while !is().await {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let most = std::time::Duration::from_secs(30);
    tokio::time::timeout(most, waiting).await.unwrap_or_else(|_| panic!("waited for {what}"));
}

impl Site {
    pub(super) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(super) async fn start(&self) -> Bed {
        self.start_with(|_| {}).await
    }

    pub(super) async fn start_with(&self, change: impl FnOnce(&mut Options)) -> Bed {
        let trusts_itself = self.trusts_itself().await;
        Bed::with(|options| {
            trusts_itself(options);
            change(options);
        })
        .await
    }

    /// What makes a broker here trust its own tokens, and give what is exchanged for them.
    pub(super) async fn trusts_itself(&self) -> impl FnOnce(&mut Options) + use<> {
        let path = self.dir.path().join("b.db");
        let store: Arc<dyn Store> = Arc::new(sqlite::open(&path).await.unwrap());
        let ring = KeyRing::open(keeper(store.clone())).await.unwrap().current().await.unwrap();
        let jwks = self.dir.path().join("own.json");
        crate::host::files::write_private(&jwks, ring.jwks()).unwrap();
        move |options| {
            let deploy = options.config.role.get_mut("deploy").unwrap();
            deploy.audiences.insert(OWN.into());
            let again = Role {
                scopes: set("deploy:read deploy:write deploy:admin"),
                max_ttl: std::time::Duration::from_secs(24 * 3600),
                ..deploy.clone()
            };
            options.config.role.insert("again".into(), again);
            let mut own = TrustedIssuer::new(Issuer::parse(OWN).unwrap());
            own.jwks_file = Some(jwks);
            options.config.trusted_issuer.insert("own".into(), own);
            options.policies += &format!(
                r#"
@id("again")
@ttl("24h")
@scope("deploy:read deploy:write deploy:admin")
permit (principal, action == Action::"exchange", resource == Role::"again")
when {{ principal.issuer == "{OWN}" }};
"#
            );
            (options.store, options.root_key) = (store, root_key());
        }
    }
}

/// A token for the broker itself, of ten minutes, that may read and write.
pub(super) async fn first(bed: &Bed) -> String {
    bed.issued(json!({}), &[("audience", OWN), ("requested_ttl", "600")]).await
}

/// What comes of a token by exchange.
pub(super) async fn next(bed: &Bed, token: &str, audience: &str) -> String {
    let response = bed.exchange(token, &[("role", "again"), ("audience", audience)]).await;
    let grant = json_of(&response);
    assert_eq!(response.status.as_u16(), 200, "{grant}");
    grant["access_token"].as_str().unwrap().to_string()
}

pub(super) async fn active(bed: &Bed, token: &str) -> bool {
    json_of(&bed.introspect(Some(token), token).await)["active"].as_bool().unwrap()
}

/// When a key is revoked the next one signs at once, and another process has not seen it.
#[tokio::test]
async fn a_token_by_a_key_that_was_never_seen_here_can_be_revoked_here() {
    let site = Site::new();
    let (one, other) = (site.start().await, site.start().await);
    let old = signer(&one.issued(json!({}), &[]).await);
    other.broker.keys.close_its_eyes();
    revoke_key(&one, &old).await;
    one.broker.keys.newest().await.unwrap();
    let token = one.issued(json!({}), &[]).await;
    assert_ne!(signer(&token), old);
    assert_eq!(other.revoke(&token).await, 200);
    assert!(!active(&one, &token).await, "it was said to be revoked");
}

/// Until it looks, a process signs by a key that another one has revoked: nobody gets such a token,
/// which everybody would refuse.
#[tokio::test]
async fn nobody_is_issued_a_token_by_a_key_that_was_revoked_elsewhere() {
    let site = Site::new();
    let (one, other) = (site.start().await, site.start().await);
    let old = signer(&one.issued(json!({}), &[]).await);
    other.broker.keys.close_its_eyes();
    revoke_key(&one, &old).await;
    // The first of a group that share the look at it, and one that says that it asks again.
    let (token, again) = tokio::join!(
        other.issued(json!({}), &[]),
        other.issued(json!({}), &[("idempotency_key", "k")])
    );
    for token in [&token, &again] {
        assert_ne!(signer(token), old);
        assert!(active(&one, token).await && active(&other, token).await);
    }
    let records = other.records(1, 9).await;
    let decisions: Vec<_> = records.iter().map(|(_, record)| record.decision).collect();
    assert_eq!(decisions, [Decision::Issued; 2]);
}

/// The record of a token says that the key was good that signs it. Another one may have its turn
/// before it does, and be revoked where this process has not seen it.
#[tokio::test]
async fn no_token_is_signed_by_another_key_than_its_record_rests_on() {
    let site = Site::new();
    let one = site.start().await;
    let slow = Failing::over(one.store.clone());
    let other = site.start_with(|options| options.store = slow.clone()).await;
    let old = signer(&other.issued(json!({}), &[]).await);
    other.broker.keys.close_its_eyes();
    let (store, broker) = (one.store.clone(), other.broker.clone());
    slow.after_moment(async move {
        let keeper = keeper(store);
        let rules = keeper.rules;
        keeper.settle(|keys| rules.rotation(keys, &TOKENS)).await.unwrap();
        keeper.settle(|_| Vec::new()).await.unwrap();
        let keys = broker.keys.newest().await.unwrap();
        let next = [keys.active().kid().to_string()];
        keeper.settle(|keys| rules.revocation(keys, &next, "it leaked")).await.unwrap();
    });
    let token = other.issued(json!({}), &[]).await;
    assert_eq!(signer(&token), old);
    assert!(active(&one, &token).await);
    other.broker.keys.newest().await.unwrap();
    assert_ne!(signer(&other.issued(json!({}), &[]).await), old);
}

#[tokio::test]
async fn what_comes_of_a_token_covers_no_more_and_lives_no_longer() {
    let site = Site::new();
    let bed = site.start().await;
    let parent = first(&bed).await;
    let child = next(&bed, &parent, OWN).await;
    let grandchild = next(&bed, &child, API).await;
    let (parent, child, grandchild) =
        (claims_of(&parent), claims_of(&child), claims_of(&grandchild));
    assert_eq!(parent.get("ancestors"), None);
    assert_eq!(child["ancestors"], json!([parent["jti"]]));
    assert_eq!(grandchild["ancestors"], json!([parent["jti"], child["jti"]]));
    for claims in [&child, &grandchild] {
        assert!(claims["exp"].as_i64() <= parent["exp"].as_i64(), "{claims}");
        assert_eq!(claims["scope"], "deploy:read deploy:write");
    }
    let records = bed.records(0, 9).await;
    let parents: Vec<Value> = records.iter().map(|(_, record)| json!(record.parent)).collect();
    assert_eq!(parents, [Value::Null, parent["jti"].clone(), child["jti"].clone()]);
}

#[tokio::test]
async fn more_than_a_token_covers_is_refused_whatever_policy_permits() {
    let site = Site::new();
    let bed = site.start().await;
    let parent = first(&bed).await;
    let ask = |scope| [("role", "again"), ("scope", scope), ("requested_ttl", "86400")];
    for wider in ["deploy:admin", "deploy:read deploy:admin"] {
        let refused = bed.refused(&parent, &ask(wider)).await;
        assert_eq!(refused["error"], "invalid_scope", "{refused}");
        let description = refused["error_description"].as_str().unwrap();
        assert!(description.contains("does not cover the scope 'deploy:admin'"), "{refused}");
    }
    let narrower = json_of(&bed.exchange(&parent, &ask("deploy:read")).await);
    assert_eq!(narrower["scope"], "deploy:read");
    assert!(narrower["expires_in"].as_i64().unwrap() <= 600, "{narrower}");
    let denied = bed.records(1, 1).await.remove(0).1;
    assert_eq!(denied.decision, Decision::Denied);
    assert_eq!(json!(denied.parent), claims_of(&parent)["jti"]);
}

#[tokio::test]
async fn revoking_a_token_reaches_what_came_of_it_also_after_a_restart() {
    let site = Site::new();
    let bed = site.start().await;
    let parent = first(&bed).await;
    let child = next(&bed, &parent, OWN).await;
    let grandchild = next(&bed, &child, OWN).await;
    let sibling = next(&bed, &parent, OWN).await;
    // The middle one: what is above it, and beside it, stays good.
    assert_eq!(bed.revoke(&child).await, 200);
    let look = async |bed: &Bed| {
        let mut seen = Vec::new();
        for token in [&parent, &child, &grandchild, &sibling] {
            let exchanged = bed.exchange(token, &[("role", "again")]).await.status.is_success();
            assert_eq!(active(bed, token).await, exchanged);
            seen.push(exchanged);
        }
        seen
    };
    assert_eq!(look(&bed).await, [true, false, false, true]);
    bed.store.close().await;
    drop(bed);
    let bed = site.start().await;
    assert_eq!(look(&bed).await, [true, false, false, true]);
    let counted = async |bed: &Bed| -> u64 {
        let told = bed.admin.get("/metrics").await.body;
        let told = String::from_utf8(told.expose().clone()).unwrap();
        let name = "tmpcred_own_tokens_refused_total{reason=\"revoked\"} ";
        told.lines().find_map(|line| line.strip_prefix(name)).unwrap().parse().unwrap()
    };
    let before = counted(&bed).await;
    let refused = bed.refused(&grandchild, &[("role", "again")]).await;
    assert_eq!(refused["error"], "invalid_request", "{refused}");
    assert!(refused["error_description"].as_str().unwrap().contains("it was revoked"), "{refused}");
    assert_eq!(counted(&bed).await, before + 1);
    assert_eq!(bed.revoke(&parent).await, 200);
    assert_eq!(look(&bed).await, [false; 4]);
}

#[tokio::test]
async fn revoking_a_key_reaches_what_came_of_its_tokens() {
    let site = Site::new();
    let bed = site.start().await;
    let parent = first(&bed).await;
    let operator = keeper(bed.store.clone());
    let (old, rules) = (signer(&parent), operator.rules);
    let slower = Rules { publish_before: time::Duration::DAY, ..rules };
    let slower = Keeper { rules: slower, ..keeper(bed.store.clone()) };
    slower.settle(|keys| rules.rotation(keys, &TOKENS)).await.unwrap();
    operator.settle(|_| Vec::new()).await.unwrap();
    until("another key to sign", async || signer(&first(&bed).await) != old).await;
    let child = next(&bed, &parent, OWN).await;
    assert!(signer(&child) != old && active(&bed, &child).await);
    assert_eq!(claims_of(&child)["ancestor_keys"], json!([old]));
    let revoke = |keys: &[_]| rules.revocation(keys, std::slice::from_ref(&old), "it leaked");
    operator.settle(revoke).await.unwrap();
    until("the revocation", async || !active(&bed, &parent).await).await;
    assert!(!active(&bed, &child).await);
}

#[tokio::test]
async fn nothing_comes_of_a_token_that_is_revoked_while_it_is_exchanged() {
    let site = Site::new();
    let bed = site.start().await;
    let parent = Secret::new(first(&bed).await);
    let policy = bed.broker.policies();
    let caller = bed.broker.caller(&parent, TokenType::Jwt, &policy, None).await.unwrap();
    assert_eq!(bed.revoke(parent.expose()).await, 200);
    let ask = Ask {
        elevation: None,
        role: "again".into(),
        audience: API.into(),
        scope: None,
        ttl: None,
        idempotency_key: None,
        jwt: false,
        source: [127, 0, 0, 1].into(),
        request_id: uuid::Uuid::nil(),
        proof: None,
    };
    let refusal = bed.broker.issue(&policy, &caller, &ask).await.unwrap_err();
    assert!(matches!(refusal, Refusal::Denied { .. }), "{refusal}");
    let (_, record) = bed.records(2, 9).await.pop().unwrap();
    assert_eq!((record.decision, record.jti), (Decision::Denied, None));
    assert!(record.reason.contains("was revoked"), "{record:?}");
}

#[tokio::test]
async fn a_token_of_the_broker_says_nothing_of_who_asks_about_another() {
    let site = Site::new();
    let bed = site.start().await;
    let (one, other) = (first(&bed).await, first(&bed).await);
    let response = bed.introspect(Some(&one), &other).await;
    assert_eq!(response.status.as_u16(), 401, "{}", json_of(&response));
    assert!(active(&bed, &other).await);
}

#[tokio::test]
async fn tokens_are_not_exchanged_without_end() {
    let site = Site::new();
    let bed = site.start().await;
    let mut token = first(&bed).await;
    for _ in 0..16 {
        token = next(&bed, &token, OWN).await;
    }
    let refused = bed.refused(&token, &[("role", "again")]).await;
    let description = refused["error_description"].as_str().unwrap();
    assert!(description.contains("too many tokens were exchanged"), "{refused}");
}

#[tokio::test]
async fn what_is_to_end_with_the_token_that_is_shown_does() {
    for of_role in [true, false] {
        let bed = Bed::with(|options| {
            let corp = options.config.trusted_issuer.get_mut("corp").unwrap();
            corp.ends_with_token = !of_role;
            options.config.role.get_mut("deploy").unwrap().ends_with_token = of_role;
        })
        .await;
        // It says 300 seconds, and policy gives 900.
        let token = bed.key.token(json!({}));
        for asked in ["", "600"] {
            let grant = json_of(&bed.exchange(&token, &[("requested_ttl", asked)]).await);
            let got = claims_of(grant["access_token"].as_str().unwrap());
            assert!(got["exp"].as_i64() <= claims_of(&token)["exp"].as_i64(), "{grant}");
        }
        // What its issuer's clock is forgiven is not given away.
        let now = SystemClock.now().unix_timestamp();
        let late = bed.key.token(json!({"exp": now - 10}));
        let refused = bed.refused(&late, &[]).await;
        assert_eq!(refused["error"], "access_denied", "{refused}");
    }
    let (bed, now) = (Bed::new().await, SystemClock.now().unix_timestamp());
    let token = bed.issued(json!({"exp": now + 60}), &[]).await;
    assert!(claims_of(&token)["exp"].as_i64().unwrap() > now + 800, "where nobody says so");
    let own = claims_of(&token);
    assert_eq!(own["sub"], format!("{CORP}#alice"));
}
