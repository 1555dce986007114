//! Boxes around objects: of those that overlap, the best stays.

use super::super::api::{
    DatumType, EngineTensor, IntoTValue, OutletId, TValue, TractResult, TypedFact, bail, tract_ndarray, tvec,
};
use super::super::graph::Node;
use super::computed::Computed;
use super::wiring::{Wired, Wiring, first, input};
use super::{Handler, WiringError};

/// The most boxes: each is compared with all that stay.
const MAX_BOXES: usize = 1 << 16;

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "NonMaxSuppression"
        | "NonMaxSuppressionV2"
        | "NonMaxSuppressionV3"
        | "NonMaxSuppressionV4"
        | "NonMaxSuppressionV5" => suppress,
        _ => return None,
    })
}

fn suppress(w: &mut Wiring<'_>, node: &Node, inputs: &[OutletId]) -> Wired {
    let (boxes, scores) = (first(inputs)?, input(inputs, 1)?);
    let most = w.konst_scalar::<i64>(input(inputs, 2)?)?;
    let most = usize::try_from(most).unwrap_or(0);
    let number =
        |w: &Wiring<'_>, place: usize| inputs.get(place).map(|i| w.konst_scalar::<f32>(*i)).transpose();
    let overlap = match number(w, 3)? {
        Some(overlap) => overlap,
        None => node.attributes.float("iou_threshold").unwrap_or(0.5),
    };
    let least = number(w, 4)?.unwrap_or(f32::NEG_INFINITY);
    let is_soft = number(w, 5)?.is_some_and(|sigma| sigma != 0.0);
    let is_padded = node.attributes.bool("pad_to_max_output_size").unwrap_or(false);
    if is_soft || is_padded || w.datum(boxes)? != DatumType::F32 || w.datum(scores)? != DatumType::F32 {
        return Err(WiringError::Unsupported);
    }
    let count = w.open_size();
    let facts = tvec!(
        TypedFact::dt_shape(DatumType::I32, std::slice::from_ref(&count)),
        TypedFact::dt_shape(DatumType::F32, std::slice::from_ref(&count)),
        TypedFact::dt_shape(DatumType::I32, &[] as &[usize]),
    );
    let op = Computed::giving("NonMaxSuppression", facts, move |values: &[TValue]| {
        let [boxes, scores] = values else { bail!("two inputs expected") };
        let (plain, plain_scores) = (boxes.try_as_plain_ram()?, scores.try_as_plain_ram()?);
        let (boxes, _) = plain.as_slice::<f32>()?.as_chunks::<4>();
        let scores = plain_scores.as_slice::<f32>()?;
        let kept = kept(boxes, scores, most, overlap, least)?;
        let best: Vec<f32> = kept.iter().filter_map(|at| scores.get(*at).copied()).collect();
        let places = kept.iter().map(|at| i32::try_from(*at)).collect::<Result<Vec<_>, _>>()?;
        let count = i32::try_from(places.len())?;
        Ok(tvec!(
            EngineTensor::from(tract_ndarray::arr1(&places).into_dyn()).into_tvalue(),
            EngineTensor::from(tract_ndarray::arr1(&best).into_dyn()).into_tvalue(),
            EngineTensor::from(tract_ndarray::arr0(count).into_dyn()).into_tvalue(),
        ))
    });
    let out = w.all(op, &[boxes, scores])?;
    // The second output is the scores only where there are three.
    Ok(if node.op == "NonMaxSuppressionV4" { tvec!(first(&out)?, input(&out, 2)?) } else { out })
}

/// The places of the boxes that stay, the best first.
fn kept(
    boxes: &[[f32; 4]],
    scores: &[f32],
    most: usize,
    overlap: f32,
    least: f32,
) -> TractResult<Vec<usize>> {
    if boxes.len() != scores.len() || boxes.len() > MAX_BOXES {
        bail!("{} boxes and {} scores", boxes.len(), scores.len());
    }
    let mut order: Vec<(usize, f32)> =
        scores.iter().copied().enumerate().filter(|(_, s)| *s > least).collect();
    order.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let mut kept: Vec<(usize, &[f32; 4])> = Vec::new();
    for (at, _) in order {
        let Some(candidate) = boxes.get(at).filter(|_| kept.len() < most) else { break };
        if kept.iter().all(|(_, other)| shared(candidate, other) <= overlap) {
            kept.push((at, candidate));
        }
    }
    Ok(kept.into_iter().map(|(at, _)| at).collect())
}

/// The part of two boxes that both cover; either corner of a box may come first.
fn shared(a: &[f32; 4], b: &[f32; 4]) -> f32 {
    let ordered = |[y, x, other_y, other_x]: &[f32; 4]| {
        [y.min(*other_y), x.min(*other_x), y.max(*other_y), x.max(*other_x)]
    };
    let ([top, left, bottom, right], [other_top, other_left, other_bottom, other_right]) =
        (ordered(a), ordered(b));
    let area = |top: f32, left: f32, bottom: f32, right: f32| (bottom - top) * (right - left);
    let (first, second) =
        (area(top, left, bottom, right), area(other_top, other_left, other_bottom, other_right));
    if first <= 0.0 || second <= 0.0 {
        return 0.0;
    }
    let height = (bottom.min(other_bottom) - top.max(other_top)).max(0.0);
    let width = (right.min(other_right) - left.max(other_left)).max(0.0);
    height * width / (first + second - height * width)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_boxes_that_overlap_the_best_stays() {
        // tf.image.non_max_suppression(boxes, scores, 3) of TensorFlow 2.21.
        let boxes = [[0.0, 0.0, 1.0, 1.0], [1.1, 1.1, 0.0, 0.0], [2.0, 2.0, 3.0, 3.0]];
        assert_eq!(kept(&boxes, &[0.5, 0.9, 0.3], 3, 0.5, f32::NEG_INFINITY).unwrap(), [1, 2]);
        assert_eq!(kept(&boxes, &[0.5, 0.9, 0.3], 3, 0.9, 0.4).unwrap(), [1, 0]);
        assert_eq!(kept(&boxes, &[0.5, 0.9, 0.3], 1, 0.5, f32::NEG_INFINITY).unwrap(), [1]);
        assert!(kept(&boxes, &[0.5], 1, 0.5, 0.0).is_err());
    }
}
