//! The driver is asked for what somebody wants, and for nothing else.

use gpuev::{EventMask, EventReader, EventType, Filter, Item, Monitor, Severity, Subscription};
use gpuev_sim::{Client, Comm, DriverEvent, Kernel, Pid, SimMachine};

use crate::driver::{Driver, NEW, all, machine_of, raw};

const ALL_PROCESSES: u64 = 1 << 63;
/// Number 14, under which a driver may tell of drops.
const DROPS: u64 = 1 << 13;
/// Numbers that no type has.
const UNNAMED: u64 = !(ALL_PROCESSES | 0x1fff);

/// What the driver of this machine is asked for by its last file.
fn asked(sim: &SimMachine) -> u64 {
    sim.event_files().last().unwrap().mask
}

fn mask(types: &[EventType]) -> u64 {
    types.iter().fold(ALL_PROCESSES | DROPS, |mask, t| mask | 1 << (t.id() - 1))
}

fn of(types: &[EventType]) -> Filter {
    Filter::new().types(types.iter().copied(), false)
}

#[test]
fn the_mask_is_what_the_subscribers_want_together_as_they_come_and_go() {
    use EventType::{GpuPostReset, GpuPreReset, MigrateEnd, ThermalThrottle, VmFault};
    let sim = SimMachine::new().unwrap();
    let monitor = Monitor::start(&machine_of(&sim)).unwrap();
    assert_eq!(asked(&sim), 0, "nobody wants anything");
    let faults = monitor.subscribe(of(&[VmFault]));
    assert_eq!(asked(&sim), mask(&[VmFault]));
    let severe = monitor.subscribe(Filter::new().severity(Severity::Critical));
    assert_eq!(asked(&sim), mask(&[VmFault, GpuPreReset]));
    let warnings = monitor.subscribe(Filter::new().severity(Severity::Warning));
    let from_warning = [VmFault, ThermalThrottle, GpuPreReset, GpuPostReset, MigrateEnd];
    assert_eq!(asked(&sim), mask(&from_warning));
    let thermal = Filter::new().types([ThermalThrottle], true).severity(Severity::Critical);
    let nothing = monitor.subscribe(thermal);
    drop((warnings, severe));
    assert_eq!(asked(&sim), mask(&[VmFault]));
    let unknown = monitor.subscribe(Filter::new().types([VmFault], true));
    assert_eq!(asked(&sim), mask(&[VmFault]) | UNNAMED);
    drop((unknown, nothing));
    let everything = monitor.subscribe(Filter::new());
    assert_eq!(asked(&sim), u64::MAX);
    drop((everything, faults));
    assert_eq!(asked(&sim), 0);
}

#[test]
fn a_gpu_is_asked_for_what_is_wanted_of_it() {
    let sim = SimMachine::builder().gpus(2).build().unwrap();
    let machine = machine_of(&sim);
    let first = machine.gpus().unwrap()[0].id;
    let wanted = of(&[EventType::VmFault]).gpus([first]);
    let (monitor, _items) = Monitor::builder(&machine).start_with(wanted, 1 << 20).unwrap();
    let masks = || sim.event_files().iter().map(|file| file.mask).collect::<Vec<_>>();
    assert_eq!(masks(), [mask(&[EventType::VmFault]), 0]);
    let _all = monitor.subscribe(Filter::new());
    assert_eq!(masks(), [u64::MAX; 2]);
}

/// What a loop of ten lines with that mask gets.
fn raw_lines(sim: &SimMachine, mask: u64) -> impl FnMut() -> usize {
    let file = sim.open_events(sim.gpus()[0].kfd_gpu_id, &Client::root()).unwrap();
    rustix::io::write(&file, &mask.to_ne_bytes()).unwrap();
    move || {
        let mut buffer = [0; 64 * 1024];
        let read = rustix::io::read(&file, &mut buffer).unwrap_or(0);
        buffer[..read].iter().filter(|&&byte| byte == b'\n').count()
    }
}

fn faults_of(items: &mut Subscription, wanted: usize) -> Vec<Item> {
    (0..wanted).map(|_| items.wait(None).unwrap()).collect()
}

