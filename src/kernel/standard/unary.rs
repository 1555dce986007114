//! Functions of one number: `Sqrt`, `Abs`, `Erf`, and the activations.

use super::number::{Float, Number};
use super::support::{Args, Built, Run, fact, first, float_type, like, number_type, one, op, same};
use super::vector;
use crate::kernel::{BuildError, Node};
use crate::tensor::{DataView, Element, ElementType, Tensor, TensorView};

/// The kernel of a node of this family, or [`BuildError::Unsupported`].
#[expect(clippy::too_many_lines, reason = "a table of operators")]
pub(super) fn build(name: &'static str, node: &Node<'_>) -> Built {
    macro_rules! numbers {
        ($f:ident) => {
            op(name, same, move |args, outputs, _| {
                let input = args.get(0)?;
                number_type!(args, input, v => map(args, input, v, outputs, Number::$f))
            })
        };
    }
    macro_rules! floats {
        ($f:expr) => {
            op(name, same, move |args, outputs, _| {
                let input = args.get(0)?;
                float_type!(args, input, v => map(args, input, v, outputs, $f))
            })
        };
    }
    macro_rules! through_f64 {
        ($f:expr) => {
            floats!(|x| Float::through_f64(x, $f))
        };
    }
    let float = |attribute: &str, default: f32| -> Result<f32, BuildError> {
        Ok(node.attributes.float(attribute)?.unwrap_or(default))
    };
    match name {
        "Abs" => numbers!(magnitude),
        "Neg" => numbers!(negated),
        "Sign" => numbers!(signum),
        "Relu" => op(name, same, |args, outputs, _| {
            let input = args.get(0)?;
            number_type!(args, input, v => map(args, input, v, outputs, relu))
        }),
        "Sqrt" => floats!(Float::sqrt),
        "Log" => floats!(Float::ln),
        "Floor" => floats!(Float::floor),
        "Ceil" => floats!(Float::ceil),
        "Round" => floats!(Float::round_ties_even),
        "Reciprocal" => floats!(reciprocal),
        "Erf" => through_f64!(vector::erf),
        "Sin" => through_f64!(f64::sin),
        "Cos" => through_f64!(f64::cos),
        "Tan" => through_f64!(f64::tan),
        "Asin" => through_f64!(f64::asin),
        "Acos" => through_f64!(f64::acos),
        "Atan" => through_f64!(f64::atan),
        "Sinh" => through_f64!(f64::sinh),
        "Cosh" => through_f64!(f64::cosh),
        "Asinh" => through_f64!(f64::asinh),
        "Acosh" => through_f64!(f64::acosh),
        "Atanh" => through_f64!(f64::atanh),
        "Exp" => vectored(name, vector::exp, f64::exp),
        "Tanh" => vectored(name, vector::tanh, f64::tanh),
        "Sigmoid" => vectored(name, vector::sigmoid, |x| 1.0 / (1.0 + (-x).exp())),
        "Softplus" => floats!(softplus),
        "Softsign" => floats!(softsign),
        "Mish" => floats!(mish),
        "HardSwish" => floats!(times_hard_sigmoid),
        "HardSigmoid" => {
            let (alpha, beta) = (float("alpha", 0.2)?, float("beta", 0.5)?);
            floats!(move |x| hard_sigmoid(x, alpha, beta))
        }
        "Elu" => {
            let alpha = float("alpha", 1.0)?;
            floats!(move |x| elu(x, alpha, 1.0))
        }
        "Selu" => {
            let (alpha, gamma) = (float("alpha", 1.673_263_2)?, float("gamma", 1.050_701)?);
            floats!(move |x| elu(x, alpha, gamma))
        }
        "Celu" => {
            let alpha = float("alpha", 1.0)?;
            floats!(move |x| celu(x, alpha))
        }
        "LeakyRelu" => {
            let alpha = float("alpha", 0.01)?;
            floats!(move |x| if x < Number::ZERO { x.times(Float::of(alpha)) } else { x })
        }
        "ThresholdedRelu" => {
            let alpha = float("alpha", 1.0)?;
            floats!(move |x| if x <= Float::of(alpha) { Number::ZERO } else { x })
        }
        "Shrink" => {
            let (bias, lambd) = (float("bias", 0.0)?, float("lambd", 0.5)?);
            op(name, same, move |args, outputs, _| {
                let input = args.get(0)?;
                number_type!(args, input, v => map(args, input, v, outputs, |x| shrink(x, bias, lambd)))
            })
        }
        "Gelu" => match node.attributes.string("approximate")?.unwrap_or("none") {
            "none" => through_f64!(|x| 0.5 * x * (1.0 + vector::erf(x * std::f64::consts::FRAC_1_SQRT_2))),
            "tanh" => through_f64!(|x| {
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x);
                0.5 * x * (1.0 + inner.tanh())
            }),
            other => Err(BuildError::invalid(format!("attribute `approximate`: found `{other}`"))),
        },
        "Not" => op(name, same, |args, outputs, _| {
            let input = args.get(0)?;
            map(args, input, args.values::<bool>(0)?, outputs, |x| !x)
        }),
        "BitwiseNot" => bitwise_not(name),
        "IsNaN" => predicate(name, f64::is_nan),
        "IsInf" => {
            let negative = node.attributes.int("detect_negative")?.unwrap_or(1) != 0;
            let positive = node.attributes.int("detect_positive")?.unwrap_or(1) != 0;
            predicate(name, move |x| x.is_infinite() && if x < 0.0 { negative } else { positive })
        }
        _ => Err(BuildError::Unsupported),
    }
}

