//! What a row of a verdict table says of the backend.

use crate::breaker::{Code, Verdict};

/// A verdict without its cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The backend works; the error is the client's own.
    Success,
    /// The backend failed.
    Failure,
    /// Says nothing about the backend.
    Ignored,
}

impl Class {
    /// The word for listings.
    pub fn label(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Ignored => "ignored",
        }
    }

    /// The verdict on an error that a row with this code decides.
    pub fn verdict(self, code: &Code) -> Verdict {
        match self {
            Self::Success => Verdict::Success,
            Self::Failure => Verdict::Failure(code.clone().into()),
            Self::Ignored => Verdict::Ignored,
        }
    }
}
