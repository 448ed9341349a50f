//! All GPUs, many subscribers.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Mutex;
use std::time::Duration;

use gpuev::{
    BufferedReader, DEFAULT_LIMIT, EventMask, EventType, Filter, GapCause, Item, ItemView, Monitor,
    OpenWith, Scope, Severity, UniqueId,
};
use gpuev_sim::SimMachine;

use crate::driver::{Driver, NEW, machine_of, raw};

const FAULT: &str = "7 1 -4242 @7fff00000(64) W\n";
const RESET: &str = "3 1 HWS hang\n";

#[test]
fn subscribers_get_what_their_filters_let_through() {
    let driver = Driver::new(2, NEW);
    let monitor = Monitor::start(&driver.machine).unwrap();
    let second = monitor.gpus()[1].id;
    let mut all = monitor.subscribe(Filter::new());
    let mut severe = monitor.subscribe(Filter::new().severity(Severity::Critical));
    let mut of_second = monitor.subscribe(Filter::new().gpus([second]));
    let mut of_type =
        monitor.subscribe(Filter::new().types([EventType::PageFaultStart], false).pids([4242]));
    driver.emit(0, RESET);
    driver.emit(0, FAULT);
    driver.emit(1, FAULT);
    assert_eq!((&mut all).take(3).count(), 3);
    assert_eq!(raw(&severe.next().unwrap()), RESET.trim());
    assert_eq!(of_second.next().unwrap().gpu(), second);
    assert_eq!((&mut of_type).take(2).count(), 2);
    drop(monitor);
    for mut rest in [all, severe, of_second, of_type] {
        assert!(rest.next().is_none(), "the stream ends with the monitor");
        assert!(rest.is_finished());
    }
}

#[test]
fn a_subscriber_that_never_reads_loses_its_own_events_counted() {
    let driver = Driver::new(1, NEW);
    let monitor = Monitor::start(&driver.machine).unwrap();
    let mut slow = monitor.subscribe_with_limit(Filter::new(), 1000);
    let mut quick = monitor.subscribe(Filter::new());
    for _ in 0..100 {
        driver.emit(0, FAULT);
        assert!(matches!(quick.next(), Some(Item::Event(_))));
    }
    let items: Vec<_> = std::iter::from_fn(|| slow.try_next()).collect();
    let (gaps, events): (Vec<_>, Vec<_>) =
        items.iter().partition(|item| matches!(item, Item::Gap(_)));
    let [Item::Gap(gap)] = gaps[..] else { panic!("{gaps:?}") };
    assert_eq!(gap.cause, GapCause::SubscriberSlow);
    assert_eq!(events.len() as u64 + gap.count.unwrap(), 100);
    driver.emit(0, FAULT);
    let Some(Item::Event(event)) = slow.next() else { panic!("an event should follow") };
    assert_eq!(event.seq, 100, "the numbering shows the hole");
}

#[test]
fn a_gap_stands_where_the_events_are_missing() {
    let driver = Driver::new(1, NEW);
    let monitor = Monitor::start(&driver.machine).unwrap();
    let mut slow = monitor.subscribe_with_limit(Filter::new(), 200);
    let mut quick = monitor.subscribe(Filter::new());
    let mut emit = |count: usize| {
        for _ in 0..count {
            driver.emit(0, FAULT);
            quick.next();
        }
    };
    emit(5);
    let first = slow.try_next();
    assert!(matches!(first, Some(Item::Event(_))));
    emit(1);
    let kinds: Vec<_> =
        std::iter::from_fn(|| slow.try_next()).map(|item| matches!(item, Item::Gap(_))).collect();
    let gap = kinds.iter().position(|gap| *gap).unwrap();
    assert_eq!(gap, kinds.len() - 2, "{kinds:?}: before the event that came after");
}

