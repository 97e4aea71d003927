//! Conditions in SQL: what they are for each row.
//!
//! Comparisons are those of Polars' SQL: numbers of both kinds compare as numbers, `and` and `or` know null (Kleene), `/` is
//! a division of numbers with a fraction. Dates and times also compare with text that says one. What has no value is null,
//! NaN and a division of zero by zero included.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, Scalar, StringArray, new_null_array,
};
use arrow::compute::kernels::{cmp, numeric};
use arrow::compute::{
    CastOptions, and_kleene, cast, cast_with_options, ilike, is_not_null, is_null, like, not, nullif, or_kleene,
};
use arrow::datatypes::{DataType, Float64Type, TimeUnit};
use arrow::error::ArrowError;
use sqlparser::ast::{BinaryOperator, Expr, Spanned, UnaryOperator, Value};
use sqlparser::tokenizer::Location;

use super::column::{Column, Kind};
use super::read::numbers;

/// What is wrong with an expression, and where that begins.
pub(super) type Problem = (Location, String);

/// The columns that an expression is about.
pub(super) struct Evaluation<'a> {
    pub(super) columns: &'a [Column],
    pub(super) rows: usize,
}

/// The values of an expression: one for each row, or one for all.
struct Values {
    kind: Kind,
    array: ArrayRef,
    is_one: bool,
}

type Evaluated<T> = Result<T, Problem>;

