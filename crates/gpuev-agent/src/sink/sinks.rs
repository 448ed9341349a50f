//! All sinks of one machine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::message::{Kind, Message, Numbering, kind_of};
use super::mirror::{Mirror, MirrorStats};
use super::outbox::{Outbox, OutboxStart, Stats, SyncPolicy};
use super::people::Limit;
use super::settings::{Context, InvalidSink, Plan, Settings};
use super::{Filter, Sink};
use crate::alert::AlertChange;
use crate::signal::Signal;

/// How long a sink whose settings changed may go on with what waits, before it is replaced.
const REPLACE_PATIENCE: Duration = Duration::from_secs(1);

/// How long the disk may take at the end.
const WRITE_PATIENCE: Duration = Duration::from_secs(2);

/// Hands signals and alerts to every sink that wants them.
pub struct Sinks {
    context: Context,
    numbering: Arc<Numbering>,
    running: BTreeMap<String, Running>,
    /// Where what waits is kept, once a sink wants that.
    mirror: Option<Arc<Mirror>>,
    /// How often people are told of each rule.
    limits: BTreeMap<String, Limit>,
}

struct Running {
    text: String,
    filter: Filter,
    outbox: Outbox,
}

impl Sinks {
    /// Starts all sinks of `settings`.
    ///
    /// # Errors
    /// One of them cannot be built or started; none runs then.
    pub fn start(settings: &Settings, context: Context) -> Result<Self, InvalidSink> {
        let numbering = Arc::new(Numbering::new());
        let mut sinks = Self {
            context,
            numbering,
            running: BTreeMap::new(),
            mirror: None,
            limits: BTreeMap::new(),
        };
        sinks.reload(settings)?;
        Ok(sinks)
    }

    /// Goes over to `settings`. A sink that is the same in both goes on undisturbed; one that changed hands
    /// what waits to its successor; one that is gone is stopped, and what is kept for it stays on disk.
    ///
    /// # Errors
    /// A new sink cannot be built: nothing changes. Or no thread is left to start it: the others are as in
    /// `settings`.
    pub fn reload(&mut self, settings: &Settings) -> Result<(), InvalidSink> {
        let mut changed = Vec::new();
        let plans = settings.plans();
        for plan in &plans {
            let runs = self.running.get(&plan.name);
            if runs.is_none_or(|running| running.text != plan.text) {
                changed.push((plan, plan.build(&self.context)?));
            }
        }
        let gone = |name: &String| !plans.iter().any(|plan| plan.name == *name);
        let gone: Vec<String> = self.running.keys().filter(|name| gone(name)).cloned().collect();
        for name in gone {
            self.replace(&name);
        }
        if self.mirror.is_none() && plans.iter().any(|plan| plan.kept) {
            self.mirror = Some(Arc::new(self.open_mirror(&plans)?));
        }
        let mut failed = None;
        for (plan, sink) in changed {
            failed = self.run(plan, sink).err().or(failed);
        }
        failed.map_or(Ok(()), Err)
    }

    /// Stops a sink and tells what waited in its memory.
    fn replace(&mut self, name: &str) -> Vec<Message> {
        let running = self.running.remove(name);
        running.map(|running| running.outbox.stop(REPLACE_PATIENCE)).unwrap_or_default()
    }

    /// One file for all of them. It survives a power cut unless every sink says that it need not.
    fn open_mirror(&self, plans: &[Plan]) -> Result<Mirror, InvalidSink> {
        let mut kept = plans.iter().filter(|plan| plan.kept);
        let never = kept.all(|plan| plan.queue.sync == SyncPolicy::Never);
        let sync = if never { SyncPolicy::Never } else { SyncPolicy::Always };
        let Context { state_dir, report, .. } = &self.context;
        let (file, spools) = (state_dir.join("queue.db"), state_dir.join("spool"));
        Mirror::start(&file, &spools, sync, report.clone()).map_err(|error| InvalidSink {
            sink: "all".to_owned(),
            error: format!("no thread can be started: {error}"),
        })
    }

