//! The driver's side: events at a steady rate.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use gpuev_sim::{DriverEvent, Pid, SimMachine, boot_ns, throttler};

/// Sleeps are this late as a rule; what is left of a wait is spent in a loop.
const SLEEP_IS_LATE_BY: Duration = Duration::from_micros(80);
/// More ticks cannot be kept: more events come at each instead.
const TICKS_A_SECOND: u32 = 50_000;

/// What a load came to.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Raised {
    /// Events that were raised.
    pub(crate) events: u64,
    /// Ticks that passed while this program was held up. They are left out: a burst that makes up for them
    /// would be a load that nobody asked for, and full FIFOs that are nobody's fault.
    pub(crate) skipped_ticks: u64,
}

/// What is raised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Events {
    /// Page faults of this process, as in most streams.
    Faults,
    /// Throttling, its count the time: for who takes nothing else.
    Throttling,
}

/// Raises `events` on the first GPU, `rate` a second.
pub(crate) fn raise(machine: &SimMachine, events: Events, rate: u32, during: Duration) -> Raised {
    // A refusal makes sleeps later than they need be, no more.
    let _refused = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    let per_tick = rate.div_ceil(TICKS_A_SECOND);
    let tick = Duration::from_secs(1) * per_tick / rate;
    let per_tick = u64::from(per_tick);
    let end = Instant::now() + during;
    let mut raised = Raised::default();
    let mut next = Instant::now();
    while next < end {
        wait_until(next);
        let numbers = raised.events..raised.events + per_tick;
        let batch: Vec<DriverEvent> = numbers.map(|number| events.event(number)).collect();
        machine.emit_batch(0, &batch);
        raised.events += per_tick;
        next += tick;
        let late = Instant::now().saturating_duration_since(next);
        let missed = u32::try_from(late.as_nanos() / tick.as_nanos()).unwrap_or(u32::MAX);
        next += tick * missed;
        raised.skipped_ticks += u64::from(missed);
    }
    raised
}

impl Events {
    fn event(self, number: u64) -> DriverEvent {
        let (pid, page) = (Pid::from(std::process::id()), 0x7_fff0_0000 + number / 2);
        match (self, number % 2) {
            (Self::Throttling, _) => {
                DriverEvent::Thermal { throttlers: throttler::PPT0, count: boot_ns() }
            }
            (Self::Faults, 0) => DriverEvent::PageFaultStart { pid, page, write: true },
            (Self::Faults, _) => DriverEvent::PageFaultEnd { pid, page, migrated: true },
        }
    }
}

fn wait_until(at: Instant) {
    let left = at.saturating_duration_since(Instant::now());
    if left > SLEEP_IS_LATE_BY {
        std::thread::sleep(left - SLEEP_IS_LATE_BY);
    }
    while Instant::now() < at {
        std::hint::spin_loop();
    }
}
