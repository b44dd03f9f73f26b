//! A job's log as the job sees it: who it was, and what it commits.
//!
//! Taking a job up fences whoever had it, before anything is read. Then the log decides: a job that is new begins, one
//! that was left is taken up where it was, one that had finished begins again. Each process that takes a job up has a
//! number, its incarnation, by which one that has been fenced learns whether somebody younger has the job.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::checkpoints::{Checkpoints, Complete};
use super::events::ClockEvents;
use super::failpoint;
use super::identity::{Identity, Verdict};
use super::metrics::{Counters, JobMetrics, ReadCounts};
use super::progress::{Author, Beginning, History, Position, Recorded, Restored, Start, history, last_author};
use super::session::Restore;
use super::shared::Reached;
use super::state::StoredState;
use crate::connectors::{CancelToken, Defaults, JobLog, LogPlace, PartitionPlan, Source};
use crate::error::{Error, Result};
use crate::exec::{Boundary, End, Extent};
use crate::plan::NodeId;
use crate::state::{ChunkReader, Piece, Spill};
use crate::time::WATERMARK_MIN;

/// How long somebody younger may take from fencing us to saying so. Where a test has no threads, nobody can.
const SUCCESSOR_WAIT: Duration = if cfg!(test) { Duration::ZERO } else { Duration::from_secs(5) };

/// Between two looks at the log.
const LOOK: Duration = Duration::from_millis(500);

/// How often what somebody else has written is looked at again, if it makes no sense.
const LOOKS: u32 = 3;

/// See the module's head.
pub struct Ledger {
    job: String,
    /// The log's name, for people.
    name: String,
    log: Arc<dyn JobLog>,
    author: Author,
    identity: Identity,
    /// What becomes of what another process has left.
    verdict: Verdict,
    checkpoints: Checkpoints,
    /// Per source, the partitions that are known.
    plans: Vec<Vec<PartitionPlan>>,
    /// What earlier runs had read of each source.
    read_before: Vec<ReadCounts>,
}

impl Ledger {
    /// The ledger of a job over its log, and what there is to go on from. The log has just been taken over. `own` is who
    /// this process was in an earlier attempt, if there was one; it becomes who it is now.
    pub fn open(
        job: &str,
        name: &str,
        log: Arc<dyn JobLog>,
        identity: Identity,
        restore: Restore,
        checkpoint_interval: Duration,
        own: &mut Author,
    ) -> Result<(Self, Option<Restored>)> {
        failpoint::reach("after-fence");
        let records = log.read()?;
        let History { author: before, mut unfinished, .. } = history(name, job, &records)?;
        let is_first = own.incarnation == 0;
        if !is_first {
            check_not_younger(job, *own, &records)?;
            if before == Author::default() {
                return Err(gone(job, name));
            }
        }
        // Nothing is left where there was something: to begin anew would write everything a second time.
        if is_first && restore != Restore::None && records.is_empty() && log.is_cut()? {
            return Err(gone(job, name));
        }
        if is_first && restore == Restore::None && unfinished.take().is_some() {
            tracing::warn!("{job}: it begins anew, and what it had come to is given up: 'execution.restore' is 'none'");
        } else if is_first && unfinished.is_none() && before != Author::default() {
            tracing::info!("{job}: it had finished, and is run again from its start");
        }
        let author = Author {
            generation: before.generation + u64::from(unfinished.is_none()),
            incarnation: before.incarnation + 1,
            process: own.process,
        };
        // Whether the record of it will be in the log is not known before somebody has read it there.
        *own = author;
        let mut verdict = Verdict::default();
        if let Some(restored) = &mut unfinished {
            verdict = identity.judge(&restored.beginning.identity);
            verdict.check(job, restore == Restore::Compatible)?;
            verdict.apply(restored);
            if let Some(told) = verdict.told() {
                tracing::warn!("{job}: {told}");
            }
        }
        let nothing = Beginning::default();
        let from = unfinished.as_ref().map_or(&nothing, |restored| &restored.beginning);
        let plans = from.sources.iter().map(|of| of.iter().map(|start| start.plan.clone()).collect());
        let ledger = Self {
            job: job.to_owned(),
            name: name.to_owned(),
            checkpoints: Checkpoints::new(Arc::clone(&log), checkpoint_interval, from)?,
            log,
            author,
            identity,
            verdict,
            plans: plans.collect(),
            read_before: from.counters.sources.clone(),
        };
        if let Some(restored) = &unfinished {
            ledger.take_up(restored).map_err(|e| ledger.explain(e))?;
        }
        Ok((ledger, unfinished))
    }

    /// Goes on with what another process has left.
    fn take_up(&self, restored: &Restored) -> Result<()> {
        let Self { job, author, .. } = self;
        let (from, last) = (restored.beginning.boundary, restored.last());
        let state = if from == 0 { String::new() } else { format!(", with the state of boundary {from}") };
        tracing::info!("{job}: it goes on from boundary {last}, as process {}{state}", author.incarnation);
        self.log.commit(author.takes_up(job, last)?)?;
        self.renew_if_disturbed(last)
    }

