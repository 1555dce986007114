//! A broker at the end of a line: one so long that each request takes longer than a reader waits between
//! two looks at whether it is to stop, and one that carries little.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use modelswap::topic::{KafkaTopic, Topic as _, TopicSettings};
use modelswap::wire::CHUNK_BYTES;

use crate::broker::Broker;
use crate::numbers::{number, publisher};
use crate::subscribers::{live, publish, score, subscribe};
use crate::twins::client;

/// One way; there and back as between two continents.
const LATENCY: Duration = Duration::from_millis(75);

#[tokio::test]
async fn a_broker_that_is_far_away_is_published_to_and_followed() {
    let broker = Broker::start();
    let topic = topic_over(&broker, Line { latency: LATENCY, bytes_per_ms: 1 << 20 });
    topic.create(&TopicSettings::default()).unwrap();
    let (early, followed) = subscribe(&topic);
    for wanted in [1.0, 2.0] {
        let version = wanted.to_string();
        publish(&topic, number(wanted, 0), &version);
        live(&early, &version).await;
        assert_eq!(score(&followed), wanted);
    }
    assert_eq!(publisher(Arc::new(topic.clone())).rollback("fraud", None).unwrap().version, "1");
    let (late, read) = subscribe(&topic);
    live(&early, "1").await;
    live(&late, "1").await;
    assert_eq!([score(&followed), score(&read)], [1.0, 1.0]);
    early.shutdown().await;
    late.shutdown().await;
}

/// Eight megabytes in eight seconds, where a transaction may take five.
#[test]
fn a_line_that_carries_little_is_given_no_more_than_a_transaction_has_time_for() {
    let broker = Broker::start();
    let line = Line { latency: Duration::ZERO, bytes_per_ms: 1 << 10 };
    let topic = topic_over(&broker, line).config("transaction.timeout.ms", "5000");
    topic.create(&TopicSettings::default()).unwrap();
    let release = publish(&topic, number(1.0, 8 << 20), "1");
    assert_eq!(release.artifact.bytes, 8 << 20);
}

/// A chunk takes longer than an outage is waited for.
#[tokio::test]
async fn a_line_on_which_a_chunk_takes_long_is_no_outage() {
    let broker = Broker::start();
    let line = topic_over(&broker, Line { latency: Duration::ZERO, bytes_per_ms: 52 });
    let direct = client(broker.bootstrap(), line.name());
    direct.create(&TopicSettings::default()).unwrap();
    publish(&direct, number(1.0, CHUNK_BYTES), "1");
    let (models, scorer) = subscribe(&line);
    live(&models, "1").await;
    assert_eq!(score(&scorer), 1.0);
}

#[derive(Clone, Copy)]
struct Line {
    /// One way.
    latency: Duration,
    bytes_per_ms: u32,
}

/// A topic on a broker at the end of a line.
fn topic_over(broker: &Broker, line: Line) -> KafkaTopic {
    let [listener, port] = broker.distant();
    let clients = TcpListener::bind(("127.0.0.1", port)).unwrap();
    std::thread::spawn(move || {
        for client in clients.incoming().map_while(Result::ok) {
            // The broker opens one listener after the other; a client that is sent away comes again.
            let Ok(server) = TcpStream::connect(("127.0.0.1", listener)) else { continue };
            for stream in [&client, &server] {
                stream.set_nodelay(true).unwrap();
            }
            let (client_too, server_too) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            pass_on(client, server_too, line);
            pass_on(server, client_too, line);
        }
    });
    KafkaTopic::new("models").config("bootstrap.servers", format!("127.0.0.1:{port}"))
}

/// Passes on what comes, each byte when the line has carried it.
fn pass_on(mut from: TcpStream, mut to: TcpStream, line: Line) {
    let (sender, under_way) = sync_channel::<(Instant, Vec<u8>)>(64);
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 14];
        let mut free = Instant::now();
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            free = free.max(Instant::now())
                + Duration::from_millis(1) * u32::try_from(read).unwrap() / line.bytes_per_ms;
            if sender.send((free + line.latency, buffer[..read].to_vec())).is_err() {
                return;
            }
        }
    });
    std::thread::spawn(move || {
        for (arrives, bytes) in under_way {
            std::thread::sleep(arrives.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
}
