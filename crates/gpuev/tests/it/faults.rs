//! A driver that is missing, shut, too old or in trouble; bytes that no driver should write.

use gpuev::{
    DEFAULT_LIMIT, ErrorKind, EventMask, EventReader, EventSource, EventType, Filter, Item,
    KfdDevice, KfdVersion, Machine, Monitor, OpenWith, Scope,
};
use gpuev_sim::{Client, DriverEvent, Kernel, Pid, ResetCause, SimMachine};

use crate::driver::{all, machine_of};
use crate::tree::Tree;

fn reader_of(sim: &SimMachine) -> EventReader {
    let machine = machine_of(sim);
    let gpu = machine.gpus().unwrap().remove(0);
    EventReader::open(&machine, &gpu, EventMask::ALL).unwrap()
}

fn types(items: &[Item]) -> Vec<Option<EventType>> {
    items
        .iter()
        .map(|item| match item {
            Item::Event(event) => event.event_type(),
            Item::Gap(gap) => panic!("{gap}"),
        })
        .collect()
}

fn bytes(items: &[Item]) -> Vec<u8> {
    let raw = |item: &Item| match item {
        Item::Event(event) => event.raw().to_vec(),
        Item::Gap(_) => Vec::new(),
    };
    items.iter().flat_map(raw).collect()
}

#[test]
fn no_device_is_no_gpu_and_says_what_to_do() {
    let tree = Tree::new();
    let error = KfdDevice::at(&tree.path("")).version().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoGpu);
    assert!(error.to_string().contains("dev/kfd"), "{error}");
    assert!(error.hint().unwrap().contains("--device /dev/kfd"), "{error}");
}

#[test]
fn a_device_that_is_roots_alone_advises_nobody_to_become_root() {
    let tree = Tree::new();
    std::fs::create_dir_all(tree.path("dev")).unwrap();
    tree.deny("dev/kfd");
    tree.write("etc/group", "daemon:x:1:\nrender:x:0:\n");
    let error = KfdDevice::at(&tree.path("")).version().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    let hint = error.hint().unwrap();
    assert!(hint.contains("root's alone") && hint.contains("udev rule"), "{error}");
    assert!(!hint.contains("usermod"), "{error}");
}

#[test]
fn a_file_in_the_devices_place_is_not_taken_for_it() {
    let tree = Tree::new();
    tree.write("dev/kfd", "");
    let error = KfdDevice::at(&tree.path("")).version().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotSupported);
    assert!(error.to_string().contains("GET_VERSION"), "{error}");
}

#[test]
fn a_driver_without_events_is_told_whoever_opens_its_files() {
    let sim = SimMachine::new().unwrap();
    let gpu = machine_of(&sim).gpus().unwrap().remove(0);
    for (version, good) in [((1, 2), false), ((0, 9), false), ((2, 0), false), ((1, 3), true)] {
        let opener = sim.clone();
        let open = move |gpu: &gpuev::Gpu| opener.open_events(gpu.id.kfd_id, &Client::root());
        let version = KfdVersion { major: version.0, minor: version.1 };
        let source = OpenWith::new(version, Scope::everything("a test"), open);
        let machine = Machine::at(sim.root()).with_event_source(source);
        match EventReader::open(&machine, &gpu, EventMask::ALL) {
            Ok(_) => assert!(good, "{version}"),
            Err(error) => {
                assert!(!good, "{version}: {error}");
                assert_eq!(error.kind(), ErrorKind::NotSupported);
                assert!(error.hint().unwrap().contains("Linux 5.8"), "{error}");
            }
        }
    }
}

#[test]
fn a_gpu_id_that_the_driver_refuses_is_a_gpu_that_is_gone() {
    let sim = SimMachine::new().unwrap();
    let machine = machine_of(&sim);
    let gpu = machine.gpus().unwrap().remove(0);
    sim.remove_gpu(0).unwrap();
    let error = EventReader::open(&machine, &gpu, EventMask::ALL).unwrap_err();
    assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::GpuRemoved, Some(22)));
    assert!(error.to_string().contains("0000:03:00.0"), "{error}");
    assert!(error.hint().unwrap().contains("list the GPUs again"), "{error}");
}

#[test]
fn a_driver_that_refuses_every_file_is_an_error_with_its_cause() {
    let sim = SimMachine::builder().gpus(2).build().unwrap();
    let refuse = |_: &gpuev::Gpu| Err(std::io::Error::from_raw_os_error(24));
    let source =
        OpenWith::new(KfdVersion { major: 1, minor: 23 }, Scope::everything("a test"), refuse);
    let machine = Machine::at(sim.root()).with_event_source(source);
    let error = Monitor::start(&machine).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfResources);
    assert!(error.hint().unwrap().contains("ulimit -n"), "{error}");
}

