//! Each function as a query over constants, and once more over columns, so that both ways of calling are seen.

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::execution::SessionStateBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use sqlparser::ast;

use super::*;
use crate::sql::types::{FlinkTypes, sql_type};
use crate::sql::{parse_script, statement::Statement};

fn context() -> SessionContext {
    let config = SessionConfig::new()
        .set_bool("datafusion.sql_parser.enable_ident_normalization", false)
        .set_bool("datafusion.sql_parser.map_string_types_to_utf8view", false);
    let mut state = SessionStateBuilder::new()
        .with_config(config)
        .with_default_features()
        .with_type_planner(Arc::new(FlinkTypes))
        .build();
    let mut planners: Vec<Arc<dyn ExprPlanner>> = vec![Arc::new(FlinkExpressions)];
    planners.extend(state.expr_planners().iter().cloned());
    state = SessionStateBuilder::new_from_existing(state).with_expr_planners(planners).build();
    let context = SessionContext::new_with_state(state);
    for function in flink_functions() {
        context.register_udf(function.as_ref().clone());
    }
    context
}

fn run(text: &str) -> Result<(String, String)> {
    let Statement::Query(query) = parse_script(text).unwrap().remove(0).statement else { panic!("{text}") };
    let context = context();
    let statement = datafusion::sql::parser::Statement::Statement(Box::new(ast::Statement::Query(query.ast)));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let batches: Vec<RecordBatch> = runtime.block_on(async {
        let plan = context.state().statement_to_plan(statement).await?;
        context.execute_logical_plan(plan).await?.collect().await
    })?;
    let batch = &batches[0];
    let options = FormatOptions::default().with_null("NULL");
    let formatter = ArrayFormatter::try_new(batch.column(0), &options)?;
    let rows: Vec<_> = (0..batch.num_rows()).map(|row| formatter.value(row).to_string()).collect();
    Ok((rows.join(" | "), sql_type(batch.column(0).data_type())))
}

/// An expression, its value and its type.
fn check(expr: &str, want: &str, want_type: &str) {
    let got = run(&format!("SELECT {expr}")).unwrap_or_else(|error| panic!("{expr}: {error}"));
    assert_eq!((got.0.as_str(), got.1.as_str()), (want, want_type), "{expr}");
}

fn check_error(expr: &str, want: &str) {
    let error = run(&format!("SELECT {expr}")).unwrap_err();
    assert!(error.to_string().contains(want), "{expr}: {error}");
}

