//! Whether the right class is among the best.

use super::super::api::{EngineTensor, IntoTValue, OutletId, TypedFact, bail, tract_ndarray, tvec};
use super::super::graph::Node;
use super::WiringError;
use super::computed::Computed;
use super::wiring::{Wired, Wiring, input, two};

/// For each row of scores, whether fewer than `k` are above that of the target.
pub(super) fn in_top_k(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    let (scores, targets) = two(inputs)?;
    let k = match node.attributes.int("k") {
        Some(k) => k,
        None => w.konst_scalar::<i64>(input(inputs, 2)?)?,
    };
    if w.rank(scores)? != 2 {
        return Err(WiringError::Unsupported);
    }
    let targets = w.plain(targets)?;
    let fact = TypedFact::dt_shape(super::super::api::DatumType::Bool, &[w.dim(scores, 0)?]);
    let op = Computed::giving("InTopK", tvec!(fact), move |values| {
        let [scores, targets] = values else { bail!("two inputs expected") };
        let (scores, targets) = (scores.cast_to::<f32>()?, super::ragged::integers(targets)?);
        let plain = scores.try_as_plain_ram()?;
        let width = scores.shape().last().copied().unwrap_or(1).max(1);
        let rows = plain.as_slice::<f32>()?.chunks(width).zip(&targets);
        let found: Vec<bool> = rows.map(|(scores, target)| is_among(scores, *target, k)).collect();
        Ok(tvec!(EngineTensor::from(tract_ndarray::arr1(&found).into_dyn()).into_tvalue()))
    });
    Ok(tvec!(w.one(op, &[scores, targets])?))
}

/// Scores that are no numbers tell nothing.
fn is_among(scores: &[f32], target: i64, k: i64) -> bool {
    let target = usize::try_from(target).ok().and_then(|target| scores.get(target));
    let Some(target) = target.filter(|score| score.is_finite()) else { return false };
    let mut above = 0;
    for score in scores {
        if !score.is_finite() {
            return false;
        }
        above += i64::from(score > target);
        if above > k {
            break;
        }
    }
    above < k
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tie_is_among_the_best() {
        // tf.math.in_top_k([t], [[1., 3., 3., 2.]], 2)
        let scores = [1.0, 3.0, 3.0, 2.0];
        let found: Vec<bool> = (0..5).map(|target| is_among(&scores, target, 2)).collect();
        assert_eq!(found, [false, true, true, false, false]);
        assert!(!is_among(&[f32::NAN, 1.0], 1, 2) && !is_among(&[1.0], -1, 1));
    }
}
