//! Keys that are fetched ahead of all need, and outlast the process that fetched them.

use url::Url;

use super::*;
use crate::broker::authenticate::ahead::Part;
use crate::broker::authenticate::{Ahead, KeysSeal};
use crate::broker::keys::RootKey;
use crate::broker::store::{IssuerKeySet, Store, sqlite};
use crate::secret::Secret;

fn root_key() -> RootKey {
    RootKey::new(Secret::new([7; 32]))
}

/// A broker on this store, and what fetches keys for it.
async fn fetching(
    issuer: &FakeIssuer,
    store: &Arc<dyn Store>,
    change: impl FnOnce(&mut TrustedIssuer),
) -> (Bed, Arc<Hand>, Ahead) {
    let clock = Arc::new(Hand::default());
    let bed = Bed::with(|options| {
        let mut trusted = TrustedIssuer::new(issuer.issuer.clone());
        change(&mut trusted);
        options.config.trusted_issuer.insert("fake".into(), trusted);
        (options.store, options.root_key, options.clock) =
            (store.clone(), root_key(), clock.clone());
    })
    .await;
    let ahead = bed.broker.fetch_ahead(KeysSeal::new(&root_key())).await;
    (bed, clock, ahead)
}

async fn store() -> Arc<dyn Store> {
    Arc::new(sqlite::in_memory().await.unwrap())
}

