//! The table of bad input: each is rejected with its reason, and the old model goes on.

use modelswap::{Dim, ElementType, Scorer, Signature, TensorSpec, wire};

use crate::support::*;

/// Makes `good` live, lets `bad` write what is wrong, and answers the reason of the rejection.
async fn rejected(bad: impl FnOnce(&World) -> modelswap::Position) -> String {
    let world = World::new();
    world.plain("good", "script:ok:0.5");
    let models = world.start();
    let scorer = models.scorer("fraud").unwrap();
    scorer.ready(WAIT).await.unwrap();
    let reason = wait_rejected(&models, bad(&world)).await;
    assert_eq!(scorer.predict(&[1.0_f32, 2.0]).unwrap().values(), [0.5]);
    assert_eq!(models.status().live_version("fraud"), Some("good"));
    // And what comes after it is taken as if nothing had been.
    world.plain("next", "script:ok:0.75");
    wait_live(&models, "next").await;
    assert_eq!(scorer.predict(&[1.0_f32, 2.0]).unwrap().values(), [0.75]);
    models.shutdown().await;
    reason
}

fn digest(text: &str) -> String {
    modelswap::Sha256Digest::of([text.as_bytes()]).to_string()
}

#[tokio::test]
async fn a_wrong_digest() {
    let reason = rejected(|w| w.put("fraud", Some(b"script:ok:1"), &[("sha256", &digest("other"))])).await;
    assert!(reason.starts_with(&format!("digest: expected sha256 {}, found ", digest("other"))), "{reason}");
}

#[tokio::test]
async fn a_missing_digest() {
    let reason = rejected(|w| w.put("fraud", Some(b"script:ok:1"), &[])).await;
    assert_eq!(reason, "announcement: expected a header `sha256` or a release document, found neither");
}

#[tokio::test]
async fn a_truncated_artifact() {
    let reason = rejected(|w| {
        let mut artifact = w.chunks("script:ok:1", 4);
        artifact.bytes += 1;
        w.commit("bad", &artifact, "")
    })
    .await;
    assert_eq!(reason, "chunks: expected 12 bytes in all, found 11");
}

#[tokio::test]
async fn reordered_chunks() {
    let reason = rejected(|w| {
        let artifact = w.chunks("script:ok:1", 4);
        let model = "fraud".parse().unwrap();
        w.put(&wire::chunk_key(&model, artifact.sha256, 0), Some(b"pt:o"), &[]);
        w.put(&wire::chunk_key(&model, artifact.sha256, 1), Some(b"scri"), &[]);
        w.commit("bad", &artifact, "")
    })
    .await;
    assert!(reason.starts_with("digest: expected sha256"), "{reason}");
}

#[tokio::test]
async fn a_corrupted_chunk() {
    let reason = rejected(|w| {
        let artifact = w.chunks("script:ok:1", 4);
        w.put(&wire::chunk_key(&"fraud".parse().unwrap(), artifact.sha256, 1), Some(b"pT:o"), &[]);
        w.commit("bad", &artifact, "")
    })
    .await;
    assert!(reason.starts_with("digest: expected sha256"), "{reason}");
}

#[tokio::test]
async fn a_missing_chunk() {
    let reason = rejected(|w| {
        let artifact = w.chunks("script:ok:1", 4);
        w.put(&wire::chunk_key(&"fraud".parse().unwrap(), artifact.sha256, 1), None, &[]);
        w.commit("bad", &artifact, "")
    })
    .await;
    assert_eq!(reason, "chunks: chunk 1 of 3 is not on the topic");
}

#[tokio::test]
async fn a_missing_chunk_that_comes_later_makes_the_release_live() {
    let world = World::new();
    let models = world.start();
    let model = "fraud".parse().unwrap();
    let artifact = world.chunks("script:ok:0.25", 5);
    let key = wire::chunk_key(&model, artifact.sha256, 1);
    world.put(&key, None, &[]);
    let position = world.commit("late", &artifact, "");
    wait_rejected(&models, position).await;
    world.put_in(1, &key, Some(&b"script:ok:0.25"[5..10]), &[]);
    wait_live(&models, "late").await;
}

#[tokio::test]
async fn an_oversized_artifact_is_rejected_before_it_is_read() {
    let world = World::new();
    world.plain("good", "script:ok:0.5");
    let models = world.subscription().max_model_bytes(1000).start().unwrap();
    wait_live(&models, "good").await;
    // None of its chunks is on the topic: nobody has tried to read them.
    let mut artifact = modelswap::Artifact::of(b"x", None);
    (artifact.bytes, artifact.chunks) = (1 << 40, 2_000_000);
    let position = world.commit("huge", &artifact, "");
    assert_eq!(
        wait_rejected(&models, position).await,
        "size: expected at most 1000 bytes (max_model_bytes), found 1099511627776"
    );
    let script = format!("script:ok:1:{}", "x".repeat(2000));
    let position = world.plain("large", &script);
    assert!(wait_rejected(&models, position).await.starts_with("size: expected at most 1000 bytes"));
    assert_eq!(models.status().live_version("fraud"), Some("good"));
}

