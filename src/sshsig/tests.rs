//! Signatures, statements and files of them.

#[cfg(unix)]
mod agents;
#[cfg(unix)]
mod openssh;
#[cfg(unix)]
pub(crate) mod peer;

use proptest::prelude::*;
use time::macros::datetime;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::*;
use crate::oidc::Issuer;

const BROKER: &str = "https://broker.example";

pub(super) fn now() -> OffsetDateTime {
    datetime!(2026-01-01 12:00 UTC)
}

pub(super) fn broker() -> Issuer {
    Issuer::parse(BROKER).unwrap()
}

pub(super) fn own_key() -> OwnKey {
    OwnKey::from_pkcs8(&OwnKey::generate().unwrap()).unwrap()
}

pub(super) fn statement(said: Said) -> Statement {
    Statement {
        broker: broker(),
        nonce: Nonce::random().unwrap(),
        person: "alice".into(),
        said,
        made: now(),
        expires: now() + Duration::hours(1),
    }
}

/// One of each kind.
pub(super) fn statements() -> Vec<Statement> {
    let subject = Subject {
        role: "prod-admin".into(),
        audience: Some("https://api.example".into()),
        scope: Some("read write".into()),
        seconds: 1800,
        bound_to: Some("0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I".into()),
        drill: true,
    };
    let least =
        Subject { audience: None, scope: None, bound_to: None, drill: false, ..subject.clone() };
    let reason = "INC-4711: «die Datenbank» steht".to_string();
    vec![
        statement(Said::Request {
            subject,
            rules: "ab".repeat(32),
            ticket: Some("INC-4711".into()),
            reason: reason.clone(),
        }),
        statement(Said::Request {
            subject: least,
            rules: "ab".repeat(32),
            ticket: None,
            reason: reason.clone(),
        }),
        statement(Said::Approval { request: [0xab; 32] }),
        statement(Said::Denial { request: [1; 32], reason: reason.clone() }),
        statement(Said::Use { request: [1; 32], bound_to: None }),
        statement(Said::Use {
            request: [1; 32],
            bound_to: Some("0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I".into()),
        }),
        statement(Said::Ending { of: Named::Request([1; 32]), reason: reason.clone() }),
        statement(Said::Ending { of: Named::Elevation(Uuid::from_u128(1 << 100)), reason }),
        statement(Said::Enrollment {
            key: own_key().public().fingerprint(),
            label: "laptop".into(),
        }),
    ]
}

fn why(error: &crate::error::Error) -> String {
    format!("{error} {:?}", error.causes())
}

#[test]
fn a_signature_is_good_for_what_was_signed_and_nothing_else() {
    let key = own_key();
    let signature = key.sign(b"the message").unwrap();
    assert_eq!(signature.key(), key.public());
    signature.verify(b"the message", Demands::default()).unwrap();
    let error = signature.verify(b"the message ", Demands::default()).unwrap_err();
    assert!(why(&error).contains("did not sign this"), "{}", why(&error));
    let again = Signature::parse(&signature.armored().unwrap()).unwrap();
    assert_eq!(again, signature);
    let error = signature
        .verify(b"the message", Demands { kinds: &[Kind::SkEd25519], user_verified: true });
    assert!(why(&error.unwrap_err()).contains("of the kind ssh-ed25519"));
}

#[test]
fn statements_of_all_kinds_are_read_as_they_were_written() {
    for statement in statements() {
        let text = statement.text().unwrap();
        assert_eq!(Statement::parse(&text).unwrap(), statement, "{text}");
        assert!(text.contains(&format!("kind: {}\n", statement.said.kind())));
    }
}

#[test]
fn whatever_does_not_show_cannot_be_said() {
    for reason in
        ["", " x", "x ", "a\nexpires: never", "a\u{202e}b", "a\u{200b}b", "a\rb", "\u{1b}[2J"]
    {
        let said = Said::Denial { request: [1; 32], reason: reason.into() };
        assert!(statement(said).text().is_err(), "{reason:?}");
    }
    let said = Said::Denial { request: [1; 32], reason: "x".repeat(1001) };
    assert!(statement(said).text().is_err());
}

