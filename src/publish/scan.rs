//! Reads what lies on the topic of one model, as far as the publisher's own mark.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::history::History;
use crate::error::Error;
use crate::release::{ModelName, Position};
use crate::topic::{Topic, TopicError, TopicEvent, TopicReader};
use crate::wire::{Key, Record};

/// How long the topic may be silent while it is read.
const PATIENCE: Duration = Duration::from_mins(1);
/// How soon a scan ahead notices that it is to end, while there is nothing to read.
const POLL: Duration = Duration::from_millis(100);

/// What has been read of one model. It begins before the session, and goes on beside its upload: little
/// is then left to wait for.
pub(super) struct Scan {
    model: ModelName,
    history: History,
    /// How many records so far.
    records: u64,
    /// The first offset of each partition that was not read yet.
    next: BTreeMap<i32, i64>,
    reader: Option<Box<dyn TopicReader>>,
}

impl Scan {
    pub(super) fn new(model: &ModelName) -> Self {
        let (model, history) = (model.clone(), History::new(model));
        Self { model, history, records: 0, next: BTreeMap::new(), reader: None }
    }

    pub(super) const fn history(&self) -> &History {
        &self.history
    }

    /// Reads on while `work` is done, on a thread beside it, until the records at the barriers that it
    /// sets have been read. What goes wrong is no error here: then all is read again by
    /// [`up_to`](Self::up_to), which tells it.
    pub(super) fn ahead<T>(&mut self, topic: &dyn Topic, work: impl FnOnce(&Barriers) -> T) -> T {
        let (done, barriers) = (AtomicBool::new(false), Barriers::default());
        let (result, smooth) = std::thread::scope(|scope| {
            let reading = std::thread::Builder::new().name("modelswap-scan".into());
            let reading = reading.spawn_scoped(scope, || self.read_ahead(topic, &barriers, &done));
            // Set however the work ends, or nobody would end the thread.
            let stop = Stop(&done);
            let result = work(&barriers);
            drop(stop);
            (result, reading.is_ok_and(|thread| matches!(thread.join(), Ok(Some(())))))
        });
        if !smooth {
            *self = Self::new(&self.model);
        }
        result
    }

    /// `None` where something goes wrong.
    fn read_ahead(&mut self, topic: &dyn Topic, barriers: &Barriers, done: &AtomicBool) -> Option<()> {
        let mut reader = reader(topic).ok()?;
        while !done.load(Ordering::Relaxed) && !barriers.get().is_some_and(|barriers| self.is_past(barriers))
        {
            match reader.next(POLL) {
                TopicEvent::Record(record) => self.observe(&record),
                TopicEvent::Idle | TopicEvent::Available | TopicEvent::CaughtUp => {}
                _ => return None,
            }
        }
        self.reader = Some(reader);
        Some(())
    }

