//! A simulated machine whose clock is the story's: hours pass in seconds, and every line still goes the genuine
//! way, from the driver's FIFO through reader, pipeline and rules.

use std::collections::BTreeMap;
use std::sync::Arc;

use gpuev::health::Health;
use gpuev::time::Anchor;
use gpuev::{EventMask, EventReader, Gap, GapCause, Gpu, GpuId, Item};
use gpuev_agent::alert::{Book, State};
use gpuev_agent::config::Events;
use gpuev_agent::rule::{Engine, RuleSet};
use gpuev_agent::{Alert, AlertChange, AlertState, Pipeline, Signal, What};
use gpuev_sim::{DriverEvent, Kernel, SimMachine};

use crate::machine::machine_of;

pub(crate) const SECOND: u64 = 1_000_000_000;
pub(crate) const MINUTE: u64 = 60 * SECOND;
pub(crate) const HOUR: u64 = 60 * MINUTE;

/// When stories begin: 2026-11-22.
const BEGIN: Anchor = Anchor { boot_ns: HOUR, unix_ns: 1_795_305_600_000_000_000 };

/// A machine, its clock, and what the rules have said so far.
pub(crate) struct Stage {
    pub(crate) sim: SimMachine,
    pub(crate) engine: Engine,
    pub(crate) changes: Vec<AlertChange>,
    gpus: Vec<Gpu>,
    readers: Vec<EventReader>,
    pipeline: Pipeline,
    now_ns: u64,
    ticked_ns: u64,
    clock_step_ns: i64,
    boot_id: String,
}

impl Stage {
    /// With the rules that come with the program.
    pub(crate) fn new(gpus: usize) -> Self {
        Self::with_rules(gpus, RuleSet::builtin())
    }

    pub(crate) fn with_rules(gpus: usize, rules: RuleSet) -> Self {
        let sim = SimMachine::builder().gpus(gpus).kernel(Kernel::V7_2).build().unwrap();
        let machine = machine_of(&sim);
        let mask = EventMask::ALL.of_all_processes();
        let gpus = machine.gpus().unwrap();
        let readers =
            gpus.iter().map(|gpu| EventReader::open(&machine, gpu, mask).unwrap()).collect();
        let pipeline = Pipeline::replay(&machine, &Events::default());
        let engine = Engine::new(rules, Book::new(), "node7");
        let now_ns = BEGIN.boot_ns;
        Self {
            sim,
            engine,
            changes: Vec::new(),
            gpus,
            readers,
            pipeline,
            now_ns,
            ticked_ns: now_ns,
            clock_step_ns: 0,
            boot_id: "boot 1".to_owned(),
        }
    }

    pub(crate) fn now(&self) -> Anchor {
        let unix_ns = BEGIN.unix_ns_of(self.now_ns) + self.clock_step_ns;
        Anchor { boot_ns: self.now_ns, unix_ns }
    }

    pub(crate) fn gpu(&self, gpu: usize) -> GpuId {
        self.readers[gpu].gpu()
    }

    /// The driver tells something now.
    pub(crate) fn emit(&mut self, gpu: usize, event: &DriverEvent) {
        self.sim.emit_batch_at(gpu, [(self.now_ns, event)]);
        while let Some(item) = self.readers[gpu].next().unwrap() {
            let Item::Event(mut event) = item else { panic!("{item:?} from one line") };
            event.time.boot_ns = self.now_ns;
            event.time.received_boot_ns = self.now_ns;
            event.time.unix_ns = self.now().unix_ns;
            self.push(&Item::Event(event));
        }
    }

    pub(crate) fn gap(&mut self, gpu: usize, cause: GapCause) {
        let Anchor { boot_ns, unix_ns } = self.now();
        let gpu = self.gpu(gpu);
        let (from_boot_ns, to_boot_ns) = (boot_ns, boot_ns);
        let gap = Gap { gpu, cause, count: None, from_boot_ns, to_boot_ns, unix_ns };
        self.push(&Item::Gap(gap));
    }

    /// The clock on the wall is set.
    pub(crate) fn step_clock(&mut self, seconds: i64) {
        self.clock_step_ns += seconds * 1_000_000_000;
    }

