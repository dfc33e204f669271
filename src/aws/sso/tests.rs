//! Servers that do not play by the rules. What the real ones do is tested end to end.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::oidc::{Grant, Oidc, Registration};
use super::portal::Portal;
use super::{Failure, Server, snake};
use crate::aws::{AccountId, EndpointUrl, Region};
use crate::error::{Error, ErrorKind};
use crate::host::clock::{Clock, SystemClock};
use crate::host::test_server::{self, Reply, TestServer, run};
use crate::reach::Effort;
use crate::secret::Secret;

const TOKEN: &str = "canary-token";

fn at(server: &TestServer) -> Server {
    let elsewhere = EndpointUrl::parse(&server.origin).unwrap();
    Server::portal(&Region::parse("eu-central-1").unwrap(), Some(&elsewhere), None)
}

/// What becomes of a request for credentials that is answered so.
fn asked(reply: Reply) -> Result<(), Error> {
    let server = TestServer::start(move |_, _| reply.clone());
    let dir = tempfile::tempdir().unwrap();
    let host = test_server::host(dir.path(), time::Duration::ZERO);
    let (server, token) = (at(&server), Secret::new(TOKEN.to_string()));
    let portal = Portal::new(&host, &server, &token).unwrap();
    let portal = portal.with_effort(Effort::LOOK, SystemClock.now());
    let account = AccountId::parse("111122223333").unwrap();
    let given = run(portal.role_credentials(&account, "Admin"));
    given.map_err(|failure| failure.error("no credentials"))?.checked().map(|_| ())
}

#[test]
fn the_regions_have_hosts_of_their_own() {
    for (region, oidc, portal) in [
        ("us-east-1", "oidc.us-east-1.amazonaws.com", "portal.sso.us-east-1.amazonaws.com"),
        (
            "eusc-de-east-1",
            "oidc.eusc-de-east-1.amazonaws.eu",
            "portal.sso.eusc-de-east-1.amazonaws.eu",
        ),
        (
            "cn-north-1",
            "oidc.cn-north-1.amazonaws.com.cn",
            "portal.sso.cn-north-1.amazonaws.com.cn",
        ),
        (
            "us-gov-west-1",
            "oidc.us-gov-west-1.amazonaws.com",
            "portal.sso.us-gov-west-1.amazonaws.com",
        ),
    ] {
        let region = Region::parse(region).unwrap();
        assert_eq!(Server::oidc(&region, None, None).url(), format!("https://{oidc}"));
        assert_eq!(Server::portal(&region, None, None).url(), format!("https://{portal}"));
    }
}

#[test]
fn kinds_of_refusals_are_read_however_they_are_written() {
    for (kind, code) in [
        ("InvalidGrantException", "invalid_grant"),
        ("com.amazonaws.switchboard.portal#ForbiddenException", "forbidden"),
        ("TooManyRequestsException:http://internal.amazon.com/coral/", "too_many_requests"),
        ("", ""),
    ] {
        assert_eq!(snake(kind), code);
    }
}

#[test]
fn refusals_are_told_apart() {
    let said = |kind: &str| json!({ "__type": kind, "message": "the words" });
    for (status, kind, expected) in [
        (401, "UnauthorizedException", ErrorKind::LoginRequired),
        (403, "ForbiddenException", ErrorKind::Denied),
        (404, "ResourceNotFoundException", ErrorKind::Denied),
        (400, "InvalidRequestException", ErrorKind::Config),
        (429, "TooManyRequestsException", ErrorKind::Unreachable),
        (500, "InternalServerException", ErrorKind::Unreachable),
    ] {
        let error = asked(Reply::json(status, &said(kind))).unwrap_err();
        assert_eq!(error.kind(), expected, "{error}");
        assert_eq!(error.to_string().contains("the words"), status < 429, "{error}");
    }
}

