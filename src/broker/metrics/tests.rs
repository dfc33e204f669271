mod named;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::routing::get;
use serde_json::json;

use super::*;
use crate::broker::directory::Settings;
use crate::broker::issue::TOKEN_TYPE;
use crate::broker::keys::{Keeper, RootKey, Rules};
use crate::broker::store::{Store, sqlite};
use crate::broker::testbed::failing::Failing;
use crate::broker::testbed::{Bed, IssuerKey, Served, Shifted, json_of};
use crate::error::{Error, ErrorKind};
use crate::oidc::Issuer;
use crate::secret::Secret;

/// What a broker tells, by name and labels.
struct Seen {
    text: String,
    values: BTreeMap<String, f64>,
}

impl Seen {
    fn read(text: String) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let values = lines
            .map(|line| {
                let (name, value) = line.rsplit_once(' ').unwrap();
                (name.to_string(), value.parse().unwrap())
            })
            .collect();
        Self { text, values }
    }

    /// A value; the name without what all begin with.
    #[track_caller]
    fn get(&self, name: &str) -> f64 {
        let value = self.values.get(&format!("{PREFIX}_{name}"));
        *value.unwrap_or_else(|| panic!("there is no {name}:\n{}", self.text))
    }

    fn sum(&self, name: &str) -> f64 {
        let name = format!("{PREFIX}_{name}");
        let of = |other: &str| other.split('{').next() == Some(&name);
        self.values.iter().filter(|(other, _)| of(other)).map(|(_, value)| value).sum()
    }
}

async fn seen(bed: &Bed) -> Seen {
    let response = bed.admin.get("/metrics").await;
    assert_eq!(response.status.as_u16(), 200);
    assert_eq!(response.headers["content-type"], CONTENT_TYPE);
    Seen::read(String::from_utf8(response.body.expose().clone()).unwrap())
}

