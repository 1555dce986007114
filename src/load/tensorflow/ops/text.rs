//! Strings.

use super::super::api::{
    Datum, DatumType, EngineTensor, IntoTValue, OutletId, TypedFact, bail, format_err, tract_core,
    tract_ndarray, tvec,
};
use super::super::graph::Node;
use super::computed::{Computed, room_for_text};
use super::wiring::{Wired, Wiring, axis_of, first, input};
use super::{Handler, WiringError};

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        // Without an encoding only the letters of ASCII have two cases.
        "StringLower" => |w, n, i| {
            let unicode = n.attributes.text("encoding") == Some("utf-8");
            map(w, first(i)?, if unicode { str::to_lowercase } else { str::to_ascii_lowercase })
        },
        "StringUpper" => |w, n, i| {
            let unicode = n.attributes.text("encoding") == Some("utf-8");
            map(w, first(i)?, if unicode { str::to_uppercase } else { str::to_ascii_uppercase })
        },
        "StringStrip" => |w, _, i| map(w, first(i)?, |s| s.trim_matches(is_space).to_owned()),
        "AsString" => as_string,
        "StringToNumber" => string_to_number,
        "StringLength" => string_length,
        "StringJoin" => string_join,
        "Substr" => substr,
        "ReduceJoin" => reduce_join,
        _ => return None,
    })
}

/// White space of ASCII.
fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\n' | '\x0b' | '\x0c' | '\r')
}

fn map(w: &mut Wiring<'_>, x: OutletId, f: fn(&str) -> String) -> Wired {
    let op = Computed::new(
        "MapString",
        |facts| {
            Ok(facts.iter().map(|f| TypedFact::dt_shape(String::datum_type(), f.shape.clone())).collect())
        },
        move |values| {
            let [x] = values else { bail!("one input expected") };
            let words = x.to_plain_array_view::<String>()?;
            Ok(tvec!(EngineTensor::from(words.map(|s| f(s))).into_tvalue()))
        },
    );
    Ok(tvec!(w.one(op, &[x])?))
}

fn as_string(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    let x = w.plain(first(inputs)?)?;
    let number = |name: &str| usize::try_from(node.attributes.int(name).unwrap_or(-1)).ok();
    let written = Written {
        width: number("width").unwrap_or(0),
        fill: node.attributes.text("fill").unwrap_or_default().chars().next().unwrap_or(' '),
        precision: number("precision"),
        scientific: node.attributes.bool("scientific").unwrap_or(false),
        shortest: node.attributes.bool("shortest").unwrap_or(false),
    };
    let datum = w.datum(x)?;
    let is_plain = datum.is_integer() || datum == bool::datum_type();
    let is_float = matches!(datum, DatumType::F32 | DatumType::F64);
    // `%g` drops zeros as no formatter here does.
    if !is_plain && (!is_float || written.shortest || written.scientific) || written.width > 1 << 10 {
        return Err(WiringError::Unsupported);
    }
    let fact = TypedFact::dt_shape(String::datum_type(), &*w.dims(x)?);
    let op = Computed::giving("AsString", tvec!(fact), move |values| {
        let [x] = values else { bail!("one input expected") };
        let words: Vec<String> = if x.datum_type() == bool::datum_type() {
            x.try_as_plain_ram()?.as_slice::<bool>()?.iter().map(ToString::to_string).collect()
        } else if x.datum_type().is_integer() {
            let numbers = x.cast_to::<i64>()?;
            let plain = numbers.try_as_plain_ram()?;
            plain.as_slice::<i64>()?.iter().map(|n| written.filled(&n.to_string())).collect()
        } else {
            let numbers = x.cast_to::<f64>()?;
            let plain = numbers.try_as_plain_ram()?;
            plain.as_slice::<f64>()?.iter().map(|n| written.filled(&written.float(*n))).collect()
        };
        let words = tract_ndarray::ArrayD::from_shape_vec(x.shape(), words)?;
        Ok(tvec!(EngineTensor::from(words).into_tvalue()))
    });
    Ok(tvec!(w.one(op, &[x])?))
}

/// How a number is written, in the terms of `printf`.
struct Written {
    width: usize,
    fill: char,
    precision: Option<usize>,
    scientific: bool,
    shortest: bool,
}

impl Written {
    fn float(&self, value: f64) -> String {
        if value.is_nan() {
            return "nan".to_owned();
        }
        if value.is_infinite() {
            return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
        }
        format!("{value:.*}", self.precision.unwrap_or(6).min(64))
    }

