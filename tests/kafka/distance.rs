//! A broker that is far away: each request takes longer than a reader waits between two looks at
//! whether it is to stop.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use modelswap::publish::PublishOptions;
use modelswap::topic::{KafkaTopic, TopicSettings};
use modelswap::{Models, Scorer as _};

use crate::broker::Broker;
use crate::numbers::{NumberLoader, number, publisher};
use crate::twins::PATIENCE;

/// One way; there and back as between two continents.
const LATENCY: Duration = Duration::from_millis(75);

#[test]
fn a_broker_that_is_far_away_is_published_to_and_followed() {
    let broker = Broker::start();
    let [listener, line] = broker.distant();
    lay_line(listener, line);
    let topic = KafkaTopic::new("models").config("bootstrap.servers", format!("127.0.0.1:{line}"));
    topic.create(&TopicSettings::default()).unwrap();
    let subscribe = || {
        let subscription = Models::subscribe_to(Arc::new(topic.clone())).model("fraud");
        subscription.loader(Arc::new(NumberLoader)).start().unwrap()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let scores = |models: &Models, version: &str| {
        let mut watch = models.watch_status();
        let live = watch.wait_for(|s| s.live_version("fraud") == Some(version));
        runtime.block_on(async { tokio::time::timeout(PATIENCE, live).await }).unwrap().unwrap();
        models.scorer("fraud").unwrap().predict(&[0.0_f32]).unwrap().values()[0]
    };
    let early = subscribe();
    let publisher = publisher(Arc::new(topic.clone()));
    for score in [1.0, 2.0] {
        let version = score.to_string();
        let options = PublishOptions::default().version(version.as_str());
        publisher.publish("fraud", number(score, 0), options).unwrap();
        assert_eq!(scores(&early, &version), score);
    }
    assert_eq!(publisher.rollback("fraud", None).unwrap().version, "1");
    let late = subscribe();
    assert_eq!([scores(&early, "1"), scores(&late, "1")], [1.0, 1.0]);
    runtime.block_on(early.shutdown());
    runtime.block_on(late.shutdown());
}

/// Passes on what comes at one port to another one and back, each byte after [`LATENCY`].
fn lay_line(to: u16, at: u16) {
    let clients = TcpListener::bind(("127.0.0.1", at)).unwrap();
    std::thread::spawn(move || {
        for client in clients.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect(("127.0.0.1", to)) else { return };
            for stream in [&client, &server] {
                stream.set_nodelay(true).unwrap();
            }
            let (client_too, server_too) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            pass_on(client, server_too);
            pass_on(server, client_too);
        }
    });
}

fn pass_on(mut from: TcpStream, mut to: TcpStream) {
    let (sender, under_way) = channel::<(Instant, Vec<u8>)>();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(read @ 1..) = from.read(&mut buffer) {
            if sender.send((Instant::now() + LATENCY, buffer[..read].to_vec())).is_err() {
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