#[tokio::test]
async fn what_callers_do_is_counted_and_nobody_is_named() {
    let bed = Bed::new().await;
    let before = seen(&bed).await;
    for zero in [
        "issuance_attempts_total",
        "issuance_denials_total{reason=\"expired\"}",
        "issuance_failures_total{reason=\"unrecorded\"}",
        "issuance_duration_seconds_count{outcome=\"issued\"}",
        "revocation_duration_seconds_count",
        "load_shed_total{reason=\"requests\",route=\"/token\"}",
        "issuance_renewals_total{role=\"deploy\"}",
        "log_lines_lost_total",
        "panics_total",
        "tls_certificate_refused",
        "own_tokens_refused_total{reason=\"unknown_key\"}",
        "tokens_active",
    ] {
        assert_eq!(before.get(zero), 0.0, "{zero}");
    }
    assert!(!before.text.contains("store_clock"), "the store has the clock of this machine");
    assert_eq!(before.get("signing_keys{state=\"active\"}"), 1.0);
    assert!(before.get("signing_key_age_seconds") < 60.0);
    // Ninety days, unless somebody says otherwise.
    let due = 90.0 * 86400.0 - before.get("signing_key_rotation_due_seconds");
    assert!((0.0..60.0).contains(&due), "{due}");

    let token = bed.issued(json!({}), &[]).await;
    bed.refused(&bed.key.token(json!({"sub": "mallory"})), &[]).await;
    bed.refused(&bed.key.token(json!({"exp": 1_000_000})), &[]).await;
    let stranger = IssuerKey::new();
    bed.refused(&stranger.token(json!({})), &[]).await;
    bed.refused(&bed.key.token(json!({"iss": "https://other.example"})), &[]).await;
    bed.refused(&bed.key.token(json!({"aud": "https://other.example"})), &[]).await;
    let alice = bed.key.token(json!({}));
    bed.refused(&alice, &[("scope", "everything")]).await;
    bed.refused(&alice, &[("audience", "https://other.example")]).await;
    bed.refused(&alice, &[("grant_type", "")]).await;
    assert_eq!(bed.introspect(Some(&token), &token).await.status.as_u16(), 200);
    assert_eq!(bed.revoke(&token).await, 200);
    assert_eq!(bed.revoke(&token).await, 200);
    assert_eq!(bed.revoke("no token").await, 200);
    assert_eq!(json_of(&bed.introspect(Some(&token), &token).await)["active"], false);
    assert_eq!(bed.introspect(None, &token).await.status.as_u16(), 401);
    bed.get("/nothing/secret-path").await;

    let after = seen(&bed).await;
    for (name, value) in [
        ("issuance_attempts_total", 9.0),
        ("issuance_successes_total", 1.0),
        ("issuance_denials_total{reason=\"policy\"}", 1.0),
        ("issuance_denials_total{reason=\"expired\"}", 1.0),
        ("issuance_denials_total{reason=\"unknown_key\"}", 1.0),
        ("issuance_denials_total{reason=\"untrusted_issuer\"}", 1.0),
        ("issuance_denials_total{reason=\"invalid\"}", 1.0),
        ("issuance_denials_total{reason=\"scope\"}", 1.0),
        ("issuance_denials_total{reason=\"audience\"}", 1.0),
        ("issuance_denials_total{reason=\"malformed\"}", 1.0),
        ("issuance_duration_seconds_count{outcome=\"issued\"}", 1.0),
        ("issuance_duration_seconds_count{outcome=\"denied\"}", 8.0),
        ("authentication_duration_seconds_count", 8.0),
        ("assertions_rejected_total{reason=\"expired\"}", 1.0),
        ("assertions_rejected_total{reason=\"unknown_key\"}", 1.0),
        // The token, three denials by what is asked for, and the revocation.
        ("audit_append_duration_seconds_count", 5.0),
        ("audit_append_failures_total", 0.0),
        ("audit_queue_records", 0.0),
        ("audit_lag_seconds", 0.0),
        ("introspections_total{outcome=\"active\"}", 1.0),
        ("introspections_total{outcome=\"inactive\"}", 1.0),
        ("introspections_total{outcome=\"unauthenticated\"}", 1.0),
        ("revocations_total{outcome=\"revoked\"}", 1.0),
        ("revocations_total{outcome=\"repeated\"}", 1.0),
        ("revocations_total{outcome=\"unknown\"}", 1.0),
        ("revocation_duration_seconds_count", 1.0),
        ("http_requests_total{route=\"/token\",status=\"2xx\"}", 1.0),
        ("http_requests_total{route=\"/token\",status=\"4xx\"}", 8.0),
        ("http_requests_total{route=\"/introspect\",status=\"2xx\"}", 2.0),
        ("http_requests_total{route=\"/introspect\",status=\"401\"}", 1.0),
        ("http_request_duration_seconds_count{route=\"/token\"}", 9.0),
        ("http_request_duration_seconds_count{route=\"/introspect\"}", 3.0),
        ("http_requests_total{route=\"unknown\",status=\"4xx\"}", 1.0),
    ] {
        assert_eq!(after.get(name), value, "{name}");
    }
    assert!(after.get("revocation_duration_seconds_sum") > 0.0);
    assert!(after.get("connections_open") >= 1.0);
    let ended = after.get("issuance_successes_total")
        + after.sum("issuance_denials_total")
        + after.sum("issuance_failures_total");
    assert_eq!(after.get("issuance_attempts_total"), ended);
    for secret in ["alice", "mallory", "secret-path", "example.com", "everything", &token, &alice] {
        assert!(!after.text.contains(secret), "{secret}:\n{}", after.text);
    }
}