#[test]
fn times() {
    let t = "TIMESTAMP '2013-01-05 15:04:09.123'";
    check(&format!("DATE_FORMAT({t}, 'yyyy/MM/dd HH.mm.ss SSS')"), "2013/01/05 15.04.09 123", "STRING");
    check("DATE_FORMAT('2013-01-05 15:04:09', 'HH:mm')", "15:04", "STRING");
    check("DATE_FORMAT(DATE '2013-01-05', 'yyyyMMdd')", "20130105", "STRING");
    check("TO_TIMESTAMP('2013-01-05 15:04:09.123')", "2013-01-05T15:04:09.123", "TIMESTAMP(3)");
    check("TO_TIMESTAMP('2013-01-05T15:04:09+01:00')", "2013-01-05T15:04:09", "TIMESTAMP(3)");
    check("TO_TIMESTAMP('2013-01-05')", "2013-01-05T00:00:00", "TIMESTAMP(3)");
    check("TO_TIMESTAMP('5.1.2013', 'd.M.yyyy')", "2013-01-05T00:00:00", "TIMESTAMP(3)");
    check("TO_TIMESTAMP('no')", "NULL", "TIMESTAMP(3)");
    check("TO_TIMESTAMP_LTZ(1357398249123, 3)", "2013-01-05T15:04:09.123Z", "TIMESTAMP_LTZ(3)");
    check("TO_TIMESTAMP_LTZ(1357398249, 0)", "2013-01-05T15:04:09Z", "TIMESTAMP_LTZ(3)");
    check("TO_TIMESTAMP_LTZ(1357398249.5, 0)", "2013-01-05T15:04:09.500Z", "TIMESTAMP_LTZ(3)");
    check(
        "TO_TIMESTAMP_LTZ('2013-01-05 15:04:09', 'yyyy-MM-dd HH:mm:ss', 'Europe/Berlin')",
        "2013-01-05T14:04:09Z",
        "TIMESTAMP_LTZ(3)",
    );
    check("FROM_UNIXTIME(0)", "1970-01-01 00:00:00", "STRING");
    check("FROM_UNIXTIME(-1, 'HH:mm:ss')", "23:59:59", "STRING");
    check("UNIX_TIMESTAMP('1970-01-02 00:00:00')", "86400", "BIGINT");
    check("TO_DATE('2013-01-05')", "2013-01-05", "DATE");
    check("TO_DATE('05/01/13', 'dd/MM/yy')", "2013-01-05", "DATE");
    check("TIMESTAMPDIFF(HOUR, TIMESTAMP '2013-01-01 00:00:00', TIMESTAMP '2013-01-02 01:59:59')", "25", "INT");
    check("TIMESTAMPDIFF(MONTH, TIMESTAMP '2013-01-31 00:00:00', TIMESTAMP '2013-02-28 00:00:00')", "0", "INT");
    check("TIMESTAMPDIFF(YEAR, DATE '2013-06-01', DATE '2010-06-02')", "-2", "INT");
    check("TIMESTAMPADD(MONTH, 1, TIMESTAMP '2013-01-31 00:00:00')", "2013-02-28T00:00:00", "TIMESTAMP(6)");
    check("TIMESTAMPADD(DAY, -1, TO_TIMESTAMP_LTZ(0, 3))", "1969-12-31T00:00:00Z", "TIMESTAMP_LTZ(3)");
    check("CONVERT_TZ('1970-01-01 00:00:00', 'UTC', 'America/Los_Angeles')", "1969-12-31 16:00:00", "STRING");
    check(&format!("YEAR({t}) * 10000 + MONTH({t}) * 100 + DAYOFMONTH({t})"), "20130105", "BIGINT");
    check(&format!("HOUR({t}) * 10000 + MINUTE({t}) * 100 + SECOND({t})"), "150409", "BIGINT");
    check(&format!("QUARTER({t}) * 1000 + WEEK({t}) * 100 + DAYOFYEAR({t}) * 10 + DAYOFWEEK({t})"), "1157", "BIGINT");
    check_error("TO_TIMESTAMP_LTZ(9223372036854775807, 0)", "out of the range of times");
    check_error("TO_TIMESTAMP_LTZ(1, 6)", "takes seconds (0) or milliseconds (3), not 6");
    check_error(
        "TIMESTAMPDIFF(SECOND, TIMESTAMP '1900-01-01 00:00:00', TIMESTAMP '2013-01-01 00:00:00')",
        "do not fit an INT",
    );
    check_error("UNIX_TIMESTAMP()", "UNIX_TIMESTAMP");
    check_error("DATE_FORMAT(1, 'yyyy')", "it is DATE_FORMAT(time, pattern), not DATE_FORMAT(BIGINT, STRING)");
    check_error("CURRENT_WATERMARK('x')", "CURRENT_WATERMARK is not supported");
}

