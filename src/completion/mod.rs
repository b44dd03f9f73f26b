//! What may stand at the cursor: keywords, names, options and their values, by what stands before.
//!
//! A function of the text and of what is [`Known`], which others keep up to date: no key press waits for anything.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::{DataType, FieldRef, Fields};

use crate::connectors::options::{option_keys, option_values};
use crate::runtime::{setting_keys, setting_values};
use crate::sql::pieces::{KEYWORDS, Kind, Piece, pieces};
use crate::sql::types::quote;

/// Candidates that are offered, at most.
const CANDIDATES_MAX: usize = 200;

/// Words that begin a statement.
const FIRST_WORDS: &[&str] = &[
    "CREATE", "DESCRIBE", "DROP", "EXECUTE", "EXPLAIN", "INSERT", "PRINT", "RESET", "SELECT", "SET", "SHOW", "STOP",
    "WITH", "help", "quit",
];

/// Commands that are no SQL.
pub const COMMANDS: &[&str] = &["\\?", "\\d", "\\df", "\\dt", "\\dv", "\\i", "\\live", "\\o", "\\q", "\\timing", "\\x"];

const WINDOWS: &[&str] = &["CUMULATE", "HOP", "SESSION", "TUMBLE"];

/// What windows add to the columns of their rows.
const WINDOW_COLUMNS: &[&str] = &["window_end", "window_start", "window_time"];

/// What there is to name.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Tables and views with their columns.
    pub tables: BTreeMap<String, Fields>,
    /// Functions, in lower case.
    pub functions: Vec<String>,
    /// The broker's topics.
    pub topics: BTreeSet<String>,
    /// Columns of topics that no table is declared for, as far as somebody wanted them.
    pub topic_columns: BTreeMap<String, Fields>,
    /// Jobs that run.
    pub jobs: Vec<String>,
}

impl Known {
    /// The columns of a table, a view or a topic.
    pub fn columns_of(&self, name: &str) -> impl Iterator<Item = &FieldRef> {
        self.tables.get(name).or_else(|| self.topic_columns.get(name)).into_iter().flatten()
    }
}

/// The candidates for the cursor at the end of `before`, and the byte at which the word begins that they replace.
pub fn complete(known: &Known, before: &str, after: &str) -> (usize, Vec<String>) {
    if before.starts_with('\\') {
        return command(known, before);
    }
    let place = Place::new(before, after);
    let mut candidates = place.candidates(known);
    candidates.truncate(CANDIDATES_MAX);
    (place.start, candidates)
}

fn command(known: &Known, before: &str) -> (usize, Vec<String>) {
    match before.split_once(' ') {
        None => (0, matching(before, COMMANDS.iter().copied())),
        Some((name, prefix)) => {
            let start = name.len() + 1;
            let candidates = match name {
                "\\d" => matching(prefix, known.tables.keys().map(String::as_str)),
                "\\x" | "\\live" => matching(prefix, ["auto", "off", "on"]),
                _ => Vec::new(),
            };
            (start, candidates)
        }
    }
}

/// Where the cursor is.
struct Place<'a> {
    before: &'a str,
    after: &'a str,
    /// The pieces of the statement that end before the word at the cursor.
    pieces: Vec<Piece>,
    /// The first byte of the word at the cursor, its quote among it.
    start: usize,
    /// The word so far, without its quote.
    prefix: &'a str,
    /// The quote that is open at the cursor.
    quote: Option<char>,
}

impl<'a> Place<'a> {
    fn new(before: &'a str, after: &'a str) -> Self {
        let mut all = pieces(before);
        let touches = |piece: &Piece| piece.span.end == before.len();
        let (mut start, mut quote) = (before.len(), None);
        if let Some(last) = all.last().filter(|last| touches(last)) {
            let text = &before[last.span.clone()];
            match last.kind {
                Kind::Open => {
                    quote = text.chars().next();
                    start = last.span.start;
                    all.pop();
                }
                Kind::Keyword | Kind::Name => {
                    start = last.span.start;
                    all.pop();
                }
                _ => {}
            }
        }
        let end = |piece: &Piece| piece.kind == Kind::Sign && &before[piece.span.clone()] == ";";
        let first = all.iter().rposition(end).map_or(0, |at| at + 1);
        let pieces = all.split_off(first);
        let prefix = &before[start + quote.map_or(0, char::len_utf8)..];
        Self { before, after, pieces, start, prefix, quote }
    }

