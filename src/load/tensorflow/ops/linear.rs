//! Linear algebra on square matrices: what normalised features and Gaussian models are made of.

use super::super::api::{
    DatumType, EngineTensor, IntoTValue, OutletId, TDim, TVec, TractResult, TypedFact, bail, tract_ndarray,
    tvec,
};
use super::super::graph::Node;
use super::computed::Computed;
use super::wiring::{Wired, Wiring, first, invalid};
use super::{Handler, WiringError};

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "Cholesky" => |w, _, i| matrices(w, "Cholesky", i, cholesky),
        "MatrixInverse" => |w, n, i| {
            let adjoint = n.attributes.bool("adjoint").unwrap_or(false);
            matrices(w, "MatrixInverse", i, move |a, n| inverse(&turned(a, n, adjoint), n))
        },
        "MatrixDeterminant" => determinant,
        "MatrixSolve" => |w, n, i| {
            let adjoint = n.attributes.bool("adjoint").unwrap_or(false);
            solved(w, "MatrixSolve", i, move |a, n, b| solve(turned(a, n, adjoint), n, b))
        },
        "MatrixTriangularSolve" => |w, n, i| {
            let adjoint = n.attributes.bool("adjoint").unwrap_or(false);
            let lower = n.attributes.bool("lower").unwrap_or(true);
            solved(w, "MatrixTriangularSolve", i, move |a, n, b| {
                let triangle = triangle(a, n, lower);
                solve_triangle(&turned(&triangle, n, adjoint), n, b, lower != adjoint)
            })
        },
        _ => return None,
    })
}

/// The last two dimensions, which have to be those of a square, and the type.
fn square(w: &Wiring<'_>, x: OutletId) -> Result<(TVec<TDim>, DatumType), WiringError> {
    let dims = w.dims(x)?;
    let datum = w.datum(x)?;
    match dims.last_chunk::<2>() {
        Some([rows, columns]) if rows == columns && matches!(datum, DatumType::F32 | DatumType::F64) => {
            Ok((dims, datum))
        }
        Some([rows, columns]) if rows != columns => {
            Err(invalid(format!("expected a square matrix, found {rows} by {columns}")))
        }
        Some(_) => Err(WiringError::Unsupported),
        None => Err(invalid("a matrix expected")),
    }
}

/// A function that makes a matrix of each.
fn matrices(
    w: &mut Wiring<'_>,
    name: &'static str,
    inputs: &[OutletId],
    each: impl Fn(&[f64], usize) -> TractResult<Vec<f64>> + Send + Sync + 'static,
) -> Wired {
    let x = first(inputs)?;
    let (dims, datum) = square(w, x)?;
    let op = Computed::giving(name, tvec!(TypedFact::dt_shape(datum, &*dims)), move |values| {
        let [x] = values else { bail!("one input expected") };
        let (n, numbers) = numbers(x)?;
        let mut out = Vec::with_capacity(numbers.len());
        for matrix in numbers.chunks_exact((n * n).max(1)) {
            out.extend(each(matrix, n)?);
        }
        Ok(tvec!(tensor(x.shape(), out, datum)?.into_tvalue()))
    });
    Ok(tvec!(w.one(op, &[x])?))
}

fn determinant(w: &mut Wiring<'_>, _node: &Node, inputs: &[OutletId]) -> Wired {
    let x = first(inputs)?;
    let (dims, datum) = square(w, x)?;
    let outer: TVec<TDim> = dims.iter().take(dims.len() - 2).cloned().collect();
    let op =
        Computed::giving("MatrixDeterminant", tvec!(TypedFact::dt_shape(datum, &*outer)), move |values| {
            let [x] = values else { bail!("one input expected") };
            let (n, numbers) = numbers(x)?;
            let of = |matrix: &[f64]| {
                let mut matrix = matrix.to_vec();
                let swapped = eliminate(&mut matrix, n, &mut [], 0);
                let diagonal: f64 = (0..n).filter_map(|i| matrix.get(i * n + i)).product();
                swapped.map_or(0.0, |odd| if odd { -diagonal } else { diagonal })
            };
            let out: Vec<f64> = numbers.chunks_exact((n * n).max(1)).map(of).collect();
            Ok(tvec!(tensor(x.shape().get(..x.rank() - 2).unwrap_or_default(), out, datum)?.into_tvalue()))
        });
    Ok(tvec!(w.one(op, &[x])?))
}

