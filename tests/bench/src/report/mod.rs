//! Figures as JSON lines, as a table, and as tables and plots of the documents.

mod docs;
mod json;
mod plot;
#[cfg(test)]
pub(crate) mod samples;
mod stages;
mod table;

pub(crate) use docs::replaced;
pub use docs::update;
pub use json::lines;
pub use stages::{Account, update_stages};
pub use table::table;
