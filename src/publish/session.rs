//! The one publisher of a model: from the fence to the last tombstone.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::history::History;
use super::model_file::ModelFile;
use super::scan::{Barriers, Scan};
use super::{Publisher, Step, config};
use crate::error::{Error, ErrorKind};
use crate::load::Payload;
use crate::release::{ModelName, Position, Release, Sha256Digest};
use crate::topic::TopicWriter;
use crate::wire::{CHUNK_BYTES, Record, chunk_key, encode_release, partition_of};

/// How long chunks are added to one transaction. Readers of the partition wait for its end, and it
/// has to end within the broker's transaction timeout, however slow the line is; each costs the
/// upload some 25 ms.
const TRANSACTION: Duration = Duration::from_millis(250);
/// The most records that one transaction removes.
const TRANSACTION_TOMBSTONES: usize = 10_000;
/// How many chunks are read at once when an artifact is verified.
const VERIFY_CHUNKS: usize = 8;

/// A publisher that has fenced all others of its model.
pub(super) struct Session<'a> {
    publisher: &'a Publisher,
    model: ModelName,
    writer: Box<dyn TopicWriter>,
    /// The partition of the model.
    home: i32,
    /// The records that mark up to where the topic was read.
    barriers: Vec<Position>,
    scan: Scan,
    uploaded: bool,
}

impl<'a> Session<'a> {
    /// Fences all others.
    pub(super) fn open(publisher: &'a Publisher, model: &ModelName) -> Result<Self, Error> {
        let fence = |barriers: &Barriers| Ok((Self::fence(publisher, model, barriers)?, ()));
        Self::beside_reading(publisher, model, fence).map(|(session, ())| session)
    }

    /// Does `work`, which fences all others, while what lies on the topic is read.
    pub(super) fn beside_reading<T>(
        publisher: &'a Publisher,
        model: &ModelName,
        work: impl FnOnce(&Barriers) -> Result<(Self, T), Error>,
    ) -> Result<(Self, T), Error> {
        let mut scan = Scan::new(model);
        let (mut session, result) = scan.ahead(&*publisher.topic, work)?;
        session.scan = scan;
        Ok((session, result))
    }

    /// Fences all others, and marks the topic as it is then. The end of a partition is no mark for
    /// that: it may lie before another model's open transaction, and behind that a release of this
    /// one. So a record of our own is, in each partition.
    pub(super) fn fence(
        publisher: &'a Publisher,
        model: &ModelName,
        barriers: &Barriers,
    ) -> Result<Self, Error> {
        publisher.step(Step::Scan, 0, 0)?;
        let topic = &publisher.topic;
        let mut writer = topic.writer(&format!("modelswap-{}-{model}", topic.name()))?;
        let partitions = writer.partitions()?;
        let mut session = Self {
            publisher,
            model: model.clone(),
            writer,
            home: partition_of(model.as_str().as_bytes(), partitions),
            barriers: Vec::new(),
            scan: Scan::new(model),
            uploaded: false,
        };
        let key = barrier_key(model);
        session.barriers = session.transaction(|session| {
            for partition in 0..partitions {
                // A tombstone could be compacted away before it is read.
                session.writer.send(partition, key.as_bytes(), Some(Bytes::from_static(b"{}")), &[])?;
            }
            Ok(())
        })?;
        // Nobody else has set them.
        let _ = barriers.set(session.barriers.clone());
        Ok(session)
    }

    /// What lay on the topic when the others were fenced.
    pub(super) fn history(&mut self) -> Result<&History, Error> {
        let publisher = self.publisher;
        let progress = |records| publisher.step(Step::Scan, records, 0);
        self.scan.up_to(&*publisher.topic, &self.barriers, progress)?;
        Ok(self.scan.history())
    }

    /// Writes the chunks of the release.
    pub(super) fn upload(&mut self, release: &Release, file: &ModelFile) -> Result<(), Error> {
        let artifact = &release.artifact;
        let mut chunks = file.chunks()?.zip(0_u32..).peekable();
        let mut hasher = file.may_change().then(Sha256::new);
        let mut sent = 0_u64;
        while chunks.peek().is_some() {
            self.transaction(|session| {
                let begin = Instant::now();
                while begin.elapsed() < TRANSACTION
                    && let Some((chunk, index)) = chunks.next()
                {
                    let chunk = chunk?;
                    if let Some(hasher) = &mut hasher {
                        hasher.update(&chunk);
                    }
                    sent += chunk.len() as u64;
                    let key = chunk_key(&session.model, artifact.sha256, index);
                    session.writer.send(session.home, key.as_bytes(), Some(chunk), &[])?;
                    session.publisher.step(Step::Upload, sent, artifact.bytes)?;
                }
                Ok(())
            })?;
        }
        if hasher.is_some_and(|hasher| Sha256Digest::from_hasher(hasher) != artifact.sha256) {
            return Err(config(format!("{file} changed while it was published")));
        }
        self.uploaded = true;
        Ok(())
    }

