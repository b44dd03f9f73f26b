//! Logging to standard error.
//!
//! A warning is a line for people (`warning: orders: the broker at .. cannot be reached; waiting`); with -v or
//! `RUST_LOG` lines say when and where too. Whatever is logged may quote records or a broker's answers, so every line is
//! escaped.

use std::fmt;
use std::io::{self, Write};

use tidemill::sql::diagnostics::escape;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use super::screen;

/// What is never said.
const BINDINGS_NOISE: &str = "rdkafka::consumer::base_consumer=off";

/// Starts logging, for the whole program.
pub fn start(verbose: u8, is_quiet: bool) {
    let asked = std::env::var("RUST_LOG").ok().filter(|v| !v.trim().is_empty());
    let default = match (is_quiet, verbose) {
        (true, _) => "error",
        (_, 0) => "warn,tidemill=info",
        (_, 1) => "warn,tidemill=debug",
        _ => "info,tidemill=trace,librdkafka=trace",
    };
    let filter = EnvFilter::builder().parse_lossy(asked.as_deref().unwrap_or(default));
    // The bindings call it an error that a consumer was closed before it went.
    let filter = BINDINGS_NOISE.parse().into_iter().fold(filter, EnvFilter::add_directive);
    let is_plain = asked.is_none() && verbose == 0;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).with_writer(Stderr);
    if is_plain {
        builder.event_format(Plain).init();
    } else {
        builder.compact().init();
    }
}

/// `warning: message`.
struct Plain;

impl<S, N> FormatEvent<S, N> for Plain
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let word = match *event.metadata().level() {
            Level::ERROR => "error",
            Level::WARN => "warning",
            _ => "note",
        };
        let mut fields = Fields::default();
        event.record(&mut fields);
        writeln!(out, "{word}: {}{}", fields.message, fields.others)
    }
}

/// An event's fields, the message apart.
#[derive(Default)]
struct Fields {
    message: String,
    others: String,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        } else {
            self.others.push_str(&format!(" {}={value:?}", field.name()));
        }
    }
}

/// Standard error, one escaped line per event.
struct Stderr;

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Self
    }
}

impl Write for Stderr {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = escape(text.trim_end_matches('\n'));
        screen::say(&line);
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
