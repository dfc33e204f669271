//! Roles that are had for a while: approving what one asked for oneself, and having a role that
//! nobody has approved.
//!
//! The role takes two approvals. Each attack comes as the second one of a request whose first one
//! is there, after it was seen with another request that the second one is all that it takes.

use serde_json::{Value, json};

use super::wire::{ANYBODY, Exchange, form, post};
use super::world::{ASSERTION, JWT, World, now};
use super::{Attack, Lesson, Who, asking, attack, sending};

const APPROVAL: Lesson = Lesson { name: "approving of oneself", refused: "404 not_found" };
const UNAPPROVED: Lesson =
    Lesson { name: "roles that nobody has approved", refused: "403 access_denied" };

/// The line by which somebody shows a token.
pub(super) fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

/// Has something done by somebody honest.
#[track_caller]
fn done(w: &World, who: &str, path: &str, fields: &[(&str, &str)]) -> Value {
    let line = bearer(&w.person(who, json!({})));
    let bytes = post(path, &[&line], form(fields));
    let answers = Exchange { to: w.address, from: ANYBODY, bytes }.run().unwrap();
    assert!(matches!(answers.statuses()[..], [200 | 201]), "{who} {path}: {answers:?}");
    serde_json::from_str(answers.body()).unwrap()
}

/// What somebody asks for.
const WANTED: [(&str, &str); 3] =
    [("role", "prod"), ("reason", "INC-1 the disk is full"), ("ttl", "1800")];

fn requested(w: &World, who: &str) -> Value {
    done(w, who, "/v1/elevations", &WANTED)
}

fn text<'a>(of: &'a Value, name: &str) -> &'a str {
    of[name].as_str().unwrap_or_else(|| panic!("{name} is not in {of}"))
}

fn path(of: &Value, what: &str) -> String {
    format!("/v1/elevations/{}/{what}", text(of, "id"))
}

fn approve(w: &World, who: &str, of: &Value) -> Value {
    done(w, who, &path(of, "approve"), &[("hash", text(of, "hash"))])
}

/// A request of alice's that two have approved.
fn approved(w: &World) -> Value {
    let asked = requested(w, "alice");
    approve(w, "bob", &asked);
    let approved = approve(w, "carl", &asked);
    assert_eq!(approved["access"], "approved", "{approved}");
    approved
}

/// A grant of alice's.
pub(super) fn granted(w: &World) -> Value {
    let active = done(w, "alice", &path(&approved(w), "activate"), &[]);
    assert_eq!(active["access"], "active", "{active}");
    active
}

/// A request of alice's that one has approved and that takes one approval more.
fn waiting(w: &World) -> Value {
    approved(w);
    let asked = requested(w, "alice");
    let once = approve(w, "bob", &asked);
    assert_eq!(once["access"], "pending", "{once}");
    asked
}

/// A form that somebody sends who shows this token.
fn by(w: &World, token: &str, path: &str, fields: &[(&str, &str)]) -> Vec<Exchange> {
    sending(w, post(path, &[&bearer(token)], form(fields)))
}

pub(super) fn attacks() -> Vec<Attack> {
    [approvers(), hashes(), unapproved(), emergencies()].into_iter().flatten().collect()
}

