//! What the broker that is attacked is told.

/// Who may do what.
pub(super) const POLICY: &str = r#"
@id("deployers") @ttl("1h") @scope("deploy:read deploy:write")
permit (
    principal in Group::"https://issuer.example#platform",
    action == Action::"issue",
    resource == Role::"deploy"
);

@id("alice-reads") @ttl("15m") @scope("deploy:read")
permit (
    principal == User::"https://issuer.example#alice",
    action == Action::"issue",
    resource
) when { resource in [Role::"reader", Role::"bound", Role::"opaque"] };

@id("jobs") @ttl("15m") @scope("deploy:read")
permit (principal, action == Action::"issue", resource == Role::"deploy") when {
    principal.issuer == "https://ci.example" &&
    principal.subject like "repo:acme/app:*" &&
    principal.hasTag("repository") && principal.getTag("repository").contains("acme/app")
};

@id("exchanges") @ttl("1h") @scope("deploy:read deploy:write")
permit (principal, action == Action::"exchange", resource) when {
    principal.issuer == "{self}" && resource in [Role::"deploy", Role::"reader"]
};

@id("robots-only") @ttl("15m") @scope("deploy:read")
permit (
    principal == User::"https://issuer.example#alice",
    action == Action::"issue",
    resource == Role::"robot"
) when { context has client && context.client == "robot" };

@id("four-eyes") @ttl("15m") @scope("deploy:read")
permit (
    principal == User::"https://issuer.example#alice",
    action == Action::"issue",
    resource == Role::"guarded"
) when { context has actor && context.actor != principal };

@id("on-call") @ttl("15m") @scope("deploy:read")
permit (
    principal in DirectoryGroup::"on-call",
    action == Action::"issue",
    resource == Role::"guarded"
);

@id("the-bot-acts")
permit (
    principal == User::"https://issuer.example#bot",
    action == Action::"act",
    resource
) when { resource in [Role::"deploy", Role::"guarded"] };

@id("the-api-introspects")
permit (
    principal == User::"https://issuer.example#api",
    action == Action::"introspect",
    resource
) when { context.audience == "https://api.example.com" };

@id("staff-asks")
permit (principal in DirectoryGroup::"staff", action == Action::"elevate", resource == Role::"prod")
unless { context.emergency };

@id("some-in-emergencies")
permit (principal, action == Action::"elevate", resource == Role::"prod") when {
    context.emergency && principal in [Person::"erin", Person::"hans"]
};

@id("leads-approve")
permit (principal in DirectoryGroup::"leads", action == Action::"approve", resource == Role::"prod");

@id("prod") @ttl("15m") @scope("deploy:read")
permit (principal in DirectoryGroup::"staff", action == Action::"issue", resource == Role::"prod")
when { context has elevation };

@id("olga-operates")
permit (
    principal == User::"https://issuer.example#olga",
    action == Action::"administer",
    resource == Broker::"{self}"
);

@id("olga-revokes")
permit (
    principal == User::"https://issuer.example#olga",
    action == Action::"revoke",
    resource
);
"#;

/// Tables of `broker.toml`.
pub(super) const MORE: &str = r#"
[role.bound]
audiences = ["https://api.example.com"]
scopes = ["deploy:read"]
max_ttl = "1h"
dpop = "required"

[role.opaque]
audiences = ["https://api.example.com", "https://elsewhere.example"]
scopes = ["deploy:read"]
max_ttl = "1h"
token_format = "opaque"

[role.robot]
audiences = ["https://api.example.com"]
scopes = ["deploy:read"]
max_ttl = "1h"

[role.guarded]
audiences = ["https://api.example.com"]
scopes = ["deploy:read"]
max_ttl = "1h"

[role.prod]
audiences = ["https://api.example.com"]
scopes = ["deploy:read"]
max_ttl = "1h"

[role.prod.elevation]
longest = "1h"
renewable = true
review_within = "1d"
approvals = [{ count = 2, groups = ["leads"] }]
emergency = { longest = "15m", cool_down = "1h" }

[notify.own]
kind = "command"
command = ["/bin/sh", "-c", "cat >/dev/null"]

# All of them ask from one place, and often.
[limits]
elevation = { per_minute = 6000 }

[trusted_issuer.issuer]
issuer = "https://issuer.example"
audiences = ["https://aud.example"]
clients = ["cli", "robot"]
jwks_file = "{files}/issuer.json"

[trusted_issuer.ci]
issuer = "https://ci.example"
audiences = ["https://aud.example"]
jwks_file = "{files}/ci.json"
assertions = "once"
required_claims = { repository = "acme/app", ref = ["refs/heads/main", "refs/heads/release"], cluster = { matches = "(?i)k8s-\\d+" }, team = { matches = "^acme|app$" } }

[trusted_issuer.other]
issuer = "https://other.example"
audiences = ["https://aud.example"]
jwks_file = "{files}/other.json"

[trusted_issuer.self]
issuer = "{self}"
audiences = ["https://api.example.com"]
jwks_uri = "{self}/jwks.json"

[client.robot]
jwks_file = "{files}/robot.json"

[client.drone]
jwks_file = "{files}/drone.json"

[client.pocket]
auth = "none"
dpop = "required"

[directory]
file = "{files}/people.toml"

[authz]
proxy = "nginx"
listen = "127.0.0.1:{authz}"
proxies = ["127.0.0.1"]

[authz.route.api]
origins = ["https://api.example.com"]
audience = "https://api.example.com"
roles = ["deploy", "bound", "opaque"]
scopes = ["deploy:read"]

[admin]
listen = "127.0.0.1:{admin}"
"#;

/// The directory.
pub(super) const PEOPLE: &str = r#"
as_of = "2026-01-01T12:00:00Z"

[group.on-call]

[group.staff]

[group.leads]

[person.carol]
name = "Carol"
ids = [{ issuer = "https://issuer.example", subject = "carol" }]
groups = ["on-call"]

[person.alice]
ids = [{ issuer = "https://issuer.example", subject = "alice" }, { issuer = "https://other.example", subject = "alice.ops" }]
groups = ["staff", "leads"]

[person.bob]
ids = [{ issuer = "https://issuer.example", subject = "bob" }]
groups = ["staff", "leads"]

[person.carl]
ids = [{ issuer = "https://issuer.example", subject = "carl" }]
groups = ["staff", "leads"]

[person.dave]
ids = [{ issuer = "https://issuer.example", subject = "dave" }]
groups = ["staff"]

[person.erin]
ids = [{ issuer = "https://issuer.example", subject = "erin" }]
groups = ["staff", "leads"]

[person.frank]
ids = [{ issuer = "https://issuer.example", subject = "frank" }]
groups = ["staff", "leads"]

[person.gina]
ids = [{ issuer = "https://issuer.example", subject = "gina" }]
groups = ["staff"]

[person.hans]
ids = [{ issuer = "https://issuer.example", subject = "hans" }]
groups = ["staff", "leads"]
"#;
