//! `CREATE TABLE`, `CREATE VIEW` and `DROP`.
//!
//! The list of a table's columns holds four kinds of items, told apart by their first words: columns (physical,
//! computed, metadata), the watermark, the primary key, and constraints with a name, which is the key again. What the
//! statement alone can tell is checked here, at the place where it is written: names that are there twice, keys and
//! watermarks over columns that are not, event times of the wrong type.

use std::ops::Range;

use arrow::datatypes::{DataType, TimeUnit};
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Token;

use super::cursor::StatementParser;
use super::statement::{CreateTable, CreateView, ObjectKind, Statement};
use super::types;
use crate::catalog::options::{Options, nearest};
use crate::catalog::{Column, ColumnKind, Table, Watermark};
use crate::error::{Error, Result};

/// The item lists of one `CREATE TABLE` as they grow.
#[derive(Default)]
struct Items {
    columns: Vec<Column>,
    /// Where each column's name stands.
    column_spans: Vec<Range<usize>>,
    /// The watermark and the place of its column.
    watermark: Option<(Watermark, Range<usize>)>,
    /// The key's columns and the place of each.
    primary_key: Vec<(String, Range<usize>)>,
}

impl StatementParser<'_> {
    /// `CREATE ..`.
    pub(super) fn create(&mut self) -> Result<Statement> {
        self.expect_words(&["CREATE"])?;
        let or_replace = self.next_is("OR");
        if or_replace {
            self.expect_words(&["OR", "REPLACE"])?;
        }
        let temporary = self.word("TEMPORARY") || self.word("TEMP");
        let at = self.span_next();
        if self.word("TABLE") {
            if or_replace {
                return Err(Error::statement("CREATE OR REPLACE TABLE is not supported")
                    .hint("write DROP TABLE IF EXISTS first, or CREATE TABLE IF NOT EXISTS")
                    .at(at));
            }
            return Ok(Statement::CreateTable(self.create_table(temporary)?));
        }
        if self.word("VIEW") {
            return Ok(Statement::CreateView(self.create_view(or_replace, temporary)?));
        }
        let refusals = [
            ("FUNCTION", "functions cannot be created", "SHOW FUNCTIONS lists those that are built in"),
            ("SYSTEM", "functions cannot be created", "SHOW FUNCTIONS lists those that are built in"),
            ("CATALOG", "there is one catalog", "leave the statement out"),
            ("DATABASE", "there is one database", "leave the statement out"),
            ("SCHEMA", "there is one database", "leave the statement out"),
            ("MODEL", "CREATE MODEL is not supported", "create a TABLE or a VIEW"),
            ("MATERIALIZED", "CREATE MATERIALIZED is not supported", "write CREATE TABLE .. AS SELECT .."),
            ("EXTERNAL", "CREATE EXTERNAL TABLE is not supported", "write CREATE TABLE"),
            ("STREAM", "there is no CREATE STREAM", "write CREATE TABLE: every table is a stream"),
            ("SOURCE", "there is no CREATE SOURCE", "write CREATE TABLE: a table is read and written"),
            ("SINK", "there is no CREATE SINK", "write CREATE TABLE and INSERT INTO it"),
            ("INDEX", "there are no indexes", "leave the statement out"),
        ];
        match refusals.iter().find(|(word, ..)| self.next_is(word)) {
            Some((_, message, hint)) => Err(Error::statement(*message).hint(*hint).at(at)),
            None => Err(self.expected("TABLE or VIEW")),
        }
    }

    fn create_table(&mut self, temporary: bool) -> Result<CreateTable> {
        let if_not_exists = self.if_not_exists()?;
        let name = self.object_name("the table's name")?;
        let mut items = Items::default();
        if self.parser.consume_token(&Token::LParen) {
            self.items(&mut items)?;
        }
        let comment = self.comment()?;
        for (word, hint) in [
            ("PARTITIONED", "a topic's partitions are chosen by 'key.fields' and 'sink.partitioner'"),
            ("DISTRIBUTED", "a topic's partitions are chosen by 'key.fields' and 'sink.partitioner'"),
        ] {
            if self.next_is(word) {
                let message = format!("{word} BY is not supported");
                return Err(Error::statement(message).hint(hint).at(self.span_next()));
            }
        }
        let options = if self.word("WITH") { self.options()? } else { Options::default() };
        let like = if self.word("LIKE") { Some(self.like()?) } else { None };
        let query = if self.word("AS") { Some(self.query()?) } else { None };
        let columns_elsewhere = like.is_some() || query.is_some();
        check(&items, columns_elsewhere)?;
        let table = Table {
            name,
            columns: items.columns,
            watermark: items.watermark.map(|(watermark, _)| watermark),
            primary_key: items.primary_key.into_iter().map(|(name, _)| name).collect(),
            options,
            comment,
            temporary,
        };
        Ok(CreateTable { table, if_not_exists, like, query })
    }

    fn if_not_exists(&mut self) -> Result<bool> {
        let found = self.word("IF");
        if found {
            self.expect_words(&["NOT", "EXISTS"])?;
        }
        Ok(found)
    }

    fn comment(&mut self) -> Result<Option<String>> {
        if self.word("COMMENT") { self.string("a comment in quotes").map(Some) } else { Ok(None) }
    }

    /// The items up to the closing parenthesis.
    fn items(&mut self, items: &mut Items) -> Result<()> {
        if self.parser.consume_token(&Token::RParen) {
            return Ok(());
        }
        loop {
            self.item(items)?;
            if self.parser.consume_token(&Token::Comma) {
                continue;
            }
            return match self.parser.consume_token(&Token::RParen) {
                true => Ok(()),
                false => Err(self.expected("\",\" or \")\"")),
            };
        }
    }

    fn item(&mut self, items: &mut Items) -> Result<()> {
        let second = self.parser.peek_nth_token_ref(1).token.clone();
        let second_is = |word: &str| super::source::is_word(&second, word);
        if self.next_is("WATERMARK") && second_is("FOR") {
            return self.watermark(items);
        }
        if self.next_is("PRIMARY") && second_is("KEY") {
            return self.primary_key(items);
        }
        if self.next_is("CONSTRAINT") && self.word("CONSTRAINT") {
            self.name("the constraint's name")?;
            return match self.next_is("PRIMARY") {
                true => self.primary_key(items),
                false => Err(self.expected("PRIMARY KEY")),
            };
        }
        if ["UNIQUE", "FOREIGN", "CHECK"].iter().any(|word| self.next_is(word))
            && (second == Token::LParen || second_is("KEY"))
        {
            return Err(Error::statement("of the constraints only PRIMARY KEY (..) NOT ENFORCED is supported")
                .at(self.span_next()));
        }
        self.column(items)
    }

    fn column(&mut self, items: &mut Items) -> Result<()> {
        let span = self.span_next();
        let name = self.name("the name of a column")?;
        if name.is_empty() {
            return Err(Error::statement("a name cannot be empty").at(span));
        }
        if items.columns.iter().any(|column| column.name == name) {
            return Err(Error::statement(format!("the column \"{name}\" is there twice")).at(span));
        }
        if self.parser.peek_token_ref().token == Token::Minus {
            return Err(self.expected("a type"));
        }
        let mut column = Column {
            name,
            data_type: DataType::Null,
            sql_type: String::new(),
            not_null: false,
            kind: ColumnKind::Physical,
            comment: None,
        };
        if self.word("AS") {
            column.kind = ColumnKind::Computed(Box::new(self.lifted(Parser::parse_expr)?));
        } else {
            if matches!(self.parser.peek_token_ref().token, Token::Comma | Token::RParen) {
                return Err(self
                    .expected("a type")
                    .hint(format!("write for example {} STRING", types::quote(&column.name))));
            }
            let parsed = self.lifted(types::parse_type)?;
            column.data_type = parsed.arrow;
            column.sql_type = parsed.text;
            column.not_null = parsed.not_null;
            self.column_options(&mut column, &span, items)?;
        }
        if column.comment.is_none() {
            column.comment = self.comment()?;
        }
        items.columns.push(column);
        items.column_spans.push(span);
        Ok(())
    }

    fn column_options(&mut self, column: &mut Column, span: &Range<usize>, items: &mut Items) -> Result<()> {
        loop {
            let at = self.span_next();
            if self.word("METADATA") {
                let key = match self.word("FROM") {
                    true => self.string("the key of a property in quotes, such as 'timestamp'")?,
                    false => column.name.clone(),
                };
                column.kind = ColumnKind::Metadata { key, is_virtual: self.word("VIRTUAL") };
            } else if self.word("NOT") {
                self.expect_words(&["NULL"])?;
                column.not_null = true;
            } else if self.word("CONSTRAINT") {
                self.name("the constraint's name")?;
            } else if self.word("PRIMARY") {
                self.expect_words(&["KEY"])?;
                self.not_enforced()?;
                add_key(items, vec![(column.name.clone(), span.clone())], at)?;
            } else if self.next_is("COMMENT") && column.comment.is_none() {
                column.comment = self.comment()?;
            } else if self.next_is("DEFAULT") || self.next_is("GENERATED") {
                return Err(Error::statement("DEFAULT and GENERATED are not supported")
                    .hint("write a computed column: name AS expression")
                    .at(at));
            } else {
                return Ok(());
            }
        }
    }

    fn watermark(&mut self, items: &mut Items) -> Result<()> {
        let at = self.span_next();
        self.expect_words(&["WATERMARK", "FOR"])?;
        let span = self.span_next();
        let column = self.name("the event time column")?;
        if self.parser.peek_token_ref().token == Token::Period {
            return Err(Error::statement("the event time is a column of its own, not a field of one")
                .hint(format!("declare a computed column: event_time AS {}.. and use that", types::quote(&column)))
                .at(span));
        }
        self.expect_words(&["AS"])?;
        let expr = Box::new(self.lifted(Parser::parse_expr)?);
        if items.watermark.is_some() {
            return Err(Error::statement("a table has one watermark; this is the second").at(at));
        }
        items.watermark = Some((Watermark { column, expr }, span));
        Ok(())
    }

    fn primary_key(&mut self, items: &mut Items) -> Result<()> {
        let at = self.span_next();
        self.expect_words(&["PRIMARY", "KEY"])?;
        self.expect_token(&Token::LParen)?;
        let mut key = Vec::new();
        loop {
            let span = self.span_next();
            key.push((self.name("the name of a column")?, span));
            if !self.parser.consume_token(&Token::Comma) {
                break;
            }
        }
        self.expect_token(&Token::RParen)?;
        self.not_enforced()?;
        add_key(items, key, at)
    }

    fn not_enforced(&mut self) -> Result<()> {
        if self.next_is("NOT") && super::source::is_word(&self.parser.peek_nth_token_ref(1).token, "ENFORCED") {
            return self.expect_words(&["NOT", "ENFORCED"]);
        }
        Err(self.expected("NOT ENFORCED").hint("write PRIMARY KEY (..) NOT ENFORCED: the topic may hold duplicates"))
    }

    fn options(&mut self) -> Result<Options> {
        self.expect_token(&Token::LParen)?;
        let mut options = Options::default();
        if self.parser.consume_token(&Token::RParen) {
            return Ok(options);
        }
        loop {
            let at = self.span_next();
            let key = match self.parser.peek_token().token {
                Token::SingleQuotedString(_) => self.string("an option")?,
                Token::Word(_) => {
                    return Err(self
                        .expected("an option in single quotes")
                        .hint("write WITH ('connector' = 'kafka', ..)"));
                }
                _ => return Err(self.expected("an option such as 'connector' = 'kafka'")),
            };
            self.expect_token(&Token::Eq)?;
            let value = match self.parser.peek_token_ref().token {
                Token::SingleQuotedString(_) => self.string("a value")?,
                _ => return Err(self.expected("a value in single quotes")),
            };
            if options.get(&key).is_some() {
                return Err(Error::statement(format!("the option '{key}' is there twice")).at(at));
            }
            options.set(key, value);
            if !self.parser.consume_token(&Token::Comma) {
                break;
            }
        }
        match self.parser.consume_token(&Token::RParen) {
            true => Ok(options),
            false => Err(self.expected("\",\" or \")\"")),
        }
    }

    fn like(&mut self) -> Result<String> {
        let other = self.object_name("the name of a table")?;
        if self.parser.peek_token_ref().token == Token::LParen {
            return Err(Error::statement("LIKE takes everything of the other table; its options are not supported")
                .hint("leave (INCLUDING .. EXCLUDING ..) out; what WITH (..) says here goes before what the other table says")
                .at(self.span_next()));
        }
        Ok(other)
    }

    fn create_view(&mut self, or_replace: bool, temporary: bool) -> Result<CreateView> {
        let if_not_exists = self.if_not_exists()?;
        let name = self.object_name("the view's name")?;
        let mut columns = Vec::new();
        if self.parser.consume_token(&Token::LParen) {
            loop {
                let span = self.span_next();
                let column = self.name("the name of a column")?;
                self.comment()?;
                if columns.contains(&column) {
                    return Err(Error::statement(format!("the column \"{column}\" is there twice")).at(span));
                }
                columns.push(column);
                if !self.parser.consume_token(&Token::Comma) {
                    break;
                }
            }
            self.expect_token(&Token::RParen)?;
        }
        self.comment()?;
        self.expect_words(&["AS"])?;
        let query = self.query()?;
        Ok(CreateView { name, columns, query, or_replace, if_not_exists, temporary })
    }

    /// `DROP ..`.
    pub(super) fn drop_statement(&mut self) -> Result<Statement> {
        self.expect_words(&["DROP"])?;
        let _ = self.word("TEMPORARY") || self.word("TEMP");
        let kind = match () {
            () if self.word("TABLE") => ObjectKind::Table,
            () if self.word("VIEW") => ObjectKind::View,
            () if self.next_is("JOB") => return Err(self.expected("TABLE or VIEW").hint("write STOP JOB <name>")),
            () => return Err(self.expected("TABLE or VIEW")),
        };
        let if_exists = self.word("IF");
        if if_exists {
            self.expect_words(&["EXISTS"])?;
        }
        let name = self.object_name("a name")?;
        Ok(Statement::Drop { kind, name, if_exists })
    }
}