#[test]
fn statements_are_for_one_broker_and_one_time() {
    let good = statement(Said::Approval { request: [1; 32] });
    good.check(&broker(), now()).unwrap();
    good.check(&broker(), now() - Duration::minutes(1)).unwrap();
    let elsewhere = Issuer::parse("https://other.example").unwrap();
    for (statement, issuer, at, says) in [
        (good.clone(), &elsewhere, now(), "for the broker"),
        (good.clone(), &broker(), good.expires, "expired"),
        (good.clone(), &broker(), now() - Duration::minutes(3), "in the future"),
        (
            Statement { expires: now() + Duration::hours(25), ..good.clone() },
            &broker(),
            now(),
            "longer than 24 hours",
        ),
        (Statement { expires: now(), ..good.clone() }, &broker(), now(), "or never"),
    ] {
        let error = statement.check(issuer, at).unwrap_err();
        assert!(why(&error).contains(says), "{}", why(&error));
    }
}

#[test]
fn what_is_no_statement_is_refused() {
    let good = statement(Said::Approval { request: [1; 32] }).text().unwrap();
    for changed in [
        good.replace("statement 1", "statement 2"),
        good.replace("kind: approval", "kind: other"),
        good.replace("kind: approval\n", ""),
        good.replace("person: alice\n", "person: alice\nperson: bob\n"),
        good.replace("sha256:0101", "sha256:0A01"),
        good.replace("sha256:01", "sha256:"),
        good.replace("T12:00:00Z", "T12:00:00+00:00"),
        good.replace("made: 2026-01-01", "made: 2026-1-1"),
        good.replace('\n', "\r\n"),
        good.trim_end().to_string(),
        format!("{good}\n"),
        format!("{good}more: x\n"),
        "x".repeat(9000),
        String::new(),
    ] {
        assert_ne!(changed, good);
        assert!(Statement::parse(&changed).is_err(), "{changed}");
    }
}

#[test]
fn there_is_one_way_to_name_what_is_ended() {
    let id = Uuid::from_u128(0x018f_6a0e_0000_7000_8000_0000_0000_00ab);
    let said = Said::Ending { of: Named::Elevation(id), reason: "mended".into() };
    let good = statement(said).text().unwrap();
    let line = format!("elevation: {id}\n");
    assert!(good.contains(&line), "{good}");
    let hash = format!("request: sha256:{}\n", "01".repeat(32));
    for changed in [
        id.simple().to_string(),
        id.to_string().to_uppercase(),
        format!("urn:uuid:{id}"),
        format!("{{{id}}}"),
        "1".into(),
    ]
    .map(|other| good.replace(&id.to_string(), &other))
    .into_iter()
    .chain([
        good.replace(&line, ""),
        good.replace(&line, &line.repeat(2)),
        good.replace(&line, &format!("{line}{hash}")),
        good.replace(&line, &format!("{hash}{line}")),
        good.replace("kind: ending", "kind: denial"),
    ]) {
        assert_ne!(changed, good);
        assert!(Statement::parse(&changed).is_err(), "{changed}");
    }
}

