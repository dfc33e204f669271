//! The broker's own tokens: exchanged for more, asked about by others, made good again.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::keys::{Key, merged};
use super::wire::{ANYBODY, INACTIVE, STRANGER, form, post};
use super::world::World;
use super::{Attack, Lesson, Who, asking, attack, sending, sending_to};

const SCOPES: Lesson = Lesson { name: "scope that widens", refused: "400 invalid_scope" };
const OPAQUE: Lesson = Lesson { name: "opaque tokens that were changed", refused: INACTIVE };
const INTROSPECTION: Lesson =
    Lesson { name: "introspection by anybody", refused: "401 invalid_token" };
const REVOCATIONS: Lesson = Lesson { name: "revocations that are lost", refused: INACTIVE };

pub(super) fn attacks() -> Vec<Attack> {
    [scopes(), opaque(), introspection(), revocations()].into_iter().flatten().collect()
}

fn scopes() -> Vec<Attack> {
    let mut attacks = Vec::new();
    for scope in [
        "deploy:admin",
        "deploy:write deploy:admin",
        "DEPLOY:WRITE",
        "Deploy:read",
        "deploy:*",
        "*",
        "deploy:write,deploy:read",
        "deploy:read deploy:admin",
        "deploy:wrіte",
    ] {
        let who = if scope.is_ascii() { Who::Caller } else { Who::Stranger };
        attacks.push(attack(SCOPES, who, format!("asked for {scope:?}"), move |w| {
            asking(w, &w.somebody(), &[("scope", scope)])
        }));
    }
    for scope in [
        " ",
        "   ",
        "\t",
        "\u{a0}",
        "deploy:read\tdeploy:write",
        "deploy:read\ndeploy:write",
        "deploy:read\u{0}",
        "\"deploy:read\"",
        "deploy\\:read",
    ] {
        attacks.push(attack(SCOPES, Who::Stranger, format!("asked for {scope:?}"), move |w| {
            asking(w, &w.assertion(json!({})), &[("scope", scope)])
        }));
    }
    attacks.push(attack(SCOPES, Who::Stranger, "asked for a thousand", |w| {
        let many: Vec<_> = (0..1_000).map(|n| format!("s{n}")).collect();
        asking(w, &w.assertion(json!({})), &[("scope", &many.join(" "))])
    }));
    // A token that covers `deploy:read` is exchanged for one that covers more.
    for scope in
        ["deploy:write", "deploy:read deploy:write", "deploy:write deploy:write", "DEPLOY:READ"]
    {
        attacks.push(attack(SCOPES, Who::Caller, format!("exchanged for {scope:?}"), move |w| {
            let less = w.honest(&w.assertion(json!({})), &[("scope", "deploy:read")]);
            asking(w, &less, &[("scope", scope)])
        }));
    }
    attacks.push(attack(SCOPES, Who::Caller, "exchanged for less, and that for more again", |w| {
        let all = w.token("deploy");
        let less = w.honest(&all, &[("scope", "deploy:read")]);
        asking(w, &less, &[("scope", "deploy:write")])
    }));
    let by_another =
        attack(SCOPES, Who::Caller, "exchanged by a client that it was not issued to", |w| {
            // Anybody may name a client that has to authenticate.
            asking(w, &w.token("deploy"), &[("client_id", "robot")])
        });
    attacks.push(by_another.refused(&["401 invalid_client"]));
    attacks.push(
        attack(SCOPES, Who::Stranger, "exchanged sixteen times and once more", |w| {
            let deepest = (0..16).fold(w.token("deploy"), |token, _| w.honest(&token, &[]));
            asking(w, &deepest, &[])
        })
        .refused(&["400 invalid_request"]),
    );
    // Only the broker could sign one of another type: its signature is what refuses this one.
    let retyped = "a token of the broker's, whose type was changed after it was signed";
    attacks.push(
        attack(SCOPES, Who::Stranger, retyped, |w| {
            let token = w.token("deploy");
            let (header, rest) = token.split_once('.').unwrap();
            let header = URL_SAFE_NO_PAD.decode(header).unwrap();
            let header = merged(serde_json::from_slice(&header).unwrap(), json!({"typ": "JWT"}));
            asking(w, &format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header.to_string())), &[])
        })
        .refused(&["400 invalid_request"]),
    );
    attacks.push(
        attack(SCOPES, Who::Stranger, "a token in the broker's name by another key", |w| {
        let claims = json!({
            "iss": w.url(), "aud": "https://api.example.com", "role": "deploy", "scope": "deploy:write",
            "client_id": "cli", "jti": uuid::Uuid::new_v4(), "azp": null,
            "sub_id": {"format": "iss_sub", "iss": super::world::ISSUER, "sub": "alice"},
        });
        let header = w.own.header(json!({"typ": "at+jwt", "jwk": w.own.jwk()}));
        let token = w.own.sign(&header, &w.claims(claims));
        asking(w, &token, &[])
    })
        .refused(&["400 invalid_request"]),
    );
    attacks.push(
        attack(SCOPES, Who::Stranger, "a bound token, exchanged without its key", |w| {
            let bound = w.bound_token(&w.device);
            asking(w, &bound, &[])
        })
        .refused(&["400 invalid_dpop_proof"]),
    );
    attacks.push(
        attack(SCOPES, Who::Stranger, "a bound token, exchanged by another key", |w| {
            let bound = w.bound_token(&w.device);
            let proof = w.proof(&w.own, json!({}), json!({"nonce": w.nonce()}));
            sending(w, post("/token", &[&format!("DPoP: {proof}")], w.fields(&bound, &[])))
        })
        .refused(&["400 invalid_dpop_proof"]),
    );
    attacks
}

