//! Signatures of `ssh-keygen -Y sign` are good here, and ours are good for
//! `ssh-keygen -Y verify`.

use super::super::*;
use super::peer::OpenSsh;
use super::{own_key, statement, why};

const MESSAGE: &str = "tmpcred statement 1\nkind: …\n";

/// The types of `ssh-keygen -t` that are accepted, and what kind each is.
const TYPES: [(&[&str], Kind); 6] = [
    (&["ed25519"], Kind::Ed25519),
    (&["ecdsa", "-b", "256"], Kind::EcdsaP256),
    (&["ecdsa", "-b", "384"], Kind::EcdsaP384),
    (&["rsa", "-b", "3072"], Kind::Rsa),
    (&["ed25519-sk"], Kind::SkEd25519),
    (&["ecdsa-sk"], Kind::SkEcdsaP256),
];

impl OpenSsh {
    /// Has `ssh-keygen` sign a message, and returns the signature.
    pub(super) fn sign(&self, key: &str, namespace: &str, more: &[&str], message: &str) -> String {
        let token = self.security_key();
        self.sign_with(key, namespace, more, message, &[("SSH_SK_PROVIDER", &token)])
    }

    /// The same with these variables.
    pub(crate) fn sign_with(
        &self,
        key: &str,
        namespace: &str,
        more: &[&str],
        message: &str,
        env: &[(&str, &std::path::Path)],
    ) -> String {
        self.write("message", message);
        let args = [&["-Y", "sign", "-n", namespace, "-f", key], more, &["message"]].concat();
        self.run("ssh-keygen", &args, env);
        let signature = self.read("message.sig");
        self.remove("message.sig");
        signature
    }

    /// Whether `ssh-keygen` finds this signature good.
    pub(super) fn verifies(&self, public: &str, signature: &str, message: &str) -> bool {
        self.write("allowed", format!("alice {public}\n"));
        self.write("given.sig", signature);
        self.write("message", message);
        let verify = format!(
            "ssh-keygen -Y verify -f allowed -I alice -n {NAMESPACE} -s given.sig <message"
        );
        self.try_run("sh", &["-c", &verify], &[]).status.success()
    }
}

#[test]
fn signatures_of_ssh_keygen_are_good_for_each_type_of_key_and_hash() {
    let openssh = OpenSsh::new();
    for (index, (kind_args, kind)) in TYPES.into_iter().enumerate() {
        let name = format!("key-{index}");
        let line = openssh.key(&name, kind_args);
        let (public, comment) = PublicKey::parse(&line).unwrap();
        assert_eq!((public.kind(), &comment[..]), (kind, "alice's key"));
        let listed = openssh.run("ssh-keygen", &["-l", "-f", &name], &[]);
        assert!(listed.contains(&public.fingerprint()), "{listed}");
        assert!(line.starts_with(&public.line().unwrap()));
        for hash in ["sha512", "sha256"] {
            let with = format!("hashalg={hash}");
            let text = openssh.sign(&name, NAMESPACE, &["-O", &with], MESSAGE);
            let signature = Signature::parse(&text).unwrap();
            assert_eq!(*signature.key(), public);
            signature.verify(MESSAGE.as_bytes(), Demands::default()).unwrap();
            assert!(signature.verify(b"another one", Demands::default()).is_err());
            assert_eq!(signature.armored().unwrap(), text);
        }
        let text = openssh.sign(&name, "file", &[], MESSAGE);
        let error = Signature::parse(&text).unwrap_err();
        assert!(why(&error).contains("for 'file'"), "{}", why(&error));
    }
}

#[test]
fn signatures_of_ours_are_good_for_ssh_keygen() {
    let (openssh, key) = (OpenSsh::new(), own_key());
    let text = key.sign(MESSAGE.as_bytes()).unwrap().armored().unwrap();
    let line = key.public().line().unwrap();
    assert!(openssh.verifies(&line, &text, MESSAGE));
    assert!(!openssh.verifies(&line, &text, "another one"));
    assert!(!openssh.verifies(&own_key().public().line().unwrap(), &text, MESSAGE));
}