/// Waits until it is so.
async fn until<F: Future<Output = bool>>(what: &str, is_so: impl Fn() -> F) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !is_so().await {
        assert!(std::time::Instant::now() < end, "{what}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// What is kept of this issuer, once there is something.
async fn kept(store: &Arc<dyn Store>, issuer: &FakeIssuer) -> IssuerKeySet {
    let ask = || async { store.issuer_keys(issuer.issuer.as_str()).await.unwrap() };
    until("keys are kept", || async { ask().await.is_some() }).await;
    ask().await.unwrap()
}

/// Puts these in the place of those that are kept, however old they are.
async fn put(store: &Arc<dyn Store>, keys: &IssuerKeySet) {
    store.forget_issuer_keys(&keys.issuer).await.unwrap();
    store.keep_issuer_keys(keys).await.unwrap();
}

/// How the configuration says that the keys of this issuer are found.
fn found_by(bed: &Bed, issuer: &FakeIssuer) -> [u8; 32] {
    bed.broker.policies().authenticator().trusted[issuer.issuer.as_str()].0.found_by()
}

#[tokio::test]
async fn no_request_waits_for_an_issuer_whose_keys_are_known() {
    let (issuer, store) = (FakeIssuer::start(), store().await);
    let (bed, clock, _ahead) = fetching(&issuer, &store, |_| {}).await;
    // Nobody had to come for that.
    until("they are fetched", || async { issuer.asked() == (1, 1) }).await;
    kept(&store, &issuer).await;
    assert_eq!(code(&bed, &issuer.token_at(&clock)).await, "access_denied");

    // They have a minute.
    clock.forward(Duration::seconds(40));
    assert_eq!(code(&bed, &issuer.token_at(&clock)).await, "access_denied");
    assert_eq!(issuer.asked(), (1, 1));
    let hangs = issuer.state.gate.write().await;
    clock.forward(Duration::seconds(13));
    until("they are asked for again", || async { issuer.asked() == (2, 2) }).await;
    // It is over, and the issuer takes its time.
    clock.forward(Duration::seconds(20));
    for _ in 0..3 {
        assert_eq!(code(&bed, &issuer.token_at(&clock)).await, "access_denied");
    }
    assert_eq!(issuer.asked(), (2, 2), "a request has asked, and waited");
    drop(hangs);
}

#[tokio::test]
async fn while_an_issuer_is_down_nobody_waits_but_who_fetches_ahead() {
    for by_discovery in [true, false] {
        let issuer = FakeIssuer::start();
        let (bed, clock) = trusting_with(&issuer, |config| {
            let keys = Url::parse(&format!("{}/keys", issuer.issuer)).unwrap();
            config.jwks_uri = (!by_discovery).then_some(keys);
        })
        .await;
        let book = bed.broker.policies();
        let (trusted, _) = &book.authenticator().trusted[issuer.issuer.as_str()];
        let asked = || issuer.asked().0 + issuer.asked().1;
        let parts =
            || [Part::Document, Part::Keys].into_iter().filter(|part| trusted.is_due(*part));
        assert_eq!(parts().count(), 1);
        for part in parts() {
            trusted.renew(part, Duration::seconds(10)).await.unwrap();
        }
        assert_eq!(parts().count(), 0);
        issuer.down(true);
        clock.forward(Duration::seconds(55));
        let due: Vec<_> = parts().collect();
        for part in &due {
            trusted.renew(*part, Duration::seconds(10)).await.unwrap_err();
        }
        assert_eq!(parts().collect::<Vec<_>>(), due);
        let (before, failures) = (asked(), trusted.keys().unwrap().failures);
        assert_eq!((due.len(), failures), if by_discovery { (2, 2) } else { (1, 1) });
        // Beyond their minute, but not beyond when somebody comes again.
        clock.forward(Duration::seconds(7));
        assert_eq!(code(&bed, &issuer.token_at(&clock)).await, "access_denied");
        assert_eq!(asked(), before);
        // Where nobody comes, as on a machine that slept, requests see to it.
        clock.forward(Duration::seconds(7));
        assert_eq!(code(&bed, &issuer.token_at(&clock)).await, "access_denied");
        assert!(asked() > before);
        // Their age is what ends them, whoever tries.
        clock.forward(Duration::hours(24));
        for part in parts() {
            trusted.renew(part, Duration::seconds(10)).await.unwrap_err();
        }
        turned_away(&bed, &issuer.token_at(&clock), &issuer.issuer).await;
    }
}

#[tokio::test]
async fn it_is_told_in_how_long_an_issuer_that_is_down_is_asked_again() {
    let (issuer, store) = (FakeIssuer::start(), store().await);
    issuer.down(true);
    let (bed, clock, _ahead) = fetching(&issuer, &store, |_| {}).await;
    let told = async || {
        let metrics = bed.admin.get("/metrics").await.body;
        let metrics = String::from_utf8(metrics.expose().clone()).unwrap();
        let name = "tmpcred_jwks_retry_seconds{issuer=\"fake\"} ";
        let told = metrics.lines().find_map(|line| line.strip_prefix(name));
        told.unwrap().parse::<f64>().unwrap()
    };
    until("it is left alone", || async { told().await > 0.0 }).await;
    // With a part of it by chance, and by a clock that stands still.
    let pause = told().await;
    assert!((5.0..=6.25).contains(&pause), "{pause}");
    clock.forward(Duration::seconds(4));
    assert!((told().await - (pause - 4.0)).abs() < 0.01);
    issuer.down(false);
    clock.forward(Duration::seconds(3));
    let keys = || {
        let book = bed.broker.policies();
        let mut all = book.authenticator().keys();
        all.any(|keys| keys.name == "fake" && keys.age.is_some())
    };
    until("its keys are there", || async { keys() }).await;
    assert_eq!(told().await, 0.0);
}

/// Anybody can make up the id of a key.
#[tokio::test]
async fn nobody_makes_others_wait_for_a_document_that_cannot_be_had() {
    let issuer = FakeIssuer::start();
    let (bed, clock) = trusting(&issuer).await;
    assert_eq!(code(&bed, &issuer.token_at(&clock)).await, "access_denied");
    // Its keys are there as before.
    *issuer.state.says.lock().unwrap() = Some("https://other.example".into());
    clock.forward(Duration::seconds(31));
    let made_up = IssuerKey::new().token(json!({"iss": issuer.issuer.as_str()}));
    bed.refused(&made_up, &[]).await;
    let asked = issuer.asked().0;
    assert_eq!(asked, 2);
    for _ in 0..3 {
        // What was found is good for a minute, and who failed a moment ago is not asked again.
        clock.forward(Duration::seconds(6));
        assert_eq!(code(&bed, &issuer.token_at(&clock)).await, "access_denied");
    }
    assert_eq!(issuer.asked().0, asked, "a request has asked, and waited");
}

#[tokio::test]
async fn keys_outlast_the_process_for_as_long_as_they_would_have_in_it() {
    let (issuer, store) = (FakeIssuer::start(), store().await);
    let (bed, _, ahead) = fetching(&issuer, &store, |_| {}).await;
    let fetched = kept(&store, &issuer).await;
    ahead.close().await;
    drop(bed);
    issuer.down(true);
    let (bed, clock, _ahead) = fetching(&issuer, &store, |_| {}).await;
    assert_eq!(code(&bed, &issuer.token_at(&clock)).await, "access_denied");
    clock.forward(Duration::hours(23));
    assert_eq!(code(&bed, &issuer.token_at(&clock)).await, "access_denied");
    clock.forward(Duration::hours(1));
    turned_away(&bed, &issuer.token_at(&clock), &issuer.issuer).await;

    // They are as old as they are, and not as old as the process.
    let past = IssuerKeySet { good_at: now() - Duration::minutes(2), ..fetched };
    let past = KeysSeal::new(&root_key()).over(&found_by(&bed, &issuer), past);
    put(&store, &past).await;
    let minutes = |minutes: u64| {
        move |trusted: &mut TrustedIssuer| {
            trusted.max_key_age = std::time::Duration::from_secs(60 * minutes);
        }
    };
    let (bed, clock, _ahead) = fetching(&issuer, &store, minutes(1)).await;
    turned_away(&bed, &issuer.token_at(&clock), &issuer.issuer).await;
    let (bed, clock, _ahead) = fetching(&issuer, &store, minutes(10)).await;
    assert_eq!(code(&bed, &issuer.token_at(&clock)).await, "access_denied");
    clock.forward(Duration::minutes(8));
    turned_away(&bed, &issuer.token_at(&clock), &issuer.issuer).await;
}

#[tokio::test]
async fn what_the_broker_has_not_kept_are_no_keys_of_an_issuer() {
    let (issuer, store) = (FakeIssuer::start(), store().await);
    let (bed, _, ahead) = fetching(&issuer, &store, |_| {}).await;
    let good = kept(&store, &issuer).await;
    let found_by = found_by(&bed, &issuer);
    ahead.close().await;
    drop(bed);
    issuer.down(true);
    let (stranger, other) = (IssuerKey::new(), RootKey::new(Secret::new([8; 32])));
    let planted = serde_json::to_vec(&stranger.jwks()).unwrap();
    let (before, far) = (good.good_at - Duration::SECOND, good.good_at + Duration::HOUR);
    for bad in [
        IssuerKeySet { document: planted.clone(), ..good.clone() },
        IssuerKeySet { document: planted.clone(), seal: Vec::new(), ..good.clone() },
        KeysSeal::new(&other).over(&found_by, IssuerKeySet { document: planted, ..good.clone() }),
        IssuerKeySet { good_at: before, ..good.clone() },
        // By a clock that was ahead they would be good for longer.
        KeysSeal::new(&root_key()).over(&found_by, IssuerKeySet { good_at: far, ..good.clone() }),
    ] {
        put(&store, &bad).await;
        let (bed, clock, _ahead) = fetching(&issuer, &store, |_| {}).await;
        turned_away(&bed, &issuer.token_at(&clock), &issuer.issuer).await;
        let iat = clock.now().unix_timestamp();
        let claims = json!({
            "iss": issuer.issuer.as_str(), "groups": [], "iat": iat, "exp": iat + 300,
        });
        turned_away(&bed, &stranger.token(claims), &issuer.issuer).await;
    }
    // What it has kept, it has.
    put(&store, &good).await;
    let (bed, clock, _ahead) = fetching(&issuer, &store, |_| {}).await;
    assert_eq!(code(&bed, &issuer.token_at(&clock)).await, "access_denied");
}

/// Whoever takes an address, or an authority, out of the configuration trusts it no more.
#[tokio::test]
async fn keys_that_were_found_in_another_way_are_not_gone_on_with() {
    let (issuer, store) = (FakeIssuer::start(), store().await);
    let at_address = |trusted: &mut TrustedIssuer| {
        let keys = Url::parse(&format!("{}/keys", issuer.issuer)).unwrap();
        trusted.jwks_uri = Some(keys);
    };
    let (bed, _, ahead) = fetching(&issuer, &store, at_address).await;
    kept(&store, &issuer).await;
    ahead.close().await;
    drop(bed);
    issuer.down(true);
    let authority = rcgen::generate_simple_self_signed(["a.example".into()]).unwrap().cert.pem();
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca.pem");
    crate::host::files::write_private(&ca, authority.as_bytes()).unwrap();
    let by_another_authority = |trusted: &mut TrustedIssuer| {
        at_address(trusted);
        trusted.ca_file = Some(ca.clone());
    };
    let (by_discovery, by_authority) = (
        fetching(&issuer, &store, |_| {}).await,
        fetching(&issuer, &store, by_another_authority).await,
    );
    for (bed, clock, _ahead) in [by_discovery, by_authority] {
        turned_away(&bed, &issuer.token_at(&clock), &issuer.issuer).await;
    }
    let (bed, clock, _ahead) = fetching(&issuer, &store, at_address).await;
    assert_eq!(code(&bed, &issuer.token_at(&clock)).await, "access_denied");
}

#[tokio::test]
async fn keys_that_are_withdrawn_are_kept_no_longer() {
    let (issuer, store) = (FakeIssuer::start(), store().await);
    let (_bed, clock, _ahead) = fetching(&issuer, &store, |_| {}).await;
    kept(&store, &issuer).await;
    issuer.keys_are(Some(|| StatusCode::GONE.into_response()));
    clock.forward(Duration::seconds(55));
    let is_gone = || async { store.issuer_keys(issuer.issuer.as_str()).await.unwrap().is_none() };
    until("they are forgotten", is_gone).await;
}

#[tokio::test]
async fn issuers_that_come_with_another_configuration_are_fetched_too() {
    let (one, other, store) = (FakeIssuer::start(), FakeIssuer::start(), store().await);
    let (first, _) = trusting_with(&one, |_| {}).await;
    let (second, _) = trusting_with(&other, |_| {}).await;
    let remote = |bed: &Bed| bed.broker.policies().authenticator().remote();
    let in_force = Arc::new(Mutex::new(remote(&first)));
    let issuers = in_force.clone();
    let seal = KeysSeal::new(&root_key());
    let ahead = Ahead::start(move || issuers.lock().unwrap().clone(), &store, seal).await;
    until("the first is fetched", || async { one.asked() == (1, 1) }).await;
    assert_eq!(other.asked(), (0, 0));
    *in_force.lock().unwrap() = remote(&second);
    until("the other is fetched", || async { other.asked() == (1, 1) }).await;
    ahead.close().await;
}
