//! Servers that speak the protocol of AWS STS, and programs that use its credentials.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::home::Home;
use super::http::Http;
use super::peer::{Peer, supervised};
use super::run::Run;
use super::wait::free_port;

/// A program of the Python packages in `tests/peers/requirements.txt`.
///
/// # Panics
/// Where they are not installed: it names `tests/setup`.
#[track_caller]
pub(crate) fn python_program(name: &str) -> PathBuf {
    let venv = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/.venv");
    assert!(
        venv.join(".installed").exists(),
        "the Python packages of tests/peers are missing: run tests/setup, it installs them"
    );
    venv.join("bin").join(name)
}

/// The AWS CLI in this home, for a server at this address.
pub(crate) fn aws_cli(home: &Home, server: &str) -> Run {
    home.command(python_program("aws"))
        .env("AWS_ENDPOINT_URL", server)
        .env("AWS_EC2_METADATA_DISABLED", "true")
}

/// The same for somebody who may do everything, where the server knows them.
fn admin(home: &Home, server: &str, id: &str, key: &str) -> Run {
    aws_cli(home, server)
        .env("AWS_ACCESS_KEY_ID", id)
        .env("AWS_SECRET_ACCESS_KEY", key)
        .env("AWS_DEFAULT_REGION", "us-east-1")
}

/// The file that it notes requests in.
const RECORDING: &str = "recording";

/// A moto server. It checks no assertion; signatures, session tokens and IAM
/// permissions it checks after so many requests.
pub(crate) struct Moto {
    url: String,
    home: Home,
    files: TempDir,
    peer: Peer,
}

impl Moto {
    /// Starts one that takes `unchecked` requests before it checks anything.
    #[track_caller]
    pub(crate) fn start(unchecked: u32) -> Self {
        let files = tempfile::tempdir().unwrap();
        let port = free_port();
        let mut command = supervised(&python_program("moto_server"), Path::new("/dev/null"));
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        command.env("INITIAL_NO_AUTH_ACTION_COUNT", unchecked.to_string());
        command.env("MOTO_ENABLE_RECORDING", "true");
        command.env("MOTO_RECORDER_FILEPATH", files.path().join(RECORDING));
        let mut peer = Peer::start("moto", command, files.path().join("log"));
        peer.until_ready(|| TcpStream::connect(("127.0.0.1", port)).ok());
        let url = format!("http://127.0.0.1:{port}");
        Self { url, home: Home::new(), files, peer }
    }

    /// Its address.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The last request whose form has this in it.
    #[track_caller]
    pub(crate) fn last_asked(&self, part: &str) -> String {
        let found = self.forms().into_iter().rfind(|form| form.contains(part));
        found.unwrap_or_else(|| panic!("no request has {part}"))
    }

    /// The forms of all requests for this action, oldest first.
    #[track_caller]
    pub(crate) fn all_asked(&self, action: &str) -> Vec<BTreeMap<String, String>> {
        let parse =
            |form: String| url::form_urlencoded::parse(form.as_bytes()).into_owned().collect();
        let forms = self.forms().into_iter().map(parse);
        forms
            .filter(|form: &BTreeMap<_, _>| form.get("Action").is_some_and(|it| it == action))
            .collect()
    }

    /// The forms of all requests so far.
    fn forms(&self) -> Vec<String> {
        let recorded = std::fs::read_to_string(self.files.path().join(RECORDING));
        let form = |line: &str| {
            let entry: Value = serde_json::from_str(line).unwrap();
            let form = STANDARD.decode(entry["body"].as_str().unwrap()).unwrap();
            String::from_utf8_lossy(&form).into_owned()
        };
        // There is no file before the first request, and a line that is being written has no end.
        let whole = recorded.unwrap_or_default();
        whole.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')).map(form).collect()
    }

    /// Stops it as it is: it holds its socket, and answers nothing.
    pub(crate) fn freeze(&self) {
        self.peer.freeze();
    }

    /// Ends it: nobody listens there any more.
    pub(crate) fn stop(self) {
        drop(self);
    }

