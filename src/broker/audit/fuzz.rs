//! Checkpoints, which come from elsewhere.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, crypto};

use super::note::{Checkpoint, VerifierKey};
use crate::fuzz::{
    Fate::{Accepted, Refused},
    hold, key,
};

fn verifier() -> VerifierKey {
    let public = URL_SAFE_NO_PAD.decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").unwrap();
    VerifierKey::new("broker.example/audit", public.try_into().unwrap())
}

fn sign(text: &[u8]) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(crypto::sign(text, &key(), Algorithm::EdDSA).unwrap()).unwrap()
}

#[test]
fn checkpoint() {
    let known = Checkpoint { origin: "broker.example/audit".into(), size: 7, root: [1; 32] };
    let good = known.signed([(verifier(), sign(known.text().as_bytes()))]);
    hold("checkpoint", [good.into_bytes()], move |input| {
        let Ok(note) = std::str::from_utf8(input) else { return Refused };
        let Ok(opened) = Checkpoint::open(note, &[verifier()]) else { return Refused };
        assert_eq!(opened, known, "a checkpoint that nobody signed");
        Accepted
    });
}

#[test]
fn verifier_key() {
    hold("verifier_key", [verifier().to_string().into_bytes()], |input| {
        let Ok(text) = std::str::from_utf8(input) else { return Refused };
        let Ok(key) = VerifierKey::parse(text) else { return Refused };
        assert_eq!(VerifierKey::parse(&key.to_string()).unwrap(), key);
        assert_eq!(key.to_string(), text.trim());
        Accepted
    });
}
