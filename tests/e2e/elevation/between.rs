//! What stands between somebody and a broker, and keeps answers back or loses them: what no real
//! peer does at a moment that a test chooses.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use super::super::support::home::Home;

/// How long anything may take that it waits for.
const LIMIT: Duration = Duration::from_secs(60);

/// A request that came by.
#[derive(Clone, Debug)]
pub(super) struct Passed {
    /// Its first line.
    pub(super) line: String,
    /// What it shows.
    pub(super) authorization: Option<String>,
}

/// What becomes of the answers to some requests.
#[derive(Clone, Debug)]
enum Fate {
    /// They are lost, so many times.
    Lost(String, usize),
    /// They wait until somebody lets them go.
    Kept(String),
}

#[derive(Debug, Default)]
struct State {
    passed: Vec<Passed>,
    fate: Option<Fate>,
    /// How many answers have been kept back.
    kept: usize,
}

/// It listens for as long as the tests run.
#[derive(Clone)]
pub(super) struct Between {
    url: String,
    shared: Arc<(Mutex<State>, Condvar)>,
}

impl Between {
    /// Begins to stand before this broker.
    pub(super) fn start(broker: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let between = Self { url, shared: Arc::default() };
        let (own, broker) = (between.clone(), broker.trim_start_matches("http://").to_string());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (own, broker) = (own.clone(), broker.clone());
                // Whoever goes away is waited for no more.
                std::thread::spawn(move || own.pass(stream, &broker));
            }
        });
        between
    }

    /// Has somebody ask the broker by it.
    pub(super) fn before(&self, home: &Home, broker: &str) {
        let path = home.path(".config/tmpcred/config.toml");
        let config = std::fs::read_to_string(path).unwrap();
        let own = format!("url = \"{}\"\nissuer = \"{broker}\"", self.url);
        let changed = config.replace(&format!("url = \"{broker}\""), &own);
        assert_ne!(changed, config);
        home.config(&changed);
    }

    /// Loses so many answers to requests whose first line has this in it.
    pub(super) fn lose(&self, part: &str, times: usize) {
        self.change(|state| state.fate = Some(Fate::Lost(part.into(), times)));
    }

    /// Keeps them back.
    pub(super) fn keep(&self, part: &str) {
        self.change(|state| {
            state.fate = Some(Fate::Kept(part.into()));
            state.kept = 0;
        });
    }

    /// Waits until one has been kept back: whatever was asked for is done.
    #[track_caller]
    pub(super) fn wait_for_kept(&self) {
        let (state, changed) = &*self.shared;
        let waits = |state: &mut State| state.kept == 0;
        let waited = changed.wait_timeout_while(state.lock().unwrap(), LIMIT, waits).unwrap();
        assert!(!waited.1.timed_out(), "nothing came by");
    }

    /// Lets go what it has kept, and all that comes.
    pub(super) fn let_go(&self) {
        self.change(|state| state.fate = None);
    }

    /// What came by with this in its first line.
    pub(super) fn passed(&self, part: &str) -> Vec<Passed> {
        let state = self.shared.0.lock().unwrap();
        state.passed.iter().filter(|one| one.line.contains(part)).cloned().collect()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.shared.0.lock().unwrap());
        self.shared.1.notify_all();
    }

    /// One request and its answer.
    fn pass(&self, mut client: TcpStream, broker: &str) -> Option<()> {
        client.set_read_timeout(Some(LIMIT)).ok()?;
        let (head, body) = request(&mut client)?;
        let line = head.lines().next()?.to_string();
        let shown = head.lines().filter_map(|line| line.split_once(": "));
        let mut shown = shown.filter(|(name, _)| name.eq_ignore_ascii_case("authorization"));
        let authorization = shown.next().map(|(_, value)| value.to_string());
        self.change(|state| state.passed.push(Passed { line: line.clone(), authorization }));
        // One request on each connection, so that its answer ends with it.
        let head = head.replacen("\r\n", "\r\nConnection: close\r\n", 1);
        let mut server = TcpStream::connect(broker).ok()?;
        server.set_read_timeout(Some(LIMIT)).ok()?;
        server.write_all(&[head.as_bytes(), &body].concat()).ok()?;
        let mut answer = Vec::new();
        server.read_to_end(&mut answer).ok()?;
        if self.is_lost(&line) {
            return None;
        }
        client.write_all(&answer).ok()
    }

    fn is_lost(&self, line: &str) -> bool {
        let (shared, changed) = &*self.shared;
        let mut state = shared.lock().unwrap();
        match &mut state.fate {
            Some(Fate::Lost(part, times)) if line.contains(&*part) && *times > 0 => {
                *times -= 1;
                true
            }
            Some(Fate::Kept(part)) if line.contains(&*part) => {
                state.kept += 1;
                changed.notify_all();
                let waits = |state: &mut State| state.fate.is_some();
                drop(changed.wait_timeout_while(state, LIMIT, waits).unwrap());
                false
            }
            _ => false,
        }
    }
}

/// Reads a request: its head, with the empty line, and its body.
fn request(client: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut some = [0; 4096];
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8(bytes[..end + 4].to_vec()).ok()?;
            let fields = head.lines().filter_map(|line| line.split_once(": "));
            let mut lengths =
                fields.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
            let length =
                lengths.next().map_or(Some(0), |(_, value)| value.parse::<usize>().ok())?;
            if bytes.len() >= end + 4 + length {
                return Some((head, bytes.split_off(end + 4)));
            }
        }
        let read = client.read(&mut some).ok().filter(|read| *read > 0)?;
        bytes.extend(&some[..read]);
    }
}
