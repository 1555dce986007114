//! Deciding what is loaded, and what becomes of it: live, rejected, put off, withdrawn.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::loading::{Failure, Job, Outcome, Work};
use super::{Deferred, UnderWay, Updater};
use crate::memory;
use crate::plan::{Live, ReleaseId, Step, next_step};
use crate::release::{ModelName, Release};
use crate::scorer::{InUse, LiveModel};
use crate::slot::Retired;
use crate::status::{Activity, LiveStatus, ModelStatus, Rejected};
use crate::verify::{Proven, Rejection, Sized, Stage};

/// The first and the longest time after which a load that was put off is tried again.
const RETRY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

impl Updater {
    /// Gives the loader its next job where something has changed or a retry is due.
    pub(super) fn plan(&mut self) {
        let now = Instant::now();
        let due = self.models.values().any(|m| m.deferred.is_some_and(|d| d.due <= now));
        if !self.caught_up || self.loading.is_some() || !(self.replan || due) {
            return;
        }
        // A rejection on the way makes another release the next one.
        while !self.plan_once(now) {}
        self.replan = false;
    }

    /// Looks at the models once, the one with the latest announcement first; false where a release
    /// was rejected, and it has to be looked again.
    fn plan_once(&mut self, now: Instant) -> bool {
        let mut names: Vec<(i64, ModelName)> = self
            .index
            .models()
            .map(|(name, model)| (model.newest().map_or(0, |e| e.timestamp_ms), name.clone()))
            .collect();
        names.sort_by_key(|(time, _)| std::cmp::Reverse(*time));
        for (_, name) in names {
            let Some(known) = self.index.model(&name) else { continue };
            let model = self.models.entry(name.clone()).or_default();
            match next_step(known, model.live, |id| model.rejected.contains_key(id)) {
                Step::Keep => model.deferred = None,
                Step::Withdraw => self.withdraw(&name),
                Step::Load(release) => {
                    match model.deferred {
                        Some(deferred) if deferred.id != (&*release).into() => model.deferred = None,
                        Some(deferred) if deferred.due > now => continue,
                        _ => {}
                    }
                    let sized = match Sized::new(*release.clone(), self.settings.max_model_bytes) {
                        Ok(sized) => sized,
                        Err(rejection) => {
                            self.reject(&name, &release, rejection);
                            return false;
                        }
                    };
                    let positions = match release.artifact.chunks {
                        0 => Ok(vec![release.position]),
                        _ => known.chunks_of(&release),
                    };
                    match positions {
                        Ok(positions) => {
                            let held = model.held.take(&positions);
                            let expected = self.settings.expected.get(&name).cloned();
                            let live = self.large_models();
                            let job = Job { release: sized, positions, held, expected, live };
                            self.begin(name, *release, job);
                            return true;
                        }
                        Err(missing) => {
                            let total = release.artifact.chunks;
                            let reason = format!("chunk {missing} of {total} is not on the topic");
                            self.reject(&name, &release, Rejection::new(Stage::Chunks, reason));
                            return false;
                        }
                    }
                }
            }
        }
        true
    }

    /// The live versions of which every call may read more than a cache holds.
    pub(super) fn large_models(&self) -> InUse {
        let is_large = |status: &ModelStatus| status.live.as_ref().is_some_and(|l| l.memory >= memory::HUGE);
        let large = self.status.models.iter().filter(|(_, status)| is_large(status));
        large.filter_map(|(name, _)| self.slots.slot(name).snapshot().ok()).collect()
    }

    fn begin(&mut self, name: ModelName, release: Release, job: Job) {
        self.set_activity(&name, Activity::Loading { version: release.version.clone() });
        self.loading = Some(UnderWay { name, release, outdated: false });
        // A loader that is gone is seen where its outcomes end.
        drop(self.work.send(Work::Load(Box::new(job))));
    }

    /// Takes in what the loader says.
    pub(super) fn finish(&mut self, outcome: Outcome) {
        let Some(UnderWay { name, release, outdated }) = self.loading.take() else { return };
        self.replan = true;
        self.set_activity(&name, Activity::Idle);
        match outcome {
            // Its position would be compared with those of another topic, and its rejection kept.
            Ok(proven) if outdated => self.free(name, proven.into_live()),
            Err(_) if outdated => {}
            Ok(proven) => {
                let model = self.models.entry(name.clone()).or_default();
                model.deferred = None;
                // The model may have been withdrawn, or the topic made anew, while it was loading.
                let wanted = self.index.model(&name).is_some_and(|known| {
                    matches!(
                        next_step(known, model.live, |id| model.rejected.contains_key(id)),
                        Step::Load(_)
                    )
                });
                if wanted {
                    self.swap(&name, *proven);
                } else {
                    self.free(name, proven.into_live());
                }
            }
            Err(Failure::Rejected(rejection)) => {
                self.models.entry(name.clone()).or_default().deferred = None;
                self.reject(&name, &release, rejection);
            }
            Err(Failure::Unavailable(reason)) => self.defer(&name, &release, reason),
        }
    }

