//! Taking in what the reader says.

use std::time::Instant;

use super::loading::Work;
use super::{ModelState, Updater};
use crate::index::{Change, Entry};
use crate::plan::ReleaseId;
use crate::release::ModelName;
use crate::status::{Announced, Rejected, TopicState};
use crate::topic::TopicEvent;
use crate::verify::{Rejection, Stage};
use crate::wire::{Announcement, Key, Record};

impl Updater {
    /// Takes in what the reader says.
    pub(super) fn observe(&mut self, event: TopicEvent) {
        match event {
            TopicEvent::Record(record) => self.observe_record(&record),
            TopicEvent::CaughtUp => {
                self.caught_up = true;
                self.replan = true;
                self.set_topic(TopicState::CaughtUp);
            }
            TopicEvent::Unavailable(error) => {
                tracing::warn!(%error, "the model topic cannot be read");
                self.set_topic(TopicState::Unavailable { reason: error.to_string() });
            }
            TopicEvent::Available => {
                tracing::info!("the model topic can be read again");
                let state = if self.caught_up { TopicState::CaughtUp } else { TopicState::Reading };
                self.set_topic(state);
            }
            TopicEvent::Restarted => {
                tracing::warn!("the model topic was created anew; it is read from the beginning");
                self.index.clear();
                self.caught_up = false;
                if let Some(load) = &mut self.loading {
                    load.outdated = true;
                }
                drop(self.work.send(Work::Reconnect));
                for model in self.models.values_mut() {
                    // Positions mean nothing now, so what is live cannot be told from what comes.
                    *model = ModelState::default();
                }
                self.set_topic(TopicState::Reading);
            }
            TopicEvent::Oversized(oversized) => {
                let name = oversized.key.as_deref().and_then(Key::parse).map(|key| key.model().clone());
                let rejection = Rejection::new(Stage::Size, &oversized);
                tracing::error!(%oversized, "a record of the model topic cannot be read");
                let affected: Vec<ModelName> = match name {
                    Some(name) => vec![name],
                    None => self.status.models.keys().cloned().collect(),
                };
                for model in affected {
                    let rejected = Rejected {
                        version: None,
                        position: oversized.position,
                        rejection: rejection.clone(),
                    };
                    self.note_rejection(&model, rejected);
                }
            }
            TopicEvent::Idle => {}
        }
    }

    fn observe_record(&mut self, record: &Record) {
        match self.index.observe(record) {
            Change::None => {}
            Change::Announced(name) => self.announced(&name, record),
            Change::Chunk { model: name, sha256, index } => {
                // With a thread that reads and one that scores, one that hashes may be one too many.
                let is_free =
                    self.caught_up && self.loading.is_none() && !self.large_models().score(Instant::now());
                let model = self.models.entry(name.clone()).or_default();
                if self.caught_up {
                    model.held.chunk(sha256, record, self.settings.max_model_bytes);
                    // A loader that is busy would only keep what waits for it in memory.
                    if let (Some(chunk), true) = (&record.value, is_free) {
                        let (position, chunk) = (record.position, chunk.clone());
                        drop(self.work.send(Work::Hash { index, position, chunk }));
                    }
                }
                // A release whose chunks were missing gets another chance when they are all there.
                let Some(known) = self.index.model(&name) else { return };
                tracing::trace!(%name, %sha256, index, "chunk");
                let before = model.rejected.len();
                model.rejected.retain(|id, stage| {
                    let complete = || {
                        known.newest_first().any(|entry| match &entry.said {
                            Ok(Announcement::Release(r)) => {
                                ReleaseId::from(&**r) == *id && known.chunks_of(r).is_ok()
                            }
                            _ => false,
                        })
                    };
                    !(*stage == Stage::Chunks && id.sha256 == sha256 && complete())
                });
                self.replan |= model.rejected.len() < before;
            }
        }
    }

    pub(super) fn announced(&mut self, name: &ModelName, record: &Record) {
        self.replan = true;
        let Some(known) = self.index.model(name) else { return };
        let Some(newest) = known.newest() else { return };
        let status = self.status.models.entry(name.clone()).or_default();
        status.newest = Some(announced(newest));
        self.status_changed = true;
        let model = self.models.entry(name.clone()).or_default();
        let ids: Vec<ReleaseId> = known.newest_first().filter_map(entry_id).collect();
        // Rejections are kept for what can still be met, so that they do not grow for ever.
        if model.rejected.len() > 64 {
            model.rejected.retain(|id, _| ids.contains(id));
        }
        if self.caught_up {
            model.held.plain(record, self.settings.max_model_bytes);
        }
        let refused = match &newest.said {
            Err(reason) if newest.position == record.position => Some(Rejected {
                version: None,
                position: newest.position,
                rejection: Rejection::new(Stage::Announcement, reason),
            }),
            _ => None,
        };
        if let Some(rejected) = refused {
            self.note_rejection(name, rejected);
        }
    }
}

fn announced(entry: &Entry) -> Announced {
    let version = match &entry.said {
        Ok(Announcement::Release(release)) => Some(release.version.clone()),
        _ => None,
    };
    Announced { position: entry.position, version }
}

fn entry_id(entry: &Entry) -> Option<ReleaseId> {
    match &entry.said {
        Ok(Announcement::Release(release)) => Some(ReleaseId::from(&**release)),
        _ => None,
    }
}
