//! Elements that are still the bytes of the file that they came in.

use std::sync::{Mutex, OnceLock, PoisonError};

use crate::load::Payload;

/// Many `f32`, decoded when they are first asked for. Who lays them out in another way anyhow takes
/// the bytes instead, and they are never there in this one.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct Undecoded {
    /// `None` as soon as somebody decodes them.
    bytes: Mutex<Option<Payload>>,
    values: OnceLock<Vec<f32>>,
}

impl Undecoded {
    /// The bytes of little-endian numbers.
    pub(super) const fn new(bytes: Payload) -> Self {
        Self { bytes: Mutex::new(Some(bytes)), values: OnceLock::new() }
    }

    /// The numbers; each piece of the bytes is freed as it has been decoded.
    pub(super) fn values(&self) -> &Vec<f32> {
        self.values.get_or_init(|| {
            let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner).take();
            bytes.unwrap_or_default().decoded(f32::from_le_bytes)
        })
    }

    pub(super) fn into_values(self) -> Vec<f32> {
        match self.into_bytes() {
            Ok(bytes) => bytes.decoded(f32::from_le_bytes),
            Err(values) => values,
        }
    }

    /// The bytes, or else the numbers where they have been decoded.
    pub(super) fn into_bytes(self) -> Result<Payload, Vec<f32>> {
        let bytes = self.bytes.into_inner().unwrap_or_else(PoisonError::into_inner);
        bytes.ok_or_else(|| self.values.into_inner().unwrap_or_default())
    }
}

/// The bytes are shared.
impl Clone for Undecoded {
    fn clone(&self) -> Self {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match bytes {
            Some(bytes) => Self::new(bytes),
            None => Self { bytes: Mutex::default(), values: OnceLock::from(self.values().clone()) },
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::load::Payload;
    use crate::tensor::{DataView, Shape, Tensor};

    fn undecoded(values: &[f32]) -> Tensor {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let pieces = bytes.chunks(7).map(|piece| piece.to_vec().into());
        Tensor::undecoded(Shape::vector(values.len()), Payload::from_chunks(pieces)).unwrap()
    }

    #[test]
    fn a_tensor_that_was_not_decoded_is_the_same_as_one_that_was() {
        let values = [1.5, -0.0, f32::INFINITY, 3.0, 1e-40];
        let (decoded, mut tensor) = (Tensor::vector(values.to_vec()), undecoded(&values));
        assert_eq!((tensor.element_type(), tensor.dims()), (decoded.element_type(), decoded.dims()));
        assert!(tensor.values::<i64>().is_none());
        assert_eq!(tensor.clone().into_undecoded().map(|bytes| bytes.len()), Ok(20));
        assert_eq!(tensor.values::<f32>(), Some(&values[..]));
        assert_eq!((&tensor, &tensor.clone(), tensor.view()), (&decoded, &decoded, decoded.view()));
        assert_eq!(tensor.clone().into_undecoded(), Err(decoded.clone()));
        tensor.append_rows(decoded.view());
        assert_eq!(tensor.values::<f32>().unwrap().len(), 10);
        let mut written = undecoded(&values);
        written.values_mut::<f32>().unwrap()[0] = 9.0;
        assert!(matches!(written.view().data(), DataView::F32([9.0, ..])));
        assert_eq!(undecoded(&values).into_values::<f32>(), Some(values.to_vec()));
        assert_eq!(undecoded(&values).reset::<i64>(Shape::vector(2)).len(), 2);
    }

    #[test]
    fn a_shape_that_does_not_fit_the_bytes_is_refused() {
        assert!(Tensor::undecoded(Shape::vector(2), Payload::from(vec![0; 9])).is_none());
    }
}
