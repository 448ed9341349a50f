//! What is known of a text so far: whose it is, and when.
//!
//! Most of the driver's lines carry its time since boot; some do not, and a log has a wall time for them at best. The
//! two go together once a line has both. What comes before that line is held, up to [`MOST_HELD`], and takes its
//! time from it.

use std::collections::{HashMap, HashSet, VecDeque};

use gpuev::time::Anchor;
use gpuev::{Clock, Comm, Event, EventFacts, EventTime, Gap, GapCause, GpuId, Item, decode};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::amd_smi::{self, AmdSmi};
use super::boots::Boots;
use super::driver::{Kind, line_of};
use super::envelope::View;
use super::gpus::Gpus;
use super::time::Calendar;
use super::{Assumed, Broken, ImportFormat, Meaning, Read};
use crate::session::Session;

/// Lines that wait to be understood. With names of 15 bytes that is a few MiB.
const MOST_HELD: usize = 16_384;
/// Programs that are known as writers of the driver's lines; what more there are is not believed so easily.
const MOST_WRITERS: usize = 1024;
/// Logs tell seconds: a line may be earlier by so much than one that stands before it.
const LOG_RESOLUTION_NS: u64 = 1_000_000_000;

#[derive(Debug)]
pub(super) struct State {
    pub(super) gpus: Gpus,
    pub(super) pid: Option<u32>,
    said: Option<ImportFormat>,
    calendar: Calendar,
    only_host: Option<String>,
    host: Option<String>,
    boot_id: Option<String>,
    /// By what wall times are told: the first anchor of each boot.
    anchor: Anchor,
    /// By what log times are turned into times since boot: the latest anchor.
    latest: Anchor,
    /// The text itself has told what time it was when.
    anchored: bool,
    boots: Boots,
    boot: u32,
    /// The latest time of the driver.
    now_boot_ns: Option<u64>,
    seqs: HashMap<GpuId, u64>,
    /// The GPUs of the session that the text tells of.
    recorded: Vec<GpuId>,
    amd_smi: AmdSmi,
    /// Programs of which a line is certainly the driver's; without a name, the text itself.
    writers: HashSet<Option<String>>,
    held: VecDeque<Held>,
    ready: VecDeque<(u32, Item, Option<i64>)>,
    ready_boot: u32,
    ready_number: Option<i64>,
    refused: VecDeque<(u64, String)>,
    line: u64,
    unknown: u64,
    assumed_times: bool,
}

/// A line of the driver without its time.
#[derive(Debug)]
struct Held {
    line: u64,
    gpu: GpuId,
    unix_ns: Option<i64>,
    raw: Vec<u8>,
    /// Who wrote it, where that has to be known before it is believed.
    doubted: Option<Option<String>>,
}

impl State {
    pub(super) fn new(assumed: Assumed, said: Option<ImportFormat>) -> Self {
        let latest = Timestamp::from_nanosecond(assumed.written_unix_ns.into()).unwrap_or_default();
        Self {
            gpus: Gpus::new(assumed.gpus),
            pid: assumed.pid,
            said,
            calendar: Calendar { zone: TimeZone::try_system().unwrap_or(TimeZone::UTC), latest },
            only_host: assumed.host,
            host: None,
            boot_id: None,
            anchor: assumed.anchor,
            latest: assumed.anchor,
            anchored: false,
            boots: Boots::default(),
            boot: 0,
            now_boot_ns: None,
            seqs: HashMap::new(),
            recorded: Vec::new(),
            amd_smi: AmdSmi::default(),
            writers: HashSet::new(),
            held: VecDeque::new(),
            ready: VecDeque::new(),
            ready_boot: 0,
            ready_number: None,
            refused: VecDeque::new(),
            line: 0,
            unknown: 0,
            assumed_times: false,
        }
    }

    pub(super) fn said(&self, format: ImportFormat) -> bool {
        self.said == Some(format)
    }

    pub(super) fn calendar(&self) -> &Calendar {
        &self.calendar
    }

    pub(super) fn at_line(&mut self, number: u64) {
        self.line = number;
    }

    pub(super) fn record(&mut self, gpus: impl Iterator<Item = GpuId>) {
        self.recorded = gpus.collect();
    }

    pub(super) fn recorded(&self) -> &[GpuId] {
        &self.recorded
    }

    pub(super) fn unknown(&self) -> u64 {
        self.unknown
    }

