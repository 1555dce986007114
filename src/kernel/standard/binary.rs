//! Functions of two or more tensors, element by element, with broadcasting: arithmetic,
//! comparison, logic, `Where`, `Clip`.

use super::number::{Float, Number};
use super::strided::{broadcast, zip};
use super::support::{
    Args, Built, Dims, Facts, Run, any_type, broadcast_fact, fact, first, float_type, number_type, one, op,
    same,
};
use crate::kernel::{BuildError, Fact, Node, RunContext, copied_text};
use crate::tensor::{DataView, Element, ElementType, Tensor, TensorView};

/// The kernel of a node of this family, or [`BuildError::Unsupported`].
pub(super) fn build(name: &'static str, node: &Node<'_>) -> Built {
    // The oldest versions had a broadcasting of their own, by an attribute.
    if node.version < 7 && (node.attributes.contains("broadcast") || node.attributes.contains("axis")) {
        return Err(BuildError::Unsupported);
    }
    macro_rules! arithmetic {
        ($f:ident) => {
            op(name, joined, |args, outputs, cx| {
                let a = args.get(0)?;
                number_type!(args, a, v => two(args, v, outputs, cx, Number::$f))
            })
        };
    }
    macro_rules! compare {
        ($f:expr) => {
            op(name, truths, |args, outputs, cx| {
                let a = args.get(0)?;
                number_type!(args, a, v => two(args, v, outputs, cx, |a, b| $f(&a, &b)))
            })
        };
    }
    macro_rules! logic {
        ($f:expr) => {
            op(name, truths, |args, outputs, cx| two(args, args.values::<bool>(0)?, outputs, cx, $f))
        };
    }
    match name {
        "Add" => arithmetic!(plus),
        "Sub" => arithmetic!(minus),
        "Mul" => arithmetic!(times),
        "Div" => op(name, joined, |args, outputs, cx| {
            let a = args.get(0)?;
            number_type!(args, a, v => divide(args, v, outputs, cx, Number::over))
        }),
        "Mod" if node.attributes.int("fmod")?.unwrap_or(0) != 0 => op(name, joined, |args, outputs, cx| {
            let a = args.get(0)?;
            number_type!(args, a, v => divide(args, v, outputs, cx, Number::remainder))
        }),
        "Mod" => op(name, joined, |args, outputs, cx| {
            let a = args.get(0)?;
            number_type!(args, a, v => divide(args, v, outputs, cx, Number::modulo))
        }),
        "Pow" => op(name, joined, pow),
        "PRelu" => op(name, same, |args, outputs, cx| {
            let a = args.get(0)?;
            number_type!(args, a, v => two(args, v, outputs, cx, leak))
        }),
        "Min" => fold(name, |args, outputs, cx| {
            let a = args.get(0)?;
            number_type!(args, a, v => several(args, v, outputs, cx, Number::smaller, None))
        }),
        "Max" => fold(name, |args, outputs, cx| {
            let a = args.get(0)?;
            number_type!(args, a, v => several(args, v, outputs, cx, Number::larger, None))
        }),
        "Sum" => fold(name, |args, outputs, cx| {
            let a = args.get(0)?;
            float_type!(args, a, v => several(args, v, outputs, cx, Number::plus, None))
        }),
        "Mean" => fold(name, |args, outputs, cx| {
            let a = args.get(0)?;
            float_type!(args, a, v => several(args, v, outputs, cx, Number::plus, Some(count(args))))
        }),
        "Equal" => op(name, truths, equal),
        "Less" => compare!(PartialOrd::lt),
        "LessOrEqual" => compare!(PartialOrd::le),
        "Greater" => compare!(PartialOrd::gt),
        "GreaterOrEqual" => compare!(PartialOrd::ge),
        "And" => logic!(|a, b| a && b),
        "Or" => logic!(|a, b| a || b),
        "Xor" => logic!(|a: bool, b: bool| a != b),
        "Where" => op(name, where_facts, |args, outputs, cx| {
            let a = args.get(1)?;
            any_type!(a, v => choose(args, v, outputs, cx))
        }),
        "Clip" => clip(name, node),
        _ => Err(BuildError::Unsupported),
    }
}

fn joined(inputs: &[Option<Fact>]) -> Facts {
    one(fact(inputs, 0)?.element, broadcast_fact(inputs, 0..inputs.len())?)
}

fn truths(inputs: &[Option<Fact>]) -> Facts {
    one(ElementType::Bool, broadcast_fact(inputs, 0..2)?)
}

fn where_facts(inputs: &[Option<Fact>]) -> Facts {
    one(fact(inputs, 1)?.element, broadcast_fact(inputs, 0..3)?)
}

