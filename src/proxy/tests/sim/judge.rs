//! The shadow model's books: what each client asked for and was told, what ran at the server, and whether the two
//! can both be true.

use std::collections::{BTreeMap, BTreeSet};

/// In what state of its session a request was sent, or ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Context {
    /// The database or the setting that was chosen last.
    pub(super) place: u64,
    /// The user.
    pub(super) user: u64,
    /// Inside a transaction.
    pub(super) block: bool,
}

/// What the client was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    /// Nothing, or that nobody knows.
    Nothing,
    /// That it was not carried out.
    Refused,
    /// Its result.
    Done,
}

#[derive(Debug)]
struct Asked {
    context: Context,
    told: Told,
    /// Requests that run together or not at all.
    block: Option<u64>,
}

#[derive(Debug, Default)]
pub(super) struct Judge {
    asked: BTreeMap<u64, Asked>,
    ran: BTreeMap<u64, Vec<Context>>,
    /// Transactions that must not run, whatever becomes of their parts.
    forbidden: BTreeSet<u64>,
    objections: Vec<String>,
    next: u64,
}

impl Judge {
    /// A number that nobody has.
    pub(super) fn token(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(super) fn asks(&mut self, token: u64, context: Context, block: Option<u64>) {
        self.asked.insert(token, Asked { context, told: Told::Nothing, block });
    }

    pub(super) fn runs(&mut self, token: u64, context: Context) {
        self.ran.entry(token).or_default().push(context);
    }

    pub(super) fn told_refused(&mut self, token: u64) {
        self.told(token, Told::Refused);
    }

    pub(super) fn told_done(&mut self, token: u64) {
        self.told(token, Told::Done);
    }

    fn told(&mut self, token: u64, told: Told) {
        if let Some(asked) = self.asked.get_mut(&token) {
            asked.told = told;
        }
    }

    /// Nothing of this transaction may run.
    pub(super) fn forbid(&mut self, block: u64) {
        self.forbidden.insert(block);
    }

    pub(super) fn object(&mut self, what: String) {
        self.objections.push(what);
    }

    pub(super) fn requests(&self) -> u64 {
        self.asked.len() as u64
    }

    pub(super) fn refused(&self) -> u64 {
        self.asked.values().filter(|asked| asked.told == Told::Refused).count() as u64
    }

    pub(super) fn unknown(&self) -> u64 {
        self.asked.values().filter(|asked| asked.told == Told::Nothing).count() as u64
    }

    /// Compares the books.
    pub(super) fn verdict(&mut self) -> Result<(), String> {
        let mut objections = std::mem::take(&mut self.objections);
        let mut blocks: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        for (token, asked) in &self.asked {
            let ran = self.ran.get(token).map_or(&[][..], Vec::as_slice);
            let problem = match (asked.told, ran) {
                (_, [_, _, ..]) => Some("ran twice"),
                (Told::Refused, [_]) => Some("ran though its client was told that it would not"),
                (Told::Done, []) => Some("never ran though its client got a result"),
                (_, [context]) if *context != asked.context => Some("ran in another state of its session"),
                _ => None,
            };
            if let Some(problem) = problem {
                objections.push(format!("request {token} {problem}: {asked:?}, {ran:?}"));
            }
            if let Some(block) = asked.block {
                let (parts, done) = blocks.entry(block).or_default();
                *parts += 1;
                *done += u64::from(!ran.is_empty());
            }
        }
        for (block, (parts, done)) in blocks {
            if done != 0 && done != parts {
                objections.push(format!("transaction {block}: {done} of {parts} parts ran"));
            }
            if done != 0 && self.forbidden.contains(&block) {
                objections
                    .push(format!("transaction {block} ran though its client was told that it would not"));
            }
        }
        for token in self.ran.keys().filter(|token| !self.asked.contains_key(token)) {
            objections.push(format!("request {token} ran though nobody asked for it"));
        }
        if objections.is_empty() { Ok(()) } else { Err(objections.join("\n")) }
    }
}
