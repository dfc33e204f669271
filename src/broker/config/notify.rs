//! The tables `[notify.NAME]`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use url::Url;

use super::{Elevation, check_name, duration};
use crate::config::Misfit;
use crate::error::{Error, ErrorKind, Result};
use crate::host::http::{is_loopback, require_secure};
use crate::host::process::printed::{self, Limit};

/// How long is tried to deliver something, where nothing else is said, and at most.
const GIVE_UP_AFTER: Duration = Duration::from_secs(24 * 60 * 60);
const LONGEST: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How long a command may take at most: somebody else waits behind it.
const LONGEST_COMMAND: Duration = Duration::from_secs(60);

/// The kind of message that tells that somebody took a role without approval.
pub const EMERGENCY: &str = "emergency";

/// The kind of message by which somebody tries whether they are told.
pub const TEST: &str = "test";

/// The kinds of messages that there are.
pub const MESSAGES: [&str; 13] = [
    "elevation-requested",
    "elevation-approved",
    "elevation-denied",
    "elevation-lapsed",
    "elevation-withdrawn",
    EMERGENCY,
    "grant-active",
    "grant-ended",
    "review-due",
    "review-overdue",
    "reviewed",
    "review-disputed",
    TEST,
];

/// The channels, by name.
pub type Notify = BTreeMap<String, NotifyChannel>;

/// A table `[notify.NAME]`: a channel on which people are told what has happened, and what they
/// have to do.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NotifyChannel {
    /// What it is.
    pub kind: ChannelKind,
    /// The kinds of messages that go there, such as `emergency`; all where left out.
    #[serde(default)]
    pub only: Option<BTreeSet<String>>,
    /// The roles whose messages go there, besides those that are about no role; all where left
    /// out.
    #[serde(default)]
    pub roles: Option<BTreeSet<String>>,
    /// How long is tried to deliver a message.
    #[serde(default = "give_up_after", deserialize_with = "duration")]
    #[schemars(with = "String")]
    pub give_up_after: Duration,
    /// Its address: of a webhook, https, or http to loopback; of a mail server, such as
    /// `smtp://mail.example.com:587`, which has to offer STARTTLS, or `smtps://mail.example.com`,
    /// or `smtp://` to loopback.
    #[serde(default)]
    pub url: Option<Url>,
    /// A file with the address, where that is a secret. It is read anew for each message.
    #[serde(default)]
    pub url_file: Option<PathBuf>,
    /// The variable that holds the address, instead of `url_file`.
    #[serde(default)]
    pub url_env: Option<String>,
    /// A file with the secret: that signs (Base64 of 24 to 64 bytes), the integration key, or the
    /// password. It is read anew for each message.
    #[serde(default)]
    pub secret_file: Option<PathBuf>,
    /// The variable that holds the secret, instead of `secret_file`.
    #[serde(default)]
    pub secret_env: Option<String>,
    /// A PEM file with certificate authorities to trust besides the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Who the broker is to the mail server, where it has to say.
    #[serde(default)]
    pub user: Option<String>,
    /// Who mail is from, such as `tmpcred <tmpcred@example.com>`.
    #[serde(default)]
    pub from: Option<String>,
    /// Addresses of teams, which get what channels of teams get.
    #[serde(default)]
    pub to: BTreeSet<String>,
    /// A program and its arguments: an absolute path, or found through PATH. No shell reads them.
    #[serde(default, deserialize_with = "command")]
    pub command: Option<Vec<String>>,
    /// How long the program may take.
    #[serde(default)]
    pub timeout: Option<Limit>,
}

/// What a channel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ChannelKind {
    /// A channel of Slack, by an incoming webhook.
    Slack,
    /// A channel or chat of Microsoft Teams, by a workflow.
    Teams,
    /// A service of PagerDuty, by its Events API v2.
    Pagerduty,
    /// An HTTP server that takes JSON, signed as Standard Webhooks says.
    Webhook,
    /// Mail to each person.
    Email,
    /// A program that gets the message as JSON on its standard input.
    Command,
}