fn fold<R>(name: &'static str, run: R) -> Built
where
    R: Fn(Args<'_, '_>, &mut [Tensor], &RunContext) -> Run + Send + Sync + 'static,
{
    op(name, joined, run)
}

/// A function of the first two inputs, of one type.
#[inline(always)]
fn two<A: Element + Copy, C: Element>(
    args: Args<'_, '_>,
    a: &[A],
    outputs: &mut [Tensor],
    cx: &RunContext,
    f: impl Fn(A, A) -> C,
) -> Run {
    let b = args.values::<A>(1)?;
    let (a_dims, b_dims) = (args.get(0)?.shape(), args.get(1)?.shape());
    let dims = broadcast(a_dims.dims(), b_dims.dims()).ok_or_else(|| args.fail("shapes that broadcast"))?;
    let to = cx.reset::<C>(first(args, outputs)?, &dims)?;
    zip((a, a_dims.dims()), (b, b_dims.dims()), &dims, to, f);
    Ok(())
}

/// [`two`], where a whole number divided by zero is an error.
fn divide<A: Number>(
    args: Args<'_, '_>,
    a: &[A],
    outputs: &mut [Tensor],
    cx: &RunContext,
    f: fn(A, A) -> A,
) -> Run {
    if !A::IS_FLOAT && args.values::<A>(1)?.contains(&A::ZERO) {
        return Err(args.fail("a divisor that is not zero"));
    }
    two(args, a, outputs, cx, f)
}

fn leak<T: Number>(x: T, slope: T) -> T {
    if x < T::ZERO { x.times(slope) } else { x }
}

fn count<T: Float>(args: Args<'_, '_>) -> T {
    T::from_f64(args.inputs.len() as f64)
}

/// A function of any number of inputs, two at a time, and the division of the result.
#[inline(always)]
fn several<T: Number>(
    args: Args<'_, '_>,
    a: &[T],
    outputs: &mut [Tensor],
    cx: &RunContext,
    f: impl Fn(T, T) -> T,
    divisor: Option<T>,
) -> Run {
    let mut dims = Dims::from_slice(args.get(0)?.dims());
    for index in 1..args.inputs.len() {
        dims = broadcast(&dims, args.get(index)?.dims()).ok_or_else(|| args.fail("shapes that broadcast"))?;
    }
    let to = cx.reset::<T>(first(args, outputs)?, &dims)?;
    zip((a, args.get(0)?.dims()), (a, args.get(0)?.dims()), &dims, to, |a, _| a);
    for index in 1..args.inputs.len() {
        let b = args.values::<T>(index)?;
        let strides = super::strided::stretched(args.get(index)?.dims(), &dims);
        let mut rest = &mut *to;
        super::strided::Walk::new(&dims, [&strides]).runs([0], |[at], length, [step]| {
            let Some((run, after)) = std::mem::take(&mut rest).split_at_mut_checked(length) else { return };
            rest = after;
            let b = b.get(at.cast_unsigned()..).unwrap_or(&[]);
            match b.first() {
                Some(b) if step == 0 => run.iter_mut().for_each(|to| *to = f(*to, *b)),
                _ => run.iter_mut().zip(b).for_each(|(to, b)| *to = f(*to, *b)),
            }
        });
    }
    if let Some(divisor) = divisor {
        for to in to {
            *to = to.over(divisor);
        }
    }
    Ok(())
}

/// The type of the base is the type of the result, whatever the exponent is.
fn pow(args: Args<'_, '_>, outputs: &mut [Tensor], cx: &RunContext) -> Run {
    fn typed<A: Number, B: Number>(
        args: Args<'_, '_>,
        (a, b): (&[A], &[B]),
        outputs: &mut [Tensor],
        cx: &RunContext,
    ) -> Run {
        let (a_shape, b_shape) = (args.get(0)?.shape(), args.get(1)?.shape());
        let dims =
            broadcast(a_shape.dims(), b_shape.dims()).ok_or_else(|| args.fail("shapes that broadcast"))?;
        let to = cx.reset::<A>(first(args, outputs)?, &dims)?;
        let (a, b) = ((a, a_shape.dims()), (b, b_shape.dims()));
        if A::IS_FLOAT || B::IS_FLOAT {
            // Squares are what exporters make of distances and variances.
            match b.0 {
                [two] if two.to_f64().to_bits() == 2.0_f64.to_bits() => {
                    zip(a, b, &dims, to, |a, _| a.times(a));
                }
                [half] if half.to_f64().to_bits() == 0.5_f64.to_bits() => {
                    zip(a, b, &dims, to, |a, _| A::from_f64(a.to_f64().sqrt()));
                }
                _ => zip(a, b, &dims, to, |a, b| A::from_f64(a.to_f64().powf(b.to_f64()))),
            }
        } else {
            zip(a, b, &dims, to, whole_power);
        }
        Ok(())
    }
    let (a, b) = (args.get(0)?, args.get(1)?);
    number_type!(args, a, a => match b.data() {
        DataView::F32(b) => typed(args, (a, b), outputs, cx),
        DataView::F64(b) => typed(args, (a, b), outputs, cx),
        DataView::I32(b) => typed(args, (a, b), outputs, cx),
        DataView::I64(b) => typed(args, (a, b), outputs, cx),
        DataView::U32(b) => typed(args, (a, b), outputs, cx),
        DataView::U64(b) => typed(args, (a, b), outputs, cx),
        _ => Err(args.fail("an exponent of a type that powers have")),
    })
}

fn whole_power<A: Number, B: Number>(base: A, exponent: B) -> A {
    let mut exponent = exponent.to_i64();
    if exponent < 0 {
        #[allow(clippy::cast_precision_loss, reason = "an exponent that large gives 0")]
        return A::from_f64(base.to_f64().powf(exponent as f64));
    }
    let (mut base, mut power) = (base, A::ONE);
    while exponent > 0 {
        if exponent & 1 == 1 {
            power = power.times(base);
        }
        base = base.times(base);
        exponent >>= 1;
    }
    power
}

fn equal(args: Args<'_, '_>, outputs: &mut [Tensor], cx: &RunContext) -> Run {
    let a = args.get(0)?;
    match a.data() {
        DataView::Bool(v) => two(args, v, outputs, cx, |a, b| a == b),
        DataView::String(a) => {
            let b = args.values::<String>(1)?;
            // Texts are compared where they lie: their positions are what broadcasts.
            let (a_shape, b_shape) = (args.get(0)?.shape(), args.get(1)?.shape());
            let dims = broadcast(a_shape.dims(), b_shape.dims())
                .ok_or_else(|| args.fail("shapes that broadcast"))?;
            let (a, b): (Vec<&str>, Vec<&str>) =
                (a.iter().map(String::as_str).collect(), b.iter().map(String::as_str).collect());
            let to = cx.reset::<bool>(first(args, outputs)?, &dims)?;
            zip((&a, a_shape.dims()), (&b, b_shape.dims()), &dims, to, |a, b| a == b);
            Ok(())
        }
        _ => number_type!(args, a, v => two(args, v, outputs, cx, |a, b| a == b)),
    }
}

fn choose<T: Element>(args: Args<'_, '_>, a: &[T], outputs: &mut [Tensor], cx: &RunContext) -> Run {
    let (condition, b) = (args.values::<bool>(0)?, args.values::<T>(2)?);
    let shapes = [args.get(0)?.shape(), args.get(1)?.shape(), args.get(2)?.shape()];
    let mut dims = Dims::new();
    for shape in &shapes {
        dims = broadcast(&dims, shape.dims()).ok_or_else(|| args.fail("shapes that broadcast"))?;
    }
    let to = cx.reset::<T>(first(args, outputs)?, &dims)?;
    cx.room_for_text(copied_text(a, to.len()).saturating_add(copied_text(b, to.len())))?;
    let [c_strides, a_strides, b_strides] = shapes.map(|s| super::strided::stretched(s.dims(), &dims));
    let mut rest = to;
    let walk = super::strided::Walk::new(&dims, [&c_strides, &a_strides, &b_strides]);
    walk.runs([0; 3], |[c_at, a_at, b_at], length, [c_step, a_step, b_step]| {
        let Some((run, after)) = std::mem::take(&mut rest).split_at_mut_checked(length) else { return };
        rest = after;
        for (i, to) in (0_isize..).zip(run) {
            let picked = match condition.get((c_at + i * c_step).cast_unsigned()) {
                Some(true) => a.get((a_at + i * a_step).cast_unsigned()),
                _ => b.get((b_at + i * b_step).cast_unsigned()),
            };
            if let Some(value) = picked {
                to.clone_from(value);
            }
        }
    });
    Ok(())
}

/// Bounds are attributes before version 11, inputs after.
fn clip(name: &'static str, node: &Node<'_>) -> Built {
    fn typed<T: Number>(
        args: Args<'_, '_>,
        values: &[T],
        outputs: &mut [Tensor],
        (low, high): (Option<f32>, Option<f32>),
    ) -> Run {
        let bound = |index: usize, attribute: Option<f32>, none: T| -> Result<T, crate::load::RunError> {
            match args.maybe(index) {
                Some(_) => args.values::<T>(index)?.first().copied().ok_or_else(|| args.fail("a bound")),
                None => Ok(attribute.map_or(none, |a| T::from_f64(a.into()))),
            }
        };
        let (low, high) = (bound(1, low, T::LOWEST)?, bound(2, high, T::HIGHEST)?);
        let input: TensorView<'_> = args.get(0)?;
        super::unary::map(args, input, values, outputs, |x| {
            let x = if x < low { low } else { x };
            if x > high { high } else { x }
        })
    }
    let bounds = (node.attributes.float("min")?, node.attributes.float("max")?);
    op(name, same, move |args, outputs, _| {
        let input = args.get(0)?;
        number_type!(args, input, v => typed(args, v, outputs, bounds))
    })
}