/// A function that makes of a matrix and the right sides beside it what they are the product with.
fn solved(
    w: &mut Wiring<'_>,
    name: &'static str,
    inputs: &[OutletId],
    each: impl Fn(&[f64], usize, &[f64]) -> TractResult<Vec<f64>> + Send + Sync + 'static,
) -> Wired {
    let (a, b) = super::wiring::two(inputs)?;
    let (dims, datum) = square(w, a)?;
    let sides = w.dims(b)?;
    let same = dims.len() == sides.len() && dims.iter().zip(&sides).take(dims.len() - 1).all(|(a, b)| a == b);
    if !same {
        return Err(invalid("expected right sides for each of the matrices"));
    }
    let op = Computed::giving(name, tvec!(TypedFact::dt_shape(datum, &*sides)), move |values| {
        let [a, b] = values else { bail!("two inputs expected") };
        let ((n, matrices), (columns, sides)) = (numbers(a)?, numbers(b)?);
        let mut out = Vec::with_capacity(sides.len());
        let sides = sides.chunks_exact((n * columns).max(1));
        for (matrix, sides) in matrices.chunks_exact((n * n).max(1)).zip(sides) {
            out.extend(each(matrix, n, sides)?);
        }
        Ok(tvec!(tensor(b.shape(), out, datum)?.into_tvalue()))
    });
    Ok(tvec!(w.one(op, &[a, b])?))
}

/// The length of a row, and all numbers.
fn numbers(x: &EngineTensor) -> TractResult<(usize, Vec<f64>)> {
    let cast = x.cast_to::<f64>()?;
    let values = cast.try_as_plain_ram()?.as_slice::<f64>()?.to_vec();
    Ok((x.shape().last().copied().unwrap_or(1), values))
}

fn tensor(shape: &[usize], values: Vec<f64>, datum: DatumType) -> TractResult<EngineTensor> {
    let tensor = EngineTensor::from(tract_ndarray::ArrayD::from_shape_vec(shape, values)?);
    Ok(tensor.cast_to_dt(datum)?.into_owned())
}

fn at(a: &[f64], n: usize, row: usize, column: usize) -> f64 {
    a.get(row * n + column).copied().unwrap_or(0.0)
}

fn turned(a: &[f64], n: usize, turn: bool) -> Vec<f64> {
    if !turn {
        return a.to_vec();
    }
    (0..n * n).map(|place| at(a, n, place % n, place / n)).collect()
}

fn triangle(a: &[f64], n: usize, lower: bool) -> Vec<f64> {
    let kept = |place: usize| if lower { place % n <= place / n } else { place % n >= place / n };
    a.iter().enumerate().map(|(place, value)| if kept(place) { *value } else { 0.0 }).collect()
}

/// The lower triangle whose product with its transpose the matrix is.
fn cholesky(a: &[f64], n: usize) -> TractResult<Vec<f64>> {
    let mut out = vec![0.0; n * n];
    for row in 0..n {
        for column in 0..=row {
            let sum: f64 = (0..column).map(|k| at(&out, n, row, k) * at(&out, n, column, k)).sum();
            let rest = at(a, n, row, column) - sum;
            let value = if row == column { rest.sqrt() } else { rest / at(&out, n, column, column) };
            if row == column && (rest <= 0.0 || rest.is_nan()) {
                bail!("a matrix is not positive definite");
            }
            out.get_mut(row * n + column).into_iter().for_each(|slot| *slot = value);
        }
    }
    Ok(out)
}

fn inverse(a: &[f64], n: usize) -> TractResult<Vec<f64>> {
    let one = |place: usize| if place / n == place % n { 1.0 } else { 0.0 };
    solve(a.to_vec(), n, &(0..n * n).map(one).collect::<Vec<f64>>())
}

fn solve(mut a: Vec<f64>, n: usize, sides: &[f64]) -> TractResult<Vec<f64>> {
    let columns = sides.len() / n.max(1);
    let mut sides = sides.to_vec();
    if eliminate(&mut a, n, &mut sides, columns).is_none() {
        bail!("a matrix has no inverse");
    }
    solve_triangle(&a, n, &sides, false)
}

