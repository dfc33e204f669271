//! Mail: to each person at the address that the directory has of them, and to those of teams.

use std::collections::BTreeSet;

use async_trait::async_trait;

use super::web::hash_of;
use super::{Channel, Parcel, Refused};
use crate::broker::config::{MailSecurity, NotifyChannel};
use crate::broker::notify::Message;
use crate::broker::private_text::{self, Place};
use crate::broker::trusted_file;
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::host::env::Env;
use crate::host::smtp::{Failed, Letter, Login, Mailbox, Security, Server};

/// The contact that has somebody's address.
const CONTACT: &str = "email";

/// A mail server, and who mail is from.
pub(super) struct Email {
    server: Server,
    from: Mailbox,
    login: Option<(String, Place)>,
    teams: BTreeSet<String>,
    env: Env,
    origin: String,
}

impl Email {
    pub(super) fn new(config: &NotifyChannel, origin: String, host: &Host) -> Result<Self> {
        let at = config.mail_server()?;
        let security = match at.security {
            MailSecurity::None => Security::None,
            MailSecurity::Starttls => Security::Starttls,
            MailSecurity::Wrapped => Security::Wrapped,
        };
        let authorities = trusted_file::read_authorities(config.ca_file.as_ref())?;
        let server = Server::new(&at.host, at.port, security, authorities.as_deref())?;
        let from = Mailbox::parse(config.from.as_deref().unwrap_or_default())
            .map_err(|error| error.context("from"))?;
        for address in &config.to {
            Mailbox::parse(address).map_err(|error| error.context("to"))?;
        }
        let place = Place::of(config.secret_file.as_ref(), config.secret_env.as_ref());
        let login = config.user.clone().zip(place);
        let (teams, env) = (config.to.clone(), host.env.clone());
        let email = Self { server, from, login, teams, env, origin };
        email.login().map(|_| email)
    }

    /// Who the broker is to the server; the password is read anew each time.
    fn login(&self) -> Result<Option<Login>> {
        let login = |(user, place): &(String, Place)| {
            let password = private_text::read(place, "secret", &self.env)?;
            Ok(Login { user: user.clone(), password })
        };
        self.login.as_ref().map(login).transpose()
    }

    fn letter(&self, parcel: &Parcel<'_>, to: Mailbox) -> Letter {
        let message = parcel.message;
        let host = self.origin.split('/').next().unwrap_or_default();
        let id = |text: &str| format!("<{}@{host}>", hash_of(text));
        Letter {
            from: self.from.clone(),
            to,
            subject: message.title().to_string(),
            text: text(message, &self.origin),
            at: message.at(),
            // The same one, however often it comes; and what is about one thing is together.
            id: id(&format!("{} {}", message.key(), parcel.addressee)),
            about: (!message.id().is_empty()).then(|| id(message.id())),
        }
    }
}

#[async_trait]
impl Channel for Email {
    fn addressees(&self, message: &Message) -> Vec<String> {
        let teams = self.teams.iter().filter(|_| message.is_for_teams());
        message.names().iter().chain(teams).cloned().collect()
    }

    async fn deliver(&self, parcel: &Parcel<'_>) -> Result<(), Refused> {
        let address = match parcel.contact(parcel.addressee, CONTACT) {
            Some(address) => address,
            None if self.teams.contains(parcel.addressee) => parcel.addressee,
            None => {
                let why = format!("nobody knows the address of '{}'", parcel.addressee);
                return Err(Refused::message(
                    Error::new(ErrorKind::Config, why)
                        .because_of("the directory of people has no `email` of theirs")
                        .hint("add it to their contacts in the directory"),
                ));
            }
        };
        let to = Mailbox::parse(address).map_err(Refused::message)?;
        let login = self.login()?;
        let letter = self.letter(parcel, to);
        self.server.send(&letter, login.as_ref()).await.map_err(|failed| match failed {
            Failed::Server(error) => error.into(),
            Failed::Letter(error) => Refused::message(error),
        })
    }
}

/// What the mail says.
fn text(message: &Message, origin: &str) -> String {
    let said = message.text();
    let gap = if said.is_empty() { "" } else { "\n\n" };
    format!(
        "{}\n\n{said}{gap}-- \n{} from the broker {origin} ({})\n",
        message.title(),
        message.urgency().said(),
        message.kind()
    )
}
