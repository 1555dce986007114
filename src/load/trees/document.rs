//! A JSON-like document, whichever way it was written, with accessors that say what is wrong
//! and where.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use crate::kernel::tree::builder::TreeError;
use crate::load::json;

/// A value. A list of numbers and truth values is kept as plain numbers, 8 bytes each: model
/// files consist of little else.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Number(f64),
    Text(String),
    Numbers(Vec<f64>),
    List(Vec<Value>),
    Object(Vec<(String, Value)>),
}

/// Part of a file that is not as it has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wrong(pub(super) String);

impl Wrong {
    pub(super) fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

impl From<TreeError> for Wrong {
    fn from(error: TreeError) -> Self {
        Self(error.to_string())
    }
}

impl Value {
    /// Reads JSON into no more than this many bytes. Nesting is bounded by the parser.
    pub(super) fn from_json(bytes: &[u8], budget: u64) -> Result<Self, Wrong> {
        Self::from_json_in(bytes, &Room::new(budget))
    }

    /// Reads JSON into the room that is left.
    pub(super) fn from_json_in(bytes: &[u8], room: &Room) -> Result<Self, Wrong> {
        json::read(bytes, room).map_err(Wrong)
    }

    /// The member of this name.
    pub(super) fn find(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => members.iter().find(|(n, _)| n == name).map(|(_, v)| v),
            _ => None,
        }
    }

    const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Number(_) => "a number",
            Self::Text(_) => "text",
            Self::Numbers(_) => "numbers",
            Self::List(_) => "a list",
            Self::Object(_) => "an object",
        }
    }
}

/// A value together with the way to it, for errors.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field<'a> {
    pub(super) value: &'a Value,
    parent: Option<&'a Field<'a>>,
    name: Step<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Root,
    Member(&'a str),
    Item(usize),
}

impl<'a> Field<'a> {
    pub(super) const fn root(value: &'a Value) -> Self {
        Self { value, parent: None, name: Step::Root }
    }

    /// The member of this name.
    pub(super) fn get(&'a self, name: &'a str) -> Result<Field<'a>, Wrong> {
        self.find(name).ok_or_else(|| match self.value {
            Value::Object(_) if self.parent.is_none() => Wrong::new(format!("no field `{name}`")),
            Value::Object(_) => Wrong::new(format!("no field `{self}.{name}`")),
            _ => self.expected("an object"),
        })
    }

    /// The member of this name, if there is one and it is not null.
    pub(super) fn find(&'a self, name: &'a str) -> Option<Field<'a>> {
        let value = self.value.find(name).filter(|v| **v != Value::Null)?;
        Some(Field { value, parent: Some(self), name: Step::Member(name) })
    }

    /// The members of an object with their names, but those that are null; none of anything else.
    pub(super) fn members(&'a self) -> impl Iterator<Item = (&'a str, Field<'a>)> {
        let members: &[(String, Value)] = if let Value::Object(members) = self.value { members } else { &[] };
        members.iter().filter(|(_, value)| *value != Value::Null).map(|(name, value)| {
            (name.as_str(), Field { value, parent: Some(self), name: Step::Member(name) })
        })
    }

    /// The items of a list that is not all numbers.
    pub(super) fn items(&'a self) -> Result<impl Iterator<Item = Field<'a>>, Wrong> {
        let values: &[Value] = match self.value {
            Value::List(values) => values,
            // An empty list is read as one of numbers.
            Value::Numbers(numbers) if numbers.is_empty() => &[],
            _ => return Err(self.expected("a list")),
        };
        Ok(values.iter().enumerate().map(|(at, value)| Field {
            value,
            parent: Some(self),
            name: Step::Item(at),
        }))
    }

    pub(super) fn numbers(&self) -> Result<&'a [f64], Wrong> {
        match self.value {
            Value::Numbers(numbers) => Ok(numbers),
            Value::List(list) if list.is_empty() => Ok(&[]),
            _ => Err(self.expected("numbers")),
        }
    }

    /// Numbers, exactly as many as expected.
    pub(super) fn exactly(&self, expected: usize) -> Result<&'a [f64], Wrong> {
        let numbers = self.numbers()?;
        if numbers.len() == expected {
            return Ok(numbers);
        }
        Err(Wrong::new(format!("`{self}`: expected {expected} values, found {}", numbers.len())))
    }

    pub(super) fn text(&self) -> Result<&'a str, Wrong> {
        match self.value {
            Value::Text(text) => Ok(text),
            _ => Err(self.expected("text")),
        }
    }

    /// A number, or text that is one: `XGBoost` writes its parameters as text.
    pub(super) fn number(&self) -> Result<f64, Wrong> {
        match self.value {
            Value::Number(number) => Ok(*number),
            Value::Text(text) => text.trim().parse().map_err(|_| self.expected("a number")),
            _ => Err(self.expected("a number")),
        }
    }

    /// A whole number from 0 to `limit`.
    pub(super) fn count(&self, limit: usize) -> Result<usize, Wrong> {
        count(self.number()?, limit).ok_or_else(|| self.expected(&format!("a whole number up to {limit}")))
    }

    pub(super) fn expected(&self, what: &str) -> Wrong {
        let found = match self.value {
            Value::Number(number) => number.to_string(),
            Value::Text(text) if text.len() <= 40 => format!("`{text}`"),
            other => other.kind().to_owned(),
        };
        Wrong::new(format!("`{self}`: expected {what}, found {found}"))
    }
}