/// Asks about a token in its own name.
fn itself(w: &World, token: &str) -> Vec<super::Exchange> {
    let who = format!("Authorization: Bearer {token}");
    sending(w, post("/introspect", &[&who], form(&[("token", token)])))
}

type Change = fn(&str) -> String;

fn opaque() -> Vec<Attack> {
    let mut attacks = Vec::new();
    let changes: [(&str, Change); 12] = [
        ("one character short", |token| token[..token.len() - 1].into()),
        ("cut in half", |token| token[..token.len() / 2].into()),
        ("nothing but how it begins", |_| "tmpcred_o_".into()),
        ("one character longer", |token| format!("{token}A")),
        ("padded", |token| format!("{token}=")),
        ("another last character", |token| {
            let last = if token.ends_with('A') { 'B' } else { 'A' };
            format!("{}{last}", &token[..token.len() - 1])
        }),
        ("in capitals", |token| token.to_ascii_uppercase()),
        ("with a space before", |token| format!(" {token}")),
        ("without how it begins", |token| token.trim_start_matches("tmpcred_o_").into()),
        ("with NUL behind", |token| format!("{token}\u{0}x")),
        ("as a pattern", |token| format!("{}%", &token[..20])),
        ("its hash", |token| {
            let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, token.as_bytes());
            hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
        }),
    ];
    for (name, change) in changes {
        let changed = attack(OPAQUE, Who::Stranger, name, move |w| {
            let changed = change(&w.token("opaque"));
            // Headers have no such characters.
            let who = format!("Authorization: Bearer {}", changed.replace(['\u{0}', ' '], ""));
            let bytes = post("/introspect", &[&who], form(&[("token", &changed)]));
            [sending(w, bytes), itself(w, &changed.replace('\u{0}', ""))]
                .into_iter()
                .flatten()
                .collect()
        });
        // Where what is asked about is another one than what is shown, that proves nothing.
        attacks.push(match name {
            "with a space before" => changed.refused(&["401 invalid_token"]),
            "with NUL behind" => changed.refused(&["401 invalid_token", INACTIVE]),
            _ => changed,
        });
    }
    attacks.push(
        attack(OPAQUE, Who::Stranger, "as a proof of who is calling", |w| {
            asking(w, &w.token("opaque"), &[])
        })
        .refused(&["400 invalid_request"]),
    );
    attacks.push(
        attack(OPAQUE, Who::Stranger, "for a place that it is not for", |w| {
            let token = w.honest(
                &w.assertion(json!({})),
                &[("role", "opaque"), ("audience", "https://elsewhere.example")],
            );
            super::proxy::held(
                w,
                &[&format!("Authorization: Bearer {token}")],
                &super::proxy::API_LINES,
            )
        })
        .refused(&["401 invalid_token"]),
    );
    attacks
}