impl ChannelKind {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Slack => "slack",
            Self::Teams => "teams",
            Self::Pagerduty => "pagerduty",
            Self::Webhook => "webhook",
            Self::Email => "email",
            Self::Command => "command",
        }
    }

    /// The keys that it has a use for, besides those that all have.
    fn takes(self) -> &'static [&'static str] {
        match self {
            Self::Slack | Self::Teams => &["url_file", "url_env", "ca_file"],
            Self::Pagerduty => &["url", "secret_file", "secret_env", "ca_file"],
            Self::Webhook => {
                &["url", "url_file", "url_env", "secret_file", "secret_env", "ca_file"]
            }
            Self::Email => &["url", "secret_file", "secret_env", "ca_file", "user", "from", "to"],
            Self::Command => &["command", "timeout"],
        }
    }
}

fn give_up_after() -> Duration {
    GIVE_UP_AFTER
}

fn command<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    printed::command(deserializer).map(Some)
}

/// Checks all channels.
pub(super) fn check(channels: &Notify) -> Result<(), Misfit> {
    for (name, channel) in channels {
        let checked = check_name("notify", name).and_then(|()| {
            channel.check().map_err(|error| error.context(format!("[notify.{name}]")))
        });
        checked.map_err(|error| Misfit::of_private(&["notify", name], error))?;
    }
    Ok(())
}

/// Checks that somebody is told when the role is taken without approval.
pub(super) fn check_told(channels: &Notify, role: &str, rules: &Elevation) -> Result<()> {
    let is_told = || channels.values().any(|channel| channel.wants(EMERGENCY, Some(role)));
    if rules.emergency.is_none() || is_told() {
        return Ok(());
    }
    let why = match channels.is_empty() {
        true => "there is no [notify.NAME]",
        false => "the only and roles of each [notify.NAME] leave it out",
    };
    let what = format!("[role.{role}.elevation] has emergencies, of which nobody would be told");
    Err(Error::new(ErrorKind::Config, what).because_of(why).hint(format!(
        "have a [notify.NAME] for messages of the kind \"{EMERGENCY}\" of this role, or leave emergency out"
    )))
}

impl NotifyChannel {
    /// Whether messages of this kind about this role go there.
    pub fn wants(&self, kind: &str, role: Option<&str>) -> bool {
        let of_role = match (&self.roles, role) {
            (Some(roles), Some(role)) => roles.contains(role),
            _ => true,
        };
        of_role && self.only.as_ref().is_none_or(|only| only.contains(kind))
    }

