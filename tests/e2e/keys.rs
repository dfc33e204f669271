//! The broker's signing keys: rotated, revoked and exported while it runs.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::support::broker::{API, Broker, BrokerOptions, KEK};
use super::support::home::tmpcred;
use super::support::http::{Http, Reply};
use super::support::peer::{node_script, program};
use super::support::run::{Output, Run};
use super::support::wait::wait_until;

const ISSUER: &str = "https://jobs.example.com";

/// How long something may take that takes a few seconds.
const SOON: Duration = Duration::from_secs(20);

/// How long a rotation may take whose key is published for 15 seconds.
const ROTATION: Duration = Duration::from_secs(90);

/// A broker, and jobs whose keys it has in a file.
struct Site {
    broker: Broker,
    key: jsonwebtoken::EncodingKey,
    _keys: tempfile::TempDir,
}

impl Site {
    fn start() -> Self {
        Self::start_with("")
    }

    /// With this under `[keys]` besides.
    fn start_with(more: &str) -> Self {
        use aws_lc_rs::rand::SystemRandom;
        use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
        use jsonwebtoken::jwk::{Jwk, JwkSet};
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        let key = jsonwebtoken::EncodingKey::from_ec_der(pkcs8.unwrap().as_ref());
        let public = Jwk::from_encoding_key(&key, jsonwebtoken::Algorithm::ES256).unwrap();
        let keys = tempfile::tempdir().unwrap();
        let jwks = keys.path().join("jobs.json");
        std::fs::write(&jwks, serde_json::to_string(&JwkSet { keys: vec![public] }).unwrap())
            .unwrap();
        let mut options = BrokerOptions::trusting("http://127.0.0.1:9");
        options.policy = options.policy.replace(") @ttl", ") @any_issuer @ttl");
        options.more = format!(
            "\n[keys]\npublish_before = \"15s\"\n{more}\n\
             [trusted_issuer.jobs]\nissuer = \"{ISSUER}\"\njwks_file = {jwks:?}\n"
        );
        Self { broker: Broker::start(&options), key, _keys: keys }
    }

    /// A token, from the process at this address.
    #[track_caller]
    fn token(&self, http: &mut Http, url: &str) -> String {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let claims = json!({
            "iss": ISSUER, "sub": "job", "aud": self.broker.url(),
            "iat": now.as_secs(), "exp": now.as_secs() + 300,
        });
        let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256);
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("subject_token", &jsonwebtoken::encode(&header, &claims, &self.key).unwrap()),
            ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
            ("audience", API),
            ("role", "reader"),
        ];
        let reply = answer(|| http.form(&format!("{url}/token"), &form).unwrap()).json();
        reply["access_token"].as_str().unwrap_or_else(|| panic!("{reply}")).to_string()
    }

    fn new_token(&self) -> String {
        self.token(&mut Http::new(), self.broker.url())
    }

    /// `tmpcred broker keys`.
    fn keys(&self, args: &[&str]) -> Run {
        let home = &self.broker.home;
        let run = tmpcred(home).args(["broker", "keys"]).args(args);
        run.args(["--config"]).args([home.path("broker.toml")]).env("TMPCRED_BROKER_KEK", KEK)
    }

    #[track_caller]
    fn list(&self) -> Vec<Value> {
        let keys = self.keys(&["list", "--json"]).run().ok().json();
        let keys = keys.as_array().unwrap().iter();
        keys.filter(|key| key["purpose"] == "access-token").cloned().collect()
    }

    /// The keys in this state.
    #[track_caller]
    fn in_state(&self, state: &str) -> Vec<String> {
        let keys = self.list();
        let these = keys.iter().filter(|key| key["state"] == state);
        these.map(|key| key["kid"].as_str().unwrap().to_string()).collect()
    }

    /// What the audit log says of keys.
    fn recorded(&self) -> String {
        let read = "import sqlite3,sys; print('\\n'.join(f'{s}: {r}' for s, r in
            sqlite3.connect(sys.argv[1]).execute('''select subject, reason from audit_record
            where action = 'key' order by sequence''')))";
        let python = self.broker.home.command("python3").args(["-c", read]);
        python.args([self.broker.home.path("broker.db")]).run().ok().stdout
    }
}

fn kid(token: &str) -> String {
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
    let header: Value = serde_json::from_slice(&header).unwrap();
    header["kid"].as_str().unwrap().to_string()
}

/// An answer that is one: where the disk is slow for a while, a broker says that it cannot
/// answer now, and its callers ask again.
#[track_caller]
fn answer(mut ask: impl FnMut() -> Reply) -> Reply {
    wait_until("an answer that is one", SOON, || Some(ask()).filter(|reply| reply.status != 503))
}

#[track_caller]
fn is_active(url: &str, token: &str) -> bool {
    let url = format!("{url}/introspect");
    let reply = answer(|| Http::new().form_as(token, &url, &[("token", token)]).unwrap());
    reply.json()["active"] == true
}

/// A resource owner's copy of the keys, kept as long as it may be.
struct Cached {
    kids: BTreeSet<String>,
    until: Instant,
}