impl fmt::Display for Field<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.name {
            Step::Root => Ok(()),
            Step::Member(name) if self.parent.is_some_and(|p| p.parent.is_none()) => f.write_str(name),
            Step::Member(name) => write!(f, ".{name}"),
            Step::Item(at) => write!(f, "[{at}]"),
        }
    }
}

/// The number as a count, where it is a whole one from 0 to `limit`.
pub(super) fn count(number: f64, limit: usize) -> Option<usize> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be in range")]
    let count = number as usize;
    #[expect(clippy::cast_precision_loss, reason = "a number that does not come back is refused")]
    let exact = count as f64 == number;
    (number >= 0.0 && exact && count <= limit).then_some(count)
}

/// The memory that a document may still take: an empty list of two bytes becomes a value of many.
#[derive(Debug)]
pub(super) struct Room {
    left: Cell<u64>,
    budget: u64,
}

impl Room {
    pub(super) const fn new(budget: u64) -> Self {
        Self { left: Cell::new(budget), budget }
    }

    /// Takes the memory of a value: its own, where it is not one of a list of numbers, and that of
    /// its text. Lists grow by doubling, so that half of one may be room.
    pub(super) fn take(&self, values: usize, text: usize) -> Result<(), Wrong> {
        let needed = (2 * values * size_of::<Value>()).saturating_add(text) as u64;
        let left = self.left.get().checked_sub(needed);
        self.left.set(left.ok_or_else(|| {
            Wrong::new(format!("its values take more memory than the budget of {} bytes", self.budget))
        })?);
        Ok(())
    }
}

impl<'a> json::Value<'a> for Value {
    type List = ListBuilder;
    type Room = Room;

    fn take(room: &Room, values: usize, text: usize) -> Result<(), String> {
        room.take(values, text).map_err(|Wrong(reason)| reason)
    }
    fn null() -> Self {
        Self::Null
    }
    fn truth(truth: bool) -> Self {
        Self::Number(f64::from(u8::from(truth)))
    }
    fn number(text: &'a str) -> Self {
        Self::Number(text.parse().unwrap_or(f64::NAN))
    }
    fn text(text: Cow<'a, str>) -> Self {
        Self::Text(text.into_owned())
    }
    fn push(list: &mut ListBuilder, item: Self, room: &Room) -> Result<(), String> {
        list.push(item, room).map_err(|Wrong(reason)| reason)
    }
    fn list(list: ListBuilder) -> Self {
        list.finish()
    }
    fn object(members: Vec<(Cow<'a, str>, Self)>) -> Self {
        Self::Object(members.into_iter().map(|(name, value)| (name.into_owned(), value)).collect())
    }
}

/// Collects a list that stays one of plain numbers as long as it can.
#[derive(Debug, Default)]
pub(super) struct ListBuilder {
    numbers: Vec<f64>,
    values: Vec<Value>,
}

impl ListBuilder {
    pub(super) fn push(&mut self, value: Value, room: &Room) -> Result<(), Wrong> {
        match value {
            Value::Number(number) if self.values.is_empty() => {
                room.take(0, 2 * size_of::<f64>())?;
                self.numbers.push(number);
            }
            value => {
                room.take(self.numbers.len() + 1, 0)?;
                self.values.extend(self.numbers.drain(..).map(Value::Number));
                self.values.push(value);
            }
        }
        Ok(())
    }

    pub(super) fn finish(self) -> Value {
        if self.values.is_empty() { Value::Numbers(self.numbers) } else { Value::List(self.values) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_plain_and_mixed_lists_keep_their_order() {
        let value = Value::from_json(br#"{"a":[1,true,-2.5],"b":[1,"x",null],"c":[]}"#, 1 << 20).unwrap();
        assert_eq!(value.find("a"), Some(&Value::Numbers(vec![1.0, 1.0, -2.5])));
        let mixed = vec![Value::Number(1.0), Value::Text("x".into()), Value::Null];
        assert_eq!(value.find("b"), Some(&Value::List(mixed)));
        let root = Field::root(&value);
        assert_eq!(root.get("c").unwrap().items().unwrap().count(), 0);
    }

    #[test]
    fn errors_name_the_way_to_the_field() {
        let value = Value::from_json(br#"{"trees":[{"depth":"deep"}]}"#, 1 << 20).unwrap();
        let root = Field::root(&value);
        let trees = root.get("trees").unwrap();
        let tree = trees.items().unwrap().next().unwrap();
        let depth = tree.get("depth").unwrap();
        assert_eq!(depth.count(8).unwrap_err().0, "`trees[0].depth`: expected a number, found `deep`");
        assert_eq!(tree.get("size").unwrap_err().0, "no field `trees[0].size`");
        assert_eq!(
            root.get("trees").unwrap().numbers().unwrap_err().0,
            "`trees`: expected numbers, found a list"
        );
    }

    #[test]
    fn deep_nesting_is_an_error() {
        let bytes = [b"[".repeat(100_000), b"]".repeat(100_000)].concat();
        assert!(Value::from_json(&bytes, 1 << 20).is_err());
    }
}
