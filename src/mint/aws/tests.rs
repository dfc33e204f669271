//! What STS may answer: a stand-in that is written from its published API
//! (<https://docs.aws.amazon.com/STS/latest/APIReference/>), for answers that no
//! real peer gives on demand.

mod users;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Aws, Settings, Step};
use crate::credential::{Assertion, Credential, Material, Principal, TokenType};
use crate::error::{Error, ErrorKind, Result};
use crate::host::clock::{Clock, SystemClock};
use crate::host::test_server::{self, Arrived, Reply, TestServer, run};
use crate::mint::{Narrowing, Plan, Request, Target};
use crate::reach::{Effort, Wish};
use crate::secret::Secret;

const HUB: &str = "arn:aws:iam::123456789012:role/hub";
const SPOKE: &str = "arn:aws:iam::210987654321:role/spoke";

fn settings(value: serde_json::Value) -> Settings {
    serde_json::from_value(value).unwrap()
}

fn assertion() -> Assertion {
    Assertion {
        token: Secret::new("canary-assertion".into()),
        token_type: TokenType::IdToken,
        principal: Principal { issuer: "https://i.example".into(), subject: "al ice".into() },
        expires_at: SystemClock.now() + time::Duration::HOUR,
        grant_ends: None,
    }
}

fn request(ttl: Option<u64>) -> Request {
    Request {
        role: HUB.into(),
        scope: Vec::new(),
        audience: "sts.amazonaws.com".into(),
        ttl: ttl.map(Duration::from_secs),
        elevation: None,
    }
}

fn in_an_hour() -> String {
    let end: OffsetDateTime = SystemClock.now() + time::Duration::HOUR;
    end.replace_nanosecond(0).unwrap().format(&Rfc3339).unwrap()
}

/// A session of the role that was asked for. The keys tell which call it was.
fn grant(asked: &Arrived, credentials: &str) -> Reply {
    let action = &asked.form["Action"];
    let (account, name) = asked.form["RoleArn"].split_once("::").unwrap().1.split_once(":role/").unwrap();
    Reply::text(
        200,
        &format!(
            "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result>\
             <Credentials>{credentials}</Credentials><AssumedRoleUser><AssumedRoleId>AROA:x</AssumedRoleId>\
             <Arn>arn:aws:sts::{account}:assumed-role/{name}/x</Arn></AssumedRoleUser></{action}Result>\
             <ResponseMetadata><RequestId>r-1</RequestId></ResponseMetadata></{action}Response>"
        ),
    )
    .header("content-type", "text/xml".into())
}

fn good(asked: &Arrived) -> Reply {
    let which = &asked.form["Action"];
    grant(
        asked,
        &format!(
            "<AccessKeyId>ASIA{which}</AccessKeyId><SecretAccessKey>canary-key</SecretAccessKey>\
             <SessionToken>canary-token</SessionToken><Expiration>{}</Expiration>",
            in_an_hour()
        ),
    )
}

fn refusal(status: u16, code: &str) -> Reply {
    refusal_saying(status, code, "said \u{202e} canary-not")
}

fn refusal_saying(status: u16, code: &str, message: &str) -> Reply {
    let body = format!(
        "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
         <Code>{code}</Code><Message>{message}</Message></Error>\
         <RequestId>r-1</RequestId></ErrorResponse>"
    );
    Reply::text(status, &body).header("content-type", "text/xml".into())
        .header("x-amzn-requestid", "r-1".into())
}

fn mint_at(server: &TestServer, target: Settings, request: &Request) -> Result<Credential> {
    mint_for(server, target, request, &assertion())
}

fn mint_for(
    server: &TestServer,
    mut target: Settings,
    request: &Request,
    assertion: &Assertion,
) -> Result<Credential> {
    target.endpoint_url = Some(super::EndpointUrl::parse(&server.origin).unwrap());
    let dir = tempfile::tempdir().unwrap();
    let host = test_server::host(dir.path(), time::Duration::ZERO);
    run(Aws::new(target).mint(&host, assertion, request))
}

