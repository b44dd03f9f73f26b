//! A sink that takes rows and forgets them: what a job costs without its output.

use arrow::array::{Int8Array, RecordBatch};

use super::{Sink, SinkEncoder, SinkRows, SinkWriter};
use crate::error::Result;

/// `'connector' = 'blackhole'`.
pub struct BlackholeSink;

struct Forget;

impl Sink for BlackholeSink {
    fn encoder(&self) -> Result<Box<dyn SinkEncoder>> {
        Ok(Box::new(Forget))
    }

    fn writer(&self) -> Result<Box<dyn SinkWriter>> {
        Ok(Box::new(Forget))
    }
}

impl SinkEncoder for Forget {
    fn encode(&mut self, batch: &RecordBatch, _: Option<&Int8Array>) -> Result<SinkRows> {
        Ok(SinkRows::Batch(batch.clone()))
    }
}

impl SinkWriter for Forget {
    fn write(&mut self, _: SinkRows) -> Result<()> {
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}
