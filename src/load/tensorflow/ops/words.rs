//! Texts into words and characters, and words into texts.

use super::super::api::{
    Datum, DatumType, EngineTensor, IntoTValue, OutletId, ToDim, TypedFact, bail, tract_ndarray, tvec,
};
use super::super::graph::Node;
use super::computed::Computed;
use super::ragged::{integers, size};
use super::wiring::{Wired, Wiring, first, input, invalid};
use super::{Handler, WiringError};

/// The most lengths of neighbours that are joined.
const MAX_WIDTHS: usize = 64;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "StringSplitV2" => |w, n, i| {
            let separator = super::regex::constant(w, input(i, 1)?)?;
            let most = n.attributes.int("maxsplit").unwrap_or(-1);
            split(w, first(i)?, move |text| Some(split_like_python(text, &separator, most)))
        },
        "StringSplit" => |w, n, i| {
            let delimiter = super::regex::constant(w, input(i, 1)?)?;
            let skip = n.attributes.bool("skip_empty").unwrap_or(true);
            split(w, first(i)?, move |text| {
                // The bytes of a character are no texts.
                let is_whole = !delimiter.is_empty() || text.is_ascii();
                is_whole.then(|| split_at_any(text, &delimiter, skip))
            })
        },
        "StringNGrams" => n_grams,
        "UnicodeDecode" => unicode_decode,
        "UnicodeEncode" => unicode_encode,
        _ => return None,
    })
}

/// The words of each text: where each is, the words, and the size of the table that they would fill.
/// `words` gives none where they are not texts.
fn split(
    w: &mut Wiring<'_>,
    x: OutletId,
    words: impl Fn(&str) -> Option<Vec<&str>> + Send + Sync + 'static,
) -> Wired {
    let [rows] = &*w.dims(x)? else { return Err(invalid("a list of strings expected")) };
    let (count, longest) = (w.open_size(), w.open_size());
    let facts = tvec!(
        TypedFact::dt_shape(i64::datum_type(), &[count.clone(), 2.to_dim()][..]),
        TypedFact::dt_shape(String::datum_type(), std::slice::from_ref(&count)),
        Wiring::witness_fact(std::slice::from_ref(&longest)),
    );
    let op = Computed::giving("StringSplit", facts, move |values| {
        let [x] = values else { bail!("one input expected") };
        let (mut places, mut found, mut longest) = (Vec::new(), Vec::new(), 0);
        for (row, text) in (0_i64..).zip(x.try_as_plain_ram()?.as_slice::<String>()?) {
            let Some(words) = words(text) else { bail!("a text of ASCII expected to be split into bytes") };
            longest = longest.max(words.len());
            for (column, word) in (0_i64..).zip(words) {
                places.extend([row, column]);
                found.push(word.to_owned());
            }
        }
        let places = tract_ndarray::ArrayD::from_shape_vec(vec![found.len(), 2], places)?;
        Ok(tvec!(
            EngineTensor::from(places).into_tvalue(),
            EngineTensor::from(tract_ndarray::arr1(&found).into_dyn()).into_tvalue(),
            Wiring::witness(&[longest])?.into_tvalue(),
        ))
    });
    let rows = rows.clone();
    let out = w.all(op, &[x])?;
    let shape = w.dims_tensor(&[rows, longest])?;
    Ok(tvec!(first(&out)?, input(&out, 1)?, shape))
}

/// As `str.split` of Python: without a separator at any white space.
fn split_like_python<'t>(text: &'t str, separator: &str, most: i64) -> Vec<&'t str> {
    let limit = usize::try_from(most).ok().filter(|m| *m > 0);
    if most == 0 {
        return vec![text];
    }
    if !separator.is_empty() {
        return match limit {
            Some(limit) => text.splitn(limit.saturating_add(1), separator).collect(),
            None => text.split(separator).collect(),
        };
    }
    let is_space = |c: char| matches!(c, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r');
    let mut words = Vec::new();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        if limit == Some(words.len()) {
            words.push(rest);
            break;
        }
        let end = rest.find(is_space).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        words.push(word);
        rest = after.trim_start_matches(is_space);
    }
    words
}

/// At each of the delimiter's bytes; without any, every byte is a word.
fn split_at_any<'t>(text: &'t str, delimiter: &str, skip_empty: bool) -> Vec<&'t str> {
    if delimiter.is_empty() {
        return text.split_inclusive(|_| true).collect();
    }
    text.split(|c| delimiter.contains(c)).filter(|part| !skip_empty || !part.is_empty()).collect()
}

/// The characters of each text as numbers, row after row.
fn unicode_decode(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    if node.attributes.text("input_encoding").is_some_and(|e| !e.eq_ignore_ascii_case("utf-8")) {
        return Err(WiringError::Unsupported);
    }
    let x = first(inputs)?;
    let [rows] = &*w.dims(x)? else { return Err(invalid("a list of strings expected")) };
    let wanted = node.attributes.datum("Tsplits").unwrap_or(DatumType::I64);
    let count = w.open_size();
    let facts = tvec!(
        TypedFact::dt_shape(wanted, &[rows.clone() + 1][..]),
        TypedFact::dt_shape(i32::datum_type(), std::slice::from_ref(&count)),
    );
    let op = Computed::giving("UnicodeDecode", facts, move |values| {
        let [x] = values else { bail!("one input expected") };
        let (mut ends, mut found) = (vec![0_i64], Vec::new());
        for text in x.try_as_plain_ram()?.as_slice::<String>()? {
            found.extend(text.chars().map(|c| u32::from(c).cast_signed()));
            ends.push(i64::try_from(found.len())?);
        }
        let ends = EngineTensor::from(tract_ndarray::arr1(&ends).into_dyn()).cast_to_dt(wanted)?.into_owned();
        Ok(tvec!(
            ends.into_tvalue(),
            EngineTensor::from(tract_ndarray::arr1(&found).into_dyn()).into_tvalue()
        ))
    });
    w.all(op, &[x])
}

