//! Universal Binary JSON, as far as XGBoost writes it and a little more.
//!
//! Nothing is allocated for a length that is claimed: containers grow as their elements are really
//! read, typed arrays are checked against the bytes that are left.

use super::document::{ListBuilder, Room, Value, Wrong};

/// How deep containers may nest; XGBoost files have about eight levels.
const MAX_DEPTH: usize = 64;

/// Reads one value, which has to be all that the bytes hold.
pub(super) fn read(bytes: &[u8], budget: u64) -> Result<Value, Wrong> {
    let mut reader = Reader { rest: bytes, len: bytes.len(), room: Room::new(budget) };
    let marker = reader.marker()?;
    let value = reader.value(marker, 0)?;
    while reader.rest.first() == Some(&b'N') {
        reader.byte()?;
    }
    if reader.rest.is_empty() { Ok(value) } else { Err(reader.wrong("the end of the file")) }
}

struct Reader<'a> {
    rest: &'a [u8],
    len: usize,
    room: Room,
}

impl<'a> Reader<'a> {
    fn wrong(&self, expected: &str) -> Wrong {
        Wrong::new(format!("not UBJSON: expected {expected} at byte {}", self.len - self.rest.len()))
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Wrong> {
        match self.rest.split_at_checked(count) {
            Some((taken, rest)) => {
                self.rest = rest;
                Ok(taken)
            }
            None => Err(self.wrong(&format!("{count} more bytes"))),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Wrong> {
        let bytes = self.take(N)?;
        bytes.try_into().map_err(|_| self.wrong("more bytes"))
    }

    fn byte(&mut self) -> Result<u8, Wrong> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// The next marker that is not a no-op.
    fn marker(&mut self) -> Result<u8, Wrong> {
        loop {
            match self.byte()? {
                b'N' => {}
                marker => return Ok(marker),
            }
        }
    }

    fn value(&mut self, marker: u8, depth: usize) -> Result<Value, Wrong> {
        if depth > MAX_DEPTH {
            return Err(self.wrong(&format!("at most {MAX_DEPTH} levels of nesting")));
        }
        if matches!(marker, b'[' | b'{' | b'S' | b'H' | b'C' | b'Z') {
            self.room.take(1, 0)?;
        }
        Ok(match marker {
            b'Z' => Value::Null,
            b'T' => Value::Number(1.0),
            b'F' => Value::Number(0.0),
            b'C' => Value::Text(char::from(self.byte()?).to_string()),
            b'S' | b'H' => Value::Text(self.text()?),
            b'[' => self.list(depth)?,
            b'{' => self.object(depth)?,
            _ => Value::Number(self.number(marker)?),
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "whole numbers of a model are far below 2^53")]
    fn number(&mut self, marker: u8) -> Result<f64, Wrong> {
        Ok(match marker {
            b'i' => f64::from(i8::from_be_bytes(self.array()?)),
            b'U' => f64::from(self.byte()?),
            b'I' => f64::from(i16::from_be_bytes(self.array()?)),
            b'l' => f64::from(i32::from_be_bytes(self.array()?)),
            b'L' => i64::from_be_bytes(self.array()?) as f64,
            b'd' => f64::from(f32::from_be_bytes(self.array()?)),
            b'D' => f64::from_be_bytes(self.array()?),
            b'T' => 1.0,
            b'F' => 0.0,
            _ => return Err(self.wrong("a marker of a type")),
        })
    }

    /// A length: a whole number of any width.
    fn length(&mut self) -> Result<usize, Wrong> {
        let marker = self.byte()?;
        let length = match marker {
            b'i' => i64::from(i8::from_be_bytes(self.array()?)),
            b'U' => i64::from(self.byte()?),
            b'I' => i64::from(i16::from_be_bytes(self.array()?)),
            b'l' => i64::from(i32::from_be_bytes(self.array()?)),
            b'L' => i64::from_be_bytes(self.array()?),
            _ => return Err(self.wrong("a length")),
        };
        usize::try_from(length).map_err(|_| self.wrong("a length from 0"))
    }

    fn text(&mut self) -> Result<String, Wrong> {
        let length = self.length()?;
        let bytes = self.take(length)?;
        self.room.take(2, length)?;
        std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| self.wrong("text in UTF-8"))
    }

    /// The optional type and count of a container.
    fn header(&mut self) -> Result<(Option<u8>, Option<usize>), Wrong> {
        let mut of = None;
        if self.rest.first() == Some(&b'$') {
            self.byte()?;
            of = Some(self.byte()?);
        }
        if self.rest.first() == Some(&b'#') {
            self.byte()?;
            return Ok((of, Some(self.length()?)));
        }
        if of.is_some() {
            return Err(self.wrong("a count after the type"));
        }
        Ok((None, None))
    }

    fn list(&mut self, depth: usize) -> Result<Value, Wrong> {
        let (of, count) = self.header()?;
        if let (Some(of), Some(count)) = (of, count)
            && let Some(width) = width(of)
        {
            // The bytes of all of them are there, so the memory is no more than in proportion.
            let needed = count.checked_mul(width).filter(|n| *n <= self.rest.len());
            if needed.is_none() {
                return Err(self.wrong(&format!("{count} values of {width} bytes")));
            }
            self.room.take(0, count.saturating_mul(size_of::<f64>()))?;
            return (0..count).map(|_| self.number(of)).collect::<Result<_, _>>().map(Value::Numbers);
        }
        let mut list = ListBuilder::default();
        let mut left = count;
        loop {
            match left.as_mut() {
                Some(0) => break,
                Some(left) => *left -= 1,
                None => {}
            }
            let marker = match of {
                Some(b'Z' | b'T' | b'F' | b'N') => {
                    return Err(self.wrong("a list of values that take bytes"));
                }
                Some(of) => of,
                None => self.marker()?,
            };
            if count.is_none() && marker == b']' {
                break;
            }
            let value = self.value(marker, depth + 1)?;
            list.push(value, &self.room)?;
        }
        Ok(list.finish())
    }

    fn object(&mut self, depth: usize) -> Result<Value, Wrong> {
        let (of, count) = self.header()?;
        let mut members = Vec::new();
        let mut left = count;
        loop {
            match left.as_mut() {
                Some(0) => break,
                Some(left) => *left -= 1,
                None if self.rest.first() == Some(&b'}') => {
                    self.byte()?;
                    break;
                }
                None => {}
            }
            // A name takes a byte at least, so a claimed count ends with the bytes.
            let name = self.text()?;
            let marker = match of {
                Some(of) => of,
                None => self.marker()?,
            };
            members.push((name, self.value(marker, depth + 1)?));
        }
        Ok(Value::Object(members))
    }
}

/// How many bytes a number of this type takes.
const fn width(of: u8) -> Option<usize> {
    Some(match of {
        b'i' | b'U' => 1,
        b'I' => 2,
        b'l' | b'd' => 4,
        b'L' | b'D' => 8,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Value, Wrong> {
        super::read(bytes, 1 << 20)
    }

    #[test]
    fn typed_counted_and_plain_containers_are_read() {
        let bytes = b"{L\0\0\0\0\0\0\0\x01a[$d#U\x02\x3f\x80\0\0\xc0\0\0\0U\x01b[#i\x02i\xffTU\x01c[NSi\x02xyi\x03]U\x01d{}}";
        let value = read(bytes).unwrap();
        assert_eq!(value.find("a"), Some(&Value::Numbers(vec![1.0, -2.0])));
        assert_eq!(value.find("b"), Some(&Value::Numbers(vec![-1.0, 1.0])));
        let mixed = vec![Value::Text("xy".into()), Value::Number(3.0)];
        assert_eq!(value.find("c"), Some(&Value::List(mixed)));
        assert_eq!(value.find("d"), Some(&Value::Object(vec![])));
    }

    #[test]
    fn a_claimed_length_allocates_nothing() {
        for bytes in [
            &b"[$d#L\x7f\xff\xff\xff\xff\xff\xff\xff"[..],
            b"[#L\x7f\xff\xff\xff\xff\xff\xff\xff",
            b"{#L\x7f\xff\xff\xff\xff\xff\xff\xff",
            b"SL\x7f\xff\xff\xff\xff\xff\xff\xff",
            b"[$Z#L\x7f\xff\xff\xff\xff\xff\xff\xff",
            b"[$[#L\x7f\xff\xff\xff\xff\xff\xff\xff",
            b"SL\xff\xff\xff\xff\xff\xff\xff\xff",
        ] {
            assert!(read(bytes).unwrap_err().0.starts_with("not UBJSON"));
        }
    }

    #[test]
    fn deep_nesting_is_an_error() {
        assert!(read(&b"[".repeat(100_000)).unwrap_err().0.contains("levels of nesting"));
        assert!(read(&b"{i\x01a".repeat(100_000)).unwrap_err().0.contains("levels of nesting"));
    }

    #[test]
    fn bytes_behind_the_value_are_an_error() {
        assert_eq!(read(b"i\x01i").unwrap_err().0, "not UBJSON: expected the end of the file at byte 2");
    }
}
