//! The thread that makes signals and hands them on.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use gpuev::time::{Anchor, boot_now_ns};
use gpuev::{Gap, Gpu, Item, Subscription};

use super::known_gpus::KnownGpus;
use super::listening::Listening;
use super::outputs::Outputs;
use super::recording::Recording;
use super::{Shared, say};
use crate::backoff::Backoff;
use crate::blind::AliveNote;
use crate::config::Config;
use crate::notify::Notifier;
use crate::pipeline::Pipeline;
use crate::rule::RuleSet;
use crate::signal::Signal;

/// Between looks at the clock, at what is asked, and at the GPUs.
const TICK: Duration = Duration::from_secs(1);
/// GPUs that cannot be opened are tried again at least so often.
const RAREST_RETRY: Duration = Duration::from_secs(60);

/// Items that are taken without a look at the clock.
const BURST: usize = 1024;

/// What the worker is asked.
#[derive(Debug)]
pub(super) enum Command {
    /// To go on by another configuration, with its rules.
    Set(Box<Config>, RuleSet),
}

/// All that the thread owns.
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) http: Arc<Listening>,
    pub(super) items: Subscription,
    pub(super) pipeline: Pipeline,
    pub(super) known_gpus: KnownGpus,
    pub(super) outputs: Outputs,
    pub(super) recording: Option<Recording>,
    pub(super) alive: AliveNote,
    pub(super) to_do: Receiver<Command>,
    /// When the latest item was received.
    pub(super) received_ns: u64,
    /// When GPUs that cannot be read are tried again.
    pub(super) retry: Retry,
}

/// Ever rarer attempts, until there is nothing left to try.
#[derive(Debug)]
pub(super) struct Retry {
    backoff: Backoff,
    /// When the next is due.
    next: Option<Instant>,
}

impl Default for Retry {
    fn default() -> Self {
        Self { backoff: Backoff::new(TICK, RAREST_RETRY), next: None }
    }
}

impl Retry {
    /// Whether to try now, where something `is_wanted`.
    fn is_due(&mut self, is_wanted: bool, now: Instant) -> bool {
        if !is_wanted {
            self.next = None;
            self.backoff.reset();
            return false;
        }
        let is_due = self.next.is_some_and(|at| now >= at);
        if is_due || self.next.is_none() {
            self.next = Some(now + self.backoff.next());
        }
        is_due
    }
}

impl Worker {
    /// Works until the monitor has ended. `gaps` are the times before, in which nobody looked.
    pub(super) fn run(mut self, gaps: &[Gap]) {
        let notifier = Notifier::from_environment();
        self.look_at_gpus();
        for gap in gaps {
            self.take(&Item::Gap(gap.clone()));
        }
        self.outputs.tell_changes();
        notifier.ready();
        let mut next_tick = Instant::now();
        while !self.items.is_finished() {
            let left = next_tick.saturating_duration_since(Instant::now());
            match self.items.wait(Some(left)) {
                Some(first) => {
                    self.burst(first);
                    self.outputs.tell_changes();
                }
                None => self.alive.queue_is_empty(self.received_ns, boot_now_ns()),
            }
            if Instant::now() >= next_tick {
                self.tick();
                notifier.alive(&self.line());
                next_tick = Instant::now() + TICK;
            }
        }
        notifier.stopping();
        self.end();
    }

    fn burst(&mut self, first: Item) {
        let mut next = Some(first);
        for _ in 0..BURST {
            let Some(item) = next else { return };
            self.take(&item);
            next = self.items.try_next();
        }
        if let Some(item) = next {
            self.take(&item);
        }
    }

    fn take(&mut self, item: &Item) {
        self.received_ns = self.received_ns.max(match item {
            Item::Event(event) => event.time.received_boot_ns,
            Item::Gap(gap) => gap.to_boot_ns,
        });
        if matches!(item, Item::Gap(_)) {
            let released = self.shared.watching().yielded_since_boot_ns.is_some();
            self.pipeline.set_released(released);
        }
        let Self { pipeline, outputs, recording, .. } = self;
        if let Some(recording) = recording {
            recording.expect(item);
        }
        pipeline.push(item, &mut |signal| give(outputs, recording, &signal));
    }

