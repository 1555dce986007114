//! What the targets share: a file's way from its bytes to a score, as a subscriber takes it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use modelswap::load::{Formats, LoadOptions, Model, Payload};
use modelswap::{Dim, ElementType, Tensor, TensorSpec};

/// What a model may take while it loads and in a run.
const MEMORY_BUDGET: u64 = 64 << 20;

/// What a panic is in a format.
#[derive(Clone, Copy, PartialEq)]
pub enum Panics {
    /// A finding: all code on the way is this crate's.
    AreFindings,
    /// Known: tract panics on many malformed graphs, and the subscriber rejects the model. An abort, a
    /// hang, or memory without bound is a finding all the same.
    AreRejections,
}

/// Loads the bytes as a model of this format, and scores one row of zeros and one of NaN.
pub fn load_and_run(format: &str, bytes: &[u8], panics: Panics) {
    if panics == Panics::AreFindings {
        score(format, bytes);
        return;
    }
    // The hook of libfuzzer-sys aborts at every panic, also at one that is caught.
    static HOOK: Once = Once::new();
    HOOK.call_once(|| std::panic::set_hook(Box::new(|_| {})));
    // As the subscriber does around loader and model.
    drop(catch_unwind(AssertUnwindSafe(|| score(format, bytes))));
}

fn score(format: &str, bytes: &[u8]) {
    let payload = Payload::from(bytes.to_vec());
    let formats = Formats::default();
    // Being recognised has to be safe for whatever the bytes are.
    let _ = formats.choose(None, &payload);
    let loader = formats.choose(Some(format), &payload).expect("a format of this build");
    let mut options = LoadOptions::default();
    options.memory_budget = MEMORY_BUDGET;
    let Ok(model) = loader.load(payload, &options) else { return };
    for value in [0.0, f64::NAN] {
        run(&*model, value);
    }
}

fn run(model: &dyn Model, value: f64) {
    let signature = model.signature();
    let inputs: Option<Vec<_>> = signature.inputs().iter().map(|spec| one_row(spec, value)).collect();
    let Some(inputs) = inputs else { return };
    let views: Vec<_> = inputs.iter().map(Tensor::view).collect();
    let mut outputs = vec![Tensor::default(); signature.outputs().len()];
    // An error value is a right answer.
    let _ = model.run(&views, &mut outputs);
}

/// A tensor of one row, or `None` where a row is too large to be made.
fn one_row(spec: &TensorSpec, value: f64) -> Option<Tensor> {
    let dims: Vec<usize> = match spec.dims() {
        Some(dims) => dims.iter().map(|dim: &Dim| dim.fixed().unwrap_or(1)).collect(),
        None => vec![1, 1],
    };
    let n = dims.iter().try_fold(1_usize, |n, d| n.checked_mul(*d)).filter(|n| *n <= 1 << 20)?;
    match spec.element_type() {
        ElementType::F32 => Tensor::new(&dims, vec![value as f32; n]),
        ElementType::F64 => Tensor::new(&dims, vec![value; n]),
        ElementType::I8 => Tensor::new(&dims, vec![1_i8; n]),
        ElementType::I16 => Tensor::new(&dims, vec![1_i16; n]),
        ElementType::I32 => Tensor::new(&dims, vec![1_i32; n]),
        ElementType::I64 => Tensor::new(&dims, vec![1_i64; n]),
        ElementType::U8 => Tensor::new(&dims, vec![1_u8; n]),
        ElementType::U16 => Tensor::new(&dims, vec![1_u16; n]),
        ElementType::U32 => Tensor::new(&dims, vec![1_u32; n]),
        ElementType::U64 => Tensor::new(&dims, vec![1_u64; n]),
        ElementType::Bool => Tensor::new(&dims, vec![true; n]),
        ElementType::String => Tensor::new(&dims, vec!["text".to_owned(); n]),
        _ => return None,
    }
    .ok()
}
