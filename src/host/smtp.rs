//! Mail, handed to a server (RFC 5321).

use std::io;
use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{Certificate, Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};
use time::OffsetDateTime;

use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;

/// How long one step of the conversation may take.
const STEP: Duration = Duration::from_secs(8);

/// Tells other programs that they need not answer (RFC 3834).
const AUTOMATIC: (&str, &str) = ("Auto-Submitted", "auto-generated");

/// An address, perhaps with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mailbox(lettre::message::Mailbox);

impl Mailbox {
    /// Reads one, such as `tmpcred <tmpcred@example.com>`.
    ///
    /// # Errors
    /// Where it is none.
    pub fn parse(text: &str) -> Result<Self> {
        let parsed = text.parse().map(Self);
        parsed.map_err(|cause: lettre::address::AddressError| {
            Error::new(ErrorKind::Config, "it is no address of mail")
                .because(cause)
                .hint("such as tmpcred@example.com, or \"tmpcred <tmpcred@example.com>\"")
        })
    }
}

/// What is sent: plain text to one address.
#[derive(Clone, Debug)]
pub struct Letter {
    /// Who it is from.
    pub from: Mailbox,
    /// Whom it is for.
    pub to: Mailbox,
    /// What it is about, on one line.
    pub subject: String,
    /// What it says.
    pub text: String,
    /// When it was written.
    pub at: OffsetDateTime,
    /// What tells it apart, in angle brackets.
    pub id: String,
    /// The same of what it belongs to.
    pub about: Option<String>,
}

/// How a server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// In the clear.
    None,
    /// Over TLS once the two have said hello (RFC 3207), or not at all.
    Starttls,
    /// Over TLS from the beginning (RFC 8314).
    Wrapped,
}

/// Who says that they may send.
pub struct Login {
    /// Their name.
    pub user: String,
    /// What shows it.
    pub password: Secret<String>,
}

/// Why a letter was not taken.
pub enum Failed {
    /// The server is out of order, or not who it should be.
    Server(Error),
    /// It does not take this letter.
    Letter(Error),
}

/// A server.
pub struct Server {
    host: String,
    port: u16,
    tls: Tls,
    #[cfg(target_os = "linux")]
    names: super::names::Names,
}

impl Server {
    /// A server whose certificate is of an authority that the system trusts, or of one in
    /// `extra_ca_pem`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where no authority can be had.
    pub fn new(
        host: &str,
        port: u16,
        security: Security,
        extra_ca_pem: Option<&[u8]>,
    ) -> Result<Self> {
        let failed = |cause| Error::new(ErrorKind::Config, "TLS cannot be set up").because(cause);
        let parameters = || {
            let builder = TlsParameters::builder(host.to_string());
            match extra_ca_pem {
                None => builder.build(),
                Some(pem) => builder.add_root_certificate(Certificate::from_pem(pem)?).build(),
            }
        };
        let tls = match security {
            Security::None => Tls::None,
            Security::Starttls => Tls::Required(parameters().map_err(failed)?),
            Security::Wrapped => Tls::Wrapper(parameters().map_err(failed)?),
        };
        Ok(Self {
            host: host.to_string(),
            port,
            tls,
            #[cfg(target_os = "linux")]
            names: super::names::Names::default(),
        })
    }

