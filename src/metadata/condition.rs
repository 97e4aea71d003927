//! Conditions in SQL, such as `price < 80 and brand = 'X'`: what may stand in them.
//!
//! The text is read by the parser of Polars' SQL (`sqlparser`, its generic dialect), of which a condition takes what says
//! something about one row at a time.

use sqlparser::ast::{BinaryOperator, Expr, Function, Ident, Spanned, UnaryOperator, Value};
use sqlparser::dialect::GenericDialect;
use sqlparser::parser::{Parser, ParserError};
use sqlparser::tokenizer::{Location, Token};

use super::column::Column;
use super::evaluate::{Evaluation, Problem};
use crate::error::{Error, Result, similar};

/// The longest text of a condition.
const MAX_BYTES: usize = 32 << 10;
/// The largest number of operators on the way to a value.
const MAX_DEPTH: usize = 500;
/// Functions that take more than one row.
const AGGREGATES: [&str; 14] = [
    "avg", "sum", "count", "min", "max", "mean", "median", "std", "stddev", "var", "variance", "first", "last",
    "quantile",
];
/// Names that a message lists at most.
const LISTED_NAMES: usize = 30;

/// A parsed condition.
#[derive(Debug, Clone)]
pub struct Condition {
    setting: String,
    expression: Expr,
    /// The columns that it names.
    columns: Vec<Ident>,
}

impl Condition {
    /// Parses the text of the setting `setting`.
    ///
    /// # Errors
    /// [`Error::Config`] naming the setting and the position, if it is not an expression of SQL, or one that is not about
    /// one row at a time: aggregates, windows and subqueries.
    pub fn parse(setting: &str, text: &str) -> Result<Self> {
        let bad = |problem: &str| Err(Error::config(setting, problem));
        if text.trim().is_empty() {
            return bad("is empty; write a condition such as \"price < 80 and brand = 'X'\"");
        }
        if text.len() > MAX_BYTES {
            return bad(&format!("has {} bytes; at most {MAX_BYTES} are read", text.len()));
        }
        let expression = parsed(text).map_err(|problem| Error::config(setting, problem))?;
        let mut condition = Self { setting: setting.to_owned(), expression, columns: Vec::new() };
        condition.columns = columns_of(&condition.expression).map_err(|problem| condition.error(problem))?;
        Ok(condition)
    }

    /// The names of the columns that it reads, each once.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|it| it.value.as_str())
    }

    /// Checks that the columns are there: in the metadata (`of_metadata`) or the feature table (`of_features`).
    ///
    /// # Errors
    /// [`Error::Config`] naming the first that is not, its position and the columns that there are.
    pub(super) fn check_names(&self, of_metadata: &[String], of_features: &[String]) -> Result<()> {
        let all = || of_metadata.iter().chain(of_features);
        let Some(unknown) = self.columns.iter().find(|it| all().all(|name| *name != it.value)) else { return Ok(()) };
        let hint = if unknown.quote_style == Some('"') { " (text stands in single quotes)" } else { "" };
        let near = similar(&unknown.value, all().map(String::as_str));
        let listed: Vec<&str> = of_metadata.iter().take(LISTED_NAMES).map(String::as_str).collect();
        let more = if of_metadata.len() > LISTED_NAMES { ", ..." } else { "" };
        let there =
            if listed.is_empty() { "those".to_owned() } else { format!("{}{more} and those", listed.join(", ")) };
        let problem =
            format!("there is no column '{}'{hint}{near}; there are {there} of the feature table", unknown.value);
        Err(self.error((unknown.span.start, problem)))
    }

    /// For each of `rows` rows, whether it fulfils the condition; one for which it is null does not.
    ///
    /// # Errors
    /// [`Error::Config`] with the position of values that cannot be compared, or if the expression is not true or false.
    pub(super) fn fulfilled(&self, columns: &[Column], rows: usize) -> Result<Vec<bool>> {
        let evaluation = Evaluation { columns, rows };
        evaluation.condition(&self.expression).map_err(|problem| self.error(problem))
    }

    fn error(&self, (at, problem): Problem) -> Error {
        let place = if at.line == 0 { String::new() } else { format!(" (line {}, column {})", at.line, at.column) };
        Error::config(&self.setting, format!("{problem}{place}"))
    }
}

fn parsed(text: &str) -> Result<Expr, String> {
    let said = |cause: ParserError| match cause {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => {
            format!(
                "is not a condition: {}",
                text.replacen(" at Line: ", " at line ", 1).replace(", Column: ", ", column ")
            )
        }
        ParserError::RecursionLimitExceeded => "is nested too deeply; use fewer brackets".to_owned(),
    };
    let mut parser = Parser::new(&GenericDialect {}).try_with_sql(text).map_err(said)?;
    let expression = parser.parse_expr().map_err(said)?;
    let next = parser.peek_token();
    match next.token {
        Token::EOF => Ok(expression),
        token => {
            let Location { line, column } = next.span.start;
            Err(format!("is not one condition: found '{token}' after its end (line {line}, column {column})"))
        }
    }
}

