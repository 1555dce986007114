//! Tells an ONNX file by its content: the top-level fields of its `ModelProto`, without decoding
//! what is in them.

use bytes::{Buf, Bytes};

/// True where the bytes are, from the first to the last, fields that a `ModelProto` has, with
/// their wire types, and there is a graph and an operator set among them.
///
/// A SavedModel or a GraphDef has its own fields under the same numbers with other wire types or
/// contents; protobuf has no magic number, so strictness is all there is.
pub(super) fn is_model(chunks: impl Iterator<Item = Bytes>) -> bool {
    let mut bytes = Chain { chunks, current: Bytes::new() };
    let (mut graph, mut operator_sets) = (false, false);
    loop {
        let Some(tag) = bytes.varint() else { return bytes.at_end() && graph && operator_sets };
        let (field, wire_type) = (tag >> 3, tag & 7);
        let expected = match field {
            // ir_version, model_version
            1 | 5 => 0,
            // producer, domain, documentation, graph, operator sets, metadata, training, functions
            2 | 3 | 4 | 6 | 7 | 8 | 14 | 20 | 25 | 26 => 2,
            _ => return false,
        };
        if wire_type != expected {
            return false;
        }
        let Some(value) = bytes.varint() else { return false };
        if wire_type == 2 && !bytes.skip(value) {
            return false;
        }
        graph |= field == 7;
        operator_sets |= field == 8;
    }
}

struct Chain<I> {
    chunks: I,
    current: Bytes,
}

impl<I: Iterator<Item = Bytes>> Chain<I> {
    fn at_end(&mut self) -> bool {
        while self.current.is_empty() {
            match self.chunks.next() {
                Some(chunk) => self.current = chunk,
                None => return true,
            }
        }
        false
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            if self.at_end() {
                return None;
            }
            let byte = self.current.get_u8();
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn skip(&mut self, mut count: u64) -> bool {
        while count > 0 {
            if self.at_end() {
                return false;
            }
            let here = usize::try_from(count).unwrap_or(usize::MAX).min(self.current.len());
            self.current.advance(here);
            count -= here as u64;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::super::proto::{GraphProto, ModelProto, OperatorSetId};
    use super::*;

    fn model() -> Vec<u8> {
        let set = OperatorSetId { domain: String::new(), version: 17 };
        ModelProto {
            ir_version: 8,
            graph: Some(GraphProto { name: "g".repeat(300), ..Default::default() }),
            opset_import: vec![set],
            ..Default::default()
        }
        .encode_to_vec()
    }

    #[test]
    fn a_model_is_known_in_any_number_of_chunks() {
        let bytes = Bytes::from(model());
        for size in [1, 7, 100, bytes.len()] {
            let chunks = bytes.chunks(size).map(Bytes::copy_from_slice).collect::<Vec<_>>();
            assert!(is_model(chunks.into_iter()), "chunks of {size}");
        }
    }

    #[test]
    fn what_is_cut_off_or_something_else_is_no_model() {
        let bytes = model();
        for length in 0..bytes.len() {
            assert!(!is_model([Bytes::copy_from_slice(&bytes[..length])].into_iter()), "{length} bytes");
        }
        for other in [&b"{\"learner\": {}}"[..], b"tree\nversion=v4", b"\x0a\x05hello", b"\x08\x01"] {
            assert!(!is_model([Bytes::copy_from_slice(other)].into_iter()));
        }
    }
}
