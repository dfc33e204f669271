//! Operating the broker from elsewhere, without a permit.

use serde_json::{Value, json};

use super::elevations::{bearer, granted};
use super::wire::{ANYBODY, Exchange, form, post, request};
use super::world::{ASSERTION, ISSUER, World, now};
use super::{Attack, Lesson, Who, attack, sending};

const LESSON: Lesson = Lesson { name: "operating without a permit", refused: "403 access_denied" };

/// Fields of a form.
type Fields<'a> = &'a [(&'a str, &'a str)];

/// Something that an operator does: with this method, there, with this form or body.
struct Deed {
    name: &'static str,
    /// Whether a client can say in it which one it is.
    form: bool,
    /// The request, with these lines that show who it is and these fields besides.
    make: fn(&World, &[&str], Fields<'_>) -> Vec<u8>,
}

/// A form with these fields and those by which a client shows which one it is.
fn sent(path: &str, lines: &[&str], fields: Fields<'_>, more: Fields<'_>) -> Vec<u8> {
    post(path, lines, form(&[fields, more].concat()))
}

fn got(path: &str, lines: &[&str]) -> Vec<u8> {
    let lines = [&["Host: 127.0.0.1", "Connection: close"], lines].concat();
    request(&format!("GET {path} HTTP/1.1"), &lines, b"")
}

/// The token by which one operates who may.
fn olga(w: &World) -> String {
    w.person("olga", json!({}))
}

fn signing_key(w: &World) -> String {
    let answer = done(w, got("/v1/keys", &[&bearer(&olga(w))]));
    let keys = answer["keys"].as_array().unwrap();
    let active = keys.iter().find(|key| key["state"] == "active").unwrap();
    active["kid"].as_str().unwrap().into()
}

/// What somebody honest is answered.
#[track_caller]
fn done(w: &World, bytes: Vec<u8>) -> Value {
    let answers = Exchange { to: w.address, from: ANYBODY, bytes }.run().unwrap();
    assert!(matches!(answers.statuses()[..], [200 | 201]), "{answers:?}");
    serde_json::from_str(answers.body()).unwrap()
}

const DEEDS: [Deed; 16] = [
    Deed {
        name: "revoking all of a role",
        form: true,
        make: |_, lines, more| sent("/v1/revocations", lines, &[("role", "deploy")], more),
    },
    Deed {
        name: "revoking all there is",
        form: true,
        make: |_, lines, more| sent("/v1/revocations", lines, &[("all", "true")], more),
    },
    Deed {
        name: "revoking all of an issuer",
        form: true,
        make: |_, lines, more| sent("/v1/revocations", lines, &[("issuer", ISSUER)], more),
    },
    Deed {
        name: "revoking all of somebody",
        form: true,
        make: |_, lines, more| {
            let whose = [("issuer", ISSUER), ("subject", "alice")];
            sent("/v1/revocations", lines, &whose, more)
        },
    },
    Deed {
        name: "revoking all of a client",
        form: true,
        make: |_, lines, more| sent("/v1/revocations", lines, &[("client", "cli")], more),
    },
    Deed {
        name: "revoking another's token by its id",
        form: true,
        make: |w, lines, more| {
            let token = w.token("deploy");
            let who = bearer(&token);
            let told = done(w, post("/introspect", &[&who], form(&[("token", &token)])));
            let jti = told["jti"].as_str().unwrap();
            sent("/v1/revocations", lines, &[("jti", jti)], more)
        },
    },
    Deed {
        name: "counting what would be revoked",
        form: true,
        make: |_, lines, more| sent("/v1/revocations/dry-run", lines, &[("all", "true")], more),
    },
    Deed { name: "listing the keys", form: false, make: |_, lines, _| got("/v1/keys", lines) },
    Deed {
        name: "rotating the keys",
        form: true,
        make: |_, lines, more| sent("/v1/keys/rotate", lines, &[("all", "true")], more),
    },
    Deed {
        name: "revoking the key that signs",
        form: true,
        make: |w, lines, more| {
            let kid = signing_key(w);
            sent("/v1/keys/revoke", lines, &[("kid", &kid), ("reason", "because")], more)
        },
    },
    Deed {
        name: "reading the audit log",
        form: false,
        make: |_, lines, _| got("/v1/audit/records", lines),
    },
    Deed {
        name: "reading the audit log about somebody",
        form: false,
        make: |_, lines, _| got("/v1/audit/records?principal=alice&limit=1000", lines),
    },
    Deed {
        name: "listing enrolled keys",
        form: false,
        make: |_, lines, _| got("/v1/enrollments", lines),
    },
    Deed {
        name: "approving an enrolled key",
        form: true,
        make: |w, lines, more| {
            let path = format!("/v1/enrollments/{}/approve", enrolled(w));
            sent(&path, lines, &[], more)
        },
    },
    Deed {
        name: "removing another's enrolled key",
        form: true,
        make: |w, lines, more| {
            let path = format!("/v1/enrollments/{}/remove", enrolled(w));
            sent(&path, lines, &[("reason", "because")], more)
        },
    },
    Deed {
        name: "telling what was done under a grant",
        form: false,
        make: |w, lines, _| {
            let grant = granted(w);
            let told = |lines: &[&str]| {
                let event = json!([{
                    "id": uuid::Uuid::new_v4(), "source": "forged", "action": "nothing",
                    "time": grant["grant"]["from"].as_str().unwrap_or("2026-01-01T12:00:00Z"),
                }]);
                let path = format!("/v1/elevations/{}/uses", grant["id"].as_str().unwrap());
                let json =
                    ["Host: 127.0.0.1", "Connection: close", "Content-Type: application/json"];
                let lines = [&json[..], lines].concat();
                request(&format!("POST {path} HTTP/1.1"), &lines, event.to_string().as_bytes())
            };
            done(w, told(&[&bearer(&olga(w))]));
            told(lines)
        },
    },
];

/// A key of carl's that waits for somebody to approve it.
fn enrolled(w: &World) -> String {
    let carl = bearer(&w.person("carl", json!({})));
    // Nobody may have many of them.
    let mine = done(w, got("/v1/enrollments?mine=true", &[&carl]));
    if let Some(id) = mine["keys"][0]["id"].as_str() {
        return id.into();
    }
    let statement = w.enrollment("carl");
    let key = done(w, post("/v1/enrollments", &[&carl], form(&[("statement", &statement)])));
    key["id"].as_str().unwrap().into()
}

/// How somebody shows who they are who has no permit.
fn lines(w: &World, who: &str) -> Vec<String> {
    let token = match who {
        "nobody" => return Vec::new(),
        "somebody of no permit" => w.assertion(json!({})),
        "a group of the token" => {
            w.person("mallory", json!({"groups": ["olga", "ops", "admin"], "roles": ["admin"]}))
        }
        "the operator's name in capitals" => w.person("OLGA", json!({})),
        "the operator's name at another issuer" => w.stranger("olga"),
        "a token that was made up" => {
            w.own.sign(&w.own.header(json!({})), &w.claims(json!({"sub": "olga"})))
        }
        "a token of the operator's that has ended" => w.person("olga", json!({"exp": now() - 100})),
        "a token with which another acts for the operator" => {
            w.person("olga", json!({"act": {"sub": "alice"}}))
        }
        "a token of the broker's" => w.token("deploy"),
        "a job" => w.job(json!({})),
        _ => unreachable!("{who}"),
    };
    vec![bearer(&token)]
}

/// Where nobody says who they are.
const NOBODY: &str = "401 unauthorized";

/// Where what somebody shows proves nothing.
const UNPROVED: &str = "401 invalid_token";

/// Who tries it, and with what they are refused.
const PEOPLE: [(&str, Who, &str); 10] = [
    ("nobody", Who::Stranger, NOBODY),
    ("somebody of no permit", Who::Caller, LESSON.refused),
    ("a group of the token", Who::Caller, LESSON.refused),
    ("the operator's name in capitals", Who::Caller, LESSON.refused),
    ("the operator's name at another issuer", Who::Caller, LESSON.refused),
    ("a token that was made up", Who::Stranger, UNPROVED),
    ("a token of the operator's that has ended", Who::Stranger, UNPROVED),
    ("a token with which another acts for the operator", Who::Stranger, UNPROVED),
    ("a token of the broker's", Who::Caller, UNPROVED),
    ("a job", Who::Caller, LESSON.refused),
];

pub(super) fn attacks() -> Vec<Attack> {
    let mut attacks = Vec::new();
    for Deed { name, form, make } in DEEDS {
        for (who, kind, refused) in PEOPLE {
            let tried = attack(LESSON, kind, format!("{name}, by {who}"), move |w| {
                let lines = lines(w, who);
                let lines: Vec<_> = lines.iter().map(String::as_str).collect();
                let bytes = make(w, &lines, &[]);
                // Who may operate it is served.
                done(w, got("/v1/keys", &[&bearer(&olga(w))]));
                sending(w, bytes)
            });
            attacks.push(tried.refused(&[refused]));
        }
        if !form {
            continue;
        }
        let tried = attack(LESSON, Who::Caller, format!("{name}, by a client"), move |w| {
            let assertion = w.client_assertion(&w.robot, "robot", json!({}));
            let by = [("client_assertion_type", ASSERTION), ("client_assertion", &*assertion)];
            sending(w, make(w, &[], &by))
        });
        // What is done with enrolled keys is for people, who show a token.
        let is_for_people = name.ends_with("enrolled key");
        attacks.push(if is_for_people { tried.refused(&[NOBODY]) } else { tried });
    }
    attacks.extend(enrolling());
    attacks
}

/// What somebody brings who did not sign it.
const NOT_THEIRS: &[&str] = &["400 invalid_request"];

/// Keys that are enrolled for somebody else, or approved by whose they are.
fn enrolling() -> Vec<Attack> {
    let enrolling = |name: &str, who: Who, token: fn(&World) -> String| {
        attack(LESSON, who, format!("enrolling a key for somebody else, by {name}"), move |w| {
            enrolled(w);
            let (line, statement) = (bearer(&token(w)), w.enrollment("carl"));
            sending(w, post("/v1/enrollments", &[&line], form(&[("statement", &statement)])))
        })
    };
    vec![
        enrolling("another one of the directory", Who::Caller, |w| w.person("alice", json!({})))
            .refused(NOT_THEIRS),
        enrolling("the operator", Who::Caller, olga),
        enrolling("the same name at another issuer", Who::Caller, |w| w.stranger("carl")),
        enrolling("a name in capitals", Who::Caller, |w| w.person("CARL", json!({}))),
        enrolling("a job", Who::Caller, |w| w.job(json!({"sub": "carl"}))),
        enrolling("who acts for them", Who::Stranger, |w| {
            w.person("carl", json!({"act": {"sub": "alice"}}))
        })
        .refused(&[UNPROVED]),
        attack(LESSON, Who::Caller, "enrolling what somebody else has enrolled, once more", |w| {
            let statement = w.enrollment("carl");
            let sent = |who: &str| {
                let line = bearer(&w.person(who, json!({})));
                post("/v1/enrollments", &[&line], form(&[("statement", &statement)]))
            };
            done(w, sent("carl"));
            sending(w, sent("alice"))
        })
        .refused(NOT_THEIRS),
        attack(LESSON, Who::Caller, "approving a key of one's own", |w| {
            let line = bearer(&w.person("carl", json!({})));
            sending(w, post(&format!("/v1/enrollments/{}/approve", enrolled(w)), &[&line], ""))
        }),
    ]
}
