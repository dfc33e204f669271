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