#[test]
fn a_removed_gpu_is_told_and_comes_back_with_its_number() {
    let driver = Driver::new(2, NEW);
    let monitor = Monitor::start(&driver.machine).unwrap();
    let mut items = monitor.subscribe(Filter::new());
    driver.emit(1, FAULT);
    assert!(matches!(items.next(), Some(Item::Event(event)) if event.gpu.index == 1));
    driver.remove_gpu(1);
    let Some(Item::Gap(gone)) = items.next() else { panic!("a gap should tell") };
    assert_eq!((gone.cause, gone.gpu.index), (GapCause::GpuRemoved, 1));
    let Some(Item::Gap(back)) = items.next() else { panic!("the topology still lists it") };
    assert_eq!((back.cause, back.gpu.index), (GapCause::Reopened, 1));
    driver.emit(1, FAULT);
    assert!(matches!(items.next(), Some(Item::Event(event)) if event.seq == 1));
}

#[test]
fn a_gpu_that_leaves_the_topology_first_is_told_too() {
    let driver = Driver::new(2, NEW);
    let monitor = Monitor::start(&driver.machine).unwrap();
    let mut items = monitor.subscribe(Filter::new());
    driver.emit(1, FAULT);
    driver.unlist_gpu(1);
    driver.announce();
    assert!(matches!(items.next(), Some(Item::Event(event)) if event.gpu.index == 1));
    let Some(Item::Gap(gone)) = items.next() else { panic!("a gap should tell") };
    assert_eq!((gone.cause, gone.gpu.index), (GapCause::GpuRemoved, 1));
}

#[test]
fn an_added_gpu_is_watched() {
    let driver = Driver::new(1, NEW);
    let monitor = Monitor::start(&driver.machine).unwrap();
    let mut items = monitor.subscribe(Filter::new());
    driver.add_gpu(1);
    driver.announce();
    wait_for_gpus(&monitor, 2);
    driver.emit(1, FAULT);
    assert!(matches!(items.next(), Some(Item::Event(event)) if event.gpu.index == 1));
}

fn wait_for_gpus(monitor: &Monitor, count: usize) {
    while monitor.gpus().len() != count {
        std::thread::yield_now();
    }
}

#[test]
fn a_change_of_one_gpu_leaves_the_others_alone() {
    let sim = SimMachine::builder().gpus(4).build().unwrap();
    let monitor = Monitor::start(&machine_of(&sim)).unwrap();
    let others = monitor.gpus()[..3].iter().map(|gpu| gpu.id).collect::<Vec<_>>();
    let mut others = monitor.subscribe(Filter::new().gpus(others));
    // As the driver does, the simulator takes all of them out of the list and puts back what is left.
    for _ in 0..8 {
        sim.remove_gpu(3).unwrap();
        wait_for_gpus(&monitor, 3);
        sim.restore_gpu(3).unwrap();
        wait_for_gpus(&monitor, 4);
    }
    drop(monitor);
    assert_eq!(others.next(), None);
}

#[test]
fn another_card_in_the_place_of_a_gpu_is_another_gpu() {
    let driver = Driver::new(0, NEW);
    driver.add_card(0, 7);
    let monitor = Monitor::start(&driver.machine).unwrap();
    let mut items = monitor.subscribe(Filter::new());
    driver.emit(0, FAULT);
    assert!(matches!(items.next(), Some(Item::Event(_))));
    driver.add_card(0, 8);
    driver.announce();
    let Some(Item::Gap(gone)) = items.next() else { panic!("a gap should tell") };
    assert_eq!((gone.cause, gone.gpu.index), (GapCause::GpuRemoved, 0));
    wait_for_gpus(&monitor, 1);
    driver.emit(0, FAULT);
    let Some(Item::Event(event)) = items.next() else { panic!("nobody has read it before") };
    assert_eq!((event.gpu.index, event.gpu.unique_id, event.seq), (1, Some(UniqueId(8)), 0));
}

