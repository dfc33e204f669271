//! The same for the broker's own secrets: the key-encryption key, what signs tokens and the
//! audit log, and the key of its TLS.

use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::support::aws::python_program;
use crate::support::broker::{Broker, BrokerOptions, KEK_VARIABLE};
use crate::support::home::tmpcred;
use crate::support::http::Http;
use crate::support::oidc_provider::OidcProvider;
use crate::support::tls::{Authority, ServerCertificate};
use crate::support::wait::free_port;

/// Opens the root key of a database with the key-encryption key, and the signing keys with that,
/// as whoever has both can; but does not check the seal, and so need not know what it is bound to: the first
/// block of AES-GCM is counted as 2.
const UNSEAL: &str = r#"
import base64, json, os, sqlite3, sys
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
kek = base64.b64decode(os.environ['TMPCRED_BROKER_KEK'])
def opened(key, sealed):
    nonce, sealed = sealed[:12], sealed[12:-16]
    cipher = Cipher(algorithms.AES(key), modes.CTR(nonce + bytes([0, 0, 0, 2])))
    return cipher.decryptor().update(sealed)
database = sqlite3.connect(sys.argv[1])
(sealed,), = database.execute('select sealed from root_key')
root = opened(kek, sealed)
assert len(root) == 32, 'no root key'
keys = []
for purpose, algorithm, sealed in database.execute('select purpose, algorithm, sealed from signing_key'):
    plain = opened(root, sealed)
    assert plain[0] == 0x30, 'no PKCS #8 document'
    keys.append([f'{purpose} key ({algorithm})', base64.b64encode(plain).decode()])
print(json.dumps([base64.b64encode(root).decode(), keys]))
"#;

/// A broker as talkative as it can be, with TLS and a key-encryption key that nobody else
/// has.
struct Talkative {
    provider: OidcProvider,
    broker: Broker,
    authority: Authority,
    tls: ServerCertificate,
    metrics: String,
    kek: [u8; 32],
}

impl Talkative {
    fn start() -> Self {
        let provider = OidcProvider::start();
        let authority = Authority::new();
        let tls = authority.certify("127.0.0.1");
        let mut kek = [0; 32];
        aws_lc_rs::rand::fill(&mut kek).unwrap();
        let mut home = Home::new();
        home.set(KEK_VARIABLE, STANDARD.encode(kek));
        home.set("TMPCRED_LOG", "trace");
        home.set("RUST_LOG", "trace");
        let admin = free_port();
        let mut options = BrokerOptions::trusting(provider.issuer());
        options.tls = Some(tls.clone());
        options.more = format!("\n[admin]\nlisten = \"127.0.0.1:{admin}\"\n");
        let broker = Broker::start_in(home, &options);
        let metrics = format!("http://127.0.0.1:{admin}/metrics");
        Self { provider, broker, authority, tls, metrics, kek }
    }

    /// A command for those who run the broker.
    fn command(&self, words: &[&str]) -> Output {
        let run = tmpcred(&self.broker.home).args(["broker"]).args(words);
        run.args(["--config"]).args([self.broker.home.path("broker.toml")]).run().ok()
    }

    /// The root key that the store has, and all keys that it seals, with what they are for, as
    /// PKCS #8 documents.
    fn keys(&self) -> (Vec<u8>, Vec<(String, Vec<u8>)>) {
        let python = self.broker.home.command(python_program("python3")).args(["-c", UNSEAL]);
        let keys = python.args([self.broker.home.path("broker.db")]).run().ok().json();
        let (root, keys): (String, Vec<(String, String)>) = serde_json::from_value(keys).unwrap();
        let decoded = |text: String| STANDARD.decode(text).unwrap();
        let keys = keys.into_iter().map(|(what, text)| (what, decoded(text))).collect();
        (decoded(root), keys)
    }
}

/// What is secret in the PKCS #8 document of a key on a curve: the scalar of P-256 behind
/// the version of RFC 5915, or the seed of Ed25519 (RFC 8410).
#[track_caller]
fn secret_of(pkcs8: &[u8]) -> &[u8] {
    let before: [&[u8]; 2] = [&[2, 1, 1, 4, 32], &[4, 34, 4, 32]];
    let found = before.iter().find_map(|before| {
        let at = pkcs8.windows(before.len()).position(|window| window == *before)?;
        pkcs8.get(at + before.len()..)?.get(..32)
    });
    found.unwrap()
}

