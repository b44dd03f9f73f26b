//! What exists: tables, views and their options. Pure data; nothing here talks to a broker.

pub mod options;
pub mod secrets;
mod table;

pub use table::{Catalog, Column, ColumnKind, Table, View, Watermark};
