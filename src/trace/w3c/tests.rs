use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

use super::*;
use crate::trace::{Place, Sampling, Tracer, step};

const TRACE: &str = "12345678901234567890123456789012";

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let name = |name: &str| HeaderName::from_bytes(name.as_bytes()).unwrap();
    let mut headers = HeaderMap::new();
    for (one, value) in pairs {
        headers.append(name(one), HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn parent(text: &str) -> Option<SpanContext> {
    from_headers(&headers(&[("traceparent", text)]))
}

/// What is sent in each test of <https://github.com/w3c/trace-context>, at
/// `acab820be9db7b3433668baa5cdd43f57f4c4be0`, and whether the trace goes on.
#[test]
fn a_trace_goes_on_where_the_tests_of_w3c_want_it_to() {
    for good in [
        "00-12345678901234567890123456789012-1234567890123456-01",
        "00-12345678901234567890123456789012-1234567890123456-00",
        // traceparent_ows_handling
        " 00-12345678901234567890123456789012-1234567890123456-01",
        "\t00-12345678901234567890123456789012-1234567890123456-01",
        "00-12345678901234567890123456789012-1234567890123456-01 ",
        "00-12345678901234567890123456789012-1234567890123456-01\t",
        "\t 00-12345678901234567890123456789012-1234567890123456-01 \t",
        // version_0xcc
        "cc-12345678901234567890123456789012-1234567890123456-01",
        "cc-12345678901234567890123456789012-1234567890123456-01-what-the-future-will-be-like",
    ] {
        assert_eq!(parent(good).unwrap().trace_id().to_string(), TRACE, "{good:?}");
    }
    for bad in [
        "",
        // version_0x00
        "00-12345678901234567890123456789012-1234567890123456-01.",
        "00-12345678901234567890123456789012-1234567890123456-01-what-the-future-will-be-like",
        "00-12345678901234567890123456789012-1234567890123456-01-",
        "cc-12345678901234567890123456789012-1234567890123456-01.what-the-future-will-be-like",
        // version_0xff
        "ff-12345678901234567890123456789012-1234567890123456-01",
        // version_illegal_characters, too_long, too_short
        ".0-12345678901234567890123456789012-1234567890123456-01",
        "0.-12345678901234567890123456789012-1234567890123456-01",
        "000-12345678901234567890123456789012-1234567890123456-01",
        "0000-12345678901234567890123456789012-1234567890123456-01",
        "0-12345678901234567890123456789012-1234567890123456-01",
        // trace_id_all_zero, illegal_characters, too_long, too_short
        "00-00000000000000000000000000000000-1234567890123456-01",
        "00-.2345678901234567890123456789012-1234567890123456-01",
        "00-1234567890123456789012345678901.-1234567890123456-01",
        "00-123456789012345678901234567890123-1234567890123456-01",
        "00-1234567890123456789012345678901-1234567890123456-01",
        // parent_id_all_zero, illegal_characters, too_long, too_short
        "00-12345678901234567890123456789012-0000000000000000-01",
        "00-12345678901234567890123456789012-.234567890123456-01",
        "00-12345678901234567890123456789012-123456789012345.-01",
        "00-12345678901234567890123456789012-12345678901234567-01",
        "00-12345678901234567890123456789012-123456789012345-01",
        // trace_flags_illegal_characters, too_long, too_short
        "00-12345678901234567890123456789012-1234567890123456-.0",
        "00-12345678901234567890123456789012-1234567890123456-0.",
        "00-12345678901234567890123456789012-1234567890123456-001",
        "00-12345678901234567890123456789012-1234567890123456-1",
        // Such as a lenient parser of numbers would take.
        "00-12345678901234567890123456789012-1234567890123456-+1",
        "00-1234567890123456789012345678901A-1234567890123456-01",
        "0A-12345678901234567890123456789012-1234567890123456-01",
        "00_12345678901234567890123456789012_1234567890123456_01",
    ] {
        assert!(parent(bad).is_none(), "{bad:?}");
    }
    let one = "00-12345678901234567890123456789012-1234567890123456-01";
    for name in ["traceparent", "TraceParent", "TrAcEpArEnT", "TRACEPARENT"] {
        assert!(from_headers(&headers(&[(name, one)])).is_some(), "{name}");
    }
    for pairs in [
        &[("traceparent", one), ("traceparent", one)][..],
        &[("trace-parent", one)],
        &[("trace.parent", one)],
        &[("tracestate", "foo=1")],
        &[],
    ] {
        assert!(from_headers(&headers(pairs)).is_none(), "{pairs:?}");
    }
}

#[test]
fn a_state_that_cannot_be_read_leaves_the_trace_as_it_is() {
    let state = |states: &[&str]| {
        let one = ("traceparent", "00-12345678901234567890123456789012-1234567890123456-00");
        let states = states.iter().map(|state| ("tracestate", *state));
        let pairs: Vec<_> = [one].into_iter().chain(states).collect();
        let read = from_headers(&headers(&pairs)).unwrap();
        assert_eq!(read.trace_id().to_string(), TRACE);
        read.trace_state().header()
    };
    let (key, vendor) = ("z".repeat(256), format!("{}@{}", "t".repeat(241), "v".repeat(13)));
    let many = |count| (1..=count).map(|n| format!("bar{n:02}={n}")).collect::<Vec<_>>().join(",");
    let all = " !\"#$%&'()*+-./0123456789:;<>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~";
    let all = format!("abcdefghijklmnopqrstuvwxyz0123456789_-*/={all}");
    let many_good = many(32);
    for (good, read) in [
        (&["foo=1"][..], "foo=1"),
        (&["foo=1,bar=2"], "foo=1,bar=2"),
        (&["foo=1,bar=2", "rojo=1,congo=2", "baz=3"], "foo=1,bar=2,rojo=1,congo=2,baz=3"),
        (&["foo=1 \t , \t bar=2, \t baz=3"], "foo=1,bar=2,baz=3"),
        (&["foo=1\t \t,\t \tbar=2,\t \tbaz=3"], "foo=1,bar=2,baz=3"),
        (&["foo=1 \t"], "foo=1"),
        (&["foo=1", ""], "foo=1"),
        (&["", "foo=1"], "foo=1"),
        (&["foo=1,foo=2"], "foo=1,foo=2"),
        (&[&all], &all),
        (&[&many_good], &many_good),
    ] {
        assert_eq!(state(good), read);
    }
    assert_eq!(state(&["foo=1", &format!("{key}=1")]), format!("foo=1,{key}=1"));
    assert_eq!(state(&["foo=1", &format!("{vendor}=1")]), format!("foo=1,{vendor}=1"));
    let long = format!("{}=1", "z".repeat(257));
    let huge = vec![format!("{}=1", "z".repeat(250)); 9].join(",");
    for bad in [
        "",
        "foo",
        "foo =1",
        "FOO=1",
        "foo.bar=1",
        "@foo=1,bar=2",
        "foo=",
        "foo=1=2",
        "foo=b\u{e9}r",
        &many(33),
        &long,
        &huge,
    ] {
        assert_eq!(state(&[bad]), "", "{bad:?}");
    }
}

#[test]
fn what_is_told_is_where_the_work_is() {
    let told = |step: &crate::trace::Step| {
        step.within(|| {
            let mut headers = HeaderMap::new();
            tell(&mut headers);
            let text =
                |name| headers.get(name).map(|v: &HeaderValue| v.to_str().unwrap().to_string());
            (text("traceparent"), text("tracestate"))
        })
    };
    let came =
        || from_variables("00-12345678901234567890123456789012-1234567890123456-01", Some("foo=1"));
    // One that makes no spans passes on what it came with, as it is.
    let run = Tracer::default().run("run".into(), came());
    let same = "00-12345678901234567890123456789012-1234567890123456-01";
    assert_eq!(told(&run), (Some(same.into()), Some("foo=1".into())));
    assert_eq!(told(&Tracer::default().run("run".into(), None)), (None, None));
    // A server that does not trace tells nobody; its log and its records have the trace.
    let answer = Tracer::default().answer(|| "GET".into(), came());
    assert_eq!((told(&answer), answer.id().unwrap().to_string()), ((None, None), TRACE.into()));
    let own = Tracer::default().answer(|| "GET".into(), None);
    assert_ne!(own.id(), Tracer::default().answer(|| "GET".into(), None).id());
    assert!(own.id().is_some());
    // One that traces is a part of it.
    let (tracer, mut spans) = Tracer::new(Sampling::Ratio(0.0));
    let answer = tracer.answer(|| "GET".into(), came());
    let (parent, state) = told(&answer);
    let parent = parent.unwrap();
    assert!(parent.starts_with(&format!("00-{TRACE}-")) && parent.ends_with("-01"), "{parent}");
    assert_ne!(parent, same);
    assert_eq!(state.as_deref(), Some("foo=1"));
    // Elsewhere it is a part of the same, by the place that was taken along.
    let place = answer.within(Place::here);
    std::thread::spawn(move || place.within(|| drop(step("elsewhere")))).join().unwrap();
    drop(step("nobody asked for it"));
    drop(answer);
    let ended = spans.at_hand(9);
    let names: Vec<_> = ended.iter().map(|span| span.name.as_ref()).collect();
    assert_eq!(names, ["elsewhere", "GET"]);
    assert_eq!(ended[0].parent_span_id, ended[1].span_context.span_id());
    assert_eq!(ended[1].parent_span_id.to_string(), "1234567890123456");
    // What came with a trace that is not kept is not kept, whatever is kept here.
    let (tracer, mut spans) = Tracer::new(Sampling::Ratio(1.0));
    let unkept = from_variables("00-12345678901234567890123456789012-1234567890123456-00", None);
    let answer = tracer.answer(|| "GET".into(), unkept);
    assert!(told(&answer).0.unwrap().ends_with("-00"));
    drop(answer);
    drop(tracer.answer(|| "GET".into(), None));
    assert_eq!(spans.at_hand(9).len(), 1);
}

#[test]
fn who_has_no_room_for_a_span_counts_it() {
    let (tracer, mut spans) = Tracer::new(Sampling::Ratio(1.0));
    for _ in 0..3000 {
        drop(tracer.begin("something"));
    }
    assert_eq!(spans.at_hand(usize::MAX).len(), 2048);
    assert_eq!(spans.counts().all(), [0, 952, 0]);
}
