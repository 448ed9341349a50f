//! Names of processes on the way of an event: looked up once, and nobody waits for them.

use std::fs;

use gpuev::{EventMask, EventReader, Filter, GapCause, Item, Machine, Monitor, Subscription};
use gpuev_sim::{DriverEvent, Pid, SimMachine, SimProcess, throttler};

use crate::driver::machine_of;

/// A machine on which looking a name up takes long: KFD lists thousands of processes.
fn busy_machine() -> SimMachine {
    let sim = SimMachine::builder().gpus(2).build().unwrap();
    for pid in 100_000..104_000 {
        let dir = sim.root().join(format!("sys/class/kfd/kfd/proc/{pid}"));
        fs::create_dir_all(dir).unwrap();
    }
    sim
}

fn fault(sim: &SimMachine, gpu: usize, pid: u32) {
    sim.emit_raw(gpu, 7, None, format!("7 1 -{pid} @7fff00000(64) W\n").as_bytes());
}

fn thermal(sim: &SimMachine, gpu: usize) {
    sim.emit(gpu, &DriverEvent::Thermal { throttlers: throttler::TEMP_EDGE, count: 1 });
}

/// Waits until somebody has read all that the driver held.
fn wait_until_drained(sim: &SimMachine, gpu: usize) {
    while sim.held_bytes(gpu) > 0 {
        std::thread::yield_now();
    }
}

/// Whether what comes behind is read while the name that `emit` makes necessary is looked up. The lookup may have
/// been quick, so it is tried again. Were it done by who reads, it would never be so: the first event is handed
/// out before the third read behind it, at the latest.
fn is_overtaken(sim: &SimMachine, mut emit: impl FnMut(u32)) -> bool {
    let machine = machine_of(sim);
    let monitor = Monitor::start(&machine).unwrap();
    let mut items = monitor.subscribe(Filter::new().gpus([machine.gpus().unwrap()[0].id]));
    // The driver is asked for the other GPU's events, too.
    let _all = monitor.subscribe(Filter::new());
    (1..1000).any(|pid| {
        emit(pid);
        have_three_read_behind(sim);
        let overtaken = items.try_next().is_none();
        let mut behind = 0;
        while behind < 3 {
            let item = items.wait(None).unwrap();
            behind += u32::from(matches!(item, Item::Event(event) if event.raw()[0] == b'2'));
        }
        overtaken
    })
}

#[test]
fn the_driver_is_read_while_a_name_is_looked_up() {
    let sim = busy_machine();
    assert!(is_overtaken(&sim, |pid| fault(&sim, 0, pid)));
}

#[test]
fn the_driver_is_read_while_a_name_is_suspected_of_forgery() {
    let sim = busy_machine();
    let emit = |pid: u32| {
        // A thread is found at once: the other GPU's question, which takes long, comes first.
        fault(&sim, 1, 50_000 + pid);
        let text = format!("1 {pid:x}:a\n4 {pid:x} \n");
        sim.emit_raw(0, 1, Some(Pid::from(pid)), text.as_bytes());
    };
    assert!(is_overtaken(&sim, emit));
}

/// Longer than any pause between two events in which a name stays young enough to be renewed beside.
const PAUSE_NS: u64 = 400_000_000;

/// Three events behind the last, one read each: then the last was handed out, unless it waits.
fn have_three_read_behind(sim: &SimMachine) {
    wait_until_drained(sim, 0);
    for _ in 0..3 {
        thermal(sim, 0);
        wait_until_drained(sim, 0);
    }
}

#[test]
fn who_is_known_is_asked_again_without_anybody_waiting() {
    let sim = busy_machine();
    name_processes(&sim, [7]);
    let monitor = Monitor::start(&machine_of(&sim)).unwrap();
    let mut items = monitor.subscribe(Filter::new());
    let comm = sim.root().join("proc/7/comm");
    let mut before = 0;
    loop {
        fault(&sim, 0, 7);
        have_three_read_behind(&sim);
        let at_once = items.try_next();
        let waited = at_once.is_none();
        let Some(Item::Event(event)) = at_once.or_else(|| items.wait(None)) else { panic!() };
        let received = event.time.received_boot_ns;
        assert!(!waited || received - before > PAUSE_NS, "known, and yet waited for");
        if event.process() == Some(b"renamed") {
            return;
        }
        (0..3).for_each(|_| drop(items.wait(None)));
        if before == 0 {
            fs::write(&comm, "renamed\n").unwrap();
        }
        before = received;
    }
}

