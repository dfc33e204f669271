#![expect(clippy::disallowed_methods, reason = "a client that keeps to no rule")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Mutex;

use super::super::tests::{aws, bearer};
use super::*;

/// Hands out what it is told to.
struct Shelf(Mutex<Result<Credential, String>>);

impl Current for Shelf {
    fn current(&self) -> Result<Credential, String> {
        self.0.lock().unwrap().clone()
    }
}

struct World {
    shelf: Arc<Shelf>,
    endpoint: Endpoint,
}

impl World {
    fn new() -> Self {
        let shelf = Arc::new(Shelf(Mutex::new(Ok(aws(None)))));
        let endpoint = Endpoint::open(Arc::clone(&shelf) as Arc<dyn Current>).unwrap();
        Self { shelf, endpoint }
    }

    fn host(&self) -> String {
        self.endpoint.address.to_string()
    }

    /// The headers of a request as it must be.
    fn headers(&self) -> String {
        format!("Host: {}\r\nAuthorization: {}\r\n", self.host(), self.endpoint.token().expose())
    }

    /// What this request line and these headers are answered with.
    fn ask(&self, line: &str, headers: &str) -> (u16, String, serde_json::Value) {
        let mut stream = TcpStream::connect(self.endpoint.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(format!("{line}\r\n{headers}\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_lowercase(), serde_json::from_str(body).unwrap_or_default())
    }

    /// The code of the refusal that must come, with no part of the credential.
    fn refused(&self, line: &str, headers: &str) -> (u16, String) {
        let (status, _, body) = self.ask(line, headers);
        assert!(!body.to_string().contains("canary"), "{body}");
        (status, body["code"].as_str().unwrap_or_default().to_string())
    }
}

const GET: &str = "GET /credentials HTTP/1.1";

#[test]
fn whoever_shows_the_token_gets_the_credential() {
    let world = World::new();
    assert!(world.endpoint.token().expose().len() >= 64);
    assert_ne!(world.endpoint.token().expose(), World::new().endpoint.token().expose());
    assert_eq!(world.endpoint.url(), format!("http://{}/credentials", world.host()));
    let (status, head, body) = world.ask(GET, &world.headers());
    assert_eq!(status, 200);
    assert!(head.contains("cache-control: no-store"), "{head}");
    assert!(head.contains("content-type: application/json"), "{head}");
    assert_eq!(
        body,
        serde_json::json!({ "AccessKeyId": "canary-id", "SecretAccessKey": "canary-key",
            "Token": "canary-token", "Expiration": "2026-01-01T12:15:00Z" })
    );
}

#[test]
fn a_wrong_host_is_refused() {
    let world = World::new();
    let token = format!("Authorization: {}\r\n", world.endpoint.token().expose());
    let port = world.endpoint.address.port();
    for host in [
        "evil.example".to_string(),
        format!("evil.example:{port}"),
        format!("localhost:{port}"),
        "127.0.0.1".to_string(),
        format!("127.0.0.1:{port}.evil.example"),
    ] {
        let refused = world.refused(GET, &format!("Host: {host}\r\n{token}"));
        assert_eq!(refused, (400, "WrongHost".into()), "{host}");
    }
    let twice = format!("{}Host: evil.example\r\n", world.headers());
    assert_eq!(world.refused(GET, &twice).0, 400);
    let absolute = format!("GET http://{}/credentials HTTP/1.1", world.host());
    assert_eq!(world.refused(&absolute, &world.headers()), (400, "WrongHost".into()));
    assert_eq!(world.refused("GET /credentials HTTP/1.0", &token), (400, "WrongHost".into()));
}

#[test]
fn a_wrong_token_is_refused() {
    let world = World::new();
    let host = format!("Host: {}\r\n", world.host());
    let token = world.endpoint.token().expose();
    for wrong in [
        String::new(),
        "Authorization: \r\n".into(),
        "Authorization: x\r\n".into(),
        format!("Authorization: Bearer {token}\r\n"),
        format!("Authorization: {token}x\r\n"),
        format!("Authorization: {}\r\n", &token[1..]),
        format!("Authorization: {}\r\n", token.to_uppercase()),
        format!("Authorization: {token}\r\nAuthorization: {token}\r\n"),
        format!("X-Aws-Ec2-Metadata-Token: {token}\r\n"),
    ] {
        let refused = world.refused(GET, &format!("{host}{wrong}"));
        assert_eq!(refused, (401, "WrongToken".into()), "{wrong}");
    }
    let in_query = format!("GET /credentials?Authorization={token} HTTP/1.1");
    assert_eq!(world.refused(&in_query, &host).0, 404);
}

#[test]
fn a_request_that_came_through_a_proxy_is_refused() {
    let world = World::new();
    for header in [
        "Forwarded: for=192.0.2.1",
        "X-Forwarded-For: 127.0.0.1",
        "x-forwarded-host: a",
        "X-Forwarded-Proto: https",
        "X-Forwarded: yes",
        "X-Real-IP: 127.0.0.1",
        "Via: 1.1 proxy",
    ] {
        let refused = world.refused(GET, &format!("{}{header}\r\n", world.headers()));
        assert_eq!(refused, (400, "Forwarded".into()), "{header}");
    }
}

#[test]
fn nothing_but_get_is_understood() {
    let world = World::new();
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "GETS", "get"] {
        let line = format!("{method} /credentials HTTP/1.1");
        let (status, head, body) = world.ask(&line, &world.headers());
        assert_eq!((status, &body["code"]), (405, &"WrongMethod".into()), "{method}");
        assert!(head.contains("allow: get"), "{head}");
    }
    let (status, _, body) = world.ask("HEAD /credentials HTTP/1.1", &world.headers());
    assert_eq!((status, body.is_null()), (405, true));
    for path in ["/", "/credentials/", "/latest/meta-data", "/%63redentials", "/credentials?x"] {
        let refused = world.refused(&format!("GET {path} HTTP/1.1"), &world.headers());
        assert_eq!(refused, (404, "NotFound".into()), "{path}");
    }
}

#[test]
fn another_peer_is_refused() {
    let world = World::new();
    let guard = Guard {
        address: world.endpoint.address,
        token: world.endpoint.token().clone(),
        from: Arc::clone(&world.shelf) as Arc<dyn Current>,
    };
    let request = || {
        let request = Request::get("/credentials").header("Host", world.host());
        request.header("Authorization", world.endpoint.token().expose()).body(()).unwrap()
    };
    let stream = TcpStream::connect(world.endpoint.address).unwrap();
    let here = stream.local_addr().unwrap();
    assert!(is_ours(here, guard.address));
    for peer in [SocketAddr::from(([192, 0, 2, 1], 4711)), ([10, 0, 0, 1], here.port()).into()] {
        assert!(!is_ours(peer, guard.address), "{peer}");
    }
    assert_eq!(guard.answer(&request(), true).status(), 200);
    assert_eq!(guard.answer(&request(), false).status(), 403);
}

/// Each of their connections would have a place for ten seconds.
#[cfg(target_os = "linux")]
#[test]
fn strangers_who_are_silent_keep_nobody_from_an_answer() {
    use std::os::unix::process::CommandExt;
    crate::host::test_user::assert_root();
    let world = World::new();
    let script = "import socket, sys\n\
        all = [socket.create_connection((\"127.0.0.1\", int(sys.argv[1]))) for _ in range(300)]\n\
        print(\"there\", flush=True)\nsys.stdin.read()\n";
    let mut stranger = process::command("python3")
        .args(["-c", script, &world.endpoint.address.port().to_string()])
        .uid(4321)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut there = [0; 6];
    stranger.stdout.take().unwrap().read_exact(&mut there).unwrap();
    let mut stream = TcpStream::connect(world.endpoint.address).unwrap();
    stream.set_read_timeout(Some(CONNECTION_LIMIT / 2)).unwrap();
    stream.write_all(format!("{GET}\r\n{}\r\n", world.headers()).as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(stranger.stdin.take());
    stranger.wait().unwrap();
}

#[test]
fn what_cannot_be_had_is_an_error_that_sdks_understand() {
    let world = World::new();
    *world.shelf.0.lock().unwrap() = Err("it has ended: login required".into());
    let (status, _, body) = world.ask(GET, &world.headers());
    let expected = serde_json::json!({ "code": "CredentialExpired",
        "message": "it has ended: login required" });
    assert_eq!((status, body), (503, expected));
    *world.shelf.0.lock().unwrap() = Ok(bearer("canary"));
    assert_eq!(world.refused(GET, &world.headers()).0, 503);
}

#[test]
fn nonsense_and_silence_disturb_nobody() {
    let world = World::new();
    let _silent: Vec<_> =
        (0..20).map(|_| TcpStream::connect(world.endpoint.address).unwrap()).collect();
    let mut rude = TcpStream::connect(world.endpoint.address).unwrap();
    rude.write_all(&[0xff; 4096]).unwrap();
    let long = format!("{}X: {}\r\n", world.headers(), "x".repeat(HEAD_MAX));
    let mut stream = TcpStream::connect(world.endpoint.address).unwrap();
    // It may be closed before all has been written.
    let _ = stream.write_all(format!("{GET}\r\n{long}\r\n").as_bytes());
    assert_eq!(world.ask(GET, &world.headers()).0, 200);
}

#[test]
fn it_closes_when_it_is_dropped() {
    let World { endpoint, .. } = World::new();
    let address = endpoint.address;
    drop(endpoint);
    let deadline = std::time::Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(address).is_ok() {
        assert!(std::time::Instant::now() < deadline);
        std::thread::park_timeout(Duration::from_millis(2));
    }
}