    /// The agent ends and begins again, in the boot `boot_id`, with what it kept; the time between is a gap of each GPU.
    pub(crate) fn restart(&mut self, rules: RuleSet, boot_id: &str) {
        let kept = serde_json::to_string(&self.engine.state(&self.boot_id)).unwrap();
        let kept: State = serde_json::from_str(&kept).unwrap();
        boot_id.clone_into(&mut self.boot_id);
        self.engine = Engine::new(rules, Book::new(), "node7");
        self.pipeline = Pipeline::replay(&machine_of(&self.sim), &Events::default());
        let now = self.now();
        self.changes.extend(self.engine.restore(kept, boot_id, now.boot_ns, now.unix_ns));
        (0..self.gpus.len()).for_each(|gpu| self.gap(gpu, GapCause::Reopened));
    }

    /// Something that the agent itself noticed.
    pub(crate) fn notice(&mut self, gpu: usize, what: What, health: Option<Health>) {
        let Anchor { boot_ns, unix_ns } = self.now();
        let gpu = self.gpu(gpu);
        let signal = Signal {
            what,
            boot_ns,
            unix_ns,
            gpu,
            life: gpuev::Life::default(),
            process: None,
            ambiguous: false,
            health: health.map(Arc::new),
            reset: None,
        };
        self.changes.extend(self.engine.observe(&signal));
    }

    /// What the GPU's sensors say now.
    pub(crate) fn read_health(&mut self, gpu: usize) {
        let health = self.gpus[gpu].health();
        self.notice(gpu, What::Health, Some(health));
    }

    /// Time passes, second by second.
    pub(crate) fn pass(&mut self, ns: u64) {
        self.pass_in_steps(ns, SECOND);
    }

    /// Time passes in which nothing happens: hours of it.
    pub(crate) fn rest(&mut self, ns: u64) {
        self.pass_in_steps(ns, MINUTE);
    }

    fn pass_in_steps(&mut self, ns: u64, step_ns: u64) {
        let until = self.now_ns + ns;
        while self.ticked_ns + step_ns <= until {
            self.ticked_ns += step_ns;
            self.now_ns = self.ticked_ns;
            let now = self.now();
            let Self { pipeline, engine, changes, .. } = self;
            pipeline.tick(now, &mut |signal| changes.extend(engine.observe(&signal)));
            changes.extend(engine.tick(now.boot_ns, now.unix_ns));
        }
        self.now_ns = until;
    }

    /// Time passes up to so long after the begin.
    pub(crate) fn pass_to(&mut self, at_ns: u64) {
        self.pass((BEGIN.boot_ns + at_ns).saturating_sub(self.now_ns));
    }

    fn push(&mut self, item: &Item) {
        let Self { pipeline, engine, changes, .. } = self;
        pipeline.push(item, &mut |signal| changes.extend(engine.observe(&signal)));
    }

    /// How many alerts of each rule fired.
    pub(crate) fn fired(&self) -> BTreeMap<String, usize> {
        let alerts = self.changes.iter().map(|change| &change.alert);
        let firing = alerts.filter(|alert| alert.state == AlertState::Firing);
        let once: BTreeMap<&str, &str> =
            firing.map(|alert| (alert.id.as_str(), alert.rule.as_str())).collect();
        let mut fired = BTreeMap::new();
        for rule in once.into_values() {
            *fired.entry(rule.to_owned()).or_default() += 1;
        }
        fired
    }

    /// The rules that fire now.
    pub(crate) fn firing(&self) -> Vec<String> {
        let alerts = self.engine.book().alerts();
        let firing = alerts.iter().filter(|alert| alert.state == AlertState::Firing);
        let mut rules: Vec<String> = firing.map(|alert| alert.rule.clone()).collect();
        rules.sort();
        rules
    }

    /// The last that was said of an alert of this rule.
    pub(crate) fn last(&self, rule: &str) -> Arc<Alert> {
        let of_rule = |change: &&AlertChange| change.alert.rule == rule;
        Arc::clone(&self.changes.iter().rev().find(of_rule).unwrap().alert)
    }
}
