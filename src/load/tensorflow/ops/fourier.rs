//! Fourier transforms over the last dimensions.

use std::sync::Arc;

use rustfft::num_complex::Complex;
use rustfft::{Fft, FftPlanner};

use super::super::api::{
    DatumType, EngineTensor, IntoTValue, OutletId, TDim, TValue, TVec, TractResult, TypedFact, bail,
    tract_ndarray, tvec,
};
use super::WiringError;
use super::complex::{Given, Pair, Parts, pair};
use super::computed::{Computed, room_for};
use super::wiring::{Wiring, first, invalid, two};

/// The longest transform: four seconds of a run.
const MAX_LENGTH: i64 = 1 << 22;

/// What a transform takes and gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Complex numbers to complex numbers.
    Complex,
    /// Real numbers to the half of their transform that tells the other half.
    Real,
    /// That half back to real numbers.
    RealInverse,
}

/// A transform of TensorFlow's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Transform {
    form: Form,
    inverse: bool,
    /// How many of the last dimensions it goes over.
    axes: usize,
}

impl Transform {
    pub(super) fn of(op: &str) -> Option<Self> {
        let (name, axes) = match op.strip_suffix('D') {
            Some(name) => (name.strip_suffix(['2', '3'])?, if name.ends_with('2') { 2 } else { 3 }),
            None => (op, 1),
        };
        let (form, inverse) = match name {
            "FFT" => (Form::Complex, false),
            "IFFT" => (Form::Complex, true),
            "RFFT" => (Form::Real, false),
            "IRFFT" => (Form::RealInverse, true),
            _ => return None,
        };
        Some(Self { form, inverse, axes })
    }

    /// Transforms the grid: real numbers first along the lines that they lie in, and last on the way back.
    fn run(self, grid: &mut [Complex<f64>], lengths: &[usize], plans: &Plans) {
        let length = lengths.last().copied().unwrap_or(1);
        let last = lengths.len().saturating_sub(1);
        let mut axes: Vec<_> = plans.iter().enumerate().collect();
        if self.form == Form::Real {
            axes.reverse();
        }
        for (axis, plan) in axes {
            if axis == last && self.form == Form::RealInverse {
                complete(grid, length);
            }
            along(grid, lengths, axis, &**plan);
            if axis == last && self.form == Form::Real {
                grid.chunks_exact_mut(length.max(1)).for_each(only_real);
            }
        }
    }
}

/// States a transform.
pub(super) fn state(w: &mut Wiring<'_>, transform: Transform, inputs: &[Parts]) -> Given {
    let x = *inputs.first().ok_or_else(|| invalid("an input is missing"))?;
    let given: TVec<OutletId> = match transform.form {
        Form::Real => tvec!(w.plain(x.real)?),
        Form::Complex | Form::RealInverse => {
            let x = pair(w, x)?;
            tvec!(x.real, x.imaginary)
        }
    };
    let x = first(&given)?;
    let datum = w.datum(x)?;
    if !matches!(datum, DatumType::F32 | DatumType::F64) {
        return Err(WiringError::Unsupported);
    }
    let mut dims = w.dims(x)?;
    let outer = dims.len().checked_sub(transform.axes);
    let outer = outer.ok_or_else(|| invalid(format!("goes over {} dimensions", transform.axes)))?;
    let lengths: Vec<TDim> = match transform.form {
        Form::Complex => dims.iter().skip(outer).cloned().collect(),
        _ => {
            let stated = inputs.get(1).ok_or_else(|| invalid("the lengths are missing"))?;
            w.konst_ints(stated.real)?.into_iter().map(TDim::from).collect()
        }
    };
    if lengths.len() != transform.axes {
        return Err(invalid(format!("has {} lengths for {} dimensions", lengths.len(), transform.axes)));
    }
    let wrong = lengths.iter().filter_map(|n| n.as_i64()).find(|n| !(1..=MAX_LENGTH).contains(n));
    if let Some(wrong) = wrong {
        return Err(invalid(format!("expected a length from 1 to {MAX_LENGTH}, found {wrong}")));
    }
    let known: Option<Vec<usize>> =
        lengths.iter().map(|n| n.as_i64().and_then(|n| usize::try_from(n).ok())).collect();
    dims.truncate(outer);
    dims.extend(lengths);
    if transform.form == Form::Real {
        dims.last_mut().into_iter().for_each(|last| *last = last.clone() / 2 + 1);
    }
    let plans = known.as_ref().map(|lengths| plans(lengths, transform.inverse));
    let outputs = if transform.form == Form::RealInverse { 1 } else { 2 };
    let facts: TVec<TypedFact> = (0..outputs).map(|_| TypedFact::dt_shape(datum, &*dims)).collect();
    let budget = w.budget();
    let op = Computed::giving("Fourier", facts, move |values| {
        let shape = values.first().map(|x| x.shape()).unwrap_or_default();
        let inner = shape.get(outer..).unwrap_or_default();
        let lengths = known.as_deref().unwrap_or(inner);
        if lengths.contains(&0) || lengths.iter().any(|n| *n as u64 > MAX_LENGTH.unsigned_abs()) {
            bail!("expected lengths from 1 to {MAX_LENGTH}, found {lengths:?}");
        }
        let made;
        let plans = match &plans {
            Some(plans) => plans,
            None => {
                made = self::plans(lengths, transform.inverse);
                &made
            }
        };
        let rows: usize = shape.iter().take(outer).product();
        // The numbers, and what they are worked on in.
        let cells = room_for(&[rows, lengths.iter().product()], 2 * size_of::<Complex<f64>>(), budget)?;
        let mut grid = laid_out(values, (rows, inner), (lengths, cells), transform.form)?;
        transform.run(&mut grid, lengths, plans);
        given_back(&grid, shape.get(..outer).unwrap_or_default(), lengths, transform, datum)
    });
    let out = w.all(op, &given)?;
    if transform.form == Form::RealInverse {
        return Ok(out.into_iter().map(Parts::from).collect());
    }
    let (real, imaginary) = two(&out)?;
    Ok(tvec!(Pair { real, imaginary }.into()))
}