fn refused(server: &TestServer, target: Settings) -> Error {
    let error = mint_at(server, target, &request(None)).unwrap_err();
    let shown = format!("{error:?}");
    assert!(!shown.contains("canary-assertion") && !shown.contains("canary-key"), "{shown}");
    error
}

#[test]
fn one_request_mints() {
    let server = TestServer::start(|asked, _| good(asked));
    let target = settings(json!({ "region": "eu-central-1", "policy": "{}",
        "policy_arns": ["arn:aws:iam::aws:policy/ReadOnlyAccess"] }));
    let credential = mint_at(&server, target, &request(Some(3600))).unwrap();
    let Material::Aws { access_key_id, region, .. } = &credential.material else { panic!("aws") };
    assert_eq!(access_key_id.expose(), "ASIAAssumeRoleWithWebIdentity");
    assert_eq!(region.as_deref(), Some("eu-central-1"));
    assert_eq!((credential.role.as_str(), &credential.principal), (HUB, &assertion().principal));
    let left = credential.lifetime.remaining(SystemClock.now());
    assert!(left > time::Duration::minutes(59), "{left}");
    let [asked] = &server.arrived()[..] else { panic!("one request") };
    let form: Vec<_> = asked.form.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(
        form,
        [
            ("Action", "AssumeRoleWithWebIdentity"),
            ("DurationSeconds", "3600"),
            ("Policy", "{}"),
            ("PolicyArns.member.1.arn", "arn:aws:iam::aws:policy/ReadOnlyAccess"),
            ("RoleArn", HUB),
            ("RoleSessionName", "tmpcred-al-ice"),
            ("Version", "2011-06-15"),
            ("WebIdentityToken", "canary-assertion"),
        ]
    );
    assert!(!asked.headers.contains_key("authorization"), "there is nothing to sign with");
}

#[test]
fn each_role_of_a_chain_is_assumed_with_the_session_of_the_one_before() {
    let server = TestServer::start(|asked, _| good(asked));
    let target = settings(json!({ "chain": [
        { "role_arn": SPOKE, "external_id": "x", "session_name": "{subject}", "source_identity": "al",
          "tags": { "team": "a" }, "transitive_tags": ["team"] },
        { "role_arn": HUB, "policy": "{}" },
    ]}));
    let credential = mint_at(&server, target, &request(Some(1800))).unwrap();
    assert_eq!(credential.role, HUB);
    let arrived = server.arrived();
    let [first, second, third] = &arrived[..] else { panic!("three requests") };
    let durations: Vec<_> = arrived.iter().map(|asked| &asked.form["DurationSeconds"]).collect();
    assert_eq!(durations, ["900", "900", "1800"], "only the last one has to last");
    for (name, value) in [
        ("RoleArn", SPOKE),
        ("ExternalId", "x"),
        ("RoleSessionName", "al-ice"),
        ("SourceIdentity", "al"),
        ("Tags.member.1.Key", "team"),
        ("Tags.member.1.Value", "a"),
        ("TransitiveTagKeys.member.1", "team"),
    ] {
        assert_eq!(second.form[name], value);
    }
    assert!(!first.form.contains_key("Policy") && third.form["Policy"] == "{}");
    for (asked, key) in [(second, "ASIAAssumeRoleWithWebIdentity"), (third, "ASIAAssumeRole")] {
        let signature = asked.headers["authorization"].to_str().unwrap();
        assert!(signature.contains(&format!("Credential={key}/")), "{signature}");
        assert_eq!(asked.headers["x-amz-security-token"], "canary-token");
    }
}

#[test]
fn what_fails_in_the_middle_of_a_chain_names_the_role_that_was_asked_for() {
    for (status, code, kind, says) in [
        (403, "AccessDenied", ErrorKind::Denied, "AWS says no"),
        (400, "ExpiredTokenException", ErrorKind::Verification, "the session expired"),
    ] {
        let server = TestServer::start(move |asked, _| match asked.form["Action"].as_str() {
            "AssumeRole" => refusal(status, code),
            _ => good(asked),
        });
        let target = settings(json!({ "chain": [{ "role_arn": SPOKE }, { "role_arn": HUB }] }));
        let error = refused(&server, target);
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains(SPOKE), "{error}");
        assert!(error.causes().concat().contains(says), "{error}");
        // Who asked, and so whose permissions may lack.
        assert_eq!(
            kind == ErrorKind::Denied,
            error.hints().concat().contains("assumed-role/hub/x"),
            "{error:?}"
        );
        assert_eq!(server.arrived().len(), 2, "nobody asks for the role behind it");
    }
}