    /// The boot of the item that was taken last.
    pub(super) fn boot_of_last(&self) -> u32 {
        self.ready_boot
    }

    pub(super) fn next_ready(&mut self) -> Option<Item> {
        let (boot, item, number) = self.ready.pop_front()?;
        (self.ready_boot, self.ready_number) = (boot, number);
        let unknown = matches!(&item, Item::Event(event) if event.event_type().is_none());
        self.unknown += u64::from(unknown);
        Some(item)
    }

    pub(super) fn push_ready(&mut self, item: Item) {
        self.ready.push_back((self.boot, item, None));
    }

    /// As [`push_ready`](Self::push_ready), of an item with a number in its session.
    pub(super) fn push_numbered(&mut self, item: Item, number: i64) {
        self.ready.push_back((self.boot, item, Some(number)));
    }

    pub(super) fn number_of_last(&self) -> Option<i64> {
        self.ready_number
    }

    pub(super) fn next_refused(&mut self) -> Option<(u64, String)> {
        self.refused.pop_front()
    }

    pub(super) fn session_from(&self, started: Anchor) -> Session {
        Session {
            host: self.host.clone(),
            boot_id: self.boot_id.clone(),
            ..Session::unknown(started)
        }
    }

    pub(super) fn assumptions(&self) -> Option<String> {
        let zone = self.calendar.zone.iana_name().unwrap_or("the local time zone");
        let told = format!("its times have no zone, maybe no year: read as of {zone}, before now");
        self.assumed_times.then_some(told)
    }

    /// `Boot 0123456789abcdef0123456789abcdef --`, which journalctl writes between the boots.
    pub(super) fn journal_mark(&mut self, mark: &[u8]) {
        let words = std::str::from_utf8(mark).unwrap_or_default();
        match words.split(' ').collect::<Vec<_>>()[..] {
            ["Boot", id, "--"] => {
                self.reboot();
                self.boot_id = Some(with_dashes(id));
            }
            ["Reboot", "--"] => self.reboot(),
            _ => {}
        }
    }

    fn take_boot_id(&mut self, id: &str) {
        let id = id.replace('-', "");
        let before = self.boot_id.replace(with_dashes(&id));
        if before.is_some() && before != self.boot_id {
            self.reboot();
        }
    }

    /// The machine was booted: nothing of its clocks is known any more.
    fn reboot(&mut self) {
        self.place_all();
        self.anchored = false;
        self.boots = Boots::default();
        self.begin_boot();
    }

    fn begin_boot(&mut self) {
        self.now_boot_ns = None;
        self.seqs.clear();
        self.boot += 1;
    }

    /// What an envelope says of where a line of the driver comes from. `false` where that is not wanted.
    fn take_origin(&mut self, view: &View<'_>) -> Result<bool, Broken> {
        if let Some(host) = &view.host {
            let same = |known: &String| short(known) == short(host);
            if self.only_host.as_ref().is_some_and(|only| !same(only)) {
                return Ok(false);
            }
            if let Some(other) = self.host.as_ref().filter(|known| !same(known)) {
                return Err(format!(
                    "it is of host {host}, and what stands before of {other}: import one host at a time \
                     (--host NAME)"
                ));
            }
            self.host.get_or_insert_with(|| host.clone());
        }
        if let Some(id) = &view.boot_id {
            self.take_boot_id(id);
        }
        self.assumed_times |= view.assumed;
        Ok(true)
    }

    /// The payload `driver`.
    pub(super) fn driver_line(view: &View<'_>, state: &mut Self) -> Option<Read> {
        let line = line_of(view)?;
        let said = state.said(ImportFormat::Driver);
        let trusted = said || state.writers.contains(&view.program);
        match line.kind {
            Kind::Unknown if !trusted => return None,
            Kind::Damaged if !said => {
                return Some(Err("it is cut or damaged: no line of the driver".to_owned()));
            }
            Kind::Certain if state.writers.len() < MOST_WRITERS => {
                state.writers.insert(view.program.clone());
            }
            _ => {}
        }
        let gpu = match line.bdf {
            Some(bdf) => state.gpus.by_bdf(bdf).ok_or("it names one GPU more than can be"),
            None => state.gpus.by_index(0).ok_or("there is no GPU"),
        };
        let doubted = (line.kind == Kind::Likely && !trusted).then(|| view.program.clone());
        let taken = gpu.map_err(str::to_owned).and_then(|gpu| {
            if !state.take_origin(view)? {
                return Ok(Meaning::Nothing);
            }
            Ok(state.take(gpu, line.raw, view, doubted))
        });
        Some(taken)
    }

