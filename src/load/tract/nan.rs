//! Operators that keep NaN where tract's own lose it.
//!
//! A comparison with NaN is false, so `max(x, 0)` written as a comparison gives a finite answer for
//! a value that is unknown; a fast approximation that clamps its argument does the same. A model
//! must not make an ordinary score of an unknown input, and no framework does.
#![allow(
    clippy::cast_possible_truncation,
    clippy::wildcard_imports,
    reason = "parameters are f64 where the elements may be f32; tract is used by its prelude"
)]
#![allow(
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    reason = "tract's macros make public types"
)]
#![allow(clippy::indexing_slicing, clippy::unwrap_used, reason = "in the bodies of tract's macros")]

use super::api::*;

element_wise!(relu, Relu,
    [f32] => |_, xs| { xs.iter_mut().for_each(|x| if *x < 0.0 { *x = 0.0 }); Ok(()) },
    [f64] => |_, xs| { xs.iter_mut().for_each(|x| if *x < 0.0 { *x = 0.0 }); Ok(()) },
    [i8] => |_, xs| { xs.iter_mut().for_each(|x| *x = (*x).max(0)); Ok(()) },
    [i32] => |_, xs| { xs.iter_mut().for_each(|x| *x = (*x).max(0)); Ok(()) },
    [i64] => |_, xs| { xs.iter_mut().for_each(|x| *x = (*x).max(0)); Ok(()) }
);

element_wise!(relu6, Relu6,
    [f32] => |_, xs| { xs.iter_mut().for_each(|x| *x = x.clamp(0.0, 6.0)); Ok(()) },
    [f64] => |_, xs| { xs.iter_mut().for_each(|x| *x = x.clamp(0.0, 6.0)); Ok(()) }
);

element_wise!(leaky_relu, LeakyRelu { alpha: f32 },
    [f32] => |op, xs| { xs.iter_mut().for_each(|x| if *x < 0.0 { *x *= op.alpha }); Ok(()) },
    [f64] => |op, xs| { xs.iter_mut().for_each(|x| if *x < 0.0 { *x *= f64::from(op.alpha) }); Ok(()) }
);

element_wise!(elu, Elu,
    [f32] => |_, xs| { xs.iter_mut().for_each(|x| if *x < 0.0 { *x = x.exp_m1() }); Ok(()) },
    [f64] => |_, xs| { xs.iter_mut().for_each(|x| if *x < 0.0 { *x = x.exp_m1() }); Ok(()) }
);

element_wise!(selu, Selu,
    [f32] => |_, xs| {
        xs.iter_mut().for_each(|x| *x = SELU_SCALE as f32 * if *x < 0.0 { SELU_ALPHA as f32 * x.exp_m1() } else { *x });
        Ok(())
    },
    [f64] => |_, xs| {
        xs.iter_mut().for_each(|x| *x = SELU_SCALE * if *x < 0.0 { SELU_ALPHA * x.exp_m1() } else { *x });
        Ok(())
    }
);

element_wise!(softplus, Softplus,
    [f32] => |_, xs| { xs.iter_mut().for_each(|x| *x = if *x > 20.0 { *x } else { x.exp().ln_1p() }); Ok(()) },
    [f64] => |_, xs| { xs.iter_mut().for_each(|x| *x = if *x > 40.0 { *x } else { x.exp().ln_1p() }); Ok(()) }
);

element_wise!(softsign, Softsign,
    [f32] => |_, xs| { xs.iter_mut().for_each(|x| *x /= 1.0 + x.abs()); Ok(()) },
    [f64] => |_, xs| { xs.iter_mut().for_each(|x| *x /= 1.0 + x.abs()); Ok(()) }
);

element_wise!(exp_m1, ExpM1,
    [f32] => |_, xs| { xs.iter_mut().for_each(|x| *x = x.exp_m1()); Ok(()) },
    [f64] => |_, xs| { xs.iter_mut().for_each(|x| *x = x.exp_m1()); Ok(()) }
);

element_wise!(ln_1p, Ln1P,
    [f32] => |_, xs| { xs.iter_mut().for_each(|x| *x = x.ln_1p()); Ok(()) },
    [f64] => |_, xs| { xs.iter_mut().for_each(|x| *x = x.ln_1p()); Ok(()) }
);

element_wise!(exact_exp, ExactExp,
    [f32] => |_, xs| { xs.iter_mut().for_each(|x| *x = x.exp()); Ok(()) },
    [f64] => |_, xs| { xs.iter_mut().for_each(|x| *x = x.exp()); Ok(()) }
);

element_wise!(exact_ln, ExactLn,
    [f32] => |_, xs| { xs.iter_mut().for_each(|x| *x = x.ln()); Ok(()) },
    [f64] => |_, xs| { xs.iter_mut().for_each(|x| *x = x.ln()); Ok(()) }
);

element_wise!(exact_sigmoid, ExactSigmoid,
    [f64] => |_, xs| { xs.iter_mut().for_each(|x| *x = 1.0 / (1.0 + (-*x).exp())); Ok(()) }
);