#[test]
fn answers_that_are_no_good_credentials_are_refused() {
    let end = in_an_hour();
    let keys = |id: &str, key: &str, token: &str, rest: &str| {
        format!("<AccessKeyId>{id}</AccessKeyId><SecretAccessKey>{key}</SecretAccessKey><SessionToken>{token}</SessionToken>{rest}")
    };
    let ends = |end: &str| format!("<Expiration>{end}</Expiration>");
    for (credentials, says) in [
        (keys("A", "canary-key", "t", ""), "does not say when"),
        (keys("A", "canary-key", "t", &ends("2020-01-01T00:00:00Z")), "expired already"),
        (keys("", "canary-key", "t", &ends(&end)), "a part is empty"),
        (keys("A", "", "t", &ends(&end)), "a part is empty"),
        (keys("A", "canary-key", "", &ends(&end)), "a part is empty"),
        (keys("A", "canary-key", "t t", &ends(&end)), "characters that no credential has"),
        (format!("<AccessKeyId>A</AccessKeyId>{}", ends(&end)), "a part is empty"),
        (keys("A", "canary-key", "t", &ends("soon")), "cannot be understood"),
    ] {
        let shown = credentials.clone();
        let server = TestServer::start(move |asked, _| grant(asked, &credentials));
        let error = refused(&server, Settings::default());
        assert_eq!(error.kind(), ErrorKind::Verification, "{shown}: {error}");
        assert!(error.to_string().contains(says), "{says}: {error}");
        assert!(error.message().contains(HUB), "{error}");
    }
}

#[test]
fn refusals_are_told_apart_and_have_the_words_of_aws() {
    for (status, code, kind) in [
        (403, "AccessDenied", ErrorKind::Denied),
        (400, "ExpiredTokenException", ErrorKind::Verification),
        (400, "InvalidIdentityToken", ErrorKind::Verification),
        (403, "IDPRejectedClaim", ErrorKind::Verification),
        (403, "SignatureDoesNotMatch", ErrorKind::Verification),
        (400, "MalformedPolicyDocument", ErrorKind::Config),
        (400, "PackedPolicyTooLarge", ErrorKind::Config),
        (403, "RegionDisabledException", ErrorKind::Config),
        (400, "ValidationError", ErrorKind::Config),
        (400, "SomethingNew", ErrorKind::Other),
    ] {
        let server = TestServer::start(move |_, _| refusal(status, code));
        let error = refused(&server, Settings::default());
        assert_eq!(error.kind(), kind, "{code}: {error}");
        let causes = error.causes();
        assert_eq!(causes[causes.len() - 2..], ["said \u{fffd} canary-not", "the request is r-1"]);
        assert_eq!(server.arrived().len(), 1, "{code}: a refusal is not tried again");
    }
}

#[test]
fn outages_are_tried_again_but_not_for_ever() {
    for (status, code) in [(503, "ServiceUnavailable"), (400, "Throttling"), (400, "IDPCommunicationError"), (500, "x")] {
        let server = TestServer::start(move |_, _| refusal(status, code));
        let error = refused(&server, Settings::default());
        assert_eq!(error.kind(), ErrorKind::Unreachable, "{code}: {error}");
        assert_eq!(server.arrived().len(), 3, "{code}");
    }
    let server = TestServer::start(|_, _| Reply::gone());
    let error = refused(&server, Settings::default());
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
    assert_eq!(server.arrived().len(), 3);
    // Once the assertion has ended there is nothing to ask with.
    let server = TestServer::start(|_, _| refusal(503, "ServiceUnavailable"));
    let ended = Assertion { expires_at: SystemClock.now(), ..assertion() };
    mint_for(&server, Settings::default(), &request(None), &ended).unwrap_err();
    assert_eq!(server.arrived().len(), 1);
    let server = TestServer::start(|_, _| Reply::text(502, "<html>canary-key"));
    assert_eq!(refused(&server, Settings::default()).kind(), ErrorKind::Unreachable);
}