impl Evaluation<'_> {
    /// Whether each row fulfils an expression.
    pub(super) fn condition(&self, it: &Expr) -> Evaluated<Vec<bool>> {
        let values = self.truth(it)?;
        Ok(values.iter().map(|it| it == Some(true)).collect())
    }

    /// An expression that is true, false or null for each row.
    fn truth(&self, it: &Expr) -> Evaluated<BooleanArray> {
        let values = self.values(it)?;
        let array = match values.kind {
            Kind::Boolean => values.array,
            Kind::Empty => new_null_array(&DataType::Boolean, values.array.len()),
            kind => return Err((it.span().start, format!("{} is {kind}, not a condition", quoted(it)))),
        };
        let array = array.as_boolean();
        if !values.is_one {
            return Ok(array.clone());
        }
        let of_all = array.iter().next().flatten();
        Ok(std::iter::repeat_n(of_all, self.rows).collect())
    }

    fn values(&self, it: &Expr) -> Evaluated<Values> {
        let whole = |array: BooleanArray| Ok(Values { kind: Kind::Boolean, array: Arc::new(array), is_one: false });
        match it {
            Expr::Nested(of) => self.values(of),
            Expr::Identifier(name) => {
                let column = self.columns.iter().find(|it| it.name == name.value);
                let column = column.ok_or_else(|| (name.span.start, format!("there is no column '{}'", name.value)))?;
                Ok(Values { kind: column.kind.clone(), array: column.values.clone(), is_one: false })
            }
            Expr::Value(value) => constant(&value.value).map_err(|problem| (value.span.start, problem)),
            Expr::UnaryOp { op: UnaryOperator::Not, expr } => whole(not(&self.truth(expr)?).map_err(failed(it))?),
            Expr::UnaryOp { op: UnaryOperator::Minus, expr } => {
                let of = self.number(expr)?;
                Ok(Values { array: numeric::neg(&of.array).map_err(failed(it))?, ..of })
            }
            Expr::UnaryOp { expr, .. } => self.number(expr),
            Expr::IsNull(of) => whole(self.spread(is_null(&self.values(of)?.array).map_err(failed(it))?)),
            Expr::IsNotNull(of) => whole(self.spread(is_not_null(&self.values(of)?.array).map_err(failed(it))?)),
            // As for Polars, what is not true is false, and not null.
            Expr::IsTrue(of) | Expr::IsNotFalse(of) => whole(self.is(of, true)?),
            Expr::IsFalse(of) | Expr::IsNotTrue(of) => whole(self.is(of, false)?),
            Expr::BinaryOp { left, op, right } => self.binary(it, left, op, right),
            Expr::Between { expr, negated, low, high } => {
                let above = self.compared(expr, &BinaryOperator::GtEq, low)?;
                let below = self.compared(expr, &BinaryOperator::LtEq, high)?;
                whole(negate(and_kleene(&above, &below), *negated).map_err(failed(it))?)
            }
            Expr::InList { expr, list, negated } => {
                let mut found = BooleanArray::from(vec![false; self.rows]);
                for one in list {
                    let equal = self.compared(expr, &BinaryOperator::Eq, one)?;
                    found = or_kleene(&found, &equal).map_err(failed(it))?;
                }
                whole(negate(Ok(found), *negated).map_err(failed(it))?)
            }
            Expr::Like { negated, expr, pattern, .. } => whole(self.like(it, [expr, pattern], *negated, like)?),
            Expr::ILike { negated, expr, pattern, .. } => whole(self.like(it, [expr, pattern], *negated, ilike)?),
            other => Err((other.span().start, format!("'{other}' is not known here"))),
        }
    }

    /// Whether an expression is `wanted`, which it is not if it is null.
    fn is(&self, it: &Expr, wanted: bool) -> Evaluated<BooleanArray> {
        Ok(self.truth(it)?.iter().map(|it| Some(it == Some(wanted))).collect())
    }

    fn binary(&self, it: &Expr, left: &Expr, op: &BinaryOperator, right: &Expr) -> Evaluated<Values> {
        let logical = match op {
            BinaryOperator::And => and_kleene(&self.truth(left)?, &self.truth(right)?).map_err(failed(it))?,
            BinaryOperator::Or => or_kleene(&self.truth(left)?, &self.truth(right)?).map_err(failed(it))?,
            BinaryOperator::Plus
            | BinaryOperator::Minus
            | BinaryOperator::Multiply
            | BinaryOperator::Divide
            | BinaryOperator::Modulo => return self.arithmetic(it, left, op, right),
            _ => self.compared(left, op, right)?,
        };
        Ok(Values { kind: Kind::Boolean, array: Arc::new(logical), is_one: false })
    }

    fn compared(&self, left: &Expr, op: &BinaryOperator, right: &Expr) -> Evaluated<BooleanArray> {
        let (a, b) = alike(left, self.values(left)?, right, self.values(right)?)?;
        let compare = match op {
            BinaryOperator::Eq => cmp::eq,
            BinaryOperator::NotEq => cmp::neq,
            BinaryOperator::Lt => cmp::lt,
            BinaryOperator::LtEq => cmp::lt_eq,
            BinaryOperator::Gt => cmp::gt,
            _ => cmp::gt_eq,
        };
        self.over(&a, &b, compare).map_err(failed(left))
    }

    /// A kernel's answer for each row.
    fn over(
        &self,
        a: &Values,
        b: &Values,
        kernel: impl Fn(&dyn arrow::array::Datum, &dyn arrow::array::Datum) -> Result<BooleanArray, ArrowError>,
    ) -> Result<BooleanArray, ArrowError> {
        let one = |it: &Values| Scalar::new(it.array.clone());
        let answer = match (a.is_one, b.is_one) {
            (true, false) => kernel(&one(a), &b.array),
            (false, true) => kernel(&a.array, &one(b)),
            _ => kernel(&a.array, &b.array),
        }?;
        Ok(if a.is_one && b.is_one { self.spread(answer) } else { answer })
    }

    /// One answer for all rows as one for each.
    fn spread(&self, answer: BooleanArray) -> BooleanArray {
        if answer.len() == self.rows {
            return answer;
        }
        let of_all = answer.iter().next().flatten();
        std::iter::repeat_n(of_all, self.rows).collect()
    }

    fn like(
        &self,
        it: &Expr,
        [text, pattern]: [&Expr; 2],
        negated: bool,
        kernel: fn(&dyn arrow::array::Datum, &dyn arrow::array::Datum) -> Result<BooleanArray, ArrowError>,
    ) -> Evaluated<BooleanArray> {
        let texts = |it: &Expr| match self.values(it)? {
            values if values.kind == Kind::Text => Ok(values),
            values if values.kind == Kind::Empty => Ok(Values { array: null_like(&values, &DataType::Utf8), ..values }),
            values => Err((it.span().start, format!("{} is {}; like takes text", quoted(it), values.kind))),
        };
        let (a, b) = (texts(text)?, texts(pattern)?);
        negate(self.over(&a, &b, kernel), negated).map_err(failed(it))
    }

    fn arithmetic(&self, it: &Expr, left: &Expr, op: &BinaryOperator, right: &Expr) -> Evaluated<Values> {
        let (mut a, mut b) = (self.number(left)?, self.number(right)?);
        if *op == BinaryOperator::Divide || a.kind != b.kind {
            (a, b) = (as_numbers(a), as_numbers(b));
        }
        if *op == BinaryOperator::Modulo && b.kind == Kind::Integer {
            let zero = cmp::eq(&b.array, &Scalar::new(Int64Array::from(vec![0]))).map_err(failed(it))?;
            b.array = nullif(&b.array, &zero).map_err(failed(it))?;
        }
        let kernel = match op {
            BinaryOperator::Plus => numeric::add,
            BinaryOperator::Minus => numeric::sub,
            BinaryOperator::Multiply => numeric::mul,
            BinaryOperator::Divide => numeric::div,
            _ => numeric::rem,
        };
        let one = |it: &Values| Scalar::new(it.array.clone());
        let array = match (a.is_one, b.is_one) {
            (true, false) => kernel(&one(&a), &b.array),
            (false, true) => kernel(&a.array, &one(&b)),
            _ => kernel(&a.array, &b.array),
        };
        let overflows = |_| (it.span().start, format!("'{it}' overflows: a result is too large"));
        let array = array.map_err(overflows)?;
        let array = if a.kind == Kind::Number { numbers(array.as_primitive::<Float64Type>().iter()) } else { array };
        Ok(Values { kind: a.kind, array, is_one: a.is_one && b.is_one })
    }

    /// The numbers of an expression.
    fn number(&self, it: &Expr) -> Evaluated<Values> {
        let values = self.values(it)?;
        match values.kind {
            Kind::Integer | Kind::Number => Ok(values),
            Kind::Empty => Ok(as_numbers(values)),
            kind => Err((it.span().start, format!("{} is {kind}; arithmetic takes numbers", quoted(it)))),
        }
    }
}

