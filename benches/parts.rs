//! What the single steps cost. `cargo bench --bench parts`; whole runs are
//! measured by `benches/run`.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use time::OffsetDateTime;
use tmpcred::cache::CredentialKey;
use tmpcred::credential::{self, Credential, Lifetime, Material, Principal};
use tmpcred::deliver::env::Format;
use tmpcred::deliver::mask::{Mask, Patterns};
use tmpcred::deliver::{Handout, token};
use tmpcred::error::{Error, ErrorKind, Result};
use tmpcred::host::Host;
use tmpcred::host::browser::SystemBrowser;
use tmpcred::host::clock::{Clock, SkewMeter, SystemClock};
use tmpcred::host::dirs::Dirs;
use tmpcred::host::env::Env;
use tmpcred::host::interact::Silent;
use tmpcred::secret::Secret;
use tmpcred::{config, plan};

criterion_group! {
    name = parts;
    config = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1));
    targets = planning, decoding, handing_out, masking, verifying, broker
}
criterion_main!(parts);

/// A world of its own, so that nothing of this machine is read.
fn host(root: &std::path::Path) -> Host {
    Host {
        clock: Arc::new(SystemClock),
        env: Env::default(),
        dirs: Dirs::below(root),
        browser: Arc::new(SystemBrowser),
        interact: Arc::new(Silent),
        skew: SkewMeter::default(),
    }
}

fn principal() -> Principal {
    Principal { issuer: "https://login.example.com".into(), subject: "alice".into() }
}

/// A bearer token of the size that a broker issues.
fn bearer() -> Credential {
    let now = OffsetDateTime::from_unix_timestamp(SystemClock.now().unix_timestamp());
    let issued_at = now.unwrap_or(OffsetDateTime::UNIX_EPOCH);
    Credential {
        material: Material::Bearer { token: Secret::new("x".repeat(700)) },
        role: "deploy".into(),
        scope: vec!["deploy:read".into(), "deploy:write".into()],
        principal: principal(),
        lifetime: Lifetime::new(issued_at, issued_at + Duration::from_secs(900), None, issued_at),
    }
}

/// From files to a plan, and from a plan to the name of an item in the keyring.
fn planning(c: &mut Criterion) {
    let mut run = || -> Result<()> {
        let root = tempfile::tempdir().map_err(io)?;
        let host = host(root.path());
        tmpcred::host::files::write_private(&host.dirs.user_config, config::EXAMPLE.as_bytes())?;
        let request = plan::Request::default();
        let planned = plan::plan(&request, &config::load(&host)?)?;
        c.bench_function("configuration and plan", |b| {
            b.iter(|| plan::plan(&request, &config::load(&host)?));
        });
        c.bench_function("cache key", |b| {
            b.iter(|| CredentialKey::new(&black_box(&planned).fingerprint(), &principal()));
        });
        Ok(())
    };
    succeed(run());
}

/// What a keyring hands back, read.
fn decoding(c: &mut Criterion) {
    let bytes = credential::encode(&bearer());
    c.bench_function("credential from its record", |b| {
        b.iter(|| credential::decode(black_box(&bytes)));
    });
}

/// A credential, written down for whoever asked.
fn handing_out(c: &mut Criterion) {
    let credential = bearer();
    let (env, environment) = (Default::default(), Env::default());
    let handout = Handout {
        credential: &credential,
        profile: "deploy",
        env: &env,
        environment: &environment,
        outlet: None,
    };
    for format in Format::all() {
        let name = format!("variables as {}", format.name());
        c.bench_function(&name, |b| b.iter(|| format.render(black_box(&handout))));
    }
    c.bench_function("bare token", |b| b.iter(|| token::line(black_box(&credential))));
}