    fn text(&self, piece: &Piece) -> &'a str {
        &self.before[piece.span.clone()]
    }

    /// The word or sign that is so many places before the cursor's, in upper case.
    fn back(&self, places: usize) -> String {
        let piece = self.pieces.len().checked_sub(places + 1).map(|at| &self.pieces[at]);
        piece.map_or(String::new(), |piece| self.text(piece).to_ascii_uppercase())
    }

    fn first(&self) -> String {
        self.pieces.first().map_or(String::new(), |piece| self.text(piece).to_ascii_uppercase())
    }

    fn candidates(&self, known: &Known) -> Vec<String> {
        match self.quote {
            Some('\'') => self.in_text(known),
            Some('`' | '"') => self.names(known),
            Some(_) => Vec::new(),
            None => self.in_statement(known),
        }
    }

    /// In single quotes: an option, a setting, one of their values, a topic.
    fn in_text(&self, known: &Known) -> Vec<String> {
        let candidates = match (self.first().as_str(), self.back(0).as_str()) {
            ("SET" | "RESET", "SET" | "RESET") => matching(self.prefix, setting_keys()),
            ("SET", "=") => {
                let key = self.back_text(1);
                matching(self.prefix, setting_values(&key).iter().copied())
            }
            ("PRINT", "PRINT") | ("DESCRIBE" | "DESC", "TOPIC") => self.topics(known),
            ("CREATE", "=") => match self.back_text(1).as_str() {
                "topic" => self.topics(known),
                key => matching(self.prefix, option_values(key)),
            },
            ("CREATE", "(" | ",") => {
                let keys = option_keys(self.option("connector").as_deref());
                matching(self.prefix, keys.iter().map(String::as_str))
            }
            _ => Vec::new(),
        };
        candidates.into_iter().map(|text| format!("'{}'", text.replace('\'', "''"))).collect()
    }

    /// The text in single quotes so many places before, without them.
    fn back_text(&self, places: usize) -> String {
        let piece = self.pieces.len().checked_sub(places + 1).map(|at| &self.pieces[at]);
        piece.map_or(String::new(), |piece| self.text(piece).trim_matches('\'').to_owned())
    }

    /// The value of an option that the statement has so far.
    fn option(&self, key: &str) -> Option<String> {
        let at = self.pieces.iter().position(|piece| self.text(piece).trim_matches('\'') == key)?;
        let value = self.pieces.get(at + 2).filter(|piece| piece.kind == Kind::Text)?;
        Some(self.text(value).trim_matches('\'').to_owned())
    }

    fn topics(&self, known: &Known) -> Vec<String> {
        matching(self.prefix, known.topics.iter().map(String::as_str))
    }

    /// In the quotes of a name: a table or a topic where one may stand, else a column.
    fn names(&self, known: &Known) -> Vec<String> {
        let names = match self.wants_relation() {
            true => self.relations(known),
            false => self.columns(known),
        };
        let quote = self.quote.unwrap_or('`');
        let quoted = |name: String| {
            let bare = name.trim_matches('`').replace("``", "`");
            format!("{quote}{}{quote}", bare.replace(quote, &format!("{quote}{quote}")))
        };
        names.into_iter().map(quoted).collect()
    }

    fn wants_relation(&self) -> bool {
        let (last, before) = (self.back(0), self.back(1));
        matches!(last.as_str(), "FROM" | "JOIN" | "INTO" | "DESCRIBE" | "DESC" | "LIKE")
            || (last == "TABLE" && self.first() != "CREATE")
            || (last == "VIEW" && self.first() == "DROP")
            || (last == "(" && WINDOWS.contains(&before.as_str()))
    }

    fn relations(&self, known: &Known) -> Vec<String> {
        let mut names: Vec<&str> = known.tables.keys().map(String::as_str).collect();
        // What is written to must be declared.
        if !matches!(self.back(0).as_str(), "INTO" | "VIEW") && self.first() != "DROP" {
            names.extend(known.topics.iter().map(String::as_str));
        }
        names.sort_unstable();
        names.dedup();
        let names = names.into_iter().filter(|name| begins(name, self.prefix));
        names.map(quote).collect()
    }

    fn in_statement(&self, known: &Known) -> Vec<String> {
        if self.pieces.is_empty() {
            return self.words(FIRST_WORDS);
        }
        match self.back(0).as_str() {
            "SHOW" => return self.words(&["CREATE", "FUNCTIONS", "JOBS", "TABLES", "TOPICS", "VIEWS"]),
            "CREATE" => return self.words(&["OR REPLACE VIEW", "TABLE", "TEMPORARY", "VIEW"]),
            "DROP" => return self.words(&["TABLE", "VIEW"]),
            "STOP" => return self.words(&["JOB"]),
            "INSERT" => return self.words(&["INTO"]),
            "EMIT" => return self.words(&["CHANGES", "EVERY", "FINAL", "ON UPDATE", "ON WINDOW CLOSE"]),
            "PRINT" => return self.topics(known),
            "TOPIC" if self.first().starts_with("DESC") => return self.topics(known),
            "JOB" => return matching(self.prefix, known.jobs.iter().map(String::as_str)),
            "SET" | "RESET" if self.pieces.len() == 1 => {
                return setting_keys().filter(|key| begins(key, self.prefix)).map(|key| format!("'{key}'")).collect();
            }
            "." => return self.parts(known),
            _ => {}
        }
        if self.wants_relation() {
            let mut names = self.relations(known);
            if matches!(self.back(0).as_str(), "FROM" | "JOIN") {
                names.extend(self.words(WINDOWS));
            }
            if self.back(0) == "DESCRIBE" {
                names.extend(self.words(&["JOB", "TOPIC"]));
            }
            return names;
        }
        let mut candidates = self.columns(known);
        if matches!(self.first().as_str(), "SELECT" | "INSERT" | "WITH" | "EXPLAIN" | "CREATE" | "EXECUTE" | "BEGIN")
            && !self.prefix.is_empty()
        {
            let functions = known.functions.iter().filter(|name| begins(name, self.prefix));
            let is_lower = self.is_lower();
            candidates.extend(functions.map(|name| if is_lower { name.clone() } else { name.to_uppercase() } + "("));
        }
        candidates.extend(self.words(KEYWORDS));
        candidates
    }

    /// The name so many places before, without quotes.
    fn back_name(&self, places: usize) -> String {
        let piece = self.pieces.len().checked_sub(places + 1).map(|at| &self.pieces[at]);
        piece.map_or(String::new(), |piece| self.text(piece).trim_matches(['`', '"']).to_owned())
    }

    /// The columns of the tables that the statement reads, also behind the cursor.
    fn columns(&self, known: &Known) -> Vec<String> {
        let scope = self.scope(known);
        let columns = scope.tables.iter().flat_map(|(_, table)| known.columns_of(table));
        let mut names: Vec<&str> = columns.map(|column| column.name().as_str()).collect();
        if scope.has_windows {
            names.extend(WINDOW_COLUMNS);
        }
        names.sort_unstable();
        names.dedup();
        names.into_iter().filter(|name| begins(name, self.prefix)).map(quote).collect()
    }

    /// What may stand behind a dot: the columns of a table, by its name or its alias, and the fields of a row in one.
    fn parts(&self, known: &Known) -> Vec<String> {
        let places = (0..).step_by(2).take_while(|&place| self.back(place) == ".");
        let mut path: Vec<String> = places.map(|place| self.back_name(place + 1)).collect();
        path.reverse();
        let scope = self.scope(known);
        let is_named = |(alias, table): &&(String, String)| *alias == path[0] || *table == path[0];
        let (mut fields, inner): (Vec<&FieldRef>, _) = match scope.tables.iter().find(is_named) {
            Some((_, table)) => (known.columns_of(table).collect(), &path[1..]),
            None => (scope.tables.iter().flat_map(|(_, table)| known.columns_of(table)).collect(), &path[..]),
        };
        if fields.is_empty() {
            fields = known.columns_of(&path[0]).collect();
        }
        for name in inner {
            let found = fields.iter().find(|field| field.name() == name).map(|field| field.data_type());
            let Some(DataType::Struct(of_row)) = found else { return Vec::new() };
            fields = of_row.iter().collect();
        }
        let mut names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
        names.sort_unstable();
        names.into_iter().filter(|name| begins(name, self.prefix)).map(quote).collect()
    }

    /// The tables of the statement with their aliases.
    fn scope(&self, known: &Known) -> Scope {
        // Without the word at the cursor, whose open quote would swallow the rest.
        let start = self.pieces.first().map_or(self.start, |piece| piece.span.start);
        let end = self.after.find(';').unwrap_or(self.after.len());
        let text = format!("{} {}", &self.before[start..self.start], &self.after[..end]);
        let all = pieces(&text);
        let name = |piece: &Piece| text[piece.span.clone()].trim_matches(['`', '"']).to_owned();
        let is_name = |piece: &Piece| matches!(piece.kind, Kind::Name | Kind::Quoted | Kind::Keyword);
        let mut scope = Scope::default();
        for (at, piece) in all.iter().enumerate() {
            let word = text[piece.span.clone()].to_ascii_uppercase();
            scope.has_windows |= WINDOWS.contains(&word.as_str());
            let table = name(piece);
            if !is_name(piece) || !(known.tables.contains_key(&table) || known.topics.contains(&table)) {
                continue;
            }
            let mut next = all[at + 1..].iter().filter(|piece| !text[piece.span.clone()].eq_ignore_ascii_case("AS"));
            let alias = next.next().filter(|piece| matches!(piece.kind, Kind::Name | Kind::Quoted)).map(name);
            scope.tables.push((alias.unwrap_or_else(|| table.clone()), table));
        }
        scope
    }

    /// Keywords, in the case in which the word was begun.
    fn words(&self, words: &[&str]) -> Vec<String> {
        let is_lower = self.is_lower();
        let cased = |word: String| if is_lower { word.to_lowercase() } else { word };
        matching(self.prefix, words.iter().copied()).into_iter().map(cased).collect()
    }

    fn is_lower(&self) -> bool {
        self.prefix.chars().next().is_some_and(char::is_lowercase)
    }
}

#[derive(Default)]
struct Scope {
    /// Alias and table.
    tables: Vec<(String, String)>,
    has_windows: bool,
}

fn begins(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

fn matching<'a>(prefix: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    names.into_iter().filter(|name| begins(name, prefix)).map(str::to_owned).collect()
}