/// Makes an upper triangle of a matrix, and does with the right sides what it takes: elimination with the
/// largest pivot of each column. True where an odd number of rows were swapped; `None` where a pivot is zero.
fn eliminate(a: &mut [f64], n: usize, sides: &mut [f64], columns: usize) -> Option<bool> {
    let mut odd = false;
    for pivot in 0..n {
        let size = |row: &usize| at(a, n, *row, pivot).abs();
        let best = (pivot..n).max_by(|x, y| size(x).total_cmp(&size(y)))?;
        if at(a, n, best, pivot) == 0.0 {
            return None;
        }
        if best != pivot {
            odd = !odd;
            (0..n).for_each(|c| a.swap(best * n + c, pivot * n + c));
            (0..columns).for_each(|c| sides.swap(best * columns + c, pivot * columns + c));
        }
        for row in pivot + 1..n {
            let factor = at(a, n, row, pivot) / at(a, n, pivot, pivot);
            subtract(a, n, (row, pivot), factor);
            subtract(sides, columns, (row, pivot), factor);
        }
    }
    Some(odd)
}

/// Takes so many times one row from another.
fn subtract(a: &mut [f64], width: usize, (row, from): (usize, usize), factor: f64) {
    for column in 0..width {
        let value = at(a, width, from, column);
        a.get_mut(row * width + column).into_iter().for_each(|slot| *slot -= factor * value);
    }
}

/// Solves with a triangle, from its short row on.
fn solve_triangle(a: &[f64], n: usize, sides: &[f64], lower: bool) -> TractResult<Vec<f64>> {
    let columns = sides.len() / n.max(1);
    let mut out = sides.to_vec();
    for step in 0..n {
        let row = if lower { step } else { n - 1 - step };
        let known = if lower { 0..row } else { row + 1..n };
        for other in known {
            let factor = at(a, n, row, other);
            subtract(&mut out, columns, (row, other), factor);
        }
        let pivot = at(a, n, row, row);
        if pivot == 0.0 {
            bail!("a matrix has no inverse");
        }
        let places = out.get_mut(row * columns..(row + 1) * columns).unwrap_or_default();
        places.iter_mut().for_each(|value| *value /= pivot);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(a: &[f64], b: &[f64]) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-6)
    }

    #[test]
    fn matrices_are_taken_apart_as_tensorflow_does() {
        let a = [4.0, 2.0, 1.0, 2.0, 3.0, 0.5, 1.0, 0.5, 2.0];
        // tf.linalg.cholesky, tf.linalg.inv
        let root = std::f64::consts::SQRT_2;
        let lower = [2.0, 0.0, 0.0, 1.0, root, 0.0, 0.5, 0.0, 1.322_875_656];
        assert!(close(&cholesky(&a, 3).unwrap(), &lower));
        let back = inverse(&inverse(&a, 3).unwrap(), 3).unwrap();
        assert!(close(&back, &a), "{back:?}");
        assert!(close(&solve(a.to_vec(), 3, &[7.0, 5.5, 3.5]).unwrap(), &[1.0, 1.0, 1.0]));
        assert!(close(
            &solve_triangle(&lower, 3, &[2.0, 1.0 + root, 1.822_875_656], true).unwrap(),
            &[1.0; 3]
        ));
        assert!(close(
            &solve_triangle(&turned(&lower, 3, true), 3, &[3.5, root, 1.322_875_656], false).unwrap(),
            &[1.0; 3]
        ));
    }

    #[test]
    fn a_matrix_without_inverse_is_refused() {
        assert!(inverse(&[1.0, 2.0, 2.0, 4.0], 2).is_err());
        assert!(cholesky(&[1.0, 2.0, 2.0, 1.0], 2).is_err());
        assert!(solve_triangle(&[1.0, 0.0, 0.0, 0.0], 2, &[1.0, 1.0], true).is_err());
        let mut swapped = [0.0, 2.0, 3.0, 0.0];
        assert_eq!(eliminate(&mut swapped, 2, &mut [], 0), Some(true));
    }
}