#[test]
fn a_server_that_asks_for_time_gets_it() {
    let asked_before = AtomicUsize::new(0);
    let server = TestServer::start(move |asked, _| {
        match asked_before.fetch_add(1, Ordering::Relaxed) {
            0 => refusal(503, "ServiceUnavailable").header("retry-after", "2".into()),
            _ => good(asked),
        }
    });
    let started = Instant::now();
    mint_at(&server, Settings::default(), &request(None)).unwrap();
    assert!(started.elapsed() >= Duration::from_secs(2));
    assert_eq!(server.arrived().len(), 2);
}

#[test]
fn a_server_that_fails_is_left_alone_by_all_processes_but_for_one_that_insists() {
    let server = TestServer::start(|_, _| refusal(503, "ServiceUnavailable"));
    let dir = tempfile::tempdir().unwrap();
    // Of one moment, however long they take: later it would be asked again.
    let moment = SystemClock.now();
    let host = || test_server::host_at(dir.path(), moment);
    let plan = Plan::Aws(Box::new(Settings {
        endpoint_url: Some(super::EndpointUrl::parse(&server.origin).unwrap()),
        ..Settings::default()
    }));
    let ask = |effort: Effort| {
        let host = host();
        let mut target = plan.open();
        target.with_effort(effort);
        run(target.mint(&host, &assertion(), &request(None))).unwrap_err()
    };
    (0..3).for_each(|_| drop(ask(Effort::RENEW)));
    assert_eq!(server.arrived().len(), 3, "for a renewal it is asked once");
    let error = ask(Effort::MINT);
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(error.to_string().contains("it has failed 3 times in a row"), "{error}");
    assert_eq!(server.arrived().len(), 3);
    plan.insist(&host(), Wish::Overridden);
    ask(Effort::RENEW);
    assert_eq!(server.arrived().len(), 4);
}

#[test]
fn what_is_no_sts_is_explained() {
    for (reply, says) in [
        (Reply::text(200, "<html>canary-key"), "cannot be understood"),
        (Reply::text(404, "canary-key"), "status 404"),
        (Reply::text(307, "").header("location", "/".into()), "redirect"),
        (Reply::text(200, &"x".repeat(50_000_000)), "too large"),
    ] {
        let server = TestServer::start(move |_, _| reply.clone());
        let error = refused(&server, Settings::default());
        assert_eq!(error.kind(), ErrorKind::Verification, "{error}");
        assert!(error.to_string().contains(says), "{says}: {error}");
        assert_eq!(server.arrived().len(), 1, "{says}");
    }
}

#[test]
fn what_repeats_a_secret_of_the_request_is_not_shown() {
    // The message, the code and the request's id, each with one thing that it was sent.
    let repeats = |what: &str| {
        let body = format!(
            "<ErrorResponse><Error><Code>Odd{what}</Code><Message>no {what}</Message></Error>\
             <RequestId>r-{what}</RequestId></ErrorResponse>"
        );
        Reply::text(403, &body).header("x-amzn-requestid", format!("r-{what}"))
    };
    let server = TestServer::start(move |asked, _| repeats(&asked.form["WebIdentityToken"]));
    refused(&server, Settings::default());

    let keys = ["ASIAAssumeRoleWithWebIdentity", "canary-key", "canary-token"];
    for (key, shown) in keys.map(|key| (key, false)).into_iter().chain([("nothing of it", true)]) {
        let server = TestServer::start(move |asked, _| match &*asked.form["Action"] {
            "AssumeRole" => repeats(key),
            _ => good(asked),
        });
        let target = settings(json!({ "chain": [{ "role_arn": SPOKE }] }));
        let error = mint_at(&server, target, &request(None)).unwrap_err();
        assert_eq!(format!("{error:?}").contains(key), shown, "{key}: {error:?}");
    }
}