/// The columns that an expression reads, if it has only what a condition may have. Not by recursion: a long chain of `and` is a
/// deep tree.
fn columns_of(expression: &Expr) -> Result<Vec<Ident>, Problem> {
    let (mut columns, mut left) = (Vec::<Ident>::new(), vec![(expression, 0)]);
    while let Some((it, depth)) = left.pop() {
        if depth > MAX_DEPTH {
            return Err((it.span().start, format!("has more than {MAX_DEPTH} operators in a row")));
        }
        if let Expr::Identifier(name) = it
            && !columns.iter().any(|known| known.value == name.value)
        {
            columns.push(name.clone());
        }
        left.extend(operands(it)?.into_iter().rev().map(|it| (it, depth + 1)));
    }
    Ok(columns)
}

/// The expressions within an expression, if a condition may have it.
fn operands(it: &Expr) -> Result<Vec<&Expr>, Problem> {
    use BinaryOperator::{And, Divide, Eq, Gt, GtEq, Lt, LtEq, Minus, Modulo, Multiply, NotEq, Or, Plus};
    let refused = |what: &str| Err((it.span().start, format!("{what}; a condition is about one row at a time")));
    match it {
        Expr::Identifier(_) => Ok(Vec::new()),
        Expr::Value(value) => match value.value {
            Value::Number(..) | Value::SingleQuotedString(_) | Value::Boolean(_) | Value::Null => Ok(Vec::new()),
            _ => Err((value.span.start, format!("{} is not a number, a 'text', true, false or null", value.value))),
        },
        Expr::Nested(of)
        | Expr::IsTrue(of)
        | Expr::IsNotTrue(of)
        | Expr::IsFalse(of)
        | Expr::IsNotFalse(of)
        | Expr::IsNull(of)
        | Expr::IsNotNull(of)
        | Expr::UnaryOp { op: UnaryOperator::Not | UnaryOperator::Minus | UnaryOperator::Plus, expr: of } => {
            Ok(vec![of])
        }
        Expr::BinaryOp { left, op, right } => match op {
            And | Or | Eq | NotEq | Lt | LtEq | Gt | GtEq | Plus | Minus | Multiply | Divide | Modulo => {
                Ok(vec![left, right])
            }
            _ => Err((right.span().start, format!("the operator {op} is not known here"))),
        },
        Expr::Between { expr, low, high, .. } => Ok(vec![expr, low, high]),
        Expr::InList { expr, list, .. } => Ok(std::iter::once(&**expr).chain(list).collect()),
        Expr::Like { any: false, expr, pattern, escape_char: None, .. }
        | Expr::ILike { any: false, expr, pattern, escape_char: None, .. } => Ok(vec![expr, pattern]),
        Expr::Function(of) => refused(&function(of)),
        Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => refused("a subquery is not known here"),
        Expr::CompoundIdentifier(parts) => {
            let name = parts.iter().map(|it| it.value.as_str()).collect::<Vec<_>>().join(".");
            Err((it.span().start, format!("a name with a dot stands in double quotes: \"{name}\"")))
        }
        other => Err((
            it.span().start,
            format!("'{other}' is not known here; use =, <>, <, >, and, or, not, in, between, like, is null"),
        )),
    }
}