    fn run(&mut self, plan: &Plan, sink: Box<dyn Sink>) -> Result<(), InvalidSink> {
        let waited = self.replace(&plan.name);
        let start = OutboxStart {
            name: plan.name.clone(),
            settings: plan.queue.clone(),
            mirror: self.mirror.clone().filter(|_| plan.kept),
            numbering: self.numbering.clone(),
            report: self.context.report.clone(),
        };
        let outbox = Outbox::start(sink, start).map_err(|error| InvalidSink {
            sink: plan.name.clone(),
            error: format!("no thread can be started: {error}"),
        })?;
        for message in &waited {
            outbox.offer(message);
        }
        let running = Running { text: plan.text.clone(), filter: plan.filter.clone(), outbox };
        self.running.insert(plan.name.clone(), running);
        Ok(())
    }

    /// Hands `signal` to the sinks that want it. Its JSON is written once, and only if there is one.
    pub fn signal(&self, signal: &Signal) {
        let (kind, severity) = (kind_of(signal), signal.severity());
        let mut message = None;
        for running in self.running.values() {
            if running.filter.wants(kind, severity) {
                let message = message.get_or_insert_with(|| self.numbering.of_signal(signal));
                running.outbox.offer(message);
            }
        }
    }

    /// How often people are told of each rule from now on.
    pub fn set_limits(&mut self, limits: BTreeMap<String, Limit>) {
        self.limits = limits;
    }

    /// Hands a change of an alert to the sinks that want it.
    pub fn change(&self, change: &AlertChange) {
        let severity = change.alert.severity;
        let mut message = None;
        for running in self.running.values() {
            if running.filter.wants(Kind::Alert, severity) {
                let message = message.get_or_insert_with(|| self.message_of(change));
                if running.filter.takes(message) {
                    running.outbox.offer(message);
                }
            }
        }
    }

    /// Hands changes that an earlier run told of, and that a crash may have kept from the disk, to the sinks that promise.
    /// They come under their old ids, and not where they are known to be delivered.
    pub fn change_again(&self, changes: &[AlertChange]) {
        let messages: Vec<Message> = changes.iter().map(|change| self.message_of(change)).collect();
        for running in self.running.values().filter(|running| running.outbox.is_kept()) {
            let filter = &running.filter;
            let takes = |message: &&Message| {
                filter.wants(Kind::Alert, message.severity) && filter.takes(message)
            };
            messages.iter().filter(takes).for_each(|message| running.outbox.offer(message));
        }
    }

    fn message_of(&self, change: &AlertChange) -> Message {
        let limit = self.limits.get(&change.alert.rule).copied();
        Message { limit, ..Message::of_change(change) }
    }

    /// Whether all that was promised is on disk, or with its receiver.
    #[must_use]
    pub fn are_settled(&self) -> bool {
        self.mirror.as_ref().is_none_or(|mirror| mirror.is_settled())
    }

    /// How well what waits is kept on disk, where it is to be.
    #[must_use]
    pub fn kept(&self) -> Option<MirrorStats> {
        self.mirror.as_ref().map(|mirror| mirror.stats())
    }

    /// The counts of every sink, in order of name.
    #[must_use]
    pub fn stats(&self) -> Vec<Stats> {
        self.running.values().map(|running| running.outbox.stats()).collect()
    }

    /// Waits until what was promised is on disk, for at most `patience`.
    pub fn flush(&self, patience: Duration) {
        let until = Instant::now() + patience;
        while !self.are_settled() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn close_all(&self, deadline: Instant) {
        for running in self.running.values() {
            running.outbox.close(deadline);
        }
    }

    /// Stops all of them at once, each going on with what waits until `patience` is over. What is kept on disk comes with
    /// the next start; the rest is lost then, and told by the counts returned.
    pub fn stop(self, patience: Duration) -> Vec<Stats> {
        let deadline = Instant::now() + patience;
        self.close_all(deadline);
        let end = |running: Running| running.outbox.end(deadline).1;
        let stats = self.running.into_values().map(end).collect();
        if let Some(mirror) = self.mirror {
            mirror.close(Instant::now() + WRITE_PATIENCE);
        }
        stats
    }
}