element_wise!(exact_tanh, ExactTanh,
    [f64] => |_, xs| { xs.iter_mut().for_each(|x| *x = x.tanh()); Ok(()) }
);

element_wise!(exact_erf, ExactErf,
    [f32] => |_, xs| { xs.iter_mut().for_each(|x| *x = (1.0 - complementary_error(f64::from(*x))) as f32); Ok(()) },
    [f64] => |_, xs| { xs.iter_mut().for_each(|x| *x = 1.0 - complementary_error(*x)); Ok(()) }
);

element_wise!(exact_erfc, ExactErfc,
    [f32] => |_, xs| { xs.iter_mut().for_each(|x| *x = complementary_error(f64::from(*x)) as f32); Ok(()) },
    [f64] => |_, xs| { xs.iter_mut().for_each(|x| *x = complementary_error(*x)); Ok(()) }
);

element_wise!(sign, Sign,
    [f32] => |_, xs| { xs.iter_mut().for_each(|x| if *x != 0.0 { *x = x.signum() }); Ok(()) },
    [f64] => |_, xs| { xs.iter_mut().for_each(|x| if *x != 0.0 { *x = x.signum() }); Ok(()) },
    [i32] => |_, xs| { xs.iter_mut().for_each(|x| *x = x.signum()); Ok(()) },
    [i64] => |_, xs| { xs.iter_mut().for_each(|x| *x = x.signum()); Ok(()) }
);

const SELU_SCALE: f64 = 1.050_700_987_355_480_5;
const SELU_ALPHA: f64 = 1.673_263_242_354_377_2;

/// The complementary error function: its power series near zero, its continued fraction elsewhere.
pub(in crate::load) fn complementary_error(x: f64) -> f64 {
    let size = x.abs();
    if size < 2.5 {
        // erf(x) = 2/sqrt(pi) * exp(-x^2) * (x + 2x^3/3 + 4x^5/15 + ..): all terms of one sign.
        let (mut term, mut sum, mut n) = (x, x, 1.0);
        while term.abs() > f64::EPSILON * sum.abs() {
            term *= 2.0 * x * x / (2.0 * n + 1.0);
            sum += term;
            n += 1.0;
        }
        return 1.0 - std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum;
    }
    let mut fraction = 0.0;
    for n in (1..=60).rev() {
        fraction = f64::from(n) / 2.0 / (size + fraction);
    }
    let tail = (-x * x).exp() / ((size + fraction) * std::f64::consts::PI.sqrt());
    // Of infinity the fraction is no number, but the tail is known.
    let tail = if size.is_infinite() { 0.0 } else { tail };
    if x < 0.0 { 2.0 - tail } else { tail }
}

/// `max(a, b)`, NaN where either is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Extreme {
    Max,
    Min,
}

impl Op for Extreme {
    fn name(&self) -> StaticName {
        match self {
            Self::Max => "Maximum".into(),
            Self::Min => "Minimum".into(),
        }
    }

    op_as_typed_op!();
}

impl EvalOp for Extreme {
    op_out_of_plan!();

    fn eval(&self, _context: &EvalContext<'_>, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let [a, b] = inputs.as_slice() else { bail!("two inputs expected") };
        let max = *self == Self::Max;
        let out = match a.datum_type() {
            DatumType::F32 => {
                zip_broadcast(
                    a,
                    b,
                    |a: &f32, b: &f32| {
                        if a.is_nan() || (if max { a > b } else { a < b }) { *a } else { *b }
                    },
                )
            }
            DatumType::F64 => {
                zip_broadcast(
                    a,
                    b,
                    |a: &f64, b: &f64| {
                        if a.is_nan() || (if max { a > b } else { a < b }) { *a } else { *b }
                    },
                )
            }
            DatumType::I32 => zip_broadcast(a, b, |a: &i32, b| if max { *a.max(b) } else { *a.min(b) }),
            DatumType::I64 => zip_broadcast(a, b, |a: &i64, b| if max { *a.max(b) } else { *a.min(b) }),
            other => bail!("{self:?} of {other:?} is not supported"),
        }?;
        Ok(tvec!(out.into_tvalue()))
    }
}

impl TypedOp for Extreme {
    as_op!();

    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let [a, b] = inputs else { bail!("two inputs expected") };
        let shape = tract_core::broadcast::multi_broadcast(&[&a.shape, &b.shape])?;
        Ok(tvec!(TypedFact::dt_shape(a.datum_type, shape)))
    }
}

/// A function of two tensors of one rank, element by element.
pub fn zip_broadcast<A: Datum, C: Datum>(
    a: &Tensor,
    b: &Tensor,
    f: impl Fn(&A, &A) -> C,
) -> TractResult<Tensor> {
    let (a, b) = (a.to_plain_array_view::<A>()?, b.to_plain_array_view::<A>()?);
    let shape = tract_core::broadcast::multi_broadcast(&[a.shape(), b.shape()])?;
    let (Some(a), Some(b)) = (a.broadcast(&*shape), b.broadcast(&*shape)) else {
        bail!("shapes do not agree")
    };
    Ok(tract_ndarray::Zip::from(a).and(b).map_collect(|a, b| f(a, b)).into_tensor())
}