impl Cached {
    #[track_caller]
    fn fetch(http: &mut Http, url: &str) -> Self {
        let asked = Instant::now();
        let reply = http.get(&format!("{url}/jwks.json")).unwrap();
        let said = reply.cache_control.clone().unwrap();
        let seconds = said.split_once("max-age=").unwrap().1.parse().unwrap();
        let keys = reply.json();
        let kids = keys["keys"].as_array().unwrap().iter();
        let kids = kids.map(|key| key["kid"].as_str().unwrap().to_string()).collect();
        // Some keep it a little longer than others.
        Self { kids, until: asked + Duration::from_secs(seconds) }
    }
}

/// Exchanges tokens at both processes until it is told to stop. No key may be unknown to
/// who keeps the JWKS as long as it may. Returns the keys that signed.
fn load(site: &Site, urls: &[&str; 2], stop: &AtomicBool) -> BTreeSet<String> {
    let mut http = Http::new();
    let mut cached = Cached::fetch(&mut http, urls[0]);
    let mut seen = BTreeSet::new();
    let mut turn = 0;
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        let token = site.token(&mut http, urls[turn % 2]);
        if Instant::now() >= cached.until {
            cached = Cached::fetch(&mut http, urls[turn / 2 % 2]);
        }
        let kid = kid(&token);
        assert!(cached.kids.contains(&kid), "{kid} signs, and is not among {:?}", cached.kids);
        seen.insert(kid);
    }
    seen
}

#[test]
fn keys_are_rotated_and_revoked_under_load_with_two_processes() {
    let site = Site::start();
    let twin = site.broker.twin();
    let urls = [site.broker.url(), twin.url.as_str()];
    let first = site.new_token();
    assert_eq!(site.in_state("active"), [kid(&first)]);

    let stop = AtomicBool::new(false);
    let second = std::thread::scope(|scope| {
        let loads = [(); 2].map(|()| scope.spawn(|| load(&site, &urls, &stop)));
        let ended = site.keys(&["rotate"]).run().ok().stderr;
        assert!(
            ended.contains("The rotation has begun.") && ended.contains("signs from"),
            "{ended}"
        );
        let [next] = &site.in_state("published")[..] else { panic!("{:?}", site.list()) };
        let again = site.keys(&["rotate"]).run().ok().stderr;
        assert!(again.contains("under way") && again.contains(next), "{again}");
        let signs = |url: &&str| kid(&site.token(&mut Http::new(), url)) == *next;
        wait_until("the next key signs at both", ROTATION, || urls.iter().all(signs).then_some(()));
        stop.store(true, Ordering::Relaxed);
        for load in loads {
            let seen = load.join().unwrap();
            assert!(seen.contains(&kid(&first)), "{seen:?}");
        }
        next.clone()
    });
    assert_eq!(site.in_state("retired"), [kid(&first)]);
    assert!(urls.iter().all(|url| is_active(url, &first)), "its key is retired, no more");

    let token = site.new_token();
    assert_eq!(kid(&token), second);
    // Whoever keeps what is shown at this moment knows the key that signs after this one.
    let [third] = &site.in_state("prepared")[..] else { panic!("{:?}", site.list()) };
    let kept = urls.map(|url| {
        wait_until("the key that waits is shown", SOON, || {
            let cached = Cached::fetch(&mut Http::new(), url);
            cached.kids.contains(third).then_some(cached.kids)
        })
    });
    let said = site.keys(&["revoke", &second, "--reason", "it leaked"]).run().ok().stderr;
    assert_eq!(site.in_state("active"), std::slice::from_ref(third));
    assert!(said.contains("1 key is revoked") && said.contains(third), "{said}");
    let gone = || urls.iter().all(|url| !is_active(url, &token)).then_some(());
    wait_until("nobody accepts what the revoked key signed", SOON, gone);
    let [fourth] = &site.in_state("prepared")[..] else { panic!("{:?}", site.list()) };
    for (url, kept) in urls.iter().zip(kept) {
        assert!(is_active(url, &first), "another key signed it");
        let signer = kid(&site.token(&mut Http::new(), url));
        assert!(signer == *third && kept.contains(&signer), "{signer}: {kept:?}");
        let shown = Cached::fetch(&mut Http::new(), url).kids;
        assert_eq!(shown, [kid(&first), third.clone(), fourth.clone()].into());
    }
    let recorded = site.recorded();
    for expected in [
        format!("broker: the signing key {} (made) is active: no other key signs", kid(&first)),
        format!(
            "operator: the signing key {second} (prepared) is published: a rotation was asked for"
        ),
        format!("broker: the signing key {second} (published) is active: it has been"),
        format!("operator: the signing key {second} (active) is revoked: it leaked"),
        format!("operator: the signing key {third} (prepared) is active: no other key signs"),
        format!(
            ": the signing key {fourth} (made) is prepared: it signs where the one that does is"
        ),
    ] {
        assert_eq!(recorded.matches(&expected).count(), 1, "{expected}\n{recorded}");
    }
    assert_eq!(recorded.lines().count(), 9, "{recorded}");
}