/// All that somebody may ask about is answered alike, and counted apart.
#[tokio::test]
async fn why_own_tokens_are_refused_is_counted_and_told_to_nobody() {
    let store: Arc<dyn Store> = Arc::new(sqlite::in_memory().await.unwrap());
    let clock = Arc::new(Shifted::default());
    let root_key = || RootKey::new(Secret::new([7; 32]));
    let bed = Bed::with(|options| {
        (options.clock, options.store) = (clock.clone(), store.clone());
        options.root_key = root_key();
    })
    .await;
    let token = bed.issued(json!({}), &[]).await;
    let opaque = format!("tmpcred_{}", "x".repeat(43));
    let stranger = IssuerKey::new();
    let own = json!({"iss": bed.issuer.as_str()});
    let claims = |more: serde_json::Value| {
        let mut claims = bed.key.claims(own.clone());
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        claims
    };
    let forge = |more| stranger.0.sign(TOKEN_TYPE, &claims(more)).unwrap().expose().clone();
    let bearer = bed.key.token(json!({"sub": "bob"}));
    let mut wanted = BTreeMap::from(
        ["expired", "revoked", "unknown_key", "audience", "bound", "invalid"].map(|r| (r, 0.0)),
    );
    let inactive =
        async |asker: &str, token: &str, reason: &'static str, wanted: &mut BTreeMap<_, _>| {
            let answer = bed.introspect(Some(asker), token).await;
            assert_eq!(answer.status.as_u16(), 200);
            assert_eq!(answer.body.expose(), b"{\"active\":false}", "{reason}");
            *wanted.get_mut(reason).unwrap() += 1.0;
            let seen = seen(&bed).await;
            for (reason, count) in wanted {
                let name = format!("own_tokens_refused_total{{reason=\"{reason}\"}}");
                assert_eq!(seen.get(&name), *count, "{reason}");
            }
        };
    inactive(&bearer, &token, "audience", &mut wanted).await;
    let signed = bed.key.token(json!({}));
    for none in ["x", "a.b.c", &opaque, &signed] {
        inactive(none, none, "invalid", &mut wanted).await;
    }
    let unknown = forge(json!({}));
    inactive(&unknown, &unknown, "unknown_key", &mut wanted).await;
    // Whatever it is, it says itself that it has ended.
    let ended = forge(json!({"exp": 1_000_000}));
    inactive(&ended, &ended, "expired", &mut wanted).await;
    assert_eq!(bed.revoke(&token).await, 200);
    inactive(&token, &token, "revoked", &mut wanted).await;
    let late = bed.issued(json!({}), &[]).await;
    // With its key, what it signed is revoked.
    let keeper = Keeper {
        store: store.clone(),
        root_key: root_key(),
        clock: clock.clone(),
        rules: Rules::from(&crate::broker::config::Keys::default()),
        issuer: bed.issuer.clone(),
        name: "test",
        seen: Arc::default(),
    };
    let active = store.keys().await.unwrap();
    let active = active.into_iter().find(|key| key.signs_by(Default::default())).unwrap();
    let kids = [active.kid];
    keeper.settle(|keys| keeper.rules.revocation(keys, &kids, "a test")).await.unwrap();
    let shown = async || bed.broker.keys.current().await.unwrap().shows(&kids[0]);
    let end = Instant::now() + Duration::from_secs(20);
    while shown().await {
        assert!(Instant::now() < end, "the keys are not looked at");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    inactive(&late, &late, "revoked", &mut wanted).await;
    let last = bed.issued(json!({}), &[]).await;
    clock.0.store(901, Ordering::Relaxed);
    inactive(&last, &last, "expired", &mut wanted).await;
    // Nobody accepts it any more, and somebody may ask all the same.
    clock.0.store(86400 * 3, Ordering::Relaxed);
    inactive(&last, &last, "expired", &mut wanted).await;
}

#[tokio::test]
async fn what_is_good_and_what_is_renewed_is_counted() {
    let clock = Arc::new(Shifted::default());
    let bed = Bed::with(|options| options.clock = clock.clone()).await;
    let active = async || seen(&bed).await.get("tokens_active");
    let renewed = async || seen(&bed).await.get("issuance_renewals_total{role=\"deploy\"}");
    let first = bed.issued(json!({}), &[]).await;
    assert_eq!(renewed().await, 0.0);
    bed.issued(json!({"sub": "bob"}), &[]).await;
    assert_eq!(renewed().await, 0.0);
    bed.issued(json!({}), &[]).await;
    assert_eq!(renewed().await, 1.0);
    // It was counted a moment ago, when there was none.
    assert_eq!(active().await, 1.0);
    clock.0.store(61, Ordering::Relaxed);
    assert_eq!(active().await, 3.0);
    assert_eq!(bed.revoke(&first).await, 200);
    assert_eq!(active().await, 3.0);
    clock.0.store(122, Ordering::Relaxed);
    assert_eq!(active().await, 2.0);
}

#[tokio::test]
async fn a_store_that_cannot_count_says_nothing_of_what_is_good_for_long() {
    let clock = Arc::new(Shifted::default());
    let (bed, store) = Failing::bed(|options| options.clock = clock.clone()).await;
    let told = async || seen(&bed).await.text.contains("tokens_active ");
    assert!(told().await);
    store.scans.store(false, Ordering::Relaxed);
    clock.0.store(120, Ordering::Relaxed);
    assert!(told().await, "the number from before");
    clock.0.store(400, Ordering::Relaxed);
    assert!(!told().await);
    store.scans.store(true, Ordering::Relaxed);
    clock.0.store(461, Ordering::Relaxed);
    assert!(told().await);
}

#[tokio::test]
async fn the_admin_listener_answers_while_the_public_one_turns_requests_away() {
    let bed = Bed::new().await;
    let full = bed.guard.fill();
    assert_eq!(
        bed.refused(&bed.key.token(json!({})), &[]).await["error_description"],
        "the broker is busy"
    );
    assert_eq!(bed.admin.get("/healthz").await.status.as_u16(), 200);
    assert_eq!(bed.admin.get("/readyz").await.status.as_u16(), 200);
    let shed = seen(&bed).await;
    assert_eq!(shed.get("load_shed_total{reason=\"requests\",route=\"/token\"}"), 1.0);
    assert_eq!(shed.get("issuance_attempts_total"), 0.0);
    drop(full);
    bed.issued(json!({}), &[]).await;
    // Nothing but these is there.
    assert_eq!(bed.admin.get("/jwks.json").await.status.as_u16(), 404);
    assert_eq!(bed.get("/metrics").await.status.as_u16(), 404);
}