    fn filled(&self, text: &str) -> String {
        let missing = self.width.saturating_sub(text.len());
        let fill = std::iter::repeat_n(self.fill, missing);
        match text.strip_prefix('-').filter(|_| self.fill == '0') {
            Some(digits) => std::iter::once('-').chain(fill).chain(digits.chars()).collect(),
            None => fill.chain(text.chars()).collect(),
        }
    }
}

/// Part of each string, by bytes or by characters; a negative place counts from the end.
fn substr(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    let characters = node.attributes.text("unit") == Some("UTF8_CHAR");
    let x = first(inputs)?;
    let (places, lengths) = (w.konst_ints(input(inputs, 1)?)?, w.konst_ints(input(inputs, 2)?)?);
    let (&[place], &[length]) = (places.as_slice(), lengths.as_slice()) else {
        return Err(WiringError::Unsupported);
    };
    let fact = TypedFact::dt_shape(String::datum_type(), &*w.dims(x)?);
    let op = Computed::giving("Substr", tvec!(fact), move |values| {
        let [x] = values else { bail!("one input expected") };
        let plain = x.try_as_plain_ram()?;
        let parts = plain.as_slice::<String>()?.iter().map(|text| {
            let part = part(text, place, length, characters);
            part.ok_or_else(|| format_err!("there is no place {place} in `{text}`"))
        });
        let parts = parts.collect::<Result<Vec<_>, _>>()?;
        Ok(tvec!(EngineTensor::from(tract_ndarray::ArrayD::from_shape_vec(x.shape(), parts)?).into_tvalue()))
    });
    Ok(tvec!(w.one(op, &[x])?))
}

fn part(text: &str, place: i64, length: i64, characters: bool) -> Option<String> {
    let all = if characters { text.chars().count() } else { text.len() };
    let start = if place < 0 {
        all.checked_sub(usize::try_from(place.unsigned_abs()).ok()?)?
    } else {
        usize::try_from(place).ok().filter(|start| *start <= all)?
    };
    let length = usize::try_from(length).unwrap_or(0);
    Some(if characters {
        text.chars().skip(start).take(length).collect()
    } else {
        // What is cut in the middle of a character is no text.
        let bytes = text.as_bytes().get(start..start.saturating_add(length).min(all))?;
        String::from_utf8_lossy(bytes).into_owned()
    })
}

/// Strings along one axis joined.
fn reduce_join(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    let x = first(inputs)?;
    let &[axis] = w.konst_ints(input(inputs, 1)?)?.as_slice() else { return Err(WiringError::Unsupported) };
    let axis = axis_of(axis, w.rank(x)?)?;
    let separator = node.attributes.text("separator").unwrap_or_default().to_owned();
    let budget = w.budget();
    let keep = node.attributes.bool("keep_dims").unwrap_or(false);
    let mut dims = w.dims(x)?;
    if keep {
        dims.get_mut(axis).into_iter().for_each(|d| *d = 1.into());
    } else {
        dims.remove(axis);
    }
    let op =
        Computed::giving("ReduceJoin", tvec!(TypedFact::dt_shape(String::datum_type(), &*dims)), move |v| {
            let [x] = v else { bail!("one input expected") };
            let axis = tract_ndarray::Axis(axis);
            let view = x.to_plain_array_view::<String>()?;
            room_for_text(view.iter().map(|s| (s.len() + separator.len()) as u64).sum(), budget)?;
            let joined = view
                .map_axis(axis, |lane| lane.iter().map(String::as_str).collect::<Vec<_>>().join(&separator));
            let joined = if keep { joined.insert_axis(axis) } else { joined };
            Ok(tvec!(EngineTensor::from(joined).into_tvalue()))
        });
    Ok(tvec!(w.one(op, &[x])?))
}

fn string_to_number(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    let to = node.attributes.datum("out_type").unwrap_or(DatumType::F32);
    let op = Computed::new(
        "StringToNumber",
        |facts| Ok(facts.iter().map(|f| TypedFact::dt_shape(f64::datum_type(), f.shape.clone())).collect()),
        |values| {
            let [x] = values else { bail!("one input expected") };
            let plain = x.try_as_plain_ram()?;
            let numbers = plain
                .as_slice::<String>()?
                .iter()
                .map(|s| s.trim().parse::<f64>().map_err(|_| format_err!("`{s}` is not a number")));
            let numbers = numbers.collect::<Result<Vec<_>, _>>()?;
            Ok(tvec!(
                EngineTensor::from(tract_ndarray::ArrayD::from_shape_vec(x.shape(), numbers)?).into_tvalue()
            ))
        },
    );
    let numbers = w.one(op, &[first(inputs)?])?;
    Ok(tvec!(w.cast(numbers, to)?))
}

