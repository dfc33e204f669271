//! Access keys: what they sign, and MFA codes on the way.

use super::*;
use crate::credential::{AccessKeys, Proof};
use crate::mint::aws::EndpointUrl;

const USER: &str = "arn:aws:iam::123456789012:user/alice";
const DEVICE: &str = "arn:aws:iam::123456789012:mfa/alice";

/// The access keys of a user.
fn access_keys() -> Assertion {
    let [id, secret] = ["AKIAUSER", "canary-long-lived"].map(|text| Secret::new(text.to_string()));
    let token = AccessKeys::new(id, secret, None).unwrap().write();
    Assertion { token, token_type: TokenType::AwsAccessKeys, ..assertion() }
}

/// What a user's own calls are answered with.
fn of_user(asked: &Arrived) -> Reply {
    let action = &asked.form["Action"];
    let inner = match action.as_str() {
        "GetCallerIdentity" => format!("<Arn>{USER}</Arn><UserId>AIDA</UserId><Account>123456789012</Account>"),
        "GetSessionToken" => format!(
            "<Credentials><AccessKeyId>ASIA{action}</AccessKeyId><SecretAccessKey>canary-key</SecretAccessKey>\
             <SessionToken>canary-token</SessionToken><Expiration>{}</Expiration></Credentials>",
            in_an_hour()
        ),
        _ => return good(asked),
    };
    let body = format!(
        "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result>{inner}</{action}Result>\
         <ResponseMetadata><RequestId>r-1</RequestId></ResponseMetadata></{action}Response>"
    );
    Reply::text(200, &body).header("content-type", "text/xml".into())
}

#[cfg(unix)]
#[test]
fn access_keys_sign_for_a_session_of_their_user_and_are_sent_nowhere() {
    let server = TestServer::start(|asked, _| of_user(asked));
    let mfa = json!({ "serial": DEVICE, "command": ["echo", "314159"] });
    let target = settings(json!({ "mfa": mfa, "expect_account": ["123456789012"] }));
    let request = Request { role: USER.into(), ..request(Some(129_600)) };
    let credential = mint_for(&server, target, &request, &access_keys()).unwrap();
    assert_eq!(credential.role, USER);
    let [first, second] = &server.arrived()[..] else { panic!("two requests") };
    let form: Vec<_> = first.form.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(
        form,
        [
            ("Action", "GetSessionToken"),
            ("DurationSeconds", "129600"),
            ("SerialNumber", DEVICE),
            ("TokenCode", "314159"),
            ("Version", "2011-06-15"),
        ]
    );
    assert_eq!(second.form["Action"], "GetCallerIdentity");
    for (asked, key) in [(first, "AKIAUSER"), (second, "ASIAGetSessionToken")] {
        let signature = asked.headers["authorization"].to_str().unwrap();
        assert!(signature.contains(&format!("Credential={key}/")), "{signature}");
        assert!(!format!("{asked:?}").contains("canary-long-lived"));
    }
    assert!(!first.headers.contains_key("x-amz-security-token"));

    // Some servers do not know the second call.
    for (status, expected, good) in [(405, false, true), (405, true, false), (403, false, false)] {
        let server = TestServer::start(move |asked, _| match asked.form["Action"].as_str() {
            "GetCallerIdentity" => Reply::text(status, "<Error><Code>MethodNotAllowed</Code></Error>"),
            _ => of_user(asked),
        });
        let accounts = if expected { vec!["123456789012"] } else { vec![] };
        let target = settings(json!({ "expect_account": accounts }));
        assert_eq!(mint_for(&server, target, &request, &access_keys()).is_ok(), good, "{status}");
    }

    let other = Request { role: format!("{USER}2"), ..request };
    let error = mint_for(&server, Settings::default(), &other, &access_keys()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Verification);
    assert!(error.to_string().contains("of another user"), "{error}");
}

