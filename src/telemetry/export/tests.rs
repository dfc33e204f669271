use std::sync::Mutex;
use std::time::Instant;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;
use serde_json::json;

use super::*;
use crate::host::clock::SystemClock;
use crate::host::test_server::{Reply, TestServer};
use crate::trace::{Sampling, Tracer};

fn receiver(server: &TestServer) -> Receiver {
    let headers: Headers = Box::new(|| Ok(HeaderMap::new()));
    let resource = Resource::builder_empty().build();
    let limit = Duration::from_secs(5);
    Receiver::new(server.url("/v1/traces"), headers, limit, None, resource, Arc::new(SystemClock))
}

fn spans(count: usize) -> Spans {
    let (tracer, spans) = Tracer::new(Sampling::Ratio(1.0));
    (0..count).for_each(|_| drop(tracer.begin("something")));
    spans
}

#[tokio::test]
async fn spans_are_handed_on_again_only_where_that_may_help() {
    // No receiver that can be had says «not now» when it is told to.
    for (status, tries) in [(503, 2), (429, 2), (400, 1), (500, 1)] {
        let calls = Mutex::new(0);
        let server = TestServer::start(move |_, _| {
            let mut calls = calls.lock().unwrap();
            *calls += 1;
            match *calls {
                1 => Reply::json(status, &json!({})).header("retry-after", "0".into()),
                _ => Reply::text(200, ""),
            }
        });
        let export = Export::start(spans(3), receiver(&server));
        let deadline = Instant::now() + Duration::from_secs(30);
        while export.counts().all() == [0, 0, 0] && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let expected = if tries == 2 { [3, 0, 0] } else { [0, 0, 3] };
        assert_eq!(export.counts().all(), expected, "{status}");
        assert_eq!(server.at("/v1/traces").len(), tries, "{status}");
        export.close().await;
    }
}

#[tokio::test]
async fn what_a_receiver_takes_in_part_is_counted_as_that() {
    let server = TestServer::start(|request, _| {
        assert_eq!(request.headers["content-type"], "application/x-protobuf");
        let partial = ExportTracePartialSuccess { rejected_spans: 2, error_message: "no".into() };
        let said = ExportTraceServiceResponse { partial_success: Some(partial) };
        Reply::text(200, std::str::from_utf8(&said.encode_to_vec()).unwrap())
    });
    let mut spans = spans(5);
    let counts = spans.counts();
    receiver(&server).flush(&mut spans, Duration::from_secs(30)).await.unwrap();
    assert_eq!(counts.all(), [3, 0, 2]);
}

#[tokio::test]
async fn a_receiver_that_is_gone_keeps_nobody_at_the_end() {
    let server = TestServer::start(|_, _| Reply::gone());
    let export = Export::start(spans(600), receiver(&server));
    let started = Instant::now();
    export.close().await;
    assert!(started.elapsed() < LAST * 2);
}

#[tokio::test]
async fn who_ends_while_more_are_waited_for_loses_nothing() {
    let server = TestServer::start(|_, _| Reply::text(200, ""));
    let spans = spans(3);
    let counts = spans.counts();
    let export = Export::start(spans, receiver(&server));
    // Until they were taken out, and others are waited for.
    tokio::task::yield_now().await;
    export.close().await;
    assert_eq!(counts.all(), [3, 0, 0]);
}