    /// Reads on until the records at `barriers` have been read. `progress` is told how many so far,
    /// and may end it.
    pub(super) fn up_to(
        &mut self,
        topic: &dyn Topic,
        barriers: &[Position],
        mut progress: impl FnMut(u64) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if self.is_past(barriers) {
            return Ok(());
        }
        let mut reader = match self.reader.take() {
            Some(reader) => reader,
            None => reader(topic)?,
        };
        let mut stopped = Ok(());
        read(&mut *reader, &mut |event| {
            let TopicEvent::Record(record) = event else { return ControlFlow::Continue(()) };
            self.observe(record);
            stopped = progress(self.records);
            let done = stopped.is_err() || self.is_past(barriers);
            if done { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        // To close it takes a while, for which nobody waits yet.
        self.reader = Some(reader);
        stopped
    }

    fn is_past(&self, barriers: &[Position]) -> bool {
        barriers.iter().all(|b| self.next.get(&b.partition).is_some_and(|next| *next > b.offset))
    }

    fn observe(&mut self, record: &Record) {
        self.history.observe(record);
        self.records += 1;
        self.next.insert(record.position.partition, record.position.offset.saturating_add(1));
    }
}

/// The records up to which is read, once they are there.
pub(super) type Barriers = OnceLock<Vec<Position>>;

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A reader of what there is: of chunks only that they are there.
fn reader(topic: &dyn Topic) -> Result<Box<dyn TopicReader>, TopicError> {
    let mut reader = topic.reader()?;
    reader.omit_values(|key| matches!(Key::parse(key), Some(Key::Chunk { .. })));
    Ok(reader)
}

/// Reads a topic until every partition has reported its end.
pub(super) fn read_to_end(topic: &dyn Topic, observe: &mut dyn FnMut(&Record)) -> Result<(), Error> {
    read(&mut *reader(topic)?, &mut |event| match event {
        TopicEvent::Record(record) => {
            observe(record);
            ControlFlow::Continue(())
        }
        TopicEvent::CaughtUp => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    })
}

/// Reads on until `observe` breaks.
fn read(
    reader: &mut dyn TopicReader,
    observe: &mut dyn FnMut(&TopicEvent) -> ControlFlow<()>,
) -> Result<(), Error> {
    let mut trouble: Option<TopicError> = None;
    let mut progress = Instant::now();
    while progress.elapsed() < PATIENCE {
        let event = reader.next(PATIENCE.saturating_sub(progress.elapsed()));
        match &event {
            TopicEvent::Idle => continue,
            TopicEvent::Unavailable(error @ TopicError::Unavailable { .. }) => trouble = Some(error.clone()),
            TopicEvent::Unavailable(error) => return Err(error.clone().into()),
            TopicEvent::Oversized(oversized) if oversized.blocks_partition => {
                return Err(TopicError::TooLarge { reason: oversized.to_string() }.into());
            }
            TopicEvent::Restarted => {
                return Err(TopicError::unavailable("the topic was created anew while it was read").into());
            }
            _ => {
                trouble = None;
                progress = Instant::now();
            }
        }
        if observe(&event).is_break() {
            return Ok(());
        }
    }
    let silence = || TopicError::unavailable(format!("no record for {} s", PATIENCE.as_secs()));
    Err(trouble.unwrap_or_else(silence).into())
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;
    use crate::topic::{MemoryTopic, RecordFetcher, TopicWriter};

    /// A topic that tells of what its readers come back with.
    struct Told(MemoryTopic, Sender<TopicEvent>);

    struct Reader(Box<dyn TopicReader>, Sender<TopicEvent>);

    impl Topic for Told {
        fn name(&self) -> &str {
            self.0.name()
        }
        fn reader(&self) -> Result<Box<dyn TopicReader>, TopicError> {
            Ok(Box::new(Reader(self.0.reader()?, self.1.clone())))
        }
        fn fetcher(&self) -> Result<Box<dyn RecordFetcher>, TopicError> {
            self.0.fetcher()
        }
        fn writer(&self, id: &str) -> Result<Box<dyn TopicWriter>, TopicError> {
            self.0.writer(id)
        }
    }

    impl TopicReader for Reader {
        fn next(&mut self, timeout: Duration) -> TopicEvent {
            let event = self.0.next(timeout);
            let _ = self.1.send(event.clone());
            event
        }
    }

    fn five_records() -> (MemoryTopic, Told, Receiver<TopicEvent>) {
        let topic = MemoryTopic::new("models", 1);
        for _ in 0..5 {
            topic.append(b"fraud", Some("model".into()), &[]);
        }
        let (sender, events) = channel();
        (topic.clone(), Told(topic, sender), events)
    }

    fn barriers(topic: &MemoryTopic) -> Vec<Position> {
        vec![topic.append(b"fraud/barrier", Some("{}".into()), &[])]
    }

    #[test]
    fn what_was_read_ahead_is_not_read_again() {
        let (topic, told, events) = five_records();
        let mut scan = Scan::new(&"fraud".parse().unwrap());
        let answer = scan.ahead(&told, |_| events.iter().find(|event| *event == TopicEvent::CaughtUp));
        assert_eq!(answer, Some(TopicEvent::CaughtUp));
        let mut seen = Vec::new();
        scan.up_to(&told, &barriers(&topic), |records| {
            seen.push(records);
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, [6]);
    }

    #[test]
    fn what_lies_behind_the_barriers_is_not_read_ahead() {
        let (topic, told, events) = five_records();
        let barriers = barriers(&topic);
        topic.append(b"fraud", Some("behind".into()), &[]);
        let mut scan = Scan::new(&"fraud".parse().unwrap());
        scan.ahead(&told, |known| {
            known.set(barriers.clone()).unwrap();
            events.iter().find(|event| matches!(event, TopicEvent::Record(r) if r.position == barriers[0]))
        });
        assert_eq!((scan.is_past(&barriers), scan.records), (true, 6));
        scan.up_to(&told, &barriers, |_| panic!("all was read")).unwrap();
    }

    #[test]
    fn a_topic_that_fails_meanwhile_is_read_from_its_beginning_after() {
        let (topic, told, events) = five_records();
        let mut scan = Scan::new(&"fraud".parse().unwrap());
        topic.set_fault(Some(TopicError::unavailable("no broker")));
        scan.ahead(&told, |_| events.iter().find(|event| matches!(event, TopicEvent::Unavailable(_))));
        topic.set_fault(None);
        let mut count = 0;
        let read = scan.up_to(&told, &barriers(&topic), |_| {
            count += 1;
            Ok(())
        });
        assert_eq!((read.is_ok(), count), (true, 6));
    }
}
