//! From what the monitor gives to what rules look at and sinks get: with the process behind it, the GPU's
//! health, spans, and floods told as aggregates.
//!
//! It is a function of what is pushed into it, and of the clock that it is told: a recording that goes through
//! it gives the signals that were given live.

use std::collections::HashMap;
use std::sync::Arc;

use gpuev::health::Health;
use gpuev::process::Process;
use gpuev::span::{Limits, Span, SpanKind, Spans};
use gpuev::time::Anchor;
use gpuev::{Bdf, Comm, Event, EventType, Gap, GapCause, Gpu, GpuId, Item, Life, Machine, Result};

use crate::aggregate::{Aggregator, Told};
use crate::attribution::{Attributed, Attribution};
use crate::config::{Config, EventMode, Events, HealthSettings};
use crate::health_watch::{HealthWatch, Reading};
use crate::inventory::Inventory;
use crate::signal::{GpuChange, Signal, What};
use crate::victims::Victims;

/// After a boot, the driver may need so long to find the GPUs: until then none is missing.
const DRIVER_MAY_TAKE_NS: u64 = 180_000_000_000;

/// Makes signals of events and gaps.
#[derive(Debug)]
pub struct Pipeline {
    modes: Events,
    attribution: Attribution,
    aggregator: Aggregator,
    spans: Spans,
    victims: Victims,
    /// `None`: nobody is asked how GPUs are doing, as in a replay.
    health: Option<HealthWatch>,
    gpus: HashMap<(Bdf, u32), (GpuId, GpuChange)>,
    /// The GPUs that the machine is known to have; `None` in a replay.
    inventory: Option<Inventory>,
    /// The GPUs are released: none is missing.
    released: bool,
    /// Wall time by the last item or tick.
    anchor: Anchor,
}

/// Who takes signals.
type Out<'a> = &'a mut dyn FnMut(Signal);

impl Pipeline {
    /// Of what happens on `machine` now.
    ///
    /// # Errors
    /// Where no thread is left.
    pub fn live(machine: &Machine, config: &Config) -> Result<Self> {
        let mut pipeline = Self::replay(machine, &config.events);
        pipeline.victims.is_live();
        pipeline.health = Some(HealthWatch::new(config.health.clone()));
        Ok(pipeline)
    }

    /// Of what is pushed, without asking the GPUs how they are doing.
    #[must_use]
    pub fn replay(machine: &Machine, modes: &Events) -> Self {
        let anchor = Anchor::now();
        Self {
            modes: modes.clone(),
            attribution: Attribution::new(machine, anchor.boot_ns),
            aggregator: Aggregator::new(modes.clone()),
            spans: Spans::new(Limits::default()),
            victims: Victims::new(machine),
            health: None,
            gpus: HashMap::new(),
            inventory: None,
            released: false,
            anchor,
        }
    }

    /// Goes on by other settings. What is open or counted stays.
    pub fn set(&mut self, modes: &Events, health: &HealthSettings) {
        self.modes = modes.clone();
        self.aggregator.set_modes(modes.clone());
        if let Some(watch) = &mut self.health {
            watch.set(health.clone());
        }
    }

    /// The processes of a recording, by the numbers that events call them: what follows is answered from these.
    pub fn answer_from(&mut self, recorded: impl IntoIterator<Item = (u32, Process)>) {
        self.attribution.answer_from(recorded);
    }

    /// Takes the next item.
    pub fn push(&mut self, item: &Item, out: Out<'_>) {
        match item {
            Item::Event(event) => self.event(event, out),
            Item::Gap(gap) => {
                self.attribution.notice(item);
                self.gap(gap, out);
            }
        }
        self.tell_readings(out);
    }

    /// Time passes: seconds that are counted end, and GPUs are read where it is time to.
    pub fn tick(&mut self, now: Anchor, out: Out<'_>) {
        self.anchor = now;
        let mut over = Vec::new();
        self.aggregator.tick(now.boot_ns, &mut |told| over.push(told));
        self.tell_aggregates(over, out);
        if let Some(watch) = &mut self.health {
            watch.tick(now.boot_ns);
        }
        self.tell_readings(out);
    }

