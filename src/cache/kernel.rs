//! The keyring of the Linux kernel: secrets stay in kernel memory, and the
//! kernel itself drops them when their time is over.
//!
//! Items rest in the user keyring (`@u`), which all processes of the user share.
//! A process may read a key there only when it possesses the keyring, that is
//! reaches it from its session; containers, services and cron jobs often do not.
//! Linking `@u` into the process's own keyring is enough, and ends with it.

use std::sync::{Mutex, PoisonError};

use linux_keyutils::{Key, KeyError, KeyRing, KeyRingIdentifier};
use zeroize::Zeroizing;

use super::key::ItemKey;
use super::store::{Fault, Item, Store, StoreId};
use crate::error::{Error, ErrorKind};
use crate::secret::Secret;

/// What descriptions begin with.
const PREFIX: &str = "tmpcred:";
/// What the kernel takes in one key, in bytes.
const PAYLOAD_LIMIT: usize = 32_767;
/// Most items are smaller than this.
const USUAL_SIZE: usize = 4096;
/// How many keys a listing has room for: no user comes near to it.
const LIST_LIMIT: usize = 1 << 20;

/// The user keyring.
#[derive(Default)]
pub(super) struct Kernel {
    /// Threads share the process keyring, through which items are made.
    making: Mutex<()>,
}

impl Store for Kernel {
    fn id(&self) -> StoreId {
        StoreId::Kernel
    }

    fn probe(&self) -> Result<(), Fault> {
        user_keyring().map(|_| ())
    }

    fn get(&self, key: &ItemKey) -> Result<Option<Secret<Vec<u8>>>, Fault> {
        let user = user_keyring()?;
        let read = || find(&user, key)?.map(read).transpose().map(Option::flatten);
        let found = match read() {
            Err(KeyError::AccessDenied) => possess(&user).and_then(|()| read()),
            other => other,
        };
        found.map_err(|cause| failed("cannot read from the kernel keyring", cause))
    }

    fn put(&self, item: &Item<'_>) -> Result<(), Fault> {
        if item.value.expose().len() > PAYLOAD_LIMIT {
            return Err(Fault::Full(
                Error::new(ErrorKind::Other, "the item is too large for the kernel keyring")
                    .because_of(format!("the kernel takes at most {PAYLOAD_LIMIT} bytes")),
            ));
        }
        let user = user_keyring()?;
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        put(&user, item).map_err(|cause| match cause {
            KeyError::QuotaExceeded => Fault::Full(
                Error::new(ErrorKind::Other, "the kernel keyring of this user is full")
                    .hint("`cat /proc/key-users` shows what is in use"),
            ),
            // An empty payload is the only other thing the kernel calls invalid here.
            cause => failed("cannot write to the kernel keyring", cause),
        })
    }

    fn delete(&self, key: &ItemKey) -> Result<(), Fault> {
        let user = user_keyring()?;
        let forget = || match find(&user, key)? {
            Some(found) => gone_is_fine(user.unlink_key(found)),
            None => Ok(()),
        };
        forget().map_err(|cause| failed("cannot delete from the kernel keyring", cause))
    }

    fn keys(&self) -> Result<Vec<ItemKey>, Fault> {
        let user = user_keyring()?;
        let links = match user.get_links(LIST_LIMIT) {
            Err(KeyError::AccessDenied) => possess(&user).and_then(|()| user.get_links(LIST_LIMIT)),
            other => other,
        };
        let links = links.map_err(|cause| failed("cannot list the kernel keyring", cause))?;
        let keys = links.iter().filter_map(|link| {
            let metadata = link.as_key()?.metadata().ok()?;
            ItemKey::parse(metadata.get_description().strip_prefix(PREFIX)?)
        });
        Ok(keys.collect())
    }
}

/// The user keyring, without which there is no store.
fn user_keyring() -> Result<KeyRing, Fault> {
    KeyRing::from_special_id(KeyRingIdentifier::User, false).map_err(|cause| {
        Fault::Absent(
            Error::new(ErrorKind::Config, "there is no kernel keyring").because_of(explain(cause)),
        )
    })
}

/// Makes the user keyring readable for this process, until it ends.
fn possess(user: &KeyRing) -> Result<(), KeyError> {
    KeyRing::from_special_id(KeyRingIdentifier::Process, true)?.link_keyring(*user)
}

fn description(key: &ItemKey) -> String {
    format!("{PREFIX}{}", key.as_str())
}

/// Finds a key that is still good.
fn find(user: &KeyRing, key: &ItemKey) -> Result<Option<Key>, KeyError> {
    match user.search(&description(key)) {
        Ok(found) => Ok(Some(found)),
        Err(cause) if is_gone(cause) => Ok(None),
        Err(cause) => Err(cause),
    }
}

/// Reads a key; `None` where it ended since it was found.
fn read(key: Key) -> Result<Option<Secret<Vec<u8>>>, KeyError> {
    for size in [USUAL_SIZE, PAYLOAD_LIMIT + 1] {
        let mut buffer = Zeroizing::new(vec![0; size]);
        match key.read(&mut buffer) {
            // The kernel tells the whole length, whatever the buffer's.
            Ok(len) => {
                if let Some(value) = buffer.get(..len) {
                    return Ok(Some(Secret::new(value.to_vec())));
                }
            }
            Err(cause) if is_gone(cause) => return Ok(None),
            Err(cause) => return Err(cause),
        }
    }
    Err(KeyError::InvalidArguments)
}

