//! Which requests are the same one, sent again.

use super::*;
use crate::broker::http::tests::delegation::{acting, bot, policies};
use crate::broker::issue::{Ask, Refusal};
use crate::credential::TokenType;

/// A machine has several networks, and a broker several addresses, behind different proxies.
#[tokio::test]
async fn who_asks_again_by_a_key_may_come_from_elsewhere_and_by_an_assertion_may_not() {
    for (change, key) in [((|_| {}) as fn(&mut Options), Some("k")), (strict, None)] {
        let bed = Bed::with(change).await;
        let (book, token) = (bed.broker.policies(), Secret::new(bed.key.token(json!({}))));
        let ask = async |source: [u8; 4]| {
            let caller = bed.broker.caller(&token, TokenType::Jwt, &book, None).await.unwrap();
            let ask = Ask {
                elevation: None,
                role: "deploy".into(),
                audience: API.into(),
                scope: None,
                ttl: None,
                proof: None,
                idempotency_key: key.map(String::from),
                jwt: false,
                source: source.into(),
                request_id: uuid::Uuid::new_v4(),
            };
            bed.broker.issue(&book, &caller, &ask).await
        };
        let lost = ask([192, 0, 2, 1]).await.unwrap().token;
        let got = ask([198, 51, 100, 1]).await;
        let Some(_) = key else {
            assert!(matches!(got, Err(Refusal::Reused)), "{got:?}");
            continue;
        };
        let got = got.unwrap().token;
        assert!(!active(&bed, lost.expose()).await && active(&bed, got.expose()).await);
    }
}

/// A token of another role, of another form, or with which somebody else acts is another token: who
/// asks for one does not ask again for the one before, and does not end it.
#[tokio::test]
async fn what_is_asked_for_otherwise_is_not_asked_for_again() {
    for (change, key) in [((|_| {}) as fn(&mut Options), Some("k")), (strict, None)] {
        let bed = Bed::with(|options| {
            change(options);
            options.config.role.insert("other".into(), options.config.role["deploy"].clone());
            options.policies += &policies();
            options.policies += r#"
@id("others") @ttl("15m")
permit (principal, action == Action::"issue", resource == Role::"other");
"#;
        })
        .await;
        let (assertion, bots) = (bed.key.token(json!({})), ["one", "two"].map(|n| bot(&bed, n)));
        let key: Vec<_> = key.map(|key| ("idempotency_key", key)).into_iter().collect();
        let ask = async |changes: &[(&str, &str)]| {
            let answer = json_of(&bed.exchange(&assertion, &[&key, changes].concat()).await);
            answer["access_token"].as_str().map(String::from).ok_or(answer)
        };
        let plain = ask(&[]).await.unwrap();
        let form = ("requested_token_type", TokenType::Jwt.urn());
        for changes in [&[("role", "other")][..], &[form], &acting(&bots[0])] {
            let refusal = ask(changes).await.unwrap_err();
            assert_eq!(refusal["error"], "invalid_request", "{changes:?}: {refusal}");
            assert!(active(&bed, &plain).await, "{changes:?}");
        }
        assert_eq!(outcome(&bed, "reused").await, if key.is_empty() { 3 } else { 0 });
        // Who asks for the same is given another one, and the one before ends.
        let again = ask(&[]).await.unwrap();
        assert!(!active(&bed, &plain).await && active(&bed, &again).await);
    }
}

/// Who acts is asked for as everything else is: each of them by a token that is good once.
#[tokio::test]
async fn what_one_acts_with_is_not_what_another_one_does() {
    let bed = Bed::with(|options| options.policies += &policies()).await;
    let (assertion, bots) = (bed.key.token(json!({})), ["one", "two"].map(|n| bot(&bed, n)));
    let ask = async |bot: &str| {
        let fields = [&[("idempotency_key", "k")], &acting(bot)[..]].concat();
        let answer = json_of(&bed.exchange(&assertion, &fields).await);
        answer["access_token"].as_str().map(String::from).ok_or(answer)
    };
    let first = ask(&bots[0]).await.unwrap();
    let refusal = ask(&bots[1]).await.unwrap_err();
    assert_eq!(refusal["error"], "invalid_request", "{refusal}");
    assert!(active(&bed, &first).await);
    let again = ask(&bots[0]).await.unwrap();
    assert!(!active(&bed, &first).await && active(&bed, &again).await);
}