    /// Hands a letter over, and returns when the server has taken it.
    ///
    /// # Errors
    /// What the server answered, by its code alone.
    pub async fn send(&self, letter: &Letter, login: Option<&Login>) -> Result<(), Failed> {
        let message = letter.written().map_err(Failed::Letter)?;
        let place = format!("{}:{}", self.host, self.port);
        let addresses = self.addresses().await.map_err(|cause| {
            let error = Error::new(ErrorKind::Unreachable, format!("nobody answers at {place}"));
            Failed::Server(error.because(cause))
        })?;
        let mut last = Error::new(ErrorKind::Unreachable, format!("nobody answers at {place}"));
        for address in addresses {
            // The server is who its certificate says, wherever it is.
            let mut transport =
                AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(address.to_string())
                    .port(self.port)
                    .tls(self.tls.clone())
                    .timeout(Some(STEP))
                    .authentication(vec![Mechanism::Plain, Mechanism::Login]);
            if let Some(login) = login {
                let password = login.password.expose().clone();
                transport = transport.credentials(Credentials::new(login.user.clone(), password));
            }
            let cause = match transport.build().send(message.clone()).await {
                Ok(_) => return Ok(()),
                Err(cause) => cause,
            };
            let error = Error::new(ErrorKind::Unreachable, format!("{place} did not take it"));
            match (cause.status(), said(&cause)) {
                // Somebody has answered: others are the same server.
                (Some(code), _) => {
                    let error = error.because_of(format!("it answered {code}"));
                    let code = code.to_string();
                    let is_letters = match cause.is_permanent() {
                        // To be asked to show who one is (530), or not believed (535), is no
                        // letter's fault.
                        true => !["530", "534", "535", "538"].contains(&&*code),
                        // A mailbox that is busy or full is in nobody else's way (RFC 5321
                        // section 4.2.3).
                        false => ["450", "452"].contains(&&*code),
                    };
                    return Err(match is_letters {
                        true => Failed::Letter(error),
                        false => Failed::Server(error),
                    });
                }
                (None, said) => last = error.because_of(said),
            }
        }
        Err(Failed::Server(last))
    }

    async fn addresses(&self) -> io::Result<Vec<IpAddr>> {
        if let Ok(ip) = self.host.parse() {
            return Ok(vec![ip]);
        }
        #[cfg(target_os = "linux")]
        return self.names.addresses(&self.host).await;
        #[cfg(not(target_os = "linux"))]
        {
            let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await?;
            Ok(found.map(|address| address.ip()).collect())
        }
    }
}

/// What went wrong where the server has not answered by a code.
fn said(cause: &lettre::transport::smtp::Error) -> String {
    match cause {
        cause if cause.is_timeout() => "it took too long".into(),
        cause if cause.is_response() => "it speaks no SMTP".into(),
        // What the server said is in none of these.
        cause => cause.to_string(),
    }
}

impl Letter {
    /// The letter as it is sent.
    fn written(&self) -> Result<Message> {
        let failed = |cause: &dyn std::fmt::Display| {
            Error::new(ErrorKind::Other, "the letter cannot be written")
                .because_of(cause.to_string())
        };
        let (name, value) = AUTOMATIC;
        let name = HeaderName::new_from_ascii(name.into()).map_err(|cause| failed(&cause))?;
        let letter = Message::builder()
            .from(self.from.0.clone())
            .to(self.to.0.clone())
            .subject(self.subject.clone())
            .date(SystemTime::from(self.at))
            .message_id(Some(self.id.clone()))
            .header(ContentType::TEXT_PLAIN)
            .raw_header(HeaderValue::new(name, value.into()));
        let letter = match &self.about {
            Some(about) => letter.references(about.clone()),
            None => letter,
        };
        letter.body(self.text.clone()).map_err(|cause| failed(&cause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_letter_says_no_header_comes_of_it() {
        let mailbox = |text: &str| Mailbox::parse(text).unwrap();
        let letter = Letter {
            from: mailbox("tmpcred <tmpcred@example.com>"),
            to: mailbox("alice@example.com"),
            subject: "Hello\r\nBcc: mallory@example.com\r\n\r\nbody".into(),
            text: "\u{e9}\n.\r\nBcc: x\n".into(),
            at: OffsetDateTime::UNIX_EPOCH,
            id: "<1@example.com>".into(),
            about: Some("<2@example.com>".into()),
        };
        let written = String::from_utf8(letter.written().unwrap().formatted()).unwrap();
        let (headers, _) = written.split_once("\r\n\r\n").unwrap();
        let names: Vec<_> = headers
            .lines()
            .filter(|line| !line.starts_with([' ', '\t']))
            .map(|line| line.split(':').next().unwrap())
            .collect();
        let expected = [
            "From",
            "To",
            "Subject",
            "Date",
            "Message-ID",
            "Content-Type",
            "Auto-Submitted",
            "References",
            "Content-Transfer-Encoding",
        ];
        assert_eq!(names, expected, "{written}");
        assert!(Mailbox::parse("a@example.com\r\nBcc: b@example.com").is_err());
        assert!(Mailbox::parse("a@example.com, b@example.com").is_err());
    }
}
