//! What the provider has given out: codes, refresh tokens, device codes. In
//! memory, by hash, and gone with the process.

use std::collections::{BTreeSet, HashMap};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use time::{Duration, OffsetDateTime};
use url::Url;
use zeroize::Zeroizing;

use super::person::Person;
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;

/// How long a page waits for an answer, and a device for its code.
pub(super) const PATIENCE: Duration = Duration::minutes(10);

/// How long an authorization code is good.
const CODE_LIFE: Duration = Duration::minutes(1);

/// How long a refresh token is good. The provider seldom lives as long.
const REFRESH_LIFE: Duration = Duration::hours(12);

/// How often a device may ask, in seconds.
pub(super) const INTERVAL: i64 = 5;

/// How much slower a device must ask that asked too often (RFC 8628 section 3.5).
const SLOW_DOWN: i64 = 5;

/// How many of each kind there may be.
const MAX: usize = 10_000;

/// How many wrong user codes may be typed before all of them are void: there are
/// not so many that guessing would take for ever.
const MAX_GUESSES: u32 = 20;

/// The letters of user codes: no vowels, so no words (RFC 8628 section 6.1).
const USER_CODE_LETTERS: &[u8; 20] = b"BCDFGHJKLMNPQRSTVWXZ";

/// 32 random bytes in base64url: what cannot be guessed.
pub(super) fn random() -> Result<Secret<String>> {
    let mut bytes = Zeroizing::new([0; 32]);
    fill(bytes.as_mut_slice())?;
    Ok(Secret::new(URL_SAFE_NO_PAD.encode(bytes.as_slice())))
}

fn fill(bytes: &mut [u8]) -> Result<()> {
    aws_lc_rs::rand::fill(bytes)
        .map_err(|_| Error::new(ErrorKind::Other, "the system gives no random numbers"))
}

/// What stands for a secret here: its hash, so that looking it up tells nothing
/// by how long it takes.
type Handle = [u8; 32];

fn handle(secret: &str) -> Handle {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, secret.as_bytes()).as_ref());
    hash
}

/// What was asked for at the authorization endpoint.
#[derive(Clone, Debug)]
pub(super) struct Authorization {
    pub(super) redirect_uri: Url,
    pub(super) state: Option<String>,
    pub(super) nonce: Option<String>,
    pub(super) challenge: String,
    pub(super) asked: Asked,
}

/// What a token is asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    pub(super) scope: BTreeSet<String>,
    pub(super) resources: BTreeSet<String>,
}

/// What somebody has consented to.
#[derive(Clone, Debug)]
pub(super) struct Grant {
    pub(super) person: Person,
    pub(super) asked: Asked,
    pub(super) nonce: Option<String>,
    pub(super) at: OffsetDateTime,
    /// All that came from one consent, and ends together.
    family: u64,
}

struct Code {
    authorization: Authorization,
    grant: Grant,
    used: bool,
}

struct Refresh {
    grant: Grant,
    used: bool,
}

struct Device {
    user_code: String,
    asked: Asked,
    interval: i64,
    last_asked: Option<OffsetDateTime>,
    answer: Option<Result<Grant, Denied>>,
}

/// The person said no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Denied;

/// What a device is told (RFC 8628 section 3.5).
#[derive(Debug)]
pub(super) enum Poll {
    Pending,
    SlowDown,
    Expired,
    Denied,
    Granted(Grant),
}

struct Entry<T> {
    until: OffsetDateTime,
    value: T,
}

/// Things by the secret that gives access to them.
struct Table<T>(HashMap<Handle, Entry<T>>);

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T> Table<T> {
    fn put(
        &mut self,
        secret: &str,
        value: T,
        until: OffsetDateTime,
        now: OffsetDateTime,
    ) -> Result<()> {
        if self.0.len() >= MAX {
            self.0.retain(|_, entry| now < entry.until);
        }
        if self.0.len() >= MAX {
            return Err(Error::new(ErrorKind::Other, "the provider has too much to remember"));
        }
        self.0.insert(handle(secret), Entry { until, value });
        Ok(())
    }

    fn get(&mut self, secret: &str, now: OffsetDateTime) -> Option<&mut T> {
        self.0
            .get_mut(&handle(secret))
            .filter(|entry| now < entry.until)
            .map(|entry| &mut entry.value)
    }

    fn take(&mut self, secret: &str, now: OffsetDateTime) -> Option<T> {
        self.0.remove(&handle(secret)).filter(|entry| now < entry.until).map(|entry| entry.value)
    }
}

