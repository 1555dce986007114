//! What a consumer sees: provenance, headers, buffers, trait objects.

use std::sync::Arc;

use modelswap::{ModelScorer, Models, PredictError, Prediction, Rows, Scorer, Snapshot, Subscription};

use crate::support::*;

#[tokio::test]
async fn every_prediction_carries_what_made_it() {
    let world = World::new();
    let position = world.plain("2026-11-23", "script:ok:0.5");
    let models = world.start();
    let scorer = models.scorer("fraud").unwrap();
    scorer.ready(WAIT).await.unwrap();
    let prediction = scorer.predict(&[1.0_f32, 2.0]).unwrap();
    let headers: Vec<_> = prediction.provenance().headers().collect();
    let digest = modelswap::Sha256Digest::of([&b"script:ok:0.5"[..]]).to_string();
    assert_eq!(
        headers,
        [
            ("modelswap-model", "fraud"),
            ("modelswap-version", "2026-11-23"),
            ("modelswap-sha256", &digest),
            ("modelswap-partition", "0"),
            ("modelswap-offset", &position.offset.to_string()),
        ]
    );
    assert_eq!(prediction.output("y").unwrap().dims(), [1, 1]);
    let mut scores = [0.0; 3];
    let rows = [0.0_f32; 6];
    let made_by = scorer.predict_into(&Rows::new(&rows, 2).unwrap(), &mut scores).unwrap();
    assert_eq!((made_by, scores), (position, [0.5; 3]));
    let short = scorer.predict_into(&Rows::new(&rows, 2).unwrap(), &mut [0.0; 2]).unwrap_err();
    assert_eq!(short.to_string(), "the model gives 3 scores, the buffer holds 2");
}

#[tokio::test]
async fn a_consumer_can_hold_any_scorer() {
    let world = World::new();
    world.plain("v1", "script:ok:0.5");
    let models = world.start();
    let scorer = models.scorer("fraud").unwrap();
    scorer.ready(WAIT).await.unwrap();
    let scorers: Vec<Arc<dyn Scorer>> = vec![Arc::new(scorer.clone()), Arc::new(scorer.snapshot().unwrap())];
    for scorer in scorers {
        assert_eq!(scorer.predict(&vec![1.0_f32, 2.0]).unwrap().values(), [0.5]);
    }
}

#[test]
fn what_threads_share_is_send_and_sync() {
    fn send<T: Send>() {}
    fn check<T: Send + Sync + 'static>() {}
    check::<Models>();
    check::<ModelScorer>();
    check::<Snapshot>();
    check::<Prediction>();
    check::<PredictError>();
    check::<modelswap::Error>();
    send::<Subscription>();
}