#[test]
fn no_secret_of_the_broker_itself_shows_anywhere() {
    let talkative = Talkative::start();
    let pem = std::fs::read_to_string(&talkative.tls.key).unwrap();
    let body: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let tls = STANDARD.decode(body).unwrap();
    let kek = Canary::of_bytes("key-encryption key", talkative.kek);
    let mut canaries = vec![
        Canary::of("key-encryption key as text", STANDARD.encode(talkative.kek)),
        Canary::of_bytes("TLS key", secret_of(&tls)),
        kek.clone(),
    ];

    // Tokens that are issued, checked, refused, revoked.
    let mut home = Home::new();
    Browser::http().user("alice", "x").install(&mut home);
    home.set("TMPCRED_NO_INPUT", "false");
    home.config(&format!(
        "default_profile = \"deploy\"\n[identity.corp]\ntype = \"oidc\"\nissuer = \"{}\"\n\
         client_id = \"cli\"\n[broker.main]\nurl = \"{}\"\nca_file = {:?}\n\
         [profile.deploy]\nrole = \"deploy\"\naudience = \"{API}\"\n\
         [profile.none]\nrole = \"none\"\naudience = \"{API}\"\n",
        talkative.provider.issuer(),
        talkative.broker.url(),
        talkative.authority.pem()
    ));
    let person = |args: &[&str]| tmpcred(&home).args(args);
    let token = person(&["token"]).run().ok().stdout.trim().to_string();
    let verify =
        |token: &str| person(&["verify", "--audience", API, "--online"]).stdin(token).run();
    verify(&token).ok();
    person(&["exec", "--revoke-on-exit", "--", "true"]).run().ok();
    person(&["token", "none"]).run().ended_with(5);
    assert_ne!(verify(&format!("{token}x")).code, Some(0));
    canaries.push(Canary::of("issued token", token));

    // What those do who run it.
    let mut said = String::new();
    for words in [
        &["keys", "rotate"][..],
        &["keys", "list", "--json"],
        &["keys", "export", "keys"],
        &["audit", "export"],
        &["audit", "checkpoint"],
        &["backup", "backup.db"],
    ] {
        let output = talkative.command(words);
        said += &(output.stdout + &output.stderr);
    }
    let (root_key, keys) = talkative.keys();
    canaries.push(Canary::of_bytes("root key", root_key));
    assert!(keys.len() >= 3, "{} keys", keys.len());
    for (what, pkcs8) in &keys {
        canaries.push(Canary::of_bytes(what, secret_of(pkcs8)));
    }
    let metrics = Http::new().get(&talkative.metrics).unwrap().body;
    let log = talkative.broker.said();
    for canary in &canaries {
        assert_eq!(canary.search_processes(), []);
        assert_eq!(canary.search("the broker's log", log.as_bytes()), []);
        assert_eq!(canary.search("what commands say", said.as_bytes()), []);
        assert_eq!(canary.search("the metrics", metrics.as_bytes()), []);
        assert_eq!(canary.search_files(&talkative.broker.home.path("")), []);
    }

    // All of that is there, and what is in it would be found.
    for part in [" DEBUG sqlx::query: ", "tmpcred::broker::keys::keeper: ", "::token: issued "] {
        assert!(log.contains(part), "{part:?} is not in:\n{log}");
    }
    assert!(said.contains("issued") && metrics.contains("tmpcred_issuance"), "{said}\n{metrics}");
    for name in ["broker.db", "broker.db-wal", "work/backup.db", "work/keys"] {
        assert!(talkative.broker.home.path(name).exists(), "there is no {name}");
    }
    let variables = format!("{:?}", talkative.broker.home.variables());
    assert_ne!(kek.search("the variables", variables.as_bytes()), []);
    assert_ne!(canaries[1].search("the key's file", &tls), []);
    assert_ne!(canaries[2].search("as a list", format!("{:?}", talkative.kek).as_bytes()), []);
}