/// All of it.
#[derive(Default)]
pub(super) struct Grants {
    pages: Table<Authorization>,
    codes: Table<Code>,
    refresh: Table<Refresh>,
    devices: Table<Device>,
    dead: BTreeSet<u64>,
    families: u64,
    guesses: u32,
}

impl Grants {
    fn grant(
        &mut self,
        person: Person,
        asked: Asked,
        nonce: Option<String>,
        at: OffsetDateTime,
    ) -> Grant {
        self.families += 1;
        Grant { person, asked, nonce, at, family: self.families }
    }

    /// Remembers what a page asks about; returns what its answer must name.
    pub(super) fn ask(
        &mut self,
        wanted: Authorization,
        now: OffsetDateTime,
    ) -> Result<Secret<String>> {
        let page = random()?;
        self.pages.put(page.expose(), wanted, now + PATIENCE, now)?;
        Ok(page)
    }

    /// What a page asked about. Its answer counts once.
    pub(super) fn answered(&mut self, page: &str, now: OffsetDateTime) -> Option<Authorization> {
        self.pages.take(page, now)
    }

    /// An authorization code.
    pub(super) fn code(
        &mut self,
        wanted: Authorization,
        person: Person,
        now: OffsetDateTime,
    ) -> Result<Secret<String>> {
        let code = random()?;
        let grant = self.grant(person, wanted.asked.clone(), wanted.nonce.clone(), now);
        // Remembered beyond its life, so that a second use is noticed.
        let until = now + REFRESH_LIFE;
        let entry = Code { authorization: wanted, grant, used: false };
        self.codes.put(code.expose(), entry, until, now)?;
        Ok(code)
    }

    /// Redeems an authorization code. `fits` checks what else must match; a code
    /// counts as used even where it does not. A second use ends all that came from
    /// the first (RFC 6749 section 4.1.2).
    pub(super) fn redeem(
        &mut self,
        code: &str,
        fits: impl FnOnce(&Authorization) -> bool,
        now: OffsetDateTime,
    ) -> Option<Grant> {
        let entry = self.codes.get(code, now)?;
        let family = entry.grant.family;
        if std::mem::replace(&mut entry.used, true) {
            self.dead.insert(family);
            return None;
        }
        let fresh = now < entry.grant.at + CODE_LIFE;
        (fresh && fits(&entry.authorization)).then(|| entry.grant.clone())
    }

    /// A refresh token.
    pub(super) fn refresh_token(
        &mut self,
        grant: &Grant,
        now: OffsetDateTime,
    ) -> Result<Secret<String>> {
        let token = random()?;
        let entry = Refresh { grant: Grant { nonce: None, ..grant.clone() }, used: false };
        self.refresh.put(token.expose(), entry, now + REFRESH_LIFE, now)?;
        Ok(token)
    }

    /// Uses a refresh token up. A second use ends the whole family: somebody else
    /// has it too (RFC 9700 section 4.14.2).
    pub(super) fn rotate(&mut self, token: &str, now: OffsetDateTime) -> Option<Grant> {
        let entry = self.refresh.get(token, now)?;
        let grant = entry.grant.clone();
        if std::mem::replace(&mut entry.used, true) {
            self.dead.insert(grant.family);
        }
        (!self.dead.contains(&grant.family)).then_some(grant)
    }

    /// Ends all that a refresh token belongs to (RFC 7009).
    pub(super) fn revoke(&mut self, token: &str, now: OffsetDateTime) {
        if let Some(entry) = self.refresh.get(token, now) {
            let family = entry.grant.family;
            self.dead.insert(family);
        }
    }