#[tokio::test]
async fn a_store_that_fails_is_seen_and_keeps_nobody_from_seeing_it() {
    let bed = Bed::new().await;
    bed.store.close().await;
    bed.refused(&bed.key.token(json!({})), &[]).await;
    let seen = seen(&bed).await;
    assert_eq!(seen.get("issuance_failures_total{reason=\"unrecorded\"}"), 1.0);
    assert_eq!(seen.get("issuance_duration_seconds_count{outcome=\"failed\"}"), 1.0);
    assert_eq!(seen.get("audit_append_failures_total"), 1.0);
    assert_eq!(bed.admin.get("/readyz").await.status.as_u16(), 503);
}

#[tokio::test]
async fn a_broker_that_ends_is_not_ready() {
    let bed = Bed::new().await;
    bed.broker.drain();
    let response = bed.admin.get("/readyz").await;
    assert_eq!(response.status.as_u16(), 503);
    assert_eq!(json_of(&response)["why"], "the broker is ending");
    assert_eq!(bed.admin.get("/healthz").await.status.as_u16(), 200);
}

#[tokio::test]
async fn the_keys_of_each_issuer_have_an_age_and_failures() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("people.toml");
    let people = "as_of = \"2026-01-01T12:00:00Z\"\n[person.ann]\nids = [{ issuer = \"https://login.example.com\", subject = \"ann\" }]";
    crate::host::files::write_private(&file, people.as_bytes()).unwrap();
    let key = IssuerKey::new();
    let jwks = key.jwks().to_string();
    let version = crate::oidc::Keys::parse(jwks.as_bytes()).unwrap().version().to_string();
    let issuer =
        Served::start(|_| axum::Router::new().route("/keys", get(|| async move { jwks })), None);
    let files = tempfile::tempdir().unwrap();
    let (bed, store) = Failing::bed(|options| {
        let sink = crate::broker::config::FileSink {
            path: files.path().join("records"),
            format: Default::default(),
            begin_with: Default::default(),
        };
        options.config.audit.file.insert("lines".into(), sink);
        let channel = toml::from_str("kind = \"command\"\ncommand = [\"true\"]").unwrap();
        options.config.notify.insert("own".into(), channel);
        let jwks_uri = Some(format!("http://{}/keys", issuer.address).parse().unwrap());
        let client = crate::broker::config::Client { jwks_uri, ..Default::default() };
        options.config.client.insert("ci".into(), client);
        for (name, path) in [("fetched", "keys"), ("missing", "nothing")] {
            let id = Issuer::parse(&format!("https://{name}.example")).unwrap();
            let mut trusted = crate::broker::config::TrustedIssuer::new(id);
            trusted.jwks_uri = Some(format!("http://{}/{path}", issuer.address).parse().unwrap());
            options.config.trusted_issuer.insert(name.into(), trusted);
        }
        let max_age = Some(Duration::from_secs(3600));
        options.config.directory = Some(Settings { file, max_age });
        let role = options.config.role.get_mut("deploy").unwrap();
        role.elevation = Some(
            toml::from_str("longest = \"1h\"\napprovals = [{ count = 1 }]\nprovider_down = {}")
                .unwrap(),
        );
    })
    .await;
    bed.broker.metrics.elevated("list", "done");
    store.behind.store(7, Ordering::Relaxed);
    let before = seen(&bed).await;
    assert!((before.get("store_clock_offset_seconds") - 7.0).abs() < 1.0);
    assert_eq!(before.get("directory_people"), 1.0);
    assert_eq!(before.get("elevations{role=\"deploy\",state=\"pending\"}"), 0.0);
    // Nobody is known by a key while the directory is out of date.
    assert_eq!(before.get("elevation_signers{role=\"deploy\",groups=\"\"}"), 0.0);
    assert_eq!(before.get("elevation_signers_needed{role=\"deploy\",groups=\"\"}"), 1.0);
    assert_eq!(before.get("directory_stale"), 1.0);
    assert_eq!(before.get("jwks_fetch_failures_total{issuer=\"fetched\"}"), 0.0);
    assert!(!before.text.contains("jwks_age_seconds"), "{}", before.text);
    for name in ["fetched", "missing"] {
        bed.refused(&key.token(json!({"iss": format!("https://{name}.example")})), &[]).await;
    }
    let after = seen(&bed).await;
    assert!(after.get("jwks_age_seconds{issuer=\"fetched\"}") < 60.0);
    assert_eq!(after.get("jwks_fetch_failures_total{issuer=\"fetched\"}"), 0.0);
    assert_eq!(after.get("jwks_fetch_failures_total{issuer=\"missing\"}"), 1.0);
    assert_eq!(after.get("issuance_failures_total{reason=\"unverifiable\"}"), 1.0);
    assert_eq!(after.get("clock_skew_seconds{issuer=\"fetched\"}"), 0.0);
    assert_eq!(after.get(&format!("jwks_info{{issuer=\"fetched\",version=\"{version}\"}}")), 1.0);
    assert_eq!(after.get("jwks_retry_seconds{issuer=\"missing\"}"), 0.0, "nobody fetches ahead");
    assert!(!after.text.contains("issuer=\"corp\""), "its keys are in a file");
    assert!(after.text.contains("clock_skew_seconds{issuer=\"fetched\"}"));
    assert_eq!(after.get("audit_sink_failures_total{sink=\"lines\"}"), 0.0);
    assert_eq!(after.get("notify_waiting{channel=\"own\"}"), 0.0);
    assert!(!after.text.contains("tls_certificate_left"), "it serves none");
    // Now those of the client are there, too.
    bed.broker.policies().authenticator().ask(&bed.issuer).await;
    let end = bed.broker.clock.now() - time::Duration::minutes(2);
    bed.broker.metrics.certificate_ends(Some(end));
    let ended = seen(&bed).await;
    let left = ended.get("tls_certificate_left_seconds");
    assert!((-180.0..=-120.0).contains(&left), "{left}");
    check_page(&ended.text);
}