    /// Compares the GPUs that are watched, and those that cannot be, with what was told of them.
    pub fn gpus(&mut self, watched: &[Gpu], unreadable: &[Gpu], out: Out<'_>) {
        self.victims.set_gpus(watched);
        if let Some(watch) = &mut self.health {
            watch.set_gpus(watched);
        }
        let silent = self.silent(self.anchor.boot_ns);
        let found = watched.iter().map(|gpu| {
            let is_silent =
                silent.iter().any(|one| (one.bdf, one.partition) == (gpu.id.bdf, gpu.id.partition));
            (gpu.id, if is_silent { GpuChange::Silent } else { GpuChange::Found })
        });
        let there: Vec<GpuId> = watched.iter().chain(unreadable).map(|gpu| gpu.id).collect();
        let missing = self.missing(&there);
        let unreadable = unreadable.iter().map(|gpu| (gpu.id, GpuChange::Unreadable));
        let lost = missing.into_iter().map(|gpu| (gpu, GpuChange::Lost));
        for (gpu, change) in found.chain(unreadable).chain(lost) {
            self.gpu_is(gpu, change, self.anchor, out);
        }
    }

    /// Compares the GPUs that are there with those that were, and their counters too.
    fn missing(&mut self, there: &[GpuId]) -> Vec<GpuId> {
        let Some(inventory) = &mut self.inventory else { return Vec::new() };
        inventory.present(there);
        if let Some(health) = &mut self.health {
            for gpu in there.iter().copied() {
                match health.counters(gpu) {
                    Some(counters) => inventory.set_counters(gpu, counters),
                    None => health.remember(gpu, inventory.counters(gpu)),
                }
            }
        }
        let may_load = self.anchor.boot_ns < DRIVER_MAY_TAKE_NS;
        if may_load { Vec::new() } else { inventory.missing(there) }
    }

    /// Compares with what earlier runs knew of the machine.
    pub fn remember(&mut self, inventory: Inventory) {
        self.inventory = Some(inventory);
    }

    /// What is known of the machine, to be kept.
    #[must_use]
    pub fn inventory(&self) -> Option<&Inventory> {
        self.inventory.as_ref()
    }

    /// What each GPU is.
    #[must_use]
    pub fn states(&self) -> Vec<(GpuId, GpuChange)> {
        let mut states: Vec<_> = self.gpus.values().copied().collect();
        states.sort_by_key(|(gpu, _)| (gpu.bdf, gpu.partition));
        states
    }

    /// Whether the GPUs are released on request: those that leave meanwhile are not lost.
    pub fn set_released(&mut self, released: bool) {
        self.released = released;
    }

    /// GPUs that were asked how they are doing and have not answered.
    #[must_use]
    pub fn silent(&self, now_ns: u64) -> Vec<GpuId> {
        self.health.as_ref().map(|health| health.silent(now_ns)).unwrap_or_default()
    }

    /// Nothing more comes: what is counted is told.
    pub fn finish(&mut self, out: Out<'_>) {
        let mut over = Vec::new();
        self.aggregator.finish(&mut |told| over.push(told));
        self.tell_aggregates(over, out);
        self.tell_readings(out);
    }

    fn event(&mut self, event: &Event, out: Out<'_>) {
        let record = event.record();
        let mode = event.event_type().map(|event_type| self.modes.mode(event_type));
        let is_off = mode == Some(EventMode::Off);
        let pairs = !is_off && self.pairs(event.event_type());
        if !pairs {
            self.spans.see(&event.facts(), &record);
        }
        if is_off {
            return;
        }
        self.anchor = Anchor { boot_ns: event.time.boot_ns, unix_ns: event.time.unix_ns };
        self.victims.notice(event, &mut self.attribution);
        let mut over = Vec::new();
        let told = self.aggregator.event(event, &record, &mut |told| over.push(told));
        let mut spans = Vec::new();
        if pairs {
            self.spans.push_decoded(&event.facts(), &record, |span| spans.push(span));
        }
        // Also where it is only counted: starts and ends of processes must not be missed.
        let is_life =
            matches!(event.event_type(), Some(EventType::ProcessStart | EventType::ProcessEnd));
        let who = if told || is_life { self.attribution.of(event) } else { Attributed::default() };
        if !over.is_empty() {
            self.tell_aggregates(over, out);
        }
        if told {
            let severity = event.severity();
            let health = self.health.as_mut().and_then(|h| h.on_event(event.gpu, severity));
            let what = What::Event(event.clone());
            let owner = event.facts().owner_in(&record);
            let life = owner.map(|pid| self.spans.life(event.gpu, pid)).unwrap_or_default();
            out(Signal { life, ..signal(what, event.gpu, self.anchor, who, health) });
        }
        if !spans.is_empty() {
            self.tell_spans(spans, told, event.time.received_boot_ns, out);
        }
    }

