//! Aggregates per window.
//!
//! Rows become partials keyed by slice, first open window and keys ([`Rows`]). With one worker they go straight into the
//! panes of a [`WindowAggregate`]; with several, each worker's [`PartialAggregate`] collects them up to the next boundary
//! and ships partials to the workers that own the keys, whose [`WindowAggregate`]s merge them.

mod partial;
pub(super) mod results;
pub(super) mod rows;
mod window;

use crate::error::{Error, Result};
use crate::plan::AggregateNode;
use crate::time::SlicedWindows;

pub use partial::{PartialAggregate, PartialSchema};
pub use window::WindowAggregate;

/// The windows of an aggregate as its panes have them. Where rows belong to one window each, that is one slice, named by
/// its end.
fn sliced_windows(node: &AggregateNode) -> Result<SlicedWindows> {
    match node.windows.sliced() {
        _ if node.assigned => Ok(SlicedWindows::hop_ms(1, 1, 0)),
        Some(windows) => Ok(windows),
        None => Err(Error::bug("sessions have no slices")),
    }
}
