//! Samples as a JSON value, for a release document.

use std::borrow::Cow;

use serde_json::{Map, Number, Value};

use super::SamplesError;
use crate::load::json;

/// Reads a JSON text of samples as the value that `PublishOptions::samples` takes.
///
/// It differs from `serde_json::from_slice` in that a number becomes the nearest `f64`: `serde_json`
/// without its feature `float_roundtrip` may miss the last bit, which can put a value on the other
/// side of a threshold in a model that works in double precision.
///
/// # Errors
/// [`SamplesError::Malformed`] where the text is no JSON, or has a number that JSON cannot state.
///
/// ```
/// # fn main() -> Result<(), modelswap::load::SamplesError> {
/// let samples = modelswap::load::samples::read_value(br#"{"inputs": [[0.1]], "outputs": [[122.416294033786585]]}"#)?;
/// assert_eq!(samples["outputs"][0][0], 122.416_294_033_786_585_f64);
/// # Ok(()) }
/// ```
pub fn read_value(bytes: &[u8]) -> Result<Value, SamplesError> {
    let Exact(value) = json::read(bytes, &()).map_err(SamplesError::Malformed)?;
    value.ok_or_else(|| SamplesError::Malformed("a number is not finite".to_owned()))
}

/// `None` where a number in it is not finite.
struct Exact(Option<Value>);

impl<'a> json::Value<'a> for Exact {
    type List = Vec<Self>;
    type Room = ();

    fn take((): &(), _: usize, _: usize) -> Result<(), String> {
        Ok(())
    }

    fn null() -> Self {
        Self(Some(Value::Null))
    }

    fn truth(truth: bool) -> Self {
        Self(Some(Value::Bool(truth)))
    }

    fn number(text: &'a str) -> Self {
        let whole = text.parse::<u64>().map(Number::from).or_else(|_| text.parse::<i64>().map(Number::from));
        let number = whole.ok().or_else(|| Number::from_f64(text.parse().ok()?));
        Self(number.map(Value::Number))
    }

    fn text(text: Cow<'a, str>) -> Self {
        Self(Some(Value::String(text.into_owned())))
    }

    fn push(list: &mut Vec<Self>, item: Self, (): &()) -> Result<(), String> {
        list.push(item);
        Ok(())
    }

    fn list(list: Vec<Self>) -> Self {
        Self(list.into_iter().map(|Self(item)| item).collect::<Option<_>>().map(Value::Array))
    }

    fn object(members: Vec<(Cow<'a, str>, Self)>) -> Self {
        let members = members.into_iter().map(|(name, Self(value))| Some((name.into_owned(), value?)));
        Self(members.collect::<Option<Map<_, _>>>().map(Value::Object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_the_nearest_one() {
        // Of 20,000 doubles written with 17 digits serde_json's default reader misses some by a bit.
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        for _ in 0..20_000 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let number = f64::from_bits(state);
            if number.is_finite() {
                let read = read_value(format!("[{number:.17e}]").as_bytes()).unwrap();
                assert_eq!(read[0].as_f64().unwrap().to_bits(), number.to_bits(), "{number}");
            }
        }
    }

    #[test]
    fn whole_numbers_stay_what_they_are() {
        let text = r#"{"a":[18446744073709551615,-9223372036854775808,1.5,true,null,"x"],"b":{}}"#;
        assert_eq!(read_value(text.as_bytes()).unwrap(), serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn what_json_cannot_state_is_refused() {
        assert!(read_value(b"[NaN]").unwrap_err().to_string().contains("not finite"));
        assert!(read_value(b"[1e999]").unwrap_err().to_string().contains("not finite"));
        assert!(read_value(b"[1").unwrap_err().to_string().contains("not JSON"));
    }
}
