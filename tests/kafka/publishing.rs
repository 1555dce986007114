//! What a publisher leaves on the topic, checked on both twins.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use modelswap::publish::{PublishOptions, PublishedState, Step};
use modelswap::topic::Topic;
use modelswap::wire::{Announcement, CHUNK_BYTES, Header, Key};
use modelswap::{Artifact, ErrorKind, Sha256Digest};

use crate::contents::contents;
use crate::numbers::{number, publisher};
use crate::twins::{Kafka, Memory, Twin, commit};

macro_rules! on_both_twins {
    ($($test:ident($partitions:literal)),* $(,)?) => {
        mod memory {
            $(#[test] fn $test() { super::$test(&super::Memory::new($partitions)); })*
        }
        mod kafka {
            $(#[test] fn $test() { super::$test(&super::Kafka::new($partitions)); })*
        }
    };
}

on_both_twins! {
    a_published_model_lies_in_chunks_before_its_release(3),
    the_artifacts_that_are_kept_stay_and_older_ones_go(1),
    a_third_artifact_is_kept_and_named_where_that_is_asked_for(1),
    the_same_artifact_under_another_version_falls_back_to_a_different_one(1),
    a_rollback_is_a_new_release_of_an_old_artifact_and_undoes_itself(1),
    a_rollback_to_what_is_no_longer_there_is_a_clear_error(1),
    a_damaged_artifact_is_not_rolled_back_to(1),
    a_plain_publish_can_be_rolled_back_to_while_it_is_there(1),
    a_withdrawn_model_leaves_no_chunk_and_can_come_back(2),
    a_model_that_a_subscriber_would_refuse_is_not_written(1),
    what_a_killed_publisher_left_is_removed_by_the_next(1),
    a_later_publisher_fences_an_earlier_one_in_the_middle(1),
    an_artifact_that_is_published_again_while_it_is_pruned_stays_whole(1),
    publishing_goes_on_after_the_topic_has_grown(1),
    models_of_one_topic_do_not_touch_each_other(1),
    a_publish_that_is_stopped_changes_nothing_and_holds_nobody_up(1),
}

fn options(version: &str) -> PublishOptions {
    PublishOptions::default().version(version)
}

fn a_published_model_lies_in_chunks_before_its_release(twin: &dyn Twin) {
    let topic = twin.topic();
    let file = number(1.0, 2 * CHUNK_BYTES + 10);
    let steps = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&steps);
    let release = publisher(topic.clone())
        .on_progress(move |p| seen.lock().unwrap().push((p.step, p.done, p.total)))
        .publish("fraud", file.clone(), options("7").label("team", "risk").format("number").keep(3))
        .unwrap();
    let contents = contents(&*topic, "fraud");
    assert_eq!(*contents.release(), release);
    assert_eq!(
        (release.sequence, release.version.as_str(), &release.labels["team"]),
        (1, "7", &"risk".to_owned())
    );
    assert_eq!(release.artifact, Artifact::of(&file, Some("number".into())));
    let of_model: Vec<_> = contents.records.iter().filter(|r| Key::parse(&r.key).is_some()).collect();
    assert_eq!(of_model.last().unwrap().position, release.position);
    let bytes: Vec<u8> = of_model[..3].iter().flat_map(|r| r.value.clone().unwrap()).collect();
    assert_eq!(bytes, file);
    assert!(of_model.iter().all(|r| r.position.partition == release.position.partition));
    assert_eq!(release.position.partition, modelswap::wire::partition_of(b"fraud", 3));
    // The mark up to which the publisher has read is gone again.
    let newest: BTreeMap<_, _> =
        contents.records.iter().map(|r| ((r.position.partition, &r.key), r.value.is_some())).collect();
    assert!(newest.iter().all(|((_, key), there)| **key != b"fraud/barrier"[..] || !there));
    let steps = steps.lock().unwrap();
    let total = file.len() as u64;
    assert!(steps.contains(&(Step::Upload, total, total)));
    let mut order: Vec<Step> = Vec::new();
    for (step, ..) in steps.iter() {
        // The topic may be read on behind the upload.
        if !order.contains(step) {
            order.push(*step);
        }
    }
    assert_eq!(order, [Step::Check, Step::Scan, Step::Upload, Step::Commit, Step::Prune]);
}

fn the_artifacts_that_are_kept_stay_and_older_ones_go(twin: &dyn Twin) {
    let topic = twin.topic();
    let publisher = publisher(topic.clone());
    let files = [1.0, 2.0, 3.0].map(|score| number(score, CHUNK_BYTES + 1));
    for (file, version) in files.iter().zip(["1", "2", "3"]) {
        publisher.publish("fraud", file.clone(), options(version)).unwrap();
    }
    let contents = contents(&*topic, "fraud");
    assert!(!contents.chunks.contains_key(&Artifact::of(&files[0], None).sha256));
    assert!(contents.has_whole(&files[1]) && contents.has_whole(&files[2]));
    let release = contents.release();
    let previous = release.previous.as_ref().unwrap();
    assert_eq!((release.sequence, previous.sequence, previous.version.as_str()), (3, 2, "2"));
    assert_eq!(previous.artifact, Artifact::of(&files[1], None));
    assert_eq!(release.earlier, []);

    let listing = publisher.list().unwrap().pop().unwrap();
    assert_eq!((listing.model.as_str(), listing.state), ("fraud", PublishedState::Released));
    let releases: Vec<_> =
        listing.releases.iter().map(|r| (r.release.version.as_str(), r.complete)).collect();
    assert_eq!(releases, [("3", true), ("2", true), ("1", false)]);
}

fn a_third_artifact_is_kept_and_named_where_that_is_asked_for(twin: &dyn Twin) {
    let topic = twin.topic();
    let publisher = publisher(topic.clone());
    let mut stale = Vec::new();
    for version in ["1", "2", "3", "4"] {
        let file = number(version.parse().unwrap(), 10);
        stale.push(publisher.publish("fraud", file, options(version).keep(3)).unwrap().position);
    }
    // Only the newest release has a record of its own now.
    twin.compact_away(&stale[..3]);
    let contents = contents(&*topic, "fraud");
    assert_eq!(contents.chunks.len(), 3);
    let earlier: Vec<_> = contents.release().earlier.iter().map(|p| p.version.as_str()).collect();
    assert_eq!(earlier, ["2"]);
    let release = publisher.rollback("fraud", Some("2")).unwrap();
    assert_eq!((release.version.as_str(), release.sequence), ("2", 5));
    assert_eq!(release.previous.unwrap().version, "4");
}

fn the_same_artifact_under_another_version_falls_back_to_a_different_one(twin: &dyn Twin) {
    let publisher = publisher(twin.topic());
    for (score, version) in [(1.0, "1"), (2.0, "2"), (2.0, "2-again")] {
        publisher.publish("fraud", number(score, 10), options(version)).unwrap();
    }
    let contents = contents(&*twin.topic(), "fraud");
    assert_eq!(contents.release().version, "2-again");
    assert_eq!(contents.release().previous.as_ref().unwrap().version, "1");
    assert_eq!(contents.chunks.len(), 2);
}

fn a_rollback_is_a_new_release_of_an_old_artifact_and_undoes_itself(twin: &dyn Twin) {
    let publisher = publisher(twin.topic());
    let samples = serde_json::json!({"inputs": {"x": [[0.0]]}, "outputs": {"score": [[1.0]]}});
    let first = publisher
        .publish("fraud", number(1.0, 10), options("1").label("a", "b").samples(samples.clone()))
        .unwrap();
    publisher.publish("fraud", number(2.0, 10), options("2")).unwrap();
    let back = publisher.rollback("fraud", None).unwrap();
    assert_eq!((back.version.as_str(), back.sequence), ("1", 3));
    assert_eq!(back.artifact, first.artifact);
    assert_eq!((back.samples.as_ref(), &back.labels), (Some(&samples), &first.labels));
    assert_eq!(back.previous.as_ref().unwrap().version, "2");
    assert!(contents(&*twin.topic(), "fraud").has_whole(&number(2.0, 10)));
    let undone = publisher.rollback("fraud", None).unwrap();
    assert_eq!((undone.version.as_str(), undone.sequence), ("2", 4));
    let newest = publisher.rollback("fraud", Some("1")).unwrap();
    assert_eq!(newest, *contents(&*twin.topic(), "fraud").release());
}

fn a_rollback_to_what_is_no_longer_there_is_a_clear_error(twin: &dyn Twin) {
    let publisher = publisher(twin.topic());
    let error = publisher.rollback("fraud", None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.to_string(), "there is no release of `fraud` on the topic");
    publisher.publish("fraud", number(1.0, 10), options("1")).unwrap();
    let error = publisher.rollback("fraud", None).unwrap_err();
    assert_eq!(error.to_string(), "version `1` of `fraud` is the only one");
    publisher.publish("fraud", number(2.0, 10), options("2")).unwrap();
    publisher.publish("fraud", number(3.0, 10), options("3")).unwrap();
    let error = publisher.rollback("fraud", Some("1")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let text = error.to_string();
    assert!(text.starts_with("version `1` of `fraud` is no longer on the topic: chunk 0 of 1"), "{text}");
    let error = publisher.rollback("fraud", Some("9")).unwrap_err().to_string();
    assert!(error.ends_with("there is: `2`"), "{error}");
    let error = publisher.rollback("fraud", Some("3")).unwrap_err().to_string();
    assert!(error.contains("is the newest already"), "{error}");
    assert_eq!(contents(&*twin.topic(), "fraud").release().version, "3");
}

fn a_damaged_artifact_is_not_rolled_back_to(twin: &dyn Twin) {
    let topic = twin.topic();
    let publisher = publisher(topic.clone());
    let first = publisher.publish("fraud", number(1.0, 10), options("1")).unwrap();
    publisher.publish("fraud", number(2.0, 10), options("2")).unwrap();
    let key = modelswap::wire::chunk_key(&first.model, first.artifact.sha256, 0);
    crate::twins::commit(&*topic, &[(0, &key, Some("something else"))]);
    let error = publisher.rollback("fraud", None).unwrap_err().to_string();
    assert!(error.starts_with("version `1` of `fraud` is damaged on the topic"), "{error}");
    assert_eq!(contents(&*topic, "fraud").release().version, "2");
    // To publish it again repairs it.
    publisher.publish("fraud", number(1.0, 10), options("1")).unwrap();
    publisher.publish("fraud", number(2.0, 10), options("2")).unwrap();
    publisher.rollback("fraud", None).unwrap();
}

fn a_plain_publish_can_be_rolled_back_to_while_it_is_there(twin: &dyn Twin) {
    let topic = twin.topic();
    let file = number(1.0, 100);
    let header = Header { name: "sha256".into(), value: Sha256Digest::of([&*file]).to_string().into() };
    let mut writer = topic.writer("plain").unwrap();
    writer.begin().unwrap();
    writer.send(0, b"fraud", Some(file.clone()), &[header]).unwrap();
    let position = writer.commit().unwrap()[0];
    let publisher = publisher(topic.clone());
    let second = publisher.publish("fraud", number(2.0, 10), options("2")).unwrap();
    let previous = second.previous.unwrap();
    assert_eq!((previous.position, previous.artifact.chunks, previous.sequence), (position, 0, 0));
    let back = publisher.rollback("fraud", None).unwrap();
    assert_eq!((back.artifact.chunks, back.sequence), (1, 2));
    assert!(contents(&*topic, "fraud").has_whole(&file));
}

fn a_withdrawn_model_leaves_no_chunk_and_can_come_back(twin: &dyn Twin) {
    let topic = twin.topic();
    let publisher = publisher(topic.clone());
    assert_eq!(publisher.withdraw("fraud").unwrap_err().kind(), ErrorKind::NotFound);
    publisher.publish("fraud", number(1.0, CHUNK_BYTES + 1), options("1")).unwrap();
    publisher.publish("fraud", number(2.0, 10), options("2")).unwrap();
    publisher.withdraw("fraud").unwrap();
    let withdrawn = contents(&*topic, "fraud");
    assert_eq!(withdrawn.newest, Some(Announcement::Withdrawn));
    assert!(withdrawn.chunks.is_empty());
    assert_eq!(publisher.list().unwrap()[0].state, PublishedState::Withdrawn);
    assert_eq!(publisher.rollback("fraud", None).unwrap_err().kind(), ErrorKind::NotFound);
    let back = publisher.publish("fraud", number(3.0, 10), options("3")).unwrap();
    assert_eq!(back.previous, None);
    assert!(contents(&*topic, "fraud").has_whole(&number(3.0, 10)));
}

fn a_model_that_a_subscriber_would_refuse_is_not_written(twin: &dyn Twin) {
    let topic = twin.topic();
    let publisher = publisher(topic.clone());
    let error = publisher.publish("fraud", Bytes::from("number none\n"), options("1")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected);
    assert!(error.to_string().contains("expected a number in the first line"), "{error}");
    let wrong = serde_json::json!({"inputs": {"x": [[0.0]]}, "outputs": {"score": [[2.0]]}});
    let error = publisher.publish("fraud", number(1.0, 10), options("1").samples(wrong)).unwrap_err();
    assert!(error.to_string().contains("samples"), "{error}");
    for (model, options) in
        [("a/b", options("1")), ("fraud", options("")), ("fraud", options(&"v".repeat(201)))]
    {
        let error = publisher.publish(model, number(1.0, 10), options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
    }
    let huge = serde_json::json!({ "inputs": "x".repeat(CHUNK_BYTES) });
    let error = publisher.publish("fraud", number(1.0, 10), options("1").samples(huge)).unwrap_err();
    assert!(error.to_string().contains("at most 900000 fit one record"), "{error}");
    assert!(contents(&*topic, "fraud").records.is_empty());
}

/// The half of a publish that a killed publisher has behind it: chunks without a release.
fn publish_half(topic: &dyn Topic, file: &Bytes) {
    let sha256 = Sha256Digest::of([&**file]);
    let mut writer = topic.writer(&format!("modelswap-{}-fraud", topic.name())).unwrap();
    writer.begin().unwrap();
    for (index, chunk) in (0..).zip(file.chunks(CHUNK_BYTES)).take(2) {
        let key = modelswap::wire::chunk_key(&"fraud".parse().unwrap(), sha256, index);
        writer.send(0, key.as_bytes(), Some(Bytes::copy_from_slice(chunk)), &[]).unwrap();
    }
    writer.commit().unwrap();
}

fn what_a_killed_publisher_left_is_removed_by_the_next(twin: &dyn Twin) {
    let topic = twin.topic();
    let orphan = number(9.0, 3 * CHUNK_BYTES);
    publish_half(&*topic, &orphan);
    let half = contents(&*topic, "fraud");
    assert_eq!((half.chunks.len(), &half.newest), (1, &None));
    publisher(topic.clone()).publish("fraud", number(1.0, 10), options("1")).unwrap();
    let after = contents(&*topic, "fraud");
    assert!(after.has_whole(&number(1.0, 10)));
    assert_eq!(after.chunks.len(), 1);
    // The same file once more, and the half of it is no hindrance.
    publish_half(&*topic, &orphan);
    publisher(topic.clone()).publish("fraud", orphan.clone(), options("9")).unwrap();
    assert!(contents(&*topic, "fraud").has_whole(&orphan));
}

fn a_later_publisher_fences_an_earlier_one_in_the_middle(twin: &dyn Twin) {
    let topic = twin.topic();
    let later = publisher(topic.clone());
    let taken_over = Mutex::new(false);
    let earlier = publisher(topic.clone()).on_progress(move |progress| {
        let mut taken_over = taken_over.lock().unwrap();
        if progress.step == Step::Upload && progress.done > CHUNK_BYTES as u64 && !*taken_over {
            *taken_over = true;
            later.publish("fraud", number(2.0, 10), options("later")).unwrap();
        }
    });
    let error = earlier.publish("fraud", number(1.0, 5 * CHUNK_BYTES), options("earlier")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    assert!(error.to_string().contains("another publisher of this model took over"), "{error}");
    let contents = contents(&*topic, "fraud");
    assert_eq!(contents.release().version, "later");
    assert_eq!(contents.chunks.len(), 1);
}

fn an_artifact_that_is_published_again_while_it_is_pruned_stays_whole(twin: &dyn Twin) {
    let topic = twin.topic();
    let old = number(1.0, 3 * CHUNK_BYTES);
    let first = publisher(topic.clone());
    first.publish("fraud", old.clone(), options("1")).unwrap();
    first.publish("fraud", number(2.0, 10), options("2")).unwrap();
    // The third publish is about to prune the first artifact when somebody publishes that again.
    let again = publisher(topic.clone());
    let file = old.clone();
    let once = Mutex::new(Some(()));
    let third = publisher(topic.clone()).on_progress(move |progress| {
        if progress.step == Step::Commit && once.lock().unwrap().take().is_some() {
            again.publish("fraud", file.clone(), options("1-again")).unwrap();
        }
    });
    let error = third.publish("fraud", number(3.0, 10), options("3")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced);
    let contents = contents(&*topic, "fraud");
    assert_eq!(contents.release().version, "1-again");
    assert!(contents.has_whole(&old));
}

fn publishing_goes_on_after_the_topic_has_grown(twin: &dyn Twin) {
    let topic = twin.topic();
    let publisher = publisher(topic.clone());
    publisher.publish("fraud", number(1.0, 10), options("1")).unwrap();
    publisher.publish("fraud", number(2.0, 10), options("2")).unwrap();
    twin.grow(5);
    let home = modelswap::wire::partition_of(b"fraud", 5);
    assert_ne!(home, 0, "the model is to move");
    let third = publisher.publish("fraud", number(3.0, 10), options("3")).unwrap();
    assert_eq!((third.position.partition, third.sequence), (home, 3));
    assert_eq!(third.previous.unwrap().version, "2");
    let grown = contents(&*topic, "fraud");
    assert!(grown.has_whole(&number(2.0, 10)) && !grown.has_whole(&number(1.0, 10)));
    publisher.withdraw("fraud").unwrap();
    assert!(contents(&*topic, "fraud").chunks.is_empty());
    assert_eq!(publisher.list().unwrap()[0].state, PublishedState::Withdrawn);
}

fn models_of_one_topic_do_not_touch_each_other(twin: &dyn Twin) {
    let topic = twin.topic();
    let publisher = publisher(topic.clone());
    let same = number(1.0, 10);
    for version in ["1", "2", "3"] {
        publisher.publish("fraud", same.clone(), options(version)).unwrap();
        publisher.publish("churn", same.clone(), options(version)).unwrap();
    }
    publisher.withdraw("fraud").unwrap();
    assert!(contents(&*topic, "churn").has_whole(&same));
    let states: Vec<_> =
        publisher.list().unwrap().into_iter().map(|l| (l.model.to_string(), l.state)).collect();
    let expected = [("churn", PublishedState::Released), ("fraud", PublishedState::Withdrawn)];
    assert_eq!(states, expected.map(|(model, state)| (model.to_owned(), state)));
}

fn a_publish_that_is_stopped_changes_nothing_and_holds_nobody_up(twin: &dyn Twin) {
    let topic = twin.topic();
    publisher(topic.clone()).publish("fraud", number(1.0, 10), options("1")).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let (asked, told) = (Arc::clone(&stop), Arc::clone(&stop));
    let stopped =
        publisher(topic.clone()).stop_when(move || asked.load(Ordering::Relaxed)).on_progress(move |p| {
            // In the middle of an open transaction.
            told.fetch_or(p.step == Step::Upload && p.done > CHUNK_BYTES as u64, Ordering::Relaxed);
        });
    let file = number(2.0, 5 * CHUNK_BYTES);
    let error = stopped.publish("fraud", file.clone(), options("2")).unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Cancelled, "stopped as asked"));
    let left = contents(&*topic, "fraud");
    assert_eq!((left.release().version.as_str(), left.has_whole(&file)), ("1", false));
    // A transaction that was left open would hide this for as long as the broker waits for its end.
    commit(&*topic, &[(0, "marker", Some("!"))]);
    assert!(contents(&*topic, "fraud").records.iter().any(|record| &*record.key == b"marker"));
    publisher(topic.clone()).publish("fraud", file.clone(), options("2")).unwrap();
    assert!(contents(&*topic, "fraud").has_whole(&file));
}
