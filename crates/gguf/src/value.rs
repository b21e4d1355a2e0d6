//! Metadata values.

use serde_json::json;

use crate::{
    ByteSource, GgufError,
    cursor::Cursor,
    limits::{ARRAY_DEPTH_MAX, ARRAY_ITEMS_KEPT, ARRAY_ITEMS_MAX, STRING_BYTES_MAX},
};

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Any unsigned integer type.
    Unsigned(u64),
    /// Any signed integer type.
    Signed(i64),
    /// Either float type.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// Text.
    Text(String),
    /// A short array.
    Array(Vec<Self>),
    /// An array too long to keep.
    LongArray {
        /// The elements' type, by its number in the format.
        kind: u32,
        /// How many elements it has.
        items: u64,
    },
}

impl Value {
    /// The value as an unsigned integer, if it is one that is not negative.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Unsigned(value) => Some(*value),
            Self::Signed(value) => u64::try_from(*value).ok(),
            _ => None,
        }
    }

    /// The value as text.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The value as JSON; a long array is null.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Unsigned(value) => json!(value),
            Self::Signed(value) => json!(value),
            Self::Float(value) => json!(value),
            Self::Bool(value) => json!(value),
            Self::Text(text) => json!(text),
            Self::Array(items) => items.iter().map(Self::to_json).collect(),
            Self::LongArray { .. } => serde_json::Value::Null,
        }
    }

    /// Reads a value of the type with this number.
    pub(crate) fn read<S: ByteSource + ?Sized>(
        cursor: &mut Cursor<'_, S>,
        kind: u32,
    ) -> Result<Self, GgufError> {
        read(cursor, kind, 0)
    }
}

const TEXT: u32 = 8;
const ARRAY: u32 = 9;

fn read<S: ByteSource + ?Sized>(
    cursor: &mut Cursor<'_, S>,
    kind: u32,
    depth: u32,
) -> Result<Value, GgufError> {
    Ok(match kind {
        0 => Value::Unsigned(cursor.array::<1>()?[0].into()),
        1 => Value::Signed(i8::from_le_bytes(cursor.array()?).into()),
        2 => Value::Unsigned(u16::from_le_bytes(cursor.array()?).into()),
        3 => Value::Signed(i16::from_le_bytes(cursor.array()?).into()),
        4 => Value::Unsigned(cursor.u32()?.into()),
        5 => Value::Signed(i32::from_le_bytes(cursor.array()?).into()),
        6 => Value::Float(f32::from_le_bytes(cursor.array()?).into()),
        7 => Value::Bool(cursor.array::<1>()?[0] != 0),
        TEXT => Value::Text(cursor.string("a string", STRING_BYTES_MAX)?),
        ARRAY => read_array(cursor, depth + 1)?,
        10 => Value::Unsigned(cursor.u64()?),
        11 => Value::Signed(i64::from_le_bytes(cursor.array()?)),
        12 => Value::Float(f64::from_le_bytes(cursor.array()?)),
        found => return Err(GgufError::UnknownType { what: "metadata", found }),
    })
}

fn read_array<S: ByteSource + ?Sized>(cursor: &mut Cursor<'_, S>, depth: u32) -> Result<Value, GgufError> {
    if depth > ARRAY_DEPTH_MAX {
        let (found, limit) = (depth.into(), ARRAY_DEPTH_MAX.into());
        return Err(GgufError::TooLarge { what: "the depth of an array", found, limit });
    }
    let kind = cursor.u32()?;
    let items = cursor.bounded("the length of an array", ARRAY_ITEMS_MAX)?;
    if items <= ARRAY_ITEMS_KEPT && cursor.keep_items(items) {
        return (0..items).map(|_| read(cursor, kind, depth)).collect::<Result<_, _>>().map(Value::Array);
    }
    match (fixed_bytes(kind), kind) {
        (Some(bytes), _) => cursor.skip(items * bytes)?,
        (None, TEXT) => skip_strings(cursor, items)?,
        (None, ARRAY) => {
            for _ in 0..items {
                read_array(cursor, depth + 1)?;
            }
        }
        (None, found) => return Err(GgufError::UnknownType { what: "array", found }),
    }
    Ok(Value::LongArray { kind, items })
}

fn skip_strings<S: ByteSource + ?Sized>(cursor: &mut Cursor<'_, S>, items: u64) -> Result<(), GgufError> {
    for _ in 0..items {
        let length = cursor.bounded("a string", STRING_BYTES_MAX)?;
        cursor.skip(length)?;
    }
    Ok(())
}

const fn fixed_bytes(kind: u32) -> Option<u64> {
    match kind {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
}
