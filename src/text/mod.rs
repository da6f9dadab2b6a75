//! Report text: from bytes to reports, and from a report to token ids.
//!
//! Plain data only: it knows neither the text tower nor files.

pub mod keywords;
pub mod labels;
pub mod reports;
pub mod sentences;
mod table;
pub mod tokenizer;

pub use tokenizer::TokenIds;
pub use tokenizer::Tokenizer;
