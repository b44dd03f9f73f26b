//! Statements about jobs: which there are, how one is, what its operators do, and its end.

use super::{Engine, Outcome, Rows, done};
use crate::catalog::options::nearest;
use crate::error::{Error, Result};
use crate::runtime::describe::{COLUMNS, describe, row};
use crate::runtime::{Job, JobStatus};

impl Engine {
    pub(super) fn show_jobs(&self) -> Result<Outcome> {
        let rows = self.jobs().iter().map(|job| row(&job.info())).collect();
        Ok(Outcome::Rows(Rows::of_text(&COLUMNS, rows)?))
    }

    pub(super) fn describe_job(&self, name: Option<&str>) -> Result<Outcome> {
        Ok(Outcome::Text(describe(&self.find_job(name, false)?.info())))
    }

    pub(super) fn explain_job(&self, name: Option<&str>) -> Result<Outcome> {
        let job = self.find_job(name, false)?;
        let Some(text) = job.analyze() else {
            return Err(Error::statement(format!("job {} runs as a batch, and counts no operators", job.name()))
                .hint("EXPLAIN shows its plan"));
        };
        Ok(Outcome::Text(text))
    }

    pub(super) fn stop_job(&self, name: &str, drain: bool) -> Result<Outcome> {
        let job = self.find_job(Some(name), true)?;
        if drain {
            job.drain();
        } else {
            job.stop();
        }
        job.wait()?;
        let name = job.name();
        done(match job.status() {
            JobStatus::Finished if drain => {
                format!("job {name} is drained; its windows have closed, and all rows are written")
            }
            _ => format!("job {name} is stopped; what had fired is written"),
        })
    }

    /// A job by its name, or by the beginning of it, if that is enough; without a name the only one. One that runs goes
    /// before those that have ended, of which the latest counts.
    fn find_job(&self, name: Option<&str>, running: bool) -> Result<Job> {
        let mut jobs = self.jobs();
        jobs.reverse();
        let (open, ended): (Vec<Job>, Vec<Job>) = jobs.into_iter().partition(|job| !job.status().has_ended());
        let groups = if running { vec![open] } else { vec![open, ended] };
        let Some(name) = name else {
            return match groups.iter().find(|group| !group.is_empty()).map(Vec::as_slice) {
                Some([job]) => Ok(job.clone()),
                Some(several) => Err(Error::statement(format!("there are several jobs: {}", names(several.iter())))
                    .hint("write JOB and the name of one")),
                None => Err(Error::statement("there is no job").hint("INSERT INTO .. SELECT starts one")),
            };
        };
        let find = |is: &dyn Fn(&Job) -> bool| {
            let found = groups.iter().map(|group| group.iter().filter(|job| is(job)).cloned().collect::<Vec<_>>());
            found.into_iter().find(|found| !found.is_empty()).unwrap_or_default()
        };
        if let Some(job) = find(&|job| job.name() == name).first() {
            return Ok(job.clone());
        }
        let mut beginning = find(&|job| job.name().starts_with(name));
        beginning.dedup_by(|a, b| a.name() == b.name());
        match beginning.as_slice() {
            [job] => Ok(job.clone()),
            [_, ..] => Err(Error::statement(format!("several jobs begin with {name}: {}", names(beginning.iter())))),
            [] => {
                let what = if running { "no job named {} is running" } else { "there is no job named {}" };
                let error = Error::statement(what.replace("{}", name));
                let all = self.jobs();
                Err(match nearest(name, all.iter().map(Job::name)) {
                    Some(near) if near != name => error.hint(format!("did you mean {near}?")),
                    _ => error.hint("SHOW JOBS lists the jobs"),
                })
            }
        }
    }
}

fn names<'a>(jobs: impl Iterator<Item = &'a Job>) -> String {
    jobs.map(Job::name).collect::<Vec<_>>().join(", ")
}