    /// A device code, and the code that a person types for it.
    pub(super) fn device(
        &mut self,
        asked: Asked,
        interval: i64,
        now: OffsetDateTime,
    ) -> Result<(Secret<String>, String)> {
        let code = random()?;
        let user_code = self.new_user_code()?;
        let device = Device {
            user_code: user_code.clone(),
            asked,
            interval,
            last_asked: None,
            answer: None,
        };
        self.devices.put(code.expose(), device, now + PATIENCE, now)?;
        Ok((code, user_code))
    }

    fn new_user_code(&self) -> Result<String> {
        loop {
            let mut letters = Vec::with_capacity(8);
            while letters.len() < 8 {
                let mut byte = [0];
                fill(&mut byte)?;
                // 240 is the greatest multiple of 20 in a byte: no letter is likelier.
                if byte[0] < 240 {
                    letters.extend(USER_CODE_LETTERS.get(usize::from(byte[0] % 20)));
                }
            }
            let (left, right) = letters.split_at(4);
            let code = [left, b"-", right].concat();
            let code = String::from_utf8_lossy(&code).into_owned();
            if !self.devices.0.values().any(|entry| entry.value.user_code == code) {
                return Ok(code);
            }
        }
    }

    /// What the device with this user code asks for, while it waits for an answer.
    pub(super) fn waiting(&mut self, user_code: &str, now: OffsetDateTime) -> Option<Asked> {
        let asked = self.find_device(user_code, now).map(|device| device.asked.clone());
        if asked.is_none() {
            self.guesses += 1;
            if self.guesses >= MAX_GUESSES {
                self.guesses = 0;
                self.devices.0.clear();
            }
        }
        asked
    }

    fn find_device(&mut self, user_code: &str, now: OffsetDateTime) -> Option<&mut Device> {
        let wanted = normalized(user_code);
        self.devices
            .0
            .values_mut()
            .filter(|entry| now < entry.until && entry.value.answer.is_none())
            .map(|entry| &mut entry.value)
            .find(|device| normalized(&device.user_code) == wanted)
    }

    /// Answers a device: with whom it acts for, or that it may not. False where
    /// none waits for this code.
    pub(super) fn answer_device(
        &mut self,
        user_code: &str,
        answer: Result<Person, Denied>,
        now: OffsetDateTime,
    ) -> bool {
        let Some(asked) = self.find_device(user_code, now).map(|device| device.asked.clone())
        else {
            return false;
        };
        let answer = answer.map(|person| self.grant(person, asked, None, now));
        match self.find_device(user_code, now) {
            Some(device) => {
                device.answer = Some(answer);
                true
            }
            None => false,
        }
    }

    /// A device asks whether its person has answered.
    pub(super) fn poll(&mut self, code: &str, now: OffsetDateTime) -> Option<Poll> {
        let entry = self.devices.0.get_mut(&handle(code))?;
        if now >= entry.until {
            self.devices.0.remove(&handle(code));
            return Some(Poll::Expired);
        }
        let device = &mut entry.value;
        let last = device.last_asked.replace(now);
        if last.is_some_and(|last| now - last < Duration::seconds(device.interval)) {
            device.interval += SLOW_DOWN;
            return Some(Poll::SlowDown);
        }
        let answer = device.answer.take();
        match answer {
            None => Some(Poll::Pending),
            Some(answer) => {
                // Its code counts once.
                self.devices.0.remove(&handle(code));
                Some(answer.map_or(Poll::Denied, Poll::Granted))
            }
        }
    }
}