    /// Makes a role of IAM Identity Center in this account, which may do this. Takes three
    /// requests.
    pub(crate) fn permission_set(&self, account: &str, role: &str, may: &str) {
        let any = format!("arn:aws:iam::{account}:role/any");
        let assume = ["sts", "assume-role", "--role-arn", &any, "--role-session-name", "setup"];
        let keys = admin(&self.home, &self.url, "x", "y").args(assume).args(["--output", "json"]);
        let keys = keys.run().ok().json();
        let part = |part: &str| keys["Credentials"][part].as_str().unwrap().to_string();
        let run = |args: &[&str]| {
            let (id, key) = (part("AccessKeyId"), part("SecretAccessKey"));
            let run = admin(&self.home, &self.url, &id, &key);
            run.env("AWS_SESSION_TOKEN", part("SessionToken")).args(args).run().ok()
        };
        let path = ["--path", "/aws-reserved/sso.amazonaws.com/"];
        let make = ["iam", "create-role", "--role-name", role, "--assume-role-policy-document"];
        run(&[&make[..], &["{}"], &path].concat());
        let policy = json!({ "Version": "2012-10-17", "Statement":
            [{ "Effect": "Allow", "Action": [may], "Resource": "*" }] })
        .to_string();
        let put = ["iam", "put-role-policy", "--role-name", role, "--policy-name", "p"];
        run(&[&put[..], &["--policy-document", &policy]].concat());
    }

    /// Makes a user who may do this, and yields the access keys. Takes three requests.
    pub(crate) fn user(&self, name: &str, may: &str) -> (String, String) {
        let run = |args: &[&str]| admin(&self.home, &self.url, "x", "y").args(args).run().ok();
        run(&["iam", "create-user", "--user-name", name]);
        let policy = json!({ "Version": "2012-10-17", "Statement":
            [{ "Effect": "Allow", "Action": [may, "sts:GetCallerIdentity"], "Resource": "*" }] })
        .to_string();
        let put = ["iam", "put-user-policy", "--user-name", name, "--policy-name", "p"];
        run(&[&put[..], &["--policy-document", &policy]].concat());
        let make = ["iam", "create-access-key", "--user-name", name, "--output", "json"];
        let keys = run(&make).json();
        let part = |part: &str| keys["AccessKey"][part].as_str().unwrap().to_string();
        (part("AccessKeyId"), part("SecretAccessKey"))
    }

    /// Makes a role that may do this, or nothing. Takes two requests, or one.
    pub(crate) fn role(&self, name: &str, may: Option<&str>) -> String {
        self.role_for(name, json!([]), may)
    }

    /// The same with the statements of its trust policy, of which moto checks who may
    /// assume it, and the external id.
    pub(crate) fn role_for(&self, name: &str, trust: Value, may: Option<&str>) -> String {
        let run = |args: &[&str]| admin(&self.home, &self.url, "x", "y").args(args).run().ok();
        let trust = json!({ "Version": "2012-10-17", "Statement": trust }).to_string();
        let make = ["iam", "create-role", "--role-name", name, "--assume-role-policy-document"];
        run(&[&make[..], &[&trust]].concat());
        if let Some(action) = may {
            let policy = json!({ "Version": "2012-10-17", "Statement":
                [{ "Effect": "Allow", "Action": [action], "Resource": "*" }] })
            .to_string();
            let put = ["iam", "put-role-policy", "--role-name", name, "--policy-name", "p"];
            run(&[&put[..], &["--policy-document", &policy]].concat());
        }
        format!("arn:aws:iam::123456789012:role/{name}")
    }
}

/// A SeaweedFS server, whose STS checks assertions and trust policies.
pub(crate) struct Weed {
    url: String,
    home: Home,
    _files: TempDir,
    _peer: Peer,
}

