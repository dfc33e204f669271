//! Whom a cached credential is for.

use std::fmt;

use aws_lc_rs::digest;

use super::Principal;
use crate::error::foreign;

/// Whom a cached credential is for, as far as it can be told without asking
/// anybody: a person by their principal; a job by what names it, with or without
/// a principal. Two jobs often have the same principal (a branch, a service
/// account), and must not share a credential all the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    principal: Option<Principal>,
    job: Option<Job>,
}

impl Caller {
    /// A job whose principal only its platform knows.
    pub fn job(job: Job) -> Self {
        Self { principal: None, job: Some(job) }
    }

    /// The same caller, known to be this principal.
    #[must_use]
    pub fn known_as(self, principal: Principal) -> Self {
        Self { principal: Some(principal), ..self }
    }

    /// Whether an assertion about `principal` is about this caller.
    pub fn is(&self, principal: &Principal) -> bool {
        self.principal.as_ref().is_none_or(|known| known == principal)
    }

    /// The principal, where it is known.
    pub fn principal(&self) -> Option<&Principal> {
        self.principal.as_ref()
    }

    /// What tells this job from all others. `None` for people.
    pub fn job_digest(&self) -> Option<&[u8]> {
        self.job.as_ref().map(|job| job.digest.as_slice())
    }
}

impl From<Principal> for Caller {
    fn from(principal: Principal) -> Self {
        Self { principal: Some(principal), job: None }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.principal, &self.job) {
            (Some(principal), Some(job)) => write!(f, "{principal}, {}", job.name),
            (Some(principal), None) => principal.fmt(f),
            (None, Some(job)) => job.name.fmt(f),
            // No constructor makes it.
            (None, None) => f.write_str("nobody"),
        }
    }
}

/// What tells one job or workload from all others. It holds a digest of what it
/// was made of, so secrets that only one job has can be part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    name: String,
    digest: Vec<u8>,
}

impl Job {
    /// A job that people know by `name`, of which nothing is told yet.
    pub fn new(name: &str) -> Self {
        Self { name: foreign(name), digest: Vec::new() }
    }

    /// Adds what is particular to it. Parts count with their names and order.
    #[must_use]
    pub fn with(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let mut context = digest::Context::new(&digest::SHA256);
        for part in [&self.digest, name.as_bytes(), value.as_ref()] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        Self { name: self.name, digest: context.finish().as_ref().to_vec() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_do_not_run_into_each_other_and_show_nothing() {
        let job = |parts: &[(&str, &str)]| {
            parts.iter().fold(Job::new("a job"), |job, (name, value)| job.with(name, value))
        };
        let jobs = [
            job(&[]),
            job(&[("a", "")]),
            job(&[("a", "b")]),
            job(&[("ab", "")]),
            job(&[("a", "b"), ("c", "d")]),
            job(&[("c", "d"), ("a", "b")]),
            job(&[("a", "bcd")]),
        ];
        for (at, one) in jobs.iter().enumerate() {
            assert!(jobs[..at].iter().all(|other| other != one), "{at}");
        }
        assert!(!format!("{:?}", job(&[("token", "hunter2")])).contains("hunter2"));
    }

    #[test]
    fn a_caller_is_who_an_assertion_says_unless_another_is_known() {
        let principal = |subject: &str| Principal {
            issuer: "https://i.example".into(),
            subject: subject.into(),
        };
        let job = Caller::job(Job::new("a job"));
        assert!(job.is(&principal("a")) && job.is(&principal("b")));
        let known = job.known_as(principal("a"));
        assert!(known.is(&principal("a")) && !known.is(&principal("b")));
        assert_eq!(known.to_string(), "a (https://i.example), a job");
        assert!(!Caller::from(principal("a")).is(&principal("b")));
    }
}
