//! What a reader does when the topic cannot be read, on real Kafka.

use std::net::TcpListener;
use std::time::Instant;

use modelswap::ErrorKind;
use modelswap::publish::{PublishOptions, Publisher};
use modelswap::topic::{Topic, TopicError, TopicEvent, TopicReader, TopicSettings};

use crate::broker::{self, Broker};
use crate::foreign;
use crate::numbers::number;
use crate::twins::{
    Kafka, PATIENCE, Twin, client, commit, next, next_but_outages, next_record, read_to_end, unique_name,
    value,
};

/// The next event, which has to say that the topic cannot be read.
fn unavailable(reader: &mut dyn TopicReader) -> TopicError {
    match next(reader) {
        TopicEvent::Unavailable(error) => error,
        event => panic!("expected an outage, found {event:?}"),
    }
}

#[test]
fn a_topic_that_is_not_there_yet_is_read_once_it_is() {
    let topic = client(broker::shared(), &unique_name());
    let mut reader = topic.reader().unwrap();
    assert_eq!(unavailable(&mut *reader), TopicError::Missing { topic: topic.name().into() });
    topic.create(&TopicSettings::default()).unwrap();
    assert_eq!(next(&mut *reader), TopicEvent::Available);
    assert_eq!(next(&mut *reader), TopicEvent::CaughtUp);
    commit(&topic, &[(0, "a", Some("1"))]);
    assert_eq!(value(&next_record(&mut *reader)), "1");
}

#[test]
fn a_created_topic_is_fit_for_models_and_is_not_created_twice() {
    let topic = client(broker::shared(), &unique_name());
    let mut settings = TopicSettings::default();
    settings.partitions = 2;
    topic.create(&settings).unwrap();
    let error = topic.create(&settings).unwrap_err().to_string();
    assert!(error.contains("exists already"), "{error}");
    let description = topic.describe().unwrap();
    assert_eq!((description.partitions, description.replication), (2, 1));
    assert_eq!(description.config["cleanup.policy"], "compact");
    assert_eq!(description.problems(), [""; 0]);
}

#[test]
fn nothing_listens_at_the_address() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let topic = client(&format!("127.0.0.1:{port}"), "models");
    let mut reader = topic.reader().unwrap();
    let error = unavailable(&mut *reader);
    assert!(matches!(&error, TopicError::Unavailable { reason } if reason.contains("refused")), "{error}");
}

#[test]
fn a_reader_outlives_its_broker_and_starts_before_it() {
    let mut broker = Broker::start();
    let twin = Kafka::on(broker.bootstrap(), 2);
    commit(&twin.topic, &[(0, "a", Some("1")), (1, "b", Some("2"))]);
    let mut early = twin.topic.reader().unwrap();
    assert_eq!(read_to_end(&mut *early).len(), 2);
    broker.kill();
    assert!(matches!(unavailable(&mut *early), TopicError::Unavailable { .. }));
    let mut late = twin.topic.reader().unwrap();
    assert!(matches!(unavailable(&mut *late), TopicError::Unavailable { .. }));
    broker.resume();
    assert_eq!(next(&mut *early), TopicEvent::Available);
    assert_eq!(next(&mut *late), TopicEvent::Available);
    assert_eq!(read_to_end(&mut *late).len(), 2);
    commit(&twin.topic, &[(1, "b", Some("3"))]);
    // Neither a record twice nor one that is missing.
    assert_eq!(value(&next_record(&mut *early)), "3");
    assert_eq!(value(&next_record(&mut *late)), "3");
}

#[test]
fn a_topic_made_anew_is_read_where_the_old_one_had_changed_its_leader() {
    let mut broker = Broker::start();
    let twin = Kafka::on(broker.bootstrap(), 1);
    commit(&twin.topic, &[(0, "a", Some("old"))]);
    let mut reader = twin.topic.reader().unwrap();
    assert_eq!(read_to_end(&mut *reader).len(), 1);
    // With every start of the broker the epoch of the leader grows; in a new topic it is 0 again.
    for _ in 0..2 {
        broker.kill();
        assert!(matches!(unavailable(&mut *reader), TopicError::Unavailable { .. }));
        broker.resume();
        assert_eq!(next(&mut *reader), TopicEvent::Available);
    }
    commit(&twin.topic, &[(0, "a", Some("older"))]);
    assert_eq!(value(&next_record(&mut *reader)), "older");
    twin.recreate(1);
    let texts: Vec<String> = (0..9).map(|i| i.to_string()).collect();
    commit(&twin.topic, &texts.iter().map(|t| (0, "a", Some(t.as_str()))).collect::<Vec<_>>());
    let mut values = Vec::new();
    while values != texts {
        match next_but_outages(&mut *reader) {
            TopicEvent::Restarted => values.clear(),
            TopicEvent::Record(record) => values.push(value(&record).to_owned()),
            TopicEvent::Unavailable(TopicError::Missing { .. }) | TopicEvent::CaughtUp => {}
            event => panic!("unexpected {event:?}"),
        }
    }
}

