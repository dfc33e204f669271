//! What ends while the directory of people is out of date.

use super::*;

/// Whom messages of this kind are for.
async fn told_of(place: &Place, kind: &str) -> Vec<Vec<String>> {
    let messages = place.told().await.into_iter();
    messages
        .filter(|message| message.kind() == kind)
        .map(|message| message.names().iter().cloned().collect())
        .collect()
}

#[tokio::test]
async fn those_who_are_to_review_are_told_also_where_the_directory_is_out_of_date_by_then() {
    let place = Place::dated(Some(Duration::from_secs(600)), |_| {}).await;
    let active = place.active().await;
    place.later(1801);
    let (status, said) = told(&place.ask(&place.token("erin"), (Method::GET, ""), &[]).await);
    assert!(status == 403 && said.contains("out of date"), "{said}");
    assert_eq!(place.bed.broker.due_elevations().await.unwrap(), 1);
    // Who approved it does not review it, and who had it neither.
    assert_eq!(told_of(&place, "review-due").await, [["erin"]]);
    assert_eq!(told_of(&place, "grant-ended").await, [["alice", "bob", "carol"]]);
    place.later(86401);
    assert_eq!(place.bed.broker.due_elevations().await.unwrap(), 1);
    assert_eq!(told_of(&place, "review-overdue").await, [["bob", "carol", "erin"]]);
    let records = place.records_of(&active).await;
    assert_eq!(records.last().unwrap().action, "elevation.review-overdue");
}