#[test]
fn a_file_survives_the_mail_and_nothing_may_be_added_to_it() {
    let signed: Vec<_> = statements()
        .into_iter()
        .map(|statement| Signed::make(statement, |text| own_key().sign(text)).unwrap())
        .collect();
    let text = write(&signed).unwrap();
    assert_eq!(read(&text, Demands::default()).unwrap(), signed);
    let mailed = format!("\r\n{}\r\n \r\n", text.replace('\n', "\r\n"));
    assert_eq!(read(&mailed, Demands::default()).unwrap(), signed);
    let (one, other) = (write(&signed[..1]).unwrap(), write(&signed[1..2]).unwrap());
    let (said, signature) = one.split_at(one.find("-----BEGIN SSH").unwrap());
    let wrong = other.split_at(other.find("-----BEGIN SSH").unwrap()).1;
    for changed in [
        String::new(),
        said.to_string(),
        signature.to_string(),
        [said, wrong].concat(),
        [said, signature, signature].concat(),
        [said, signature, wrong].concat(),
        [said, signature, "Kind regards\n"].concat(),
        ["Dear all\n", said, signature].concat(),
        [said, "\n", signature].concat(),
    ] {
        assert!(read(&changed, Demands::default()).is_err(), "{changed}");
    }
    // Somebody else may sign the same.
    let both = Signed {
        signatures: vec![
            signed[0].signatures[0].clone(),
            own_key().sign(signed[0].statement.text().unwrap().as_bytes()).unwrap(),
        ],
        ..signed[0].clone()
    };
    let text = write(std::slice::from_ref(&both)).unwrap();
    assert_eq!(read(&text, Demands::default()).unwrap(), [both]);
    assert!(read(&text.repeat(40), Demands::default()).is_err());
}

#[test]
fn the_private_half_and_other_kinds_of_keys_are_not_taken() {
    for (line, says) in [
        ("-----BEGIN OPENSSH PRIVATE KEY-----", "private half"),
        ("ssh-ed25519", "cannot be read"),
        ("ssh-ed25519 AAAA", "cannot be read"),
        ("", "cannot be read"),
    ] {
        let error = PublicKey::parse(line).unwrap_err();
        assert!(why(&error).contains(says), "{line}: {}", why(&error));
    }
    let key = own_key();
    let line = key.public().line().unwrap();
    let (parsed, comment) = PublicKey::parse(&format!("{line} alice's \u{1b}laptop\n")).unwrap();
    assert_eq!((&parsed, &comment[..]), (key.public(), "alice's \u{fffd}laptop"));
    assert_eq!(PublicKey::parse(&line).unwrap().1, "");
    assert!(PublicKey::parse(&format!("{line} {}", "x".repeat(5000))).is_err());
}

#[test]
fn nothing_of_a_private_half_shows() {
    let pkcs8 = OwnKey::generate().unwrap();
    let key = OwnKey::from_pkcs8(&pkcs8).unwrap();
    assert!(!format!("{key:?}").contains("pair"));
    assert!(OwnKey::from_pkcs8(&crate::secret::Secret::new(vec![1, 2, 3])).is_none());
}

proptest! {
    /// A byte changed, put in or left out: nothing that was signed is left.
    #[test]
    fn any_change_of_any_byte_of_a_file_voids_it(
        which in 0..9_usize, at in any::<prop::sample::Index>(), byte in any::<u8>(), how in 0..3,
    ) {
        let key = own_key();
        let signed = Signed::make(statements().remove(which), |text| key.sign(text)).unwrap();
        let text = write(std::slice::from_ref(&signed)).unwrap();
        let mut bytes = text.clone().into_bytes();
        let at = at.index(bytes.len());
        match how {
            0 => bytes[at] = byte,
            1 => bytes.insert(at, byte),
            _ => drop(bytes.remove(at)),
        }
        let Ok(changed) = String::from_utf8(bytes) else { return Ok(()) };
        let same = changed.replace("\r\n", "\n").trim() == text.trim();
        match read(&changed, Demands::default()) {
            Ok(read) => prop_assert!(same && read == [signed], "{changed}"),
            Err(_) => prop_assert!(!same, "{changed}"),
        }
    }

    #[test]
    fn any_change_of_any_bit_of_what_is_signed_voids_it(
        message in prop::collection::vec(any::<u8>(), 1..200), at in any::<prop::sample::Index>(), bit in 0..8,
    ) {
        let signature = own_key().sign(&message).unwrap();
        let mut changed = message.clone();
        let at = at.index(changed.len());
        changed[at] ^= 1_u8 << bit;
        prop_assert!(signature.verify(&message, Demands::default()).is_ok());
        prop_assert!(signature.verify(&changed, Demands::default()).is_err());
    }
}