    fn check(&self) -> Result<()> {
        let wrong = |why: String| Err(Error::new(ErrorKind::Config, why));
        let kind = self.kind.as_str();
        let given = [
            ("url", self.url.is_some()),
            ("url_file", self.url_file.is_some()),
            ("url_env", self.url_env.is_some()),
            ("secret_file", self.secret_file.is_some()),
            ("secret_env", self.secret_env.is_some()),
            ("ca_file", self.ca_file.is_some()),
            ("user", self.user.is_some()),
            ("from", self.from.is_some()),
            ("to", !self.to.is_empty()),
            ("command", self.command.is_some()),
            ("timeout", self.timeout.is_some()),
        ];
        let takes = self.kind.takes();
        if let Some((key, _)) = given.iter().find(|(key, given)| *given && !takes.contains(key)) {
            return wrong(format!("a channel of the kind {kind} has no use for {key}"));
        }
        let count = |keys: &[&str]| {
            given.iter().filter(|(key, given)| *given && keys.contains(key)).count()
        };
        // Exactly one of each of these.
        let needs: &[&[&str]] = match self.kind {
            ChannelKind::Slack | ChannelKind::Teams => &[&["url_file", "url_env"]],
            ChannelKind::Pagerduty => &[&["secret_file", "secret_env"]],
            ChannelKind::Webhook => {
                &[&["url", "url_file", "url_env"], &["secret_file", "secret_env"]]
            }
            ChannelKind::Email => &[&["url"], &["from"]],
            ChannelKind::Command => &[&["command"]],
        };
        if let Some(keys) = needs.iter().find(|keys| count(keys) != 1) {
            let keys = keys.join(", or ");
            return wrong(format!("a channel of the kind {kind} needs {keys}"));
        }
        if self.kind == ChannelKind::Email {
            if count(&["secret_file", "secret_env"]) != count(&["user"]) {
                return wrong("user and its secret_file, or secret_env, go together".into());
            }
        } else if let Some(url) = &self.url {
            require_secure(url).map_err(|error| error.context("url"))?;
        }
        if [&self.only, &self.roles].into_iter().flatten().any(BTreeSet::is_empty) {
            return wrong("an empty list would let nothing through".into());
        }
        let mut kinds = self.only.iter().flatten();
        if let Some(unknown) = kinds.find(|kind| !MESSAGES.contains(&kind.as_str())) {
            return wrong(format!("only: there are no messages of the kind \"{unknown}\""));
        }
        if self.give_up_after.is_zero() || self.give_up_after > LONGEST {
            return wrong("give_up_after has to be some time, and a week at most".into());
        }
        if self.timeout.is_some_and(|limit| limit.0 > LONGEST_COMMAND) {
            return wrong("timeout has to be a minute at most".into());
        }
        match self.kind {
            ChannelKind::Email => self.mail_server().map(drop),
            _ => Ok(()),
        }
    }

    /// Where the mail server is.
    ///
    /// # Errors
    /// Where that is nowhere, or mail would go there in the clear.
    pub fn mail_server(&self) -> Result<MailServer> {
        let Some(url) = &self.url else {
            return Err(Error::new(ErrorKind::Config, "there is no address of a mail server"));
        };
        let wrong = |why: &str| {
            Err(Error::new(ErrorKind::Config, "url is none of a mail server")
                .because_of(why)
                .hint("such as \"smtp://mail.example.com:587\", or \"smtps://mail.example.com\""))
        };
        let wrapped = match url.scheme() {
            "smtps" => true,
            "smtp" => false,
            _ => return wrong("it begins neither with smtp:// nor with smtps://"),
        };
        let bare = matches!(url.path(), "" | "/") && url.query().is_none();
        if !bare || url.fragment().is_some() || !url.username().is_empty() {
            return wrong("it is more than a host and a port");
        }
        let Some(host) = url.host_str().filter(|host| !host.is_empty()) else {
            return wrong("it names no host");
        };
        // The library knows addresses only in the schemes of the web.
        let web = Url::parse(&format!("http://{host}/"));
        let Ok(web) = web else { return wrong("it names no host") };
        let security = match (wrapped, is_loopback(&web)) {
            (true, _) => MailSecurity::Wrapped,
            (false, true) => MailSecurity::None,
            (false, false) => MailSecurity::Starttls,
        };
        let port = url.port().unwrap_or(if wrapped { 465 } else { 587 });
        Ok(MailServer {
            host: host.trim_matches(['[', ']']).to_string(),
            port,
            // With an authority of its own, it is meant to be spoken to over TLS.
            security: match security {
                MailSecurity::None if self.ca_file.is_some() => MailSecurity::Starttls,
                security => security,
            },
        })
    }
}

/// A mail server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MailServer {
    /// Its name, or its address.
    pub host: String,
    /// The port.
    pub port: u16,
    /// How it is spoken to.
    pub security: MailSecurity,
}

