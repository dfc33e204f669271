//! What is left of somebody who was erased from the audit log.

use serde_json::json;

use super::cutoff::next_second;
use super::delegation::{acting, bot};
use super::lineage::{OWN, Site, active, first, next};
use crate::broker::audit::erase::{Erasure, erase};
use crate::broker::cutoff::{Operator, What};
use crate::broker::store::{Store, Whose};
use crate::broker::testbed::{API, Bed, CORP, Options, json_of, now};
use crate::credential::Principal;
use crate::host::clock::SystemClock;
use crate::oidc::Issuer;

async fn erase_alice(store: &dyn Store) -> u64 {
    let person = Principal { issuer: CORP.into(), subject: "alice".into() };
    let issuer = Issuer::parse(OWN).unwrap();
    let what = Erasure { person: &person, by: "ops", reason: "ticket 7", issuer: &issuer };
    erase(store, &what, now()).await.unwrap().records
}

fn acts(options: &mut Options) {
    // What a token says of somebody is on record, too.
    let says = serde_json::from_value(json!({"who": "{subject}"})).unwrap();
    options.config.role.get_mut("deploy").unwrap().claims = says;
    options.policies += &format!(
        r#"@id("own-acts") permit (principal, action == Action::"act", resource)
        when {{ principal.issuer == "{OWN}" }};
        @id("bot-acts") permit (principal == User::"{CORP}#bot", action == Action::"act", resource);"#
    );
}

async fn acted(bed: &Bed, subject: &str, actor: &str, role: &str) -> String {
    let changes = [&acting(actor)[..], &[("role", role)]].concat();
    let response = bed.exchange(subject, &changes).await;
    let grant = json_of(&response);
    assert_eq!(response.status.as_u16(), 200, "{grant}");
    grant["access_token"].as_str().unwrap().to_string()
}

#[tokio::test]
async fn nobody_is_named_who_asked_or_acted_by_tokens_of_the_brokers_own() {
    let site = Site::new();
    let bed = site.start_with(acts).await;
    let parent = first(&bed).await;
    let child = next(&bed, &parent, OWN).await;
    let grandchild = next(&bed, &child, OWN).await;
    let last = next(&bed, &grandchild, API).await;
    assert_eq!(bed.revoke(&last).await, 200);
    let bob = bed.key.token(json!({"sub": "bob"}));
    for actor in [&parent, &child, &grandchild] {
        acted(&bed, &bob, actor, "deploy").await;
    }
    acted(&bed, &bob, &bot(&bed, "bot"), "deploy").await;
    assert_eq!(erase_alice(bed.store.as_ref()).await, 8);
    let records = bed.store.records(0, 99).await.unwrap();
    let told: Vec<_> = records.iter().map(|(_, record)| format!("{record:?}")).collect();
    assert!(told.iter().all(|record| !record.contains("alice")), "{told:#?}");
    assert_eq!(told.iter().filter(|record| record.contains("bob")).count(), 1);
}

/// Whoever was erased may be the one who is meant.
#[tokio::test]
async fn what_came_of_a_token_whose_record_was_erased_ends_with_all_that_it_may_be_of() {
    let site = Site::new();
    let bed = site.start_with(acts).await;
    let parent = first(&bed).await;
    let child = acted(&bed, &parent, &bot(&bed, "bot"), "again").await;
    next_second().await;
    let operator = || {
        let clock = std::sync::Arc::new(SystemClock);
        Operator::beside(bed.store.clone(), clock, Issuer::parse(OWN).unwrap())
    };
    let revoke = async |whose| {
        let many = What::Many { whose, before: None };
        operator().revoke(&many, "a test").await.unwrap();
    };
    revoke(Whose::Client("gui".into())).await;
    revoke(Whose::Role("other".into())).await;
    assert!(active(&bed, &child).await);
    // What is of the second in which something was revoked is of that, too.
    next_second().await;
    let later = first(&bed).await;
    let of_later = acted(&bed, &later, &bot(&bed, "bot"), "again").await;
    assert!(erase_alice(bed.store.as_ref()).await > 0);
    // What it says itself is no longer on record; what is of a later time is another one's.
    assert!(!active(&bed, &child).await && active(&bed, &of_later).await);
    next_second().await;
    revoke(Whose::Role("other".into())).await;
    assert!(active(&bed, &of_later).await);
    revoke(Whose::Client("cli".into())).await;
    assert!(!active(&bed, &of_later).await);
}
