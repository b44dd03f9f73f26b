//! The command line as it is written: names, help, and nothing decided yet.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::Duration;

use clap::{ArgAction, ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use tidemill::connectors::kafka;
use tidemill::sql::diagnostics::escape_lines;

static VERSION: LazyLock<String> = LazyLock::new(|| {
    let own = env!("CARGO_PKG_VERSION");
    let librdkafka = kafka::client_version();
    format!("{own} (DataFusion {}, librdkafka {librdkafka})", datafusion::DATAFUSION_VERSION)
});

const LONG_ABOUT: &str = "\
Continuous SQL over Kafka, as one process.

Tables are topics. A SELECT shows rows as they come; an INSERT INTO .. SELECT runs until its input ends or you stop \
it, and writes its rows to a topic that any Kafka client can read. The language is Flink SQL's.

Without a command a shell opens (or a script is read from standard input, if that is no terminal). With no broker \
named anywhere, the shell and -c use one inside this process, so that nothing needs to be installed to try things out.";

const AFTER_HELP: &str = "\
Try `tidemill --help` for examples, `tidemill demo` for something to look at.";

const AFTER_LONG_HELP: &str = "\
Examples:
  tidemill                                A shell; `help;` says what there is
  tidemill demo                           Something to look at
  tidemill -c \"SELECT 1 + 1\"              One statement or several
  tidemill -b localhost:9092 run jobs.sql A file; its jobs run until Ctrl-C
  tidemill check jobs.sql                 Mistakes and plans, without running anything
  tidemill test tests/*.sql               Tests of queries; nothing else is needed
  tidemill -b localhost:9092 -o csv -c \"SELECT * FROM t LIMIT 10\" > t.csv
  tidemill -b host:9093 -X security.protocol=SASL_SSL -X sasl.mechanism=PLAIN ..

A first session, with nothing installed:
  CREATE TABLE greetings (who STRING) WITH ('connector' = 'kafka',
    'topic' = 'greetings', 'format' = 'json',
    'scan.startup.mode' = 'earliest-offset');
  INSERT INTO greetings VALUES ('world'), ('mill');
  SELECT who FROM greetings LIMIT 2;

Environment:
  TIDEMILL_BROKERS   Bootstrap servers, if there is no -b.
  KAFKA_BROKERS      The same, if TIDEMILL_BROKERS is not set.
  TIDEMILL_PROFILE   The profile, if there is no --profile.
  RUST_LOG           What is logged, such as `tidemill=debug`; before -v and -q.
  NO_COLOR           No colours.

Exit codes:
  0    well
  1    a mistake in a statement
  2    a mistake in how the program was called
  3    the broker cannot be reached, or lacks something
  4    a job failed on its data
  124  ended by --timeout
  130  ended by Ctrl-C, after jobs were stopped cleanly; 143 by SIGTERM";

/// What can be written on the command line.
#[derive(Debug, Parser)]
#[command(
    name = "tidemill",
    version = VERSION.as_str(),
    about = "Continuous SQL over Kafka, as one process",
    long_about = LONG_ABOUT,
    after_help = AFTER_HELP,
    after_long_help = AFTER_LONG_HELP,
    args_conflicts_with_subcommands = false,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub struct Arguments {
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Execute these statements and end; several may be separated by `;`, and -c may be given several times
    ///
    /// A query's rows go to standard output. INSERTs run beside the statements that follow; at the end the program waits
    /// for them. The first error ends everything.
    #[arg(short = 'c', long = "command", value_name = "SQL")]
    statements: Vec<String>,

    /// Execute the statements of a file, as `run` does
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,

    #[command(flatten)]
    pub common: Common,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Execute the statements of files, and wait for the jobs that they start
    ///
    /// INSERTs run beside the statements that follow. After the last statement the program waits: jobs over bounded
    /// sources end by themselves, others run until Ctrl-C or SIGTERM, which let them write what they have. The first
    /// error ends everything.
    Run {
        /// Files of statements, executed in this order as one session; `-` is standard input, and a folder stands for
        /// its files that end in .sql, by their names
        #[arg(required = true, value_name = "FILE|FOLDER")]
        files: Vec<PathBuf>,
    },
    /// Look at statements without running them: every mistake, and the plan of every job
    ///
    /// Tables and views are declared as in a run. Nothing is read but samples of topics whose columns are not declared,
    /// and nothing is written. Plans go to standard output; with a mistake the exit code is 1.
    Check {
        /// Files of statements, read in this order as one session; `-` is standard input, a folder its .sql files
        #[arg(required = true, value_name = "FILE|FOLDER")]
        files: Vec<PathBuf>,
    },
    /// Run tests of queries: SQL files with records, and with the rows that are expected of them
    ///
    /// Needs no broker: tables are logs in memory, and the clock stands still until the test moves it. Each test is run
    /// several times, with other numbers of workers and other batches, which must make no difference.
    Test {
        /// Files of tests; `-` is standard input
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,

        /// Rewrite what is expected to what was found, and leave the rest of the files as it is
        #[arg(long)]
        update: bool,

        /// Beside one worker, run with so many
        #[arg(long, value_name = "N", default_value_t = 3, value_parser = workers)]
        workers: usize,
    },
    /// Explain the code of an error, such as TM0301; without one, list all
    ExplainError {
        /// The code, as it stands behind an error
        #[arg(value_name = "CODE")]
        code: Option<String>,
    },
    /// Show the configuration: flags, environment, profile and file together; secrets are masked
    Config {
        /// Show where each value comes from, too
        #[arg(long)]
        origin: bool,
    },
    /// Check what jobs need: the broker, TLS, the login, permissions, transactions, the disk, the clock
    Doctor,
    /// Print the completion of a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages into a folder
    Man {
        /// The folder
        folder: PathBuf,
    },
    /// Show what this is for: real flights through a topic, a windowed query and an output topic
    ///
    /// Needs nothing installed. With -b it uses your broker, and creates topics there.
    Demo,
}

/// What every command understands.
#[derive(Args, Debug)]
pub struct Common {
    /// Kafka's bootstrap servers, for tables that name none; `embedded` is a broker inside this process
    ///
    /// [env: TIDEMILL_BROKERS, then KAFKA_BROKERS]
    #[arg(short, long, global = true, value_name = "HOST:PORT,..")]
    pub brokers: Option<String>,

    /// A profile of the configuration file [env: TIDEMILL_PROFILE]
    #[arg(long, global = true, value_name = "NAME")]
    pub profile: Option<String>,

    /// The configuration file [env: TIDEMILL_CONFIG] [default: ~/.config/tidemill/config.toml]
    #[arg(long = "config", global = true, value_name = "FILE")]
    pub config_file: Option<PathBuf>,

    /// A property for all Kafka clients, by librdkafka's name, such as `security.protocol=SSL`
    #[arg(short = 'X', long = "property", global = true, value_name = "KEY=VALUE")]
    pub properties: Vec<String>,

    /// A value for `${NAME}` in statements; may be given several times
    #[arg(long = "var", global = true, value_name = "NAME=VALUE")]
    pub variables: Vec<String>,

    /// Show so many rows of each result, and end its query then
    #[arg(long, global = true, value_name = "ROWS")]
    pub limit: Option<u64>,

    /// End everything cleanly after this time, such as `30 s` or `5 min`, with exit code 124
    #[arg(long, global = true, value_name = "TIME", value_parser = time)]
    pub timeout: Option<Duration>,

    /// End queries and jobs when they have read what topics held when they began
    #[arg(long, global = true)]
    pub until_caught_up: bool,

    /// Write errors to standard error as JSON objects, one per line
    #[arg(long, global = true)]
    pub json_errors: bool,

    /// How rows are written to standard output [default: table on a terminal, otherwise jsonl]
    #[arg(short, long, global = true, value_enum, value_name = "FORM")]
    pub output: Option<Form>,

    /// Log more to standard error: what jobs do; twice, what Kafka's client does too
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,

    /// Say only what is wrong
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
}

/// A number of workers.
fn workers(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(workers) if (1..=256).contains(&workers) => Ok(workers),
        _ => Err("expected a whole number from 1 to 256".to_owned()),
    }
}

/// A length of time, as settings write it.
fn time(text: &str) -> Result<Duration, String> {
    match tidemill::catalog::options::parse_duration(text) {
        Some(time) if !time.is_zero() => Ok(time),
        _ => Err("expected a time such as '30 s' or '5 min'".to_owned()),
    }
}

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// Columns for people
    Table,
    /// A line per value, for wide rows
    Vertical,
    /// One JSON object per row and line
    #[value(alias = "ndjson")]
    Jsonl,
    /// One JSON array of objects per result
    Json,
    /// Comma-separated values with a header
    Csv,
    /// Tab-separated values with a header
    Tsv,
    /// A table as Markdown writes it
    #[value(alias = "md")]
    Markdown,
}

impl Form {
    /// The form that a setting names: one of ours, or Flink's word for a table.
    pub fn named(name: &str) -> Option<Self> {
        let is_flinks = ["tableau", "changelog"].iter().any(|word| name.eq_ignore_ascii_case(word));
        if is_flinks { Some(Self::Table) } else { Self::from_str(name, true).ok() }
    }
}

/// A text to execute: written out, or in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// The text itself.
    Text(String),
    /// The file that holds it; `-` is standard input.
    File(PathBuf),
}

impl Arguments {
    /// Reads the program's arguments; with a mistake in them, or if they ask for help, says so and ends the program.
    pub fn read() -> (Self, Vec<Piece>) {
        Self::from(std::env::args_os()).unwrap_or_else(|error| {
            let text = error.render().to_string();
            let safe = escape_lines(&text);
            if !error.use_stderr() || safe == text {
                error.exit();
            }
            // It quotes what was typed, or what somebody else's script has put together.
            eprint!("{safe}");
            std::process::exit(error.exit_code())
        })
    }

    fn from(arguments: impl IntoIterator<Item = OsString>) -> Result<(Self, Vec<Piece>), clap::Error> {
        let matches = Self::command().try_get_matches_from(arguments)?;
        let arguments = Self::from_arg_matches(&matches)?;
        let pieces = arguments.pieces(&matches);
        Ok((arguments, pieces))
    }

    /// What -c and -f name, in the order in which they were written.
    fn pieces(&self, matches: &ArgMatches) -> Vec<Piece> {
        let at = |id: &str| matches.indices_of(id).into_iter().flatten();
        let texts = at("statements").zip(self.statements.iter().cloned().map(Piece::Text));
        let files = at("files").zip(self.files.iter().cloned().map(Piece::File));
        let mut pieces: Vec<_> = texts.chain(files).collect();
        pieces.sort_by_key(|(at, _)| *at);
        pieces.into_iter().map(|(_, piece)| piece).collect()
    }
}