#[test]
fn what_is_no_answer_is_explained_and_not_shown() {
    let good = json!({ "accessKeyId": "A", "secretAccessKey": "canary-secret",
        "sessionToken": "T", "expiration": 4_102_444_800_000_i64 });
    let with = |name: &str, value: Value| {
        let mut given = good.clone();
        given[name] = value;
        Reply::json(200, &json!({ "roleCredentials": given }))
    };
    asked(with("accessKeyId", json!("A"))).unwrap();
    for reply in [
        with("expiration", json!(0)),
        with("expiration", json!(-1)),
        with("expiration", json!(i64::MAX)),
        with("expiration", json!("canary-secret")),
        with("accessKeyId", json!("")),
        with("sessionToken", json!("a\nb")),
        Reply::json(200, &json!({})),
        Reply::text(200, "<html>canary-secret"),
        Reply::text(403, "<html>canary-secret"),
        Reply::json(400, &json!({ "no": "kind" })),
        Reply::text(302, "").header("location", "http://127.0.0.1/".into()),
    ] {
        let error = asked(reply).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Verification, "{error}");
        assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
    }
}

#[test]
fn a_server_that_repeats_what_it_was_sent_is_not_quoted() {
    let repeats = json!({ "__type": "ForbiddenException", "message": format!("no {TOKEN}") });
    let error = asked(Reply::json(403, &repeats)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(!format!("{error} {error:?}").contains(TOKEN), "{error}");

    let server = TestServer::start(|_, _| {
        Reply::json(
            400,
            &json!({ "error": "canary-refresh", "error_description": "canary-client" }),
        )
    });
    let dir = tempfile::tempdir().unwrap();
    let host = test_server::host(dir.path(), time::Duration::ZERO);
    let server = at(&server);
    let client = Registration {
        client_id: "id".into(),
        client_secret: Secret::new("canary-client".into()),
        client_secret_expires_at: 0,
    };
    let refresh = Secret::new("canary-refresh".to_string());
    let oidc = Oidc::new(&host, &server).unwrap();
    let failure: Failure = run(oidc.create_token(&client, &Grant::Refresh(&refresh))).unwrap_err();
    let error = failure.clone().error("no tokens");
    assert!(!format!("{error} {error:?} {failure:?} {client:?}").contains("canary"), "{error}");
}

#[test]
fn a_list_without_end_ends() {
    let server = TestServer::start(|_, _| {
        Reply::json(200, &json!({ "accountList": [], "nextToken": "more" }))
    });
    let dir = tempfile::tempdir().unwrap();
    let host = test_server::host(dir.path(), time::Duration::ZERO);
    let (server, token) = (at(&server), Secret::new(TOKEN.to_string()));
    let portal = Portal::new(&host, &server, &token).unwrap();
    let error = run(portal.available()).unwrap_err().error("no list");
    assert!(error.to_string().contains("no list") && error.kind() == ErrorKind::Verification);
}

#[test]
fn a_portal_that_cannot_serve_is_asked_again_while_the_session_lasts() {
    let given = json!({ "roleCredentials": { "accessKeyId": "A", "secretAccessKey": "B",
        "sessionToken": "C", "expiration": 4_102_444_800_000_i64 } });
    let later = || Reply::text(503, "").header("retry-after", "1".into());
    for failing in [Reply::text(503, ""), Reply::text(429, ""), Reply::gone(), later()] {
        for (left, effort, requests) in [
            (time::Duration::HOUR, Effort::MINT, 2),
            (time::Duration::HOUR, Effort::RENEW, 1),
            (time::Duration::ZERO, Effort::MINT, 1),
        ] {
            let (failing, given) = (failing.clone(), given.clone());
            let before = AtomicUsize::new(0);
            let server =
                TestServer::start(move |_, _| match before.fetch_add(1, Ordering::Relaxed) {
                    0 => failing.clone(),
                    _ => Reply::json(200, &given),
                });
            let dir = tempfile::tempdir().unwrap();
            let host = test_server::host(dir.path(), time::Duration::ZERO);
            let (at, token) = (at(&server), Secret::new(TOKEN.to_string()));
            let portal = Portal::new(&host, &at, &token).unwrap();
            let portal = portal.with_effort(effort, SystemClock.now() + left);
            let account = AccountId::parse("111122223333").unwrap();
            let outcome = run(portal.role_credentials(&account, "Admin"));
            assert_eq!(outcome.is_ok(), requests == 2, "{effort:?}");
            assert_eq!(server.arrived().len(), requests, "{effort:?}");
        }
    }
}