/// The first output becomes the function of each element.
#[inline(always)]
pub(super) fn map<A: Copy, B: Element>(
    args: Args<'_, '_>,
    input: TensorView<'_>,
    values: &[A],
    outputs: &mut [Tensor],
    f: impl Fn(A) -> B,
) -> Run {
    let to = first(args, outputs)?.reset::<B>(input.shape());
    to.iter_mut().zip(values).for_each(|(to, x)| *to = f(*x));
    Ok(())
}

/// A function with a fast form for `f32`, from a slice to another of the same length.
fn vectored(name: &'static str, f32s: fn(&[f32], &mut [f32]), f64s: fn(f64) -> f64) -> Built {
    op(name, same, move |args, outputs, _| {
        let input = args.get(0)?;
        match input.data() {
            DataView::F32(values) => {
                f32s(values, first(args, outputs)?.reset::<f32>(input.shape()));
                Ok(())
            }
            DataView::F64(values) => map(args, input, values, outputs, f64s),
            _ => Err(args.fail("a tensor of floats")),
        }
    })
}

fn predicate(name: &'static str, f: impl Fn(f64) -> bool + Send + Sync + 'static) -> Built {
    let facts = |inputs: &[_]| {
        fact(inputs, 0)?;
        one(ElementType::Bool, like(inputs, 0))
    };
    op(name, facts, move |args, outputs, _| {
        let input = args.get(0)?;
        float_type!(args, input, v => map(args, input, v, outputs, |x| f(x.to_f64())))
    })
}

fn bitwise_not(name: &'static str) -> Built {
    op(name, same, |args, outputs, _| {
        let input = args.get(0)?;
        match input.data() {
            DataView::I8(v) => map(args, input, v, outputs, |x| !x),
            DataView::I16(v) => map(args, input, v, outputs, |x| !x),
            DataView::I32(v) => map(args, input, v, outputs, |x| !x),
            DataView::I64(v) => map(args, input, v, outputs, |x| !x),
            DataView::U8(v) => map(args, input, v, outputs, |x| !x),
            DataView::U16(v) => map(args, input, v, outputs, |x| !x),
            DataView::U32(v) => map(args, input, v, outputs, |x| !x),
            DataView::U64(v) => map(args, input, v, outputs, |x| !x),
            _ => Err(args.fail("a tensor of whole numbers")),
        }
    })
}

/// NaN stays NaN: a comparison that asks for `x > 0` would make it a finite score.
#[inline(always)]
pub(super) fn relu<T: Number>(x: T) -> T {
    if x < T::ZERO { T::ZERO } else { x }
}

fn reciprocal<T: Float>(x: T) -> T {
    T::ONE.over(x)
}

/// `ln(1 + e^x)` in a form that does not overflow.
pub(super) fn softplus<T: Float>(x: T) -> T {
    let tail = x.magnitude().negated().exp().ln_1p();
    if x > T::ZERO { x.plus(tail) } else { tail }
}

fn softsign<T: Float>(x: T) -> T {
    x.over(T::ONE.plus(x.magnitude()))
}

fn mish<T: Float>(x: T) -> T {
    x.times(softplus(x).tanh())
}

fn hard_sigmoid<T: Float>(x: T, alpha: f32, beta: f32) -> T {
    x.times(T::of(alpha)).plus(T::of(beta)).larger(T::ZERO).smaller(T::ONE)
}

fn times_hard_sigmoid<T: Float>(x: T) -> T {
    let sixth = T::ONE.over(T::of(6.0));
    x.times(x.times(sixth).plus(T::of(0.5)).larger(T::ZERO).smaller(T::ONE))
}

fn elu<T: Float>(x: T, alpha: f32, gamma: f32) -> T {
    T::of(gamma).times(if x < T::ZERO { T::of(alpha).times(x.exp_m1()) } else { x })
}

fn celu<T: Float>(x: T, alpha: f32) -> T {
    let alpha = T::of(alpha);
    if x < T::ZERO { alpha.times(x.over(alpha).exp_m1()) } else { x }
}

fn shrink<T: Number>(x: T, bias: f32, lambd: f32) -> T {
    let (value, bias, lambd) = (x.to_f64(), f64::from(bias), f64::from(lambd));
    if value < -lambd {
        T::from_f64(value + bias)
    } else if value > lambd {
        T::from_f64(value - bias)
    } else if x.is_nan() {
        x
    } else {
        T::ZERO
    }
}
