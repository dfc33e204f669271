//! The certified OpenID provider of the npm package `oidc-provider`.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::peer::{Peer, node_script, program};
use super::tls::ServerCertificate;

/// The public client: browser and device flow, rotating refresh tokens.
pub(crate) const CLIENT: &str = "cli";
/// The same without refresh tokens.
pub(crate) const CLIENT_WITHOUT_REFRESH: &str = "cli-no-refresh";
/// The path of the redirect addresses that both clients may use, at any port.
pub(crate) const REDIRECT_PATH: &str = "/callback";

/// What an [`OidcProvider`] does otherwise than by default.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct OidcOptions {
    /// The port; 0 takes a free one.
    pub(crate) port: u16,
    /// Speaks TLS with this certificate.
    #[serde(serialize_with = "files")]
    pub(crate) tls: Option<ServerCertificate>,
    /// The host name in the issuer's address.
    pub(crate) host: String,
    /// Whether its key for RS256 is published with a certificate (`x5c`).
    pub(crate) certified_keys: bool,
    /// Whether it knows resource indicators (RFC 8707) and issues JWT access
    /// tokens for the audience that is asked for; if not, they are opaque.
    pub(crate) resource_tokens: bool,
    /// Whether it takes the audience from the parameter `audience` and knows no
    /// resource indicators, for [`Self::resource_tokens`].
    pub(crate) audience_parameter: bool,
    /// Whether a refresh token needs the scope `offline_access` (and consent to it).
    pub(crate) offline_access: bool,
    /// Whether access tokens that are JWTs say when the login was.
    pub(crate) token_auth_time: bool,
    /// Whether they say which kind of login was asked for last (`acr`).
    pub(crate) token_acr: bool,
    /// How many seconds a device is told to wait between polls.
    pub(crate) device_interval: Option<u32>,
    /// Seconds for which things are good, by the provider's names for them, such
    /// as `AccessToken`, `IdToken`, `RefreshToken`, `DeviceCode`.
    pub(crate) ttl: BTreeMap<&'static str, u32>,
    /// Claims of people by their login. Everybody else is in the group `dev`.
    pub(crate) users: BTreeMap<&'static str, Value>,
    /// More clients, as the provider has them.
    pub(crate) clients: Vec<Value>,
}

impl Default for OidcOptions {
    fn default() -> Self {
        Self {
            port: 0,
            tls: None,
            host: "127.0.0.1".into(),
            certified_keys: false,
            resource_tokens: true,
            audience_parameter: false,
            offline_access: false,
            token_auth_time: false,
            token_acr: false,
            device_interval: Some(1),
            ttl: BTreeMap::new(),
            users: BTreeMap::new(),
            clients: Vec::new(),
        }
    }
}

fn files<S: serde::Serializer>(tls: &Option<ServerCertificate>, to: S) -> Result<S::Ok, S::Error> {
    let tls = tls.as_ref();
    tls.map(|tls| json!({ "key": tls.key, "cert": tls.certificate })).serialize(to)
}

/// A request that an [`OidcProvider`] got. Parameters that are secret are not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Request {
    /// The method.
    pub(crate) method: String,
    /// The path, without query.
    pub(crate) path: String,
    /// The status of the answer, where there was one.
    pub(crate) status: Option<u16>,
    /// The kind of fault that was on for it.
    pub(crate) fault: Option<String>,
    /// The `grant_type` of a token request.
    pub(crate) grant_type: Option<String>,
    /// Who asked.
    pub(crate) client_id: Option<String>,
    /// The resource (RFC 8707) that was asked for.
    pub(crate) resource: Option<String>,
    /// The `audience` that was asked for, where the provider knows that parameter.
    pub(crate) audience: Option<String>,
    /// The scopes that were asked for.
    pub(crate) scope: Option<String>,
    /// The `max_age` of an authorization request.
    pub(crate) max_age: Option<String>,
    /// Its `acr_values`.
    pub(crate) acr_values: Option<String>,
    /// The `prompt` of an authorization request.
    pub(crate) prompt: Option<String>,
    /// The error that it was answered with.
    pub(crate) error: Option<String>,
}

/// Something that goes wrong at an [`OidcProvider`].
#[derive(Clone, Debug)]
pub(crate) struct Fault(Value);

impl Fault {
    fn new(kind: &str, rest: Value) -> Self {
        let mut fault = json!({ "kind": kind, "path": "*" });
        fault.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        Self(fault)
    }

    /// This answer, and nothing is done.
    pub(crate) fn answer(status: u16, content_type: &str, body: &str) -> Self {
        Self::new(
            "answer",
            json!({ "status": status, "headers": { "content-type": content_type }, "body": body }),
        )
    }

    /// A redirect.
    pub(crate) fn redirect(location: &str) -> Self {
        Self::new("answer", json!({ "status": 302, "headers": { "location": location } }))
    }

    /// A body of spaces, this many bytes long.
    pub(crate) fn huge(bytes: usize) -> Self {
        Self::new(
            "answer",
            json!({ "headers": { "content-type": "application/json" }, "bytes": bytes }),
        )
    }

    /// No answer, ever.
    pub(crate) fn hangs() -> Self {
        Self::new("hang", json!({}))
    }

