//! Names, patterns and sizes that somebody might take for others.

use serde_json::{Value, json};

use super::tokens::claiming;
use super::world::{CI, ISSUER, OTHER, World};
use super::{Attack, Lesson, Who, asking, attack, showing};

const NAMES: Lesson = Lesson { name: "names that look alike", refused: "400 access_denied" };
const PATTERNS: Lesson =
    Lesson { name: "patterns and lists of claims", refused: "400 invalid_request" };
const SIZES: Lesson =
    Lesson { name: "deep, huge and broken tokens", refused: "400 invalid_request" };

/// Of what is more than a request may be.
const TOO_LARGE: &[&str] = &["413 invalid_request"];

pub(super) fn attacks() -> Vec<Attack> {
    [names(), patterns(), sizes()].into_iter().flatten().collect()
}

fn names() -> Vec<Attack> {
    let mut attacks = Vec::new();
    // Without the group, only `alice` herself would get the role.
    for subject in [
        "Alice",
        "ALICE",
        "alice ",
        " alice",
        "alice.",
        "alice%00",
        "alice%20",
        "%61lice",
        "ａｌｉｃｅ",
        "аlice",
        "alıce",
        "ali\u{0327}ce",
        "al\u{200b}ice",
        "alice\u{200d}",
        "\u{202e}ecila",
        "alice\u{feff}",
        "\u{fb01}alice",
        "alice#",
        "alice/../alice",
        "*",
        "alice*",
        "User::\"https://issuer.example#alice\"",
        "https://issuer.example#alice",
        "' or 1=1 --",
    ] {
        let claims = json!({"sub": subject, "groups": []});
        attacks.push(attack(NAMES, Who::Caller, format!("the subject {subject:?}"), move |w| {
            asking(w, &w.assertion(claims.clone()), &[("role", "reader")])
        }));
    }
    for subject in [
        json!(""),
        json!("alice\u{0}"),
        json!("\u{0}alice"),
        json!("alice\n"),
        json!("alice\r\nX: y"),
        json!("alice\u{7f}"),
        json!("alice\u{9b}31m"),
        json!("\u{1b}[31malice"),
        json!("a".repeat(1025)),
        json!("a".repeat(40_000)),
        json!(["alice"]),
        json!({"alice": 1}),
        json!(7),
        json!(true),
        json!(null),
    ] {
        let shown: String = subject.to_string().chars().take(40).collect();
        let name = format!("sub = {shown}, {} bytes", subject.to_string().len());
        let claims = json!({"sub": subject});
        let strange = attack(NAMES, Who::Stranger, name, move |w| {
            asking(w, &w.assertion(claims.clone()), &[("role", "reader")])
        });
        attacks.push(strange.refused(&["400 invalid_request"]));
    }
    for (name, group) in [
        ("the group in capitals", json!(["Platform"])),
        ("the group with a space", json!(["platform "])),
        ("the group in Cyrillic letters", json!(["рlatform"])),
        ("the group as policy spells it", json!(["https://issuer.example#platform"])),
        ("a group of all groups", json!(["*"])),
        ("a group with a comma", json!(["x,platform"])),
        ("a group in another claim", json!([])),
    ] {
        let claims = json!({"groups": group, "roles": ["platform"], "group": "platform"});
        attacks.push(claiming(NAMES, Who::Caller, name.into(), claims));
    }
    for groups in [
        json!({"platform": true}),
        json!([["platform"]]),
        json!(["platform", 7]),
        json!(7),
        json!([""]),
    ] {
        let name = format!("groups = {groups}");
        let strange = claiming(NAMES, Who::Stranger, name, json!({ "groups": groups }));
        attacks.push(strange.refused(&["400 invalid_request"]));
    }
    let same = |w: &World, role: &'static str, claims: Value| {
        let claims = w.claims(claims);
        let token = w.secret(w.other.sign(&w.other.header(json!({})), &claims));
        asking(w, &token, &[("role", role)])
    };
    attacks.push(attack(NAMES, Who::Caller, "the same group of another issuer", move |w| {
        same(w, "deploy", json!({"iss": OTHER}))
    }));
    attacks.push(attack(NAMES, Who::Caller, "the same subject of another issuer", move |w| {
        same(w, "reader", json!({"iss": OTHER}))
    }));
    attacks
}

