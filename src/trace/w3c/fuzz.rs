//! Where somebody says that their work stands in a trace.

use super::*;
use crate::fuzz::{
    Fate::{Accepted, Refused},
    halves, hold,
};

const PARENTS: [&str; 3] = [
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03-what comes",
    " 00-00000000000000000000000000000001-0000000000000001-00\t",
];
const STATES: [&str; 3] =
    ["rojo=00f067aa0ba902b7,congo=t61rcWkgMzE", "tenant@system= a b\nother=~!", "a=1,,b=2 ,\t,a=3"];

#[test]
fn trace_context() {
    let seeds = PARENTS.iter().zip(STATES).map(|(parent, state)| format!("{parent}\n{state}"));
    hold("trace_context", seeds.map(String::into_bytes), |input| {
        let (parent, states) = halves(input);
        let Ok(parent) = HeaderValue::from_bytes(parent) else { return Refused };
        let mut headers = HeaderMap::new();
        headers.insert(PARENT, parent);
        for state in states.split(|byte| *byte == b'\n').take(100) {
            headers.extend(HeaderValue::from_bytes(state).ok().map(|state| (STATE, state)));
        }
        let Some(read) = from_headers(&headers) else { return Refused };
        assert!(read.is_valid() && read.is_remote());
        assert_eq!(trace_id(&read.trace_id().to_string()), Some(read.trace_id()));
        // What is handed on is text that everybody reads alike.
        let (parent, state) = (written(&read), read.trace_state().header());
        assert!(state.len() <= LONGEST_STATE && state.split(',').count() <= MOST_MEMBERS);
        assert!(state.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{state:?}");
        let again = from_variables(&parent, Some(&state)).unwrap();
        assert_eq!(again, read);
        assert_eq!(written(&again), parent);
        // Whoever says two things has said nothing.
        headers.append(PARENT, HeaderValue::from_str(&parent).unwrap());
        assert_eq!(from_headers(&headers), None);
        Accepted
    });
}
