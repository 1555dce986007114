//! Bootstrap, swaps, fallback, withdrawal, and what becomes of the old versions.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use modelswap::topic::TopicError;
use modelswap::{Activity, ErrorKind, PredictError, Scorer, TopicState};

use crate::support::*;

#[tokio::test]
async fn of_a_hundred_stale_versions_only_the_newest_is_loaded() {
    let world = World::new();
    for i in 0..100 {
        world.plain(&format!("v{i}"), &format!("script:ok:{i}"));
    }
    let models = world.start();
    wait_live(&models, "v99").await;
    assert_eq!(world.loader.loaded.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_bad_newest_release_does_not_brick_a_restart() {
    let world = World::new();
    let good = world.chunks("script:ok:0.5", 4);
    let at = world.commit("good", &good, "");
    let bad = world.chunks("not a model", 4);
    let good = serde_json::to_string(&good).unwrap();
    let previous = format!(
        r#""previous":{{"version":"good","artifact":{good},"partition":{},"offset":{}}},"#,
        at.partition, at.offset
    );
    let position = world.commit("bad", &bad, &previous);
    // After compaction only the bad release and the chunks are there.
    world.topic.compact();
    let models = world.start();
    let scorer = models.scorer("fraud").unwrap();
    scorer.ready(WAIT).await.unwrap();
    assert_eq!(scorer.predict(&[1.0_f32, 2.0]).unwrap().provenance().version(), "good");
    assert!(wait_rejected(&models, position).await.contains("no known format"));
}

#[tokio::test]
async fn a_plain_publish_falls_back_to_what_is_still_on_the_topic() {
    let world = World::new();
    world.plain("good", "script:ok:0.5");
    world.plain("bad", "not a model");
    wait_live(&world.start(), "good").await;
}

#[tokio::test]
async fn a_snapshot_pins_its_version_and_the_old_one_is_freed_when_nobody_holds_it() {
    let world = World::new();
    world.plain("v1", "script:ok:1");
    let models = world.start();
    let scorer = models.scorer("fraud").unwrap();
    scorer.ready(WAIT).await.unwrap();
    let pinned = scorer.snapshot().unwrap();
    let kept = scorer.predict(&[1.0_f32, 2.0]).unwrap();
    world.plain("v2", "script:ok:2");
    wait_live(&models, "v2").await;
    assert_eq!(pinned.predict(&[1.0_f32, 2.0]).unwrap().values(), [1.0]);
    assert_eq!(scorer.predict(&[1.0_f32, 2.0]).unwrap().values(), [2.0]);
    wait(&models, "retired", |s| s.model("fraud").unwrap().retired == 1).await;
    assert_eq!(world.loader.alive.load(Ordering::SeqCst), 2);
    drop(pinned);
    wait(&models, "freed", |s| s.model("fraud").unwrap().retired == 0).await;
    // A prediction remembers the version that made it, and does not keep it alive.
    assert_eq!(kept.provenance().version(), "v1");
    models.shutdown().await;
    assert_eq!(world.loader.alive.load(Ordering::SeqCst), 1);
    drop(scorer);
    assert_eq!(world.loader.alive.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn under_many_swaps_every_prediction_is_of_one_version_and_versions_never_go_back() {
    let world = World::new();
    world.plain("0", "script:ok:0");
    let models = world.start();
    let scorer = models.scorer("fraud").unwrap();
    scorer.ready(WAIT).await.unwrap();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let (mut last, mut seen) = (0, 1);
                    while !stop.load(Ordering::Relaxed) {
                        let prediction = scorer.predict(&[1.0_f32, 2.0]).unwrap();
                        let version: i64 = prediction.provenance().version().parse().unwrap();
                        assert_eq!(
                            prediction.values(),
                            [version as f32],
                            "values and version are of one model"
                        );
                        assert!(version >= last, "{version} after {last}");
                        seen += i64::from(version > last);
                        last = version;
                    }
                    (last, seen)
                })
            })
            .collect();
        for i in 1..=300 {
            world.plain(&i.to_string(), &format!("script:ok:{i}"));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let waited = scope.spawn(move || {
            runtime.unwrap().block_on(async {
                wait_live(&models, "300").await;
                models
            })
        });
        let models = waited.join().unwrap();
        stop.store(true, Ordering::Relaxed);
        for reader in readers {
            let (last, seen) = reader.join().unwrap();
            assert!(last <= 300 && seen >= 1);
        }
        assert_eq!(scorer.predict(&[1.0_f32, 2.0]).unwrap().values(), [300.0]);
        drop(models);
    });
    drop(scorer);
}

