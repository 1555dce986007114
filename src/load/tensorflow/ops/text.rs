//! Strings.

use super::super::api::{
    Datum, DatumType, EngineTensor, IntoTValue, OutletId, TypedFact, bail, tract_core, tract_ndarray, tvec,
};
use super::super::graph::Node;
use super::computed::Computed;
use super::wiring::{Wired, Wiring, first};
use super::{Handler, WiringError};

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "StringLower" => |w, _, i| map(w, first(i)?, |s| s.to_lowercase()),
        "StringUpper" => |w, _, i| map(w, first(i)?, |s| s.to_uppercase()),
        "StringStrip" => |w, _, i| map(w, first(i)?, |s| s.trim().to_owned()),
        "AsString" => as_string,
        "StringToNumber" => string_to_number,
        "StringLength" => string_length,
        "StringJoin" => string_join,
        "StringToHashBucketFast" => hash_bucket,
        _ => return None,
    })
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

/// Whole numbers and truth values only: how a float is written depends on more than its value.
fn as_string(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    let x = w.plain(first(inputs)?)?;
    let plain = node.attributes.int("width").unwrap_or(-1) < 0
        && node.attributes.text("fill").unwrap_or_default().is_empty();
    let datum = w.datum(x)?;
    if !plain || !(datum.is_integer() || datum == bool::datum_type()) {
        return Err(WiringError::Unsupported);
    }
    let op = Computed::new(
        "AsString",
        |facts| {
            Ok(facts.iter().map(|f| TypedFact::dt_shape(String::datum_type(), f.shape.clone())).collect())
        },
        |values| {
            let [x] = values else { bail!("one input expected") };
            let words: Vec<String> = if x.datum_type() == bool::datum_type() {
                x.try_as_plain_ram()?.as_slice::<bool>()?.iter().map(ToString::to_string).collect()
            } else {
                let numbers = x.cast_to::<i64>()?;
                numbers.try_as_plain_ram()?.as_slice::<i64>()?.iter().map(ToString::to_string).collect()
            };
            let words = tract_ndarray::ArrayD::from_shape_vec(x.shape(), words)?;
            Ok(tvec!(EngineTensor::from(words).into_tvalue()))
        },
    );
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
            let numbers = plain.as_slice::<String>()?.iter().map(|s| {
                s.trim().parse::<f64>().map_err(|_| super::super::api::format_err!("`{s}` is not a number"))
            });
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
    let separator = node.attributes.text("separator").unwrap_or_default().to_owned();
    let inputs = w.same(inputs)?;
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

fn hash_bucket(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    let buckets = node.attributes.int("num_buckets").and_then(|n| u64::try_from(n).ok()).filter(|n| *n > 0);
    let buckets = buckets.ok_or(WiringError::Unsupported)?;
    let op = Computed::new(
        "StringToHashBucketFast",
        |facts| Ok(facts.iter().map(|f| TypedFact::dt_shape(i64::datum_type(), f.shape.clone())).collect()),
        move |values| {
            let [x] = values else { bail!("one input expected") };
            let words = x.to_plain_array_view::<String>()?;
            let bucket = |s: &String| super::fingerprint::fingerprint64(s.as_bytes()) % buckets;
            let buckets = words.map(|s| i64::try_from(bucket(s)).unwrap_or(0));
            Ok(tvec!(EngineTensor::from(buckets).into_tvalue()))
        },
    );
    Ok(tvec!(w.one(op, &[first(inputs)?])?))
}
