//! A stand-in for AWS IAM Identity Center, which cannot run here: written from its
//! published APIs, and judged by the AWS CLI.

use std::net::TcpStream;
use std::path::Path;

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::aws::python_program;
use super::home::Home;
use super::http::Http;
use super::kernel;
use super::peer::{Peer, program, supervised};
use super::run::Run;
use super::tls::Authority;
use super::wait::free_port;

/// The hosts of AWS that it can be for programs which know no other address.
const HOSTS: [&str; 2] = ["oidc.us-east-1.amazonaws.com", "portal.sso.us-east-1.amazonaws.com"];

/// An Identity Center with two accounts: 111122223333, Prod, has the roles `Admin`,
/// `ReadOnly` and `Billing`; 444455556666, Dev Box, has `Admin`.
pub(crate) struct IdentityCenter {
    url: String,
    start_url: String,
    authority: Authority,
    _files: TempDir,
    _peer: Peer,
}

impl IdentityCenter {
    /// Starts one. The credentials are those of sessions at the moto server at `sts`;
    /// where there is none, they look like some.
    #[track_caller]
    pub(crate) fn start(sts: Option<&str>) -> Self {
        let files = tempfile::tempdir().unwrap();
        let (port, authority) = (free_port(), Authority::new());
        let tls: serde_json::Map<_, _> = HOSTS
            .iter()
            .map(|host| {
                let issued = authority.certify(host);
                ((*host).to_string(), json!([issued.certificate, issued.key]))
            })
            .collect();
        // One of its own: what was kept of another that had this port is not of this one.
        let name = &uuid::Uuid::new_v4().simple().to_string()[..10];
        let start_url = format!("https://d-{name}.awsapps.com/start");
        let options = json!({ "port": port, "sts": sts, "tls": tls, "start_url": start_url,
            "accounts": {
                "111122223333": ["Prod", ["Admin", "ReadOnly", "Billing"]],
                "444455556666": ["Dev Box", ["Admin"]],
            } });
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/identity-center.py");
        let mut command = supervised(&python_program("python"), Path::new("/dev/null"));
        command.arg(script).arg(options.to_string());
        let mut peer = Peer::start("identity-center", command, files.path().join("log"));
        peer.until_ready(|| TcpStream::connect(("127.0.0.1", port)).ok());
        let url = format!("http://127.0.0.1:{port}");
        Self { url, start_url, authority, _files: files, _peer: peer }
    }

    /// The access portal that it is.
    pub(crate) fn start_url(&self) -> &str {
        &self.start_url
    }

    /// Its address.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// How many requests there were to a path.
    pub(crate) fn count(&self, path: &str) -> usize {
        self.log().iter().filter(|entry| entry["path"] == path).count()
    }

    /// How many requests for tokens of this grant type there were.
    pub(crate) fn count_grants(&self, grant: &str) -> usize {
        self.log().iter().filter(|entry| entry["grant"] == grant).count()
    }

    /// All that was asked.
    pub(crate) fn log(&self) -> Vec<Value> {
        let log = Http::new().get(&format!("{}/_log", self.url)).unwrap().json();
        log.as_array().unwrap().clone()
    }

    /// Every secret that it has given away and that is good still.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let secrets = Http::new().get(&format!("{}/_secrets", self.url)).unwrap().json();
        secrets.as_array().unwrap().iter().map(|one| one.as_str().unwrap().into()).collect()
    }

    /// Changes an option.
    pub(crate) fn set(&self, name: &str, value: impl Into<Value>) {
        let value = json!({ name: value.into() });
        Http::new().json(Method::POST, &format!("{}/_set", self.url), &value);
    }

    /// Forgets all `clients`, `tokens` or `refresh_tokens`.
    pub(crate) fn end(&self, what: &str) {
        Http::new().json(Method::POST, &format!("{}/_end", self.url), &json!(what));
    }

    /// The AWS CLI, version 2, which knows no other address than that of AWS, and goes
    /// through this server to get there.
    pub(crate) fn aws_cli_2(&self, home: &Home) -> Run {
        home.command(program("/usr/bin/aws"))
            .env("HTTPS_PROXY", &self.url)
            .env("NO_PROXY", "127.0.0.1")
            .env("AWS_CA_BUNDLE", self.authority.pem())
            .env("AWS_EC2_METADATA_DISABLED", "true")
    }
}

impl Drop for IdentityCenter {
    fn drop(&mut self) {
        // Nothing in a home names the keys that hold registrations of clients.
        if !std::thread::panicking() {
            kernel::forget_registrations(&self.secrets());
        }
    }
}