/// A user code as somebody may type it: in any case, with or without its dash.
fn normalized(user_code: &str) -> String {
    user_code.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_uppercase()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);

    fn person() -> Person {
        Person { login: "alice".into(), name: "Alice".into(), groups: Vec::new() }
    }

    fn authorization() -> Authorization {
        Authorization {
            redirect_uri: Url::parse("http://127.0.0.1:1/cb").unwrap(),
            state: None,
            nonce: Some("n".into()),
            challenge: String::new(),
            asked: Asked::default(),
        }
    }

    #[test]
    fn a_code_is_good_once_and_for_a_minute() {
        let mut grants = Grants::default();
        let code = grants.code(authorization(), person(), NOW).unwrap();
        let late = NOW + Duration::seconds(60);
        let other = grants.code(authorization(), person(), NOW).unwrap();
        assert!(grants.redeem(other.expose(), |_| true, late).is_none());
        let grant = grants.redeem(code.expose(), |_| true, NOW).unwrap();
        assert_eq!(grant.nonce.as_deref(), Some("n"));
        let refresh = grants.refresh_token(&grant, NOW).unwrap();
        assert!(grants.redeem(code.expose(), |_| true, NOW).is_none());
        assert!(grants.rotate(refresh.expose(), NOW).is_none(), "the second use ended it");
    }

    #[test]
    fn a_code_that_did_not_fit_is_used_up() {
        let mut grants = Grants::default();
        let code = grants.code(authorization(), person(), NOW).unwrap();
        assert!(grants.redeem(code.expose(), |_| false, NOW).is_none());
        assert!(grants.redeem(code.expose(), |_| true, NOW).is_none());
    }

    #[test]
    fn a_refresh_token_used_twice_ends_its_family_and_no_other() {
        let mut grants = Grants::default();
        let [a, b] = [(); 2].map(|()| {
            let code = grants.code(authorization(), person(), NOW).unwrap();
            grants.redeem(code.expose(), |_| true, NOW).unwrap()
        });
        let first = grants.refresh_token(&a, NOW).unwrap();
        let others = grants.refresh_token(&b, NOW).unwrap();
        let grant = grants.rotate(first.expose(), NOW).unwrap();
        let second = grants.refresh_token(&grant, NOW).unwrap();
        assert!(grants.rotate(first.expose(), NOW).is_none());
        assert!(grants.rotate(second.expose(), NOW).is_none());
        assert!(grants.rotate(others.expose(), NOW).is_some());
    }

    #[test]
    fn a_device_that_asks_too_often_is_slowed_down() {
        let mut grants = Grants::default();
        let (code, user_code) = grants.device(Asked::default(), INTERVAL, NOW).unwrap();
        let poll = |grants: &mut Grants, at: i64| {
            grants.poll(code.expose(), NOW + Duration::seconds(at)).unwrap()
        };
        assert!(matches!(poll(&mut grants, 0), Poll::Pending));
        assert!(matches!(poll(&mut grants, 5), Poll::Pending));
        assert!(matches!(poll(&mut grants, 9), Poll::SlowDown));
        assert!(matches!(poll(&mut grants, 18), Poll::SlowDown), "now it is ten seconds");
        let typed = user_code.to_lowercase().replace('-', " ");
        assert!(grants.waiting(&typed, NOW).is_some());
        assert!(grants.answer_device(&typed, Ok(person()), NOW));
        assert!(matches!(poll(&mut grants, 33), Poll::Granted(_)));
        assert!(
            grants.poll(code.expose(), NOW + Duration::seconds(60)).is_none(),
            "it counts once"
        );
    }

    #[test]
    fn a_device_code_ends() {
        let mut grants = Grants::default();
        let (code, user_code) = grants.device(Asked::default(), INTERVAL, NOW).unwrap();
        let late = NOW + PATIENCE;
        assert!(!grants.answer_device(&user_code, Ok(person()), late));
        assert!(matches!(grants.poll(code.expose(), late), Some(Poll::Expired)));
        assert!(grants.poll("unknown", NOW).is_none());
    }

    #[test]
    fn user_codes_cannot_be_guessed_for_ever() {
        let mut grants = Grants::default();
        let (_, user_code) = grants.device(Asked::default(), INTERVAL, NOW).unwrap();
        assert!(user_code.len() == 9 && user_code.is_ascii());
        for _ in 0..MAX_GUESSES {
            assert!(grants.waiting("BBBB-BBBB", NOW).is_none());
        }
        assert!(grants.waiting(&user_code, NOW).is_none());
    }
}