/// What is wrong with a function.
fn function(of: &Function) -> String {
    let name = of.name.to_string();
    let is_window = of.over.is_some();
    match (is_window, AGGREGATES.contains(&name.to_lowercase().as_str())) {
        (true, _) => format!("{name}() over other rows is a window function"),
        (_, true) => format!("{name}() takes all rows together"),
        _ => format!("the function {name}() is not known here"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, BooleanArray, Date32Array, Float64Array, Int64Array, NullArray, StringArray};

    use super::*;
    use crate::metadata::Kind;

    fn columns() -> Vec<Column> {
        let column = |name: &str, kind, values: ArrayRef| Column { name: name.to_owned(), kind, values };
        let price = Float64Array::from(vec![Some(10.0), Some(79.99), Some(80.0), None]);
        let stock = Int64Array::from(vec![Some(0), Some(3), Some(i64::MAX), Some(5)]);
        let brand = StringArray::from(vec![Some("X"), Some("O'Neill"), None, Some("x; drop table items --")]);
        let sale = BooleanArray::from(vec![Some(true), Some(false), None, Some(true)]);
        // 1970-01-01, 1970-01-02, 2024-02-29.
        let added = Date32Array::from(vec![Some(0), Some(1), Some(19_782), None]);
        vec![
            column("price", Kind::Number, Arc::new(price)),
            column("stock", Kind::Integer, Arc::new(stock)),
            column("brand", Kind::Text, Arc::new(brand)),
            column("on sale", Kind::Boolean, Arc::new(sale)),
            column("added", Kind::Date, Arc::new(added)),
            column("note", Kind::Empty, Arc::new(NullArray::new(4))),
            column("sizes", Kind::Other("a List(Int64)".to_owned()), Arc::new(NullArray::new(4))),
        ]
    }

    fn rows(text: &str) -> Result<Vec<usize>> {
        let columns = columns();
        let condition = Condition::parse("recommend.where", text)?;
        let names: Vec<String> = columns.iter().map(|it| it.name.clone()).collect();
        condition.check_names(&names, &["dress_black".to_owned()])?;
        let fulfilled = condition.fulfilled(&columns, 4)?;
        Ok((0..4).filter(|&row| fulfilled[row]).collect())
    }

    #[test]
    fn rows_that_fulfil_it_are_found_and_null_does_not() -> Result<()> {
        for (text, expected) in [
            ("price < 80", &[0, 1][..]),
            ("price < 80 and brand = 'X' and stock > 0", &[]),
            ("price <= 80 and stock > 0", &[1, 2]),
            ("not price < 80", &[2]),
            ("price <> 80 or price is null", &[0, 1, 3]),
            ("brand = 'O''Neill'", &[1]),
            ("brand = 'x; drop table items --'", &[3]),
            ("brand in ('X', 'y')", &[0]),
            ("brand not in ('X', 'y')", &[1, 3]),
            ("brand like 'o%' or brand ilike 'o%'", &[1]),
            ("\"on sale\"", &[0, 3]),
            ("not \"on sale\"", &[1]),
            ("\"on sale\" is not true and stock between 3 and 5", &[1]),
            ("\"on sale\" = true", &[0, 3]),
            ("stock = 9223372036854775807", &[2]),
            ("stock / 2 > 1.4 and stock < 10", &[1, 3]),
            ("(price + 1) * 2 = 22", &[0]),
            ("stock % 2 = 1 and -stock < -3", &[2, 3]),
            ("1 / (stock - 3) > 100", &[1]),
            ("stock % (stock - 3) = 0", &[0]),
            ("added >= '1970-01-02'", &[1, 2]),
            ("note = 1 or note is null", &[0, 1, 2, 3]),
            ("note = 'x'", &[]),
            ("null", &[]),
            ("1 = 1", &[0, 1, 2, 3]),
            ("price = null", &[]),
        ] {
            assert_eq!(rows(text)?, expected, "{text}");
        }
        Ok(())
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (text, named) in [
            ("", "is empty"),
            ("prise < 80", "no column 'prise' (did you mean 'price'?); there are price, stock"),
            (
                "price < 80 and\n  Brand = 'X'",
                "no column 'Brand' (did you mean 'brand'?); there are price, stock, brand, on sale, added, note, sizes and those of the feature table (line 2, column 3)",
            ),
            ("brand = \"X\"", "no column 'X' (text stands in single quotes)"),
            ("price < ", "found: EOF"),
            ("price < 80; drop table x", "found ';' after its end (line 1, column 11)"),
            ("price << 80", "the operator << is not known here"),
            ("brand < 80", "'brand' is text, '80' is a number: they do not compare (line 1, column 1)"),
            ("price < 'cheap'", "'price' is a number, 'cheap' is text: they do not compare (line 1, column 1)"),
            ("added > 'soon'", "'soon' is not a date"),
            ("price + brand > 1", "'brand' is text; arithmetic takes numbers (line 1, column 9)"),
            ("price", "is a number, not a condition (line 1, column 1)"),
            ("brand and price < 1", "'brand' is text, not a condition (line 1, column 1)"),
            (
                "price < avg(price)",
                "avg() takes all rows together; a condition is about one row at a time (line 1, column 9)",
            ),
            ("sum(price) over () > 1", "window function"),
            ("lower(brand) = 'x'", "the function lower() is not known here"),
            ("price in (select 1)", "a subquery is not known here"),
            ("items.price < 1", "\"items.price\""),
            ("sizes = 1", "'sizes' is a List(Int64)"),
            ("stock + 9223372036854775807 > 0", "overflows"),
            ("price < 1e400", "1e400 is not a number that fits"),
            ("x'00' = 1", "is not a number, a 'text'"),
        ] {
            let error = rows(text).expect_err(text);
            assert!(error.to_string().contains(named), "{text}: {error}");
            assert!(error.to_string().contains("recommend.where"), "{error}");
            assert_eq!(error.exit_code(), 2);
        }
    }

    #[test]
    fn long_and_deep_conditions_end_in_a_message() {
        let chain = |count| vec!["price = 1"; count].join(" or ");
        assert!(rows(&chain(400)).is_ok());
        assert!(rows(&chain(2000)).expect_err("too many").to_string().contains("operators in a row"));
        let brackets = format!("{}price = 1{}", "(".repeat(5000), ")".repeat(5000));
        assert!(rows(&brackets).expect_err("too deep").to_string().contains("nested too deeply"));
        assert!(rows(&chain(10_000)).expect_err("too long").to_string().contains("bytes"));
    }
}