/// What an independent verifier says of a token, that has exported keys only.
#[track_caller]
fn verified(site: &Site, directory: &Path, token: &str) -> Value {
    let node = site.broker.home.command(program("node")).args([node_script("jose-verify.mjs")]);
    let node = node.args([directory]).args([site.broker.url(), API]);
    node.stdin(token.to_string()).run().ok().json()
}

#[test]
fn tokens_of_each_algorithm_are_good_for_an_independent_verifier() {
    for algorithm in ["EdDSA", "RS256"] {
        let site = Site::start_with(&format!("algorithm = \"{algorithm}\"\n"));
        let token = site.new_token();
        let directory = site.broker.home.path("public");
        site.keys(&["export", directory.to_str().unwrap()]).run().ok();
        assert_eq!(verified(&site, &directory, &token), json!({"role": "reader"}), "{algorithm}");
        let forged = format!("{}A", &token[..token.len() - 1]);
        let forged =
            if forged == token { format!("{}Q", &token[..token.len() - 1]) } else { forged };
        assert!(verified(&site, &directory, &forged)["error"].is_string(), "{algorithm}");
        let keys = site.list();
        assert_eq!(keys.len(), 2, "one signs, and one waits");
        assert!(keys.iter().all(|key| key["algorithm"] == algorithm), "{keys:?}");
        let reply = Http::new().get(&format!("{}/jwks.json", site.broker.url())).unwrap().json();
        let shown = reply["keys"].as_array().unwrap();
        assert!(shown.iter().all(|key| key["alg"] == algorithm), "{reply}");
        assert!(shown.iter().any(|key| key["kid"] == kid(&token)), "{reply}");
    }
}

#[test]
fn exported_keys_serve_who_cannot_reach_the_broker() {
    let site = Site::start();
    let token = site.new_token();
    let directory = site.broker.home.path("public");
    let export = || -> Output { site.keys(&["export", directory.to_str().unwrap()]).run().ok() };
    let verify = |token: &str| verified(&site, &directory, token);
    let written = export().stdout;
    assert_eq!(written.lines().count(), 2, "{written}");
    assert_eq!(verify(&token), json!({"role": "reader"}));
    // It is what the broker itself shows.
    for name in ["jwks.json", ".well-known/openid-configuration"] {
        let shown = Http::new().get(&format!("{}/{name}", site.broker.url())).unwrap().json();
        let exported = std::fs::read(directory.join(name)).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&exported).unwrap(), shown);
    }

    // A key that does not sign yet is in it; one that is revoked is not.
    site.keys(&["rotate"]).run().ok();
    let next = site.in_state("published").remove(0);
    export();
    let jwks = std::fs::read_to_string(directory.join("jwks.json")).unwrap();
    assert!(jwks.contains(&next) && !jwks.contains("\"d\""), "{jwks}");
    let leaked = kid(&token);
    let first = site.keys(&["revoke", &leaked]).run().ok().stderr;
    assert!(first.contains("1 key is revoked."), "{first}");
    let again = site.keys(&["revoke", &leaked]).run().ok().stderr;
    assert!(again.contains("was revoked before") && !again.contains("is revoked."), "{again}");
    assert_eq!(site.in_state("active"), std::slice::from_ref(&next));
    export();
    assert_eq!(verify(&token), json!({"error": "ERR_JWKS_NO_MATCHING_KEY"}));
    let signs = || Some(site.new_token()).filter(|token| kid(token) == next);
    let token = wait_until("the published key signs at once", SOON, signs);
    assert_eq!(verify(&token), json!({"role": "reader"}));
    // Nor does a revocation in a hurry need another export, once.
    let [spare] = &site.in_state("prepared")[..] else { panic!("{:?}", site.list()) };
    site.keys(&["revoke", &next]).run().ok();
    let signs = || Some(site.new_token()).filter(|token| kid(token) == *spare);
    let token = wait_until("the prepared key signs at once", SOON, signs);
    assert_eq!(verify(&token), json!({"role": "reader"}));
}

#[test]
fn who_lacks_the_key_encryption_key_or_names_no_key_changes_nothing() {
    let site = Site::start();
    let before = site.list();
    let unknown = site.keys(&["revoke", "x"]).run().ended_with(2);
    assert!(unknown.stderr.contains("there is no key 'x'"), "{}", unknown.stderr);
    let other = "YWJjZGVmZ2hpamtsbW5vcGFiY2RlZmdoaWprbG1ub3A=";
    for args in [&["rotate"][..], &["list"], &["revoke", before[0]["kid"].as_str().unwrap()]] {
        let refused = site.keys(args).env("TMPCRED_BROKER_KEK", other).run().ended_with(3);
        assert!(
            refused.stderr.contains("the key-encryption key does not open"),
            "{}",
            refused.stderr
        );
    }
    assert_eq!(site.list(), before);
    let shown = site.keys(&["list"]).run().ok().stdout;
    assert!(shown.contains("active") && shown.contains("ES256"), "{shown}");
    std::fs::remove_file(site.broker.home.path("broker.db")).unwrap();
    let none = site.keys(&["list"]).run().ended_with(3);
    assert!(none.stderr.contains("there is no database"), "{}", none.stderr);
}