    fn swap(&mut self, name: &ModelName, proven: Proven) {
        let (load_time, warm_up_time) = proven.times();
        let release = proven.release();
        let live = Live { id: release.into(), time_ms: release.time_ms };
        let (engine, memory) = (proven.model().engine(), proven.model().memory());
        let signature = proven.model().signature().clone();
        let version = proven.into_live();
        let provenance = version.provenance().clone();
        let old = self.slots.slot(name).replace(Some(Arc::new(version)));
        self.retire(name, old);
        self.models.entry(name.clone()).or_default().live = Some(live);
        tracing::info!(
            model = %name,
            version = provenance.version(),
            sha256 = %provenance.sha256(),
            partition = provenance.position().partition,
            offset = provenance.position().offset,
            ?load_time,
            ?warm_up_time,
            "a new version is live"
        );
        let status = self.status.models.entry(name.clone()).or_default();
        status.swaps += 1;
        status.live = Some(LiveStatus { provenance, signature, engine, memory, load_time, warm_up_time });
        self.status_changed = true;
    }

    fn withdraw(&mut self, name: &ModelName) {
        if self.status.models.get(name).is_none_or(|status| status.live.is_none()) {
            return;
        }
        let old = self.slots.slot(name).replace(None);
        self.retire(name, old);
        self.models.entry(name.clone()).or_default().live = None;
        tracing::warn!(model = %name, "the model was withdrawn");
        self.status.models.entry(name.clone()).or_default().live = None;
        self.status_changed = true;
    }

    fn retire(&mut self, name: &ModelName, old: Option<Retired>) {
        if let Some(old) = old {
            self.retired.push((name.clone(), old));
        }
    }

    pub(super) fn reject(&mut self, name: &ModelName, release: &Release, rejection: Rejection) {
        let model = self.models.entry(name.clone()).or_default();
        model.rejected.insert(release.into(), rejection.stage);
        self.note_rejection(name, Rejected::new(release, rejection));
    }

    pub(super) fn note_rejection(&mut self, name: &ModelName, rejected: Rejected) {
        tracing::error!(
            model = %name,
            version = rejected.version.as_deref(),
            partition = rejected.position.partition,
            offset = rejected.position.offset,
            stage = %rejected.rejection.stage,
            reason = rejected.rejection.reason,
            "a release was rejected; what was live stays live"
        );
        let status = self.status.models.entry(name.clone()).or_default();
        status.rejections += 1;
        status.last_rejected = Some(rejected);
        self.status_changed = true;
    }

    fn defer(&mut self, name: &ModelName, release: &Release, reason: String) {
        let id = ReleaseId::from(release);
        let model = self.models.entry(name.clone()).or_default();
        let attempts = model.deferred.filter(|d| d.id == id).map_or(0, |d| d.attempts + 1);
        let wait = RETRY.0.saturating_mul(1 << attempts.min(10)).min(RETRY.1);
        model.deferred = Some(Deferred { id, attempts, due: Instant::now() + wait });
        tracing::warn!(model = %name, version = release.version, reason, ?wait, "a load is put off");
        self.set_activity(name, Activity::Retrying { version: release.version.clone(), reason });
        self.status.models.entry(name.clone()).or_default().retries += 1;
    }

    /// Hands retired versions that nobody holds any more to the loader's thread to be freed.
    pub(super) fn reap(&mut self) {
        if self.retired.is_empty() {
            return;
        }
        for (name, retired) in std::mem::take(&mut self.retired) {
            match retired.take_if_unused() {
                Ok(version) => self.free(name, version),
                Err(held) => self.retired.push((name, held)),
            }
        }
        self.count_retired();
    }

    /// Has a version freed where no scoring thread pays for it.
    fn free(&mut self, name: ModelName, version: LiveModel) {
        self.freeing.push(name.clone());
        drop(self.work.send(Work::Free(name, Box::new(version))));
        self.count_retired();
    }

    /// Takes in that the loader has freed a version.
    pub(super) fn freed(&mut self, name: &ModelName) {
        if let Some(at) = self.freeing.iter().position(|freeing| freeing == name) {
            self.freeing.swap_remove(at);
        }
        self.count_retired();
    }

    fn count_retired(&mut self) {
        for (name, status) in &mut self.status.models {
            let held = self.retired.iter().filter(|(held, _)| held == name).count();
            let retired = held + self.freeing.iter().filter(|freeing| *freeing == name).count();
            self.status_changed |= status.retired != retired;
            status.retired = retired;
        }
    }
}
