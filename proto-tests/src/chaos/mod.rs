//! Chaos: real servers that fail in every way they know, and checkers that work through fusewire all the while.
//!
//! | module | what it is |
//! |---|---|
//! | [`judge`] | what is counted, and every promise that was found broken |
//! | [`random`] | reproducible choices |
//! | [`history`] | what Redis clients have been told, and what a server may therefore hold |
//! | [`redis_checker`] | clients that write and read numbered values: pipelines, MULTI, WATCH, databases, users |
//! | [`postgres_checker`] | clients that transfer money: serialisable and read committed, prepared, pipelined, COPY |
//! | [`bank`] | two Postgres servers that can fail over |
//! | [`pair`] | two Redis servers that can fail over |
//! | [`island`] | a Redis behind a network that can be cut |
//! | [`sample`] | what fusewire takes of its machine, at one moment |
//! | [`stage`] | the servers, fusewire and the checkers together |
//! | [`faults`] | what happens to the servers |
//!
//! What makes the checks sharp: a Redis client never uses a key on two connections. On one connection requests run in
//! order, so each reply is known to the byte; and of a connection that ended the server holds what was acknowledged, or
//! one of the few writes after it, whenever that is looked at.

pub mod bank;
pub mod faults;
pub mod history;
pub mod island;
pub mod judge;
pub mod pair;
pub mod postgres_checker;
pub mod random;
pub mod redis_checker;
pub mod sample;
pub mod stage;