#[test]
fn a_credential_of_another_account_is_refused() {
    let server = TestServer::start(|asked, _| {
        let mut elsewhere = asked.clone();
        elsewhere.form.insert("RoleArn".into(), SPOKE.into());
        good(&elsewhere)
    });
    let target = settings(json!({ "expect_account": ["123456789012"] }));
    let error = refused(&server, target);
    assert_eq!(error.kind(), ErrorKind::Verification);
    assert!(error.to_string().contains("210987654321"), "{error}");
}

#[test]
fn what_cannot_be_had_is_known_before_anybody_is_asked() {
    let chain = json!({ "chain": [{ "role_arn": SPOKE }] });
    let hours = |n: u64| Some(Duration::from_secs(n * 3600));
    for (target, role, option, ttl, what) in [
        (json!({}), "deploy", false, None, "role"),
        (json!({}), HUB, false, Some(Duration::from_secs(899)), "ttl"),
        (json!({}), HUB, false, hours(13), "ttl"),
        (chain.clone(), HUB, false, hours(2), "ttl"),
        (chain.clone(), HUB, true, None, "role"),
        (json!({ "expect_account": ["210987654321"] }), HUB, false, None, "role"),
        (json!({}), "arn:aws-cn:iam::123456789012:role/x", false, None, "target"),
        (json!({ "use_fips": true }), HUB, false, None, "target"),
        (
            json!({ "use_fips": true, "region": "us-east-1", "endpoint_url": "https://sts.example" }),
            HUB,
            false,
            None,
            "target",
        ),
    ] {
        let refusal = settings(target).check(role, option, ttl, None).unwrap_err();
        assert_eq!(refusal.what, what, "{refusal:?}");
    }
    let fips = json!({ "use_fips": true, "region": "us-east-1" });
    for (target, ttl) in [(json!({}), hours(12)), (chain, hours(1)), (fips, None)] {
        settings(target).check(HUB, false, ttl, None).unwrap();
    }
    let account = json!({ "expect_account": ["210987654321"], "chain": [{ "role_arn": SPOKE }] });
    settings(account).check(HUB, false, None, None).unwrap();
}

#[test]
fn narrowing_falls_on_the_last_role_and_widens_nothing() {
    let read_only = Narrowing { read_only: true, ..Narrowing::default() };
    let mut plain = Settings::default();
    plain.narrow("arn:aws-us-gov:iam::123456789012:role/x", &read_only).unwrap();
    assert_eq!(plain.policy_arns[0].as_str(), "arn:aws-us-gov:iam::aws:policy/ReadOnlyAccess");
    let mut chained = settings(json!({ "chain": [{ "role_arn": SPOKE }], "policy": "{}" }));
    chained.narrow(HUB, &read_only).unwrap();
    let [Step { policy_arns, .. }] = &chained.chain[..] else { panic!("one step") };
    assert!(policy_arns.len() == 1 && chained.policy_arns.is_empty());
    assert!(chained.narrow(HUB, &read_only).unwrap_err().why.contains("would widen it"));
    let long = Narrowing { policy: Some(format!("{{\"x\":\"{}\"}}", "x".repeat(2048))), ..read_only };
    assert!(Settings::default().narrow(HUB, &long).unwrap_err().why.contains("2048"));
    let bad = Narrowing { policy_arns: vec!["x".into()], ..Narrowing::default() };
    assert_eq!(Settings::default().narrow(HUB, &bad).unwrap_err().what, "policy-arn");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test of who may write the file")]
fn a_policy_file_is_part_of_the_plan() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("p.json");
    let mut target = settings(json!({ "policy_file": file }));
    let missing = target.complete().unwrap_err();
    assert!(missing.to_string().contains("p.json"), "{missing}");
    crate::host::files::write_private(&file, b"{\"Version\":\"2012-10-17\"}").unwrap();
    target.complete().unwrap();
    target.complete().unwrap();
    assert_eq!(target.policy.as_deref(), Some("{\"Version\":\"2012-10-17\"}"));
    let mut both = settings(json!({ "policy_file": file, "policy": "{}" }));
    assert!(both.complete().unwrap_err().to_string().contains("cannot stand together"));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
        let unsafe_file = settings(json!({ "policy_file": file })).complete().unwrap_err();
        assert!(unsafe_file.to_string().contains("other users can write to it"), "{unsafe_file}");
    }
}