#[cfg(unix)]
#[test]
fn a_user_assumes_roles_with_the_keys_or_with_a_session() {
    let server = TestServer::start(|asked, _| of_user(asked));
    let mfa = json!({ "serial": DEVICE, "command": ["echo", "271828"] });
    let target = json!({ "mfa": mfa, "external_id": "x", "source_identity": "al", "tags": { "team": "a" } });
    mint_for(&server, settings(target), &request(Some(43_200)), &access_keys()).unwrap();
    let [asked] = &server.arrived()[..] else { panic!("one request") };
    for (name, value) in [
        ("Action", "AssumeRole"),
        ("RoleArn", HUB),
        ("TokenCode", "271828"),
        ("SerialNumber", DEVICE),
        ("ExternalId", "x"),
        ("SourceIdentity", "al"),
        ("Tags.member.1.Key", "team"),
    ] {
        assert_eq!(asked.form[name], value);
    }

    let server = TestServer::start(|asked, _| of_user(asked));
    let target = json!({ "chain": [{ "role_arn": HUB, "mfa": mfa }, { "role_arn": SPOKE }] });
    let request = Request { role: USER.into(), ..request(Some(3600)) };
    mint_for(&server, settings(target), &request, &access_keys()).unwrap();
    let arrived = server.arrived();
    let steps: Vec<_> = arrived
        .iter()
        .map(|asked| (asked.form["Action"].as_str(), asked.form.contains_key("TokenCode")))
        .collect();
    assert_eq!(steps, [("GetSessionToken", false), ("AssumeRole", true), ("AssumeRole", false)]);
}

#[test]
fn steps_tell_all_that_is_asked_for() {
    let target = settings(json!({ "chain": [
        { "role_arn": HUB, "mfa": { "serial": DEVICE }, "tags": { "team": "a", "x": "y" } },
        { "role_arn": SPOKE, "source_identity": "al", "session_name": "name", "policy": "{}" },
    ]}));
    assert_eq!(
        target.steps(USER, Proof::AwsAccessKeys),
        [
            format!("GetSessionToken of {USER}"),
            format!(
                "AssumeRole of {HUB}, as tmpcred-{{subject}}, tagged team=a x=y, \
                 with a code of the MFA device {DEVICE} that you are asked for"
            ),
            format!("AssumeRole of {SPOKE}, as name, source identity al, within a policy of its own"),
        ]
    );
    let first = |proof| settings(json!({})).steps(HUB, proof)[0].split(' ').next().map(String::from);
    assert_eq!(first(Proof::Token).as_deref(), Some("AssumeRoleWithWebIdentity"));
    assert_eq!(first(Proof::AwsAccessKeys).as_deref(), Some("AssumeRole"));
}

#[cfg(unix)]
#[test]
fn an_mfa_code_is_sent_once_whatever_is_answered() {
    let mfa = |code: &str| json!({ "mfa": { "serial": DEVICE, "command": ["echo", code] } });
    for (status, code, kind) in [
        (503, "ServiceUnavailable", ErrorKind::Unreachable),
        (400, "Throttling", ErrorKind::Unreachable),
        (403, "AccessDenied", ErrorKind::Denied),
        (403, "InvalidClientTokenId", ErrorKind::Verification),
    ] {
        let server = TestServer::start(move |_, _| refusal(status, code));
        let user = Request { role: USER.into(), ..request(None) };
        for request in [request(None), user] {
            let error = mint_for(&server, settings(mfa("141421")), &request, &access_keys()).unwrap_err();
            assert_eq!(error.kind(), kind, "{code}: {error}");
            let hints = error.hints().concat();
            assert_eq!(hints.contains("another code"), kind == ErrorKind::Denied, "{hints}");
            assert_eq!(code == "InvalidClientTokenId", hints.contains("deleted"), "{hints}");
        }
        assert_eq!(server.arrived().len(), 2, "{code}");
    }
    let server = TestServer::start(|_, _| Reply::gone());
    mint_for(&server, settings(mfa("141421")), &request(None), &access_keys()).unwrap_err();
    assert_eq!(server.arrived().len(), 1, "a connection that broke has taken the code too");
    // A server that repeats the code is not quoted.
    let server = TestServer::start(|asked, _| {
        let body = format!("<ErrorResponse><Error><Code>AccessDenied</Code><Message>not {}</Message></Error></ErrorResponse>", asked.form["TokenCode"]);
        Reply::text(403, &body)
    });
    let error = mint_for(&server, settings(mfa("161803")), &request(None), &access_keys()).unwrap_err();
    assert!(!format!("{error:?}").contains("161803"), "{error:?}");
}