/// Makes a key in the process keyring, gives it its end, and only then puts it
/// where others find it: a key that was to end and does not must not come to be.
/// The link takes the place of the link to an older key of the same name, which
/// thereby ceases to exist.
fn put(user: &KeyRing, item: &Item<'_>) -> Result<(), KeyError> {
    let process = KeyRing::from_special_id(KeyRingIdentifier::Process, true)?;
    let key = process.add_key(&description(item.key), item.value.expose())?;
    let placed = match item.lifetime {
        Some(lifetime) => {
            let seconds = lifetime.whole_seconds() + i64::from(lifetime.subsec_nanoseconds() > 0);
            // Zero would mean for ever.
            key.set_timeout(usize::try_from(seconds).unwrap_or(0).max(1))
        }
        None => Ok(()),
    }
    .and_then(|()| user.link_key(key));
    let unlinked = gone_is_fine(process.unlink_key(key));
    placed.and(unlinked)
}

fn is_gone(cause: KeyError) -> bool {
    matches!(cause, KeyError::KeyDoesNotExist | KeyError::KeyExpired | KeyError::KeyRevoked)
}

fn gone_is_fine(result: Result<(), KeyError>) -> Result<(), KeyError> {
    match result {
        // Another process replaced or removed it first.
        Err(cause) if is_gone(cause) || cause == KeyError::MissingFileOrDirectory => Ok(()),
        other => other,
    }
}

fn failed(what: &str, cause: KeyError) -> Fault {
    let error = Error::new(ErrorKind::Io, what).because_of(explain(cause));
    match cause {
        // What a container's system call filter says, or a kernel without keyrings.
        KeyError::PermissionDenied | KeyError::OperationNotSupported => Fault::Absent(error),
        KeyError::Unknown(code) if code == rustix::io::Errno::NOSYS.raw_os_error() => {
            Fault::Absent(error)
        }
        _ => Fault::Failed(error),
    }
}

/// The cause for people.
fn explain(cause: KeyError) -> String {
    match cause {
        KeyError::PermissionDenied => {
            "the system forbids it, as containers often do (EPERM)".to_string()
        }
        KeyError::AccessDenied => "access is denied (EACCES)".to_string(),
        KeyError::QuotaExceeded => "the user's quota is used up (EDQUOT)".to_string(),
        KeyError::OutOfMemory => "the kernel has no memory for it (ENOMEM)".to_string(),
        KeyError::Unknown(code) => std::io::Error::from_raw_os_error(code).to_string(),
        other => format!("the kernel says {other}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration as StdDuration, Instant};

    use time::Duration;

    use super::*;
    use crate::cache::SessionKey;

    /// The kernel's keyring, and a key of this test's own. A place that forbids
    /// the keyring, as some containers do, cannot run the tests.
    fn keyring() -> (Kernel, ItemKey) {
        let kernel = Kernel::default();
        let own = uuid::Uuid::new_v4().to_string();
        if let Err(fault) = kernel.probe() {
            panic!("the tests need the kernel keyring, and it cannot be used here: {fault:?}");
        }
        (kernel, SessionKey::new(&["test of the kernel keyring", &own]).item())
    }

    fn put(
        kernel: &Kernel,
        key: &ItemKey,
        value: &[u8],
        lifetime: Option<Duration>,
    ) -> Result<(), Fault> {
        let value = Secret::new(value.to_vec());
        kernel.put(&Item { key, label: "test", value: &value, lifetime })
    }

    fn get(kernel: &Kernel, key: &ItemKey) -> Option<Vec<u8>> {
        kernel.get(key).unwrap().map(|value| value.expose().clone())
    }

    #[test]
    fn items_are_kept_replaced_listed_and_deleted() {
        let (kernel, key) = keyring();
        assert_eq!(get(&kernel, &key), None);
        put(&kernel, &key, b"one", None).unwrap();
        let first = find(&user_keyring().unwrap(), &key).unwrap().unwrap();
        let large = vec![7; 3 * USUAL_SIZE];
        put(&kernel, &key, &large, Some(Duration::hours(1))).unwrap();
        assert_eq!(get(&kernel, &key), Some(large));
        let second = find(&user_keyring().unwrap(), &key).unwrap().unwrap();
        assert_ne!(first, second, "a new key took its place, with an end of its own");
        assert!(kernel.keys().unwrap().contains(&key));
        // Nothing of it is left in the process keyring.
        let process = KeyRing::from_special_id(KeyRingIdentifier::Process, true).unwrap();
        let links = process.get_links(100).unwrap();
        assert!(!links.contains(&first) && !links.contains(&second));
        kernel.delete(&key).unwrap();
        kernel.delete(&key).unwrap();
        assert_eq!(get(&kernel, &key), None);
        assert!(!kernel.keys().unwrap().contains(&key));
    }

    #[test]
    fn the_kernel_itself_drops_what_has_ended() {
        let (kernel, key) = keyring();
        put(&kernel, &key, b"one", Some(Duration::milliseconds(1))).unwrap();
        let started = Instant::now();
        while get(&kernel, &key).is_some() {
            assert!(started.elapsed() < StdDuration::from_secs(60), "it never ends");
            std::thread::yield_now();
        }
        kernel.delete(&key).unwrap();
    }

    #[test]
    fn what_is_too_large_is_said_to_be() {
        let (kernel, key) = keyring();
        let refused = put(&kernel, &key, &vec![0; PAYLOAD_LIMIT + 1], None);
        assert!(matches!(refused, Err(Fault::Full(_))), "{refused:?}");
        assert_eq!(get(&kernel, &key), None);
    }
}
