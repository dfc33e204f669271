//! Keys that a real `ssh-agent` has; and agents that misbehave, written by hand.
#![expect(clippy::disallowed_methods, reason = "an agent that misbehaves listens by itself")]

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use super::super::*;
use super::peer::{OpenSsh, env_with};
use super::{own_key, why};
use crate::error::ErrorKind;
use crate::host::env::Env;

const MESSAGE: &[u8] = b"what is signed";

#[test]
fn an_agent_signs_with_each_type_of_key_that_it_has() {
    let openssh = OpenSsh::new();
    let agent = openssh.agent();
    let types: [&[&str]; 6] = [
        &["ed25519"],
        &["ecdsa", "-b", "256"],
        &["ecdsa", "-b", "384"],
        &["rsa", "-b", "3072"],
        &["ed25519-sk"],
        &["ecdsa-sk"],
    ];
    let mut expected = Vec::new();
    for (index, kind) in types.into_iter().enumerate() {
        let name = format!("key-{index}");
        expected.push(PublicKey::parse(&openssh.key(&name, kind)).unwrap().0);
        agent.take(&openssh, &name);
    }
    // Those that are not for this are left out.
    openssh.key("short", &["rsa", "-b", "2048"]);
    agent.take(&openssh, "short");
    let ours = Agent::of(&agent.env()).unwrap();
    let keys = ours.keys().unwrap();
    let found: Vec<_> = keys.iter().map(|key| key.public.clone()).collect();
    assert_eq!(found, expected);
    assert!(keys.iter().all(|key| key.comment == "alice's key"));
    for key in &keys {
        let named = ours.key(Some(&key.public.fingerprint())).unwrap();
        assert_eq!(named, *key);
        let signature = ours.sign(&key.public, MESSAGE).unwrap();
        signature.verify(MESSAGE, Demands::default()).unwrap();
        let line = key.public.line().unwrap();
        let message = std::str::from_utf8(MESSAGE).unwrap();
        assert!(openssh.verifies(&line, &signature.armored().unwrap(), message), "{line}");
    }
    let error = ours.key(None).unwrap_err();
    assert!(error.hints()[0].contains(&expected[0].fingerprint()), "{error:?}");
    let error = ours.key(Some(&own_key().public().fingerprint())).unwrap_err();
    assert!(error.to_string().contains("does not have this key"), "{error}");
}

#[test]
fn an_agent_that_refuses_is_locked_or_gone_is_told_of() {
    let openssh = OpenSsh::new();
    let mut agent = openssh.agent();
    let public = PublicKey::parse(&openssh.key("id", &["ed25519"])).unwrap().0;
    let ours = Agent::of(&agent.env()).unwrap().within(Duration::from_secs(20));
    let error = ours.key(None).unwrap_err();
    assert!(error.to_string().contains("has no key that can be used"), "{error}");
    let error = ours.sign(&public, MESSAGE).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");

    // To be confirmed, which nobody does.
    let env = [("SSH_AUTH_SOCK", agent.socket.as_path())];
    openssh.run("ssh-add", &["-q", "-c", "id"], &env);
    let error = ours.sign(&public, MESSAGE).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    openssh.run("ssh-add", &["-q", "-D"], &env);
    agent.take(&openssh, "id");
    ours.sign(&public, MESSAGE).unwrap();

    openssh.write("lock", "#!/bin/sh\necho secret\n");
    openssh.run("chmod", &["+x", "lock"], &[]);
    let ask = openssh.path("lock");
    let asked = [
        ("SSH_AUTH_SOCK", agent.socket.as_path()),
        ("SSH_ASKPASS", &ask),
        ("SSH_ASKPASS_REQUIRE", "force".as_ref()),
    ];
    openssh.run("ssh-add", &["-x"], &asked);
    let error = ours.key(None).unwrap_err();
    assert!(error.hints().iter().any(|hint| hint.contains("ssh-add -X")), "{error:?}");
    let error = ours.sign(&public, MESSAGE).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    openssh.run("ssh-add", &["-X"], &asked);
    ours.sign(&public, MESSAGE).unwrap();

    agent.end();
    let error = ours.sign(&public, MESSAGE).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
    for env in [Env::default(), env_with("".as_ref())] {
        let error = Agent::of(&env).unwrap_err();
        assert!(why(&error).contains("SSH_AUTH_SOCK is not set"), "{}", why(&error));
    }
}

/// What an agent says that is none, to whoever asks; it hangs where it says nothing.
fn saying(answer: Option<Vec<u8>>) -> (tempfile::TempDir, Agent) {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        while let Ok((mut stream, _)) = listener.accept() {
            let mut length = [0; 4];
            if stream.read_exact(&mut length).is_err() {
                continue;
            }
            let mut asked = vec![0; u32::from_be_bytes(length) as usize];
            let _ = stream.read_exact(&mut asked);
            match &answer {
                Some(answer) => drop(stream.write_all(answer)),
                None => held.push(stream),
            }
        }
    });
    let agent = Agent::of(&env_with(&socket)).unwrap();
    (dir, agent)
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], body].concat()
}

#[test]
fn an_agent_that_hangs_is_given_up() {
    let (_dir, agent) = saying(None);
    let agent = agent.within(Duration::from_millis(300));
    let began = Instant::now();
    for error in [agent.keys().unwrap_err(), agent.sign(own_key().public(), MESSAGE).unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
    }
    assert!(began.elapsed() < Duration::from_secs(20));
    // The same where it does not even take the connection.
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    let agent = Agent::of(&env_with(&socket)).unwrap().within(Duration::from_millis(300));
    assert_eq!(agent.keys().unwrap_err().kind(), ErrorKind::Unreachable);
}

#[test]
fn an_agent_that_talks_nonsense_or_signs_something_else_is_not_believed() {
    let key = own_key();
    let other = own_key();
    let signature = other.sign(MESSAGE).unwrap();
    let raw = ssh_key::SshSig::from_pem(signature.armored().unwrap()).unwrap();
    let raw = Vec::try_from(raw.signature().clone()).unwrap();
    let signed = |more: &[u8]| framed(&[&[14], &framed(&raw)[..], more].concat());
    for answer in [
        Vec::new(),
        vec![0, 0, 0, 0],
        vec![0xff, 0xff, 0xff, 0xff],
        vec![0, 0, 0, 9, 14],
        framed(&[99]),
        framed(&[14, 0, 0, 0, 9]),
        signed(&[]),
        signed(b"x"),
    ] {
        let (_dir, agent) = saying(Some(answer.clone()));
        let error = agent.within(Duration::from_secs(20)).sign(key.public(), MESSAGE);
        let kind = error.unwrap_err().kind();
        assert!(matches!(kind, ErrorKind::Verification | ErrorKind::Unreachable), "{answer:?}");
    }
    for answer in [framed(&[12]), framed(&[12, 0, 0, 0, 9, 0, 0, 0, 9])] {
        let (_dir, agent) = saying(Some(answer));
        let error = agent.within(Duration::from_secs(20)).keys().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Verification, "{error}");
    }
    // Keys that nobody can read are left out.
    let answer = framed(&[&[12, 0, 0, 0, 1][..], &framed(b"key"), &framed(b"\x1bname")].concat());
    let (_dir, agent) = saying(Some(answer));
    assert_eq!(agent.within(Duration::from_secs(20)).keys().unwrap(), []);
}
