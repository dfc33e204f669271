//! The table `[audit]`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use url::{Host, Url};

use super::check_name;
use crate::broker::audit::export::Format;
use crate::config::Misfit;
use crate::error::{Error, ErrorKind, Result};
use crate::host::http::require_secure;

/// The port of syslog over TLS (RFC 5425), and what is usual without.
const SYSLOG_TLS: u16 = 6514;
const SYSLOG_TCP: u16 = 601;

/// The table `[audit]`: where records are handed on to, besides the log itself. A sink
/// that takes nothing keeps nobody from being issued anything.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// Files that records are appended to, by a name of your choice.
    #[serde(default)]
    pub file: BTreeMap<String, FileSink>,
    /// Syslog servers, by a name of your choice.
    #[serde(default)]
    pub syslog: BTreeMap<String, SyslogSink>,
    /// HTTP servers, by a name of your choice.
    #[serde(default)]
    pub webhook: BTreeMap<String, WebhookSink>,
}

/// A table `[audit.file.NAME]`: a file that has a record a line.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileSink {
    /// The file. It is made where there is none, readable by this user alone.
    pub path: PathBuf,
    /// How records are written.
    #[serde(default)]
    pub format: Format,
    /// Which record is the first.
    #[serde(default)]
    pub begin_with: BeginWith,
}

/// A table `[audit.syslog.NAME]`: a server that speaks syslog (RFC 5424) over TCP with
/// octet counting (RFC 6587), or over TLS (RFC 5425).
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SyslogSink {
    /// Its address, such as `tls://logs.example.com:6514`; `tcp://` to loopback only.
    pub url: Url,
    /// A PEM file with certificate authorities to trust besides the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// How records are written.
    #[serde(default)]
    pub format: Format,
    /// Which record is the first.
    #[serde(default)]
    pub begin_with: BeginWith,
}

/// A table `[audit.webhook.NAME]`: a server that takes records as JSON, signed as
/// Standard Webhooks says.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookSink {
    /// Its address: https, or http to loopback.
    pub url: Url,
    /// A file with the secret that the signatures are made with: Base64 of 24 to 64 bytes,
    /// with or without `whsec_` in front. It is read anew for each delivery.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
    /// The variable that holds the secret, instead of `secret_file`.
    #[serde(default)]
    pub secret_env: Option<String>,
    /// A PEM file with certificate authorities to trust besides the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// How records are written.
    #[serde(default)]
    pub format: Format,
    /// Which record is the first.
    #[serde(default)]
    pub begin_with: BeginWith,
}

/// Where a sink begins that the broker has not had before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BeginWith {
    /// With the first record of the log.
    #[default]
    First,
    /// With the next record that is appended.
    Next,
}

/// Where a syslog server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyslogAddress {
    /// Its name, or its address.
    pub host: Host<String>,
    /// The port.
    pub port: u16,
    /// Whether TLS is spoken.
    pub tls: bool,
}

impl Audit {
    pub(super) fn paths(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        self.file.values_mut().map(|sink| &mut sink.path)
    }

    pub(super) fn check(&self) -> Result<(), Misfit> {
        let names = self.file.keys().map(|name| ("file", name));
        let names = names.chain(self.syslog.keys().map(|name| ("syslog", name)));
        let names = names.chain(self.webhook.keys().map(|name| ("webhook", name)));
        let mut seen = std::collections::BTreeSet::new();
        for (kind, name) in names {
            let at = |error| Misfit::of_private(&["audit", kind, name], error);
            check_name(&format!("audit.{kind}"), name).map_err(at)?;
            // How far it has got is known by its name.
            if !seen.insert(name) {
                let why = format!("[audit] has two sinks with the name '{name}'");
                return Err(at(Error::new(ErrorKind::Config, why)));
            }
        }
        // They would write into one another, and each knows for itself how far it has got.
        let mut paths = BTreeMap::new();
        for (name, sink) in &self.file {
            if let Some(other) = paths.insert(&sink.path, name) {
                let why = format!(
                    "[audit.file.{other}] and [audit.file.{name}] are the same file: {}",
                    sink.path.display()
                );
                let error = Error::new(ErrorKind::Config, why);
                return Err(Misfit::of_private(&["audit", "file", name], error));
            }
        }
        for (name, sink) in &self.syslog {
            let named = |error: Error| error.context(format!("[audit.syslog.{name}] url"));
            let at = |error| Misfit::of_private(&["audit", "syslog", name], named(error));
            sink.address().map_err(at)?;
        }
        for (name, sink) in &self.webhook {
            let at = |error| Misfit::of_private(&["audit", "webhook", name], error);
            let named = |error: Error| error.context(format!("[audit.webhook.{name}] url"));
            require_secure(&sink.url).map_err(named).map_err(at)?;
            if sink.secret_file.is_some() == sink.secret_env.is_some() {
                let why = format!("[audit.webhook.{name}] needs secret_file, or secret_env");
                return Err(at(Error::new(ErrorKind::Config, why)
                    .because_of("whoever gets records has to know that they are the broker's")));
            }
        }
        Ok(())
    }
}