#[tokio::test]
async fn no_model_at_all() {
    let reason = rejected(|w| w.plain("bad", "what is this")).await;
    assert!(reason.starts_with("load: the bytes are of no known format; known formats: script"), "{reason}");
}

#[tokio::test]
async fn an_unknown_format() {
    let reason =
        rejected(|w| w.put("fraud", Some(b"x"), &[("sha256", &digest("x")), ("format", "pickle")])).await;
    assert!(reason.starts_with("load: unknown format `pickle`; known formats: script"), "{reason}");
}

#[tokio::test]
async fn a_panic_while_loading() {
    let reason = rejected(|w| w.plain("bad", "script:panic-on-load")).await;
    assert_eq!(reason, "load: the loader panicked: the script says so");
}

#[tokio::test]
async fn a_panic_in_the_first_run() {
    let reason = rejected(|w| w.plain("bad", "script:panic-on-run")).await;
    assert_eq!(reason, "warm-up: the first run panicked: the script says so");
}

#[tokio::test]
async fn a_failing_first_run() {
    let reason = rejected(|w| w.plain("bad", "script:fail-on-run")).await;
    assert_eq!(reason, "warm-up: the first run failed: script expected to fail");
}

#[tokio::test]
async fn a_signature_that_the_application_does_not_expect() {
    let world = World::new();
    let input = TensorSpec::new("x", ElementType::F32, &[Dim::Any, Dim::Fixed(2)]);
    let expected = Signature::new(vec![input], vec![]);
    let models = world.subscription().expect("fraud", expected).start().unwrap();
    world.plain("good", "script:ok:0.5");
    wait_live(&models, "good").await;
    let position = world.plain("bad", "script:wide:0.5");
    assert_eq!(
        wait_rejected(&models, position).await,
        "signature: input `x`: expected f32[?,2], found f32[?,3]"
    );
    assert_eq!(models.status().live_version("fraud"), Some("good"));
}

#[tokio::test]
async fn golden_samples_that_are_not_reproduced() {
    let samples = |y: &str| format!(r#""samples":{{"inputs":{{"x":[[1,2]]}},"outputs":{{"y":[[{y}]]}}}},"#);
    let reason = rejected(|w| {
        let artifact = w.chunks("script:ok:0.5", 100);
        w.commit("bad", &artifact, &samples("0.75"))
    })
    .await;
    assert!(reason.starts_with("samples: output `y`: element [0,0]: expected 0.75, found 0.5"), "{reason}");

    let world = World::new();
    let artifact = world.chunks("script:ok:0.5", 100);
    world.commit("good", &artifact, &samples("0.5"));
    wait_live(&world.start(), "good").await;
}

#[tokio::test]
async fn a_malformed_release_document() {
    let reason = rejected(|w| w.put("fraud", Some(b"{\"schema\":1}"), &[])).await;
    assert!(reason.contains("malformed release document: missing field `model`"), "{reason}");
}

#[tokio::test]
async fn a_release_document_of_an_unknown_schema() {
    let reason = rejected(|w| w.put("fraud", Some(b"{\"schema\":7}"), &[])).await;
    assert_eq!(reason, "announcement: release document of schema 7, expected 1; update modelswap");
}

#[tokio::test]
async fn a_bad_row_at_predict() {
    let world = World::new();
    world.plain("v", "script:panic-on-13:0.5");
    let models = world.start();
    let scorer = models.scorer("fraud").unwrap();
    scorer.ready(WAIT).await.unwrap();
    let text = |features: &dyn modelswap::Features| scorer.predict(features).unwrap_err().to_string();
    assert_eq!(text(&[1.0_f32]), "input `x`: expected 2 values a row, found 1");
    assert_eq!(text(&[1.0_f64, 2.0]), "input `x`: expected f32[?,2], found elements of f64");
    assert_eq!(text(&[13.0_f32, 2.0]), "the model panicked");
    let named = modelswap::NamedTensors::new().with("z", modelswap::Tensor::column(vec![1.0_f32]));
    assert_eq!(text(&named), "input `x` is missing: expected f32[?,2]");
    assert!(scorer.predict(&[f32::NAN, 2.0]).unwrap().values()[0].is_nan());
    assert_eq!(scorer.predict(&[1.0_f32, 2.0]).unwrap().values(), [0.5]);
}
