//! A syslog server: RFC 5424, each message with its length in front (RFC 6587 section
//! 3.4.1), over TLS (RFC 5425) or, on this machine, over TCP.
//!
//! Syslog has no answers. So each delivery is a connection of its own, at the end of which
//! the server says that it has read everything, by closing it.

use async_trait::async_trait;
use time::format_description::well_known::Rfc3339;

use super::{Letter, Refused, Sink};
use crate::broker::config::{SyslogAddress, SyslogSink};
use crate::broker::trusted_file;
use crate::error::Result;
use crate::host::stream::Receiver;
use crate::oidc::Issuer;

/// «Log audit» (RFC 5424 section 6.2.1).
const FACILITY: u8 = 13;

/// The severities of what went well, and of what did not.
const INFORMATIONAL: u8 = 6;
const NOTICE: u8 = 5;

/// What stands for nothing.
const NIL: &str = "-";

/// The longest name of a host (RFC 5424 section 6).
const MAX_HOST: usize = 255;

/// A server.
pub(super) struct Syslog {
    receiver: Receiver,
    /// Who is speaking: the host of the broker's issuer, whichever machine it runs on.
    host: String,
}

impl Syslog {
    pub(super) fn new(config: &SyslogSink, issuer: &Issuer) -> Result<Self> {
        let SyslogAddress { host, port, tls } = config.address()?;
        let receiver = match tls {
            false => Receiver::plain(host, port),
            true => {
                let authorities = trusted_file::read_authorities(config.ca_file.as_ref())?;
                Receiver::secured(host, port, authorities.as_deref())?
            }
        };
        let host = issuer.url().host_str().filter(|host| host.len() <= MAX_HOST);
        Ok(Self { receiver, host: host.unwrap_or(NIL).into() })
    }

    /// A message, with its length in front.
    fn frame(&self, letter: &Letter) -> String {
        let severity = if letter.went_well { INFORMATIONAL } else { NOTICE };
        let at = letter.at.and_then(|at| at.format(&Rfc3339).ok());
        let message = format!(
            "<{}>1 {} {} tmpcred - audit - {}",
            FACILITY * 8 + severity,
            at.as_deref().unwrap_or(NIL),
            self.host,
            letter.json
        );
        format!("{} {message}", message.len())
    }
}

#[async_trait]
impl Sink for Syslog {
    async fn take(&mut self, letters: &[Letter]) -> Result<(), Refused> {
        let frames: String = letters.iter().map(|letter| self.frame(letter)).collect();
        Ok(self.receiver.send(frames.as_bytes()).await?)
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn a_message_is_as_rfc_5424_wants_it_and_says_how_long_it_is() {
        let syslog = Syslog {
            receiver: Receiver::plain(url::Host::Domain("localhost".into()), 1),
            host: "broker.example.com".into(),
        };
        let letter = Letter {
            sequence: 7,
            at: Some(datetime!(2026-01-01 12:00:00.123456 UTC)),
            went_well: false,
            json: "{\"é\":1}".into(),
        };
        let said = "<109>1 2026-01-01T12:00:00.123456Z broker.example.com tmpcred - audit - ";
        assert_eq!(syslog.frame(&letter), format!("{} {said}{{\"é\":1}}", said.len() + 8));
        let unknown = Letter { at: None, went_well: true, ..letter };
        assert!(syslog.frame(&unknown).contains(" <110>1 - broker."));
    }
}