#[test]
fn a_gpu_that_goes_while_it_is_read_gives_what_it_had_and_then_its_end() {
    let sim = SimMachine::new().unwrap();
    let mut reader = reader_of(&sim);
    sim.emit(0, &DriverEvent::Thermal { throttlers: 1, count: 1 });
    sim.remove_gpu(0).unwrap();
    assert!(matches!(reader.next().unwrap(), Some(Item::Event(_))));
    assert_eq!(reader.next().unwrap_err().kind(), ErrorKind::GpuRemoved);
    assert_eq!(reader.next().unwrap_err().kind(), ErrorKind::GpuRemoved, "and so it stays");
}

#[test]
fn a_line_that_was_cut_off_by_the_end_is_shown() {
    let sim = SimMachine::new().unwrap();
    let mut reader = reader_of(&sim);
    let (monitor, mut items) =
        Monitor::builder(&machine_of(&sim)).start_with(Filter::new(), DEFAULT_LIMIT).unwrap();
    sim.emit_raw(0, 7, None, b"7 1 -4242 @7fff00000(64) W");
    assert!(reader.next().unwrap().is_none(), "more may come");
    sim.remove_gpu(0).unwrap();
    let read = [reader.next().unwrap().unwrap(), items.next().unwrap()];
    assert_eq!(types(&read), [Some(EventType::PageFaultStart); 2]);
    assert_eq!(reader.next().unwrap_err().kind(), ErrorKind::GpuRemoved);
    drop(monitor);
}

#[test]
fn a_reset_does_not_end_the_file() {
    let sim = SimMachine::new().unwrap();
    let mut reader = reader_of(&sim);
    sim.emit(0, &DriverEvent::PreReset { sequence: 1, cause: Some(ResetCause::RasError) });
    let before = all(&mut reader);
    sim.emit(0, &DriverEvent::PostReset { sequence: 1, cause: None });
    sim.emit(0, &DriverEvent::Thermal { throttlers: 1, count: 1 });
    let after = all(&mut reader);
    assert_eq!(types(&before), [Some(EventType::GpuPreReset)]);
    assert_eq!(types(&after), [Some(EventType::GpuPostReset), Some(EventType::ThermalThrottle)]);
}

#[test]
fn a_nul_in_a_line_is_part_of_it() {
    let sim = SimMachine::builder().kernel(Kernel::V6_12Nul).build().unwrap();
    let mut reader = reader_of(&sim);
    sim.emit_raw(0, 10, None, b"a 5 -7 5a21 \0\n");
    let items = all(&mut reader);
    assert_eq!(types(&items), [Some(EventType::QueueRestore)]);
    assert_eq!(bytes(&items), b"a 5 -7 5a21 \0");
}

#[test]
fn of_a_mebibyte_of_noise_no_byte_is_lost() {
    let sim = SimMachine::new().unwrap();
    let mut reader = reader_of(&sim);
    // xorshift: the same noise each time.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut noise = Vec::new();
    while noise.len() < 1 << 20 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        noise.extend(state.to_le_bytes());
    }
    let mut read = Vec::new();
    for piece in noise.chunks(4000) {
        sim.emit_raw(0, 15, None, piece);
        read.extend(bytes(&all(&mut reader)));
    }
    // A newline ends a line, or stands in what may be a name.
    noise.retain(|byte| *byte != b'\n');
    read.retain(|byte| *byte != b'\n');
    // Less than the shortest message without an end may still be going on.
    let open = noise.len() - read.len();
    assert!(open < 95, "{open} bytes are missing");
    assert!(noise.starts_with(&read));
}

#[test]
fn a_name_of_any_bytes_arrives_as_it_is() {
    let names: [&[u8]; 4] =
        [b"rank 3: train", "\u{1f525} hot".as_bytes(), b"\xff\xfe\x01", b"a:b c"];
    for name in names {
        let sim = SimMachine::new().unwrap();
        let mut reader = reader_of(&sim);
        sim.emit_raw(0, 1, Some(Pid::from(0x1234)), &[b"1 1234:", name, b"\n"].concat());
        let items = all(&mut reader);
        let [Item::Event(event)] = &items[..] else { panic!("{items:?}") };
        assert_eq!((event.tid(), event.thread()), (Some(0x1234), Some(name)));
        assert_eq!((event.pid(), event.process()), (None, None), "nobody knows its process");
    }
}
