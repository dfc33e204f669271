//! The log for programs: one JSON object a line, of the same events as the one for people, and
//! of panics, which are told to people otherwise.
//!
//! What a request is, such as its id, is a field of each line about it, not of something
//! around it: whoever searches for a request need not know how deep it stands.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::io::Write as _;
use std::panic::PanicHookInfo;

use serde::Serialize;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use crate::error::printable_json;

/// Writes panics as such lines from now on.
pub(super) fn tell_of_panics() {
    std::panic::set_hook(Box::new(|panic| tell(&Panic::of(panic))));
}

/// What there is to tell of a panic.
#[derive(Serialize)]
struct Panic {
    #[serde(rename = "panic")]
    said: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thread: Option<String>,
    /// Where `RUST_BACKTRACE` asks for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    backtrace: Option<String>,
}

impl Panic {
    const MESSAGE: &str = "a thread panicked";

    fn of(panic: &PanicHookInfo<'_>) -> Self {
        let backtrace = Backtrace::capture();
        let captured = backtrace.status() == BacktraceStatus::Captured;
        Self {
            said: panic.payload_as_str().unwrap_or("(no text)").into(),
            place: panic.location().map(ToString::to_string),
            thread: std::thread::current().name().map(String::from),
            backtrace: captured.then(|| backtrace.to_string()),
        }
    }
}

fn tell(panic: &Panic) {
    let Panic { said, place, thread, backtrace } = panic;
    if tracing::enabled!(Level::ERROR) {
        let (place, thread) = (place.as_deref(), thread.as_deref());
        let backtrace = backtrace.as_deref();
        return tracing::error!(panic = said, place, thread, backtrace, "{}", Panic::MESSAGE);
    }
    // The filter leaves it out, or what panicked was the log itself: it is told all the same.
    let mut time = String::new();
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    let Ok(Value::Object(fields)) = serde_json::to_value(panic) else { return };
    let (level, target) = (Level::ERROR.as_str(), module_path!());
    let line = Line { time: &time, level, message: Panic::MESSAGE.into(), target, fields };
    if let Ok(line) = serde_json::to_string(&line) {
        let _ = writeln!(std::io::stderr(), "{}", printable_json(&line));
    }
}

/// Writes events as such lines.
pub(super) struct Lines;

/// A line. Nothing that an event says of itself can take the place of these four.
#[derive(Serialize)]
struct Line<'a> {
    /// RFC 3339.
    time: &'a str,
    level: &'a str,
    message: String,
    target: &'a str,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

const RESERVED: [&str; 3] = ["time", "level", "target"];

impl<S> FormatEvent<S, JsonFields> for Lines
where
    S: Subscriber + for<'lookup> LookupSpan<'lookup>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut time = String::new();
        SystemTime.format_time(&mut Writer::new(&mut time))?;
        let mut fields = Map::new();
        for span in context.event_scope().into_iter().flat_map(|scope| scope.from_root()) {
            let extensions = span.extensions();
            let said = extensions.get::<FormattedFields<JsonFields>>();
            let said = said.and_then(|said| serde_json::from_str(&said.fields).ok());
            fields.extend(said.unwrap_or_else(Map::new));
        }
        event.record(&mut Fields(&mut fields));
        for name in RESERVED {
            if let Some(value) = fields.remove(name) {
                fields.insert(format!("event_{name}"), value);
            }
        }
        // Some libraries say nothing but what the fields say.
        let message = match fields.remove("message") {
            Some(Value::String(message)) => message,
            other => other.map_or_else(String::new, |other| other.to_string()),
        };
        let line = Line {
            time: &time,
            level: event.metadata().level().as_str(),
            message,
            target: event.metadata().target(),
            fields,
        };
        let line = serde_json::to_string(&line).map_err(|_| fmt::Error)?;
        writeln!(writer, "{}", printable_json(&line))
    }
}

/// Takes down what an event says.
struct Fields<'a>(&'a mut Map<String, Value>);

impl Fields<'_> {
    fn add(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().into(), value.into());
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, value);
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use serde_json::json;
    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Kept(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Kept {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    /// The lines of what is logged meanwhile, without their times.
    fn logged(work: impl FnOnce()) -> Vec<Value> {
        let kept = Kept::default();
        let subscriber = tracing_subscriber::fmt()
            .fmt_fields(JsonFields::new())
            .event_format(Lines)
            .with_writer(kept.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, work);
        let text = String::from_utf8(kept.0.lock().unwrap().clone()).unwrap();
        let parse = |line: &str| {
            let mut line: Value = serde_json::from_str(line).unwrap();
            let time = line.as_object_mut().unwrap().remove("time").unwrap();
            let format = &time::format_description::well_known::Rfc3339;
            time::OffsetDateTime::parse(time.as_str().unwrap(), format).unwrap();
            line
        };
        text.lines().map(parse).collect()
    }

    #[test]
    fn what_is_said_of_a_request_is_in_each_line_about_it() {
        let lines = logged(|| {
            let none: Option<u64> = None;
            let outer = tracing::info_span!("request", request_id = "r-1", trace_id = none);
            let _outer = outer.enter();
            outer.record("trace_id", 7);
            let _inner = tracing::info_span!("step", route = "/token").entered();
            tracing::warn!(status = 400, slow = true, "refused:\n\"{}\"", "x\u{1b}");
        });
        assert_eq!(
            lines,
            [json!({
                "level": "WARN", "target": "tmpcred::telemetry::json::tests",
                "message": "refused:\n\"x\u{1b}\"", "status": 400, "slow": true,
                "request_id": "r-1", "trace_id": 7, "route": "/token",
            })]
        );
    }

    #[test]
    fn a_line_without_a_message_has_an_empty_one() {
        let lines = logged(|| tracing::info!(rows = 1));
        assert_eq!((&lines[0]["message"], &lines[0]["rows"]), (&json!(""), &json!(1)));
    }

    #[test]
    fn a_panic_is_a_line_with_the_request_that_it_is_about() {
        let lines = logged(|| {
            let before = std::panic::take_hook();
            tell_of_panics();
            let _request = tracing::info_span!("request", request_id = "r-1").entered();
            let ended = std::panic::catch_unwind(|| panic!("\"of {}\"\nlines", 2));
            std::panic::set_hook(before);
            assert!(ended.is_err());
        });
        let [line] = &lines[..] else { panic!("{lines:?}") };
        assert_eq!((&line["level"], &line["request_id"]), (&json!("ERROR"), &json!("r-1")));
        assert_eq!(line["message"], "a thread panicked");
        assert_eq!(line["panic"], "\"of 2\"\nlines");
        assert!(line["place"].as_str().unwrap().contains("json.rs:"), "{line}");
    }

    #[test]
    fn nothing_takes_the_place_of_what_each_line_has() {
        let lines = logged(|| {
            tracing::info!(time = "never", level = 1, target = "nobody", request_id = "x", "said");
        });
        let line = &lines[0];
        assert_eq!(line["message"], "said");
        assert_eq!((&line["level"], &line["event_level"]), (&json!("INFO"), &json!(1)));
        assert_eq!(line["event_time"], "never");
        assert_eq!(line["event_target"], "nobody");
    }
}