#[test]
fn texts() {
    check("SPLIT_INDEX('a,b,,d', ',', 2)", "", "STRING");
    check("SPLIT_INDEX('a,b', ',', 2)", "NULL", "STRING");
    check("SPLIT_INDEX('a||b', '||', 1)", "b", "STRING");
    check("REGEXP_EXTRACT('foothebar', 'foo(.*?)(bar)', 2)", "bar", "STRING");
    check("REGEXP_EXTRACT('x', 'y')", "NULL", "STRING");
    check("REGEXP_REPLACE('foobar', 'oo|ar', '')", "fb", "STRING");
    check("REGEXP_REPLACE('a1b2', '([a-z])(\\d)', '$2$1x\\$')", "1ax$2bx$", "STRING");
    check("REGEXP('abc', 'b.')", "true", "BOOLEAN");
    check("IS_DIGIT('12')", "true", "BOOLEAN");
    check("IS_ALPHA('a1')", "false", "BOOLEAN");
    check("IS_DECIMAL('-1.5e3')", "true", "BOOLEAN");
    check("IS_DECIMAL('NaN')", "false", "BOOLEAN");
    check("SUBSTRING('hällo', 2, 3)", "äll", "STRING");
    check("SUBSTRING('hello', -3, 2)", "ll", "STRING");
    check("SUBSTRING('hello', 0, 2)", "he", "STRING");
    check("SUBSTRING('hello' FROM 4)", "lo", "STRING");
    check("SUBSTR('hello', 2)", "ello", "STRING");
    check("SUBSTRING('hello', -9, 5)", "h", "STRING");
    check("INSTR('hello', 'l')", "3", "INT");
    check("POSITION('l' IN 'hello')", "3", "INT");
    check("LOCATE('l', 'hello', 4)", "4", "INT");
    check("LOCATE('l', 'hällo')", "3", "INT");
    check("LOCATE('x', 'hello')", "0", "INT");
    check("CONCAT('a', 'b', CAST(1 AS STRING))", "ab1", "STRING");
    check("CONCAT('a', CAST(NULL AS STRING))", "NULL", "STRING");
    check("CONCAT_WS('-', 'a', NULL, 'b')", "a-b", "STRING");
    check("LEFT('hello', 2) || RIGHT('hello', 2)", "helo", "STRING");
    check("LPAD('a', 3, '-') || RPAD('b', 3, '+')", "--ab++", "STRING");
    check("INITCAP('hello world')", "Hello World", "STRING");
    check("REPEAT('ab', 2) || REVERSE('cd')", "ababdc", "STRING");
    check("UPPER('a') || LOWER('B')", "Ab", "STRING");
    check("CHAR_LENGTH('hällo')", "5", "INT");
    check("ASCII('a')", "97", "INT");
    check("CHR(97)", "a", "STRING");
    check("PARSE_URL('http://u:p@h.org:80/a/b?k=v&l=w#r', 'HOST')", "h.org", "STRING");
    check("PARSE_URL('http://h.org/a/b?k=v&l=w#r', 'QUERY', 'l')", "w", "STRING");
    check_error("REGEXP('a', '(')", "the regular expression '(' is not valid: unclosed group");
    check_error("REGEXP('a', '(?=b)')", "look-around");
    check_error("REGEXP_REPLACE('a', 'a', '$')", "has a $ without a group");
}