type Plans = Vec<Arc<dyn Fft<f64>>>;

fn plans(lengths: &[usize], inverse: bool) -> Plans {
    let mut planner = FftPlanner::new();
    let plan = |length: &usize| {
        if inverse { planner.plan_fft_inverse(*length) } else { planner.plan_fft_forward(*length) }
    };
    lengths.iter().map(plan).collect()
}

/// The numbers on a grid of the lengths, cut off or followed by zeros where they are of other ones.
fn laid_out(
    values: &[TValue],
    (rows, inner): (usize, &[usize]),
    (lengths, cells): (&[usize], usize),
    form: Form,
) -> TractResult<Vec<Complex<f64>>> {
    let part = |at: usize| -> TractResult<Option<Vec<f64>>> {
        let Some(value) = values.get(at) else { return Ok(None) };
        let cast = value.cast_to::<f64>()?;
        Ok(Some(cast.try_as_plain_ram()?.as_slice::<f64>()?.to_vec()))
    };
    let (real, imaginary) = (part(0)?.unwrap_or_default(), part(1)?);
    let mut wanted = lengths.to_vec();
    if form == Form::RealInverse {
        wanted.last_mut().into_iter().for_each(|last| *last = *last / 2 + 1);
    }
    let mut grid = vec![Complex::new(0.0, 0.0); cells];
    let taken: Vec<usize> = inner.iter().zip(&wanted).map(|(a, b)| *a.min(b)).collect();
    let (lines, length) = (taken.iter().rev().skip(1).product::<usize>(), taken.last().copied().unwrap_or(0));
    let start = |line: usize, row: usize, sizes: &[usize]| {
        let mut rest = line;
        let (mut at, mut stride) = (0, sizes.last().copied().unwrap_or(1));
        for (count, size) in taken.iter().zip(sizes).rev().skip(1) {
            at += (rest % count) * stride;
            stride *= size;
            rest /= count;
        }
        at + row * stride
    };
    for row in 0..rows {
        for line in 0..lines {
            let (from, to) = (start(line, row, inner), start(line, row, lengths));
            for at in 0..length {
                let imaginary = imaginary.as_ref().and_then(|values| values.get(from + at)).copied();
                let value =
                    Complex::new(real.get(from + at).copied().unwrap_or(0.0), imaginary.unwrap_or(0.0));
                grid.get_mut(to + at).into_iter().for_each(|slot| *slot = value);
            }
        }
    }
    Ok(grid)
}

/// Fills in the half of each line that the other half tells.
fn complete(grid: &mut [Complex<f64>], length: usize) {
    for line in grid.chunks_exact_mut(length.max(1)) {
        let half = length / 2;
        for at in 1..length - half {
            let mirrored = line.get(at).map(Complex::conj);
            if let (Some(slot), Some(value)) = (line.get_mut(length - at), mirrored) {
                *slot = value;
            }
        }
        only_real(line);
    }
}

/// What is its own mirror image in the transform of real numbers is a real number.
fn only_real(line: &mut [Complex<f64>]) {
    let length = line.len();
    let own = [Some(0), length.is_multiple_of(2).then_some(length / 2)];
    for at in own.into_iter().flatten() {
        line.get_mut(at).into_iter().for_each(|value| value.im = 0.0);
    }
}