fn name_processes(sim: &SimMachine, pids: impl IntoIterator<Item = u32>) {
    for pid in pids {
        sim.add_process(&SimProcess::new(pid, format!("job {pid}")).gpu(0)).unwrap();
    }
}

fn open(machine: &Machine, gpu: usize) -> EventReader {
    EventReader::open(machine, &machine.gpus().unwrap()[gpu], EventMask::ALL).unwrap()
}

/// What does not differ from reader to reader.
fn facts(item: &Item) -> (u32, u64, bool, Option<Vec<u8>>, Vec<u8>) {
    let Item::Event(event) = item else { panic!("{item:?}") };
    let process = event.process().map(<[u8]>::to_vec);
    (event.gpu.index, event.seq, event.doubtful, process, event.raw().to_vec())
}

#[test]
fn names_change_neither_order_nor_content() {
    let sim = SimMachine::builder().gpus(2).build().unwrap();
    name_processes(&sim, 1..=60);
    let machine = machine_of(&sim);
    let mut readers = [open(&machine, 0), open(&machine, 1)];
    let monitor = Monitor::start(&machine).unwrap();
    let mut subscriptions = [(); 2].map(|()| monitor.subscribe(Filter::new()));
    let mut expected = [Vec::new(), Vec::new()];
    for round in 0..40_u32 {
        for gpu in 0..2_u32 {
            for step in 0..20 {
                // Some of them have no name.
                fault(&sim, gpu as usize, 1 + (round * 7 + step * 13 + gpu) % 70);
            }
            thermal(&sim, gpu as usize);
        }
        for (gpu, reader) in readers.iter_mut().enumerate() {
            wait_until_drained_but(&sim, gpu, reader, &mut expected[gpu]);
        }
    }
    for items in &mut subscriptions {
        let mut seen = [Vec::new(), Vec::new()];
        for item in items.take(2 * 40 * 21) {
            seen[item.gpu().index as usize].push(facts(&item));
        }
        assert_eq!(seen, expected);
    }
    let named = expected[0].iter().filter(|facts| facts.3.as_deref() == Some(b"job 60"));
    assert!(named.count() > 0);
}

/// Takes what `reader` has, and waits until everybody else has read too.
fn wait_until_drained_but<T: Extend<(u32, u64, bool, Option<Vec<u8>>, Vec<u8>)>>(
    sim: &SimMachine,
    gpu: usize,
    reader: &mut EventReader,
    taken: &mut T,
) {
    let items = std::iter::from_fn(|| reader.next().unwrap());
    taken.extend(items.map(|item| facts(&item)));
    wait_until_drained(sim, gpu);
}

fn next(items: &mut Subscription) -> Item {
    items.wait(None).unwrap()
}

#[test]
fn what_was_read_is_told_with_its_name_before_the_gpu_is_gone() {
    let sim = busy_machine();
    name_processes(&sim, [7, 8]);
    let monitor = Monitor::start(&machine_of(&sim)).unwrap();
    let mut items = monitor.subscribe(Filter::new());
    fault(&sim, 0, 7);
    fault(&sim, 0, 8);
    sim.remove_gpu(0).unwrap();
    for name in ["job 7", "job 8"] {
        let Item::Event(event) = next(&mut items) else { panic!("events come first") };
        assert_eq!(event.process(), Some(name.as_bytes()));
    }
    assert!(matches!(next(&mut items), Item::Gap(gap) if gap.cause == GapCause::GpuRemoved));
}

#[test]
fn what_waits_for_a_name_is_not_lost_with_the_monitor() {
    let sim = busy_machine();
    name_processes(&sim, [7]);
    let monitor = Monitor::start(&machine_of(&sim)).unwrap();
    let mut items = monitor.subscribe(Filter::new());
    fault(&sim, 0, 7);
    wait_until_drained(&sim, 0);
    drop(monitor);
    let Item::Event(event) = next(&mut items) else { panic!("an event should come") };
    assert_eq!(event.process(), Some(&b"job 7"[..]));
    assert!(items.next().is_none());
}