fn introspection() -> Vec<Attack> {
    let about = |name: &str, refused, who: fn(&World) -> Vec<String>| {
        let about = attack(INTROSPECTION, Who::Stranger, name, move |w| {
            let token = w.token("deploy");
            let lines = who(w);
            let lines: Vec<_> = lines.iter().map(String::as_str).collect();
            sending(w, post("/introspect", &lines, form(&[("token", &token)])))
        });
        about.refused(&[refused])
    };
    let (nobody, unproved) = ("401 unauthorized", INTROSPECTION.refused);
    let no_client = "401 invalid_client";
    fn bearer(token: &str) -> Vec<String> {
        vec![format!("Authorization: Bearer {token}")]
    }
    let mut attacks = vec![
        about("by nobody", nobody, |_| Vec::new()),
        about("by an empty token", nobody, |_| bearer("")),
        about("by something", unproved, |_| bearer("x")),
        about("by Basic", no_client, |_| vec!["Authorization: Basic YXBpOnNlY3JldA==".into()]),
        about("by a token of no policy", INACTIVE, |w| bearer(&w.assertion(json!({})))),
        about("by a name in capitals", INACTIVE, |w| bearer(&w.assertion(json!({"sub": "API"})))),
        about("by the name at another issuer", INACTIVE, |w| {
            let claims = json!({"iss": super::world::OTHER, "sub": "api"});
            bearer(&w.secret(w.other.sign(&w.other.header(json!({})), &w.claims(claims))))
        }),
        about("by another token of the broker's", unproved, |w| bearer(&w.token("deploy"))),
        about("by an opaque token", unproved, |w| bearer(&w.token("opaque"))),
        about("by a token of who acts for it", unproved, |w| {
            bearer(&w.assertion(json!({"sub": "api", "act": {"sub": "bot"}})))
        }),
        about("by two tokens", nobody, |w| {
            let good = w.assertion(json!({"sub": "api"}));
            [bearer(&good), bearer("x")].concat()
        }),
        about("by a token that is bound to a key", unproved, |w| {
            bearer(&w.assertion(json!({"sub": "api", "cnf": {"jkt": w.device.thumbprint()}})))
        }),
    ];
    attacks.push(
        attack(INTROSPECTION, Who::Stranger, "by a client without its assertion", |w| {
            let about = [("token", &*w.token("deploy")), ("client_id", "robot")];
            sending(w, post("/introspect", &[], form(&about)))
        })
        .refused(&[no_client]),
    );
    for (name, key, client, who, refused) in [
        (
            "by a client of no policy",
            (|w: &World| -> &Key { &w.robot }) as fn(&World) -> &Key,
            "robot",
            Who::Caller,
            INACTIVE,
        ),
        ("by a client with another's key", |w| &w.drone, "robot", Who::Stranger, no_client),
        ("by a client that there is not", |w| &w.own, "nobody", Who::Stranger, no_client),
    ] {
        let by = attack(INTROSPECTION, who, name, move |w| {
            let assertion = w.client_assertion(key(w), client, json!({}));
            let token = w.token("deploy");
            let by = [
                ("token", &*token),
                ("client_assertion_type", super::world::ASSERTION),
                ("client_assertion", &assertion),
            ];
            sending(w, post("/introspect", &[], form(&by)))
        });
        attacks.push(by.refused(&[refused]));
    }
    attacks.push(
        attack(INTROSPECTION, Who::Stranger, "across audiences", |w| {
            let api = w.assertion(json!({"sub": "api"}));
            let elsewhere = [("role", "opaque"), ("audience", "https://elsewhere.example")];
            let token = w.honest(&w.assertion(json!({})), &elsewhere);
            let who = format!("Authorization: Bearer {api}");
            sending(w, post("/introspect", &[&who], form(&[("token", &token)])))
        })
        .refused(&[INACTIVE]),
    );
    attacks.push(
        attack(INTROSPECTION, Who::Stranger, "of two tokens at once", |w| {
            let api = w.assertion(json!({"sub": "api"}));
            let who = format!("Authorization: Bearer {api}");
            let token = w.token("deploy");
            sending(w, post("/introspect", &[&who], form(&[("token", &token), ("token", &token)])))
        })
        .refused(&["400 invalid_request"]),
    );
    attacks.push(
        attack(INTROSPECTION, Who::Stranger, "of a token in the query", |w| {
            let token = w.token("deploy");
            let who = format!("Authorization: Bearer {token}");
            sending(w, post(&format!("/introspect?token={token}"), &[&who], ""))
        })
        .refused(&["400 invalid_request"]),
    );
    attacks
}