    /// The state at the checkpoint that a job goes on from.
    pub fn read_state(&self, from: &Beginning, to: Option<&Arc<Spill>>) -> Result<StoredState> {
        if from.state.is_empty() {
            return Ok(StoredState::default());
        }
        let mut reader =
            ChunkReader::new(from.state.iter().map(|stored| (stored.boundary, stored.chunks))).spilling(to);
        self.log.read_state(from.state_from, &mut |_, chunk| {
            failpoint::reach("mid-restore");
            reader.take(chunk)
        })?;
        let of_node = |(node, piece): (u32, Piece)| (node as usize, piece);
        let checkpoints = reader.finish()?.into_iter().map(|pieces| pieces.into_iter().map(of_node).collect());
        Ok(self.verdict.keep(StoredState { checkpoints: checkpoints.collect() }))
    }

    /// Records where a new job begins. Nothing may have been read.
    pub fn begin(&mut self, clock_ms: i64, sources: Vec<Vec<PartitionPlan>>) -> Result<()> {
        self.plans.clone_from(&sources);
        let start = |(index, plan): (usize, PartitionPlan)| {
            let position = Position {
                index,
                next_offset: plan.start,
                watermark: WATERMARK_MIN,
                idle: false,
                away: false,
                untouched: true,
                asleep: false,
            };
            Start { plan, position }
        };
        let sources = sources.into_iter().map(|of| of.into_iter().enumerate().map(start).collect()).collect();
        let identity = self.identity.clone();
        let beginning = Beginning { clock_ms, identity, sources, ..Beginning::default() };
        let record = self.author.begins(&self.job, beginning)?;
        self.log.commit(record).and_then(|()| self.renew_if_disturbed(0)).map_err(|e| self.explain(e))?;
        // What an earlier generation has left.
        self.checkpoints.let_go_of_all();
        Ok(())
    }

    /// What operators give out at the boundary that is called now.
    pub fn checkpoint_due(&mut self, now: Instant, end: End) -> Option<Extent> {
        self.checkpoints.due(now, end)
    }

    /// Commits what was written since the last boundary, with the record of this one, and a part of the checkpoint that is
    /// being written.
    pub fn commit(
        &mut self,
        boundary: &Boundary,
        events: &ClockEvents,
        reached: Vec<Reached>,
        state: Vec<(NodeId, Piece)>,
        metrics: &JobMetrics,
        sources: &[Arc<dyn Source>],
    ) -> Result<()> {
        for new in &events.found {
            self.plans[new.source].push(new.plan.clone());
        }
        let complete = self.checkpoint(boundary, &reached, state, metrics).map_err(|e| self.explain(e))?;
        let recorded = Recorded {
            sequence: boundary.sequence,
            clock_ms: boundary.clock_ms,
            positions: reached.into_iter().map(|of| of.positions).collect(),
            events: events.clone(),
            is_finished: boundary.end == End::Finished,
            checkpoint: complete.as_ref().map(|complete| complete.at.clone()),
        };
        let id = |source: usize, index| sources[source].partition_id(index);
        let record = self.author.comes_to(&self.job, &recorded, id)?;
        failpoint::reach("before-commit");
        self.log.commit(record).map_err(|e| self.explain(e))?;
        failpoint::reach("after-commit");
        if boundary.end == End::Finished {
            self.log.finish();
        }
        // First, as what is let go of must be known to be there in another form.
        let is_known = match boundary.end {
            End::GoesOn => self.renew_if_disturbed(boundary.sequence).map(|()| true).map_err(|e| self.explain(e))?,
            _ => !self.log.is_disturbed(),
        };
        if let Some(complete) = complete.filter(|_| is_known) {
            tracing::debug!(
                "{}: the checkpoint of boundary {} is complete after {:?}",
                self.job,
                complete.at.boundary,
                complete.took
            );
            let bytes = complete.at.state.iter().map(|stored| stored.bytes).sum();
            metrics.note_checkpoint(complete.at.boundary, complete.took, bytes);
            self.checkpoints.let_go(complete.before);
        }
        Ok(())
    }

