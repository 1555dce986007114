//! Telling what happened: the status, and those who wait for a model.

use std::sync::Arc;
use std::time::Instant;

use super::Updater;
use crate::error::{Error, ErrorKind};
use crate::release::ModelName;
use crate::status::{Activity, TopicState};

impl Updater {
    pub(super) fn answer_waiters(&mut self) {
        let now = Instant::now();
        for waiter in std::mem::take(&mut self.waiters) {
            let live = self.status.models.get(&waiter.model).is_some_and(|model| model.live.is_some());
            if live {
                drop(waiter.reply.send(Ok(())));
            } else if waiter.deadline <= now {
                let why = self.status.why_not_live(&waiter.model);
                let text =
                    format!("no version of `{}` is live after {:?}: {why}", waiter.model, waiter.timeout);
                drop(waiter.reply.send(Err(Error::new(ErrorKind::Timeout, text))));
            } else if !waiter.reply.is_closed() {
                self.waiters.push(waiter);
            }
        }
    }

    pub(super) fn set_topic(&mut self, state: TopicState) {
        self.status_changed |= self.status.topic != state;
        self.status.topic = state;
    }

    pub(super) fn set_activity(&mut self, name: &ModelName, activity: Activity) {
        self.status.models.entry(name.clone()).or_default().activity = activity;
        self.status_changed = true;
    }

    pub(super) fn stopped(&mut self, reason: &str) {
        if !matches!(self.status.topic, TopicState::Stopped { .. }) {
            self.set_topic(TopicState::Stopped { reason: reason.to_owned() });
        }
    }

    pub(super) fn tell_status(&mut self) {
        if std::mem::take(&mut self.status_changed) {
            self.status_sender.send_replace(Arc::new(self.status.clone()));
        }
    }
}