fn revocations() -> Vec<Attack> {
    let dead = |name: &str, then: fn(&World, &str) -> Vec<super::Exchange>| {
        attack(REVOCATIONS, Who::Stranger, name, move |w| {
            let token = w.token("deploy");
            w.revoke(&token);
            then(w, &token)
        })
    };
    vec![
        dead("asked about", itself),
        dead("asked about at another process", |w, token| {
            let who = format!("Authorization: Bearer {token}");
            sending_to(w.twin(), ANYBODY, post("/introspect", &[&who], form(&[("token", token)])))
        }),
        dead("exchanged", |w, token| asking(w, token, &[])).refused(&["400 invalid_request"]),
        dead("exchanged at another process, from elsewhere", |w, token| {
            sending_to(w.twin(), STRANGER, post("/token", &[], w.fields(token, &[])))
        })
        .refused(&["400 invalid_request"]),
        dead("shown to a proxy", |w, token| {
            let who = format!("Authorization: Bearer {token}");
            super::proxy::held(w, &[&who], &super::proxy::API_LINES)
        })
        .refused(&["401 invalid_token"]),
        attack(REVOCATIONS, Who::Stranger, "what came of it by exchange", |w| {
            let token = w.token("deploy");
            let child = w.honest(&token, &[]);
            w.revoke(&token);
            [itself(w, &child), asking(w, &child, &[])].into_iter().flatten().collect()
        })
        .refused(&[INACTIVE, "400 invalid_request"]),
        attack(REVOCATIONS, Who::Stranger, "an opaque one", |w| {
            let token = w.token("opaque");
            w.revoke(&token);
            itself(w, &token)
        }),
        // Killed in the moment after it was answered that it is revoked.
        attack(REVOCATIONS, Who::Stranger, "asked about at a process that was killed", |w| {
            let (token, other) = (w.token("deploy"), w.token("deploy"));
            w.revoke_at(w.twin(), &token);
            w.restart_twin();
            let asked = |token: &str| {
                let who = format!("Authorization: Bearer {token}");
                sending_to(
                    w.twin(),
                    ANYBODY,
                    post("/introspect", &[&who], form(&[("token", token)])),
                )
            };
            // Nothing else is lost with it.
            assert!(asked(&other)[0].run().unwrap().is_granted());
            asked(&token)
        }),
        attack(REVOCATIONS, Who::Stranger, "exchanged at a process that was killed", |w| {
            let token = w.token("deploy");
            w.revoke_at(w.twin(), &token);
            w.restart_twin();
            sending_to(w.twin(), ANYBODY, post("/token", &[], w.fields(&token, &[])))
        })
        .refused(&["400 invalid_request"]),
        attack(
            REVOCATIONS,
            Who::Stranger,
            "an opaque one, after another process was killed",
            |w| {
                let token = w.token("opaque");
                w.revoke_at(w.twin(), &token);
                w.restart_twin();
                itself(w, &token)
            },
        ),
        attack(REVOCATIONS, Who::Stranger, "a revocation of a token that was changed", |w| {
            let token = w.token("deploy");
            w.revoke(&token[..token.len() - 2]);
            assert!(w.is_good(&token), "it was revoked by what is not it");
            sending(w, post("/revoke", &[], form(&[("token", &token[..token.len() - 2])])))
        })
        // RFC 7009 section 2.2: what is no token is as good as revoked.
        .refused(&["200"]),
    ]
}
