//! Attention as onnxruntime fuses it, in terms of the standard operator.

use super::rewrite::Rewrite;
use crate::kernel::{Attribute, BuildError};

pub(super) const OPERATORS: &[&str] = &["Attention", "MultiHeadAttention"];

pub(super) fn lower(to: &mut Rewrite<'_>) -> Result<(), BuildError> {
    match to.node.operator.as_str() {
        "Attention" => of_one_input(to),
        "MultiHeadAttention" => of_three_inputs(to),
        _ => Err(BuildError::Unsupported),
    }
}

/// What is put in front of the heads.
struct Projected {
    query: String,
    key: String,
    value: String,
}

/// Queries, keys and values are one product of the input.
fn of_one_input(to: &mut Rewrite<'_>) -> Result<(), BuildError> {
    // With a past, keys and values come in one tensor, in a form of its own.
    if to.maybe(4).is_some() || to.wants(1) || to.flag("do_rotary")? {
        return Err(BuildError::Unsupported);
    }
    let mut product = to.add("MatMul", 13, &[to.input(0), to.input(1)], &[]);
    if let Some(bias) = to.maybe(2) {
        product = to.add("Add", 14, &[&product, bias], &[]);
    }
    let sizes = to.attributes().ints("qkv_hidden_sizes")?;
    let [query, key, value] = thirds(to, &product, sizes);
    attend(to, &Projected { query, key, value }, [3, 5], None)
}

/// Queries, keys and values are inputs of their own.
fn of_three_inputs(to: &mut Rewrite<'_>) -> Result<(), BuildError> {
    let (Some(query), Some(key), Some(value)) = (to.maybe(0), to.maybe(1), to.maybe(2)) else {
        // Packed ones.
        return Err(BuildError::Unsupported);
    };
    let mut projected = Projected { query: query.into(), key: key.into(), value: value.into() };
    if let Some(bias) = to.maybe(3) {
        let [q, k, v] = thirds(to, bias, &[]);
        projected = Projected {
            query: to.add("Add", 14, &[query, &q], &[]),
            key: to.add("Add", 14, &[key, &k], &[]),
            value: to.add("Add", 14, &[value, &v], &[]),
        };
    }
    let past = to.maybe(6).zip(to.maybe(7));
    attend(to, &projected, [4, 5], past)
}

fn thirds(to: &mut Rewrite<'_>, value: &str, sizes: &[i64]) -> [String; 3] {
    let axis = ("axis", Attribute::Int(-1));
    if sizes.is_empty() {
        return to.add_many("Split", 18, &[value], &[axis, ("num_outputs", Attribute::Int(3))]);
    }
    let sizes = to.ints(sizes);
    to.add_many("Split", 18, &[value, &sizes], &[axis])
}

/// `mask` says which keys there are, `bias` is added to the logits.
fn attend(
    to: &mut Rewrite<'_>,
    projected: &Projected,
    [mask, bias]: [usize; 2],
    past: Option<(&str, &str)>,
) -> Result<(), BuildError> {
    let heads = to.attributes().int("num_heads")?.unwrap_or(0);
    let mut attributes =
        vec![("q_num_heads", Attribute::Int(heads)), ("kv_num_heads", Attribute::Int(heads))];
    if to.flag("unidirectional")? {
        attributes.push(("is_causal", Attribute::Int(1)));
    }
    if let Some(scale) = to.attributes().float("scale")?.filter(|scale| *scale != 0.0) {
        attributes.push(("scale", Attribute::Float(scale)));
    }
    let masked = match to.maybe(mask) {
        Some(_) if past.is_some() => return Err(BuildError::Unsupported),
        Some(mask) => {
            let filter = to.attributes().float("mask_filter_value")?.unwrap_or(-10_000.0);
            Some(to.add_own("KeyMask", &[mask, &projected.key], &[("filter", Attribute::Float(filter))]))
        }
        None => None,
    };
    let added = match (masked, to.maybe(bias)) {
        (Some(mask), Some(bias)) => to.add("Add", 14, &[&mask, bias], &[]),
        (Some(mask), None) => mask,
        (None, bias) => bias.unwrap_or("").to_owned(),
    };
    let mut inputs = vec![projected.query.as_str(), &projected.key, &projected.value, &added];
    if let Some((keys, values)) = past {
        inputs.extend([keys, values]);
    }
    if past.is_some() || to.wants(1) || to.wants(2) {
        let [y, keys, values] = to.add_many("Attention", 23, &inputs, &attributes);
        to.answer(0, &y);
        to.answer(1, &keys);
        to.answer(2, &values);
        return Ok(());
    }
    let y = to.add("Attention", 23, &inputs, &attributes);
    to.answer(0, &y);
    Ok(())
}
