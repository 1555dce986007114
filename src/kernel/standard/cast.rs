//! `Cast` and `CastLike`: every type to every other, by ONNX's rules for text.

use super::number::Number;
use super::support::{Args, Built, Run, element_of, fact, first, like, one, op};
use crate::kernel::{BuildError, Direction, Narrow, Node, ROUNDED_TO};
use crate::tensor::{DataView, Element, ElementType, Tensor, TensorView};

/// The kernel of a node of this family, or [`BuildError::Unsupported`].
pub(super) fn build(name: &'static str, node: &Node<'_>) -> Built {
    match name {
        "Cast" => {
            // Before version 6 the type was text.
            let to = match node.attributes.string("to") {
                Ok(Some(text)) => named(text)?,
                _ => element_of(
                    node.attributes
                        .int("to")?
                        .ok_or_else(|| BuildError::invalid("attribute `to` is missing"))?,
                )?,
            };
            let rounding = rounding(node)?;
            op(
                name,
                move |inputs| {
                    fact(inputs, 0)?;
                    one(to, like(inputs, 0))
                },
                move |args, outputs, _| {
                    if let Rounding::Narrow(narrow, ..) = rounding
                        && narrow.range().is_some()
                    {
                        return wrap(args, narrow, outputs);
                    }
                    cast(args, to, outputs)?;
                    round(first(args, outputs)?, rounding);
                    Ok(())
                },
            )
        }
        "CastLike" => op(
            name,
            |inputs| one(fact(inputs, 1)?.element, like(inputs, 0)),
            |args, outputs, _| cast(args, args.get(1)?.element_type(), outputs),
        ),
        _ => Err(BuildError::Unsupported),
    }
}

/// To what a type can hold that is held as a wider one.
#[derive(Clone, Copy, Debug)]
enum Rounding {
    No,
    Half,
    Brain,
    Narrow(Narrow, bool, Direction),
}

fn rounding(node: &Node<'_>) -> Result<Rounding, BuildError> {
    Ok(match node.attributes.int(ROUNDED_TO)?.and_then(|code| i32::try_from(code).ok()) {
        None => Rounding::No,
        Some(10) => Rounding::Half,
        Some(16) => Rounding::Brain,
        Some(code) => {
            let saturate = node.attributes.int("saturate")?.unwrap_or(1) != 0;
            let direction = match node.attributes.string("round_mode")?.unwrap_or("up") {
                "up" => Direction::Up,
                "down" => Direction::Down,
                "nearest" => Direction::Nearest,
                other => return Err(BuildError::invalid(format!("attribute `round_mode`: found `{other}`"))),
            };
            Rounding::Narrow(Narrow::of(code).ok_or(BuildError::Unsupported)?, saturate, direction)
        }
    })
}

fn round(output: &mut Tensor, rounding: Rounding) {
    let each = match rounding {
        Rounding::No => return,
        Rounding::Half => half as fn(f32) -> f32,
        Rounding::Brain => bfloat,
        Rounding::Narrow(narrow, saturate, direction) => {
            let values = output.values_mut::<f32>().into_iter().flatten();
            values.for_each(|x| *x = narrow.nearest(*x, saturate, direction));
            return;
        }
    };
    output.values_mut::<f32>().into_iter().flatten().for_each(|x| *x = each(*x));
}

/// To whole numbers of less than eight bits.
fn wrap(args: Args<'_, '_>, narrow: Narrow, outputs: &mut [Tensor]) -> Run {
    let mut wide = Tensor::default();
    number::<i64>(args, args.get(0)?, &mut wide)?;
    let wide = wide.values::<i64>().unwrap_or(&[]).iter().map(|x| narrow.wrap(*x));
    let (output, shape) = (first(args, outputs)?, args.get(0)?.shape());
    if narrow.element_type() == ElementType::U8 {
        output.reset::<u8>(shape).iter_mut().zip(wide).for_each(|(to, x)| *to = u8::from_i64(x));
    } else {
        output.reset::<i8>(shape).iter_mut().zip(wide).for_each(|(to, x)| *to = i8::from_i64(x));
    }
    Ok(())
}

/// The nearest number of 16 bits (IEEE 754 binary16), ties to even.
fn half(x: f32) -> f32 {
    let size = x.abs();
    if !size.is_finite() {
        return x;
    }
    // Eleven bits from the leading one on, or what lies above the smallest step.
    let step = if size < 6.103_515_6e-5 { 5.960_464_5e-8 } else { exponent(size) * 9.765_625e-4 };
    let rounded = (size / step).round_ties_even() * step;
    (if rounded > 65_504.0 { f32::INFINITY } else { rounded }).copysign(x)
}

