//! Text to statements.

pub mod statement;
