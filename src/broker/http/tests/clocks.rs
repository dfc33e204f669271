//! What a broker does whose clock is another one than its database's.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::authz::{authz, with_bearer};
use super::lineage::root_key;
use crate::broker::config::Proxy;
use crate::broker::store::Store;
use crate::broker::store::sql::tests::Ground;
use crate::broker::testbed::failing::Failing;
use crate::broker::testbed::{Bed, Shifted, json_of, now};

/// Asks whether it is ready until the answer is this one: each look at a clock holds for a while.
async fn becomes(bed: &Bed, expected: StatusCode) {
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while bed.get("/readyz").await.status != expected {
        assert!(tokio::time::Instant::now() < deadline, "it never is {expected}");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// By a clock that is behind, assertions would be good that have expired, and by one that is ahead
/// tokens for longer than they should.
#[tokio::test]
async fn nothing_is_issued_by_another_clock_than_the_databases() {
    for ground in Ground::each().await {
        let store: Arc<dyn Store> = Arc::new(ground.open().await);
        let same = store.now().await.unwrap().is_none();
        let clock = Arc::new(Shifted::default());
        let bed = Bed::with(|options| {
            (options.store, options.root_key) = (store.clone(), root_key());
            options.clock = clock.clone();
            authz(Proxy::Nginx, options);
        })
        .await;
        let token = bed.issued(json!({}), &[]).await;
        // Each of them as good as can be by the broker's clock.
        let ask = async |seconds: i64| {
            clock.0.store(seconds, Ordering::Relaxed);
            let at = now().unix_timestamp() + seconds;
            let assertion = bed.key.token(json!({"iat": at - 1, "exp": at + 600}));
            bed.exchange(&assertion, &[]).await
        };
        for seconds in [50, -50] {
            assert_eq!(ask(seconds).await.status, StatusCode::OK, "{seconds}");
        }
        for seconds in [90, -90] {
            let records = store.size().await.unwrap();
            let answer = ask(seconds).await;
            if same {
                assert_eq!(answer.status, StatusCode::OK);
                becomes(&bed, StatusCode::OK).await;
                continue;
            }
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
            assert!(answer.headers.contains_key("retry-after"));
            let said = json_of(&answer);
            assert_eq!(said["error"], "temporarily_unavailable");
            assert_eq!(said.get("access_token"), None::<&Value>);
            assert_eq!(store.size().await.unwrap(), records, "nothing of it is on record");
            becomes(&bed, StatusCode::SERVICE_UNAVAILABLE).await;
        }
        // Nor does it say that a token is good, as it cannot tell which have expired.
        let looked = async || {
            let introspected = bed.introspect(Some(&token), &token).await;
            [introspected.status, with_bearer(&bed, &token).await.status]
        };
        clock.0.store(90, Ordering::Relaxed);
        let other = if same { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        becomes(&bed, other).await;
        assert_eq!(looked().await, [other; 2]);
        clock.0.store(0, Ordering::Relaxed);
        becomes(&bed, StatusCode::OK).await;
        assert_eq!(looked().await, [StatusCode::OK; 2]);
        // What must not wait does not.
        clock.0.store(90, Ordering::Relaxed);
        becomes(&bed, other).await;
        assert_eq!(bed.revoke(&token).await, 200);
        clock.0.store(0, Ordering::Relaxed);
        becomes(&bed, StatusCode::OK).await;
        assert_eq!(ask(0).await.status, StatusCode::OK);
    }
}

/// Where the database does not say what time it is, nobody can tell which tokens have expired: this
/// clock may be hours behind.
#[tokio::test]
async fn where_the_database_does_not_say_what_time_it_is_no_token_is_good() {
    let (bed, store) = Failing::bed(|options| authz(Proxy::Nginx, options)).await;
    let token = bed.issued(json!({}), &[]).await;
    let looked = async || {
        bed.broker.store_clock.forget().await;
        let introspected = bed.introspect(Some(&token), &token).await;
        let ready = bed.get("/readyz").await;
        [introspected.status, with_bearer(&bed, &token).await.status, ready.status]
    };
    // (With 0 it would have no clock of its own.)
    store.behind.store(1, Ordering::Relaxed);
    store.tells_time.store(false, Ordering::Relaxed);
    assert_eq!(looked().await, [StatusCode::SERVICE_UNAVAILABLE; 3]);
    store.tells_time.store(true, Ordering::Relaxed);
    assert_eq!(looked().await, [StatusCode::OK; 3]);
    // What it said a moment ago serves for a while.
    store.tells_time.store(false, Ordering::Relaxed);
    assert_eq!(looked().await, [StatusCode::OK; 3]);
}
