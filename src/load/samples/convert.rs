//! From the element type of a sample to that of the signature.

use crate::tensor::{DataView, Element, ElementType, Tensor};

/// The tensor with elements of this type, where that loses nothing but the precision of floats: whole
/// numbers as floats or as other whole numbers, `f64` as `f32`. A tensor that cannot be converted
/// stays as it is.
pub(super) fn convert(tensor: Tensor, to: ElementType) -> Tensor {
    if tensor.element_type() == to {
        return tensor;
    }
    let converted = match to {
        #[expect(clippy::cast_possible_truncation, reason = "the model works in f32")]
        ElementType::F32 => {
            floats(&tensor).and_then(|v| same(&tensor, v.into_iter().map(|v| v as f32).collect()))
        }
        ElementType::F64 => floats(&tensor).and_then(|values| same(&tensor, values)),
        ElementType::I8 => whole::<i8>(&tensor),
        ElementType::I16 => whole::<i16>(&tensor),
        ElementType::I32 => whole::<i32>(&tensor),
        ElementType::I64 => whole::<i64>(&tensor),
        ElementType::U8 => whole::<u8>(&tensor),
        ElementType::U16 => whole::<u16>(&tensor),
        ElementType::U32 => whole::<u32>(&tensor),
        ElementType::U64 => whole::<u64>(&tensor),
        ElementType::Bool | ElementType::String => None,
    };
    converted.unwrap_or(tensor)
}

fn same<T: Element>(like: &Tensor, values: Vec<T>) -> Option<Tensor> {
    Tensor::new(like.dims(), values).ok()
}

fn whole<T: Element + TryFrom<i128>>(tensor: &Tensor) -> Option<Tensor> {
    let values = ints(tensor)?.into_iter().map(|int| T::try_from(int).ok()).collect::<Option<_>>()?;
    same(tensor, values)
}

#[expect(clippy::cast_precision_loss, reason = "as wide as a float is")]
fn floats(tensor: &Tensor) -> Option<Vec<f64>> {
    match tensor.view().data() {
        DataView::F32(values) => Some(values.iter().copied().map(f64::from).collect()),
        DataView::F64(values) => Some(values.to_vec()),
        _ => ints(tensor).map(|ints| ints.into_iter().map(|int| int as f64).collect()),
    }
}

fn ints(tensor: &Tensor) -> Option<Vec<i128>> {
    fn wide<T: Copy + Into<i128>>(values: &[T]) -> Vec<i128> {
        values.iter().copied().map(Into::into).collect()
    }
    Some(match tensor.view().data() {
        DataView::I8(values) => wide(values),
        DataView::I16(values) => wide(values),
        DataView::I32(values) => wide(values),
        DataView::I64(values) => wide(values),
        DataView::U8(values) => wide(values),
        DataView::U16(values) => wide(values),
        DataView::U32(values) => wide(values),
        DataView::U64(values) => wide(values),
        DataView::Bool(values) => wide(values),
        DataView::F32(_) | DataView::F64(_) | DataView::String(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_converted_where_nothing_is_lost() {
        let int = |values: Vec<i64>| Tensor::vector(values);
        assert_eq!(convert(int(vec![1, 2]), ElementType::F32), Tensor::vector(vec![1.0_f32, 2.0]));
        assert_eq!(convert(int(vec![1, 2]), ElementType::I32), Tensor::vector(vec![1_i32, 2]));
        assert_eq!(convert(int(vec![1 << 40]), ElementType::I32), int(vec![1 << 40]));
        assert_eq!(convert(Tensor::vector(vec![0.5_f64]), ElementType::F32), Tensor::vector(vec![0.5_f32]));
        assert_eq!(convert(Tensor::vector(vec![true]), ElementType::I64), int(vec![1]));
        let half = Tensor::vector(vec![1.5_f32]);
        assert_eq!(convert(half.clone(), ElementType::I64), half);
        let text = Tensor::vector(vec!["1".to_owned()]);
        assert_eq!(convert(text.clone(), ElementType::I64), text);
    }
}
