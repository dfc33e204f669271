//! Which versions of TLS a broker speaks, as OpenSSL finds out.

use std::path::Path;

use super::support::broker::{Broker, BrokerOptions};
use super::support::home::Home;
use super::support::peer::{Peer, program, supervised};
use super::support::run::Output;
use super::support::tls::{Authority, ServerCertificate};
use super::support::wait::free_port;

/// Shakes hands with a server by this version of TLS and no other.
fn shake_hands(home: &Home, authority: &Authority, port: u16, version: &str) -> Output {
    let run = home.command(program("openssl")).args(["s_client", version, "-brief"]);
    // Without that this OpenSSL would offer no old version, whoever asks for it.
    let run = run.args(["-cipher", "ALL:@SECLEVEL=0", "-verify_return_error"]);
    let run = run.args(["-connect", &format!("127.0.0.1:{port}")]);
    run.args(["-CAfile"]).args([authority.pem()]).run()
}

/// A server of OpenSSL's own that speaks every version.
fn lenient(tls: &ServerCertificate, port: u16, log: &Path) -> Peer {
    let mut command = supervised(&program("openssl"), Path::new("/dev/null"));
    command.args(["s_server", "-www", "-quiet", "-cipher", "ALL:@SECLEVEL=0"]);
    command.args(["-accept", &format!("127.0.0.1:{port}")]);
    command.arg("-cert").arg(&tls.certificate).arg("-key").arg(&tls.key);
    let mut peer = Peer::start("openssl", command, log.to_path_buf());
    peer.until_ready(|| std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    peer
}

#[test]
fn a_broker_speaks_tls_1_2_and_1_3_and_no_older_version() {
    let (authority, home) = (Authority::new(), Home::new());
    let tls = authority.certify("127.0.0.1");
    let port = free_port();
    let _lenient = lenient(&tls, port, &home.path("openssl.log"));
    let options = BrokerOptions {
        tls: Some(tls),
        issuer_ca: Some(authority.pem()),
        ..BrokerOptions::trusting("https://127.0.0.1:9")
    };
    let broker = Broker::start(&options);
    let of_broker = url::Url::parse(broker.url()).unwrap().port().unwrap();
    for (version, name) in [("-tls1_2", "TLSv1.2"), ("-tls1_3", "TLSv1.3")] {
        let spoken = shake_hands(&home, &authority, of_broker, version).ok().stderr;
        assert!(spoken.contains(&format!("Protocol version: {name}")), "{spoken}");
        assert!(spoken.contains("Verification: OK"), "{spoken}");
    }
    for (version, name) in [("-tls1", "TLSv1"), ("-tls1_1", "TLSv1.1")] {
        // It is not this client that refuses: whoever takes that version gets it.
        let spoken = shake_hands(&home, &authority, port, version).ok().stderr;
        assert!(spoken.lines().any(|line| line == format!("Protocol version: {name}")), "{spoken}");
        let refused = shake_hands(&home, &authority, of_broker, version);
        assert_ne!(refused.code, Some(0), "{version}");
        // The broker says so, by an alert of its own.
        let alerts = ["alert protocol version", "alert handshake failure"];
        let said = &refused.stderr;
        assert!(alerts.iter().any(|alert| said.contains(alert)), "{said}");
        assert!(!refused.stderr.contains("Protocol version:"), "{}", refused.stderr);
    }
}

/// What is answered before a request is there as a whole: an address that does not exist, a
/// method that is not for it, and a body that is too large.
#[test]
fn curl_hears_what_is_answered_before_it_has_sent_all() {
    let (authority, home) = (Authority::new(), Home::new());
    let options = BrokerOptions {
        tls: Some(authority.certify("127.0.0.1")),
        issuer_ca: Some(authority.pem()),
        ..BrokerOptions::trusting("https://127.0.0.1:9")
    };
    let broker = Broker::start(&options);
    let sent = |version: &str, path: &str, size: usize| {
        let curl = home.command(program("curl")).args(["-sS", version, "--cacert"]);
        let curl = curl.args([authority.pem()]).args(["--data-binary", "@-"]);
        let curl = curl.args(["-w", "\n%{http_version} %{http_code} %header{x-request-id}"]);
        let output = curl.args([format!("{}{path}", broker.url())]).stdin("a".repeat(size)).run();
        let told = output.ok().stdout;
        let (body, told) = told.rsplit_once('\n').unwrap();
        let [spoken, status, id] = told.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{told}");
        };
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["request_id"], id);
        (spoken.to_string(), status.to_string())
    };
    for (version, spoken) in [("--http1.1", "1.1"), ("--http2", "2")] {
        for (path, size, status) in [
            ("/nothing", 60_000, "404"),
            ("/jwks.json", 60_000, "405"),
            ("/nothing", 200_000, "413"),
            ("/token", 200_000, "413"),
            ("/token", 900_000, "413"),
        ] {
            let told = sent(version, path, size);
            assert_eq!(told, (spoken.into(), status.into()), "{version} {path} {size}");
        }
    }
}