#[test]
fn what_nobody_wants_pushes_nothing_out_of_a_small_fifo() {
    let sim = SimMachine::builder().kernel(Kernel::V6_1).build().unwrap();
    let mut lines = raw_lines(&sim, 1);
    let wanted = of(&[EventType::VmFault]);
    let (monitor, mut items) =
        Monitor::builder(&machine_of(&sim)).start_with(wanted, 1 << 20).unwrap();
    let fault = DriverEvent::VmFault {
        pid: Pid { host: 4242, namespaced: 4242 },
        comm: Comm::new(b"python3"),
    };
    for _ in 0..50 {
        for _ in 0..10 {
            let other = DriverEvent::Thermal { throttlers: 1, count: 1 };
            sim.emit_batch(0, std::iter::repeat_n(&other, 200));
            sim.emit(0, &fault);
        }
        let taken = faults_of(&mut items, lines());
        assert_eq!(taken.len(), 10);
        assert!(taken.iter().all(|item| matches!(item, Item::Event(_))), "{taken:?}");
    }
    assert!(items.try_next().is_none(), "nothing else is told, no gap either");
    drop(monitor);
    assert!(items.wait(None).is_none());
}

#[test]
fn what_was_queued_before_the_mask_was_narrowed_is_genuine() {
    let driver = Driver::new(1, NEW);
    let mut reader = driver.reader();
    let fault = "7 40507688414784 -0 @7fff00000(64) W\n";
    // To the brim: what is behind it may be missing.
    driver.emit(0, fault.repeat(8192 / fault.len()));
    reader.set_mask([EventType::VmFault].into_iter().collect()).unwrap();
    driver.emit(0, "1 1234:python3\n");
    let doubtful = |items: &[Item]| {
        let events = items.iter().filter_map(|item| match item {
            Item::Event(event) => Some(event.doubtful),
            Item::Gap(_) => None,
        });
        events.collect::<Vec<_>>()
    };
    let items = all(&mut reader);
    assert_eq!(items.iter().filter(|item| matches!(item, Item::Gap(_))).count(), 1);
    assert_eq!(doubtful(&items), vec![false; 8192 / fault.len() + 1]);
    // The file was empty since: nothing that comes now was queued under the mask before.
    driver.emit(0, "1 1234:long_name\n3 1 HWS\n9 40507688414784 -0 64 3\n2 400:7\n");
    assert_eq!(doubtful(&all(&mut reader)), [false, true, true, true]);
    // And wider again.
    reader.set_mask(EventMask::ALL).unwrap();
    driver.emit(0, fault);
    assert_eq!(doubtful(&all(&mut reader)), [false]);
}

#[test]
fn a_line_outside_of_the_mask_that_fits_a_name_belongs_to_it() {
    let driver = Driver::new(1, NEW);
    let mask = [EventType::VmFault].into_iter().collect();
    let mut reader = EventReader::open(&driver.machine, &driver.gpu(0), mask).unwrap();
    driver.emit(0, "1 1234:a\n3 1 HWS\n1 1235:b\n1 1:c\n");
    let items = all(&mut reader);
    let lines: Vec<_> = items.iter().map(raw).collect();
    assert_eq!(lines, ["1 1234:a\\n3 1 HWS", "1 1235:b", "1 1:c"]);
}

#[test]
fn a_selector_that_names_a_card_selects_the_partitions_that_come_later() {
    let driver = Driver::new(1, NEW);
    driver.add_card(0, 0xabcd);
    let inventory = driver.machine.inventory().unwrap();
    let selectors = ["0000:03:00.0", "000000000000abcd", "0"];
    let monitors = selectors.map(|selector| {
        let chosen = [inventory.selector(selector).unwrap()];
        let (wanted, builder) = (Filter::new().gpus(chosen), Monitor::builder(&driver.machine));
        builder.gpus(chosen).start_with(wanted, 1 << 20).unwrap()
    });
    let first = inventory.selector("0000:03:00.0/0").unwrap();
    let (one, _) =
        Monitor::builder(&driver.machine).gpus([first]).start_with(Filter::new(), 1 << 20).unwrap();
    for partition in 0..8 {
        driver.add_partition(partition, 0xabcd);
    }
    driver.announce();
    for (monitor, mut items) in monitors {
        let mut came = 0;
        while came < 8 {
            monitor.resume().unwrap();
            came = monitor.gpus().len();
        }
        (0..8).for_each(|partition| driver.emit_to(200 + partition, "2 400:7\n"));
        let events = (&mut items).filter_map(|item| match item {
            Item::Event(event) => Some(event.gpu.partition),
            Item::Gap(_) => None,
        });
        let mut partitions: Vec<_> = events.take(8).collect();
        partitions.sort_unstable();
        assert_eq!(partitions, [0, 1, 2, 3, 4, 5, 6, 7]);
    }
    one.resume().unwrap();
    assert_eq!(one.gpus().iter().map(|gpu| gpu.id.partition).collect::<Vec<_>>(), [0]);
}
