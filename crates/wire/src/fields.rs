//! Typed access to the fields of a JSON object, with messages that name the field, the type it must have and
//! what was there instead. Serde's own messages speak of Rust types and lose the path.
//!
//! `null` is the same as absent everywhere: Go clients write it for an unset field.

use std::{cell::RefCell, collections::HashSet, fmt, ops::RangeInclusive};

use serde_json::{Map, Value};

use crate::{ApiError, limits};

/// A JSON object out of the body, or the reason why there is none.
pub(crate) fn parse_object(body: &[u8]) -> Result<Map<String, Value>, ApiError> {
    if body.trim_ascii().is_empty() {
        return Err(ApiError::invalid("body", "is empty; it must be a JSON object"));
    }
    let value = serde_json::from_slice(body)
        .map_err(|error| ApiError::invalid("body", format_args!("is not valid JSON: {error}")))?;
    match value {
        Value::Object(map) => Ok(map),
        other => Err(ApiError::invalid("body", format_args!("must be an object, got {}", kind(&other)))),
    }
}

/// Puts `value` into `slot` if there is one.
pub(crate) fn set<T>(slot: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *slot = value;
    }
}

/// An object whose fields are read one by one. It remembers which were asked for, so that the rest can be
/// reported.
pub(crate) struct Fields<'a> {
    path: String,
    map: &'a Map<String, Value>,
    read: RefCell<HashSet<&'static str>>,
}

impl<'a> Fields<'a> {
    pub(crate) fn root(map: &'a Map<String, Value>) -> Self {
        Self::at(String::new(), map)
    }

    /// The same for an object that stands at `path` in the body.
    pub(crate) fn at(path: String, map: &'a Map<String, Value>) -> Self {
        Self { path, map, read: RefCell::default() }
    }