impl Weed {
    /// Starts one that trusts the issuer for this audience, with its keys at this
    /// address, and has these roles: a name, and the subject that may have it. They may
    /// read, and [`WRITER`] may write too.
    #[track_caller]
    pub(crate) fn start(issuer: &str, audience: &str, keys: &str, roles: &[(&str, &str)]) -> Self {
        let files = tempfile::tempdir().unwrap();
        let write = |name: &str, value: Value| {
            let path = files.path().join(name);
            std::fs::write(&path, value.to_string()).unwrap();
            path.to_str().unwrap().to_string()
        };
        let iam = write("iam.json", iam(issuer, audience, keys, roles));
        let s3 = write(
            "s3.json",
            json!({ "identities": [{ "name": "admin", "credentials":
            [{ "accessKey": "WADMIN", "secretKey": "wsecret" }],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"] }] }),
        );
        let data = files.path().join("data");
        std::fs::create_dir(&data).unwrap();
        let mut command: Command = supervised(&python_program("weed"), Path::new("/dev/null"));
        command.current_dir(files.path()).env("HOME", files.path());
        command.args(["server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-volume.max=5", "-s3"]);
        command.args(["-master.volumeSizeLimitMB=8", "-master.telemetry=false"]);
        command.arg(format!("-dir={}", data.display()));
        command.args([format!("-s3.config={s3}"), format!("-s3.iam.config={iam}")]);
        let s3_port = free_port();
        command.arg(format!("-s3.port={s3_port}"));
        // Ports that are left out are these and 10,000, whoever may have them.
        for name in [
            "s3.port.grpc",
            "master.port",
            "master.port.grpc",
            "volume.port",
            "volume.port.grpc",
            "filer.port",
            "filer.port.grpc",
        ] {
            command.arg(format!("-{name}={}", free_port()));
        }
        for name in ["s3.port.iceberg", "s3.port.lance"] {
            command.arg(format!("-{name}=0"));
        }
        let mut peer = Peer::start("weed", command, files.path().join("log"));
        let url = format!("http://127.0.0.1:{s3_port}");
        peer.until_ready(|| {
            TcpStream::connect(("127.0.0.1", s3_port)).ok()?;
            let reply = Http::new().get(&format!("{url}/healthz")).ok()?;
            (reply.status == 200).then_some(())
        });
        Self { url, home: Home::new(), _files: files, _peer: peer }
    }

    /// Its address.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Makes a bucket with an object of this name and content.
    pub(crate) fn put(&self, bucket: &str, name: &str, content: &str) {
        let run =
            |args: &[&str]| admin(&self.home, &self.url, "WADMIN", "wsecret").args(args).run().ok();
        let file = self.home.write(name, content);
        run(&["s3api", "create-bucket", "--bucket", bucket]);
        let body = file.to_str().unwrap();
        run(&["s3api", "put-object", "--bucket", bucket, "--key", name, "--body", body]);
    }
}

/// The role at [`Weed`] that may write.
pub(crate) const WRITER: &str = "writer";

/// The ARN of a role at [`Weed`].
pub(crate) fn weed_role(name: &str) -> String {
    format!("arn:aws:iam::role/{name}")
}

fn iam(issuer: &str, audience: &str, keys: &str, roles: &[(&str, &str)]) -> Value {
    let version = "2012-10-17";
    let roles: Vec<_> = roles
        .iter()
        .map(|(name, subject)| {
            let policies: &[_] = if *name == WRITER { &["RO", "PUT"] } else { &["RO"] };
            json!({ "roleName": name, "roleArn": weed_role(name), "attachedPolicies": policies,
                "trustPolicy": { "Version": version, "Statement": [{ "Effect": "Allow",
                    "Principal": { "Federated": "*" }, "Action": ["sts:AssumeRoleWithWebIdentity"],
                    "Condition": { "StringEquals": { "oidc:sub": subject } } }] } })
        })
        .collect();
    json!({
        "sts": { "tokenDuration": "15m", "maxSessionLength": "12h", "issuer": "seaweedfs-sts",
            "signingKey": "dGVzdC1zaWduaW5nLWtleS0zMi1jaGFyYWN0ZXJzLWxvbmc=" },
        "providers": [{ "name": "op", "type": "oidc", "enabled": true, "config": {
            "issuer": issuer, "clientId": audience, "jwksUri": keys, "scopes": ["openid"] } }],
        "policy": { "defaultEffect": "Deny", "storeType": "memory" },
        "roleStore": { "storeType": "memory" },
        "policies": [{ "name": "RO", "document": { "Version": version, "Statement": [
            { "Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"],
              "Resource": ["arn:aws:s3:::*", "arn:aws:s3:::*/*"] },
            { "Effect": "Allow", "Action": ["sts:ValidateSession"], "Resource": ["*"] }] } },
            { "name": "PUT", "document": { "Version": version, "Statement": [{ "Effect": "Allow",
              "Action": ["s3:PutObject"], "Resource": ["arn:aws:s3:::*/*"] }] } }],
        "roles": roles,
    })
}