#[test]
fn a_fetch_without_a_broker_fails_in_bounded_time() {
    let mut broker = Broker::start();
    let twin = Kafka::on(broker.bootstrap(), 1);
    let positions = commit(&twin.topic, &[(0, "a", Some("1"))]);
    let mut fetcher = twin.topic.fetcher().unwrap();
    broker.kill();
    let error = fetcher.fetch(&positions, &mut |_| panic!("nobody can have sent this")).unwrap_err();
    assert!(matches!(error, TopicError::Unavailable { .. }), "{error}");
    broker.resume();
    // What a broker was told right before it was killed may be gone, or stay hidden for a while: the
    // fetch is of what is written after the outage, and tried again, as the loader does.
    let positions = commit(&twin.topic, &[(0, "a", Some("2"))]);
    let start = Instant::now();
    let values = loop {
        let mut values = Vec::new();
        let mut deliver = |record| {
            values.push(value(&record).to_owned());
            std::ops::ControlFlow::Continue(())
        };
        match fetcher.fetch(&positions, &mut deliver) {
            Err(TopicError::Unavailable { .. }) if start.elapsed() < PATIENCE => {}
            fetched => break fetched.map(|()| values),
        }
    };
    assert_eq!(values.unwrap(), ["2"]);
}

#[test]
fn a_missing_permission_is_told_and_the_topic_read_once_it_is_given() {
    let twin = Kafka::new(1);
    commit(&twin.topic, &[(0, "a", Some("1"))]);
    // A permission for somebody else takes it from everybody who has none.
    foreign::acl(broker::shared(), "create", twin.topic.name(), "User:nobody");
    let mut reader = twin.topic.reader().unwrap();
    assert!(matches!(unavailable(&mut *reader), TopicError::Denied { .. }));
    let publisher = Publisher::new(twin.topic()).loader(std::sync::Arc::new(crate::numbers::NumberLoader));
    let error = publisher.publish("fraud", number(1.0, 10), PublishOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    foreign::acl(broker::shared(), "delete", twin.topic.name(), "User:nobody");
    assert_eq!(next(&mut *reader), TopicEvent::Available);
    assert_eq!(value(&next_record(&mut *reader)), "1");
}

#[test]
fn a_permission_to_look_but_not_to_read_is_told_apart_from_an_empty_topic() {
    let twin = Kafka::new(1);
    commit(&twin.topic, &[(0, "a", Some("1"))]);
    foreign::acl(broker::shared(), "create-describe", twin.topic.name(), "User:ANONYMOUS");
    let mut reader = twin.topic.reader().unwrap();
    assert!(matches!(unavailable(&mut *reader), TopicError::Denied { .. }));
    foreign::acl(broker::shared(), "delete", twin.topic.name(), "User:ANONYMOUS");
    assert_eq!(next(&mut *reader), TopicEvent::Available);
    assert_eq!(value(&next_record(&mut *reader)), "1");
}

#[test]
fn a_record_larger_than_the_client_takes_is_told_and_does_not_hide_the_end() {
    let twin = Kafka::new(3);
    let large = "x".repeat(300_000);
    commit(&twin.topic, &[(0, "a", Some("small")), (2, "c", Some("small"))]);
    let stuck = commit(&twin.topic, &[(1, "b", Some(&large))])[0];
    let mut reader = twin
        .topic
        .clone()
        .config("message.max.bytes", "100000")
        .config("fetch.max.bytes", "100000")
        .config("receive.message.max.bytes", "200000")
        .reader()
        .unwrap();
    let (mut told, mut small, mut caught_up) = (None, 0, false);
    while told.is_none() || small < 2 || !caught_up {
        match next(&mut *reader) {
            TopicEvent::Oversized(oversized) => told = Some(oversized),
            TopicEvent::Record(record) => small += usize::from(value(&record) == "small"),
            TopicEvent::CaughtUp => caught_up = true,
            // Every attempt ends the connection to the only broker.
            TopicEvent::Unavailable(TopicError::Unavailable { .. }) | TopicEvent::Available => {}
            event => panic!("unexpected {event:?}"),
        }
    }
    let told = told.unwrap();
    assert_eq!((told.position, told.limit, told.blocks_partition), (stuck, 200_000, true));
    assert!(told.bytes.unwrap() > 300_000, "{told}");
    // The other partitions go on.
    commit(&twin.topic, &[(0, "a", Some("later"))]);
    assert_eq!(value(&next_record(&mut *reader)), "later");
}
