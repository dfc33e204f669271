//! Acting for somebody, and letting oneself in.

use serde_json::{Value, json};

use super::world::{ISSUER, JWT, OTHER, World};
use super::{Attack, Lesson, Who, asking, attack};

const ACTING: Lesson = Lesson { name: "acting for somebody", refused: "400 invalid_request" };
const APPROVAL: Lesson = Lesson { name: "approving of oneself", refused: "400 access_denied" };

/// Of what no policy permits.
const DENIED: &[&str] = &["400 access_denied"];

/// The actor's token beside the subject's.
fn acting(w: &World, subject: Value, actor: Value, role: &str) -> Vec<super::Exchange> {
    let (subject, actor) = (w.assertion(subject), w.assertion(actor));
    asking(w, &subject, &[("actor_token", &actor), ("actor_token_type", JWT), ("role", role)])
}

fn one(
    lesson: Lesson,
    who: Who,
    name: &str,
    subject: Value,
    actor: Value,
    role: &'static str,
) -> Attack {
    attack(lesson, who, name, move |w| acting(w, subject.clone(), actor.clone(), role))
}

pub(super) fn attacks() -> Vec<Attack> {
    let bot = || json!({"sub": "bot"});
    let deep = |levels: usize| {
        (0..levels).fold(json!(null), |act, n| json!({"sub": format!("a{n}"), "act": act}))
    };
    let acting = |who, name: &str, subject, actor| one(ACTING, who, name, subject, actor, "deploy");
    let mut attacks = vec![
        acting(Who::Caller, "by somebody of no policy", json!({}), json!({"sub": "carol"}))
            .refused(DENIED),
        acting(Who::Caller, "by a name in capitals", json!({}), json!({"sub": "Bot"}))
            .refused(DENIED),
        acting(
            Who::Stranger,
            "where may_act names another",
            json!({"may_act": {"sub": "carol"}}),
            bot(),
        ),
        acting(
            Who::Stranger,
            "where may_act names another issuer",
            json!({"may_act": {"sub": "bot", "iss": OTHER}}),
            bot(),
        ),
        acting(
            Who::Stranger,
            "where may_act wants more",
            json!({"may_act": {"sub": "bot", "email": "b@x"}}),
            bot(),
        ),
        acting(Who::Stranger, "where may_act says nothing", json!({"may_act": {}}), bot()),
        acting(Who::Stranger, "where may_act is text", json!({"may_act": "bot"}), bot()),
        acting(
            Who::Stranger,
            "where may_act has a list",
            json!({"may_act": {"sub": ["bot"]}}),
            bot(),
        ),
        acting(Who::Stranger, "in a chain of five", json!({"act": deep(5)}), bot()),
        acting(Who::Stranger, "in a chain of four, and one more", json!({"act": deep(4)}), bot()),
        acting(Who::Stranger, "in a chain of a hundred", json!({"act": deep(100)}), bot()),
        acting(
            Who::Stranger,
            "by somebody for whom another acts",
            json!({}),
            json!({"sub": "bot", "act": {"sub": "carol"}}),
        ),
        acting(
            Who::Stranger,
            "by a token for another audience",
            json!({}),
            json!({"sub": "bot", "aud": "https://evil.example"}),
        ),
        acting(
            Who::Stranger,
            "by a token that has ended",
            json!({}),
            json!({"sub": "bot", "exp": 1}),
        ),
        acting(
            Who::Stranger,
            "by a token of another issuer, under this key",
            json!({}),
            json!({"sub": "bot", "iss": OTHER}),
        ),
        acting(
            Who::Stranger,
            "by a client that has to authenticate",
            json!({}),
            json!({"sub": "bot", "azp": "robot"}),
        )
        .refused(&["401 invalid_client"]),
        acting(
            Who::Stranger,
            "by a token that is bound to a key",
            json!({}),
            json!({"sub": "bot", "cnf": {"jkt": "A".repeat(43)}}),
        )
        .refused(&["400 invalid_dpop_proof"]),
    ];
    for act in [
        json!("bot"),
        json!({}),
        json!({"sub": ""}),
        json!({"sub": 7}),
        json!({"sub": "bot", "iss": OTHER}),
        json!({"sub": "bot", "iss": 7}),
        json!({"sub": "b".repeat(2_000)}),
        json!([{"sub": "bot"}]),
        json!({"sub": "bot", "act": "x"}),
    ] {
        let name = format!("act = {}", act.to_string().chars().take(40).collect::<String>());
        attacks.push(attack(ACTING, Who::Stranger, name, move |w| {
            asking(w, &w.assertion(json!({ "act": act })), &[])
        }));
    }
    let by_name = attack(ACTING, Who::Caller, "by a name in the token alone, of no policy", |w| {
        asking(w, &w.assertion(json!({"act": {"sub": "carol"}})), &[])
    });
    attacks.push(by_name.refused(DENIED));
    attacks.push(attack(ACTING, Who::Stranger, "with a type and no token", |w| {
        asking(w, &w.assertion(json!({})), &[("actor_token_type", JWT)])
    }));
    attacks.push(attack(ACTING, Who::Stranger, "with a token and no type", |w| {
        let bot = w.assertion(json!({"sub": "bot"}));
        asking(w, &w.assertion(json!({})), &[("actor_token", &bot)])
    }));
    attacks.push(attack(ACTING, Who::Stranger, "with a token that was made up", |w| {
        let made = w.own.sign(&w.own.header(json!({})), &w.claims(json!({"sub": "bot"})));
        asking(w, &w.assertion(json!({})), &[("actor_token", &made), ("actor_token_type", JWT)])
    }));
    let alone = |name: &str, subject: Value, actor: Value| {
        one(APPROVAL, Who::Caller, name, subject, actor, "guarded")
    };
    attacks.extend([
        alone("by acting for oneself", json!({}), json!({})),
        alone("by acting for oneself, with another token", json!({}), json!({"jti": "x"})),
        alone("by another spelling of oneself", json!({}), json!({"sub": "ALICE"})),
    ]);
    for (name, groups) in [
        ("by a group of the token with the directory's name", json!(["on-call"])),
        ("by a group with the directory's spelling", json!(["DirectoryGroup::\"on-call\""])),
        ("by a group with a person's name", json!(["carol"])),
    ] {
        attacks.push(attack(APPROVAL, Who::Caller, name, move |w| {
            asking(w, &w.assertion(json!({"groups": groups})), &[("role", "guarded")])
        }));
    }
    for (name, claims) in [
        ("by a person's name in capitals", json!({"sub": "CAROL"})),
        ("by a person's name as a claim", json!({"name": "Carol", "email": "carol@example.com"})),
        ("by act = oneself", json!({"act": {"sub": "alice"}})),
        ("by act = oneself, with the issuer", json!({"act": {"sub": "alice", "iss": ISSUER}})),
    ] {
        attacks.push(attack(APPROVAL, Who::Caller, name, move |w| {
            asking(w, &w.assertion(claims.clone()), &[("role", "guarded")])
        }));
    }
    attacks
}
