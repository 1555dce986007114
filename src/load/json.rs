//! A reader of JSON for model and sample files.
//!
//! It differs from the well-kept readers in two things that these files need: the numbers NaN and
//! Infinity may stand there bare, as `XGBoost` and Python write them, and a number is read to the nearest
//! `f64` (`serde_json` does that only with a feature that all crates of the build would get, and slower).

use std::borrow::Cow;

/// How deep lists and objects may nest.
const MAX_DEPTH: usize = 128;

/// What values are made into.
pub(crate) trait Value<'a>: Sized {
    /// A list that is being read.
    type List: Default;
    /// The memory that values may still take.
    type Room;

    /// Takes the memory of values, and of text of this length, before they are made.
    fn take(room: &Self::Room, values: usize, text: usize) -> Result<(), String>;

    fn null() -> Self;
    fn truth(truth: bool) -> Self;
    /// The text is one that `f64` parses.
    fn number(text: &'a str) -> Self;
    fn text(text: Cow<'a, str>) -> Self;
    fn push(list: &mut Self::List, item: Self, room: &Self::Room) -> Result<(), String>;
    fn list(list: Self::List) -> Self;
    fn object(members: Vec<(Cow<'a, str>, Self)>) -> Self;
}

/// Reads one value, which has to be all that the text holds.
///
/// # Errors
/// What was expected, and at which byte.
pub(crate) fn read<'a, V: Value<'a>>(bytes: &'a [u8], room: &V::Room) -> Result<V, String> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| format!("not JSON: expected UTF-8 at byte {}", error.valid_up_to()))?;
    let mut reader = Reader { text, at: 0 };
    let value = reader.value(0, room)?;
    if reader.next_byte().is_some() { Err(reader.wrong("the end of the file")) } else { Ok(value) }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    fn wrong(&self, expected: &str) -> String {
        format!("not JSON: expected {expected} at byte {}", self.at)
    }

    fn rest(&self) -> &'a [u8] {
        self.text.as_bytes().get(self.at..).unwrap_or(&[])
    }

    /// The next byte that is no white space, which stays.
    fn next_byte(&mut self) -> Option<u8> {
        let rest = self.rest();
        let blank = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\n' | b'\r' | b'\t')).count();
        self.at += blank;
        rest.get(blank).copied()
    }

    /// Takes the byte where it is the next one.
    fn take(&mut self, byte: u8) -> bool {
        let there = self.next_byte() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn value<V: Value<'a>>(&mut self, depth: usize, room: &V::Room) -> Result<V, String> {
        if depth > MAX_DEPTH {
            return Err(self.wrong(&format!("at most {MAX_DEPTH} levels of nesting")));
        }
        match self.next_byte() {
            Some(b'[') => self.list(depth, room),
            Some(b'{') => self.object(depth, room),
            Some(b'"') => {
                let text = self.string()?;
                V::take(room, 1, text.len())?;
                Ok(V::text(text))
            }
            _ => self.word(),
        }
    }

    fn list<V: Value<'a>>(&mut self, depth: usize, room: &V::Room) -> Result<V, String> {
        self.at += 1;
        V::take(room, 1, 0)?;
        let mut list = V::List::default();
        if self.take(b']') {
            return Ok(V::list(list));
        }
        loop {
            V::push(&mut list, self.value(depth + 1, room)?, room)?;
            if self.take(b']') {
                return Ok(V::list(list));
            }
            if !self.take(b',') {
                return Err(self.wrong("`,` or `]`"));
            }
        }
    }

    fn object<V: Value<'a>>(&mut self, depth: usize, room: &V::Room) -> Result<V, String> {
        self.at += 1;
        V::take(room, 1, 0)?;
        let mut members = Vec::new();
        if self.take(b'}') {
            return Ok(V::object(members));
        }
        loop {
            if self.next_byte() != Some(b'"') {
                return Err(self.wrong("a name"));
            }
            let name = self.string()?;
            if !self.take(b':') {
                return Err(self.wrong("`:`"));
            }
            // The name, and a number that is no text or list and has not been counted.
            V::take(room, 2, name.len())?;
            members.push((name, self.value(depth + 1, room)?));
            if self.take(b'}') {
                return Ok(V::object(members));
            }
            if !self.take(b',') {
                return Err(self.wrong("`,` or `}`"));
            }
        }
    }

    /// A number, or one of the words that stand for values.
    fn word<V: Value<'a>>(&mut self) -> Result<V, String> {
        let is_part = |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.' | b'_');
        let length = self.rest().iter().take_while(is_part).count();
        let word = self.text.get(self.at..self.at + length).unwrap_or("");
        let value = match word {
            "null" => V::null(),
            "true" => V::truth(true),
            "false" => V::truth(false),
            number if number.parse::<f64>().is_ok() => V::number(number),
            _ => return Err(self.wrong("a value")),
        };
        self.at += length;
        Ok(value)
    }

    /// A text in quotation marks, the first of which is next.
    fn string(&mut self) -> Result<Cow<'a, str>, String> {
        self.at += 1;
        let mut escaped: Option<String> = None;
        loop {
            let rest = self.rest();
            let plain = rest.iter().take_while(|byte| !matches!(byte, b'"' | b'\\' | 0..=0x1f)).count();
            let piece = self.text.get(self.at..self.at + plain).unwrap_or("");
            self.at += plain;
            match rest.get(plain) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(match escaped {
                        Some(text) => Cow::Owned(text + piece),
                        None => Cow::Borrowed(piece),
                    });
                }
                Some(b'\\') => {
                    let text = escaped.get_or_insert_with(String::new);
                    text.push_str(piece);
                    self.at += 1;
                    let character = self.escape()?;
                    text.push(character);
                }
                _ => return Err(self.wrong("the end of the text")),
            }
        }
    }

    /// What stands behind a backslash.
    fn escape(&mut self) -> Result<char, String> {
        let kind = self.rest().first().copied();
        self.at += 1;
        Ok(match kind {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => {
                let high = self.hexadecimal()?;
                // Characters beyond 16 bits come as two halves.
                let code = if (0xd800..0xdc00).contains(&high) && self.rest().starts_with(b"\\u") {
                    self.at += 2;
                    let low = self.hexadecimal()?;
                    0x1_0000 + ((high - 0xd800) << 10) + (low.wrapping_sub(0xdc00) & 0x3ff)
                } else {
                    high
                };
                char::from_u32(code).ok_or_else(|| self.wrong("a character"))?
            }
            _ => return Err(self.wrong("an escaped character")),
        })
    }

    fn hexadecimal(&mut self) -> Result<u32, String> {
        let digits = self.text.get(self.at..self.at + 4).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let code = code.ok_or_else(|| self.wrong("four hexadecimal digits"))?;
        self.at += 4;
        Ok(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Makes values the text that they are.
    #[derive(Debug, PartialEq)]
    struct Written(String);

    impl<'a> Value<'a> for Written {
        type List = Vec<String>;
        type Room = ();

        fn take((): &(), _: usize, _: usize) -> Result<(), String> {
            Ok(())
        }

        fn null() -> Self {
            Self("null".into())
        }
        fn truth(truth: bool) -> Self {
            Self(truth.to_string())
        }
        fn number(text: &'a str) -> Self {
            Self(text.into())
        }
        fn text(text: Cow<'a, str>) -> Self {
            Self(format!("'{text}'"))
        }
        fn push(list: &mut Vec<String>, item: Self, (): &()) -> Result<(), String> {
            list.push(item.0);
            Ok(())
        }
        fn list(list: Vec<String>) -> Self {
            Self(format!("[{}]", list.join(" ")))
        }
        fn object(members: Vec<(Cow<'a, str>, Self)>) -> Self {
            let members: Vec<String> =
                members.iter().map(|(name, value)| format!("{name}={}", value.0)).collect();
            Self(format!("{{{}}}", members.join(" ")))
        }
    }

    fn read(text: &str) -> Result<String, String> {
        super::read::<Written>(text.as_bytes(), &()).map(|written| written.0)
    }

    #[test]
    fn every_kind_of_value_is_read() {
        let text =
            r#" {"a" : [1, -2.5e-3 ,true,false,null, [] , {}], "b\n\"\u00e9\ud83d\ude00": "x\\/\/é"} "#;
        assert_eq!(read(text).unwrap(), "{a=[1 -2.5e-3 true false null [] {}] b\n\"é😀='x\\//é'}");
    }

    #[test]
    fn numbers_that_are_not_finite_may_stand_bare() {
        assert_eq!(read("[NaN, Infinity,-Infinity,nan,inf]").unwrap(), "[NaN Infinity -Infinity nan inf]");
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (text, expected) in [
            ("", "a value at byte 0"),
            ("[1,]", "a value at byte 3"),
            ("[1 2]", "`,` or `]` at byte 3"),
            ("{1:2}", "a name at byte 1"),
            ("{\"a\" 2}", "`:` at byte 5"),
            ("{\"a\":2", "`,` or `}` at byte 6"),
            ("[1] x", "the end of the file at byte 4"),
            ("\"a", "the end of the text at byte 2"),
            ("\"a\nb\"", "the end of the text at byte 2"),
            ("\"\\q\"", "an escaped character at byte 3"),
            ("\"\\ud800\"", "a character at byte 7"),
            ("\"\\u12\"", "four hexadecimal digits at byte 3"),
            ("1.2.3", "a value at byte 0"),
            ("nothing", "a value at byte 0"),
        ] {
            assert_eq!(read(text).unwrap_err(), format!("not JSON: expected {expected}"), "{text}");
        }
        let deep = "[".repeat(100_000);
        assert!(read(&deep).unwrap_err().contains("levels of nesting"));
        assert_eq!(
            super::read::<Written>(b"\"\xff\"", &()).unwrap_err(),
            "not JSON: expected UTF-8 at byte 1"
        );
    }
}