/// Transforms along one of the dimensions of the grid.
fn along(grid: &mut [Complex<f64>], lengths: &[usize], axis: usize, plan: &dyn Fft<f64>) {
    let length = lengths.get(axis).copied().unwrap_or(1);
    let stride: usize = lengths.iter().skip(axis + 1).product();
    if stride == 1 {
        plan.process(grid);
        return;
    }
    let mut line = vec![Complex::new(0.0, 0.0); length];
    for block in grid.chunks_exact_mut(length * stride) {
        for offset in 0..stride {
            let of_line = || block.iter().skip(offset).step_by(stride);
            line.iter_mut().zip(of_line()).for_each(|(to, from)| *to = *from);
            plan.process(&mut line);
            let to = block.iter_mut().skip(offset).step_by(stride);
            to.zip(&line).for_each(|(to, from)| *to = *from);
        }
    }
}

/// The numbers of the grid that the transform gives, as tensors.
fn given_back(
    grid: &[Complex<f64>],
    outer: &[usize],
    lengths: &[usize],
    transform: Transform,
    datum: DatumType,
) -> TractResult<TVec<TValue>> {
    let length = lengths.last().copied().unwrap_or(1);
    let kept = if transform.form == Form::Real { length / 2 + 1 } else { length };
    let scale = if transform.inverse { 1.0 / lengths.iter().product::<usize>() as f64 } else { 1.0 };
    let mut shape = [outer, lengths].concat();
    shape.last_mut().into_iter().for_each(|last| *last = kept);
    let part = |which: fn(&Complex<f64>) -> f64| -> TractResult<TValue> {
        let lines = grid.chunks_exact(length).flat_map(|line| line.iter().take(kept));
        let values: Vec<f64> = lines.map(|value| which(value) * scale).collect();
        let tensor = EngineTensor::from(tract_ndarray::ArrayD::from_shape_vec(&*shape, values)?);
        Ok(tensor.cast_to_dt(datum)?.into_owned().into_tvalue())
    };
    let real = part(|value| value.re)?;
    if transform.form == Form::RealInverse {
        Ok(tvec!(real))
    } else {
        Ok(tvec!(real, part(|value| value.im)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(op: &str, dims: &[usize], parts: &[&[f64]], lengths: &[usize]) -> Vec<Vec<f64>> {
        let transform = Transform::of(op).unwrap();
        let (rows, inner) = (1, dims);
        let values: Vec<TValue> =
            parts.iter().map(|p| EngineTensor::from_shape(dims, p).unwrap().into_tvalue()).collect();
        let cells = lengths.iter().product();
        let mut grid = laid_out(&values, (rows, inner), (lengths, cells), transform.form).unwrap();
        transform.run(&mut grid, lengths, &plans(lengths, transform.inverse));
        let out = given_back(&grid, &[], lengths, transform, DatumType::F64).unwrap();
        let plain = |v: &TValue| {
            v.to_plain_array_view::<f64>().unwrap().iter().map(|x| (x * 1e6).round() / 1e6).collect()
        };
        out.iter().map(plain).collect()
    }

    #[test]
    fn transforms_give_the_numbers_of_tensorflow() {
        // tf.signal.rfft([1., 2., 4., 3.]), with fft_length 3 and 6
        assert_eq!(run("RFFT", &[4], &[&[1., 2., 4., 3.]], &[4]), [vec![10., -3., 0.], vec![0., 1., 0.]]);
        assert_eq!(run("RFFT", &[4], &[&[1., 2., 4., 3.]], &[3]), [vec![7., -2.], vec![0., 1.732_051]]);
        // tf.signal.irfft([10., -3. + 1j, 0.]), and of 5 numbers of it
        assert_eq!(run("IRFFT", &[3], &[&[10., -3., 0.], &[0., 1., 0.]], &[4]), [[1., 2., 4., 3.]]);
        let five = run("IRFFT", &[3], &[&[10., -3., 1.], &[7., 1., 2.]], &[5]);
        assert_eq!(five, [[1.2, 0.454_922, 3.620_158, 2.568_696, 2.156_224]]);
    }

    #[test]
    fn what_goes_there_over_two_dimensions_comes_back() {
        let x: Vec<f64> = (0..12).map(|i| f64::from(i * i % 7)).collect();
        let there = run("RFFT2D", &[3, 4], &[&x], &[3, 4]);
        let back = run("IRFFT2D", &[3, 3], &[&there[0], &there[1]], &[3, 4]);
        assert!(back[0].iter().zip(&x).all(|(a, b)| (a - b).abs() < 1e-5), "{back:?}");
        let there = run("FFT2D", &[3, 4], &[&x, &x], &[3, 4]);
        let back = run("IFFT2D", &[3, 4], &[&there[0], &there[1]], &[3, 4]);
        assert!(back.iter().flatten().zip(x.iter().chain(&x)).all(|(a, b)| (a - b).abs() < 1e-5));
    }
}
