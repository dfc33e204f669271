use super::*;
use crate::broker::audit::Record;
use crate::broker::store::sql::tests::{Ground, append, record};
use crate::broker::store::sqlite;
use crate::credential::Principal;

/// A log of more than one part: every seventh record is of Ada, and has a role of its own.
async fn fill(store: &SqlStore) {
    let records: Vec<_> = (1..=50)
        .map(|n: i64| {
            let usual = record(&n.to_string());
            let ada = Principal { subject: "ada".into(), ..usual.principal.clone() };
            let at = usual.at + Duration::hours(n);
            match n % 7 {
                0 => Record { at, principal: ada, role: "rare".into(), ..usual },
                _ => Record { at, ..usual },
            }
        })
        .collect();
    append(store, &records).await.unwrap();
}

fn numbers(rows: &[Row]) -> Vec<u64> {
    rows.iter().map(|(number, _)| *number).collect()
}

#[tokio::test]
async fn a_log_is_looked_through_in_parts_and_nothing_is_left_out() {
    for ground in Ground::each().await {
        let store = ground.open().await;
        fill(&store).await;
        let find =
            async |filter: &Filter, limit| numbers(&store.find(filter, limit).await.unwrap());
        let rare = Filter { role: Some("rare".into()), ..Filter::default() };
        assert_eq!(find(&rare, 99).await, [7, 14, 21, 28, 35, 42, 49]);
        assert_eq!(find(&rare, 3).await, [35, 42, 49]);
        assert_eq!(find(&Filter::default(), 2).await, [49, 50]);
        assert_eq!(find(&Filter::default(), 99).await.len(), 50);
        assert!(find(&rare, 0).await.is_empty());
        let ada = Filter { subject: Some("ada".into()), ..Filter::default() };
        assert_eq!(find(&ada, 2).await, [42, 49]);
        let since = Some(record("").at + Duration::hours(40));
        assert_eq!(find(&Filter { since, ..rare.clone() }, 99).await, [42, 49]);
        let until = since;
        assert_eq!(find(&Filter { until, ..rare.clone() }, 99).await, [7, 14, 21, 28, 35]);
        // Of drills those alone that are on record so, whatever else says the same.
        let drill = Filter { drill: true, ..Filter::default() };
        assert!(find(&drill, 99).await.is_empty());
        let said = [
            ("elevation.request", "DRILL: asked for it: to practise it"),
            ("elevation.request", "asked for it: DRILL: not at all"),
            ("issue", "DRILL: none of an elevation"),
            ("elevation.lapse", "DRILL: it lapsed"),
        ];
        let said = said.map(|(action, reason)| Record {
            action: action.into(),
            reason: reason.into(),
            ..record("")
        });
        append(&store, &said).await.unwrap();
        assert_eq!(find(&drill, 99).await, [51, 54]);
        let lapsed = Filter { action: Some("elevation.lapse".into()), ..drill.clone() };
        assert_eq!(find(&lapsed, 99).await, [54]);
        assert_eq!(find(&Filter { below: Some(54), ..drill }, 99).await, [51]);
        // One that somebody put before the first is found as well.
        if !ground.is_postgres() {
            let plant = "create table copy as select * from audit_record where sequence = 7;
                 update copy set sequence = -3; insert into audit_record select * from copy;
                 drop table copy";
            ground.tamper(plant).await;
            assert_eq!(store.find(&rare, 99).await.unwrap().len(), 8);
        }
    }
}

#[tokio::test]
async fn the_latest_moment_is_looked_up_by_an_index_whatever_its_number() {
    for ground in Ground::each().await {
        let store = ground.open().await;
        let at = |seconds: i64| record("").at + Duration::seconds(seconds);
        assert_eq!(store.latest(at(0), u64::MAX).await.unwrap(), None);
        let records = [5, 9, 1, 7].map(|seconds| Record { at: at(seconds), ..record("a") });
        append(&store, &records).await.unwrap();
        for (since, below, latest) in [
            (0, u64::MAX, Some(9)),
            (9, u64::MAX, Some(9)),
            (10, u64::MAX, None),
            (0, 2, Some(5)),
            (6, 2, None),
            (0, 1, None),
        ] {
            let found = store.latest(at(since), below).await.unwrap();
            assert_eq!(found, latest.map(at), "{since} {below}");
        }
        // What somebody has put there that is no moment keeps nobody from it.
        ground.tamper("update audit_record set at = 9000000000000000000 where sequence = 3").await;
        if !ground.is_postgres() {
            ground.tamper("update audit_record set at = 'x' where sequence = 4").await;
        }
        assert_eq!(store.latest(at(0), u64::MAX).await.unwrap(), Some(at(9)));
    }
    let store = sqlite::in_memory().await.unwrap();
    let plan = sqlx::query(AssertSqlSafe(format!("explain query plan {LATEST}")))
        .fetch_all(&store.engine.pool)
        .await
        .unwrap();
    let plan: Vec<String> = plan.iter().map(|row| row.get("detail")).collect();
    assert!(plan.iter().any(|step| step.contains("audit_record_at (at>?")), "{plan:?}");
    assert!(!plan.iter().any(|step| step.contains("TEMP B-TREE")), "it is in order: {plan:?}");
}

/// Where nobody reads all of it, ten million records are as quick as ten.
#[tokio::test]
async fn an_index_leads_to_the_records_of_a_person_and_of_a_request() {
    let store = sqlite::in_memory().await.unwrap();
    fill(&store).await;
    for (condition, index) in [
        ("subject = $1", "audit_record_subject"),
        ("issuer = $1 and subject = $1", "audit_record_subject"),
        ("request_id = $1", "audit_record_request"),
        ("jti = $1 and decision = $1", "audit_record_jti"),
    ] {
        let statement = format!(
            "explain query plan select reason from audit_record
             where {NUMBERED} and {condition} order by sequence desc limit 100"
        );
        let plan = sqlx::query(AssertSqlSafe(statement))
            .bind("x")
            .fetch_all(&store.engine.pool)
            .await
            .unwrap();
        let plan: Vec<String> = plan.iter().map(|row| row.get("detail")).collect();
        assert!(plan.iter().any(|step| step.contains(index)), "{condition}: {plan:?}");
    }
}
