//! The test bed: a hermetic world for each test, and real programs to talk to.
//!
//! | module | what it has |
//! |---|---|
//! | [`home`] | [`Home`](home::Home): a home, an environment, a user; [`tmpcred`](home::tmpcred): the program, about to run there |
//! | [`run`] | running a program with a hard time limit; what it wrote and how it ended |
//! | [`oidc_provider`] | a certified OpenID provider that counts requests and misbehaves on demand |
//! | [`glewlwyd`] | another OpenID provider |
//! | [`aws`] | servers that speak the protocol of AWS STS, and the AWS CLI |
//! | [`radosgw`] | another, the strictest of them: its sessions may end after seconds |
//! | [`postgres`] | the database of brokers that are several |
//! | [`pgbouncer`] | a pooler before it |
//! | [`identity_center`] | a stand-in for AWS IAM Identity Center, judged by the AWS CLI |
//! | [`rsyslog`] | a syslog server |
//! | [`schema`] | what judges files by schemas, also by those of CI platforms |
//! | [`mail`] | a mail server |
//! | [`webhook`] | a receiver of webhooks, which checks signatures by other means |
//! | [`services`] | a broker, and services whose issuer is a file |
//! | [`workload`] | jobs whose issuer is nobody |
//! | [`nginx`](mod@nginx) | nginx, which asks about each request |
//! | [`proxy`] | the other proxies that do, and nginx, before a service that tells how it was reached |
//! | [`browser`] | what logs in there: a quick one, and Chromium |
//! | [`keyring`] | a real Secret Service: unlocked, locked, frozen, absent |
//! | [`kernel`] | the keyring of the kernel |
//! | [`canary`] | secrets that must not show, and the search for them |
//! | [`terminal`] | a terminal with a shell in it |
//! | [`tls`], [`http`], [`wait`] | certificates; requests of a test's own; waiting with an end |
//!
//! A test looks like this:
//!
//! ```ignore
//! let mut home = Home::new();
//! let provider = OidcProvider::start();
//! let browser = Browser::http().install(&mut home);
//! home.config(&format!("…issuer = \"{}\"…", provider.issuer()));
//! let output = tmpcred(&home).args(["token", "prod"]).run().ok();
//! assert_eq!(browser.opened().len(), 1);
//! assert_eq!(provider.count_grants("authorization_code"), 1);
//! ```
//!
//! Everything ends with the test, also when it panics or is killed. A program
//! that is missing is named, and `tests/setup` installs it.

#[cfg(feature = "broker")]
pub(crate) mod aws;
#[cfg(feature = "broker")]
pub(crate) mod broker;
pub(crate) mod browser;
pub(crate) mod canary;
pub(crate) mod glewlwyd;
pub(crate) mod home;
pub(crate) mod http;
#[cfg(feature = "broker")]
pub(crate) mod identity_center;
pub(crate) mod kernel;
pub(crate) mod keyring;
#[cfg(all(target_os = "linux", feature = "broker"))]
pub(crate) mod mail;
#[cfg(feature = "broker")]
pub(crate) mod nginx;
pub(crate) mod oidc_provider;
#[cfg(all(target_os = "linux", feature = "broker"))]
pub(crate) mod otlp;
pub(crate) mod peer;
#[cfg(feature = "broker")]
pub(crate) mod pgbouncer;
#[cfg(feature = "broker")]
pub(crate) mod postgres;
#[cfg(feature = "broker")]
pub(crate) mod proxy;
#[cfg(feature = "broker")]
pub(crate) mod radosgw;
#[cfg(feature = "broker")]
pub(crate) mod rsyslog;
pub(crate) mod run;
#[cfg(feature = "broker")]
pub(crate) mod schema;
#[cfg(feature = "broker")]
pub(crate) mod services;
#[cfg_attr(
    not(feature = "broker"),
    expect(dead_code, reason = "most of it is for tests with a broker")
)]
pub(crate) mod terminal;
pub(crate) mod tls;
pub(crate) mod wait;
pub(crate) mod walk;
#[cfg(feature = "broker")]
pub(crate) mod webhook;
#[cfg(feature = "broker")]
pub(crate) mod workload;
