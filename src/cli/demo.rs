//! `tidemill demo`.

use tidemill::error::{Error, Result};

/// Runs the demonstration, on these servers or on a broker inside this process.
pub fn run(_brokers: Option<&str>) -> Result<()> {
    Err(Error::usage("the demonstration is not part of this build"))
}
