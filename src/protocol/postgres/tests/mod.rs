//! The session against scripted clients and servers. Every script is played whole, byte by byte, and cut in two at
//! every place; the bytes that leave and the verdicts must be the same.

mod classify;
mod doom;
mod empty;
mod encryption;
mod figures;
mod hostile;
mod life;
mod properties;
mod reject;
mod rig;
mod startup;
mod unfinished;
mod units;
mod verdicts;
mod waiting;