    /// The field, unless it is absent or `null`.
    pub(crate) fn get(&self, name: &'static str) -> Option<Field<'a>> {
        self.read.borrow_mut().insert(name);
        let value = self.map.get(name).filter(|v| !v.is_null())?;
        Some(Field { path: self.path_of(name), value })
    }

    /// The full name of a field, for messages.
    pub(crate) fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// The field, which must be there.
    pub(crate) fn required(&self, name: &'static str) -> Result<Field<'a>, ApiError> {
        self.get(name).ok_or_else(|| ApiError::invalid(self.path_of(name), "is required"))
    }

    /// Names these fields as known although nothing here depends on them.
    pub(crate) fn ignore(&self, names: &[&'static str]) {
        self.read.borrow_mut().extend(names);
    }

    /// Names of the fields that nobody asked for and that are not `null`.
    pub(crate) fn unread(&self) -> Vec<&'a str> {
        let read = self.read.borrow();
        let unknown = |(name, value): &(&String, &Value)| !read.contains(name.as_str()) && !value.is_null();
        self.map.iter().filter(unknown).map(|(name, _)| name.as_str()).collect()
    }

    pub(crate) fn string(&self, name: &'static str) -> Result<Option<&'a str>, ApiError> {
        self.get(name).map(|f| f.string()).transpose()
    }

    /// The string, where an empty one is the same as none.
    pub(crate) fn filled_string(&self, name: &'static str) -> Result<Option<&'a str>, ApiError> {
        Ok(self.string(name)?.filter(|s| !s.is_empty()))
    }

    /// The same, as an owned text.
    pub(crate) fn owned_string(&self, name: &'static str) -> Result<Option<String>, ApiError> {
        Ok(self.filled_string(name)?.map(str::to_owned))
    }

    pub(crate) fn bool(&self, name: &'static str) -> Result<Option<bool>, ApiError> {
        self.get(name).map(|f| f.bool()).transpose()
    }

    pub(crate) fn int(
        &self,
        name: &'static str,
        range: RangeInclusive<i64>,
    ) -> Result<Option<i64>, ApiError> {
        self.get(name).map(|f| f.int(range)).transpose()
    }

    pub(crate) fn number(
        &self,
        name: &'static str,
        range: RangeInclusive<f64>,
    ) -> Result<Option<f32>, ApiError> {
        self.get(name).map(|f| f.number(range)).transpose()
    }

    pub(crate) fn object(&self, name: &'static str) -> Result<Option<Fields<'a>>, ApiError> {
        self.get(name).map(|f| f.object()).transpose()
    }

    /// The items of an array; none when it is absent.
    pub(crate) fn array(&self, name: &'static str, max: usize) -> Result<Vec<Field<'a>>, ApiError> {
        self.get(name).map_or(Ok(Vec::new()), |f| f.array(max))
    }
}

/// One value and where it stands.
pub(crate) struct Field<'a> {
    /// Its full name (`messages[0].content`).
    pub(crate) path: String,
    /// What is there; `null` only as an item of an array.
    pub(crate) value: &'a Value,
}

impl<'a> Field<'a> {
    /// An error that says what the value must be and what it is.
    pub(crate) fn must_be(&self, what: impl fmt::Display) -> ApiError {
        ApiError::invalid(&self.path, format_args!("must be {what}, got {}", kind(self.value)))
    }

    /// An error for a text of the right type that says something else.
    pub(crate) fn must_say(&self, what: impl fmt::Display) -> ApiError {
        let got = quoted(self.value.as_str().unwrap_or_default());
        ApiError::invalid(&self.path, format_args!("must be {what}, got {got}"))
    }

    pub(crate) fn string(&self) -> Result<&'a str, ApiError> {
        self.value.as_str().ok_or_else(|| self.must_be("a string"))
    }

    pub(crate) fn bool(&self) -> Result<bool, ApiError> {
        self.value.as_bool().ok_or_else(|| self.must_be("a boolean"))
    }

    /// An integer; `42.0` is one too, because JSON does not tell them apart.
    pub(crate) fn int(&self, range: RangeInclusive<i64>) -> Result<i64, ApiError> {
        let Value::Number(number) = self.value else { return Err(self.must_be("an integer")) };
        let float = number.as_f64().filter(|f| f.fract() == 0.0);
        match number.as_i64().or_else(|| float.filter(|f| f.abs() < 2_f64.powi(63)).map(|f| f as i64)) {
            Some(int) if range.contains(&int) => Ok(int),
            None if float.is_none() => {
                Err(ApiError::invalid(&self.path, format_args!("must be an integer, got {number}")))
            }
            _ => Err(self.out_of(&range, number)),
        }
    }

    /// A number, compared with the range before it is rounded to single precision.
    pub(crate) fn number(&self, range: RangeInclusive<f64>) -> Result<f32, ApiError> {
        let Value::Number(number) = self.value else { return Err(self.must_be("a number")) };
        match number.as_f64() {
            Some(float) if range.contains(&float) => Ok(float as f32),
            _ => Err(self.out_of(&range, number)),
        }
    }

    pub(crate) fn object(&self) -> Result<Fields<'a>, ApiError> {
        let map = self.value.as_object().ok_or_else(|| self.must_be("an object"))?;
        Ok(Fields::at(self.path.clone(), map))
    }

    pub(crate) fn array(&self, max: usize) -> Result<Vec<Field<'a>>, ApiError> {
        let items = self.value.as_array().ok_or_else(|| self.must_be("an array"))?;
        if items.len() > max {
            let rest = format_args!("has {} items, at most {max} are allowed", items.len()).to_string();
            return Err(ApiError::invalid(&self.path, rest));
        }
        Ok(items
            .iter()
            .enumerate()
            .map(|(i, value)| Field { path: format!("{}[{i}]", self.path), value })
            .collect())
    }

    fn out_of<T: fmt::Display>(&self, range: &RangeInclusive<T>, got: impl fmt::Display) -> ApiError {
        let (start, end) = (range.start(), range.end());
        ApiError::invalid(&self.path, format_args!("must be between {start} and {end}, got {got}"))
    }
}

/// A client's text for messages and headers: in quotes, on one line, and not longer than
/// [`limits::MAX_QUOTED_CHARS`].
pub(crate) fn quoted(text: &str) -> String {
    match text.char_indices().nth(limits::MAX_QUOTED_CHARS) {
        Some((end, _)) => format!("{:?}", text[..end].to_owned() + "…"),
        None => format!("{text:?}"),
    }
}

/// The JSON type of a value, for messages.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn int_of(value: &Value, range: RangeInclusive<i64>) -> Result<i64, String> {
        Field { path: "x".into(), value }.int(range).map_err(|e| e.message)
    }