    fn gap(&mut self, gap: &Gap, out: Out<'_>) {
        let at = Anchor { boot_ns: gap.to_boot_ns, unix_ns: gap.unix_ns };
        self.anchor = at;
        let mut spans = Vec::new();
        self.spans.push_gap(gap, |span| spans.push(span));
        let what = What::Gap(gap.clone());
        out(signal(what, gap.gpu, at, Attributed::default(), None));
        self.tell_spans(spans, false, gap.to_boot_ns, out);
        self.victims.gap(gap);
        match gap.cause {
            GapCause::GpuRemoved if self.released => {}
            GapCause::GpuRemoved => self.gpu_is(gap.gpu, GpuChange::Lost, at, out),
            GapCause::Reopened => self.gpu_is(gap.gpu, GpuChange::Found, at, out),
            _ => {}
        }
    }

    fn gpu_is(&mut self, gpu: GpuId, change: GpuChange, at: Anchor, out: Out<'_>) {
        let before = self.gpus.insert((gpu.bdf, gpu.partition), (gpu, change));
        if before.map(|(_, before)| before) != Some(change) {
            out(signal(What::Gpu(change), gpu, at, Attributed::default(), None));
        }
    }

    /// Whether spans hear of events of this type: not where the other half of them is off.
    fn pairs(&self, event_type: Option<EventType>) -> bool {
        use EventType as T;
        let other = match event_type {
            Some(T::PageFaultStart) => T::PageFaultEnd,
            Some(T::PageFaultEnd) => T::PageFaultStart,
            Some(T::MigrateStart) => T::MigrateEnd,
            Some(T::MigrateEnd) => T::MigrateStart,
            Some(T::QueueEviction) => T::QueueRestore,
            Some(T::QueueRestore) => T::QueueEviction,
            Some(T::GpuPreReset) => T::GpuPostReset,
            Some(T::GpuPostReset) => T::GpuPreReset,
            Some(T::ProcessStart) => T::ProcessEnd,
            Some(T::ProcessEnd) => T::ProcessStart,
            _ => return true,
        };
        self.modes.mode(other) != EventMode::Off
    }

    fn tell_spans(&mut self, spans: Vec<Span>, ended_by_told: bool, now_ns: u64, out: Out<'_>) {
        let mut over = Vec::new();
        for mut span in spans {
            let reset = (span.kind() == SpanKind::Reset)
                .then(|| Arc::new(self.victims.of_reset(&mut span)));
            let singly =
                self.aggregator.span(&span, ended_by_told, now_ns, &mut |told| over.push(told));
            if singly {
                let who = self.who(span.pid, span.process, now_ns);
                let at = self.end_of(&span);
                let what = What::Span(span);
                out(Signal { life: span.life, reset, ..signal(what, span.gpu, at, who, None) });
            }
        }
        self.tell_aggregates(over, out);
    }

    /// When a span is told: at its end, or where it has none, when it was given up.
    fn end_of(&self, span: &Span) -> Anchor {
        span.end.map_or(self.anchor, |end| Anchor { boot_ns: end.boot_ns, unix_ns: end.unix_ns })
    }

    fn tell_aggregates(&mut self, over: Vec<Told>, out: Out<'_>) {
        for (gpu, aggregate) in over {
            let name = aggregate.examples.first().and_then(Event::process);
            let name = name.map_or(Comm::NONE, Comm::new);
            let at = Anchor {
                boot_ns: aggregate.to_boot_ns,
                unix_ns: self.anchor.unix_ns_of(aggregate.to_boot_ns),
            };
            let who = self.who(aggregate.pid, name, aggregate.to_boot_ns);
            let owner = aggregate.pid.or(aggregate.tid);
            let life = owner.map(|pid| self.spans.life(gpu, pid)).unwrap_or_default();
            out(Signal { life, ..signal(What::Aggregate(aggregate), gpu, at, who, None) });
        }
    }