/// The page lists all that there is, as it is.
#[track_caller]
fn check_page(text: &str) {
    let mut rows = BTreeMap::new();
    let comment = |line: &str, kind: &str| {
        let rest = line.strip_prefix(&format!("# {kind} "))?;
        rest.split_once(' ').map(|(name, rest)| (name.to_string(), rest.to_string()))
    };
    let labels = |name: &str| -> String {
        let of = |line: &&str| {
            line.split(['{', ' ']).next().is_some_and(|n| n.trim_end_matches("_bucket") == name)
        };
        let line = text.lines().find(|line| of(line)).unwrap();
        let inner = line.split_once('{').and_then(|(_, rest)| rest.split_once('}'));
        let names = inner.map_or("", |(inner, _)| inner).split("\",").filter_map(|pair| {
            let name = pair.split_once('=')?.0;
            (name != "le").then(|| format!("`{name}`"))
        });
        names.collect::<Vec<_>>().join(", ")
    };
    let helps: BTreeMap<_, _> = text.lines().filter_map(|line| comment(line, "HELP")).collect();
    for (name, kind) in text.lines().filter_map(|line| comment(line, "TYPE")) {
        let help = helps[&name].trim_end_matches('.');
        rows.insert(name.clone(), format!("| `{name}` | {kind} | {} | {help} |", labels(&name)));
    }
    let page = include_str!("../../../docs/metrics.md");
    let written: Vec<&str> = page.lines().filter(|line| line.starts_with("| `tmpcred")).collect();
    let wanted: Vec<&String> = rows.values().collect();
    assert_eq!(written, wanted, "the table should be\n{}", {
        rows.values().map(|row| format!("{row}\n")).collect::<String>()
    });
}

#[tokio::test]
async fn what_is_not_durable_yet_is_seen_with_its_age() {
    let metrics = Arc::new(Metrics::default());
    let (durable, stored) = tokio::sync::oneshot::channel::<()>();
    let append = {
        let metrics = metrics.clone();
        let stored = async { stored.await.map_err(|_| Error::new(ErrorKind::Io, "lost")) };
        tokio::spawn(async move { metrics.recording(stored).await })
    };
    while metrics.pending.look().0 == 0 {
        tokio::task::yield_now().await;
    }
    let first = metrics.pending.look().1;
    while metrics.pending.look().1 <= first {
        tokio::task::yield_now().await;
    }
    durable.send(()).unwrap();
    append.await.unwrap().unwrap();
    assert_eq!(metrics.pending.look(), (0, Duration::ZERO));
    // Whoever gives up is not waited for.
    let never = metrics.recording(std::future::pending::<Result<()>>());
    assert!(tokio::time::timeout(Duration::from_millis(1), never).await.is_err());
    assert_eq!(metrics.pending.look(), (0, Duration::ZERO));
}
