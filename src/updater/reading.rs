//! The reader's thread: it blocks on the topic so that the updater does not have to.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};

use crate::background;
use crate::topic::{Topic, TopicEvent};

/// How many events may wait for the updater; each may hold a record, so this bounds memory.
const WAITING: usize = 8;
/// How soon the thread notices that it is to stop.
const POLL: Duration = Duration::from_millis(100);

/// Starts the thread. It ends when `stop` is set or the receiver is gone.
pub(super) fn spawn(
    topic: &Arc<dyn Topic>,
    stop: Arc<AtomicBool>,
) -> io::Result<(Receiver<TopicEvent>, JoinHandle<()>)> {
    let (sender, receiver) = bounded(WAITING);
    let topic = Arc::clone(topic);
    let thread = std::thread::Builder::new().name("modelswap-reader".into()).spawn(move || {
        background::lower_priority();
        let mut reader = match topic.reader() {
            Ok(reader) => reader,
            Err(error) => {
                drop(sender.send(TopicEvent::Unavailable(error)));
                return;
            }
        };
        while !stop.load(Ordering::Relaxed) {
            match reader.next(POLL) {
                TopicEvent::Idle => {}
                event => {
                    if sender.send(event).is_err() {
                        return;
                    }
                }
            }
        }
    })?;
    Ok((receiver, thread))
}
