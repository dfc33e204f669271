//! The object gateway of Ceph: S3, IAM and STS in one server. It checks signatures,
//! session tokens, trust policies, session policies and assertions, and lets a
//! session end to the second. It starts in some two seconds.

use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::aws::python_program;
use super::home::Home;
use super::http::Http;
use super::oidc_provider::CLIENT;
use super::peer::{Peer, program, supervised};
use super::wait::free_port;

/// A gateway with a cluster of its own.
pub(crate) struct Radosgw {
    url: String,
    home: Home,
    _files: TempDir,
    peer: Peer,
}

impl Radosgw {
    /// Starts one that knows nobody but its administrator.
    #[track_caller]
    pub(crate) fn start() -> Self {
        for name in ["ceph-mon", "ceph-osd", "ceph", "radosgw"] {
            program(name);
        }
        let files = tempfile::tempdir().unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/radosgw.sh");
        let port = free_port();
        let mut command = supervised(&program("sh"), Path::new("/dev/null"));
        command.arg(script).arg(files.path());
        command.args([port.to_string(), free_port().to_string()]);
        command.current_dir(files.path()).env("HOME", files.path());
        let mut peer = Peer::start("radosgw", command, files.path().join("log"));
        let url = format!("http://127.0.0.1:{port}");
        peer.until_ready(|| {
            let reply = Http::new().get(&url).ok()?;
            (reply.status == 200).then_some(())
        });
        Self { url, home: Home::new(), _files: files, peer }
    }

    /// Its address.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Stops it as it is: whoever calls it waits.
    pub(crate) fn freeze(&self) {
        self.peer.freeze();
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.peer.thaw();
    }

    /// Trusts an issuer's assertions for the audience [`CLIENT`]. The issuer
    /// publishes its keys with certificates.
    #[track_caller]
    pub(crate) fn trust(&self, issuer: &str) {
        self.fill(&json!({ "providers": [{ "issuer": issuer, "clients": [CLIENT] }] }));
    }

    /// Makes a role that this subject of the issuer may have, with an assertion for
    /// [`CLIENT`], and that may do `actions`, such as `s3:GetObject`. Yields its ARN.
    #[track_caller]
    pub(crate) fn web_role(
        &self,
        name: &str,
        issuer: &str,
        subject: &str,
        actions: &[&str],
    ) -> String {
        self.web_role_for(CLIENT, name, issuer, subject, actions)
    }

    /// The same with an assertion for this audience.
    #[track_caller]
    pub(crate) fn web_role_for(
        &self,
        audience: &str,
        name: &str,
        issuer: &str,
        subject: &str,
        actions: &[&str],
    ) -> String {
        let place = issuer.split_once("://").unwrap().1;
        let trust = json!({
            "Effect": "Allow",
            "Principal": { "Federated": [format!("arn:aws:iam:::oidc-provider/{place}")] },
            "Action": ["sts:AssumeRoleWithWebIdentity"],
            "Condition": { "StringEquals": {
                format!("{place}:sub"): subject,
                format!("{place}:aud"): audience,
            } },
        });
        self.role(name, trust, actions)
    }

    /// Makes a role with one statement as its trust policy, and that may do `actions`.
    #[track_caller]
    pub(crate) fn role(&self, name: &str, trust: Value, actions: &[&str]) -> String {
        let may = json!({ "Effect": "Allow", "Action": actions, "Resource": "arn:aws:s3:::*" });
        let policy = |statement| json!({ "Version": "2012-10-17", "Statement": [statement] });
        self.fill(&json!({ "roles": [
            { "name": name, "trust": policy(trust), "policy": policy(may) }
        ] }));
        format!("arn:aws:iam:::role/{name}")
    }

    /// Lets the administrator have sessions of their own, besides all else.
    #[track_caller]
    pub(crate) fn allow_session_tokens(&self) {
        let may = json!({ "Effect": "Allow", "Action": ["sts:GetSessionToken"], "Resource": "*" });
        let policy = json!({ "Version": "2012-10-17", "Statement": [may] });
        self.fill(&json!({ "users": [{ "name": "admin", "policy": policy }] }));
    }

    /// Makes a bucket with an object of this name and content.
    #[track_caller]
    pub(crate) fn put(&self, bucket: &str, key: &str, body: &str) {
        self.fill(&json!({ "objects": [{ "bucket": bucket, "key": key, "body": body }] }));
    }

    #[track_caller]
    fn fill(&self, with: &Value) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/radosgw.py");
        let python = self.home.command(python_program("python3"));
        python.args([script.to_str().unwrap(), &self.url, &with.to_string()]).run().ok();
    }
}