#[test]
fn who_asks_must_fit_what_is_asked_for() {
    let mfa = json!({ "serial": DEVICE });
    let (token, keys) = (Proof::Token, Proof::AwsAccessKeys);
    for (target, role, proof, what, why) in [
        (json!({}), USER, token, "role", "for that user's access keys"),
        (json!({ "mfa": mfa }), HUB, token, "target", "no MFA code"),
        (json!({ "tags": { "a": "b" } }), HUB, token, "target", "`tags`"),
        (json!({ "source_identity": "al" }), HUB, token, "target", "`source_identity`"),
        (json!({ "external_id": "x" }), USER, keys, "target", "takes no external_id"),
        (json!({ "policy": "{}" }), USER, keys, "target", "takes no session policy"),
        (json!({ "session_name": "xy" }), USER, keys, "target", "takes no session_name"),
        (json!({ "chain": [{ "role_arn": SPOKE, "mfa": mfa }] }), HUB, keys, "target", "no MFA device"),
        (json!({ "transitive_tags": ["a"] }), HUB, keys, "target", "not among the tags"),
    ] {
        let refusal = settings(target).check(role, false, None, Some(proof)).unwrap_err();
        assert_eq!(refusal.what, what, "{refusal:?}");
        assert!(refusal.why.contains(why), "{refusal:?}");
    }
    for (target, role, hours, good) in [
        (json!({ "mfa": mfa }), USER, 36, true),
        (json!({ "mfa": mfa }), USER, 37, false),
        (json!({ "mfa": mfa }), HUB, 13, false),
        // The first role behind a user is not chained, the second is.
        (json!({ "chain": [{ "role_arn": HUB, "mfa": mfa }] }), USER, 12, true),
        (json!({ "chain": [{ "role_arn": HUB }, { "role_arn": SPOKE }] }), USER, 2, false),
        (json!({ "chain": [{ "role_arn": SPOKE }] }), HUB, 2, false),
    ] {
        let ttl = Some(Duration::from_secs(hours * 3600));
        let checked = settings(target.clone()).check(role, false, ttl, Some(keys));
        assert_eq!(checked.is_ok(), good, "{target} {hours}: {checked:?}");
    }
    let read_only = Narrowing { read_only: true, ..Narrowing::default() };
    assert!(Settings::default().narrow(USER, &read_only).unwrap_err().why.contains("session policy"));
    // Whatever was checked before: keys never go where a token goes.
    let server = TestServer::start(|asked, _| good(asked));
    let user = Request { role: USER.into(), ..request(None) };
    mint_for(&server, Settings::default(), &user, &assertion()).unwrap_err();
    assert!(server.arrived().is_empty());
}

#[cfg(unix)]
#[test]
fn no_mfa_code_is_used_up_while_the_server_is_left_alone() {
    let server = TestServer::start(|_, _| refusal(503, "ServiceUnavailable"));
    let dir = tempfile::tempdir().unwrap();
    // Of one moment, however long they take: later it would be asked again.
    let moment = SystemClock.now();
    let ask = |code: &str, insists: bool| {
        let host = test_server::host_at(dir.path(), moment);
        let plan = Plan::Aws(Box::new(Settings {
            endpoint_url: Some(EndpointUrl::parse(&server.origin).unwrap()),
            ..settings(json!({ "mfa": { "serial": DEVICE, "command": ["echo", code] } }))
        }));
        if insists {
            plan.insist(&host, Wish::Overridden);
        }
        run(plan.open().mint(&host, &access_keys(), &request(None))).unwrap_err().to_string()
    };
    for code in ["100001", "100002", "100003"] {
        assert!(!ask(code, false).contains("in a row"));
    }
    let error = ask("100004", false);
    assert!(error.contains("it has failed 3 times in a row"), "{error}");
    assert_eq!(server.arrived().len(), 3);
    // That code is as good as ever.
    ask("100004", true);
    assert_eq!(server.arrived()[3].form["TokenCode"], "100004");
}

