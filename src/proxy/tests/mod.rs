//! The data plane as a whole, in virtual time.

mod sim;