    fn tick(&mut self) {
        while let Ok(command) = self.to_do.try_recv() {
            match command {
                Command::Set(config, rules) => {
                    self.pipeline.set(&config.events, &config.health);
                    self.outputs.set(&config, rules);
                }
            }
        }
        self.look_at_gpus();
        let now = Anchor::now();
        let Self { pipeline, outputs, recording, shared, .. } = self;
        pipeline.tick(now, &mut |signal| give(outputs, recording, &signal));
        outputs.tick(now);
        self.http.tick(shared);
        if let Some(recording) = recording {
            let monitor = shared.monitor();
            recording.tick(monitor.as_deref(), self.alive.safe_until_ns());
            drop(monitor);
            self.alive.on_disk(recording.progress().safe_boot_ns);
        } else {
            self.alive.on_disk(self.received_ns);
        }
        shared.ticked_boot_ns.store(now.boot_ns, Ordering::Relaxed);
        let mut state = shared.state();
        state.sinks = outputs.stats();
        state.not_kept = outputs.not_kept();
        state.gpus = self.pipeline.states();
        state.rules = outputs.rules();
        if let Some(recording) = &self.recording {
            let lost_before = state.recorded.lost;
            state.recorded = recording.progress();
            let lost = state.recorded.lost.saturating_sub(lost_before);
            if lost > 0 {
                shared.metrics.lose("history", lost);
            }
            state.recording_failure = recording.failure().map(str::to_owned);
        }
        let recording = self.recording.as_ref().map(|recording| recording.failure().is_none());
        drop(state);
        let released = shared.watching().yielded_since_boot_ns.is_some();
        shared.metrics.observe_agent(recording, released);
        if let Some(inventory) = self.pipeline.inventory() {
            self.known_gpus.keep(inventory);
        }
    }

    /// Tells of GPUs that came, or that cannot be read. Those that are let go are not lost.
    fn look_at_gpus(&mut self) {
        let status = self.shared.status();
        if status.yielded_since_boot_ns.is_some() {
            return;
        }
        let unreadable: Vec<Gpu> = status.unreadable.into_iter().map(|(gpu, _)| gpu).collect();
        if self.retry.is_due(!unreadable.is_empty(), Instant::now()) {
            self.shared.try_again();
        }
        let Self { pipeline, outputs, recording, .. } = self;
        pipeline.gpus(&status.gpus, &unreadable, &mut |signal| give(outputs, recording, &signal));
    }

    /// What `systemctl status` shows.
    fn line(&self) -> String {
        let status = self.shared.status();
        let mut line = format!("{} GPUs, {} signals", status.gpus.len(), status.signals);
        if status.yielded_since_boot_ns.is_some() {
            line += ", GPUs let go on request";
        }
        for lack in &status.lacks {
            let _infallible = write!(line, ", without {lack}");
        }
        if let Some(failure) = status.recording_failure {
            let _infallible = write!(line, ", not recording: {failure}");
        }
        line
    }

    fn end(self) {
        let Self { mut pipeline, mut outputs, mut recording, .. } = self;
        pipeline.finish(&mut |signal| give(&mut outputs, &mut recording, &signal));
        outputs.tell_changes();
        outputs.stop();
        if let Some(recording) = recording
            && let Err(error) = recording.finish()
        {
            say(&format!("the history's end is missing: {error}"));
        }
    }
}

/// Hands `signal` to everybody, and what it knows beside its event to the history.
fn give(outputs: &mut Outputs, recording: &mut Option<Recording>, signal: &Signal) {
    outputs.signal(signal);
    if let Some(recording) = recording
        && !recording.note(signal)
    {
        outputs.lost_note();
    }
}