    /// Writes the release, then removes what neither it nor those it names need.
    pub(super) fn commit(&mut self, mut release: Release, keep: usize) -> Result<Release, Error> {
        let history = self.history()?;
        let fallbacks = history.fallbacks(&release, keep);
        let mut named = fallbacks.iter().map(Release::as_previous);
        release.previous = named.next();
        release.earlier = named.collect();
        release.sequence = history.next_sequence();
        self.publisher.step(Step::Commit, 0, 0)?;
        release.time_ms = now_ms();
        let document = encode(&release)?;
        let positions = self.transaction(|session| {
            let key = session.model.as_str().as_bytes();
            Ok(session.writer.send(session.home, key, Some(document), &[])?)
        })?;
        release.position = positions.last().copied().unwrap_or(release.position);
        tracing::info!(%release, "published");
        let kept: Vec<&Release> = [&release].into_iter().chain(&fallbacks).collect();
        let home = self.uploaded.then_some(self.home);
        let unneeded = self.scan.history().unneeded(&kept, home);
        if let Err(error) = self.prune(&unneeded) {
            // The release is out; the next publisher of the model removes what is left.
            tracing::warn!(model = %self.model, %error, "chunks that nobody needs could not be removed");
        }
        Ok(release)
    }

    /// Writes a tombstone wherever the model is announced, then removes its chunks.
    pub(super) fn withdraw(&mut self) -> Result<(), Error> {
        let history = self.history()?;
        if history.is_empty() {
            let message = format!("nothing of `{}` is on the topic", self.model);
            return Err(Error::new(ErrorKind::NotFound, message));
        }
        let unneeded = history.unneeded(&[], None);
        let mut partitions: Vec<i32> = history.announced().collect();
        if !partitions.contains(&self.home) {
            partitions.push(self.home);
        }
        self.transaction(|session| {
            for partition in partitions {
                session.writer.send(partition, session.model.as_str().as_bytes(), None, &[])?;
            }
            Ok(())
        })?;
        tracing::info!(model = %self.model, "withdrawn");
        self.prune(&unneeded)
    }

    /// Reads the artifact of a release that is on the topic, and checks it.
    pub(super) fn verify(&mut self, release: &Release) -> Result<(), Error> {
        let positions = self.history()?.chunks_of(release)?;
        let mut hasher = Sha256::new();
        for positions in positions.chunks(VERIFY_CHUNKS) {
            let mut values = self.fetch(positions)?;
            for position in positions {
                hasher.update(values.remove(position).unwrap_or_default());
            }
        }
        let found = Sha256Digest::from_hasher(hasher);
        if found == release.artifact.sha256 {
            return Ok(());
        }
        let message = format!(
            "version `{}` of `{}` is damaged on the topic: expected sha256 {}, found {found}; publish it again",
            release.version, self.model, release.artifact.sha256
        );
        Err(Error::new(ErrorKind::NotFound, message))
    }

    /// The bytes of a plain publish.
    pub(super) fn plain_payload(&self, release: &Release) -> Result<Payload, Error> {
        let value = self.fetch(&[release.position])?.remove(&release.position).unwrap_or_default();
        if Sha256Digest::of([&*value]) == release.artifact.sha256 {
            return Ok(value.into());
        }
        let message = format!(
            "version `{}` of `{}` is no longer on the topic: it was published in one record, which a later \
             one replaced; publish it again",
            release.version, self.model
        );
        Err(Error::new(ErrorKind::NotFound, message))
    }

    fn fetch(&self, positions: &[Position]) -> Result<HashMap<Position, Bytes>, Error> {
        let mut values = HashMap::new();
        let mut deliver = |record: Record| {
            values.insert(record.position, record.value.unwrap_or_default());
            ControlFlow::Continue(())
        };
        self.publisher.topic.fetcher()?.fetch(positions, &mut deliver)?;
        Ok(values)
    }

    fn prune(&mut self, unneeded: &[(i32, String)]) -> Result<(), Error> {
        let barrier = barrier_key(&self.model);
        let barriers = self.barriers.iter().map(|b| (b.partition, barrier.clone()));
        let all: Vec<(i32, String)> = unneeded.iter().cloned().chain(barriers).collect();
        let mut done = 0;
        for part in all.chunks(TRANSACTION_TOMBSTONES) {
            self.transaction(|session| {
                for (partition, key) in part {
                    session.writer.send(*partition, key.as_bytes(), None, &[])?;
                }
                Ok(())
            })?;
            done += part.len() as u64;
            self.publisher.step(Step::Prune, done, all.len() as u64)?;
        }
        Ok(())
    }

    /// Runs a transaction; answers where its records stand.
    fn transaction(
        &mut self,
        send: impl FnOnce(&mut Self) -> Result<(), Error>,
    ) -> Result<Vec<Position>, Error> {
        self.writer.begin()?;
        let result = send(self).and_then(|()| Ok(self.writer.commit()?));
        if result.is_err()
            && let Err(error) = self.writer.abort()
        {
            tracing::debug!(model = %self.model, %error, "abort");
        }
        result
    }
}

/// The key of the record up to which a publisher reads the topic; to readers of models it is none.
fn barrier_key(model: &ModelName) -> String {
    format!("{model}/barrier")
}

/// The release document, where it fits one record.
pub(super) fn encode(release: &Release) -> Result<Bytes, Error> {
    let document = encode_release(release);
    if document.len() > CHUNK_BYTES {
        let found = document.len();
        let what = format!("the release document (with its samples and labels) has {found} bytes");
        return Err(config(format!("{what}, at most {CHUNK_BYTES} fit one record")));
    }
    Ok(document.into())
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}