    fn tell_readings(&mut self, out: Out<'_>) {
        let Some(watch) = &mut self.health else { return };
        for Reading { gpu, at, health, ras, periodic } in watch.take_readings() {
            let nobody = Attributed::default;
            if periodic {
                out(signal(What::Health, gpu, at, nobody(), Some(Arc::clone(&health))));
            }
            for increase in ras {
                let what = What::RasErrors(increase);
                out(signal(what, gpu, at, nobody(), Some(Arc::clone(&health))));
            }
        }
    }

    fn who(&mut self, pid: Option<u32>, name: Comm, now_ns: u64) -> Attributed {
        pid.map_or_else(Attributed::default, |pid| self.attribution.find(pid, name, now_ns))
    }
}

fn signal(
    what: What,
    gpu: GpuId,
    at: Anchor,
    who: Attributed,
    health: Option<Arc<Health>>,
) -> Signal {
    let Attributed { process, ambiguous } = who;
    Signal {
        what,
        boot_ns: at.boot_ns,
        unix_ns: at.unix_ns,
        gpu,
        life: Life::default(),
        process,
        ambiguous,
        health,
        reset: None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::{Condvar, Mutex};
    use std::time::Instant;

    use gpuev_sim::SimMachine;

    use super::*;

    static HANGS: (Mutex<bool>, Condvar) = (Mutex::new(true), Condvar::new());

    /// The first GPU hangs.
    fn read(gpu: &Gpu) -> Health {
        let hangs = HANGS.0.lock().unwrap();
        if gpu.id.index == 0 {
            drop(HANGS.1.wait_while(hangs, |hangs| *hangs).unwrap());
        }
        gpu.health()
    }

    /// Ticks at `now` until `wanted` was told.
    fn tick(pipeline: &mut Pipeline, gpus: &[Gpu], now: Anchor, wanted: &dyn Fn(&Signal) -> bool) {
        let began = Instant::now();
        let mut told = false;
        while !told {
            assert!(began.elapsed().as_secs() < 30, "nothing came of it");
            pipeline.tick(now, &mut |signal| told |= wanted(&signal));
            pipeline.gpus(gpus, &[], &mut |signal| told |= wanted(&signal));
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_gpu_that_hangs_is_silent_and_hides_no_other() {
        let sim = SimMachine::builder().gpus(2).build().unwrap();
        let gpus = Machine::at(sim.root()).gpus().unwrap();
        let config = Config::default();
        let mut pipeline = Pipeline::live(&Machine::at(sim.root()), &config).unwrap();
        pipeline.health = Some(HealthWatch::with_reader(config.health, read));
        pipeline.gpus(&gpus, &[], &mut |_| {});
        let start = Anchor::now();
        let after = |seconds: u64| {
            let boot_ns = start.boot_ns + seconds * 1_000_000_000;
            Anchor { boot_ns, unix_ns: start.unix_ns_of(boot_ns) }
        };
        let of = |index: u32| move |signal: &Signal| signal.gpu.index == index;
        let reads = |signal: &Signal| matches!(signal.what, What::Health) && of(1)(signal);
        tick(&mut pipeline, &gpus, after(0), &reads);
        let is = |change: GpuChange| move |signal: &Signal| matches!(signal.what, What::Gpu(now) if now == change);
        tick(&mut pipeline, &gpus, after(31), &|signal: &Signal| {
            is(GpuChange::Silent)(signal) && of(0)(signal)
        });
        let states: Vec<GpuChange> = pipeline.states().iter().map(|(_, state)| *state).collect();
        assert_eq!(states, [GpuChange::Silent, GpuChange::Found]);
        tick(&mut pipeline, &gpus, after(62), &reads);
        *HANGS.0.lock().unwrap() = false;
        HANGS.1.notify_all();
        tick(&mut pipeline, &gpus, after(62), &|signal: &Signal| {
            is(GpuChange::Found)(signal) && of(0)(signal)
        });
    }
}
