//! What policies can say of those who operate a broker.

use super::*;
use crate::broker::authenticate::id_of;
use crate::broker::config::Client;

fn operates(text: &str, operation: &Operation) -> Result<bool, String> {
    let policy = load(&(permit("p", "@ttl(\"15m\")", "true") + text)).unwrap();
    let caller = caller(ISSUER, "alice", json!({"groups": ["ops"]})).unwrap();
    policy.operates(&caller, operation, MOMENT).map(|answer| answer.permits)
}

fn one(action: &str, resource: &str, condition: &str) -> String {
    format!(
        "@id(\"o\") permit (principal in Group::\"{ISSUER}#ops\", action == Action::\"{action}\", {resource}) when {{ {condition} }};"
    )
}

fn of_role(role: &str) -> Operation {
    Operation::Revoke(Tokens { role: Some(role.into()), ..Tokens::named(Named::Role) })
}

fn of_subject(subject: &str) -> Operation {
    let of = Principal { issuer: ISSUER.into(), subject: subject.into() };
    let issuer = Some(ISSUER.to_string());
    Operation::Revoke(Tokens { subject: Some(of), issuer, ..Tokens::named(Named::Subject) })
}

#[test]
fn what_is_revoked_is_of_a_role_or_of_the_broker() {
    let everything = Operation::Revoke(Tokens::named(Named::All));
    for (resource, role, other, all) in [
        ("resource", true, true, true),
        ("resource == Role::\"deploy\"", true, false, false),
        ("resource is Role", true, true, false),
        ("resource is Broker", false, false, true),
        ("resource == Broker::\"https://broker.example.com\"", false, false, true),
    ] {
        let text = one("revoke", resource, "true");
        assert_eq!(operates(&text, &of_role("deploy")), Ok(role), "{resource}");
        assert_eq!(operates(&text, &of_role("reader")), Ok(other), "{resource}");
        assert_eq!(operates(&text, &everything), Ok(all), "{resource}");
        // To revoke is not to administer.
        let list = Operation::Administer(Administration::ListKeys);
        assert_eq!(operates(&text, &list), Ok(false), "{resource}");
    }
    assert_eq!(operates("", &of_role("deploy")), Ok(false), "nothing is permitted by itself");
}

#[test]
fn whose_they_are_is_told_where_it_is_said() {
    let text = one(
        "revoke",
        "resource",
        &format!(
            "context has of_subject && context.of_subject == User::\"{}\"",
            id_of(ISSUER, "bob")
        ),
    );
    assert_eq!(operates(&text, &of_subject("bob")), Ok(true));
    assert_eq!(operates(&text, &of_subject("carol")), Ok(false));
    assert_eq!(operates(&text, &of_role("deploy")), Ok(false));
    // The parts of the name are known of who is no party to the request.
    let text = one(
        "revoke",
        "resource",
        "context has of_subject && context.of_subject.subject == \"bob\" && context.what == \"subject\"",
    );
    assert_eq!(operates(&text, &of_subject("bob")), Ok(true));
    // Nobody knows their groups.
    let group = one(
        "revoke",
        "resource",
        &format!("context has of_subject && context.of_subject in Group::\"{ISSUER}#ops\""),
    );
    assert_eq!(operates(&group, &of_subject("bob")), Ok(false));
    assert_eq!(operates(&group, &of_subject("alice")), Ok(true), "but those of who asks");
    // What need not be there is asked for first.
    let text = one("revoke", "resource", "context.of_client == \"cli\"");
    assert!(load(&(permit("p", "@ttl(\"15m\")", "true") + &text)).is_err());
}

#[test]
fn each_operation_is_named_and_what_fails_is_no_yes() {
    for what in Administration::ALL {
        assert_eq!(Administration::from_name(what.name()), Some(what));
        let text =
            one("administer", "resource", &format!("context.operation == \"{}\"", what.name()));
        for asked in Administration::ALL {
            assert_eq!(operates(&text, &Operation::Administer(asked)), Ok(asked == what));
        }
    }
    for named in Named::ALL {
        assert_eq!(Named::from_name(named.name()), Some(named));
    }
    let fails = one("administer", "resource", "true")
        + "@id(\"f\") forbid (principal, action == Action::\"administer\", resource) \
           when { 9223372036854775807 + 1 == (if context.operation == \"\" then 1 else 2) };";
    assert!(operates(&fails, &Operation::Administer(Administration::ReadAudit)).is_err());
    let forbidden = one("administer", "resource", "true")
        + &format!("@id(\"f\") forbid (principal == User::\"{ISSUER}#alice\", action, resource);");
    let list = Operation::Administer(Administration::ListKeys);
    assert_eq!(operates(&forbidden, &list), Ok(false));
}

#[test]
fn a_permit_says_of_which_issuer_where_clients_operate_in_their_own_name() {
    let roles = BTreeMap::from([("deploy".to_string(), role("read write admin", 3600))]);
    let issuers = trusted(&[ISSUER]);
    let clients: Clients = [("api".to_string(), Client::default())].into();
    let load = |text: &str| {
        let text = permit("p", "@ttl(\"5m\")", "true") + text;
        let sources = [Source { path: "policy.cedar".into(), text }];
        let clients = &clients;
        let world = World { clients, ..world(&roles, &issuers) };
        Policy::load(&sources, world)
    };
    for action in ["revoke", "administer"] {
        let own = "principal == User::\"https://broker.example.com#api\"";
        let permit = |who: &str| {
            format!("@id(\"o\") permit ({who}, action == Action::\"{action}\", resource);")
        };
        assert!(load(&permit(own)).is_ok());
        let error = load(&permit("principal")).unwrap_err().to_string();
        assert!(error.contains("the permit 'o' is for callers of every"), "{error}");
    }
}
