//! JSON as Python's `json.dumps` writes it, which is what models were trained on.

use serde::Serialize;
use serde_json::{
    Value,
    ser::{Formatter, PrettyFormatter, Serializer},
};

/// One line, with a space after each comma and colon.
pub fn compact(value: &Value) -> String {
    write(value, Spaced)
}

/// Several lines.
pub fn indented(value: &Value, width: usize) -> String {
    write(value, PrettyFormatter::with_indent(" ".repeat(width).as_bytes()))
}

fn write(value: &Value, formatter: impl Formatter) -> String {
    let mut out = Vec::new();
    // Writing a Value to memory cannot fail.
    let _ = value.serialize(&mut Serializer::with_formatter(&mut out, formatter));
    String::from_utf8_lossy(&out).into_owned()
}

struct Spaced;

impl Formatter for Spaced {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn json_is_written_as_python_does() {
        let value = json!({"z": [1, "ü"], "a": {}});
        assert_eq!(compact(&value), r#"{"z": [1, "ü"], "a": {}}"#);
        assert_eq!(indented(&json!({"a": [1]}), 2), "{\n  \"a\": [\n    1\n  ]\n}");
    }
}