/// Mints at a server whose clock is right, with a clock that is so many minutes off. What
/// is signed at the wrong time, or at any where `right` is false, is refused like this.
fn mint_with_clock(
    off: i64,
    right: bool,
    refused: Reply,
    (role, target): (&str, Settings),
) -> (Result<Credential>, Vec<Arrived>) {
    let minutes_off = |asked: &Arrived| {
        let format = time::macros::format_description!("[year][month][day]T[hour][minute][second]Z");
        let date = asked.headers["x-amz-date"].to_str().unwrap();
        let date = time::PrimitiveDateTime::parse(date, &format).unwrap().assume_utc();
        (date - SystemClock.now()).whole_minutes()
    };
    let server = TestServer::start(move |asked, _| {
        let reply = match minutes_off(asked).abs() < 5 && right {
            true => of_user(asked),
            false => refused.clone(),
        };
        let date = SystemClock.now().format(&time::format_description::well_known::Rfc2822);
        reply.header("date", date.unwrap().replace("+0000", "GMT"))
    });
    let dir = tempfile::tempdir().unwrap();
    let host = test_server::host(dir.path(), time::Duration::minutes(off));
    let endpoint_url = Some(EndpointUrl::parse(&server.origin).unwrap());
    let request = Request { role: role.into(), ..request(None) };
    let target = Aws::new(Settings { endpoint_url, ..target });
    (run(target.mint(&host, &access_keys(), &request)), server.arrived())
}

#[test]
fn what_was_signed_at_the_wrong_time_is_signed_anew() {
    let mint = |off, right| {
        let refused = refusal(403, "SignatureDoesNotMatch");
        let (minted, arrived) = mint_with_clock(off, right, refused, (USER, settings(json!({}))));
        (minted, arrived.len())
    };
    for off in [10, -10] {
        let (minted, asked) = mint(off, true);
        minted.unwrap();
        assert_eq!(asked, 3, "once in vain");
    }
    assert_eq!(mint(0, true).1, 2);
    // Who says no to another signature too is not asked a third time.
    let (refused, asked) = mint(10, false);
    assert_eq!((refused.unwrap_err().kind(), asked), (ErrorKind::Verification, 2));
    assert_eq!(mint(0, false).1, 1);
}

#[cfg(unix)]
#[test]
fn a_code_that_may_have_been_looked_at_is_not_signed_anew() {
    let mint = |right, refused| {
        let mfa = json!({ "mfa": { "serial": DEVICE, "command": ["echo", "173205"] } });
        mint_with_clock(10, right, refused, (HUB, settings(mfa)))
    };
    for (code, message, asked) in [
        ("AccessDenied", "MultiFactorAuthentication failed with invalid MFA one time pass code.", 1),
        ("InvalidClientTokenId", "said", 1),
        ("SignatureDoesNotMatch", "said", 2),
        ("RequestExpired", "said", 2),
        ("RequestTimeTooSkewed", "said", 2),
        ("AuthFailure", "Signature expired: 20260101T000000Z is now earlier than", 2),
        ("AuthFailure", "Signature not yet current: 20260101T000000Z is still later than", 2),
    ] {
        let (refused, arrived) = mint(false, refusal_saying(403, code, message));
        refused.unwrap_err();
        assert_eq!(arrived.len(), asked, "{code}: {message}");
    }
    let (minted, arrived) = mint(true, refusal(403, "SignatureDoesNotMatch"));
    minted.unwrap();
    let codes: Vec<_> = arrived.iter().map(|asked| asked.form["TokenCode"].as_str()).collect();
    assert_eq!(codes, ["173205", "173205"], "nobody has looked at the first");
}
