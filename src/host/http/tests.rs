//! Tests with loopback servers that misbehave.

use std::io::{Read as _, Write as _};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::*;
use crate::host::clock::{FixedClock, SKEW_NOISE, SystemClock};
use crate::host::listener::{Exposure, bind};
use crate::host::test_server::{Reply, TestServer, client, run};

#[test]
fn plain_http_is_for_loopback_only() {
    for good in ["https://a.example", "http://127.0.0.1:1", "http://[::1]:2", "http://localhost:3"]
    {
        assert!(require_secure(&Url::parse(good).unwrap()).is_ok(), "{good}");
    }
    for bad in [
        "http://a.example",
        "http://127.0.0.1.example",
        "http://localhost.example",
        "https://u:p@a.example",
        "https://u@a.example",
        "ftp://127.0.0.1",
    ] {
        assert!(require_secure(&Url::parse(bad).unwrap()).is_err(), "{bad}");
    }
}

#[test]
fn json_errors_show_nothing_of_the_body() {
    let response = Response {
        status: StatusCode::OK,
        headers: HeaderMap::new(),
        body: Secret::new(br#"{"access_token": "hunter2", "expires_in": "hunter3"}"#.to_vec()),
    };
    #[derive(serde::Deserialize, Debug)]
    #[expect(dead_code, reason = "only its shape matters")]
    struct Shape {
        expires_in: u64,
    }
    let error = response.json::<Shape>("the answer").unwrap_err();
    assert!(!error.to_string().contains("hunter"), "{error}");
}

#[test]
fn answers_are_bounded_and_redirects_not_followed() {
    let server = TestServer::start(|request, origin| match request.path.as_str() {
        "/large" => Reply::text(200, &"x".repeat(MAX_BODY + 1)),
        "/just" => Reply::text(200, &"x".repeat(MAX_BODY)),
        "/moved" => Reply::text(302, "").header("location", format!("{origin}/just")),
        _ => Reply::gone(),
    });
    let get = |path: &str| run(client(None).get(&server.url(path)));
    assert_eq!(get("/just").unwrap().body.expose().len(), MAX_BODY);
    let error = get("/large").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Verification);
    assert!(error.to_string().contains("too large"), "{error}");
    let error = get("/moved").unwrap_err();
    assert!(error.to_string().contains("redirect (302)"), "{error}");
    assert_eq!(server.at("/just").len(), 1);
    assert_eq!(get("/gone").unwrap_err().kind(), ErrorKind::Unreachable);
}

#[test]
fn outages_say_when_to_ask_again() {
    let date = "Wed, 21 Oct 2015 07:28:00 GMT";
    let server = TestServer::start(move |request, _| match request.path.as_str() {
        "/seconds" => Reply::text(503, "").header("retry-after", "30".into()),
        "/date" => Reply::text(429, "").header("retry-after", date.into()),
        "/odd" => Reply::text(500, "").header("retry-after", "soon".into()),
        _ => Reply::text(404, ""),
    });
    let outage = |path: &str| run(client(None).get(&server.url(path))).unwrap().outage("it");
    for (path, hint) in [
        ("/seconds", "it asks to be tried again in 30 seconds".to_string()),
        ("/date", format!("it asks to be tried again after {date}")),
        ("/odd", "try again in a while".to_string()),
    ] {
        let error = outage(path).unwrap();
        assert_eq!((error.kind(), error.hints()), (ErrorKind::Unreachable, &[hint][..]), "{path}");
    }
    assert_eq!(outage("/missing"), None);
}

#[test]
fn skew_is_measured_but_not_by_what_a_cache_kept() {
    let server = TestServer::start(|request, _| match request.path.as_str() {
        "/kept" => Reply::text(200, "").header("age", "600".into()),
        _ => Reply::text(200, ""),
    });
    let clock = Arc::new(FixedClock(SystemClock.now() + time::Duration::minutes(10)));
    let skew = SkewMeter::default();
    let client = HttpClient::new(clock, skew.clone(), None);
    run(client.get(&server.url("/kept"))).unwrap();
    assert_eq!(skew.get(), None);
    run(client.get(&server.url("/fresh"))).unwrap();
    let off = skew.get().unwrap() + time::Duration::minutes(10);
    assert!(off.abs() < SKEW_NOISE + time::Duration::minutes(1), "{off}");
}

/// A server with a certificate for `name` that is good for `left` from now on.
/// Returns its address and the PEM of its authority.
fn tls_server(name: &str, left: time::Duration) -> (Url, Vec<u8>) {
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let mut params = CertificateParams::new(vec![name.to_string()]).unwrap();
    params.not_before = SystemClock.now() - time::Duration::DAY;
    params.not_after = SystemClock.now() + left;
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    (serve_tls(certificate.der().clone(), &key), authority.pem().into_bytes())
}

/// A server that shows the certificate of its authority for its own.
fn tls_server_that_is_an_authority() -> (Url, Vec<u8>) {
    let mut params = CertificateParams::new(vec!["127.0.0.1".to_string()]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    (serve_tls(certificate.der().clone(), &key), certificate.pem().into_bytes())
}

/// Answers whoever comes with this certificate; returns the address.
fn serve_tls(certificate: CertificateDer<'static>, key: &KeyPair) -> Url {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    let socket = bind(([127, 0, 0, 1], 0).into(), Exposure::LoopbackOnly).unwrap();
    socket.set_nonblocking(false).unwrap();
    let url = Url::parse(&format!("https://{}/", socket.local_addr().unwrap())).unwrap();
    // It ends with the test program.
    std::thread::spawn(move || {
        for stream in socket.incoming() {
            let session = rustls::ServerConnection::new(config.clone()).unwrap();
            let mut stream = rustls::StreamOwned::new(session, stream.unwrap());
            let mut head = [0; 4096];
            if stream.read(&mut head).is_ok() {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
            }
        }
    });
    url
}

#[test]
fn certificates_that_are_not_accepted_are_explained() {
    let (url, pem) = tls_server("127.0.0.1", time::Duration::DAY);
    let answer = run(client(Some(pem.clone())).get(&url)).unwrap();
    assert_eq!(answer.body.expose(), b"ok");
    let expired = tls_server("127.0.0.1", -time::Duration::HOUR);
    let other = tls_server("other.example", time::Duration::DAY);
    let authority = tls_server_that_is_an_authority();
    for ((url, pem), cause, hint) in [
        ((url, None), "no authority that is trusted here", "`ca_file`"),
        ((expired.0, Some(expired.1)), "it has expired", "renew"),
        ((other.0, Some(other.1)), "it is for another name", "address"),
        ((authority.0, Some(authority.1)), "it is that of an authority", "one of its own"),
    ] {
        let error = run(client(pem).get(&url)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Verification, "{error}");
        assert!(error.message().contains("the certificate of https://127.0.0.1"), "{error}");
        assert!(error.causes()[0].contains(cause), "{error}");
        assert!(error.hints()[0].contains(hint), "{:?}", error.hints());
    }
}

#[test]
fn a_server_without_tls_is_explained() {
    let socket = bind(([127, 0, 0, 1], 0).into(), Exposure::LoopbackOnly).unwrap();
    socket.set_nonblocking(false).unwrap();
    let url = Url::parse(&format!("https://{}/", socket.local_addr().unwrap())).unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = socket.accept().unwrap();
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let error = run(client(None).get(&url)).unwrap_err();
    assert!(error.message().starts_with("no secure connection to https://127.0.0.1"), "{error}");
}
