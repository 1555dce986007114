//! Diagonals of matrices.

use super::super::api::{
    Datum, EngineTensor, IntoTValue, OutletId, TDim, TVec, TractResult, TypedFact, bail, dispatch_datum, f16,
    tract_ndarray, tvec,
};
use super::super::graph::Node;
use super::computed::Computed;
use super::sparse::elements;
use super::wiring::{Wired, Wiring, first, input, invalid, two};
use super::{Handler, WiringError};

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "MatrixDiag" | "MatrixDiagV2" | "MatrixDiagV3" => diagonal,
        "MatrixDiagPart" | "MatrixDiagPartV2" | "MatrixDiagPartV3" => part,
        "MatrixSetDiag" | "MatrixSetDiagV2" | "MatrixSetDiagV3" => set,
        _ => return None,
    })
}

/// The only diagonal that is meant: how far it lies above the main one.
fn offset(w: &Wiring<'_>, inputs: &[OutletId], place: usize) -> Result<i64, WiringError> {
    let Some(outlet) = inputs.get(place) else { return Ok(0) };
    match w.konst_ints(*outlet)?.as_slice() {
        [one] => Ok(*one),
        [low, high] if low == high => Ok(*low),
        _ => Err(WiringError::Unsupported),
    }
}

/// A matrix of each row of values, which become its diagonal.
fn diagonal(w: &mut Wiring<'_>, _node: &Node, inputs: &[OutletId]) -> Wired {
    let x = w.plain(first(inputs)?)?;
    let k = offset(w, inputs, 1)?;
    let stated = |w: &Wiring<'_>, place: usize| -> Result<Option<i64>, WiringError> {
        let Some(outlet) = inputs.get(place) else { return Ok(None) };
        Ok(Some(w.konst_scalar::<i64>(*outlet)?).filter(|n| *n >= 0))
    };
    let (rows, columns) = (stated(w, 2)?, stated(w, 3)?);
    let padding = match inputs.get(4) {
        Some(outlet) => w.konst(*outlet)?.cast_to_scalar::<f64>()?,
        None => 0.0,
    };
    let mut dims = w.dims(x)?;
    let length = dims.pop().ok_or_else(|| invalid("a scalar has no diagonal"))?;
    // The smallest matrix that the diagonal fits into; a square one, where nothing is stated.
    let is_square = rows.is_none() && columns.is_none();
    let beside = move |before: i64| if is_square { k.saturating_abs() } else { before.max(0) };
    let full =
        |stated: Option<i64>, before| stated.map_or_else(|| length.clone() + beside(before), TDim::from);
    dims.push(full(rows, -k));
    dims.push(full(columns, k));
    let datum = w.datum(x)?;
    let op = Computed::giving("MatrixDiag", tvec!(TypedFact::dt_shape(datum, &*dims)), move |values| {
        let [x] = values else { bail!("one input expected") };
        let shape = x.shape();
        let Some((length, outer)) = shape.split_last() else { bail!("a vector expected") };
        let size = |stated: Option<i64>, before: i64| -> TractResult<usize> {
            let least = length + usize::try_from(beside(before))?;
            Ok(stated.map_or(Ok(least), usize::try_from)?)
        };
        let mut dims = outer.to_vec();
        dims.extend([size(rows, -k)?, size(columns, k)?]);
        let zero = EngineTensor::from(tract_ndarray::arr0(padding).into_dyn());
        let filled = zero.cast_to_dt(datum)?.broadcast_scalar_to_shape(&dims)?;
        Ok(tvec!(dispatch_datum!(with_diagonal(datum)(&filled, x, k))?.into_tvalue()))
    });
    Ok(tvec!(w.one(op, &[x])?))
}