fn string_join(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    joined(w, node.attributes.text("separator").unwrap_or_default(), inputs)
}

/// The texts of all inputs one behind the other.
pub(super) fn joined(w: &mut Wiring<'_>, separator: &str, inputs: &[OutletId]) -> Wired {
    let separator = separator.to_owned();
    let inputs = w.same(inputs)?;
    let budget = w.budget();
    let op = Computed::new(
        "StringJoin",
        |facts| {
            let shapes: Vec<_> = facts.iter().map(|f| &f.shape).collect();
            let shape = tract_core::broadcast::multi_broadcast(&shapes)?;
            Ok(tvec!(TypedFact::dt_shape(String::datum_type(), shape)))
        },
        move |values| {
            let views =
                values.iter().map(|v| v.to_plain_array_view::<String>()).collect::<Result<Vec<_>, _>>()?;
            let shapes: Vec<&[usize]> = views.iter().map(|v| v.shape()).collect();
            let shape = tract_core::broadcast::multi_broadcast(&shapes)?;
            let elements = shape.iter().fold(1_u64, |n, dim| n.saturating_mul(*dim as u64));
            // Shapes do not tell it: what a chain of these makes of a few bytes doubles with each.
            let text = views.iter().fold(0_u64, |sum, view| {
                let own: u64 = view.iter().map(|s| (s.len() + separator.len()) as u64).sum();
                sum.saturating_add(own.saturating_mul(elements / (view.len() as u64).max(1)))
            });
            room_for_text(text, budget)?;
            let mut joined: Option<tract_ndarray::ArrayD<String>> = None;
            for view in &views {
                let Some(view) = view.broadcast(&*shape) else { bail!("the shapes do not agree") };
                joined = Some(match joined {
                    None => view.to_owned(),
                    Some(mut before) => {
                        before.zip_mut_with(&view, |a, b| {
                            a.push_str(&separator);
                            a.push_str(b);
                        });
                        before
                    }
                });
            }
            let Some(joined) = joined else { bail!("nothing to join") };
            Ok(tvec!(EngineTensor::from(joined).into_tvalue()))
        },
    );
    Ok(tvec!(w.one(op, &inputs)?))
}

fn string_length(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    let characters = node.attributes.text("unit") == Some("UTF8_CHAR");
    let op = Computed::new(
        "StringLength",
        |facts| Ok(facts.iter().map(|f| TypedFact::dt_shape(i32::datum_type(), f.shape.clone())).collect()),
        move |values| {
            let [x] = values else { bail!("one input expected") };
            let words = x.to_plain_array_view::<String>()?;
            let length = |s: &String| if characters { s.chars().count() } else { s.len() };
            Ok(tvec!(
                EngineTensor::from(words.map(|s| i32::try_from(length(s)).unwrap_or(i32::MAX))).into_tvalue()
            ))
        },
    );
    Ok(tvec!(w.one(op, &[first(inputs)?])?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_strings_are_those_of_tensorflow() {
        // tf.strings.substr of TensorFlow 2.21.
        assert_eq!(part("hello", 1, 3, false).as_deref(), Some("ell"));
        assert_eq!(part("hello", -3, 9, false).as_deref(), Some("llo"));
        assert_eq!(part("héllo", 1, 2, true).as_deref(), Some("él"));
        assert_eq!(part("hi", 2, 1, false).as_deref(), Some(""));
        assert_eq!(part("hi", 3, 1, false), None);
    }

    #[test]
    fn numbers_are_written_as_printf_writes_them() {
        // tf.strings.as_string(-1.5, precision=2, width=7, fill="0") and without any of it.
        let zeros = Written { width: 7, fill: '0', precision: Some(2), scientific: false, shortest: false };
        assert_eq!(zeros.filled(&zeros.float(-1.5)), "-001.50");
        let usual = Written { width: 0, fill: ' ', precision: None, scientific: false, shortest: false };
        assert_eq!(usual.float(2.0 / 3.0), "0.666667");
    }
}
