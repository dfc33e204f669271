use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::broker::testbed::{Served, json_of};

#[tokio::test]
async fn a_handler_that_panics_is_an_answer_with_an_id() {
    let panics = || async {
        if true {
            panic!("hunter2");
        }
    };
    let app = Router::new().route("/", axum::routing::get(panics));
    let guard = Guard::new(Hosts::Any);
    let served = Served::start(|_| guard.around(app), None);
    for _ in 0..2 {
        let response = served.get("/").await;
        let body = json_of(&response);
        assert_eq!(response.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(body["error"], "server_error");
        assert_eq!(body["request_id"], response.headers[REQUEST_ID].to_str().unwrap());
        assert!(!body.to_string().contains("hunter2"));
    }
}

#[tokio::test]
async fn what_is_too_much_at_once_is_turned_away() {
    let guard = Guard::new(Hosts::Any);
    let app = Router::new()
        .route("/", axum::routing::get(|| async { "{}" }))
        .layer(middleware::from_fn_with_state(guard.clone(), shed_load));
    let held = guard.at_once.clone().try_acquire_many_owned(MAX_AT_ONCE as u32).unwrap();
    let served = Served::start(|_| guard.around(app), None);
    let response = served.get("/").await;
    assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(json_of(&response)["error"], "temporarily_unavailable");
    assert!(response.headers.contains_key("retry-after"));
    drop(held);
    assert_eq!(served.get("/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn one_who_sends_slowly_keeps_nobody_out() {
    let guard = Guard::new(Hosts::Any);
    let app = Router::new()
        .route("/", axum::routing::post(|body: String| async { body }))
        .route("/", axum::routing::get(|| async { "{}" }))
        .layer(middleware::from_fn_with_state(guard.clone(), shed_load));
    let _held = guard.at_once.clone().try_acquire_many_owned(MAX_AT_ONCE as u32 - 1).unwrap();
    let served = Served::start(|_| guard.around(app), None);
    #[expect(clippy::disallowed_methods, reason = "no HTTP client sends half a request")]
    let mut slow = tokio::net::TcpStream::connect(served.address).await.unwrap();
    let head =
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n";
    slow.write_all(head).await.unwrap();
    // The server asks for the body, so it waits for it now.
    let mut answer = [0; 25];
    slow.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(served.get("/").await.status, StatusCode::OK);
    slow.write_all(b"ok").await.unwrap();
    let mut answer = [0; 15];
    slow.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
}

#[tokio::test]
async fn over_http2_a_request_has_no_more_headers_than_over_http1() {
    let guard = Guard::new(Hosts::Any);
    let app = Router::new()
        .route("/", axum::routing::get(|| async { "{}" }))
        .layer(middleware::from_fn_with_state(guard.clone(), shed_load));
    let served = Served::start(|_| guard.around(app), None);
    let most = over_http2(served.address, MAX_HEADERS).await;
    assert_eq!(most, "{}");
    let more = over_http2(served.address, MAX_HEADERS + 1).await;
    assert!(more.contains("a request has at most 100 headers"), "{more}");
}

/// The body of what is answered to `GET /` with so many headers of two letters each.
async fn over_http2(address: SocketAddr, headers: usize) -> String {
    let mut block = b"\x82\x86\x84\x41\x09localhost".to_vec();
    for number in 0..headers {
        let letter = |number: usize| b'a' + u8::try_from(number).unwrap();
        // A name that is in no table, and its value (RFC 7541 section 6.2.2).
        block.extend([0, 2, letter(number / 26), letter(number % 26), 1, b'x']);
    }
    let mut request = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    // Headers that end here, of a request that ends with them (RFC 9113 section 6.2).
    request.extend(&u32::try_from(block.len()).unwrap().to_be_bytes()[1..]);
    request.extend(b"\x01\x05\0\0\0\x01");
    request.extend(block);
    #[expect(clippy::disallowed_methods, reason = "no HTTP client sends headers as they come")]
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(&request).await.unwrap();
    let answered = async {
        let mut body = Vec::new();
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.unwrap();
            let [a, b, c, kind, flags, ..] = head;
            let length = u32::from_be_bytes([0, a, b, c]);
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            stream.read_exact(&mut payload).await.unwrap();
            let (is_data, is_headers) = (kind == 0, kind == 1);
            if is_data {
                body.extend(payload);
            }
            if (is_data || is_headers) && flags & 1 == 1 {
                return String::from_utf8(body).unwrap();
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), answered).await.expect("no answer")
}