/// The nearest bfloat16, ties to even.
fn bfloat(x: f32) -> f32 {
    if !x.is_finite() {
        return x;
    }
    let bits = x.to_bits();
    f32::from_bits(bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
}

/// The power of two of a normal number.
fn exponent(size: f32) -> f32 {
    f32::from_bits(size.to_bits() & 0x7f80_0000)
}

fn named(text: &str) -> Result<ElementType, BuildError> {
    const NAMES: [(&str, ElementType); 12] = [
        ("FLOAT", ElementType::F32),
        ("DOUBLE", ElementType::F64),
        ("INT8", ElementType::I8),
        ("INT16", ElementType::I16),
        ("INT32", ElementType::I32),
        ("INT64", ElementType::I64),
        ("UINT8", ElementType::U8),
        ("UINT16", ElementType::U16),
        ("UINT32", ElementType::U32),
        ("UINT64", ElementType::U64),
        ("BOOL", ElementType::Bool),
        ("STRING", ElementType::String),
    ];
    NAMES.iter().find(|(name, _)| *name == text).map(|(_, e)| *e).ok_or(BuildError::Unsupported)
}

fn cast(args: Args<'_, '_>, to: ElementType, outputs: &mut [Tensor]) -> Run {
    let input = args.get(0)?;
    let output = first(args, outputs)?;
    match to {
        ElementType::F32 => number::<f32>(args, input, output),
        ElementType::F64 => number::<f64>(args, input, output),
        ElementType::I8 => number::<i8>(args, input, output),
        ElementType::I16 => number::<i16>(args, input, output),
        ElementType::I32 => number::<i32>(args, input, output),
        ElementType::I64 => number::<i64>(args, input, output),
        ElementType::U8 => number::<u8>(args, input, output),
        ElementType::U16 => number::<u16>(args, input, output),
        ElementType::U32 => number::<u32>(args, input, output),
        ElementType::U64 => number::<u64>(args, input, output),
        ElementType::Bool => truth(args, input, output),
        ElementType::String => {
            text(input, output);
            Ok(())
        }
    }
}

fn fill<A, B: Element>(input: TensorView<'_>, values: &[A], output: &mut Tensor, f: impl Fn(&A) -> B) {
    let to = output.reset::<B>(input.shape());
    to.iter_mut().zip(values).for_each(|(to, x)| *to = f(x));
}

/// To numbers: fractions are cut off, what is too large is the largest there is, whole numbers
/// wrap.
fn number<T: Number>(args: Args<'_, '_>, input: TensorView<'_>, output: &mut Tensor) -> Run {
    match input.data() {
        DataView::F32(v) => fill(input, v, output, |x| T::from_f64(f64::from(*x))),
        DataView::F64(v) => fill(input, v, output, |x| T::from_f64(*x)),
        DataView::I8(v) => fill(input, v, output, |x| T::from_i64(i64::from(*x))),
        DataView::I16(v) => fill(input, v, output, |x| T::from_i64(i64::from(*x))),
        DataView::I32(v) => fill(input, v, output, |x| T::from_i64(i64::from(*x))),
        DataView::I64(v) => fill(input, v, output, |x| T::from_i64(*x)),
        DataView::U8(v) => fill(input, v, output, |x| T::from_i64(i64::from(*x))),
        DataView::U16(v) => fill(input, v, output, |x| T::from_i64(i64::from(*x))),
        DataView::U32(v) => fill(input, v, output, |x| T::from_i64(i64::from(*x))),
        #[allow(clippy::cast_precision_loss, reason = "what a cast to a float does")]
        DataView::U64(v) if T::IS_FLOAT => fill(input, v, output, |x| T::from_f64(*x as f64)),
        DataView::U64(v) => fill(input, v, output, |x| T::from_i64(x.cast_signed())),
        DataView::Bool(v) => fill(input, v, output, |x| T::from_i64(i64::from(*x))),
        DataView::String(v) => {
            let to = output.reset::<T>(input.shape());
            for (to, text) in to.iter_mut().zip(v) {
                *to = parse(text).ok_or_else(|| args.fail("text that is a number"))?;
            }
        }
    }
    Ok(())
}

fn truth(args: Args<'_, '_>, input: TensorView<'_>, output: &mut Tensor) -> Run {
    match input.data() {
        DataView::F32(v) => fill(input, v, output, |x| *x != 0.0),
        DataView::F64(v) => fill(input, v, output, |x| *x != 0.0),
        DataView::I8(v) => fill(input, v, output, |x| *x != 0),
        DataView::I16(v) => fill(input, v, output, |x| *x != 0),
        DataView::I32(v) => fill(input, v, output, |x| *x != 0),
        DataView::I64(v) => fill(input, v, output, |x| *x != 0),
        DataView::U8(v) => fill(input, v, output, |x| *x != 0),
        DataView::U16(v) => fill(input, v, output, |x| *x != 0),
        DataView::U32(v) => fill(input, v, output, |x| *x != 0),
        DataView::U64(v) => fill(input, v, output, |x| *x != 0),
        DataView::Bool(v) => fill(input, v, output, |x| *x),
        DataView::String(v) => {
            let to = output.reset::<bool>(input.shape());
            for (to, text) in to.iter_mut().zip(v) {
                *to = parse::<i64>(text).ok_or_else(|| args.fail("text that is a number"))? != 0;
            }
        }
    }
    Ok(())
}

fn text(input: TensorView<'_>, output: &mut Tensor) {
    match input.data() {
        DataView::F32(v) => fill(input, v, output, |x| decimal(f64::from(*x), 8)),
        DataView::F64(v) => fill(input, v, output, |x| decimal(*x, 17)),
        DataView::I8(v) => fill(input, v, output, ToString::to_string),
        DataView::I16(v) => fill(input, v, output, ToString::to_string),
        DataView::I32(v) => fill(input, v, output, ToString::to_string),
        DataView::I64(v) => fill(input, v, output, ToString::to_string),
        DataView::U8(v) => fill(input, v, output, ToString::to_string),
        DataView::U16(v) => fill(input, v, output, ToString::to_string),
        DataView::U32(v) => fill(input, v, output, ToString::to_string),
        DataView::U64(v) => fill(input, v, output, ToString::to_string),
        DataView::Bool(v) => fill(input, v, output, |x| String::from(if *x { "1" } else { "0" })),
        DataView::String(v) => output.reset::<String>(input.shape()).clone_from_slice(v),
    }
}

/// The number that a text is: plain, with an exponent, `INF` or `NaN` in any case.
fn parse<T: Number>(text: &str) -> Option<T> {
    let text = text.trim();
    if T::IS_FLOAT {
        return text.parse::<f64>().ok().map(T::from_f64);
    }
    match text.parse::<i64>() {
        Ok(whole) => Some(T::from_i64(whole)),
        Err(_) => match text.parse::<u64>() {
            Ok(whole) => Some(T::from_i64(whole.cast_signed())),
            Err(_) => text.parse::<f64>().ok().map(T::from_f64),
        },
    }
}

/// As C's `%.{digits}g`: so many significant digits at most, without trailing zeros, with an
/// exponent where the number is very large or small.
pub(super) fn decimal(value: f64, digits: usize) -> String {
    if value.is_nan() {
        return "NaN".into();
    }
    if value.is_infinite() {
        return if value > 0.0 { "INF".into() } else { "-INF".into() };
    }
    if value == 0.0 {
        return if value.is_sign_negative() { "-0".into() } else { "0".into() };
    }
    let scientific = format!("{value:.*e}", digits.saturating_sub(1));
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i64 = exponent.parse().unwrap_or(0);
    let cut = |text: &str| -> String {
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').into() } else { text.into() }
    };
    let precision = i64::try_from(digits).unwrap_or(17);
    if exponent < -4 || exponent >= precision {
        let sign = if exponent < 0 { '-' } else { '+' };
        return format!("{}e{sign}{:02}", cut(mantissa), exponent.unsigned_abs());
    }
    let places = usize::try_from(precision - 1 - exponent).unwrap_or(0);
    cut(&format!("{value:.places$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_print_as_c_prints_them() {
        let cases = [
            (0.1_f32, "0.1"),
            (1.0, "1"),
            (-2.5, "-2.5"),
            (123_456_789.0, "1.2345679e+08"),
            (1e-5, "9.9999997e-06"),
            (0.000_123_456, "0.000123456"),
            (f32::INFINITY, "INF"),
        ];
        for (value, want) in cases {
            assert_eq!(decimal(f64::from(value), 8), want);
        }
        assert_eq!(decimal(0.1, 17), "0.10000000000000001");
    }

    #[test]
    fn text_becomes_the_number_that_it_is() {
        assert_eq!(parse::<f32>("1e3"), Some(1000.0));
        assert_eq!(parse::<f32>("-INF"), Some(f32::NEG_INFINITY));
        assert!(parse::<f64>("NaN").unwrap().is_nan());
        assert_eq!(parse::<i64>(" 42 "), Some(42));
        assert_eq!(parse::<f32>("x"), None);
    }
}
