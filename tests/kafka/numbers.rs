//! Model files for the tests: a number that is the score of every row, and as many bytes as wanted.

use std::sync::Arc;

use bytes::Bytes;
use modelswap::load::{LoadError, LoadOptions, Loader, Model, Payload, RunError};
use modelswap::publish::Publisher;
use modelswap::topic::Topic;
use modelswap::{Dim, ElementType, Shape, Signature, Tensor, TensorSpec, TensorView};

/// A model file that answers `score`; no two of them share a chunk.
pub(crate) fn number(score: f32, bytes: usize) -> Bytes {
    let mut file = format!("number {score}\n").into_bytes();
    let head = file.len();
    let mut state = u64::from(score.to_bits()) | 1;
    while file.len() < bytes {
        // Xorshift: bytes that do not repeat from one chunk to the next.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        file.extend_from_slice(&state.to_le_bytes());
    }
    // To the byte: a file of 1 GiB is one that a subscriber takes, and three bytes more are not.
    file.truncate(bytes.max(head));
    file.into()
}

/// A publisher that knows these files.
pub(crate) fn publisher(topic: Arc<dyn Topic>) -> Publisher {
    Publisher::new(topic).loader(Arc::new(NumberLoader))
}

pub(crate) struct NumberLoader;

impl Loader for NumberLoader {
    fn format(&self) -> &'static str {
        "number"
    }

    fn recognises(&self, payload: &Payload) -> bool {
        payload.peek(7) == b"number "
    }

    fn load(&self, payload: Payload, _: &LoadOptions) -> Result<Arc<dyn Model>, LoadError> {
        let head = payload.peek(40);
        let text = head.split(|b| *b == b'\n').next().and_then(|line| std::str::from_utf8(line).ok());
        let score = text.and_then(|line| line.strip_prefix("number ")?.parse().ok());
        let score = score.ok_or_else(|| LoadError::Malformed {
            format: "number",
            reason: "expected a number in the first line".into(),
        })?;
        let input = TensorSpec::new("x", ElementType::F32, &[Dim::Any, Dim::Fixed(1)]);
        let output = TensorSpec::new("score", ElementType::F32, &[Dim::Any, Dim::Fixed(1)]);
        Ok(Arc::new(Number { score, signature: Signature::new(vec![input], vec![output]) }))
    }
}

struct Number {
    score: f32,
    signature: Signature,
}

impl Model for Number {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&self, inputs: &[TensorView<'_>], outputs: &mut [Tensor]) -> Result<(), RunError> {
        let rows = inputs[0].shape().rows();
        outputs[0].reset::<f32>(Shape::matrix(rows, 1)).fill(self.score);
        Ok(())
    }
}