/// Whoever must not approve.
fn approvers() -> Vec<Attack> {
    let approving = |name: &str, who: Who, refused, token: fn(&World) -> String| {
        let approving = attack(APPROVAL, who, format!("a request, {name}"), move |w| {
            let asked = waiting(w);
            by(w, &token(w), &path(&asked, "approve"), &[("hash", text(&asked, "hash"))])
        });
        approving.refused(&[refused])
    };
    let (caller, stranger) = (Who::Caller, Who::Stranger);
    let (denied, unseen) = ("403 access_denied", APPROVAL.refused);
    let unproved = "401 invalid_token";
    let mut attacks = vec![
        approving("by whoever asked", caller, denied, |w| w.person("alice", json!({}))),
        approving("by their name at another issuer", caller, denied, |w| w.stranger("alice.ops")),
        approving("by a token of the broker's of theirs", caller, unproved, |w| w.token("deploy")),
        approving("by a group of the token with the approvers' name", caller, unseen, |w| {
            w.person("dave", json!({"groups": ["leads"]}))
        }),
        approving("by a group with the directory's spelling", caller, unseen, |w| {
            w.person("dave", json!({"groups": ["DirectoryGroup::\"leads\"", "issuer#leads"]}))
        }),
        approving("by an approver's name in capitals", caller, denied, |w| {
            w.person("CARL", json!({}))
        }),
        approving("by an approver's name with a capital", caller, denied, |w| {
            w.person("Carl", json!({}))
        }),
        approving("by an approver's name with a blank", caller, denied, |w| {
            w.person("carl ", json!({}))
        }),
        approving("by an approver's name at another issuer", caller, denied, |w| {
            w.stranger("carl")
        }),
        approving("by an approver's name in other claims", caller, unseen, |w| {
            let claims = json!({"name": "carl", "preferred_username": "carl", "person": "carl"});
            w.person("dave", claims)
        }),
        approving("by an approver for whom one acts", stranger, unproved, |w| {
            w.person("carl", json!({"act": {"sub": "alice"}}))
        }),
        approving("by one for whom an approver acts", stranger, unproved, |w| {
            w.person("alice", json!({"act": {"sub": "carl"}}))
        }),
        approving("by a token of the broker's with which another acts", stranger, unproved, |w| {
            let bot = w.assertion(json!({"sub": "bot"}));
            w.honest(&w.assertion(json!({})), &[("actor_token", &bot), ("actor_token_type", JWT)])
        }),
        approving("by a machine", caller, unseen, |w| w.job(json!({}))),
        approving("by a machine with an approver's name", caller, unseen, |w| {
            w.job(json!({"sub": "carl", "groups": ["leads"]}))
        }),
        approving("by a token that was made up", stranger, unproved, |w| {
            w.own.sign(&w.own.header(json!({})), &w.claims(json!({"sub": "carl"})))
        }),
        approving("by a token that has ended", stranger, unproved, |w| {
            w.person("carl", json!({"exp": now() - 100}))
        }),
        approving("by a token for another", stranger, unproved, |w| {
            w.person("carl", json!({"aud": "https://evil.example"}))
        }),
    ];
    attacks.push(
        attack(APPROVAL, Who::Stranger, "a request, by nobody", |w| {
            let asked = waiting(w);
            let hash = [("hash", text(&asked, "hash"))];
            sending(w, post(&path(&asked, "approve"), &[], form(&hash)))
        })
        .refused(&["401 unauthorized"]),
    );
    attacks.push(attack(APPROVAL, Who::Caller, "a request, by a client", |w| {
        let asked = waiting(w);
        let assertion = w.client_assertion(&w.robot, "robot", json!({}));
        let fields = [
            ("hash", text(&asked, "hash")),
            ("client_assertion_type", ASSERTION),
            ("client_assertion", &assertion),
        ];
        sending(w, post(&path(&asked, "approve"), &[], form(&fields)))
    }));
    attacks.push(
        attack(APPROVAL, Who::Caller, "a request, as one's own actor", |w| {
            let asked = waiting(w);
            let (alice, carl) = (w.person("alice", json!({})), w.person("carl", json!({})));
            let fields = [
                ("hash", text(&asked, "hash")),
                ("actor_token", &*carl),
                ("actor_token_type", JWT),
            ];
            by(w, &alice, &path(&asked, "approve"), &fields)
        })
        .refused(&["400 invalid_request"]),
    );
    attacks
}

/// An approval of something else.
fn hashes() -> Vec<Attack> {
    let hashed = |name: &str, hash: fn(&World, &Value) -> String| {
        let hashed = attack(APPROVAL, Who::Caller, format!("a request, by {name}"), move |w| {
            let asked = waiting(w);
            let (carl, hash) = (w.person("carl", json!({})), hash(w, &asked));
            by(w, &carl, &path(&asked, "approve"), &[("hash", &hash)])
        });
        hashed.refused(&["409 elevation_state"])
    };
    let mut attacks = vec![
        hashed("the hash of another one", |w, _| text(&requested(w, "alice"), "hash").into()),
        hashed("a hash of zeros", |_, _| "0".repeat(64)),
        hashed("no hash", |_, _| String::new()).refused(&["400 invalid_request"]),
        hashed("a hash that is cut off", |_, asked| text(asked, "hash")[..63].into()),
        hashed("a hash that is longer", |_, asked| format!("{}0", text(asked, "hash"))),
        hashed("a pattern in place of a hash", |_, _| "%".into()),
        hashed("its id in place of its hash", |_, asked| text(asked, "id").into()),
    ];
    attacks.push(
        attack(APPROVAL, Who::Caller, "a request, by an approval of another one", |w| {
            let (seen, asked) = (requested(w, "alice"), waiting(w));
            let carl = bearer(&w.person("carl", json!({})));
            let fields = form(&[("hash", text(&seen, "hash"))]);
            // What was sent for the one is sent for the other.
            let sent =
                |to: &Value| sending(w, post(&path(to, "approve"), &[&carl], fields.clone()));
            assert_eq!(sent(&seen)[0].run().unwrap().statuses(), [200]);
            sent(&asked)
        })
        .refused(&["409 elevation_state"]),
    );
    attacks.push(
        attack(APPROVAL, Who::Caller, "a request that was withdrawn, once more", |w| {
            let asked = requested(w, "alice");
            let carl = bearer(&w.person("carl", json!({})));
            let fields = form(&[("hash", text(&asked, "hash"))]);
            let sent = || sending(w, post(&path(&asked, "approve"), &[&carl], fields.clone()));
            assert_eq!(sent()[0].run().unwrap().statuses(), [200]);
            done(w, "alice", &path(&asked, "withdraw"), &[]);
            sent()
        })
        .refused(&["409 elevation_state"]),
    );
    attacks.push(attack(APPROVAL, Who::Caller, "a request that there is not", |w| {
        let carl = w.person("carl", json!({}));
        let made_up = json!({"id": uuid::Uuid::new_v4().to_string()});
        by(w, &carl, &path(&made_up, "approve"), &[("hash", &"0".repeat(64))])
    }));
    attacks
}

