//! What every topic must do, checked on both twins.

use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use modelswap::Position;
use modelswap::topic::{TopicError, TopicEvent};
use modelswap::wire::Header;

use crate::twins::{Kafka, Memory, Twin, commit, fetch, next_but_outages, next_record, read_to_end, value};

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
    a_reader_reads_everything_and_then_follows(3),
    an_empty_topic_is_caught_up_at_once(2),
    a_record_comes_back_as_it_was_written(1),
    values_are_left_out_where_they_are_not_wanted(1),
    what_is_aborted_or_not_committed_is_never_read(1),
    a_later_writer_fences_an_earlier_one(1),
    a_dropped_writer_leaves_nothing_behind(1),
    a_fetcher_reads_what_is_still_there_in_order(2),
    a_fetch_ends_when_the_caller_has_enough(1),
    compaction_keeps_the_newest_record_of_each_key(1),
    new_partitions_are_noticed_and_read(1),
    a_topic_that_was_created_anew_is_read_again(1),
    a_record_to_a_partition_that_is_not_there_fails(1),
}

fn a_reader_reads_everything_and_then_follows(twin: &dyn Twin) {
    let topic = twin.topic();
    commit(&*topic, &[(0, "a", Some("1")), (1, "b", Some("2")), (2, "c", Some("3")), (0, "a", Some("4"))]);
    let mut reader = topic.reader().unwrap();
    let records = read_to_end(&mut *reader);
    let mut values: Vec<_> = records.iter().map(value).collect();
    assert!(values.iter().position(|v| *v == "1") < values.iter().position(|v| *v == "4"));
    values.sort_unstable();
    assert_eq!(values, ["1", "2", "3", "4"]);
    assert!(!matches!(reader.next(Duration::from_millis(1)), TopicEvent::Record(_)));

    let positions = commit(&*topic, &[(1, "b", Some("5"))]);
    let record = next_record(&mut *reader);
    assert_eq!((value(&record), vec![record.position]), ("5", positions));
}

fn an_empty_topic_is_caught_up_at_once(twin: &dyn Twin) {
    let mut reader = twin.topic().reader().unwrap();
    assert_eq!(next_but_outages(&mut *reader), TopicEvent::CaughtUp);
}

fn a_record_comes_back_as_it_was_written(twin: &dyn Twin) {
    let topic = twin.topic();
    let header = |name: &str, value: &'static [u8]| Header { name: name.into(), value: value.into() };
    let headers = [header("sha256", b"ab"), header("empty", b""), header("sha256", b"\xff\0")];
    let mut writer = topic.writer("test").unwrap();
    assert_eq!(writer.partitions(), Ok(1));
    writer.begin().unwrap();
    writer.send(0, b"bytes", Some(Bytes::from_static(b"\0\xff{")), &headers).unwrap();
    writer.send(0, b"empty", Some(Bytes::new()), &[]).unwrap();
    writer.send(0, b"gone", None, &[]).unwrap();
    let positions = writer.commit().unwrap();
    let records = read_to_end(&mut *topic.reader().unwrap());
    assert_eq!(records.iter().map(|r| r.position).collect::<Vec<_>>(), positions);
    let values: Vec<_> = records.iter().map(|r| (&*r.key, r.value.as_deref())).collect();
    assert_eq!(values, [(&b"bytes"[..], Some(&b"\0\xff{"[..])), (b"empty", Some(b"")), (b"gone", None)]);
    assert_eq!(records[0].headers, headers);
    assert!(records.iter().all(|r| r.timestamp_ms > 1_600_000_000_000));
    assert_eq!(fetch(&*topic, &positions), records);
}

fn values_are_left_out_where_they_are_not_wanted(twin: &dyn Twin) {
    let topic = twin.topic();
    commit(&*topic, &[(0, "large", Some("1")), (0, "small", Some("2")), (0, "large", None)]);
    let mut reader = topic.reader().unwrap();
    reader.omit_values(|key| key == b"large");
    let records = read_to_end(&mut *reader);
    let values: Vec<_> = records.iter().map(|r| r.value.as_deref()).collect();
    assert_eq!(values, [Some(&b""[..]), Some(b"2"), None]);

    commit(&*topic, &[(0, "large", Some("3"))]);
    reader.omit_values(|_| false);
    assert_eq!(value(&next_record(&mut *reader)), "3");
}

fn what_is_aborted_or_not_committed_is_never_read(twin: &dyn Twin) {
    let topic = twin.topic();
    let mut reader = topic.reader().unwrap();
    assert_eq!(next_but_outages(&mut *reader), TopicEvent::CaughtUp);
    let mut writer = topic.writer("test").unwrap();
    writer.begin().unwrap();
    writer.send(0, b"a", Some("aborted".into()), &[]).unwrap();
    writer.abort().unwrap();
    writer.begin().unwrap();
    writer.send(0, b"a", Some("open".into()), &[]).unwrap();
    assert!(!matches!(reader.next(Duration::from_millis(300)), TopicEvent::Record(_)));
    writer.commit().unwrap();
    assert_eq!(value(&next_record(&mut *reader)), "open");
}

fn a_later_writer_fences_an_earlier_one(twin: &dyn Twin) {
    let topic = twin.topic();
    let mut earlier = topic.writer("models-fraud").unwrap();
    earlier.begin().unwrap();
    earlier.send(0, b"a", Some("earlier".into()), &[]).unwrap();
    let mut later = topic.writer("models-fraud").unwrap();
    let error = earlier.commit().unwrap_err();
    assert!(matches!(&error, TopicError::Fenced { transactional_id } if transactional_id == "models-fraud"));
    assert!(error.to_string().contains("another publisher of this model took over"), "{error}");
    later.begin().unwrap();
    later.send(0, b"a", Some("later".into()), &[]).unwrap();
    later.commit().unwrap();
    assert!(matches!(earlier.begin(), Err(TopicError::Fenced { .. })));
    let records = read_to_end(&mut *topic.reader().unwrap());
    assert_eq!(records.iter().map(value).collect::<Vec<_>>(), ["later"]);
}

