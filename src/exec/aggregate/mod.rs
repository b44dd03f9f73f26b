//! Aggregates per window.
//!
//! Rows become partials keyed by slice, first open window and keys ([`Rows`]). With one worker they go straight into
//! the panes of a [`WindowAggregate`]; with several, each worker's [`PartialAggregate`] collects them up to the next
//! boundary and ships partials to the workers that own the keys, whose [`WindowAggregate`]s merge them. Where windows
//! are sessions, a [`SessionAggregate`] stands in its place.

mod changes;
mod partial;
pub(super) mod results;
pub(super) mod rows;
mod sessions;
mod window;

use crate::plan::AggregateNode;
use crate::time::{SlicedWindows, WindowShape};

pub use partial::{PartialAggregate, PartialSchema};
pub use sessions::SessionAggregate;
pub use window::WindowAggregate;

/// The windows of an aggregate as its panes have them. Where rows belong to one window each, that is one slice, named
/// by its end. The slices of sessions are as long as the gap.
fn sliced_windows(node: &AggregateNode) -> SlicedWindows {
    match node.windows.shape {
        _ if node.assigned => SlicedWindows::hop_ms(1, 1, 0),
        WindowShape::Sliced(windows) => windows,
        WindowShape::Session { gap_ms } => SlicedWindows::hop_ms(gap_ms, gap_ms, 0),
    }
}
