//! The headers `traceparent` and `tracestate`, and the variables of the same names
//! (W3C Trace Context, levels 1 and 2).
//!
//! What cannot be read is as if it was not there: then a trace begins here. A `tracestate`
//! that cannot be read is left out, and the trace stays.

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};

/// The header that names trace and span.
const PARENT: HeaderName = HeaderName::from_static("traceparent");

/// The header with what tracing systems have to tell one another.
const STATE: HeaderName = HeaderName::from_static("tracestate");

/// The variable that hands [`PARENT`] to a program.
pub const PARENT_VARIABLE: &str = "TRACEPARENT";

/// The variable that hands [`STATE`] to a program.
pub const STATE_VARIABLE: &str = "TRACESTATE";

/// How long a state may be that is handed on, in bytes (section 3.3.1.5 wants 512 at least).
const LONGEST_STATE: usize = 2048;

/// How many members it may have (section 3.3.1.1).
const MOST_MEMBERS: usize = 32;

/// What of `traceparent` every version has: version, trace, span and flags.
const FIXED: usize = 55;

/// Reads what a request came with. Two of `traceparent` are none; several of `tracestate`
/// are one list (section 3.3.1.4).
pub fn from_headers(headers: &HeaderMap) -> Option<SpanContext> {
    let mut parents = headers.get_all(PARENT).iter();
    let (Some(parent), None) = (parents.next(), parents.next()) else { return None };
    let states: Option<Vec<&str>> =
        headers.get_all(STATE).iter().map(|state| state.to_str().ok()).collect();
    read(parent.to_str().ok()?, states.map(|states| states.join(",")).as_deref())
}

/// Reads what a program was started with.
pub fn from_variables(parent: &str, state: Option<&str>) -> Option<SpanContext> {
    read(parent, state)
}

fn read(parent: &str, state: Option<&str>) -> Option<SpanContext> {
    let (trace, span, flags) = parse(parent.trim_matches([' ', '\t']).as_bytes())?;
    let state = state.and_then(parse_state).unwrap_or_default();
    Some(SpanContext::new(trace, span, flags, true, state))
}

/// Section 3.2: lower-case hexadecimal digits at fixed places; of a version to come, what
/// this one has, and whatever follows a dash.
fn parse(text: &[u8]) -> Option<(TraceId, SpanId, TraceFlags)> {
    let (fixed, rest) = text.split_at_checked(FIXED)?;
    let is_hex = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let is_dash = |at: usize| [2, 35, 52].contains(&at);
    let well_formed =
        fixed.iter().enumerate().all(|(at, b)| if is_dash(at) { *b == b'-' } else { is_hex(b) });
    let fixed = std::str::from_utf8(fixed).ok().filter(|_| well_formed)?;
    let (version, rest_fits) = (&fixed[..2], rest.first().is_none_or(|byte| *byte == b'-'));
    if version == "ff" || !rest_fits || (version == "00" && !rest.is_empty()) {
        return None;
    }
    let trace = TraceId::from_hex(&fixed[3..35]).ok().filter(|id| *id != TraceId::INVALID)?;
    let span = SpanId::from_hex(&fixed[36..52]).ok().filter(|id| *id != SpanId::INVALID)?;
    let flags = u8::from_str_radix(&fixed[53..], 16).ok()?;
    // What the others mean nobody here knows, so nobody passes them on (section 3.2.2.5).
    Some((trace, span, TraceFlags::new(flags) & TraceFlags::SAMPLED))
}

/// A trace by its name: 32 lower-case hexadecimal digits, not all of them zero.
pub fn trace_id(text: &str) -> Option<TraceId> {
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let named = text.len() == 32 && text.bytes().all(is_hex);
    let id = named.then(|| TraceId::from_hex(text).ok()).flatten();
    id.filter(|id| *id != TraceId::INVALID)
}

/// Section 3.3.1: members, and not too many. Empty ones count for nothing. That a key is there
/// once is for whoever adds it to see to.
fn parse_state(text: &str) -> Option<TraceState> {
    if text.len() > LONGEST_STATE {
        return None;
    }
    let members = text.split(',').map(|member| member.trim_matches([' ', '\t']));
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    for member in members.filter(|member| !member.is_empty()) {
        let (key, value) = member.split_once('=')?;
        if !is_key(key) || !is_value(value) {
            return None;
        }
        pairs.push((key, value));
    }
    if pairs.len() > MOST_MEMBERS {
        return None;
    }
    TraceState::from_key_value(pairs).ok()
}

/// Section 3.3.1.3.1, with a tenant's name in front of `@` where there is one.
fn is_key(key: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let fits = |text: &str, most: usize| {
        let begins = text.bytes().next().is_some_and(plain);
        let rest = |byte: u8| plain(byte) || matches!(byte, b'_' | b'-' | b'*' | b'/');
        begins && text.len() <= most && text.bytes().all(rest)
    };
    match key.split_once('@') {
        Some((tenant, system)) => fits(tenant, 241) && fits(system, 14),
        None => fits(key, 256),
    }
}

/// Section 3.3.1.3.2. It has no blank at its end: that belongs to the list.
fn is_value(value: &str) -> bool {
    (1..=256).contains(&value.len())
        && value.bytes().all(|b| matches!(b, b' '..=b'~') && !matches!(b, b',' | b'='))
}

/// Tells a server that is asked of the trace that asks it, where there is one to tell of.
pub(crate) fn tell(headers: &mut HeaderMap) {
    let Some(here) = super::here().filter(|_| super::is_told()) else { return };
    let Ok(parent) = HeaderValue::from_str(&written(&here)) else { return };
    headers.insert(PARENT, parent);
    if let Ok(state) = HeaderValue::from_str(&here.trace_state().header())
        && !state.is_empty()
    {
        headers.insert(STATE, state);
    }
}

/// What a program that is started now gets as [`PARENT_VARIABLE`] and, where there is any,
/// as [`STATE_VARIABLE`]; nothing where there is nobody to tell of.
pub fn for_program() -> Option<(String, Option<String>)> {
    let here = super::here().filter(|_| super::is_told())?;
    let state = here.trace_state().header();
    Some((written(&here), (!state.is_empty()).then_some(state)))
}

fn written(context: &SpanContext) -> String {
    let flags = context.trace_flags() & TraceFlags::SAMPLED;
    format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id())
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
