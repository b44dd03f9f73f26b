//! Text to statements.
//!
//! A text is cut into statements on tokens ([`source`]), each is parsed on its own ([`parser`], [`ddl`], [`types`],
//! [`interval`] over `sqlparser` with our [`dialect`]; [`unfinished`] tells what is missing), and the result is data ([`statement`]). Nothing here knows what
//! exists: names are checked against the catalog by whoever executes the statement. Errors point into the text;
//! [`diagnostics`] shows them.

mod cursor;
mod ddl;
pub mod diagnostics;
pub mod dialect;
mod interval;
pub mod parser;
pub mod pieces;
pub mod query_test;
pub mod show;
mod source;
pub mod statement;
pub mod types;
mod unfinished;

pub use dialect::{FlinkDialect, table_marker};
pub use parser::{Script, parse_expr, parse_script};
pub use source::{is_complete, split};
