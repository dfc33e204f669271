//! Where regular expressions of a configuration are open, as patterns of policies are with `*`.

use regex_syntax::hir::literal::Extractor;
use regex_syntax::hir::{Class, Hir, HirKind};

use super::patterns::goes_on;
use crate::broker::config::Pattern;

/// So many letters more or less are room for whatever somebody likes.
const MANY: u32 = 16;

/// What a regular expression is made of.
pub(super) struct Shape {
    hir: Hir,
}

/// What of a text matters.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Matters {
    /// All of it.
    All,
    /// What nobody sees any more: it is around the parentheses.
    Unseen,
}

impl Shape {
    /// Nothing where the expression is none, which the configuration has seen to.
    pub(super) fn of(pattern: &Pattern) -> Option<Self> {
        Some(Self { hir: regex_syntax::parse(pattern.as_str()).ok()? })
    }

    /// Whether it takes anything, or nearly.
    pub(super) fn takes_anything(&self) -> bool {
        takes_anything(&self.hir)
    }

    /// Whether a text can begin with anything.
    pub(super) fn begins_with_anything(&self, matters: Matters) -> bool {
        self.can(matters) && begins_open(&self.hir, matters)
    }

    /// Whether a name can go on where it ends.
    pub(super) fn ends_amid_a_name(&self, matters: Matters) -> bool {
        self.can(matters) && ends_open(&self.hir, matters, false)
    }

    /// All that is like it begins with one of these, as far as that can be told.
    pub(super) fn beginnings(&self) -> Vec<String> {
        let found = Extractor::new().extract(&self.hir);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        found.literals().into_iter().flatten().map(|one| text(one.as_bytes())).collect()
    }

    /// Without parentheses all of a text is seen.
    fn can(&self, matters: Matters) -> bool {
        matters == Matters::All || self.hir.properties().explicit_captures_len() > 0
    }
}

fn takes_anything(hir: &Hir) -> bool {
    match hir.kind() {
        HirKind::Capture(capture) => takes_anything(&capture.sub),
        HirKind::Alternation(branches) => branches.iter().any(takes_anything),
        HirKind::Concat(parts) => {
            let is_no_hurdle =
                |part: &Hir| takes_anything(part) || can_be_empty(part) || is_any(part, is_blank);
            parts.iter().any(takes_anything) && parts.iter().all(is_no_hurdle)
        }
        _ => is_open(hir, is_blank),
    }
}

fn begins_open(hir: &Hir, matters: Matters) -> bool {
    match hir.kind() {
        HirKind::Capture(capture) => matters == Matters::All && begins_open(&capture.sub, matters),
        HirKind::Alternation(branches) => {
            branches.iter().any(|branch| begins_open(branch, matters))
        }
        HirKind::Concat(parts) => {
            for part in parts {
                if begins_open(part, matters) {
                    return true;
                }
                if !can_be_empty(part) && !is_any(part, is_blank) {
                    return false;
                }
            }
            false
        }
        HirKind::Repetition(repetition) => {
            is_open(hir, is_blank) || begins_open(&repetition.sub, matters)
        }
        _ => false,
    }
}

/// `amid`: whether what comes before it may be a name that goes on.
fn ends_open(hir: &Hir, matters: Matters, amid: bool) -> bool {
    match hir.kind() {
        HirKind::Capture(capture) => {
            matters == Matters::All && ends_open(&capture.sub, matters, amid)
        }
        HirKind::Alternation(branches) => {
            branches.iter().any(|branch| ends_open(branch, matters, amid))
        }
        HirKind::Concat(parts) => {
            for (at, part) in parts.iter().enumerate().rev() {
                let before = parts.get(..at).unwrap_or_default();
                if ends_open(part, matters, leaves_a_name(before, amid)) {
                    return true;
                }
                if !says_nothing(part) {
                    return false;
                }
            }
            false
        }
        HirKind::Repetition(repetition) => {
            if is_open(hir, ends_a_name) {
                amid
            } else {
                ends_open(&repetition.sub, matters, amid)
            }
        }
        _ => false,
    }
}

/// Whether a name may be the last of these, or of what comes before them.
fn leaves_a_name(parts: &[Hir], before: bool) -> bool {
    for part in parts.iter().rev() {
        if is_name_at_its_end(part) {
            return true;
        }
        if !says_nothing(part) {
            return false;
        }
    }
    before
}

fn is_name_at_its_end(hir: &Hir) -> bool {
    match hir.kind() {
        HirKind::Literal(literal) => String::from_utf8_lossy(&literal.0).ends_with(goes_on),
        HirKind::Class(Class::Unicode(class)) => {
            let mut ranges = class.ranges().iter();
            !is_any(hir, ends_a_name)
                && ranges.any(|range| (range.start()..=range.end()).any(goes_on))
        }
        HirKind::Repetition(repetition) => is_name_at_its_end(&repetition.sub),
        HirKind::Capture(capture) => is_name_at_its_end(&capture.sub),
        HirKind::Alternation(branches) => branches.iter().any(is_name_at_its_end),
        HirKind::Concat(parts) => leaves_a_name(parts, false),
        _ => false,
    }
}

/// Whether what a text has before it, or after it, may as well stand in its place.
fn says_nothing(hir: &Hir) -> bool {
    can_be_empty(hir) || is_any(hir, ends_a_name) || is_open(hir, ends_a_name)
}

/// `.*` and the like, with any letters but those that are left out.
fn is_open(hir: &Hir, left_out: fn(char) -> bool) -> bool {
    match hir.kind() {
        HirKind::Capture(capture) => is_open(&capture.sub, left_out),
        HirKind::Repetition(repetition) => {
            let is_long = repetition.max.is_none_or(|max| max - repetition.min >= MANY);
            is_long && is_any(&repetition.sub, left_out) || is_open(&repetition.sub, left_out)
        }
        _ => false,
    }
}

/// `.` and the like.
fn is_any(hir: &Hir, left_out: fn(char) -> bool) -> bool {
    match hir.kind() {
        HirKind::Capture(capture) => is_any(&capture.sub, left_out),
        HirKind::Alternation(branches) => branches.iter().any(|branch| is_any(branch, left_out)),
        HirKind::Class(Class::Unicode(class)) => {
            let mut rest = class.clone();
            rest.negate();
            rest.ranges().iter().all(|range| (range.start()..=range.end()).all(left_out))
        }
        _ => false,
    }
}

fn can_be_empty(hir: &Hir) -> bool {
    hir.properties().minimum_len() == Some(0)
}

fn is_blank(c: char) -> bool {
    c.is_whitespace() || c.is_control()
}

fn ends_a_name(c: char) -> bool {
    !goes_on(c)
}