impl SyslogSink {
    /// Where it is.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where that is nowhere, or records would go there in the clear.
    pub fn address(&self) -> Result<SyslogAddress> {
        let wrong = |why: &str| {
            Err(Error::new(ErrorKind::Config, format!("\"{}\" cannot be used", self.url))
                .because_of(why)
                .hint("such as \"tls://logs.example.com:6514\""))
        };
        let url = &self.url;
        let tls = match url.scheme() {
            "tls" => true,
            "tcp" => false,
            _ => return wrong("it begins neither with tls:// nor with tcp://"),
        };
        let bare = matches!(url.path(), "" | "/") && url.query().is_none();
        if !bare || url.fragment().is_some() || !url.username().is_empty() {
            return wrong("it is more than a host and a port");
        }
        // The library knows addresses only in the schemes of the web.
        let host = url.host_str().unwrap_or_default();
        let Ok(host) = Host::parse(host) else { return wrong("it names no host") };
        let loopback = match &host {
            Host::Ipv4(ip) => ip.is_loopback(),
            Host::Ipv6(ip) => ip.is_loopback(),
            Host::Domain(name) => name == "localhost",
        };
        if !tls && !loopback {
            return wrong("records are never sent in the clear to other machines");
        }
        let port = url.port().unwrap_or(if tls { SYSLOG_TLS } else { SYSLOG_TCP });
        Ok(SyslogAddress { host, port, tls })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(toml: &str) -> Result<Audit> {
        let audit: Audit = toml::from_str(toml).unwrap();
        audit.check()?;
        Ok(audit)
    }

    #[test]
    fn records_go_nowhere_in_the_clear_nor_unsigned() {
        for (toml, says) in [
            ("[syslog.a]\nurl = \"tcp://logs.example.com:601\"", "never sent in the clear"),
            ("[syslog.a]\nurl = \"tcp://192.0.2.1:601\"", "never sent in the clear"),
            ("[syslog.a]\nurl = \"udp://127.0.0.1\"", "neither with tls:// nor"),
            ("[syslog.a]\nurl = \"tls://h/x\"", "more than a host and a port"),
            ("[syslog.a]\nurl = \"tls:///\"", "names no host"),
            ("[webhook.a]\nurl = \"http://h.example\"\nsecret_env = \"X\"", "loopback only"),
            ("[webhook.a]\nurl = \"https://u@h.example\"\nsecret_env = \"X\"", "a user name"),
            ("[webhook.a]\nurl = \"https://h.example\"", "needs secret_file, or secret_env"),
            (
                "[webhook.a]\nurl = \"https://h.example\"\nsecret_env = \"X\"\nsecret_file = \"y\"",
                "needs secret_file, or secret_env",
            ),
            (
                "[file.a]\npath = \"x\"\n[syslog.a]\nurl = \"tls://h\"",
                "two sinks with the name 'a'",
            ),
        ] {
            let error = of(toml).unwrap_err();
            let said = format!("{error} {:?}", error.causes());
            assert!(said.contains(says), "{toml}: {said}");
        }
    }

    #[test]
    fn a_syslog_server_is_a_host_and_a_port() {
        let address = |url: &str| {
            let audit = of(&format!("[syslog.a]\nurl = \"{url}\"")).unwrap();
            audit.syslog["a"].address().unwrap()
        };
        let ip = |text: &str| Host::parse(text).unwrap();
        let of = |host, port, tls| SyslogAddress { host, port, tls };
        assert_eq!(address("tls://logs.example.com"), of(ip("logs.example.com"), 6514, true));
        assert_eq!(address("tls://[2001:db8::1]:99"), of(ip("[2001:db8::1]"), 99, true));
        assert_eq!(address("tcp://127.0.0.1"), of(ip("127.0.0.1"), 601, false));
        assert_eq!(address("tcp://[::1]:514"), of(ip("[::1]"), 514, false));
    }
}
