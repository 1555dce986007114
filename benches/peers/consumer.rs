//! A consumer that reads events from real Kafka, scores and produces, beside the same consumer
//! without scoring.

use std::time::{Duration, Instant};

use modelswap::{Rows, Scorer};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Message, Offset, TopicPartitionList};

use crate::support::{Served, Work};
use crate::turns::{Figure, quantile};
use crate::{broker, table};

const EVENTS: usize = 200_000;
/// The events that are scored together; they divide [`EVENTS`].
const POLL: usize = 32;
const TURNS: usize = 7;
const LONGEST: Duration = Duration::from_mins(2);

/// Both consumers, in turns, over the same events.
pub(crate) fn consumer() -> Vec<Figure> {
    println!();
    let work = Work::read("boosting");
    let served = Served::start(&work);
    let events = format!("bench-events-{}", std::process::id());
    let scores = format!("bench-scores-{}", std::process::id());
    create(&[&events, &scores]);
    fill(&events, &work);
    let (width, columns) = (work.width(), work.scores().0);
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..=TURNS {
        rates[0].push(consume(&events, &scores, columns, |_, _| {}));
        rates[1].push(consume(&events, &scores, columns, |rows, scores| {
            served.scorer.predict_into(&Rows::new(rows, width).unwrap(), scores).unwrap();
        }));
    }
    let names = ["without scoring", "with scoring"];
    let mut figures = Vec::new();
    for (name, rates) in names.into_iter().zip(&mut rates) {
        // The first turn finds a broker that is not warm yet.
        rates.remove(0);
        rates.sort_by(f64::total_cmp);
        figures.push(Figure {
            work: "consumer, boosting".to_owned(),
            batch: 1,
            contender: name.to_owned(),
            p50_ns: 1e9 / quantile(rates, 0.5),
            p99_ns: 1e9 / quantile(rates, 0.01),
            rows_per_s: quantile(rates, 0.5),
        });
    }
    let [without, with] = rates.map(|rates| quantile(&rates, 0.5));
    table::line(
        "events a second read, scored and produced over the same without scoring",
        format!("{with:.0} / {without:.0} = {:.3}", with / without),
        "0.9",
    );
    figures
}

/// Reads all events, scores those of each poll together, produces an answer for each, and tells the
/// events a second.
fn consume(events: &str, topic: &str, columns: usize, score: impl Fn(&[f32], &mut [f32])) -> f64 {
    // By default the client stops fetching for a second whenever 100,000 events wait, so that of two
    // consumers the slower one would sleep, and not work, for most of its time.
    let consumer: BaseConsumer =
        config().set("group.id", "bench").set("fetch.queue.backoff.ms", "5").create().unwrap();
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(events, 0, Offset::Beginning).unwrap();
    consumer.assign(&assignment).unwrap();
    let producer = producer();
    let mut start = None;
    let mut read = 0;
    let (mut rows, mut scores) = (Vec::new(), vec![0.0; POLL * columns]);
    while read < EVENTS {
        rows.clear();
        for _ in 0..POLL {
            let message = consumer.poll(LONGEST).expect("an event").unwrap();
            // Connecting is no part of it.
            start.get_or_insert_with(Instant::now);
            let values = message.payload().unwrap_or_default().as_chunks::<4>().0;
            rows.extend(values.iter().map(|bytes| f32::from_le_bytes(*bytes)));
        }
        score(&rows, &mut scores);
        for answer in scores.chunks_exact(columns) {
            let bytes: Vec<u8> = answer.iter().flat_map(|value| value.to_le_bytes()).collect();
            produce(&producer, topic, &bytes);
        }
        read += POLL;
    }
    producer.flush(LONGEST).unwrap();
    EVENTS as f64 / start.map_or(f64::NAN, |s| s.elapsed().as_secs_f64())
}

fn fill(topic: &str, work: &Work) {
    let producer = producer();
    let rows = work.batches(1);
    for index in 0..EVENTS {
        let bytes: Vec<u8> = rows[index % rows.len()].iter().flat_map(|v| v.to_le_bytes()).collect();
        produce(&producer, topic, &bytes);
    }
    producer.flush(LONGEST).unwrap();
}

fn produce(producer: &BaseProducer, topic: &str, payload: &[u8]) {
    let start = Instant::now();
    let mut record = BaseRecord::<(), [u8]>::to(topic).payload(payload);
    while let Err((error, back)) = producer.send(record) {
        let full = KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull);
        assert!(error == full && start.elapsed() < LONGEST, "{error}");
        producer.poll(Duration::from_millis(10));
        record = back;
    }
    producer.poll(Duration::ZERO);
}

fn producer() -> BaseProducer {
    config().set("linger.ms", "5").create().unwrap()
}

fn create(topics: &[&str]) {
    let admin: AdminClient<DefaultClientContext> = config().create().unwrap();
    let topics: Vec<_> = topics.iter().map(|t| NewTopic::new(t, 1, TopicReplication::Fixed(1))).collect();
    let created = crate::support::wait(admin.create_topics(&topics, &AdminOptions::new())).unwrap();
    created.into_iter().for_each(|topic| drop(topic.unwrap()));
}

fn config() -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker::shared());
    config
}