    /// Writes what there is to write of checkpoints; answers the one that is complete with it.
    fn checkpoint(
        &mut self,
        boundary: &Boundary,
        reached: &[Reached],
        state: Vec<(NodeId, Piece)>,
        metrics: &JobMetrics,
    ) -> Result<Option<Complete>> {
        if let Some(extent) = boundary.checkpoint {
            let starts = reached.iter().zip(&self.plans).map(|(of, plans)| {
                let start =
                    |(plan, position): (&PartitionPlan, &Position)| Start { plan: plan.clone(), position: *position };
                plans.iter().zip(&of.positions).map(start).collect()
            });
            let mut read: Vec<ReadCounts> = reached.iter().map(|of| of.counts).collect();
            read.iter_mut().zip(&self.read_before).for_each(|(now, before)| now.add(*before));
            let rows_out = metrics.rows_out.load(Ordering::Relaxed);
            let at = Beginning {
                boundary: boundary.sequence,
                clock_ms: boundary.clock_ms,
                identity: self.identity.clone(),
                sources: starts.collect(),
                state: Vec::new(),
                state_from: 0,
                counters: Counters { sources: read, statements: metrics.counts(), rows_out, given: metrics.given() },
            };
            self.checkpoints.begin(at, extent, state)?;
        }
        self.checkpoints.write(boundary.end)
    }

    /// After a disturbance: a new producer, and a look whether the log is as it should be.
    fn renew_if_disturbed(&self, sequence: u64) -> Result<()> {
        if !self.log.is_disturbed() {
            return Ok(());
        }
        // Somebody younger is not to be fenced. What was committed last may not be visible yet: the broker answers before
        // it has told all partitions. Once there is a new producer, it is.
        check_not_younger(&self.job, self.author, &self.log.read()?)?;
        self.log.renew()?;
        self.check_end(sequence)?;
        tracing::info!("{}: the connection to the broker was disturbed; the job goes on by a new producer", self.job);
        Ok(())
    }

    /// The log has come to this boundary, and we are the last who took it over.
    fn check_end(&self, sequence: u64) -> Result<()> {
        let Self { job, name, log, author, .. } = self;
        let records = log.read()?;
        check_not_younger(job, *author, &records)?;
        let History { author: last, unfinished, .. } = history(name, job, &records)?;
        match unfinished.map(|restored| restored.last()) {
            Some(found) if found == sequence && last == *author => Ok(()),
            found => Err(Error::upstream(format!(
                "the progress of job {job} ends with boundary {found:?} of process {} instead of {sequence} of {}: a commit was \
                 lost on its way",
                last.incarnation, author.incarnation
            ))
            .hint("start the job again: it goes on from its last commit")
            .transient()),
        }
    }

    /// The error that people see. A client that has been fenced does not know by whom: by a younger process, or by the
    /// coordinator, which had waited for too long. The log knows; it is read, and nothing else is done.
    pub fn explain(&self, error: Error) -> Error {
        if !self.log.is_fenced() {
            return error;
        }
        let Self { job, log, author, .. } = self;
        let mut looks = SUCCESSOR_WAIT.as_millis() / LOOK.as_millis();
        loop {
            let checked = log.read().map(|records| check_not_younger(job, *author, &records));
            if let Ok(Err(taken_over)) = checked {
                return taken_over;
            }
            if looks == 0 {
                return Error::upstream(format!(
                    "job {job} may not write any more: its transaction took too long, or another process has its name"
                ))
                .hint(
                    "start it again: it goes on from its last commit; if this comes again and again, the rows of one commit \
                     take longer to write than 'properties.transaction.timeout.ms' of the output table allows (30 s): raise it",
                )
                .transient();
            }
            looks -= 1;
            thread::sleep(LOOK);
        }
    }
}

/// Nobody has written to a log after this one.
pub fn check_not_younger(job: &str, own: Author, records: &[(i64, Vec<u8>)]) -> Result<()> {
    if !own.is_followed_by(last_author(records)) {
        return Ok(());
    }
    Err(Error::upstream(format!("a younger process has taken over job {job}: this one has stopped"))
        .hint("only one process at a time runs a job of one name"))
}

/// What an earlier attempt of this process has written to is not there any more.
fn gone(job: &str, name: &str) -> Error {
    Error::upstream(format!("{name}, which kept the progress of job {job}, is gone or was emptied"))
        .hint(
            "see that nothing deletes its records (retention, for instance); SET 'execution.restore' = 'none' begins anew, and \
             writes again what was written",
        )
}

/// What a job has come to, without taking its log over; `own` is who this process was in an earlier
/// attempt, if there was one.
pub fn look(
    job: &str,
    place: &LogPlace<'_>,
    defaults: &Defaults,
    cancel: CancelToken,
    own: Author,
) -> Result<Option<Restored>> {
    let (mut looks, name) = (LOOKS, place.to_string());
    loop {
        let records = place.look(defaults, cancel.clone())?;
        if own.incarnation != 0 {
            return check_not_younger(job, own, &records.ok_or_else(|| gone(job, &name))?).map(|()| None);
        }
        match history(&name, job, &records.unwrap_or_default()) {
            Ok(History { unfinished, .. }) => return Ok(unfinished),
            Err(error) if looks == 0 => return Err(error),
            // Somebody may be writing: a record may not be seen yet that stands for others which are gone.
            Err(_) => looks -= 1,
        }
        thread::sleep(LOOK);
    }
}