#[test]
fn json() {
    let json = r#"'{"a": {"b": [1, "x", {"c": true}]}, "d": null, "e f": 1.5}'"#;
    check(&format!("JSON_VALUE({json}, '$.a.b[0]')"), "1", "STRING");
    check(&format!("JSON_VALUE({json}, 'lax $.a.b[1]')"), "x", "STRING");
    check(&format!("JSON_VALUE({json}, '$[''a''].b[2].c')"), "true", "STRING");
    check(&format!("JSON_VALUE({json}, '$.\"e f\"' RETURNING DOUBLE)"), "1.5", "DOUBLE");
    check(&format!("JSON_VALUE({json}, '$.d')"), "NULL", "STRING");
    check(&format!("JSON_VALUE({json}, '$.a')"), "NULL", "STRING");
    check(&format!("JSON_QUERY({json}, '$.a.b')"), r#"[1,"x",{"c":true}]"#, "STRING");
    check(&format!("JSON_QUERY({json}, '$.d')"), "NULL", "STRING");
    check(&format!("JSON_EXISTS({json}, '$.d')"), "true", "BOOLEAN");
    check(&format!("JSON_EXISTS({json}, '$.x')"), "false", "BOOLEAN");
    check("JSON_VALUE('{', '$.a')", "NULL", "STRING");
    check_error("JSON_VALUE('{}', 'a')", "does not begin with $");
    check_error("JSON_VALUE('{}', '$.a[*]')", "is not supported at '[*]'");
}

#[test]
fn everything_else() {
    check("IF(1 > 2, 'a', 'b')", "b", "STRING");
    check("IF(NULL, 1, CAST(2 AS DOUBLE))", "2.0", "DOUBLE");
    check("IF(1 > 0, 1, 1 / 0)", "1", "BIGINT");
    check("IFNULL(CAST(NULL AS INT), 5)", "5", "BIGINT");
    check("MOD(-7, 3)", "-1", "BIGINT");
    check("MOD(7.5, 2)", "1.5", "DOUBLE");
    check("GREATEST(1, CAST(2.5 AS DOUBLE), 2)", "2.5", "DOUBLE");
    check("LEAST('b', 'a')", "a", "STRING");
    check("GREATEST(1, CAST(NULL AS INT))", "NULL", "BIGINT");
    check("CARDINALITY(ARRAY[1, 2, 3])", "3", "INT");
    check("CARDINALITY(MAP['a', 1])", "1", "INT");
    check("ELEMENT(ARRAY[7])", "7", "BIGINT");
    check("ARRAY[1, 2][1]", "1", "BIGINT");
    check("MAP['a', 1]['a']", "1", "BIGINT");
    check("CAST(ROW(1, 'x') AS ROW<a INT, b STRING>)", "{a: 1, b: x}", "ROW<a INT, b STRING>");
    check("TRUNCATE(1.567, 2)", "1.56", "DOUBLE");
    check("LOG2(8)", "3.0", "DOUBLE");
    check("SIGN(-2.5)", "-1.0", "DOUBLE");
    check("HEX(255)", "FF", "STRING");
    check("HEX('abc')", "616263", "STRING");
    check("CAST(UNHEX('616263') AS STRING)", "abc", "STRING");
    check("BIN(10)", "1010", "STRING");
    check("TO_BASE64('hello')", "aGVsbG8=", "STRING");
    check("FROM_BASE64('aGVsbG8=')", "hello", "STRING");
    check("FROM_BASE64('?')", "NULL", "STRING");
    check("MD5('a')", "0cc175b9c0f1b6a831c399e269772661", "STRING");
    check("SHA256('a')", "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb", "STRING");
    check("CAST(1.5 AS DECIMAL(5, 2))", "1.50", "DECIMAL(5, 2)");
    check("CAST('2013-01-05 15:04:09.5' AS TIMESTAMP(3))", "2013-01-05T15:04:09.500", "TIMESTAMP(3)");
    check("CAST('a' AS BYTES)", "61", "BYTES");
    check("TRY_CAST('x' AS INT)", "NULL", "INT");
    check("EXTRACT(HOUR FROM TIMESTAMP '2013-01-05 15:04:09') > 14", "true", "BOOLEAN");
    check("TIMESTAMP '2013-01-05 00:00:00' + INTERVAL '1:30' MINUTE TO SECOND", "2013-01-05T00:01:30", "TIMESTAMP(6)");
    check("TIMESTAMP '2013-01-05 00:00:00' - INTERVAL '1 02:30' DAY TO MINUTE", "2013-01-03T21:30:00", "TIMESTAMP(6)");
    check_error("MOD(1, 0)", "Divide by zero");
    check_error("ELEMENT(ARRAY[1, 2])", "an array has 2 elements");
    check_error("CARDINALITY('x')", "CARDINALITY takes an array or a map, not STRING");
    check_error("IF(TRUE, 1, ARRAY[1])", "IF needs values of one type");
}

#[test]
fn columns_of_many_rows_are_computed_row_by_row() {
    fn check_rows(expr: &str, want: &str) {
        let values = "(VALUES ('a,b', 'x', 1), (NULL, 'y', 2), ('c,d', NULL, NULL), ('e', ',', -1)) AS t (s, u, n)";
        let got = run(&format!("SELECT {expr} FROM {values}")).unwrap_or_else(|error| panic!("{expr}: {error}"));
        assert_eq!(got.0, want, "{expr}");
    }
    check_rows("SPLIT_INDEX(s, ',', n)", "b | NULL | NULL | NULL");
    check_rows("CONCAT(s, u)", "a,bx | NULL | NULL | e,");
    check_rows("REGEXP_REPLACE(s, u, 'z')", "a,b | NULL | NULL | e");
    check_rows("IS_ALPHA(u)", "true | true | false | false");
    check_rows("FROM_UNIXTIME(n, 'ss')", "01 | 02 | NULL | 59");
    check_rows("MD5(u) IS NULL", "false | false | true | false");
    check_rows("LEAST(s, u)", "a,b | NULL | NULL | ,");
    check_rows("IF(n > 1, s, u)", "x | NULL | NULL | ,");
    check_rows(
        "TO_TIMESTAMP_LTZ(n, 3)",
        "1970-01-01T00:00:00.001Z | 1970-01-01T00:00:00.002Z | NULL | 1969-12-31T23:59:59.999Z",
    );
}

#[test]
fn every_function_says_how_it_is_called() {
    for (name, about) in flink_function_list() {
        assert!(about.to_lowercase().starts_with(&format!("{name}(")) && about.contains(": "), "{name}");
    }
    assert_eq!(flink_function_list().len(), flink_functions().len());
}
