//! Reading the audit log from elsewhere.

use super::*;

const PATH: &str = "/v1/audit/records";

fn numbers(answer: &Value) -> Vec<u64> {
    let records = answer["records"].as_array().unwrap();
    records.iter().map(|record| record["sequence"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn records_are_found_by_what_they_say_page_by_page() {
    let bed = bed().await;
    let ops = ops(&bed);
    for subject in ["alice", "bob", "carol", "dora", "erin"] {
        bed.issued(json!({"sub": subject}), &[]).await;
    }
    let denied = bed.exchange(&bed.key.token(json!({"sub": "mallory"})), &[]).await;
    let request = header_of(&denied, "x-request-id");
    let find = async |query: &str| ok(&get(&bed, &format!("{PATH}{query}"), &ops).await);
    let all = find("").await;
    assert_eq!(all["next_below"], Value::Null);
    let every = numbers(&all);
    assert_eq!(every.len() as u64, bed.store.size().await.unwrap());
    assert!(every.is_sorted());

    let bob = find("?principal=bob").await;
    assert_eq!(bob["records"].as_array().unwrap().len(), 1);
    assert_eq!(bob["records"][0]["decision"], "issued");
    assert_eq!(find("?principal=https://login.example.com%23bob").await, bob);
    let jti = bob["records"][0]["jti"].as_str().unwrap();
    assert_eq!(find(&format!("?token={jti}")).await, bob);
    assert_eq!(numbers(&find("?decision=denied").await).len(), 1);
    let of_request = find(&format!("?request={request}")).await;
    assert_eq!(of_request["records"][0]["subject"], "mallory");
    assert_eq!(numbers(&find("?role=deploy&decision=issued").await).len(), 5);
    assert_eq!(numbers(&find("?since=2100-01-01T00:00:00Z").await), [0; 0]);
    assert_eq!(numbers(&find("?until=2100-01-01T00:00:00Z").await), every);

    // The newest come first, and all of them come once.
    let (mut seen, mut query) = (Vec::new(), "?limit=3".to_string());
    loop {
        let page = find(&query).await;
        assert!(numbers(&page).len() <= 3);
        seen.splice(0..0, numbers(&page));
        let Some(below) = page["next_below"].as_u64() else { break };
        query = format!("?limit=3&below={below}");
    }
    assert_eq!(seen, every);
    let size = bed.store.size().await.unwrap();
    assert_eq!(size, *every.last().unwrap(), "who reads leaves no record");
}

#[tokio::test]
async fn a_query_that_is_none_is_refused() {
    let bed = bed().await;
    let ops = ops(&bed);
    for query in [
        "?limit=0",
        "?limit=1001",
        "?limit=-1",
        "?limit=many",
        "?since=yesterday",
        "?decision=maybe",
        "?token=x",
        "?request=x",
        "?trace=x",
        "?below=x",
        "?below=0",
        "?subject=alice",
        "?principal=",
        "?role=a&role=b",
        "?role=a%00",
        "?principal=a%0ab",
    ] {
        let answer = get(&bed, &format!("{PATH}{query}"), &ops).await;
        refused(&answer, 400, "invalid_request");
    }
    // What is not known is named; of what may be a token, no more than its header is.
    let said = async |query: &str| {
        let answer = get(&bed, &format!("{PATH}?{query}"), &ops).await;
        json_of(&answer)["error_description"].as_str().unwrap().to_string()
    };
    let named = said("subject=alice").await;
    assert!(named.contains("unknown field `subject`;") && !named.contains("alice"), "{named}");
    let bogus = said("bogus=1").await;
    assert_eq!(
        bogus,
        "the query has an unknown field `bogus`; it may have since, until, principal, role, action, decision, request, trace, token, elevation, drill, limit, below"
    );
    let twice = said("role=a&role=b").await;
    assert!(twice.contains("something twice") && twice.contains("`role`"), "{twice}");
    let token = bed.key.token(json!({}));
    let cut = said(&token).await;
    assert!(cut.contains(&token[..20]) && !cut.contains(token.split('.').nth(1).unwrap()), "{cut}");
}