/// The constant that a text of SQL stands for.
fn constant(value: &Value) -> Result<Values, String> {
    let (kind, array): (Kind, ArrayRef) = match value {
        Value::Boolean(it) => (Kind::Boolean, Arc::new(BooleanArray::from(vec![*it]))),
        Value::SingleQuotedString(it) => (Kind::Text, Arc::new(StringArray::from(vec![it.as_str()]))),
        Value::Number(text, _) => match (text.parse::<i64>(), text.parse::<f64>()) {
            (Ok(it), _) => (Kind::Integer, Arc::new(Int64Array::from(vec![it]))),
            (_, Ok(it)) if it.is_finite() => (Kind::Number, Arc::new(Float64Array::from(vec![it]))),
            _ => return Err(format!("{text} is not a number that fits")),
        },
        _ => (Kind::Empty, new_null_array(&DataType::Null, 1)),
    };
    Ok(Values { kind, array, is_one: true })
}

/// Two sides of a comparison in one type.
fn alike(left: &Expr, a: Values, right: &Expr, b: Values) -> Evaluated<(Values, Values)> {
    use Kind::{Boolean, Date, Empty, Integer, Number, Text, Time};
    let unlike = |a: &Values, b: &Values| {
        let problem = match (&a.kind, &b.kind) {
            (Kind::Other(_), _) => format!("{} is {}, which does not compare", quoted(left), a.kind),
            (_, Kind::Other(_)) => format!("{} is {}, which does not compare", quoted(right), b.kind),
            _ => format!("{} is {}, {} is {}: they do not compare", quoted(left), a.kind, quoted(right), b.kind),
        };
        Err((left.span().start, problem))
    };
    let time = || DataType::Timestamp(TimeUnit::Microsecond, None);
    Ok(match (&a.kind, &b.kind) {
        (Kind::Other(_), _) | (_, Kind::Other(_)) => return unlike(&a, &b),
        (Boolean, Boolean) | (Integer, Integer) | (Number, Number) | (Text, Text) | (Date, Date) | (Time, Time) => {
            (a, b)
        }
        (Empty, _) => (Values { array: null_like(&a, b.array.data_type()), ..a }, b),
        (_, Empty) => (Values { array: null_like(&b, a.array.data_type()), kind: b.kind, is_one: b.is_one }, a),
        (Integer | Number, Integer | Number) => (as_numbers(a), as_numbers(b)),
        (Date, Time) | (Time, Date) => (recast(left, &a, Time, &time())?, recast(right, &b, Time, &time())?),
        (Date | Time, Text) if b.is_one => {
            let (kind, to) = (a.kind.clone(), a.array.data_type().clone());
            (a, recast(right, &b, kind, &to)?)
        }
        (Text, Date | Time) if a.is_one => {
            let (kind, to) = (b.kind.clone(), b.array.data_type().clone());
            (recast(left, &a, kind, &to)?, b)
        }
        _ => return unlike(&a, &b),
    })
}

/// As many nulls of the type `to`.
fn null_like(values: &Values, to: &DataType) -> ArrayRef {
    new_null_array(to, values.array.len())
}

fn as_numbers(values: Values) -> Values {
    let array = match values.kind {
        Kind::Number => values.array,
        _ => cast(&values.array, &DataType::Float64).expect("integers and nulls are numbers"),
    };
    Values { kind: Kind::Number, array, is_one: values.is_one }
}

/// Dates and times in another type, and text that says one.
fn recast(it: &Expr, values: &Values, kind: Kind, to: &DataType) -> Evaluated<Values> {
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let array = cast_with_options(&values.array, to, &strict);
    let array = array.map_err(|_| (it.span().start, format!("{} is not {kind}", quoted(it))))?;
    Ok(Values { kind, array, is_one: values.is_one })
}

fn negate(values: Result<BooleanArray, ArrowError>, negated: bool) -> Result<BooleanArray, ArrowError> {
    let values = values?;
    if negated { not(&values) } else { Ok(values) }
}

/// An expression in a message.
fn quoted(it: &Expr) -> String {
    let text = it.to_string();
    if text.starts_with('\'') { text } else { format!("'{}'", text.trim_matches('"')) }
}

fn failed(it: &Expr) -> impl Fn(ArrowError) -> Problem {
    let at = it.span().start;
    move |cause| (at, cause.to_string())
}
