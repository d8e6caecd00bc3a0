//! Figures: what the data path counts, and how the counts reach Prometheus.
//!
//! The data path never touches a metrics registry. Each worker counts into a [`Tally`] of its own, which costs a
//! few plain stores a batch; a scrape adds the tallies up.

mod family;
mod process;
pub mod publish;
mod tally;
#[cfg(test)]
pub(crate) mod tests;

pub use family::{FAMILIES, Family, Kind};
pub use tally::{Counter, Histogram, Tally, Totals};