    /// The connection is closed, and nothing is done.
    pub(crate) fn drops() -> Self {
        Self::new("drop", json!({}))
    }

    /// What was asked for is done, and the answer lost.
    pub(crate) fn loses_answer() -> Self {
        Self::new("lose", json!({}))
    }

    /// It takes this long.
    pub(crate) fn slow(by: Duration) -> Self {
        Self::new("slow", json!({ "ms": by.as_millis() }))
    }

    /// What was asked for is done, and on record, this long before the answer comes.
    #[cfg(all(target_os = "linux", feature = "broker"))]
    pub(crate) fn late(by: Duration) -> Self {
        Self::new("late", json!({ "ms": by.as_millis() }))
    }

    /// Members of a JSON answer are set; `null` removes them.
    pub(crate) fn changes(members: Value) -> Self {
        let members = members.as_object().unwrap().clone();
        let (removed, set): (serde_json::Map<_, _>, _) =
            members.into_iter().partition(|(_, value)| value.is_null());
        let removed: Vec<_> = removed.into_iter().map(|(name, _)| name).collect();
        Self::new("patch", json!({ "set": Value::Object(set), "remove": removed }))
    }

    /// The clock in the `Date` header is ahead by so many seconds.
    pub(crate) fn clock_ahead(seconds: i64) -> Self {
        Self::new("date", json!({ "seconds": seconds }))
    }

    /// Only at this path.
    pub(crate) fn at(mut self, path: &str) -> Self {
        self.0["path"] = json!(path);
        self
    }

    /// Only so many times; otherwise until it is cleared.
    pub(crate) fn times(mut self, times: u32) -> Self {
        self.0["times"] = json!(times);
        self
    }
}

/// A running provider. Everybody can log in there, with any password.
pub(crate) struct OidcProvider {
    issuer: String,
    peer: Peer,
    answers: Receiver<String>,
    files: TempDir,
}

impl OidcProvider {
    /// Starts one as it is by default.
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::start_with(&OidcOptions::default())
    }

    /// Starts one.
    #[track_caller]
    pub(crate) fn start_with(options: &OidcOptions) -> Self {
        let files = tempfile::tempdir().unwrap();
        let mut argument = serde_json::to_value(options).unwrap();
        argument["log"] = json!(files.path().join("requests"));
        let mut command = Command::new(program("node"));
        command.arg(node_script("oidc-provider.mjs")).arg(argument.to_string());
        command.env_clear().stdout(Stdio::piped());
        let mut peer = Peer::start("oidc-provider", command, files.path().join("log"));
        let stdout = BufReader::new(peer.stdout());
        let (line, answers) = channel();
        std::thread::spawn(move || {
            for text in stdout.lines().map_while(Result::ok) {
                if line.send(text).is_err() {
                    return;
                }
            }
        });
        let issuer = peer.until_ready(|| {
            answers.try_recv().ok().and_then(|text| text.strip_prefix("ready ").map(String::from))
        });
        Self { issuer, peer, answers, files }
    }

    /// Its issuer identifier.
    pub(crate) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// The port it listens on, to start another one there later.
    pub(crate) fn port(&self) -> u16 {
        url::Url::parse(&self.issuer).unwrap().port().unwrap()
    }

    /// The address of one of its pages.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.issuer)
    }

    /// All requests so far, oldest first. One is there before its answer is.
    pub(crate) fn requests(&self) -> Vec<Request> {
        let log: PathBuf = self.files.path().join("requests");
        let text = std::fs::read_to_string(log).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// How many requests of this method there were at this path.
    pub(crate) fn count(&self, method: &str, path: &str) -> usize {
        let same = |request: &&Request| request.method == method && request.path == path;
        self.requests().iter().filter(same).count()
    }

    /// How many token requests of this grant type there were, whatever came of
    /// them. Those that a fault kept it from reading do not count.
    pub(crate) fn count_grants(&self, grant_type: &str) -> usize {
        let same = |request: &&Request| request.grant_type.as_deref() == Some(grant_type);
        self.requests().iter().filter(|request| request.path == "/token").filter(same).count()
    }

    /// Makes something go wrong from now on. Of several faults that fit a
    /// request, the first one counts.
    #[track_caller]
    pub(crate) fn fault(&mut self, fault: &Fault) {
        self.tell(&fault.0);
    }

    /// Lets all go well again.
    #[track_caller]
    pub(crate) fn clear_faults(&mut self) {
        self.tell(&json!({ "clear": true }));
    }

    /// Stops it as it is: it accepts connections, and answers nothing.
    pub(crate) fn freeze(&self) {
        self.peer.freeze();
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.peer.thaw();
    }

    /// Kills it: nobody answers at its address any more.
    #[cfg(feature = "broker")]
    pub(crate) fn kill(&self) {
        self.peer.kill();
    }

    /// What it said about requests that it refused.
    pub(crate) fn said(&self) -> String {
        self.peer.said()
    }

    #[track_caller]
    fn tell(&mut self, what: &Value) {
        writeln!(self.peer.stdin(), "{what}").unwrap();
        let answer = self.answers.recv_timeout(Duration::from_secs(60));
        assert_eq!(answer.as_deref(), Ok("ok"), "{}", self.peer.said());
    }
}