/// The output of a command, searched for a token: text that often begins like one,
/// and bytes of all kinds.
fn masking(c: &mut Criterion) {
    const SIZE: usize = 64 * 1024;
    let mut run = || -> Result<()> {
        // As a JWT begins, and with as many states as one makes.
        let token = Secret::new(format!("eyJhbGciOiJFUzI1NiJ9.{}", "Ab1_".repeat(170)));
        c.bench_function("patterns of a token", |b| b.iter(|| Patterns::of([black_box(&token)])));
        let patterns = Arc::new(Patterns::of([&token]));
        let log = b"2026-01-01T12:00:00Z INFO they have served everybody in eyesight, key=value\n";
        let text: Vec<u8> = log.iter().copied().cycle().take(SIZE).collect();
        // A generator of Knuth's, of which the high bits are random enough.
        let mut state = 1_u64;
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_be_bytes()[0]
        };
        let bytes: Vec<u8> = (0..SIZE).map(|_| random()).collect();
        let mut group = c.benchmark_group("masked");
        group.throughput(Throughput::Bytes(SIZE as u64));
        let mut secrets = text.clone();
        for at in [10_000, 50_000] {
            secrets[at..at + token.expose().len()].copy_from_slice(token.expose().as_bytes());
        }
        let json = br#"{"a":"x\n\u00e9 \"q\"","path":"C:\\dir\\file","u":"a%20b%2Fc"}"#;
        let json: Vec<u8> = json.iter().copied().cycle().take(SIZE).collect();
        // What a credential of AWS has that is secret, in the lengths of today.
        let aws = [format!("ASIA{}", "Q7".repeat(8)), "wJ4b".repeat(10), "IQoJ".repeat(200)];
        let aws = Arc::new(Patterns::of(&aws.map(Secret::new)));
        for (name, patterns, input) in [
            ("text, a credential of AWS", &aws, text.clone()),
            ("text", &patterns, text),
            ("text with two tokens", &patterns, secrets),
            ("JSON full of escapes", &patterns, json),
            ("random bytes", &patterns, bytes),
        ] {
            let pipe = Mask::new(Arc::clone(patterns));
            let terminal = Mask::of_terminal(Arc::clone(patterns));
            for (to, mut mask) in [("to a pipe", pipe), ("to a terminal", terminal)] {
                let mut out = Vec::with_capacity(SIZE);
                group.bench_function(format!("{name} {to}"), |b| {
                    b.iter(|| {
                        out.clear();
                        mask.feed(black_box(&input), &mut out);
                        out.len()
                    });
                });
            }
        }
        group.finish();
        Ok(())
    };
    succeed(run());
}

/// A JWT of an issuer, verified: signature and claims, and as much text by its signature alone.
#[cfg(feature = "broker")]
fn verifying(c: &mut Criterion) {
    use aws_lc_rs::signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
        ParsedPublicKey,
    };
    use tmpcred::oidc::jwt::{self, ALGORITHMS, Expectations, LEEWAY};
    use tmpcred::oidc::keys::Keys;

    let mut run = || -> Result<()> {
        let issuer = issuer::Issuer::new()?;
        let keys = Keys::parse(issuer.jwks().as_bytes())?;
        let token = issuer.token()?;
        let expected = Expectations {
            issuer: issuer::URL,
            audiences: &[issuer::BROKER.to_string()],
            algorithms: ALGORITHMS,
            nonce: None,
            now: SystemClock.now(),
            leeway: LEEWAY,
        };
        let verify = || jwt::verify(token.expose(), &keys, &expected);
        verify()?;
        let broken = |_| Error::new(ErrorKind::Other, "a signature cannot be made");
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(broken)?;
        let text = vec![b'x'; token.expose().len()];
        let signature = pair.sign(&aws_lc_rs::rand::SystemRandom::new(), &text).map_err(broken)?;
        let public = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, pair.public_key().as_ref())
            .map_err(|cause| Error::new(ErrorKind::Other, "a key cannot be read").because(cause))?;
        let mut group = c.benchmark_group("verified");
        group.bench_function("ES256 signature alone", |b| {
            b.iter(|| public.verify_sig(black_box(&text), signature.as_ref()));
        });
        group.bench_function("ES256 token", |b| b.iter(verify));
        group.finish();
        Ok(())
    };
    succeed(run());
}

#[cfg(not(feature = "broker"))]
fn verifying(_: &mut Criterion) {}

#[cfg(not(feature = "broker"))]
fn broker(_: &mut Criterion) {}