/// Beginning what was not approved, and having what has not begun.
fn unapproved() -> Vec<Attack> {
    // In between something may have been done about it.
    let beginning = |name: &str, who: &'static str, so_far: fn(&World) -> Value| {
        let beginning = attack(UNAPPROVED, Who::Caller, name, move |w| {
            granted(w);
            let asked = so_far(w);
            by(w, &w.person(who, json!({})), &path(&asked, "activate"), &[])
        });
        beginning.refused(&["409 elevation_state"])
    };
    let asked_for = |name: &str, who: &'static str, what: fn(&World) -> Value| {
        let had = attack(UNAPPROVED, Who::Caller, name, move |w| {
            let person = w.person(who, json!({}));
            let asked = what(w);
            let of = [("role", "prod"), ("elevation", text(&asked, "id"))];
            asking(w, &person, &of)
        });
        had.refused(&["400 elevation_pending"])
    };
    vec![
        beginning("begun before anybody has", "alice", |w| requested(w, "alice")),
        beginning("begun after one of two has", "alice", waiting),
        beginning("begun after one of two has twice", "alice", |w| {
            let asked = waiting(w);
            approve(w, "bob", &asked);
            asked
        }),
        beginning("begun after it was denied", "alice", |w| {
            let asked = waiting(w);
            done(w, "carl", &path(&asked, "deny"), &[("reason", "no")]);
            asked
        }),
        beginning("begun after it was approved and revoked", "alice", |w| {
            let asked = approved(w);
            done(w, "carl", &path(&asked, "revoke"), &[("reason", "enough")]);
            asked
        }),
        beginning("begun after it was withdrawn", "alice", |w| {
            let asked = approved(w);
            done(w, "alice", &path(&asked, "withdraw"), &[]);
            asked
        }),
        beginning("begun a second time, after it was given back", "alice", |w| {
            let asked = granted(w);
            done(w, "alice", &path(&asked, "relinquish"), &[]);
            asked
        }),
        beginning("begun by somebody else who may ask", "dave", approved)
            .refused(&["404 not_found"]),
        beginning("begun by who approved it", "bob", approved).refused(&["403 access_denied"]),
        beginning("begun after an approver has left the group", "alice", |w| {
            let [seen, asked] = [requested(w, "alice"), requested(w, "alice")];
            for one in [&seen, &asked] {
                approve(w, "bob", one);
                assert_eq!(approve(w, "frank", one)["access"], "approved");
            }
            done(w, "alice", &path(&seen, "activate"), &[]);
            w.leaves("frank", "leads");
            asked
        })
        .refused(&["409 elevation_short"]),
        attack(UNAPPROVED, Who::Caller, "approved by who has left the group", |w| {
            w.leaves("frank", "leads");
            let asked = waiting(w);
            let frank = w.person("frank", json!({}));
            by(w, &frank, &path(&asked, "approve"), &[("hash", text(&asked, "hash"))])
        })
        .refused(&["404 not_found"]),
        attack(UNAPPROVED, Who::Caller, "asked for by who may not", |w| {
            requested(w, "dave");
            by(w, &w.person("mallory", json!({})), "/v1/elevations", &WANTED)
        }),
        attack(UNAPPROVED, Who::Caller, "asked for by a group of the token", |w| {
            let claims = json!({"groups": ["staff", "leads"]});
            by(w, &w.person("mallory", claims), "/v1/elevations", &WANTED)
        }),
        attack(UNAPPROVED, Who::Caller, "asked for by a machine", |w| {
            by(w, &w.job(json!({})), "/v1/elevations", &WANTED)
        }),
        attack(UNAPPROVED, Who::Caller, "had without a grant", |w| {
            asking(w, &w.person("gina", json!({})), &[("role", "prod")])
        })
        .refused(&["400 elevation_required"]),
        asked_for("had by what waits for approvals", "dave", |w| requested(w, "dave")),
        asked_for("had by what was approved and has not begun", "dave", |w| {
            let asked = requested(w, "dave");
            approve(w, "bob", &asked);
            approve(w, "carl", &asked);
            asked
        }),
        asked_for("had by another's grant", "dave", |w| {
            let grant = granted(w);
            let of = [("role", "prod"), ("elevation", text(&grant, "id"))];
            w.honest(&w.person("alice", json!({})), &of);
            grant
        }),
        asked_for("had by another's grant, by who approved it", "bob", granted)
            .refused(&["400 elevation_required"]),
        // Of alice's denials there are many, and beyond so many all are alike.
        asked_for("had by a grant that has ended", "gina", |w| {
            let asked = requested(w, "gina");
            for who in ["bob", "carl"] {
                approve(w, who, &asked);
            }
            done(w, "gina", &path(&asked, "activate"), &[]);
            done(w, "gina", &path(&asked, "relinquish"), &[]);
            asked
        })
        .refused(&["400 elevation_required"]),
    ]
}

