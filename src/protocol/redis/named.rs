//! Commands that the configuration names: the cures, and those without a deadline.
//!
//! Absent on purpose: reading and refusing what was written; that is the configuration's.

use std::sync::Arc;

/// A list of commands.
#[derive(Debug, Default)]
pub(super) struct Named(Vec<Pattern>);

/// One of them, in upper case: `NAME`, `NAME|SUBCOMMAND` or `PREFIX*`.
#[derive(Debug)]
struct Pattern {
    name: Box<[u8]>,
    /// Any name that begins so.
    prefix: bool,
    subcommand: Option<Box<[u8]>>,
}

impl Named {
    /// The list of these patterns.
    pub(super) fn new(patterns: &[Arc<str>]) -> Self {
        Self(patterns.iter().map(|pattern| Pattern::new(pattern)).collect())
    }

    /// Whether it names no command at all.
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this command may be on the list, whatever its first argument.
    pub(super) fn mentions(&self, name: &[u8]) -> bool {
        self.0.iter().any(|pattern| pattern.is_of(name))
    }

    /// Whether it takes the first argument to tell if this command is on the list.
    pub(super) fn depends_on_argument(&self, name: &[u8]) -> bool {
        self.0.iter().any(|pattern| pattern.subcommand.is_some() && pattern.is_of(name))
    }

    /// Whether this command with this first argument is on the list.
    pub(super) fn has(&self, name: &[u8], argument: &[u8]) -> bool {
        self.0.iter().any(|pattern| {
            let asked = pattern.subcommand.as_ref();
            pattern.is_of(name) && asked.is_none_or(|asked| asked.eq_ignore_ascii_case(argument))
        })
    }
}

impl Pattern {
    fn new(text: &str) -> Self {
        let (name, subcommand) = match text.split_once('|') {
            Some((name, subcommand)) => (name, Some(subcommand.as_bytes().into())),
            None => (text, None),
        };
        let plain = name.strip_suffix('*');
        Self { name: plain.unwrap_or(name).as_bytes().into(), prefix: plain.is_some(), subcommand }
    }

    fn is_of(&self, name: &[u8]) -> bool {
        let long_enough =
            if self.prefix { name.len() >= self.name.len() } else { name.len() == self.name.len() };
        long_enough && name.iter().zip(&self.name).all(|(a, b)| a.eq_ignore_ascii_case(b))
    }
}
