//! Swaps under way: a thread that scores neither allocates nor frees, least of all a model.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use modelswap::load::{LoadError, LoadOptions, Loader, Model, Payload, RunError};
use modelswap::topic::MemoryTopic;
use modelswap::wire::{Header, SHA256_HEADER};
use modelswap::{
    Dim, ElementType, ModelScorer, Models, Position, Scorer, Sha256Digest, Shape, Signature, Tensor,
    TensorSpec, TensorView,
};

use crate::{NONE, allocations_and_frees};

const SWAPS: i64 = 50;

#[tokio::test]
async fn a_thread_that_calls_the_scorer_neither_allocates_nor_frees_during_swaps() {
    under_swaps(|scorer, scores| scorer.predict_into(&[1.0_f32], scores).unwrap()).await;
}

#[tokio::test]
async fn a_thread_that_takes_snapshots_neither_allocates_nor_frees_during_swaps() {
    under_swaps(|scorer, scores| {
        let pinned = scorer.snapshot().unwrap();
        let first = pinned.predict_into(&[1.0_f32], scores).unwrap();
        assert_eq!(pinned.predict_into(&[2.0_f32], scores).unwrap(), first);
        first
    })
    .await;
}

/// Publishes one version after the other, each once a thread that does nothing but `call` has scored
/// with the one before; then looks what that thread has allocated and freed.
async fn under_swaps(call: impl Fn(&ModelScorer, &mut [f32]) -> Position + Send + 'static) {
    let topic = MemoryTopic::new("models", 1);
    let alive = Arc::new(AtomicUsize::new(0));
    let models = Models::subscribe_to(Arc::new(topic.clone()))
        .model("fraud")
        .loader(Arc::new(CountedLoader { alive: alive.clone() }))
        .start()
        .unwrap();
    let scorer = models.scorer("fraud").unwrap();
    publish(&topic, 0);
    scorer.ready(Duration::from_mins(1)).await.unwrap();

    let (stop, seen) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(-1)));
    let (stop_scoring, last) = (stop.clone(), seen.clone());
    let scoring = std::thread::spawn(move || {
        let mut scores = [0.0];
        call(&scorer, &mut scores);
        let mut calls = || {
            while !stop_scoring.load(Ordering::Relaxed) {
                let position = call(&scorer, &mut scores);
                last.store(position.offset, Ordering::Relaxed);
                std::thread::yield_now();
            }
        };
        allocation_counter::measure(&mut calls)
    });
    for version in 0..SWAPS {
        while seen.load(Ordering::Relaxed) != version {
            assert!(!scoring.is_finished(), "the scoring thread panicked");
            tokio::task::yield_now().await;
        }
        publish(&topic, version + 1);
    }
    stop.store(true, Ordering::Relaxed);
    assert_eq!(allocations_and_frees(scoring.join().unwrap()), NONE);
    models.shutdown().await;
    assert_eq!(alive.load(Ordering::SeqCst), 0, "every version was freed, by the subscription's threads");
}

fn publish(topic: &MemoryTopic, version: i64) {
    let file = format!("counted {version}");
    let sha256 = Sha256Digest::of([file.as_bytes()]).to_string();
    let header = Header { name: SHA256_HEADER.into(), value: sha256.into() };
    topic.append(b"fraud", Some(Bytes::from(file)), &[header]);
}

/// Loads models of which it is known how many there are.
struct CountedLoader {
    alive: Arc<AtomicUsize>,
}

impl Loader for CountedLoader {
    fn format(&self) -> &'static str {
        "counted"
    }

    fn recognises(&self, payload: &Payload) -> bool {
        payload.peek(7) == b"counted"
    }

    fn load(&self, _payload: Payload, _options: &LoadOptions) -> Result<Arc<dyn Model>, LoadError> {
        self.alive.fetch_add(1, Ordering::SeqCst);
        let spec = |name| TensorSpec::new(name, ElementType::F32, &[Dim::Any, Dim::Fixed(1)]);
        Ok(Arc::new(CountedModel {
            signature: Signature::new(vec![spec("features")], vec![spec("score")]),
            weights: vec![0.5; 1 << 16],
            alive: self.alive.clone(),
        }))
    }
}

/// A model with memory that somebody has to free.
struct CountedModel {
    signature: Signature,
    weights: Vec<f32>,
    alive: Arc<AtomicUsize>,
}

impl Drop for CountedModel {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Model for CountedModel {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&self, inputs: &[TensorView<'_>], outputs: &mut [Tensor]) -> Result<(), RunError> {
        let rows = inputs[0].shape().rows();
        self.run_into(inputs, outputs[0].reset::<f32>(Shape::matrix(rows, 1)))
    }

    fn run_into(&self, inputs: &[TensorView<'_>], out: &mut [f32]) -> Result<(), RunError> {
        let values = inputs[0].values::<f32>().unwrap();
        for (score, value) in out.iter_mut().zip(values) {
            *score = value * self.weights[0];
        }
        Ok(())
    }
}