/// The diagonal of each matrix.
fn part(w: &mut Wiring<'_>, _node: &Node, inputs: &[OutletId]) -> Wired {
    let x = w.plain(first(inputs)?)?;
    let k = offset(w, inputs, 1)?;
    let mut dims = w.dims(x)?;
    let (columns, rows) = (dims.pop(), dims.pop());
    let (Some(rows), Some(columns)) = (rows, columns) else { return Err(invalid("a matrix expected")) };
    let (rows, columns) = (rows - (-k).max(0), columns - k.max(0));
    let length = match (rows.as_i64(), columns.as_i64()) {
        (Some(rows), Some(columns)) => TDim::from(rows.min(columns)),
        _ if rows == columns => rows,
        _ => return Err(invalid("the size of the matrix is open")),
    };
    dims.push(length);
    let datum = w.datum(x)?;
    let op = Computed::giving("MatrixDiagPart", tvec!(TypedFact::dt_shape(datum, &*dims)), move |values| {
        let [x] = values else { bail!("one input expected") };
        Ok(tvec!(dispatch_datum!(diagonal_of(x.datum_type())(x, k))?.into_tvalue()))
    });
    Ok(tvec!(w.one(op, &[x])?))
}

/// The matrices with another diagonal.
fn set(w: &mut Wiring<'_>, _node: &Node, inputs: &[OutletId]) -> Wired {
    let (x, values) = two(inputs)?;
    let k = offset(w, inputs, 2)?;
    let inputs = w.same_type(&[x, values])?;
    let fact = TypedFact::dt_shape(w.datum(first(&inputs)?)?, &*w.dims(x)?);
    let op = Computed::giving("MatrixSetDiag", tvec!(fact), move |inputs| {
        let [x, values] = inputs else { bail!("two inputs expected") };
        Ok(tvec!(dispatch_datum!(with_diagonal(x.datum_type())(x, values, k))?.into_tvalue()))
    });
    Ok(tvec!(w.one(op, &[first(&inputs)?, input(&inputs, 1)?])?))
}

/// For each place of the diagonals of matrices of this shape: the element, counted through.
fn places(shape: &[usize], k: i64) -> TractResult<Vec<usize>> {
    let [outer @ .., rows, columns] = shape else { bail!("a matrix expected") };
    let (down, right) = (usize::try_from((-k).max(0))?, usize::try_from(k.max(0))?);
    let length = rows.saturating_sub(down).min(columns.saturating_sub(right));
    let mut places = Vec::new();
    for matrix in 0..elements(outer)? {
        let start = matrix * rows * columns;
        places.extend((0..length).map(|at| start + (at + down) * columns + at + right));
    }
    Ok(places)
}

fn with_diagonal<T: Datum>(x: &EngineTensor, values: &EngineTensor, k: i64) -> TractResult<EngineTensor> {
    let plain = values.try_as_plain_ram()?;
    let mut out = x.try_as_plain_ram()?.as_slice::<T>()?.to_vec();
    let places = places(x.shape(), k)?;
    if places.len() != values.len() {
        bail!("{} values for a diagonal of {}", values.len(), places.len());
    }
    for (place, value) in places.into_iter().zip(plain.as_slice::<T>()?) {
        out.get_mut(place).into_iter().for_each(|slot| slot.clone_from(value));
    }
    Ok(EngineTensor::from(tract_ndarray::ArrayD::from_shape_vec(x.shape(), out)?))
}

fn diagonal_of<T: Datum>(x: &EngineTensor, k: i64) -> TractResult<EngineTensor> {
    let places = places(x.shape(), k)?;
    let mut dims: TVec<usize> = x.shape().iter().copied().take(x.rank().saturating_sub(2)).collect();
    dims.push(places.len() / elements(&dims)?.max(1));
    let plain = x.try_as_plain_ram()?;
    let values = plain.as_slice::<T>()?;
    let out: Vec<T> = places.into_iter().filter_map(|place| values.get(place).cloned()).collect();
    Ok(EngineTensor::from(tract_ndarray::ArrayD::from_shape_vec(dims.to_vec(), out)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagonal_goes_in_and_comes_out_again() {
        assert_eq!(places(&[2, 2, 3], 0).unwrap(), [0, 4, 6, 10]);
        assert_eq!(places(&[3, 3], 1).unwrap(), [1, 5]);
        assert_eq!(places(&[3, 3], -2).unwrap(), [6]);
        assert_eq!(places(&[2, 2], 5).unwrap(), Vec::<usize>::new());
    }
}
