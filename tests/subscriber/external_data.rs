//! An ONNX model whose weights an exporter wrote beside it: from the file to the prediction.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use modelswap::load::{Samples, compare};
use modelswap::publish::{PublishOptions, Publisher};
use modelswap::topic::MemoryTopic;
use modelswap::{Error, ErrorKind, Models, Release, Scorer};

use crate::support::{WAIT, World, wait_live, wait_rejected};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/external_data").join(name)
}

fn publish(topic: &MemoryTopic, file: &Path) -> Result<Release, Error> {
    let options = PublishOptions::default().version("whole");
    Publisher::new(Arc::new(topic.clone())).publish("fraud", file, options)
}

#[tokio::test]
async fn what_lies_beside_a_model_is_published_in_it() {
    let topic = MemoryTopic::new("models", 1);
    let models = Models::subscribe_to(Arc::new(topic.clone())).model("fraud").start().unwrap();
    let scorer = models.scorer("fraud").unwrap();
    let release = publish(&topic, &fixture("model.onnx")).unwrap();
    let size = |name| std::fs::metadata(fixture(name)).unwrap().len();
    // In one artifact: the weights, and the graph with less to say about where they are.
    assert!(release.artifact.bytes > size("model.onnx.data"));
    assert!(release.artifact.bytes < size("model.onnx") + size("model.onnx.data"));
    wait_live(&models, "whole").await;
    let snapshot = scorer.snapshot().unwrap();
    let samples = Samples::from_onnx_dir(&fixture("batch_7"), snapshot.signature()).unwrap();
    let prediction = snapshot.predict(&samples.inputs()[0].1).unwrap();
    let (name, expected) = &samples.outputs()[0];
    compare(expected.view(), prediction.output(name).unwrap().view(), 1e-4, 1e-5).unwrap();
}

#[test]
fn what_lies_outside_the_models_folder_or_nowhere_is_named_and_nothing_is_written() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(fixture("model.onnx"), folder.path().join("model.onnx")).unwrap();
    std::fs::write(folder.path().join("model.onnx.data"), [0; 100]).unwrap();
    let linked = tempfile::tempdir().unwrap();
    std::fs::copy(fixture("model.onnx"), linked.path().join("model.onnx")).unwrap();
    let target = linked.path().join("model.onnx.data");
    std::os::unix::fs::symlink(fixture("model.onnx.data"), target).unwrap();
    let outside = "a path outside the model's folder";
    for (file, parts) in [
        (fixture("outside.onnx"), ["`../", outside]),
        (fixture("absolute.onnx"), ["`/", outside]),
        (linked.path().join("model.onnx"), ["`model.onnx.data`", outside]),
        (fixture("missing.onnx"), ["in `", "No such file"]),
        (folder.path().join("model.onnx"), ["`model.onnx.data`", "are not in a file of 100"]),
    ] {
        let topic = MemoryTopic::new("models", 1);
        let error = publish(&topic, &file).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Rejected);
        let text = error.to_string();
        assert!(parts.iter().all(|part| text.contains(part)), "{}: {text}", file.display());
        assert_eq!(topic.records(), []);
    }
}

#[tokio::test]
async fn a_subscriber_takes_nothing_from_its_own_file_system() {
    let world = World::new();
    let models = world.start();
    let scorer = models.scorer("fraud").unwrap();
    for (file, part) in
        [("model.onnx", "in `model.onnx.data`"), ("absolute.onnx", "a path outside the model's folder")]
    {
        let bytes = std::fs::read(fixture(file)).unwrap();
        let digest = modelswap::Sha256Digest::of([&*bytes]).to_string();
        let reason = wait_rejected(&models, world.put("fraud", Some(&bytes), &[("sha256", &digest)])).await;
        assert!(reason.contains("lies outside the file") && reason.contains(part), "{reason}");
    }
    assert!(scorer.ready(WAIT / 1000).await.is_err());
}