#[test]
fn a_file_can_be_made_with_nothing_but_ssh_keygen() {
    let openssh = OpenSsh::new();
    let line = openssh.key("id", &["ed25519"]);
    let fingerprint = PublicKey::parse(&line).unwrap().0.fingerprint();
    let said = statement(Said::Enrollment { key: fingerprint, label: "by hand".into() });
    let text = said.text().unwrap();
    let signature = openssh.sign("id", NAMESPACE, &[], &text);
    let file = format!(
        "-----BEGIN TMPCRED STATEMENT-----\n{text}-----END TMPCRED STATEMENT-----\n{signature}"
    );
    let [signed] = &read(&file, Demands::default()).unwrap()[..] else { panic!("{file}") };
    assert_eq!(signed.statement, said);
    assert_eq!(write(std::slice::from_ref(signed)).unwrap(), file);
}

#[test]
fn keys_of_other_kinds_are_refused() {
    let openssh = OpenSsh::new();
    for (name, kind, says) in [
        ("short", &["rsa", "-b", "2048"][..], "2048 bits"),
        ("p521", &["ecdsa", "-b", "521"][..], "ecdsa-sha2-nistp521"),
    ] {
        let error = PublicKey::parse(&openssh.key(name, kind)).unwrap_err();
        assert!(why(&error).contains(says), "{}", why(&error));
        let text = openssh.sign(name, NAMESPACE, &[], MESSAGE);
        let error = Signature::parse(&text).unwrap_err();
        assert!(why(&error).contains(says), "{}", why(&error));
    }
    // A certificate is no key.
    openssh.key("ca", &["ed25519"]);
    openssh.key("user", &["ed25519"]);
    openssh.run("ssh-keygen", &["-q", "-s", "ca", "-I", "x", "user.pub"], &[]);
    let error = PublicKey::parse(&openssh.read("user-cert.pub")).unwrap_err();
    assert!(why(&error).contains("the public key is not acceptable"), "{}", why(&error));
    // A key on a security key for something that is no login by SSH.
    let token = openssh.security_key();
    let args = ["-q", "-N", "", "-f", "web", "-t", "ed25519-sk", "-O", "application=ssh:deploy"];
    openssh.run("ssh-keygen", &args, &[("SSH_SK_PROVIDER", &token)]);
    PublicKey::parse(&openssh.read("web.pub")).unwrap();
}

#[test]
fn a_security_key_that_nobody_touched_or_told_who_holds_it_is_refused() {
    let openssh = OpenSsh::new();
    let token = openssh.security_key();
    for (name, kind) in [("ed", "ed25519-sk"), ("ec", "ecdsa-sk")] {
        let made = ["-q", "-N", "", "-f", name, "-t", kind, "-O", "verify-required"];
        openssh.run("ssh-keygen", &made, &[("SSH_SK_PROVIDER", &token)]);
        let sign = |said: &str| {
            let env = [("SSH_SK_PROVIDER", token.as_path()), ("TEST_SECURITY_KEY", said.as_ref())];
            let text = openssh.sign_with(name, NAMESPACE, &[], MESSAGE, &env);
            Signature::parse(&text).unwrap()
        };
        let wanted = Demands { user_verified: true, ..Demands::default() };
        let verified = sign("");
        verified.verify(MESSAGE.as_bytes(), wanted).unwrap();
        let unverified = sign("unverified");
        unverified.verify(MESSAGE.as_bytes(), Demands::default()).unwrap();
        let error = unverified.verify(MESSAGE.as_bytes(), wanted).unwrap_err();
        assert!(why(&error).contains("by a PIN or a finger"), "{}", why(&error));
        let error = sign("absent").verify(MESSAGE.as_bytes(), Demands::default()).unwrap_err();
        assert!(why(&error).contains("nobody touched"), "{}", why(&error));
    }
}