    /// The payload `amd-smi`.
    pub(super) fn amd_smi_line(view: &View<'_>, state: &mut Self) -> Option<Read> {
        let step = state.amd_smi.line(&view.text, &state.calendar);
        let (index, raw, unix_ns) = match step {
            amd_smi::Step::Other => return None,
            amd_smi::Step::Taken => return Some(Ok(Meaning::Part)),
            amd_smi::Step::Broken(why) => return Some(Err(why)),
            amd_smi::Step::Event { gpu, raw, unix_ns } => (gpu, raw, unix_ns),
        };
        let view = View { unix_ns: unix_ns.or(view.unix_ns), ..view.clone() };
        let gpu = state.gpus.by_index(index).ok_or_else(|| format!("no machine has a GPU {index}"));
        let taken = gpu.and_then(|gpu| {
            if !state.take_origin(&view)? {
                return Ok(Meaning::Nothing);
            }
            Ok(state.take(gpu, raw.as_bytes(), &view, None))
        });
        Some(taken)
    }

    /// A line of the driver in `view`: an item at once where its time is known, else held.
    fn take(
        &mut self,
        gpu: GpuId,
        raw: &[u8],
        view: &View<'_>,
        doubted: Option<Option<String>>,
    ) -> Meaning {
        let record = decode(raw);
        let count = record.drop_count();
        if let Some(stamp) = record.stamp().or(count.map(|count| count.at)) {
            if let Some(unix_ns) = view.unix_ns {
                self.take_anchor(Anchor { boot_ns: stamp.boot_ns, unix_ns });
            }
            if self.now_boot_ns.is_none() {
                // What is held without any time is not later than that, as far as anything tells.
                self.place_untimed(stamp.boot_ns);
            }
            self.place_held();
            self.stamped(gpu, stamp.boot_ns, raw, count.is_some());
            return Meaning::Held;
        }
        if let (Some(boot_ns), Some(unix_ns), false) = (view.kernel_ns, view.unix_ns, self.anchored)
        {
            self.take_anchor(Anchor { boot_ns, unix_ns });
        }
        let line = self.line;
        let held = Held { line, gpu, unix_ns: view.unix_ns, raw: raw.to_vec(), doubted };
        // What has a wall time waits for the next line that has the driver's too: it may tell of another boot.
        let known = match (view.unix_ns, view.kernel_ns) {
            (Some(_), _) => false,
            (None, Some(_)) => true,
            (None, None) => self.now_boot_ns.is_some(),
        };
        if known && held.doubted.is_none() {
            self.place(&held, view.kernel_ns.filter(|_| view.unix_ns.is_none()));
        } else {
            self.held.push_back(held);
            if self.held.len() > MOST_HELD {
                self.place_all();
            }
        }
        Meaning::Held
    }

    /// Goes by the first `anchor` of each boot for wall times.
    fn take_anchor(&mut self, anchor: Anchor) {
        let rebooted = self.boots.has_begun(anchor);
        if rebooted {
            self.place_before(anchor.unix_ns_of(0));
            self.begin_boot();
        }
        if rebooted || !self.anchored {
            self.anchor = anchor;
            self.anchored = true;
        }
        self.latest = anchor;
    }

    /// Places what is held and now has a time, and whose writer is known now.
    fn place_held(&mut self) {
        for held in std::mem::take(&mut self.held) {
            let believed = held.doubted.as_ref().is_none_or(|writer| self.writers.contains(writer));
            if believed && (self.anchored || held.unix_ns.is_none()) {
                self.place(&held, None);
            } else {
                self.held.push_back(held);
            }
        }
    }

    /// Places what was logged before this moment, at which another boot began.
    fn place_before(&mut self, unix_ns: i64) {
        let later = |held: &Held| held.unix_ns.is_some_and(|at| at >= unix_ns);
        let (later, before) = std::mem::take(&mut self.held).into_iter().partition(later);
        self.held = before;
        self.place_all();
        self.held = later;
    }

