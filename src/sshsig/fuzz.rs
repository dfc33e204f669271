//! Keys, signatures, statements, files of them, and what an agent says.

use super::tests::{broker, own_key, statements};
use super::*;
use crate::fuzz::{
    Fate::{self, Accepted, Refused},
    NOW, hold,
};

#[test]
fn ssh_public_key() {
    let line = own_key().public().line().unwrap();
    hold("ssh_public_key", [format!("{line} x").into()], |input| {
        let Ok(text) = std::str::from_utf8(input) else { return Refused };
        let Ok((key, comment)) = PublicKey::parse(text) else { return Refused };
        assert!(!text.contains("PRIVATE KEY") && Kind::ALL.contains(&key.kind()));
        assert!(comment.chars().all(|c| !c.is_control()));
        // Whatever it says by the way, it is one key, and written in one way.
        let line = key.line().unwrap();
        assert!(line.starts_with(key.kind().name()) && text.trim().starts_with(&line), "{line}");
        assert_eq!(PublicKey::parse(&line).unwrap().0, key);
        assert_eq!(key.fingerprint().len(), 50);
        Accepted
    });
}

/// A key that nobody has signed one message; it signed no other.
#[test]
fn ssh_signature() {
    let key = own_key();
    let good = key.sign(b"message").unwrap().armored().unwrap();
    let text = good.clone();
    hold("ssh_signature", [good.into()], move |input| {
        let Ok(input) = std::str::from_utf8(input) else { return Refused };
        let Ok(signature) = Signature::parse(input) else { return Refused };
        let armored = signature.armored().unwrap();
        assert_eq!(armored.trim_end(), input.trim_end_matches('\n'), "two ways to write one");
        assert!(signature.verify(b"another", Demands::default()).is_err());
        let is_good = signature.verify(b"message", Demands::default()).is_ok();
        assert!(!is_good || signature.key() != key.public() || armored == text);
        Fate::accepted_if(is_good)
    });
}

#[test]
fn statement() {
    let seeds: Vec<_> = statements().iter().map(|one| one.text().unwrap().into()).collect();
    hold("statement", seeds, |input| {
        let Ok(text) = std::str::from_utf8(input) else { return Refused };
        let Ok(statement) = Statement::parse(text) else { return Refused };
        assert_eq!(statement.text().unwrap(), text);
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
        let is_good = statement.check(&broker(), NOW).is_ok();
        if is_good {
            assert!(statement.broker == broker() && statement.expires > NOW);
        }
        Fate::accepted_if(is_good)
    });
}

#[test]
fn signed_file() {
    let key = own_key();
    let made = |statement| Signed::make(statement, |text| key.sign(text)).unwrap();
    let good = write(&statements().into_iter().map(made).collect::<Vec<_>>()).unwrap();
    let known = good.clone();
    let public = key.public().clone();
    hold("signed_file", [good.into()], move |input| {
        let Ok(text) = std::str::from_utf8(input) else { return Refused };
        let Ok(found) = read(text, Demands::default()) else { return Refused };
        let whole = text.replace("\r\n", "\n");
        assert_eq!(write(&found).unwrap().trim(), whole.trim());
        for signed in &found {
            assert!(!signed.signatures.is_empty());
            let said = signed.statement.text().unwrap();
            let is_mine = signed.signatures.iter().any(|one| *one.key() == public);
            assert!(!is_mine || known.contains(&said), "what nobody signed is accepted");
        }
        Fate::accepted_if(!found.is_empty())
    });
}

#[test]
fn agent_answer() {
    let key = own_key().public().to_bytes().unwrap();
    let framed = |bytes: &[u8]| [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat();
    let listed = [&[12, 0, 0, 0, 1][..], &framed(&key), &framed(b"a key")].concat();
    let raw = own_key().sign(b"x").unwrap();
    let raw = ssh_key::SshSig::from_pem(raw.armored().unwrap()).unwrap();
    let raw: Vec<u8> = raw.signature().clone().try_into().unwrap();
    let signed = [&[14][..], &framed(&raw)].concat();
    hold("agent_answer", [listed, signed, vec![5]], |input| {
        let (keys, signature) = (agent::identities(input), agent::signature(input));
        let fate = Fate::accepted_if(keys.is_ok() || signature.is_ok());
        if let Ok(keys) = keys {
            assert!(keys.len() <= input.len() / 8 && input[0] == 12);
            assert!(keys.iter().all(|key| key.comment.chars().all(|c| !c.is_control())));
        }
        if let Ok(signature) = signature {
            assert!(input[0] == 14 && !signature.as_bytes().is_empty());
        }
        fate
    });
}
