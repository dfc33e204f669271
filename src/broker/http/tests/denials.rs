//! What those who are denied can make the broker write.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use aws_lc_rs::digest::{SHA256, digest};
use axum::http::StatusCode;
use data_encoding::HEXLOWER;
use serde_json::json;
use time::Duration;
use tokio::time::Instant;

use super::header_of;
use crate::broker::audit::Record;
use crate::broker::audit::leaf::COLUMNS;
use crate::broker::testbed::{API, Bed, CORP, Shifted, json_of};
use crate::credential::Principal;
use crate::host::clock::{Clock, SystemClock};

const LONG: std::time::Duration = std::time::Duration::from_secs(30);

fn size(record: &Record) -> usize {
    let Record { reason, principal, client, source, role, audience, scope, .. } = record;
    [reason, &principal.issuer, &principal.subject, client, source, role, audience, scope]
        .iter()
        .map(|text| text.len())
        .sum()
}

#[tokio::test]
async fn a_denial_takes_little_room_whatever_was_asked_for() {
    let bed = Bed::new().await;
    let scope: Vec<String> = (0..100).map(|n| format!("{n:x<256}")).collect();
    let scope = format!("deploy:read {}", scope[1..].join(" "));
    let long = "é".repeat(512);
    let token = bed.key.token(json!({"sub": long, "azp": long, "groups": []}));
    let audience = "a".repeat(512);
    for changes in [
        &[("scope", scope.as_str())][..],
        &[("scope", &scope), ("role", "unheard-of")],
        &[("audience", &audience)],
        &[],
    ] {
        bed.refused(&token, changes).await;
    }
    let records = bed.records(0, 9).await;
    assert_eq!(records.len(), 4);
    for (_, record) in &records {
        assert!(size(record) < 5000, "{}: {record:?}", size(record));
        assert!(!record.reason.contains("%C3"), "the subject has a column of its own");
    }
    let said = &records[0].1.scope;
    assert_eq!(said, "deploy:read \"99 others\"");
    assert!(records[0].1.reason.contains("SHA-256 "), "{}", records[0].1.reason);
    for claims in [json!({"sub": "x".repeat(1025)}), json!({"azp": "x".repeat(1025)})] {
        let refused = bed.refused(&bed.key.token(claims), &[]).await;
        assert_eq!(refused["error"], "invalid_request", "{refused}");
    }
    assert_eq!(bed.records(4, 9).await, []);
}

#[tokio::test]
async fn who_is_denied_again_and_again_is_counted() {
    let clock = Arc::new(Shifted::default());
    let bed = Bed::with(|options| options.clock = clock.clone()).await;
    let denied = bed.key.token(json!({"sub": "eve", "groups": [], "exp": far()}));
    let mut counted = 0;
    for _ in 0..50 {
        let response = bed.exchange(&denied, &[]).await;
        assert_eq!(response.status, StatusCode::BAD_REQUEST);
        assert_eq!(json_of(&response)["error"], "access_denied");
        if response.headers.contains_key("retry-after") {
            let after: u64 = header_of(&response, "retry-after").parse().unwrap();
            assert!((1..=30).contains(&after), "{after}");
            counted += 1;
        } else {
            assert_eq!(json_of(&response)["error"], "access_denied");
        }
    }
    let records = bed.records(0, 99).await;
    assert_eq!(records.len() + counted, 50);
    assert!((1..=20).contains(&counted), "{counted}");
    // Others are denied, and on record, as before; and who is permitted is not held up.
    let other = bed.refused(&bed.key.token(json!({"sub": "bob", "groups": []})), &[]).await;
    assert_eq!(other["error"], "access_denied");
    let permitted = bed.key.token(json!({"sub": "eve", "exp": far()}));
    assert!(bed.exchange(&permitted, &[]).await.status.is_success());
    assert_eq!(bed.records(0, 99).await.len(), records.len() + 2);

    clock.0.store(61, Ordering::Relaxed);
    assert!(bed.exchange(&permitted, &[]).await.status.is_success());
    let (_, summary) = bed.records(0, 99).await.remove(records.len() + 2);
    assert_eq!(summary.count, counted as u64);
    assert_eq!((summary.principal.issuer.as_str(), &summary.principal.subject[..]), (CORP, "eve"));
    assert_eq!(summary.action, "issue");
    assert!(summary.reason.contains("only counted"), "{summary:?}");
}

