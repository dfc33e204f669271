//! Who may come to a page on loopback that a browser was sent to: whoever is logged in on
//! this machine can connect, and sees with what arguments programs run.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Host;
use super::env::Env;
use super::interact::Interact;
use super::listener::{Peer, whose};
use super::process::user_id;

/// Lets in programs of this user and of the administrator.
///
/// Where it cannot be told whose a program is, it is let in: what else is asked of a
/// request must do then.
pub struct Door {
    /// What is behind it.
    to: &'static str,
    /// What to do where one's own browser is kept out.
    otherwise: &'static str,
    interact: Arc<dyn Interact>,
    /// Who has become the administrator with `sudo`, and may use a browser of their own.
    behind_sudo: Option<u32>,
    told: AtomicBool,
}

impl Door {
    /// The door to something, and what to do where one's own browser is kept out.
    pub fn to(to: &'static str, otherwise: &'static str, host: &Host) -> Self {
        let behind_sudo = behind_sudo(user_id(), &host.env);
        let (interact, told) = (host.interact.clone(), AtomicBool::new(false));
        Self { to, otherwise, interact, behind_sudo, told }
    }

    /// Whether the program at the other end of a connection may take part.
    pub fn admits(&self, peer: SocketAddr, server: SocketAddr) -> bool {
        let whose = whose(peer, server);
        if matches!(whose, Peer::Untold | Peer::Elsewhere) {
            tracing::debug!(?whose, "it cannot be told whose the program at the other end is");
        }
        let admitted = self.lets_in(whose);
        if let (false, Peer::OtherUser(uid)) = (admitted, whose)
            && !self.told.swap(true, Ordering::Relaxed)
        {
            self.interact.warn(&format!(
                "a program of another user of this machine (number {uid}) tried to take part in {} and was refused; if it is your own browser, {}",
                self.to, self.otherwise
            ));
        }
        admitted
    }

    fn lets_in(&self, whose: Peer) -> bool {
        match whose {
            Peer::Ours | Peer::Elsewhere | Peer::Untold => true,
            Peer::OtherUser(uid) => self.behind_sudo == Some(uid),
            Peer::Gone => false,
        }
    }
}

/// Only what the administrator runs may say for whom: `sudo` has set it.
fn behind_sudo(user: u32, env: &Env) -> Option<u32> {
    if user != 0 {
        return None;
    }
    env.get("SUDO_UID")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::interact::Silent;

    #[test]
    fn only_another_user_is_kept_out() {
        let sudo = Env::from_pairs([("SUDO_UID", "1000")]);
        assert_eq!(behind_sudo(0, &sudo), Some(1000));
        assert_eq!(behind_sudo(1001, &sudo), None, "anybody can set a variable");
        assert_eq!(behind_sudo(0, &Env::default()), None);
        let door = |behind_sudo| Door {
            to: "this login",
            otherwise: "go home",
            interact: Arc::new(Silent),
            behind_sudo,
            told: AtomicBool::new(false),
        };
        for told in [Peer::Ours, Peer::Untold, Peer::Elsewhere] {
            assert!(door(None).lets_in(told), "{told:?}");
        }
        for other in [Peer::OtherUser(1000), Peer::Gone] {
            assert!(!door(None).lets_in(other), "{other:?}");
        }
        assert!(door(Some(1000)).lets_in(Peer::OtherUser(1000)));
        assert!(!door(Some(1000)).lets_in(Peer::OtherUser(1001)));
    }
}
