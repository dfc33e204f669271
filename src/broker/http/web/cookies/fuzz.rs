//! What browsers carry back, and whoever else says that they are one.

use serde_json::json;

use super::*;
use crate::broker::keys::RootKey;
use crate::fuzz::{Fate, NOW, headers, hold};
use crate::oidc::Issuer;

#[test]
fn cookies() {
    let root_key = RootKey::new(Secret::new([7; 32]));
    let seal = PageSeal::new(&root_key, &Issuer::parse("https://broker.example").unwrap());
    let session: Session = serde_json::from_value(json!({
        "csrf": "c", "client": "pages", "at": 0, "until": 1, "claims": {"sub": "alice"},
    }))
    .unwrap();
    let begun: SignIn = serde_json::from_value(json!({
        "state": "s", "nonce": "n", "verifier": "v", "to": "mine", "until": 1,
    }))
    .unwrap();
    let session = seal.seal(Purpose::Session, &session).unwrap();
    let sign_in = seal.seal(Purpose::SignIn, &begun).unwrap();
    let names = |seal: &PageSeal| {
        let cookies = Cookies { seal, is_secure: true };
        [cookies.session_name(0), cookies.session_name(1), cookies.sign_in_name("s")]
    };
    let [first, second, third] = names(&seal);
    let (before, after) = session.split_at(session.len() / 2);
    let seeds = [
        format!("cookie: {first}=2.{before}; {second}={after}; {third}={sign_in}"),
        format!("cookie: {first}=1.{session}\ncookie: {third}={sign_in}; other=1"),
    ];
    hold("cookies", seeds.map(String::into_bytes), move |input| {
        let (headers, state) = (headers(input), Secret::new("s".to_string()));
        let cookies = Cookies { seal: &seal, is_secure: true };
        let is_signed_in = cookies.session(&headers).is_some();
        if is_signed_in {
            let parts = (0..PARTS).filter_map(|part| value(&headers, &cookies.session_name(part)));
            let carried: String = parts.collect();
            assert!(carried.contains(&session), "somebody else made up a session");
        }
        let found = cookies.sign_in(&headers, &state);
        let carried = value(&headers, &cookies.sign_in_name("s"));
        assert_eq!(found.is_some(), carried == Some(sign_in.as_str()), "so with a sign-in");
        // Whatever there is, what is forgotten for it is a sign-in, too.
        let mut answer = HeaderMap::new();
        cookies.keep_sign_in(&begun, NOW, &headers, &mut answer).unwrap();
        let mut set = answer.get_all(SET_COOKIE).into_iter().map(|line| line.to_str().unwrap());
        assert!(set.all(|line| line.starts_with(&cookies.sign_in_names())));
        Fate::accepted_if(is_signed_in && found.is_some())
    });
}