/// How a mail server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailSecurity {
    /// In the clear; it is this machine.
    None,
    /// Over TLS once the two have said hello, or not at all.
    Starttls,
    /// Over TLS from the beginning.
    Wrapped,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(toml: &str) -> Result<NotifyChannel> {
        let channels: Notify = toml::from_str(&format!("[a]\n{toml}")).unwrap();
        check(&channels)?;
        Ok(channels["a"].clone())
    }

    #[test]
    fn each_kind_takes_what_it_needs_and_nothing_else() {
        for good in [
            "kind = \"slack\"\nurl_file = \"x\"\nonly = [\"emergency\"]\nroles = [\"admin\"]",
            "kind = \"teams\"\nurl_env = \"X\"\ngive_up_after = \"1h\"",
            "kind = \"pagerduty\"\nsecret_env = \"X\"",
            "kind = \"webhook\"\nurl = \"https://h.example\"\nsecret_env = \"X\"\nca_file = \"y\"",
            "kind = \"email\"\nurl = \"smtps://h.example\"\nfrom = \"a@h.example\"",
            "kind = \"command\"\ncommand = [\"tell\"]\ntimeout = \"5s\"",
        ] {
            assert!(of(good).is_ok(), "{good}: {:?}", of(good));
        }
        for (toml, says) in [
            ("kind = \"slack\"\nurl = \"https://h.example\"", "has no use for url"),
            ("kind = \"slack\"", "needs url_file, or url_env"),
            ("kind = \"slack\"\nurl_file = \"x\"\nurl_env = \"X\"", "needs url_file, or url_env"),
            ("kind = \"pagerduty\"", "needs secret_file, or secret_env"),
            ("kind = \"webhook\"\nurl = \"https://h.example\"", "needs secret_file"),
            ("kind = \"webhook\"\nurl = \"http://h.example\"\nsecret_env = \"X\"", "refusing"),
            ("kind = \"email\"\nurl = \"smtp://h.example\"", "needs from"),
            ("kind = \"email\"\nurl = \"https://h.example\"\nfrom = \"a\"", "neither with smtp"),
            ("kind = \"email\"\nurl = \"smtp://h/x\"\nfrom = \"a\"", "more than a host"),
            ("kind = \"email\"\nurl = \"smtp://h\"\nfrom = \"a\"\nuser = \"u\"", "go together"),
            ("kind = \"command\"\ncommand = [\"x\"]\ntimeout = \"2m\"", "a minute at most"),
            ("kind = \"command\"\ncommand = [\"x\"]\nonly = []", "let nothing through"),
            (
                "kind = \"command\"\ncommand = [\"x\"]\nonly = [\"emergencies\"]",
                "no messages of the kind \"emergencies\"",
            ),
            ("kind = \"command\"\ncommand = [\"x\"]\ngive_up_after = \"8d\"", "a week at most"),
        ] {
            let error = of(toml).unwrap_err();
            let said = format!("{error} {:?}", error.causes());
            assert!(said.contains(says), "{toml}: {said}");
        }
    }

    #[test]
    fn mail_goes_in_the_clear_on_this_machine_only() {
        let server = |url: &str| {
            let toml = format!("kind = \"email\"\nfrom = \"a@b.example\"\nurl = \"{url}\"");
            let MailServer { host, port, security } = of(&toml).unwrap().mail_server().unwrap();
            (host, port, security)
        };
        let of = |host: &str, port, security| (host.to_string(), port, security);
        let (none, starttls) = (MailSecurity::None, MailSecurity::Starttls);
        assert_eq!(server("smtp://mail.example.com"), of("mail.example.com", 587, starttls));
        assert_eq!(server("smtp://192.0.2.1:25"), of("192.0.2.1", 25, starttls));
        assert_eq!(server("smtp://127.0.0.1:25"), of("127.0.0.1", 25, none));
        assert_eq!(server("smtp://[::1]:25"), of("::1", 25, none));
        let wrapped = MailSecurity::Wrapped;
        assert_eq!(server("smtps://mail.example.com"), of("mail.example.com", 465, wrapped));
    }
}
