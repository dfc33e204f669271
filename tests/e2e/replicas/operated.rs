//! What whoever may operates at one process, and others refuse at once.

use serde_json::{Value, json};

use super::super::support::http::{Http, Reply};
use super::super::support::wait::wait_until;
use super::SOON;
use super::site::{ISSUER, Site, is_active, kid};

/// Asks this process for something, as this job.
#[track_caller]
fn ask(site: &Site, job: &str, url: &str, form: &[(&str, &str)]) -> Reply {
    Http::new().form_as(&site.assertion(job), url, form).unwrap()
}

#[track_caller]
fn ok(reply: &Reply) -> Value {
    assert_eq!(reply.status, 200, "{}", reply.body);
    reply.json()
}

#[test]
fn what_is_revoked_over_http_at_one_replica_is_refused_at_the_other_at_once() {
    let site = Site::start();
    let twin = site.broker.twin();
    let urls = [site.broker.url(), twin.url.as_str()];
    let issue =
        |role: &str, url: &str| site.ask_for(role, &mut Http::new(), url, &site.assertion("job"));
    // Tokens say in whole seconds when they were issued: none is of the second of a revocation.
    let good = |from: &str, at: &str| {
        wait_until("a token that is good", SOON, || {
            issue("reader", from).filter(|token| is_active(at, token))
        })
    };
    for (at, other) in [(urls[0], urls[1]), (urls[1], urls[0])] {
        let token = good(other, at);
        let handle = issue("handle", other).unwrap();
        let revocations = format!("{at}/v1/revocations");
        // Nobody else does, and holding the token is not enough.
        let refused = ask(&site, "job", &revocations, &[("role", "reader")]);
        assert_eq!((refused.status, &refused.json()["error"]), (403, &json!("access_denied")));
        let held = Http::new().form_as(&token, &revocations, &[("role", "reader")]).unwrap();
        assert_eq!(held.status, 401, "{}", held.body);
        assert!(is_active(other, &token));

        let form = [("role", "reader"), ("reason", "stolen")];
        let answer = ok(&ask(&site, "operator", &revocations, &form));
        assert_eq!((&answer["revoked"], &answer["role"]), (&json!("role"), &json!("reader")));
        assert!(answer["tokens"].as_u64().unwrap() >= 1, "{answer}");
        // The first look, at each of them.
        assert!(!is_active(other, &token) && !is_active(at, &token));
        assert!(is_active(other, &handle), "what is of another role goes on");

        let handle_shown = [("token", handle.as_str())];
        let answer = ok(&ask(&site, "operator", &revocations, &handle_shown));
        assert_eq!(answer["revocation_reach"], "everywhere");
        assert!(!is_active(other, &handle));
    }

    let signed = good(urls[0], urls[1]);
    let form = [("kid", kid(&signed)), ("reason", "it leaked".into())];
    let form: Vec<_> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let answer = ok(&ask(&site, "operator", &format!("{}/v1/keys/revoke", urls[1]), &form));
    let keys = answer["keys"].as_array().unwrap();
    assert!(keys.iter().any(|key| key["kid"] == form[0].1 && key["state"] == "revoked"));
    assert!(!is_active(urls[0], &signed), "at the other one at once");

    // Who it was is on record, whichever process is asked.
    let records = format!("{}/v1/audit/records?principal={ISSUER}%23operator", urls[0]);
    let found = Http::new().get_as(&site.assertion("operator"), &records, &[]).unwrap();
    let records = ok(&found)["records"].as_array().unwrap().clone();
    let of = |action: &str| records.iter().filter(|record| record["action"] == action).count();
    assert_eq!((of("revoke-many"), of("revoke")), (2, 2), "{records:?}");
    assert!(of("key") >= 1, "{records:?}");
    assert!(records.iter().all(|record| record["policy_id"].is_string()), "{records:?}");
    assert!(records.iter().any(|r| r["reason"].as_str().unwrap().ends_with(": stolen")));
    let verified = site.broker(&["audit", "verify", "--json"]).run().ok().json();
    assert_eq!(verified["verified"], true, "{verified}");
}
