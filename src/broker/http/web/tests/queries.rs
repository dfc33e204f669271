//! What stands in the addresses of pages.

use super::*;

const AUDITORS: &str = r#"
@id("leads-audit")
permit (principal in DirectoryGroup::"leads", action == Action::"administer", resource)
when { context.operation == "audit.read" };
"#;

/// Who is shown all would take it for what they looked for.
#[tokio::test]
async fn a_search_that_cannot_be_read_shows_nothing_and_says_why() {
    let place = Place::built(ELEVATION, |_| {}, |options| options.policies += AUDITORS).await;
    place.requested().await;
    let bob = place.signed_in("bob").await;
    for (query, why) in [
        ("principal=a&principal=b", "principal"),
        ("principal=a&principal=a", "principal"),
        ("subject=alice", "subject"),
        ("principal=alice&limit=5", "limit"),
        ("below=x", "below"),
        ("below=-1", "below"),
        ("elevation=x", "elevation"),
    ] {
        let page = place.get(&format!("/elevations/audit?{query}"), &bob).await;
        assert_eq!(page.status, StatusCode::BAD_REQUEST, "{query}: {}", page.text);
        let (_, notice) = page.text.split_once("role=\"alert\">").unwrap();
        let (notice, rest) = notice.split_once("</p>").unwrap();
        assert!(notice.contains(why), "{query}: {notice}");
        assert!(!rest.contains("<table") && page.text.contains("name=\"principal\""), "{query}");
    }
    let all = "elevation=&principal=alice&role=&action=&since=&until=";
    for query in ["", all, &format!("{all}&below=1000"), "below="] {
        let page = place.get(&format!("/elevations/audit?{query}"), &bob).await;
        assert_eq!(page.status, StatusCode::OK, "{query}: {}", page.text);
        assert!(page.text.contains("<table"), "{query}: {}", page.text);
    }
}

#[tokio::test]
async fn a_list_is_not_shown_from_its_beginning_where_its_address_cannot_be_read() {
    let place = Place::new().await;
    let id = place.requested().await;
    let bob = place.signed_in("bob").await;
    for path in ["/elevations", "/elevations/active", "/elevations/reviews", "/elevations/mine"] {
        for query in ["below=x", "role=admin", &format!("below={id}&below={id}")] {
            let page = place.get(&format!("{path}?{query}"), &bob).await;
            assert_eq!(page.status, StatusCode::BAD_REQUEST, "{path} {query}: {}", page.text);
            assert!(page.text.contains("<h1>") && page.text.contains("query"), "{}", page.text);
        }
        for query in ["", &format!("below={id}")] {
            let page = place.get(&format!("{path}?{query}"), &bob).await;
            assert_eq!(page.status, StatusCode::OK, "{path} {query}: {}", page.text);
        }
    }
}
