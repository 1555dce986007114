//! Three consumer processes in one group, and a swap in the middle of the stream.

use std::collections::BTreeMap;
use std::sync::Arc;

use modelswap::publish::PublishOptions;
use modelswap::topic::{Topic as _, TopicReader, TopicSettings};

use crate::broker;
use crate::children::Process;
use crate::numbers::{number, publisher};
use crate::twins::{Kafka, client, unique_name, value};

const EVENTS: usize = 3000;

#[test]
fn three_processes_score_every_event_once_across_a_swap() {
    let models = Kafka::new(1);
    let publisher = publisher(Arc::new(models.topic.clone()));
    let publish = |score: f32, version: &str| {
        publisher.publish("fraud", number(score, 1000), PublishOptions::default().version(version)).unwrap();
    };
    publish(1.0, "1");
    let [input, output] = [(); 2].map(|()| {
        let topic = client(broker::shared(), &unique_name());
        let mut settings = TopicSettings::default();
        settings.partitions = 3;
        topic.create(&settings).unwrap();
        topic
    });
    let environment = [
        ("BOOTSTRAP", broker::shared()),
        ("TOPIC", models.topic.name()),
        ("INPUT", input.name()),
        ("OUTPUT", output.name()),
        ("GROUP", input.name()),
    ];
    let mut processes = [(); 3].map(|()| Process::start("consumes_and_scores", &environment));
    for process in &mut processes {
        process.wait_for("live 1");
    }
    // The last one to join has its partition only when all have; a rebalance later would end a
    // transaction that is under way.
    for process in &mut processes {
        process.wait_for("assigned 1");
    }
    let mut scored = output.reader().unwrap();
    let mut seen = Seen::default();
    let mut writer = input.writer(input.name()).unwrap();
    let mut send = |events: std::ops::Range<usize>| {
        writer.begin().unwrap();
        for event in events {
            let partition = i32::try_from(event % 3).unwrap();
            let text = event.to_string();
            writer.send(partition, text.as_bytes(), Some(text.clone().into()), &[]).unwrap();
        }
        writer.commit().unwrap();
    };
    send(0..EVENTS / 3);
    seen.read(&mut *scored, 100);
    // In the middle of the stream.
    publish(2.0, "2");
    send(EVENTS / 3..2 * EVENTS / 3);
    for process in &mut processes {
        process.wait_for("live 2");
    }
    send(2 * EVENTS / 3..EVENTS);
    seen.read(&mut *scored, EVENTS);
    for process in processes {
        process.finish();
    }
    assert_eq!(seen.events.len(), EVENTS);
    assert!(seen.events.keys().copied().eq(0..EVENTS), "an event is missing");
    for version in ["1", "2"] {
        assert!(seen.events.values().any(|v| v == version), "nothing was scored by version {version}");
    }
    // What came after every process had the new version was scored by it.
    assert!(seen.events.range(2 * EVENTS / 3..).all(|(_, version)| version == "2"));
}

/// The events that were scored, and by which version.
#[derive(Default)]
struct Seen {
    events: BTreeMap<usize, String>,
}

impl Seen {
    fn read(&mut self, reader: &mut dyn TopicReader, count: usize) {
        while self.events.len() < count {
            let record = loop {
                match crate::twins::next_but_outages(reader) {
                    modelswap::topic::TopicEvent::Record(record) => break record,
                    modelswap::topic::TopicEvent::CaughtUp => {}
                    event => panic!("unexpected {event:?}"),
                }
            };
            let event: usize = std::str::from_utf8(&record.key).unwrap().parse().unwrap();
            let header = |name: &str| {
                let header = record.headers.iter().find(|h| h.name.ends_with(name)).unwrap();
                std::str::from_utf8(&header.value).unwrap().to_owned()
            };
            let version = header("version");
            // The score is that of the version that the header names.
            assert_eq!(value(&record), version);
            assert!(self.events.insert(event, version).is_none(), "event {event} was scored twice");
        }
    }
}
