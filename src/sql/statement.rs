//! The statements of the language, as data.

use std::ops::Range;

use sqlparser::ast;

use crate::catalog::Table;

/// A statement with where it stands in the submitted text.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// The statement.
    pub statement: Statement,
    /// Its bytes in the submitted text, without the closing `;`.
    pub span: Range<usize>,
    /// Those bytes.
    pub text: String,
}

/// What people can say.
#[derive(Clone, Debug)]
pub enum Statement {
    /// `CREATE [TEMPORARY] TABLE`.
    CreateTable(CreateTable),
    /// `CREATE [OR REPLACE] [TEMPORARY] VIEW`.
    CreateView(CreateView),
    /// `DROP [TEMPORARY] TABLE | VIEW [IF EXISTS]`.
    Drop {
        /// Table or view.
        kind: ObjectKind,
        /// Its name.
        name: String,
        /// `IF EXISTS`.
        if_exists: bool,
    },
    /// `INSERT INTO .. SELECT` or `VALUES`.
    Insert(Insert),
    /// `EXECUTE STATEMENT SET BEGIN .. END` (also `BEGIN STATEMENT SET; .. END`).
    StatementSet(Vec<Insert>),
    /// A query whose rows go to whoever asked.
    Query(Query),
    /// `EXPLAIN` of an insert, a statement set or a query.
    Explain {
        /// What is explained.
        statement: Box<Statement>,
        /// `EXPLAIN ANALYZE`.
        analyze: bool,
    },
    /// `DESCRIBE name` (or `DESC`).
    Describe(String),
    /// `DESCRIBE JOB [name]`; without a name, the only one.
    DescribeJob(Option<String>),
    /// `EXPLAIN ANALYZE JOB [name]`.
    ExplainJob(Option<String>),
    /// `DESCRIBE TOPIC 'name'`.
    DescribeTopic(String),
    /// `SHOW ..`.
    Show(Show),
    /// `PRINT 'topic' [FROM BEGINNING] [LIMIT n]`.
    Print {
        /// The topic.
        topic: String,
        /// `FROM BEGINNING`.
        from_beginning: bool,
        /// `LIMIT n`.
        limit: Option<usize>,
    },
    /// `STOP JOB name [WITH DRAIN]`.
    StopJob {
        /// The job.
        name: String,
        /// `WITH DRAIN`: windows that are open close first.
        drain: bool,
    },
    /// `SET 'key' = 'value'`, or `SET` alone to list what is set.
    Set(Option<(String, String)>),
    /// `RESET 'key'`, or `RESET` alone for all.
    Reset(Option<String>),
}

/// `CREATE TABLE`.
#[derive(Clone, Debug)]
pub struct CreateTable {
    /// The table; no columns when they come from elsewhere.
    pub table: Table,
    /// `IF NOT EXISTS`.
    pub if_not_exists: bool,
    /// `LIKE other`.
    pub like: Option<String>,
    /// `AS SELECT ..`.
    pub query: Option<Query>,
}

/// `CREATE VIEW`.
#[derive(Clone, Debug)]
pub struct CreateView {
    /// The view's name.
    pub name: String,
    /// New names for its columns, or none.
    pub columns: Vec<String>,
    /// The query.
    pub query: Query,
    /// `OR REPLACE`.
    pub or_replace: bool,
    /// `IF NOT EXISTS`.
    pub if_not_exists: bool,
    /// `TEMPORARY`.
    pub temporary: bool,
}

/// `INSERT INTO table [(columns)] query`.
#[derive(Clone, Debug)]
pub struct Insert {
    /// The sink table.
    pub table: String,
    /// The named columns, or none for all in their order.
    pub columns: Vec<String>,
    /// The rows.
    pub query: Query,
}

/// A query with how it emits.
#[derive(Clone, Debug)]
pub struct Query {
    /// The query itself.
    pub ast: Box<ast::Query>,
    /// As it was written.
    pub text: String,
    /// Where `text` stands in the submitted text.
    pub span: Range<usize>,
    /// Line and column of its first character there, from 1: the planner's errors count like that.
    pub origin: (u64, u64),
    /// The trailing `EMIT ..`.
    pub emit: Emit,
}

/// When a windowed aggregate gives out rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Emit {
    /// Once per window, when it closes: `EMIT ON WINDOW CLOSE`, `EMIT FINAL`, or nothing.
    #[default]
    OnWindowClose,
    /// At every change: `EMIT ON UPDATE`, `EMIT CHANGES`.
    OnUpdate,
    /// Every so many milliseconds: `EMIT EVERY INTERVAL ..`.
    EveryMs(u64),
}

/// What `SHOW` shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Show {
    /// `SHOW TABLES`.
    Tables,
    /// `SHOW VIEWS`.
    Views,
    /// `SHOW TOPICS`.
    Topics,
    /// `SHOW JOBS`.
    Jobs,
    /// `SHOW FUNCTIONS`.
    Functions,
    /// `SHOW CREATE TABLE name` or `SHOW CREATE VIEW name`.
    Create(String),
}

/// A table or a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    /// `TABLE`.
    Table,
    /// `VIEW`.
    View,
}

impl Query {
    /// The byte of the submitted text at a line and a column (both from 1) of it, if that is in the query.
    pub fn byte_at(&self, line: u64, column: u64) -> Option<usize> {
        let (first_line, first_column) = self.origin;
        let (line, column) = match line.checked_sub(first_line)? {
            0 => (0, column.checked_sub(first_column)?),
            line => (line, column.checked_sub(1)?),
        };
        let start: usize = self.text.split_inclusive('\n').take(line as usize).map(str::len).sum();
        let within = self.text.get(start..)?.char_indices().map(|(i, _)| i).nth(column as usize);
        Some(self.span.start + start + within.unwrap_or(self.text.len() - start))
    }
}