fn add_key(items: &mut Items, key: Vec<(String, Range<usize>)>, at: Range<usize>) -> Result<()> {
    if !items.primary_key.is_empty() {
        return Err(Error::statement("a table has one primary key; this is the second").at(at));
    }
    items.primary_key = key;
    Ok(())
}

/// What the list of items must satisfy as a whole. Columns that come from another table or a query are not known yet.
fn check(items: &Items, columns_elsewhere: bool) -> Result<()> {
    let column = |name: &str| items.columns.iter().find(|column| column.name == name);
    let unknown = |name: &str, span: &Range<usize>| {
        let error = Error::statement(format!("there is no column \"{name}\"")).at(span.clone());
        match nearest(name, items.columns.iter().map(|column| column.name.as_str())) {
            Some(near) => error.hint(format!("did you mean \"{near}\"?")),
            None => error,
        }
    };
    for (i, (name, span)) in items.primary_key.iter().enumerate() {
        match column(name) {
            Some(Column { kind: ColumnKind::Computed(_), .. }) => {
                return Err(Error::statement(format!("the computed column \"{name}\" cannot be in the primary key"))
                    .at(span.clone()));
            }
            Some(_) => {}
            None if columns_elsewhere => {}
            None => return Err(unknown(name, span)),
        }
        if items.primary_key[..i].iter().any(|(other, _)| other == name) {
            return Err(Error::statement(format!("the column \"{name}\" is in the key twice")).at(span.clone()));
        }
    }
    if let Some((watermark, span)) = &items.watermark {
        // A column left out has its type from elsewhere; without any column, all come from the topic.
        let Some(column) = column(&watermark.column) else {
            let known = columns_elsewhere || items.columns.is_empty();
            return if known { Ok(()) } else { Err(unknown(&watermark.column, span)) };
        };
        check_event_time(column, span)?;
    }
    Ok(())
}

/// An event time is a timestamp of milliseconds; a computed one has its type only once it is planned.
fn check_event_time(column: &Column, span: &Range<usize>) -> Result<()> {
    if matches!(column.kind, ColumnKind::Computed(_))
        || matches!(column.data_type, DataType::Timestamp(TimeUnit::Millisecond, _))
    {
        return Ok(());
    }
    let message =
        format!("the event time \"{}\" is {}, not TIMESTAMP(3) or TIMESTAMP_LTZ(3)", column.name, column.sql_type);
    let hint = match &column.data_type {
        DataType::Timestamp(_, None) => format!("declare it as {} TIMESTAMP(3)", types::quote(&column.name)),
        DataType::Timestamp(_, Some(_)) => format!("declare it as {} TIMESTAMP_LTZ(3)", types::quote(&column.name)),
        DataType::Utf8 => format!("add a computed column: event_time AS TO_TIMESTAMP({})", types::quote(&column.name)),
        data_type if data_type.is_integer() => {
            format!("add a computed column: event_time AS TO_TIMESTAMP_LTZ({}, 3)", types::quote(&column.name))
        }
        _ => "the watermark needs a timestamp of milliseconds".to_string(),
    };
    Err(Error::statement(message).hint(hint).at(span.clone()))
}