/// Texts of the numbers of their characters.
fn unicode_encode(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    if node.attributes.text("output_encoding").is_some_and(|e| !e.eq_ignore_ascii_case("utf-8")) {
        return Err(WiringError::Unsupported);
    }
    let (characters, splits) = (w.plain(first(inputs)?)?, w.plain(input(inputs, 1)?)?);
    let rows = w.dim(splits, 0)? - 1;
    let fact = TypedFact::dt_shape(String::datum_type(), &[rows][..]);
    let op = Computed::giving("UnicodeEncode", tvec!(fact), |values| {
        let [characters, splits] = values else { bail!("two inputs expected") };
        let (characters, mut texts) = (integers(characters)?, Vec::new());
        for row in integers(splits)?.windows(2) {
            let [start, end] = row else { continue };
            let Some(row) = characters.get(size(*start)?..size(*end)?) else { bail!("a row ends too far") };
            let character = |code: &i64| u32::try_from(*code).ok().and_then(char::from_u32);
            texts.push(
                row.iter().map(|c| character(c).unwrap_or(char::REPLACEMENT_CHARACTER)).collect::<String>(),
            );
        }
        Ok(tvec!(EngineTensor::from(tract_ndarray::arr1(&texts).into_dyn()).into_tvalue()))
    });
    Ok(tvec!(w.one(op, &[characters, splits])?))
}

/// Neighbouring words of each row, joined.
fn n_grams(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    let (words, splits) = (first(inputs)?, input(inputs, 1)?);
    let text = |name: &str| node.attributes.text(name).unwrap_or_default().to_owned();
    let widths: Option<Vec<usize>> = { node.attributes.ints("ngram_widths").unwrap_or_default().iter() }
        .map(|width| usize::try_from(*width).ok().filter(|w| (1..1 << 10).contains(w)))
        .collect();
    let widths =
        widths.filter(|w| w.len() <= MAX_WIDTHS).ok_or_else(|| invalid("a width is out of range"))?;
    let joining = Joining {
        separator: text("separator"),
        left: text("left_pad"),
        right: text("right_pad"),
        pad: node.attributes.int("pad_width").unwrap_or(0),
        keep_short: node.attributes.bool("preserve_short_sequences").unwrap_or(false),
        widths,
    };
    let datum = w.datum(splits)?;
    let datum = if datum == DatumType::TDim { DatumType::I64 } else { datum };
    let splits = w.plain(splits)?;
    let count = w.open_size();
    let facts = tvec!(
        TypedFact::dt_shape(String::datum_type(), std::slice::from_ref(&count)),
        TypedFact::dt_shape(datum, &*w.dims(splits)?),
    );
    let op = Computed::giving("StringNGrams", facts, move |v| {
        let [words, splits] = v else { bail!("two inputs expected") };
        let plain = words.try_as_plain_ram()?;
        let words = plain.as_slice::<String>()?;
        let (mut found, mut ends) = (Vec::new(), vec![0_i64]);
        for row in integers(splits)?.windows(2) {
            let [start, end] = row else { continue };
            let Some(row) = words.get(size(*start)?..size(*end)?) else { bail!("a row ends too far") };
            joining.row(row, &mut found);
            ends.push(i64::try_from(found.len())?);
        }
        let ends = EngineTensor::from(tract_ndarray::arr1(&ends).into_dyn()).cast_to_dt(datum)?.into_owned();
        Ok(tvec!(
            EngineTensor::from(tract_ndarray::arr1(&found).into_dyn()).into_tvalue(),
            ends.into_tvalue()
        ))
    });
    w.all(op, &[words, splits])
}

/// How words are joined.
struct Joining {
    separator: String,
    left: String,
    right: String,
    pad: i64,
    keep_short: bool,
    widths: Vec<usize>,
}

impl Joining {
    fn row(&self, row: &[String], found: &mut Vec<String>) {
        let before = found.len();
        for width in &self.widths {
            let pads = usize::try_from(self.pad).unwrap_or(width - 1).min(width - 1);
            let left = std::iter::repeat_n(self.left.as_str(), pads);
            let right = std::iter::repeat_n(self.right.as_str(), pads);
            let words: Vec<&str> = left.chain(row.iter().map(String::as_str)).chain(right).collect();
            found.extend(words.windows(*width).map(|words| words.join(&self.separator)));
            if self.keep_short && found.len() == before && !row.is_empty() {
                found.push(words.join(&self.separator));
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_split_as_tensorflow_splits_them() {
        assert_eq!(split_like_python(" a  b\tc ", "", -1), ["a", "b", "c"]);
        assert_eq!(split_like_python("a b c", "", 1), ["a", "b c"]);
        assert_eq!(split_like_python("a,,b", ",", -1), ["a", "", "b"]);
        assert_eq!(split_like_python("", ",", -1), [""]);
        assert_eq!(split_like_python("", "", -1), Vec::<&str>::new());
        assert_eq!(split_at_any("a,b;;c", ",;", true), ["a", "b", "c"]);
        assert_eq!(split_at_any("ab", "", true), ["a", "b"]);
    }
}
