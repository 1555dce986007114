//! The elements of a `TensorProto`, from raw bytes or from a typed field.

use crate::kernel::standard::matmul::LayerForm;
use crate::load::Payload;
use crate::tensor::{Element, Shape, Tensor};

/// A tensor from raw little-endian bytes, or where there are none from a typed field.
pub(super) fn numbers<T: Element, const N: usize>(
    shape: Shape,
    raw: Payload,
    from_bytes: impl Fn([u8; N]) -> T,
    typed: impl FnOnce() -> Vec<T>,
) -> Result<Tensor, String> {
    let values = if raw.is_empty() { typed() } else { elements(shape, raw, from_bytes)? };
    Tensor::new(shape.dims(), values).map_err(|e| e.to_string())
}

/// The same of `f32`. As many as the weights of a large layer are left as they are until somebody needs
/// them: a layer takes them as they lie in the file.
pub(super) fn floats(shape: Shape, raw: Payload, typed: impl FnOnce() -> Vec<f32>) -> Result<Tensor, String> {
    if shape.elements() >= LayerForm::LARGE
        && let Some(tensor) = Tensor::undecoded(shape, raw.clone())
    {
        return Ok(tensor);
    }
    numbers(shape, raw, f32::from_le_bytes, typed)
}

pub(super) fn halves(
    shape: Shape,
    raw: Payload,
    typed: &[i32],
    widen: fn(u16) -> f32,
) -> Result<Tensor, String> {
    let typed = || narrow::<i32, u16>(typed).into_iter().map(widen).collect();
    numbers(shape, raw, |bytes| widen(u16::from_le_bytes(bytes)), typed)
}

/// The elements of a tensor of this shape; each piece of the raw bytes is freed as it has been read.
pub(super) fn elements<T: Element, const N: usize>(
    shape: Shape,
    raw: Payload,
    from_bytes: impl Fn([u8; N]) -> T,
) -> Result<Vec<T>, String> {
    if !raw.len().is_multiple_of(N) {
        return Err(format!("{} bytes are no whole number of elements", raw.len()));
    }
    if raw.len() / N != shape.elements() {
        return Err(format!("shape {shape} does not fit {} elements", raw.len() / N));
    }
    Ok(raw.decoded(from_bytes))
}

/// The low bits of wider integers, as the typed fields of the format hold narrow ones.
pub(super) fn narrow<W: Copy + Into<i128>, T: TryFrom<i128> + Default>(values: &[W]) -> Vec<T> {
    values.iter().map(|v| T::try_from((*v).into()).unwrap_or_default()).collect()
}

pub(super) fn bfloat_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

pub(super) fn half_to_f32(bits: u16) -> f32 {
    let sign = if bits & 0x8000 == 0 { 1.0 } else { -1.0 };
    let exponent = (bits >> 10) & 0x1f;
    let fraction = f32::from(bits & 0x3ff);
    match exponent {
        0 => sign * fraction * 2.0_f32.powi(-24),
        31 if fraction == 0.0 => sign * f32::INFINITY,
        31 => f32::NAN,
        _ => sign * (1.0 + fraction / 1024.0) * 2.0_f32.powi(i32::from(exponent) - 15),
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use crate::load::tensor_proto::*;

    #[test]
    fn a_tensor_survives_the_way_through_its_message() {
        for tensor in [
            Tensor::new(&[2, 2], vec![1.5_f32, f32::NAN, -0.0, f32::INFINITY]).unwrap(),
            Tensor::vector(vec![i64::MIN, 7]),
            Tensor::column(vec!["a".to_owned(), String::new()]),
            Tensor::vector(vec![true, false]),
        ] {
            let back = TensorProto::from(("t", &tensor)).into_tensor().unwrap();
            assert_eq!(format!("{back:?}"), format!("{tensor:?}"));
        }
    }

    #[test]
    fn a_message_is_the_same_in_any_number_of_chunks() {
        let tensor = Tensor::vector((0..1000_u16).map(f32::from).collect());
        let bytes = Bytes::from(TensorProto::from(("t", &tensor)).encode_to_vec());
        for size in [1, 3, 4, 1001, bytes.len()] {
            let chunks = bytes.chunks(size).map(Bytes::copy_from_slice);
            let proto = TensorProto::decode(Payload::from_chunks(chunks)).unwrap();
            assert_eq!(proto.encode_to_vec(), bytes, "chunks of {size}");
            assert_eq!(proto.into_tensor().unwrap(), tensor, "chunks of {size}");
        }
        assert!(TensorProto::decode(bytes.slice(..bytes.len() - 1)).is_err());
    }

    #[test]
    fn every_field_survives_the_way_into_a_message() {
        let pair = StringPair { key: "location".into(), value: "w.bin".into() };
        let proto = TensorProto {
            dims: vec![2, 3],
            data_type: 11,
            float_data: vec![0.5],
            int32_data: vec![-1],
            string_data: vec!["a".into(), Bytes::new()],
            int64_data: vec![i64::MIN],
            name: "weights".into(),
            raw_data: Payload::from_chunks(["ab", "c"].map(Bytes::from)),
            double_data: vec![1e300],
            uint64_data: vec![u64::MAX],
            external_data: vec![pair],
            data_location: EXTERNAL,
        };
        let bytes = proto.encode_to_vec();
        assert_eq!(bytes.len(), proto.encoded_len());
        assert_eq!(TensorProto::decode(bytes.as_slice()).unwrap(), proto);
    }

    #[test]
    fn a_shape_that_claims_more_than_is_there_is_refused_without_allocating() {
        let proto = TensorProto { dims: vec![1 << 36], data_type: 1, ..Default::default() };
        assert!(proto.into_tensor().is_err());
        let proto = TensorProto { dims: vec![-1], data_type: 1, ..Default::default() };
        assert!(proto.into_tensor().unwrap_err().contains("impossible dimensions"));
    }

    #[test]
    fn halves_are_widened() {
        let raw: Vec<u8> =
            [0x3c00_u16, 0xc000, 0x0001, 0x7c00].iter().flat_map(|h| h.to_le_bytes()).collect();
        let raw_data = raw.into();
        let proto = TensorProto { dims: vec![4], data_type: FLOAT16, raw_data, ..Default::default() };
        let values = proto.into_tensor().unwrap().into_values::<f32>().unwrap();
        assert_eq!(values, [1.0, -2.0, 2.0_f32.powi(-24), f32::INFINITY]);
    }
}
