//! A consumer that reads events from real Kafka, scores and produces, beside the same consumer
//! without scoring.

use std::time::{Duration, Instant};

use modelswap::{Scorer, TensorView};
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
    let width = work.width();
    let mut out = vec![0.0_f32; work.scores().0];
    let mut rates = [Vec::new(), Vec::new()];
    for _ in 0..=TURNS {
        rates[0].push(consume(&events, &scores, |payload| payload[..8].to_vec()));
        rates[1].push(consume(&events, &scores, |payload| {
            let mut row = [0.0_f32; 30];
            for (value, bytes) in row.iter_mut().zip(payload.as_chunks::<4>().0) {
                *value = f32::from_le_bytes(*bytes);
            }
            served.scorer.predict_into(&TensorView::new(&[1, width], &row).unwrap(), &mut out).unwrap();
            out.iter().flat_map(|v| v.to_le_bytes()).collect()
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

/// Reads all events, makes an answer of each, produces it, and tells the events a second.
fn consume(events: &str, scores: &str, mut answer: impl FnMut(&[u8]) -> Vec<u8>) -> f64 {
    let consumer: BaseConsumer = config().set("group.id", "bench").create().unwrap();
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(events, 0, Offset::Beginning).unwrap();
    consumer.assign(&assignment).unwrap();
    let producer = producer();
    let mut start = None;
    let mut read = 0;
    while read < EVENTS {
        let message = consumer.poll(LONGEST).expect("an event").unwrap();
        // Connecting is no part of it.
        start.get_or_insert_with(Instant::now);
        produce(&producer, scores, &answer(message.payload().unwrap_or_default()));
        read += 1;
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