    #[test]
    fn an_integer_may_be_written_with_a_fraction_of_zero() {
        assert_eq!(int_of(&json!(42.0), 0..=50), Ok(42));
        assert_eq!(int_of(&json!(-7), i64::MIN..=i64::MAX), Ok(-7));
        assert_eq!(int_of(&json!(1.5), 0..=50), Err("x must be an integer, got 1.5".into()));
        assert_eq!(int_of(&json!(51), 0..=50), Err("x must be between 0 and 50, got 51".into()));
        assert_eq!(int_of(&json!(1e300), 0..=50), Err("x must be between 0 and 50, got 1e+300".into()));
        assert_eq!(
            int_of(&json!(u64::MAX), 0..=50),
            Err(format!("x must be between 0 and 50, got {}", u64::MAX))
        );
        assert_eq!(int_of(&json!("3"), 0..=50), Err("x must be an integer, got string".into()));
    }

    #[test]
    fn null_is_the_same_as_absent_and_is_not_reported_as_unknown() {
        let map = parse_object(br#"{"a": null, "b": 1, "c": null, "d": 2}"#).unwrap();
        let fields = Fields::root(&map);
        assert_eq!(fields.bool("a"), Ok(None));
        assert_eq!(fields.int("b", 0..=9), Ok(Some(1)));
        assert_eq!(fields.unread(), ["d"]);
    }

    #[test]
    fn a_body_that_is_no_object_is_refused() {
        let message = |body: &[u8]| parse_object(body).unwrap_err().message;
        assert_eq!(message(b" "), "body is empty; it must be a JSON object");
        assert_eq!(message(b"[1]"), "body must be an object, got array");
        assert_eq!(
            message(b"{\"a\":"),
            "body is not valid JSON: EOF while parsing a value at line 1 column 5"
        );
        assert!(message(b"{\"a\":\"\xff\"}").contains("invalid unicode code point"));
        assert!(message("[".repeat(100_000).as_bytes()).contains("recursion limit"));
    }

    proptest! {
        #[test]
        fn a_number_is_read_exactly_when_it_is_in_the_range(number in -3.0..3.0_f64, low in -2.0..0.0_f64, high in 0.0..2.0_f64) {
            let value = json!(number);
            let read = Field { path: "x".into(), value: &value }.number(low..=high);
            prop_assert_eq!(read.is_ok(), (low..=high).contains(&number));
        }

        #[test]
        fn an_integer_reads_the_same_with_and_without_a_fraction(int in -(1_i64 << 53)..(1 << 53)) {
            let all = i64::MIN..=i64::MAX;
            prop_assert_eq!(int_of(&json!(int), all.clone()), Ok(int));
            prop_assert_eq!(int_of(&json!(int as f64), all), Ok(int));
        }

        #[test]
        fn a_quoted_text_stays_on_one_line_and_short(text: String) {
            let quoted = quoted(&text);
            prop_assert!(!quoted.contains(char::is_control));
            // Each character may need an escape such as `\u{10ffff}`.
            prop_assert!(quoted.len() <= limits::MAX_QUOTED_CHARS * 10 + 5);
        }
    }

    #[test]
    fn a_clients_text_is_repeated_on_one_line_and_only_in_part() {
        assert_eq!(quoted("a\r\nb\"é"), r#""a\r\nb\"é""#);
        assert_eq!(quoted(&"é".repeat(80)), format!("\"{}\"", "é".repeat(80)));
        assert_eq!(quoted(&"é".repeat(1 << 20)), format!("\"{}…\"", "é".repeat(80)));
    }

    #[test]
    fn an_array_over_its_limit_is_refused_with_both_numbers() {
        let value = json!([1, 2, 3]);
        let error = Field { path: "stop".into(), value: &value }.array(2).map(|_| ()).unwrap_err();
        assert_eq!(error.message, "stop has 3 items, at most 2 are allowed");
        assert_eq!(error.param.as_deref(), Some("stop"));
    }
}