fn patterns() -> Vec<Attack> {
    let job = |who: Who, name: String, claims: Value| {
        showing(PATTERNS, who, name, move |w| w.job(claims.clone()))
    };
    let mut attacks = Vec::new();
    for repository in [
        json!("*"),
        json!("acme/*"),
        json!("acme/app*"),
        json!("acme/app/"),
        json!("acme/app/../evil"),
        json!("acme/app2"),
        json!("evil/acme/app"),
        json!("ACME/APP"),
        json!("acme/app\n"),
        json!("acme%2Fapp"),
        json!("^acme/app$"),
        json!(["evil/app"]),
        json!({"acme/app": true}),
        json!([["acme/app"]]),
        json!(""),
    ] {
        let name = format!("repository = {repository}");
        attacks.push(job(Who::Stranger, name, json!({ "repository": repository })));
    }
    attacks.push(job(Who::Stranger, "no repository".into(), json!({"repository": null})));
    for reference in [
        "refs/heads/main2",
        "refs/heads/*",
        "xrefs/heads/main",
        "refs/heads/release|x",
        "refs/tags/refs/heads/main",
        "main",
    ] {
        attacks.push(job(
            Who::Stranger,
            format!("ref = {reference:?}"),
            json!({ "ref": reference }),
        ));
    }
    for cluster in
        ["k8s-\u{663}", "\u{212a}8s-1", "k8\u{17f}-1", "k8s-", "k8s-1\n", "xk8s-1", "k8s-1 "]
    {
        attacks.push(job(
            Who::Stranger,
            format!("cluster = {cluster:?}"),
            json!({ "cluster": cluster }),
        ));
    }
    // What is not anchored is for all of it nevertheless.
    for team in ["acme-evil", "evil-app", "acme|app", "acmeapp", "acme\n", "", "^acme|app$"] {
        attacks.push(attack(PATTERNS, Who::Stranger, format!("team = {team:?}"), move |w| {
            for good in ["acme", "app"] {
                w.honest(&w.job(json!({ "team": good })), &[]);
            }
            asking(w, &w.job(json!({ "team": team })), &[])
        }));
    }
    for subject in [
        "repo:acme/app2:ref:refs/heads/main",
        "repo:acme/app",
        "xrepo:acme/app:ref:refs/heads/main",
        "repo:evil/x repo:acme/app:",
        "REPO:ACME/APP:ref",
        "repo:acme\u{2215}app:ref:refs/heads/main",
        "*",
        "repo:*:*",
    ] {
        let other = job(Who::Caller, format!("sub = {subject:?}"), json!({ "sub": subject }));
        attacks.push(other.refused(&["400 access_denied"]));
    }
    attacks.push(job(
        Who::Stranger,
        "the issuer of jobs with a slash".into(),
        json!({"iss": format!("{CI}/")}),
    ));
    attacks.push(job(
        Who::Stranger,
        "a job as a person".into(),
        json!({"iss": ISSUER, "azp": "cli"}),
    ));
    attacks.push(attack(
        PATTERNS,
        Who::Caller,
        "a token of a job, a second time from elsewhere",
        |w| {
            let token = w.job(json!({}));
            w.honest(&token, &[]);
            let body = w.fields(&token, &[]);
            super::sending_to(
                w.twin(),
                super::wire::STRANGER,
                super::wire::post("/token", &[], body),
            )
        },
    ));
    attacks.push(attack(
        PATTERNS,
        Who::Caller,
        "a token of a job, a second time for something else",
        |w| {
            let token = w.job(json!({}));
            w.honest(&token, &[]);
            asking(w, &token, &[("requested_ttl", "60")])
        },
    ));
    attacks
}

fn sizes() -> Vec<Attack> {
    let raw = |name: &str, token: fn(&World) -> String| showing(SIZES, Who::Stranger, name, token);
    let mut attacks = vec![
        raw("claims of 10,000 levels", |w| {
            let deep = format!("{{\"x\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
            w.secret(w.issuer.sign(&w.issuer.header(json!({})), &deep))
        }),
        raw("a header of 10,000 levels", |w| {
            let deep = format!(
                "{{\"alg\":\"ES256\",\"x\":{}1{}}}",
                "{\"x\":".repeat(5_000),
                "}".repeat(5_000)
            );
            w.secret(w.issuer.sign(&deep, &w.claims(json!({}))))
        }),
        raw("a claim within 200 others", |w| {
            let deep = (0..200).fold(json!(1), |inner, _| json!({ "x": inner }));
            w.assertion(json!({ "x": deep }))
        }),
        raw("20,000 claims", |w| {
            let many = (0..20_000).map(|n| (format!("c{n}"), json!(1)));
            w.assertion(many.collect::<serde_json::Map<_, _>>().into())
        })
        .refused(TOO_LARGE),
        raw("5,001 values in one claim", |w| {
            w.assertion(json!({"x": (0..5_001).map(|n| n.to_string()).collect::<Vec<_>>()}))
        }),
        raw("2,001 groups", |w| {
            w.assertion(json!({"groups": (0..2_001).map(|n| format!("g{n}")).collect::<Vec<_>>()}))
        }),
        raw("a token of 60,000 bytes that was signed", |w| {
            w.assertion(json!({"x": "x".repeat(60_000)}))
        })
        .refused(TOO_LARGE),
        raw("a token of 100,000 dots", |_| ".".repeat(100_000)).refused(TOO_LARGE),
        raw("a token that is no base64url", |w| w.assertion(json!({})).replacen('.', "=.", 1)),
        raw("a token in standard base64", |w| format!("{}+/", w.assertion(json!({})))),
        raw("a token with a line end", |w| format!("{}\n", w.assertion(json!({})))),
        raw("a token with spaces around", |w| format!(" {} ", w.assertion(json!({})))),
        raw("two tokens", |w| format!("{0},{0}", w.assertion(json!({})))),
        raw("a token with a fourth part", |w| format!("{}.e30", w.assertion(json!({})))),
        raw("Bearer in front", |w| format!("Bearer {}", w.assertion(json!({})))),
        raw("claims that are a list", |w| {
            w.secret(w.issuer.sign(&w.issuer.header(json!({})), "[]"))
        }),
        raw("claims that are text", |w| {
            w.secret(w.issuer.sign(&w.issuer.header(json!({})), "\"x\""))
        }),
        raw("claims that are nothing", |w| {
            w.secret(w.issuer.sign(&w.issuer.header(json!({})), ""))
        }),
        raw("no token but a file name", |_| "../../../../etc/passwd".into()),
    ];
    for cut in [1, 2, 10, 40, 85] {
        attacks.push(showing(
            SIZES,
            Who::Stranger,
            format!("a token {cut} characters short"),
            move |w| {
                let token = w.assertion(json!({}));
                token[..token.len() - cut].to_string()
            },
        ));
    }
    attacks
}
