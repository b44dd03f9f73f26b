//! Statement and catalog to a checked stream plan.

pub mod functions;