    /// Places what is held without any time at the first time of the driver.
    fn place_untimed(&mut self, boot_ns: u64) {
        for held in std::mem::take(&mut self.held) {
            let believed = held.doubted.as_ref().is_none_or(|writer| self.writers.contains(writer));
            if believed && held.unix_ns.is_none() {
                self.place(&held, Some(boot_ns));
            } else {
                self.held.push_back(held);
            }
        }
    }

    /// Nothing more will tell: what is held is placed by what was assumed, and what is not believed is refused.
    fn place_all(&mut self) {
        for held in std::mem::take(&mut self.held) {
            let believed = held.doubted.as_ref().is_none_or(|writer| self.writers.contains(writer));
            if !believed {
                let why = "it may be a line of the driver, but nothing else in the text is: say so with \
                    --format driver";
                self.refused.push_back((held.line, why.to_owned()));
                continue;
            }
            if let Some(unix_ns) = held.unix_ns
                && !self.anchored
                && unix_ns < self.anchor.unix_ns_of(0)
            {
                // Whatever was assumed, the machine was up by then.
                self.anchor = Anchor { boot_ns: 0, unix_ns };
                self.latest = self.anchor;
            }
            self.place(&held, None);
        }
    }

    /// The text is over.
    pub(super) fn end(&mut self) {
        self.place_all();
    }

    /// Makes an item of a line without the driver's time.
    fn place(&mut self, held: &Held, boot_ns: Option<u64>) {
        let now = self.now_boot_ns.unwrap_or(0);
        let boot_ns = boot_ns.unwrap_or_else(|| match held.unix_ns {
            Some(unix_ns) => {
                let by_log = boot_ns_at(self.latest, unix_ns);
                if by_log < now && by_log.saturating_add(LOG_RESOLUTION_NS) >= now {
                    now
                } else {
                    by_log
                }
            }
            None => now,
        });
        let unix_ns = held.unix_ns.unwrap_or_else(|| self.anchor.unix_ns_of(boot_ns));
        let item = self.event(
            held.gpu,
            EventTime { boot_ns, clock: Clock::Receipt, received_boot_ns: boot_ns, unix_ns },
            &held.raw,
        );
        self.push_ready(item);
    }

    /// The event of a line with the driver's time. Where it `may_count` dropped events a gap follows: nothing else in a
    /// text says that events are missing.
    pub(super) fn stamped(&mut self, gpu: GpuId, boot_ns: u64, raw: &[u8], may_count: bool) {
        let since = self.now_boot_ns.unwrap_or(boot_ns);
        self.now_boot_ns = Some(self.now_boot_ns.unwrap_or(0).max(boot_ns));
        let unix_ns = self.anchor.unix_ns_of(boot_ns);
        let time = EventTime { boot_ns, clock: Clock::Driver, received_boot_ns: boot_ns, unix_ns };
        let event = self.event(gpu, time, raw);
        self.push_ready(event);
        if may_count {
            self.push_ready(Item::Gap(Gap {
                gpu,
                cause: GapCause::DriverFifoFull,
                count: None,
                from_boot_ns: since.min(boot_ns),
                to_boot_ns: boot_ns,
                unix_ns,
            }));
        }
    }

    fn event(&mut self, gpu: GpuId, time: EventTime, raw: &[u8]) -> Item {
        let next = self.seqs.entry(gpu).or_default();
        let seq = *next;
        *next += 1;
        let facts =
            EventFacts { gpu, seq, time, doubtful: false, pid: None, comm: Comm::NONE, raw };
        Item::Event(Event::from_facts(facts))
    }
}

fn boot_ns_at(anchor: Anchor, unix_ns: i64) -> u64 {
    let boot_ns = i128::from(unix_ns) - i128::from(anchor.unix_ns) + i128::from(anchor.boot_ns);
    u64::try_from(boot_ns.max(0)).unwrap_or(u64::MAX)
}

/// `node17` of `node17.example.org`: loggers write either.
fn short(host: &str) -> &str {
    host.split('.').next().unwrap_or(host)
}

/// A boot id as `/proc` writes it; the journal leaves out the dashes.
fn with_dashes(id: &str) -> String {
    match (id.get(..8), id.get(8..12), id.get(12..16), id.get(16..20), id.get(20..)) {
        (Some(a), Some(b), Some(c), Some(d), Some(e)) if id.len() == 32 => {
            format!("{a}-{b}-{c}-{d}-{e}")
        }
        _ => id.to_owned(),
    }
}