#[test]
fn a_gpu_whose_unique_id_cannot_be_read_is_the_same() {
    let driver = Driver::new(0, NEW);
    driver.add_card(0, 7);
    let monitor = Monitor::start(&driver.machine).unwrap();
    let mut items = monitor.subscribe(Filter::new());
    driver.add_card(0, 0);
    driver.add_card(1, 8);
    driver.announce();
    wait_for_gpus(&monitor, 2);
    driver.emit(0, FAULT);
    assert!(matches!(items.next(), Some(Item::Event(event)) if event.gpu.index == 0));
}

#[test]
fn a_subscriber_from_the_start_gets_what_comes_while_files_are_opened() {
    let driver = Driver::new(2, NEW);
    let opened = Mutex::new(Vec::new());
    let open = move |_: &gpuev::Gpu| {
        let (mut driver, file) = UnixStream::pair()?;
        file.set_nonblocking(true)?;
        driver.write_all(FAULT.as_bytes())?;
        opened.lock().unwrap().push(driver);
        Ok(file.into())
    };
    let source = OpenWith::new(NEW, Scope::everything("a test"), open);
    let machine = driver.machine.clone().with_event_source(source);
    let builder = Monitor::builder(&machine);
    let (monitor, mut items) = builder.start_with(Filter::new(), DEFAULT_LIMIT).unwrap();
    let events = (&mut items).take(2).filter(|item| matches!(item, Item::Event(_)));
    assert_eq!(events.count(), 2);
    drop(monitor);
    assert!(items.next().is_none());
}

#[test]
fn letting_go_closes_every_file_and_the_blind_time_is_a_gap() {
    let driver = Driver::new(1, NEW);
    let monitor = Monitor::start(&driver.machine).unwrap();
    let mut items = monitor.subscribe(Filter::new());
    driver.emit(0, FAULT);
    monitor.release();
    assert!(monitor.gpus().is_empty());
    driver.emit(0, FAULT);
    monitor.resume().unwrap();
    driver.emit(0, FAULT);
    assert!(matches!(items.next(), Some(Item::Event(_))), "read before it was let go");
    assert!(matches!(items.next(), Some(Item::Gap(gap)) if gap.cause == GapCause::Yielded));
    assert!(matches!(items.next(), Some(Item::Event(event)) if event.seq == 1));
}

#[test]
fn a_gpu_that_left_while_all_was_let_go_is_told() {
    let driver = Driver::new(2, NEW);
    let monitor = Monitor::start(&driver.machine).unwrap();
    let mut items = monitor.subscribe(Filter::new());
    monitor.release();
    driver.unlist_gpu(1);
    monitor.resume().unwrap();
    monitor.resume().unwrap();
    let gaps: Vec<_> = std::iter::from_fn(|| items.try_next())
        .map(|item| match item {
            Item::Gap(gap) => (gap.gpu.index, gap.cause),
            Item::Event(event) => panic!("{event:?}"),
        })
        .collect();
    assert_eq!(gaps, [(1, GapCause::GpuRemoved), (0, GapCause::Yielded)]);
}

#[test]
fn a_ready_fd_is_readable_while_something_waits() {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let driver = Driver::new(1, NEW);
    let monitor = Monitor::start(&driver.machine).unwrap();
    let mut items = monitor.subscribe(Filter::new());
    let no_wait = Timespec { tv_sec: 0, tv_nsec: 0 };
    let is_ready = |items: &mut gpuev::Subscription, wait| {
        let fd = items.ready_fd().unwrap();
        poll(&mut [PollFd::new(&fd, PollFlags::IN)], wait).unwrap() == 1
    };
    assert!(!is_ready(&mut items, Some(&no_wait)));
    driver.emit(0, FAULT);
    assert!(is_ready(&mut items, None));
    assert!(items.try_next().is_some());
    assert!(items.try_next().is_none());
    assert!(!is_ready(&mut items, Some(&no_wait)));
}

#[test]
fn a_wait_on_nothing_ends_in_time() {
    let driver = Driver::new(1, NEW);
    let monitor = Monitor::start(&driver.machine).unwrap();
    let mut items = monitor.subscribe(Filter::new());
    assert!(items.wait(Some(Duration::ZERO)).is_none());
    assert!(!items.is_finished());
}

