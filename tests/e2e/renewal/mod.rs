//! Renewal: credentials of a few seconds, in the hands of programs that run for longer.

mod aws;
mod tokens;