/// What somebody takes without asking anybody.
fn wanted() -> Vec<(&'static str, &'static str)> {
    [&WANTED[..2], &[("ttl", "600"), ("emergency", "true")]].concat()
}

fn taken(w: &World, who: &str) -> Value {
    let active = done(w, who, "/v1/elevations", &wanted());
    assert_eq!(active["path"], "emergency", "{active}");
    active
}

/// Where somebody has to have logged in of late.
const OLD: &[&str] = &["401 insufficient_user_authentication"];

/// Emergencies that are none, or not theirs.
fn emergencies() -> Vec<Attack> {
    let taking = |name: &str, token: fn(&World) -> String| {
        let name = format!("taken in an emergency, {name}");
        attack(UNAPPROVED, Who::Caller, name, move |w| {
            by(w, &token(w), "/v1/elevations", &wanted())
        })
    };
    vec![
        taking("by who may only ask for it", |w| w.person("dave", json!({}))),
        taking("by who may approve it", |w| w.person("bob", json!({}))),
        taking("by a name in capitals", |w| w.person("ERIN", json!({}))),
        taking("by that name at another issuer", |w| w.stranger("erin")),
        taking("by a machine", |w| w.job(json!({"sub": "erin"}))),
        taking("by a login of long ago", |w| w.person("erin", json!({"auth_time": now() - 3600})))
            .refused(OLD),
        taking("by a login that is yet to come", |w| {
            w.person("erin", json!({"auth_time": now() + 3600}))
        })
        .refused(OLD),
        taking("by a login of nobody knows when", |w| w.person("erin", json!({"auth_time": null})))
            .refused(OLD),
        attack(UNAPPROVED, Who::Caller, "taken in an emergency, while one is under way", |w| {
            taken(w, "erin");
            by(w, &w.person("erin", json!({})), "/v1/elevations", &wanted())
        })
        .refused(&["409 elevation_conflict"]),
        attack(UNAPPROVED, Who::Caller, "reviewed by who took it, and taken again", |w| {
            let grant = taken(w, "hans");
            done(w, "hans", &path(&grant, "relinquish"), &[]);
            let hans = w.person("hans", json!({}));
            let review = [("outcome", "reviewed"), ("note", "all is well")];
            let reviewed = by(w, &hans, &path(&grant, "review"), &review);
            let again = by(w, &hans, "/v1/elevations", &wanted());
            [reviewed, again].into_iter().flatten().collect()
        })
        .refused(&["403 access_denied", "409 elevation_conflict"]),
        attack(UNAPPROVED, Who::Caller, "taken in an emergency, after a review, too soon", |w| {
            // That of the attack before: whoever else may approve has reviewed it since.
            let mine = w.person("hans", json!({}));
            let line = bearer(&mine);
            let lines = ["Host: 127.0.0.1", "Connection: close", &line];
            let bytes = super::wire::request("GET /v1/elevations HTTP/1.1", &lines, b"");
            let answers = Exchange { to: w.address, from: ANYBODY, bytes }.run().unwrap();
            let page: Value = serde_json::from_str(answers.body()).unwrap();
            let review = [("outcome", "reviewed"), ("note", "all is well")];
            done(w, "bob", &path(&page["elevations"][0], "review"), &review);
            by(w, &mine, "/v1/elevations", &wanted())
        })
        .refused(&["409 elevation_conflict"]),
    ]
}