/// Gives its second input on, with NaN wherever a NaN of its first input reaches: into the same
/// element, or wherever `spread` (a maximum over a window or an axis) carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeepNan {
    pub spread: Option<Box<dyn TypedOp>>,
}

impl Op for KeepNan {
    fn name(&self) -> StaticName {
        "KeepNan".into()
    }

    op_as_typed_op!();
}

impl EvalOp for KeepNan {
    op_out_of_plan!();

    fn eval(&self, _context: &EvalContext<'_>, mut inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let (Some(y), Some(x)) = (inputs.pop(), inputs.pop()) else { bail!("two inputs expected") };
        match x.datum_type() {
            DatumType::F32 => self.keep::<f32>(&x, y),
            DatumType::F64 => self.keep::<f64>(&x, y),
            _ => Ok(tvec!(y)),
        }
    }
}

impl KeepNan {
    fn keep<T: Datum + tract_num_traits::Float>(&self, x: &TValue, y: TValue) -> TractResult<TVec<TValue>> {
        let plain = x.try_as_plain_ram()?;
        let values = plain.as_slice::<T>()?;
        // No early end: a loop that always goes through is one that the compiler makes wide.
        if !values.iter().fold(false, |any, v| any | v.is_nan()) {
            return Ok(tvec!(y));
        }
        let mask: Vec<T> = values.iter().map(|v| if v.is_nan() { T::one() } else { T::zero() }).collect();
        let mut mask = tract_ndarray::ArrayD::from_shape_vec(x.shape(), mask)?.into_tensor();
        if let Some(spread) = &self.spread {
            let spread = spread.eval_out_of_plan(tvec!(mask.into_tvalue()))?;
            mask = spread.and_then(|mut s| s.pop()).context("no mask")?.into_tensor();
        }
        let mut y = y.into_tensor();
        let mask = mask.to_plain_array_view::<T>()?;
        let mut plain = y.try_as_plain_ram_mut()?;
        let mut out = plain.to_array_view_mut::<T>()?;
        tract_ndarray::Zip::from(&mut out).and_broadcast(&mask).for_each(|y, m| {
            if *m > T::zero() {
                *y = T::nan();
            }
        });
        Ok(tvec!(y.into_tvalue()))
    }
}

impl TypedOp for KeepNan {
    as_op!();

    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let [_, y] = inputs else { bail!("two inputs expected") };
        Ok(tvec!(y.without_value()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(op: &dyn TypedOp, inputs: &[&[f32]]) -> Vec<f32> {
        let inputs = inputs.iter().map(|i| tensor1(i).into_tvalue()).collect();
        let out = op.eval_out_of_plan(inputs).unwrap().unwrap();
        out[0].try_as_plain_ram().unwrap().as_slice::<f32>().unwrap().to_vec()
    }

    #[test]
    fn every_activation_keeps_nan() {
        for op in
            [relu(), relu6(), leaky_relu(0.1), elu(), selu(), softplus(), softsign(), exact_exp(), sign()]
        {
            let out = run(&op, &[&[f32::NAN, 1.0]]);
            assert!(out[0].is_nan() && out[1].is_finite(), "{op:?} gives {out:?}");
        }
    }

    #[test]
    fn the_error_function_is_exact() {
        for (x, y) in [
            (0.0, 1.0),
            (0.5, 0.479_500_122_186_953_5),
            (2.4, 6.885_138_966_450_787e-4),
            (3.0, 2.209_049_699_858_544e-5),
        ] {
            assert!((complementary_error(x) - y).abs() < 1e-14, "{x}");
            assert!((complementary_error(-x) - (2.0 - y)).abs() < 1e-14, "-{x}");
        }
        assert!(complementary_error(f64::NAN).is_nan());
        assert_eq!(complementary_error(f64::INFINITY), 0.0);
    }

    #[test]
    fn the_larger_of_a_number_and_nan_is_nan() {
        for op in [Extreme::Max, Extreme::Min] {
            let out = run(&op, &[&[f32::NAN, 1.0, 2.0], &[1.0, f32::NAN, 3.0]]);
            assert!(out[0].is_nan() && out[1].is_nan() && !out[2].is_nan());
        }
        assert_eq!(run(&Extreme::Max, &[&[1.0, 5.0], &[2.0, 3.0]]), [2.0, 5.0]);
    }

    #[test]
    fn nan_reaches_what_its_window_reaches() {
        let reduce =
            tract_core::ops::nn::Reduce { axes: tvec!(0), reducer: tract_core::ops::nn::Reducer::Max };
        let keep = KeepNan { spread: Some(Box::new(reduce)) };
        assert!(run(&keep, &[&[1.0, f32::NAN], &[7.0]])[0].is_nan());
        assert_eq!(run(&keep, &[&[1.0, 2.0], &[7.0]]), [7.0]);
    }
}
