//! Operating a broker whose clock may be another one than its database's.

use std::sync::atomic::Ordering;

use super::*;
use crate::broker::store::KeyStore as _;
use crate::broker::testbed::failing::Failing;

/// What somebody shows may have expired hours ago. To end something goes on all the same: it is
/// done by whoever comes in an emergency.
#[tokio::test]
async fn by_another_clock_than_the_databases_nothing_is_shown_and_things_can_be_ended_only() {
    let (bed, store) = Failing::bed(|options| options.policies += &permits()).await;
    let ops = ops(&bed);
    let token = bed.issued(json!({}), &[]).await;
    let kid = bed.broker.keys.current().await.unwrap().active().kid().to_string();
    let looked = async || {
        bed.broker.store_clock.forget().await;
        let mut all = Vec::new();
        for path in [
            "/v1/audit/records",
            "/v1/keys",
            "/v1/enrollments",
            "/v1/enrollments?mine=true",
            "/v1/roles",
            "/v1/elevations",
            "/v1/elevations/00000000-0000-0000-0000-000000000000",
            "/v1/elevations/00000000-0000-0000-0000-000000000000/uses",
        ] {
            all.push((path, get(&bed, path, &ops).await.status.as_u16()));
        }
        all.push(("rotate", post(&bed, "/v1/keys/rotate", &ops, &[]).await.status.as_u16()));
        all
    };
    let changes = async || (store.keys().await.unwrap().len(), bed.store.size().await.unwrap());
    let before = changes().await;
    store.behind.store(7200, Ordering::Relaxed);
    for (what, status) in looked().await {
        assert_eq!(status, 503, "{what}");
    }
    // That revokes nothing.
    let dry = post(&bed, "/v1/revocations/dry-run", &ops, &[("token", &token)]).await;
    assert_eq!(dry.status, 503);
    assert_eq!(changes().await, before);
    ok(&post(&bed, "/v1/revocations", &ops, &[("token", &token)]).await);
    let why = [("kid", kid.as_str()), ("reason", "it leaked")];
    ok(&post(&bed, "/v1/keys/revoke", &ops, &why).await);
    // (With 0 it would have no clock of its own.)
    store.behind.store(1, Ordering::Relaxed);
    for (what, status) in looked().await {
        assert_ne!(status, 503, "{what}");
    }
}
