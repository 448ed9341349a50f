//! All GPUs, many subscribers.

use std::time::Duration;

use gpuev::{BufferedReader, EventMask, EventType, Filter, GapCause, Item, Monitor, Severity};

use crate::driver::{Driver, NEW, raw};

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
    while monitor.gpus().len() < 2 {
        std::thread::yield_now();
    }
    driver.emit(1, FAULT);
    assert!(matches!(items.next(), Some(Item::Event(event)) if event.gpu.index == 1));
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