#[tokio::test]
async fn what_was_only_counted_goes_on_record_though_nobody_asks_again() {
    let bed = Bed::new().await;
    let ago = bed.broker.clock.now() - Duration::minutes(2);
    let eve = Principal { issuer: CORP.into(), subject: "eve".into() };
    let denied = (0..40).map(|_| bed.broker.denials.admit(&eve, "issue", ago, Duration::hours(1)));
    assert_eq!(denied.filter(Result::is_err).count(), 10);
    bed.broker.see_to_elevations();
    let end = Instant::now() + LONG;
    let count = loop {
        if let Some((_, summary)) = bed.records(0, 9).await.pop() {
            break summary.count;
        }
        assert!(Instant::now() < end, "nothing is on record");
        tokio::task::yield_now().await;
    };
    assert_eq!(count, 10);
}

#[tokio::test]
async fn who_hangs_up_takes_no_count_away() {
    let bed = Bed::new().await;
    let ago = bed.broker.clock.now() - Duration::minutes(2);
    let mut counted = 0;
    for n in 0..300 {
        let principal = Principal { issuer: CORP.into(), subject: n.to_string() };
        for _ in 0..40 {
            let admitted = bed.broker.denials.admit(&principal, "issue", ago, Duration::hours(1));
            counted += u64::from(admitted.is_err());
        }
    }
    let form = bed.form(&bed.key.token(json!({})), &[]);
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let request = format!(
        "POST /token HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\
         Content-Type: application/x-www-form-urlencoded\r\n\r\n{body}",
        body.len()
    );
    use tokio::io::AsyncWriteExt as _;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    let mut stream = socket.connect(bed.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    // As soon as the first is on record.
    let on_record = async || -> u64 {
        let records = bed.records(0, 999).await;
        let summaries = records.iter().filter(|(_, r)| r.reason.contains("only counted"));
        summaries.map(|(_, record)| record.count).sum()
    };
    let deadline = Instant::now() + std::time::Duration::from_secs(60);
    while on_record().await == 0 {
        assert!(Instant::now() < deadline, "nothing is put on record");
    }
    drop(stream);
    while on_record().await != counted {
        assert!(Instant::now() < deadline, "{} of {counted}", on_record().await);
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

fn far() -> i64 {
    SystemClock.now().unix_timestamp() + 3600
}

/// Anybody can ask for a role or an audience that is somebody's name: what cannot be erased has
/// none of it, nor anything that it could be guessed from.
#[tokio::test]
async fn what_was_asked_for_in_vain_can_be_erased() {
    let bed = Bed::new().await;
    let name = "ada.lovelace";
    let token = bed.key.token(json!({ "sub": name }));
    let audience = format!("https://{name}.example.com");
    bed.refused(&token, &[("role", name)]).await;
    bed.refused(&token, &[("audience", &audience), ("scope", name)]).await;
    bed.refused(&token, &[("scope", name)]).await;
    let leaves = bed.store.leaves(0, 99).await.unwrap();
    let denied: Vec<_> = leaves
        .iter()
        .map(|leaf| leaf.values.clone().unwrap())
        .filter(|values| values.iter().flatten().any(|value| value == "denied"))
        .collect();
    assert_eq!(denied.len(), 3);
    let guess = digest(&SHA256, name.as_bytes());
    let guess = HEXLOWER.encode(guess.as_ref());
    for values in &denied {
        let mut said = 0;
        for (column, value) in COLUMNS.iter().zip(values) {
            let value = value.as_deref().unwrap_or_default();
            let personal = ["reason", "subject", "client", "source", "actor"].contains(column);
            said += usize::from(value.contains(name));
            assert!(personal || !(value.contains(name) || value.contains(&guess)), "{column}");
        }
        assert_eq!(said, 2, "the subject and the reason say it: {values:?}");
    }
    let columns = |records: &[(u64, Record)]| -> Vec<[String; 2]> {
        let shown = |(_, record): &(u64, Record)| [record.role.clone(), record.audience.clone()];
        records.iter().map(shown).collect()
    };
    let text = |text: &str| text.to_string();
    assert_eq!(
        columns(&bed.records(0, 9).await),
        [
            [text("(unknown)"), text(API)],
            [text("deploy"), text("(unknown)")],
            [text("deploy"), text(API)]
        ]
    );
}