/// A whole broker without its HTTP: a caller, a decision, a durable record, a token.
#[cfg(feature = "broker")]
fn broker(c: &mut Criterion) {
    use std::collections::BTreeSet;

    use tmpcred::broker::authenticate::{Authenticator, Rejection};
    use tmpcred::broker::issue::{Ask, Refusal};
    use tmpcred::broker::keys::RootKey;
    use tmpcred::broker::policy::{Needs, Source};
    use tmpcred::broker::store::{self, sqlite};
    use tmpcred::broker::{Broker, Config, Parts};
    use tmpcred::credential::TokenType;
    use tmpcred::host::{files, process};
    use uuid::Uuid;

    let mut run = || -> Result<()> {
        let root = tempfile::tempdir().map_err(io)?;
        let host = host(root.path());
        let issuer = issuer::Issuer::new()?;
        files::write_private(&root.path().join("jwks.json"), issuer.jwks().as_bytes())?;
        files::write_private(&root.path().join("broker.toml"), issuer::CONFIG.as_bytes())?;
        let config: Config = tmpcred::broker::config::load(&root.path().join("broker.toml"))?;
        let runtime = process::runtime()?;
        let policies = |number: usize| {
            let permit = |index| issuer::POLICY.replace("{index}", &format!("{index}"));
            vec![Source {
                path: "policy.cedar".into(),
                text: (0..number).map(permit).collect::<String>(),
            }]
        };
        let (trusted, clients) = (&config.trusted_issuer, &config.client);
        let authenticator = Authenticator::new(trusted, clients, &config.issuer, &host)?;
        let token = issuer.token()?;
        let needs = Needs::default();
        let authenticate =
            || runtime.block_on(authenticator.authenticate(&token, TokenType::Jwt, &needs));
        let caller = authenticate().map_err(|rejection| match rejection {
            Rejection::Token(_, error) | Rejection::Unavailable(error) => error,
        })?;
        c.bench_function("broker: caller authenticated", |b| b.iter(authenticate));
        let ask = Ask {
            elevation: None,
            role: "deploy".into(),
            audience: "https://api.example.com".into(),
            scope: Some(BTreeSet::from(["deploy:read".to_string()])),
            ttl: None,
            proof: None,
            idempotency_key: None,
            jwt: false,
            source: std::net::Ipv4Addr::LOCALHOST.into(),
            request_id: Uuid::nil(),
        };
        for (store, number) in [("memory", 1), ("memory", 50), ("disk", 50)] {
            let broker = runtime.block_on(async {
                let store: Arc<dyn store::Store> = match store {
                    "disk" => Arc::new(store::open(&config.store, &host.env).await?),
                    _ => Arc::new(sqlite::in_memory().await?),
                };
                let parts =
                    Parts { store, root_key: RootKey::random()?, policies: policies(number) };
                Broker::assemble(&config, parts, &host).await
            })?;
            let issue = || runtime.block_on(broker.issue(&broker.policies(), &caller, &ask));
            issue().map_err(|refusal: Refusal| {
                Error::new(ErrorKind::Other, "nothing was issued").because_of(refusal.to_string())
            })?;
            let name = format!("broker: decided among {number}, recorded in {store}, issued");
            c.bench_function(&name, |b| b.iter(issue));
            runtime.block_on(broker.close());
        }
        Ok(())
    };
    succeed(run());
}

fn io(cause: std::io::Error) -> Error {
    Error::new(ErrorKind::Io, "cannot prepare").because(cause)
}

#[expect(clippy::panic, reason = "figures of something that failed would mislead")]
fn succeed(result: Result<()>) {
    if let Err(error) = result {
        panic!("{error}");
    }
}

/// An issuer that the broker trusts.
#[cfg(feature = "broker")]
mod issuer {
    use serde_json::json;
    use tmpcred::broker::keys::SigningKey;
    use tmpcred::error::Result;
    use tmpcred::host::clock::{Clock, SystemClock};
    use tmpcred::secret::Secret;

    pub(crate) const URL: &str = "https://login.example.com";
    pub(crate) const BROKER: &str = "https://broker.example.com";

    pub(crate) const CONFIG: &str = r#"
issuer = "https://broker.example.com"

[store]
path = "broker.db"

[trusted_issuer.corp]
issuer = "https://login.example.com"
jwks_file = "jwks.json"

[policy]
files = ["policy.cedar"]

[role.deploy]
audiences = ["https://api.example.com"]
scopes = ["deploy:read", "deploy:write"]
max_ttl = "1h"
"#;

    /// One permit. The caller is in the first group, so all but that one are in vain.
    pub(crate) const POLICY: &str = r#"
@id("permit-{index}") @ttl("15m") @scope("deploy:read deploy:write")
permit (
    principal in Group::"https://login.example.com#group-{index}",
    action == Action::"issue",
    resource == Role::"deploy"
);
"#;

    pub(crate) struct Issuer(SigningKey);

    impl Issuer {
        pub(crate) fn new() -> Result<Self> {
            Ok(Self(SigningKey::generate()?.0))
        }

        pub(crate) fn jwks(&self) -> String {
            json!({ "keys": [self.0.public()] }).to_string()
        }

        pub(crate) fn token(&self) -> Result<Secret<String>> {
            let now = SystemClock.now().unix_timestamp();
            let claims = json!({
                "iss": URL, "sub": "alice", "aud": BROKER, "azp": "cli",
                "iat": now, "exp": now + 3600, "groups": ["group-0", "staff"],
            });
            self.0.sign("JWT", &claims)
        }
    }
}
