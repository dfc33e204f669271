//! Forgetting credentials before they expire, and finding sessions that nothing leads to.

use super::key::{ItemKey, SessionKey};
use super::{Cache, CredentialLabel, SessionLabel};
use crate::credential::{self, Credential, Principal};
use crate::error::Result;

impl Cache {
    /// The sessions in the store of this run, as the index tells, but for those with these keys.
    pub fn sessions_besides(&self, known: &[SessionKey]) -> Vec<(SessionKey, SessionLabel)> {
        let store = self.vault.id();
        let here = self.index.read().sessions.into_iter().filter(|entry| entry.store == store);
        let keyed =
            here.filter_map(|entry| Some((ItemKey::parse(&entry.key)?.session()?, entry.label)));
        keyed.filter(|(key, _)| !known.contains(key)).collect()
    }

    /// Forgets every credential of this principal; for logging out.
    ///
    /// Those that the index does not know are looked for in the store itself.
    pub fn forget_credentials(&self, principal: &Principal) -> Result<()> {
        let store = self.vault.id();
        let entries = self.index.read();
        let mut of_principal = self.indexed(|label| label.principal == *principal);
        for key in self.vault.keys()? {
            let unknown = !entries.credentials.iter().any(|entry| entry.is(store, &key));
            if key.is_credential() && unknown {
                let credential = self.vault.get(&key)?.and_then(|bytes| credential::decode(&bytes));
                of_principal.extend(credential.filter(|c| c.principal == *principal).map(|_| key));
            }
        }
        self.forget(&of_principal)
    }

    /// Forgets those credentials in this role of which `is_over` says that they are good no more,
    /// although they have not expired.
    pub fn forget_in_role(&self, role: &str, is_over: impl Fn(&Credential) -> bool) -> Result<()> {
        let mut over = Vec::new();
        for key in self.indexed(|label| label.role == role) {
            let credential = self.vault.get(&key)?.and_then(|bytes| credential::decode(&bytes));
            over.extend(credential.filter(&is_over).map(|_| key));
        }
        self.forget(&over)
    }

    /// Those that the index knows in the store in use, and says this of.
    fn indexed(&self, of: impl Fn(&CredentialLabel) -> bool) -> Vec<ItemKey> {
        let store = self.vault.id();
        let entries = self.index.read().credentials.into_iter();
        let here = entries.filter(|entry| entry.store == store && of(&entry.label));
        here.filter_map(|entry| ItemKey::parse(&entry.key)).collect()
    }

    fn forget(&self, keys: &[ItemKey]) -> Result<()> {
        for key in keys {
            self.vault.delete(key)?;
        }
        if !keys.is_empty() {
            let store = self.vault.id();
            self.index.update(store, |entries| {
                keys.iter().for_each(|key| entries.remove(store, key));
            });
        }
        Ok(())
    }
}
