#![no_main]

use libfuzzer_sys::fuzz_target;
use modelswap::load::Samples;
use modelswap::{Dim, ElementType, Signature, TensorSpec};

fuzz_target!(|text: &[u8]| {
    let spec = |name, element, width| TensorSpec::new(name, element, &[Dim::Any, Dim::Fixed(width)]);
    let signature = Signature::new(
        vec![spec("features", ElementType::F32, 2), spec("country", ElementType::String, 1)],
        vec![spec("score", ElementType::F64, 1), spec("label", ElementType::I64, 1)],
    );
    if let Ok(samples) = Samples::from_json(text, &signature) {
        let again = Samples::from_json(samples.to_json().as_bytes(), &signature);
        // NaN is not equal to itself, so what is compared is the text.
        let again = again.expect("samples read what they write");
        assert_eq!(again.to_json(), samples.to_json());
    }
});
