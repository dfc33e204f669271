//! The broker under test, as a server of its own.

use std::path::PathBuf;

use super::home::{Home, tmpcred};
use super::run::Running;
use super::tls::ServerCertificate;
use super::wait::free_port;

/// Lets everybody whom a trusted issuer vouches for have the roles `deploy` and
/// `reader`.
pub(crate) const OPEN_POLICY: &str = r#"
@id("deploy") @ttl("1h") @scope("deploy:read deploy:write")
permit(principal, action == Action::"issue", resource == Role::"deploy");

@id("reader") @ttl("15m") @scope("deploy:read")
permit(principal, action == Action::"issue", resource == Role::"reader");
"#;

/// The audience that the roles are for.
pub(crate) const API: &str = "https://api.example.com";

/// What a [`Broker`] is started with.
pub(crate) struct BrokerOptions {
    /// The issuer that it trusts.
    pub(crate) trusted: String,
    /// The audiences that it accepts besides itself.
    pub(crate) audiences: Vec<String>,
    /// Its policy; `{self}` in it is its own issuer.
    pub(crate) policy: String,
    /// Speaks TLS with this certificate.
    pub(crate) tls: Option<ServerCertificate>,
    /// A PEM file with authorities to trust when it fetches the issuer's keys.
    pub(crate) issuer_ca: Option<PathBuf>,
    /// The table `[store]`.
    pub(crate) store: String,
    /// Further tables of `broker.toml`; `{self}` in them is its own issuer.
    pub(crate) more: String,
}

impl BrokerOptions {
    /// Trusts this issuer, and its client `cli`, with [`OPEN_POLICY`].
    pub(crate) fn trusting(issuer: &str) -> Self {
        Self {
            trusted: issuer.into(),
            audiences: vec!["cli".into()],
            policy: OPEN_POLICY.into(),
            tls: None,
            issuer_ca: None,
            store: "[store]\npath = \"broker.db\"\n".into(),
            more: String::new(),
        }
    }
}

/// A broker that runs. Dropping it kills it.
pub(crate) struct Broker {
    running: Running,
    url: String,
    /// The home that its files are in.
    pub(crate) home: Home,
}

impl Broker {
    /// Starts one on a free port.
    #[track_caller]
    pub(crate) fn start(options: &BrokerOptions) -> Self {
        Self::start_in(Home::new(), options)
    }

    /// The same in this home, which may have a [key-encryption key](KEK) of its own among
    /// its variables.
    #[track_caller]
    pub(crate) fn start_in(home: Home, options: &BrokerOptions) -> Self {
        let port = free_port();
        let scheme = if options.tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://127.0.0.1:{port}");
        let toml = configuration(options, &url, port);
        home.write("policy.cedar", options.policy.replace("{self}", &url));
        home.write("broker.toml", toml);
        Self { running: run(&home, "broker.toml"), url, home }
    }

    /// Ends it, and starts it again on what it left.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        self.stop();
        self.running = run(&self.home, "broker.toml");
    }

    /// Ends it at once, as a power failure would.
    pub(crate) fn stop(&mut self) {
        self.running.kill();
    }

    /// Starts the same broker at another address: one issuer, one store.
    #[track_caller]
    pub(crate) fn twin(&self) -> Twin {
        let port = free_port();
        let own = std::fs::read_to_string(self.home.path("broker.toml")).unwrap();
        let (before, rest) = own.split_once("listen = \"").unwrap();
        let (_, after) = rest.split_once('"').unwrap();
        let name = format!("twin-{port}.toml");
        self.home.write(&name, format!("{before}listen = \"127.0.0.1:{port}\"{after}"));
        let url = format!("http://127.0.0.1:{port}");
        Twin { running: run(&self.home, &name), url, name }
    }

    /// Kills a twin, and starts it again on what it left, at its address.
    #[track_caller]
    pub(crate) fn restart_twin(&self, twin: &mut Twin) {
        twin.running.kill();
        twin.running = run(&self.home, &twin.name);
    }

    /// Its address, which is its issuer identifier.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// What it has logged so far.
    pub(crate) fn said(&self) -> String {
        self.running.stderr()
    }

    /// Lets it read its policies anew.
    pub(crate) fn hang_up(&self) {
        self.running.signal(rustix::process::Signal::HUP);
    }

    /// Stops it as it is: whoever calls it waits.
    pub(crate) fn freeze(&self) {
        self.running.signal(rustix::process::Signal::STOP);
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        self.running.signal(signal);
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.running.signal(rustix::process::Signal::CONT);
    }

    /// How many tokens it has issued, by its own audit log.
    pub(crate) fn issued(&self) -> usize {
        let database = self.home.path("broker.db");
        let count = "import sqlite3,sys; print(sqlite3.connect(sys.argv[1]).execute(
            \"select count(*) from audit_record where decision = 'issued'\").fetchone()[0])";
        let python = self.home.command("python3").args(["-c", count]);
        python.args([database]).run().ok().stdout.trim().parse().unwrap()
    }
}

/// A second process of a broker. Dropping it kills it.
pub(crate) struct Twin {
    running: Running,
    /// Its address.
    pub(crate) url: String,
    /// What its configuration is called.
    pub(crate) name: String,
}

impl Twin {
    /// What it has logged so far.
    pub(crate) fn said(&self) -> String {
        self.running.stderr()
    }
}

#[track_caller]
fn run(home: &Home, config: &str) -> Running {
    let serve = tmpcred(home)
        .args(["broker", "serve", "--config"])
        .args([home.path(config)])
        .limit(std::time::Duration::from_secs(120));
    let has_kek = home.variables().keys().any(|name| name == KEK_VARIABLE);
    let serve = if has_kek { serve } else { serve.env(KEK_VARIABLE, KEK) };
    let running = serve.spawn();
    running.line_on_stderr("listens on");
    running
}

/// The variable that a broker has its key-encryption key from.
pub(crate) const KEK_VARIABLE: &str = "TMPCRED_BROKER_KEK";

/// 32 bytes that protect nothing.
pub(crate) const KEK: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

fn configuration(options: &BrokerOptions, url: &str, port: u16) -> String {
    let mut audiences = options.audiences.clone();
    audiences.push(url.into());
    let mut toml = format!(
        r#"issuer = "{url}"
listen = "127.0.0.1:{port}"

{}
[trusted_issuer.corp]
issuer = "{}"
audiences = {audiences:?}
"#,
        options.store, options.trusted
    );
    if let Some(ca) = &options.issuer_ca {
        toml += &format!("ca_file = {:?}\n", ca);
    }
    if let Some(tls) = &options.tls {
        toml += &format!("\n[tls]\ncertificate = {:?}\nkey = {:?}\n", tls.certificate, tls.key);
    }
    toml += &format!(
        r#"
[policy]
files = ["policy.cedar"]

[role.deploy]
audiences = ["{API}"]
scopes = ["deploy:read", "deploy:write"]
max_ttl = "1h"

[role.reader]
audiences = ["{API}"]
scopes = ["deploy:read"]
max_ttl = "1h"
"#
    );
    toml + &options.more.replace("{self}", url)
}