#[test]
fn no_gpu_is_an_error_that_says_so() {
    let driver = Driver::new(0, NEW);
    let error = Monitor::start(&driver.machine).unwrap_err();
    assert_eq!(error.kind(), gpuev::ErrorKind::NoGpu);
    assert!(Monitor::builder(&driver.machine).may_be_empty(true).start().is_ok());
}

#[test]
fn buffered_readers_share_a_thread_and_nothing_else() {
    let driver = Driver::new(2, NEW);
    let open = |gpu: usize| {
        BufferedReader::open(&driver.machine, &driver.gpu(gpu), EventMask::ALL, 1 << 20).unwrap()
    };
    let (mut first, mut again, mut second) = (open(0), open(0), open(1));
    driver.emit(0, FAULT);
    assert!(first.try_next().is_some(), "what the driver holds is read at once");
    assert!(first.try_next().is_none());
    first.stop();
    first.stop();
    assert!(first.wait(None).is_none(), "a stopped reader does not wait");
    assert!(again.wait(None).is_some());
    assert!(second.try_next().is_none());
    driver.emit(1, FAULT);
    assert!(second.wait(None).is_some());
}

#[test]
fn items_can_be_looked_at_where_they_wait() {
    let driver = Driver::new(1, NEW);
    let gpu = driver.gpu(0);
    let mut reader =
        BufferedReader::open(&driver.machine, &gpu, EventMask::ALL, DEFAULT_LIMIT).unwrap();
    assert!(reader.view_next().is_none());
    driver.emit(0, RESET);
    driver.emit(0, FAULT);
    let Some(ItemView::Event(view)) = reader.view_next() else { panic!("an event is there") };
    assert_eq!(view.facts.raw, RESET.trim().as_bytes());
    assert!(reader.wait(None).is_some(), "it was taken, the next follows");
    driver.remove_gpu(0);
    assert!(reader.wait(None).is_some_and(|item| matches!(item, Item::Gap(_))));
    assert!(reader.view_next().is_none());
}

#[test]
#[cfg(feature = "tokio")]
fn a_stream_yields_the_same_items() {
    let driver = Driver::new(1, NEW);
    let monitor = Monitor::start(&driver.machine).unwrap();
    let mut stream = monitor.subscribe(Filter::new()).into_stream();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        driver.emit(0, FAULT);
        assert!(stream.next().await.is_some());
        let waiting = tokio::spawn(async move { (stream.next().await, stream.next().await) });
        tokio::task::yield_now().await;
        driver.emit(0, RESET);
        drop(monitor);
        let (event, end) = waiting.await.unwrap();
        assert!(event.is_some() && end.is_none());
    });
}

#[test]
fn the_first_subscriber_misses_nothing_between_the_first_file_and_the_last() {
    use gpuev::{KfdVersion, Machine, OpenWith, Scope};
    use gpuev_sim::{Client, DriverEvent, SimMachine};

    let sim = SimMachine::builder().gpus(2).build().unwrap();
    let (major, minor) = sim.kfd_version();
    let opener = sim.clone();
    // When the second GPU is opened, the first already is, and something happens on it.
    let open = move |gpu: &gpuev::Gpu| {
        opener.emit(0, &DriverEvent::Thermal { throttlers: 1, count: 1 });
        opener.open_events(gpu.id.kfd_id, &Client::root())
    };
    let scope = Scope::everything("a simulated machine hides nothing");
    let source = OpenWith::new(KfdVersion { major, minor }, scope, open);
    let machine = Machine::at(sim.root()).with_event_source(source);
    let builder = Monitor::builder(&machine);
    let (monitor, mut first) = builder.start_with(Filter::new(), gpuev::DEFAULT_LIMIT).unwrap();
    assert_eq!(raw(&first.next().unwrap()), "2 1:1");
    drop(monitor);
    assert!(first.next().is_none());
}