#[tokio::test]
async fn a_withdrawn_model_answers_that_there_is_none_and_comes_back() {
    let world = World::new();
    world.plain("v1", "script:ok:1");
    let models = world.start();
    let scorer = models.scorer("fraud").unwrap();
    scorer.ready(WAIT).await.unwrap();
    world.put("fraud", None, &[]);
    wait(&models, "withdrawn", |s| s.model("fraud").unwrap().live.is_none()).await;
    assert_eq!(scorer.predict(&[1.0_f32, 2.0]).unwrap_err(), PredictError::NoModel);
    let error = scorer.ready(Duration::from_millis(1)).await.unwrap_err();
    assert!(error.to_string().ends_with("the model was withdrawn"), "{error}");
    world.plain("v2", "script:ok:2");
    scorer.ready(WAIT).await.unwrap();
    assert_eq!(scorer.predict(&[1.0_f32, 2.0]).unwrap().values(), [2.0]);
}

#[tokio::test]
async fn a_topic_that_was_made_anew_is_followed_from_its_beginning() {
    let world = World::new();
    for i in 0..20 {
        world.plain(&format!("old {i}"), &format!("script:ok:{i}"));
    }
    let models = world.start();
    wait_live(&models, "old 19").await;
    world.topic.recreate(1);
    // At a lower offset than what is live, which says nothing now.
    world.plain("new", "script:ok:0.5");
    wait_live(&models, "new").await;
    world.topic.recreate(1);
    world.put("fraud", None, &[]);
    wait(&models, "withdrawn", |s| s.model("fraud").unwrap().live.is_none()).await;
    world.plain("newest", "script:ok:1");
    wait_live(&models, "newest").await;
}

#[tokio::test]
async fn ready_says_precisely_why_there_is_no_model() {
    let world = World::new();
    let models = world.start();
    let scorer = models.scorer("fraud").unwrap();
    wait(&models, "caught up", |s| s.topic == TopicState::CaughtUp).await;
    let error = scorer.ready(Duration::ZERO).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(error.to_string(), "no version of `fraud` is live after 0ns: the topic has no release of it");
    let position = world.plain("v1", "not a model");
    wait_rejected(&models, position).await;
    let error = scorer.ready(Duration::ZERO).await.unwrap_err().to_string();
    assert!(
        error.contains("version v1 at partition 0 offset 0 was rejected: load: the bytes are"),
        "{error}"
    );
    models.shutdown().await;
    assert_eq!(scorer.ready(WAIT).await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn several_models_and_scorers_share_one_subscription() {
    let world = World::new();
    let digest = |s: &str| modelswap::Sha256Digest::of([s.as_bytes()]).to_string();
    for (model, script) in [("a", "script:ok:1"), ("b", "script:ok:2")] {
        world.put(model, Some(script.as_bytes()), &[("sha256", &digest(script))]);
    }
    let models = world.subscription().all_models().start().unwrap();
    for (model, score) in [("a", 1.0), ("b", 2.0), ("a", 1.0)] {
        let scorer = models.scorer(model).unwrap();
        scorer.ready(WAIT).await.unwrap();
        assert_eq!(scorer.predict(&[[0.0_f32; 2]; 3]).unwrap().values(), [score; 3]);
    }
    let none = world.subscription().start().unwrap();
    assert_eq!(none.scorer("b").unwrap_err().kind(), ErrorKind::Config);
}

#[tokio::test]
async fn a_topic_that_cannot_be_read_is_in_the_status_and_comes_back_by_itself() {
    let world = World::new();
    world.plain("v1", "script:ok:1");
    let models = world.start();
    let scorer = models.scorer("fraud").unwrap();
    scorer.ready(WAIT).await.unwrap();
    world.topic.set_fault(Some(TopicError::unavailable("the broker is down")));
    let status = wait(&models, "unavailable", |s| matches!(s.topic, TopicState::Unavailable { .. })).await;
    assert!(status.to_string().contains("the broker is down"), "{status}");
    assert_eq!(scorer.predict(&[1.0_f32, 2.0]).unwrap().values(), [1.0]);
    world.topic.set_fault(None);
    wait(&models, "available", |s| s.topic == TopicState::CaughtUp).await;
    world.plain("v2", "script:ok:2");
    wait_live(&models, "v2").await;
}

#[tokio::test]
#[allow(clippy::await_holding_lock, reason = "the lock is what holds the load up")]
async fn what_was_loading_while_the_topic_was_made_anew_does_not_stand_in_the_way_of_what_is_on_it() {
    let world = World::new();
    for i in 0..5 {
        world.plain("old", &format!("script:ok:{i}"));
    }
    let gate = world.loader.gate.lock().unwrap();
    let models = world.start();
    let loading = |version: &str| Activity::Loading { version: version.to_owned() };
    wait(&models, "loading", |s| s.model("fraud").is_some_and(|m| m.activity == loading("old"))).await;
    world.topic.recreate(1);
    // An offset below that of the release that is being loaded: another topic, another count.
    world.plain("new", "script:ok:7");
    wait(&models, "the new topic read", |s| {
        s.topic == TopicState::CaughtUp
            && s.model("fraud")
                .is_some_and(|m| m.newest.as_ref().is_some_and(|n| n.version.as_deref() == Some("new")))
    })
    .await;
    drop(gate);
    wait_live(&models, "new").await;
    let status = models.status();
    assert_eq!(status.model("fraud").unwrap().swaps, 1, "the old topic's release never went live");
}