fn a_dropped_writer_leaves_nothing_behind(twin: &dyn Twin) {
    let topic = twin.topic();
    let mut writer = topic.writer("one").unwrap();
    writer.begin().unwrap();
    writer.send(0, b"a", Some("dropped".into()), &[]).unwrap();
    drop(writer);
    // Behind an open transaction nothing could be read for a minute.
    commit(&*topic, &[(0, "a", Some("next"))]);
    assert_eq!(value(&next_record(&mut *topic.reader().unwrap())), "next");
}

fn a_fetcher_reads_what_is_still_there_in_order(twin: &dyn Twin) {
    let topic = twin.topic();
    let texts: Vec<String> = (0..60).map(|i| i.to_string()).collect();
    let records: Vec<_> = texts.iter().map(|t| (i32::from(t.len() == 1), "key", Some(t.as_str()))).collect();
    let positions = commit(&*topic, &records);
    let wanted = [positions[50], positions[12], positions[3], positions[11], positions[12]];
    let nowhere = Position { partition: 0, offset: 1_000_000 };
    let fetched = fetch(&*topic, &[&wanted[..], &[nowhere]].concat());
    assert_eq!(fetched.iter().map(value).collect::<Vec<_>>(), ["11", "12", "50", "3"]);
    assert_eq!(fetch(&*topic, &[]), []);
}

fn a_fetch_ends_when_the_caller_has_enough(twin: &dyn Twin) {
    let topic = twin.topic();
    let positions = commit(&*topic, &[(0, "a", Some("1")), (0, "b", Some("2"))]);
    let mut fetcher = topic.fetcher().unwrap();
    for _ in 0..2 {
        let mut seen = 0;
        let mut first_only = |_| {
            seen += 1;
            ControlFlow::Break(())
        };
        fetcher.fetch(&positions, &mut first_only).unwrap();
        assert_eq!(seen, 1);
    }
}

fn compaction_keeps_the_newest_record_of_each_key(twin: &dyn Twin) {
    let topic = twin.topic();
    let stale = commit(&*topic, &[(0, "a", Some("1")), (0, "a", Some("2")), (0, "gone", Some("3"))]);
    let kept = commit(&*topic, &[(0, "b", Some("4")), (0, "a", Some("5"))]);
    let tombstone = commit(&*topic, &[(0, "gone", None)]);
    twin.compact_away(&[&stale[..], &tombstone].concat());
    let records = read_to_end(&mut *topic.reader().unwrap());
    let values: Vec<_> = records.iter().filter(|r| &*r.key != b"compact").map(value).collect();
    assert_eq!(values, ["4", "5"]);
    // What is gone is passed over, what is kept has its position for ever.
    let fetched = fetch(&*topic, &[&stale[..], &kept].concat());
    assert_eq!(fetched.iter().map(|r| r.position).collect::<Vec<_>>(), kept);
}

fn new_partitions_are_noticed_and_read(twin: &dyn Twin) {
    let topic = twin.topic();
    commit(&*topic, &[(0, "a", Some("1"))]);
    let mut reader = topic.reader().unwrap();
    assert_eq!(read_to_end(&mut *reader).len(), 1);
    twin.grow(3);
    // Caught up again only once the new partitions have been read.
    assert_eq!(next_but_outages(&mut *reader), TopicEvent::CaughtUp);
    commit(&*topic, &[(2, "c", Some("2"))]);
    assert_eq!(value(&next_record(&mut *reader)), "2");
    commit(&*topic, &[(0, "a", Some("3"))]);
    assert_eq!(value(&next_record(&mut *reader)), "3");
}

fn a_topic_that_was_created_anew_is_read_again(twin: &dyn Twin) {
    let topic = twin.topic();
    commit(&*topic, &[(0, "a", Some("old")), (0, "b", Some("old"))]);
    let mut reader = topic.reader().unwrap();
    assert_eq!(read_to_end(&mut *reader).len(), 2);
    twin.recreate(1);
    let texts: Vec<String> = (0..9).map(|i| i.to_string()).collect();
    // More than were read before: only the identity of the topic tells them apart.
    let records: Vec<_> = texts.iter().map(|t| (0, "a", Some(t.as_str()))).collect();
    commit(&*topic, &records);
    let mut values = Vec::new();
    let mut restarted = false;
    while values.len() < 9 {
        match next_but_outages(&mut *reader) {
            TopicEvent::Restarted => (restarted, values) = (true, Vec::new()),
            TopicEvent::Record(record) => values.push(value(&record).to_owned()),
            // A reader that looks in between sees that there is no topic.
            TopicEvent::Unavailable(TopicError::Missing { .. }) | TopicEvent::CaughtUp => {}
            event => panic!("unexpected {event:?}"),
        }
    }
    assert!(restarted);
    assert_eq!(values, texts);
}

fn a_record_to_a_partition_that_is_not_there_fails(twin: &dyn Twin) {
    let topic = twin.topic();
    let mut writer = topic.writer("test").unwrap();
    writer.begin().unwrap();
    let sent = writer.send(7, b"a", Some("1".into()), &[]);
    let committed = sent.and_then(|()| writer.commit().map(|_| ()));
    assert!(committed.is_err());
    writer.abort().unwrap();
    commit(&*topic, &[(0, "a", Some("2"))]);
    assert_eq!(value(&next_record(&mut *topic.reader().unwrap())), "2");
}
