//! One call after the other, on models of every kind that is scored row by row.

use std::path::{Path, PathBuf};

use modelswap::load::{Formats, LoadOptions, Payload};
use modelswap::{
    ElementType, Features, Position, Provenance, Rows, Scorer, Sha256Digest, Snapshot, TensorView,
};

use crate::{NONE, allocations_and_frees};

/// How often a call is repeated until its memory has settled, and then measured.
const CALLS: usize = 20;

#[cfg(feature = "onnx")]
#[test]
fn a_tabular_onnx_model_is_called_without_an_allocation() {
    for name in [
        "sk_lr_iris",
        "sk_rf_binary",
        "sk_rf_reg",
        "sk_gb_binary",
        "sk_hgb_missing",
        "sk_mlp",
        "xgb_onnx_pipeline",
        "lgb_onnx_binary",
        "sk_svc_rbf",
        "sk_svc_rbf_raw",
        "sk_svr_rbf",
        // Steps with ten and with 66 inputs.
        "sk_ada",
        "sk_pipe_poly_ridge",
    ] {
        calls_do_not_allocate(name, "model.onnx");
    }
}

#[test]
fn a_tree_librarys_own_model_is_called_without_an_allocation() {
    for (name, file) in [
        ("xgb_binary", "model.json"),
        ("xgb_multi_ubj", "model.ubj"),
        ("lgb_categorical_missing", "model.txt"),
        ("cat_binary", "model.json"),
    ] {
        calls_do_not_allocate(name, file);
    }
}

#[cfg(feature = "onnx")]
#[test]
fn a_model_of_several_named_columns_is_called_without_an_allocation() {
    let model = load(&zoo("sk_pipe_mixed_lr/model.onnx"));
    let (floats, ints, texts) = ([0.5_f32], [3_i64], ["x".to_owned()]);
    let columns = model.signature().inputs().iter().map(|input| {
        let column = match input.element_type() {
            ElementType::F32 => TensorView::new(&[1, 1], &floats),
            ElementType::I64 => TensorView::new(&[1, 1], &ints),
            _ => TensorView::new(&[1, 1], &texts),
        };
        (&**input.name(), column.unwrap())
    });
    let columns: Vec<_> = columns.collect();
    assert!(columns.len() > 2);
    let features: &dyn Features = &&columns[..];
    let expected = model.predict(features).unwrap();
    let mut scores = vec![0.0; expected.values().len()];
    let mut call = || model.predict_into(features, &mut scores).unwrap();
    repeat(&mut call);
    let counted = allocation_counter::measure(|| repeat(&mut call));
    assert_eq!(allocations_and_frees(counted), NONE);
    assert_eq!(scores, expected.values());
}

#[test]
fn the_headers_of_a_score_are_had_without_an_allocation() {
    let model = load(&zoo("xgb_binary/model.json"));
    let mut bytes = 0;
    let counted = allocation_counter::measure(|| {
        bytes = model.provenance().headers().map(|(name, value)| name.len() + value.len()).sum();
    });
    assert_eq!(allocations_and_frees(counted), NONE);
    assert!(bytes > 64);
}

/// At batch 1 and at a larger one: calls, snapshots, and calls of a snapshot.
fn calls_do_not_allocate(name: &str, file: &str) {
    let model = load(&zoo(name).join(file));
    let width = model.signature().inputs()[0].row_elements().unwrap();
    for rows in [1, 64] {
        let values: Vec<f32> =
            (0_u8..=255).cycle().map(|i| f32::from(i) / 100.0).take(rows * width).collect();
        let features = Rows::new(&values, width).unwrap();
        let expected = model.predict(&features).unwrap();
        let mut scores = vec![0.0; expected.values().len()];
        let mut call = || model.predict_into(&features, &mut scores).unwrap();
        repeat(&mut call);
        let counted = allocation_counter::measure(|| repeat(&mut call));
        assert_eq!(allocations_and_frees(counted), NONE, "{name}, {rows} rows");
        scores.fill(0.0);
        let mut pinned = || model.snapshot().unwrap().predict_into(&features, &mut scores).unwrap();
        let counted = allocation_counter::measure(|| repeat(&mut pinned));
        assert_eq!(allocations_and_frees(counted), NONE, "a snapshot of {name}, {rows} rows");
        assert!(scores.len() >= rows, "{name} has scored");
        assert_eq!(scores, expected.values(), "{name}");
    }
}

fn repeat<T>(call: &mut impl FnMut() -> T) {
    for _ in 0..CALLS {
        std::hint::black_box(call());
    }
}

fn load(path: &Path) -> Snapshot {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let digest = Sha256Digest::of([&*bytes]);
    let payload = Payload::from(bytes);
    let formats = Formats::default();
    let loader = formats.choose(None, &payload).unwrap();
    let model = loader.load(payload, &LoadOptions::default()).unwrap();
    let provenance =
        Provenance::new("zoo".parse().unwrap(), "1", digest, Position { partition: 0, offset: 0 });
    Snapshot::of(model, provenance)
}

fn zoo(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/zoo").join(name)
}
