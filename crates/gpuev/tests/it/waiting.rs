//! A subscriber that waits drains: whatever wakes a subscriber wakes it wherever it waits, in any order of threads, and
//! nothing that was read stays in memory while anybody waits.
//!
//! A wake-up that is lost is a test that never ends.

use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

use gpuev::{EventType, Filter, GapCause, GpuSelector, Item, Monitor, Subscription};
use gpuev_sim::{DriverEvent, SimMachine, throttler};

use crate::driver::{Driver, NEW, machine_of};

const ROUNDS: u32 = 1000;
const THERMAL: DriverEvent = DriverEvent::Thermal { throttlers: throttler::TEMP_EDGE, count: 1 };

/// Takes items in a thread, one after the other, by `wait`, and tells of each.
fn take<'scope>(
    scope: &'scope Scope<'scope, '_>,
    mut items: Subscription,
    wait: impl Fn(&mut Subscription) -> Option<Item> + Send + 'scope,
) -> Receiver<Item> {
    let (tell, hear): (Sender<Item>, _) = mpsc::channel();
    scope.spawn(move || {
        while let Some(item) = wait(&mut items) {
            tell.send(item).unwrap();
        }
    });
    hear
}

/// Waits in slices, as a program does that has more to do.
fn wait_in_slices(items: &mut Subscription) -> Option<Item> {
    loop {
        let item = items.wait(Some(Duration::from_micros(50)));
        if item.is_some() || items.is_finished() {
            return item;
        }
    }
}

#[test]
fn an_event_wakes_all_who_wait_for_it() {
    let driver = Driver::new(2, NEW);
    let monitor = Monitor::start(&driver.machine).unwrap();
    let second = monitor.gpus()[1].id;
    let subscriptions =
        [Filter::new(), Filter::new(), Filter::new().gpus([second])].map(|f| monitor.subscribe(f));
    std::thread::scope(|scope| {
        let [all, sliced, of_second] = subscriptions;
        let all = take(scope, all, |items| items.wait(None));
        let sliced = take(scope, sliced, wait_in_slices);
        let of_second = take(scope, of_second, |items| items.wait(None));
        for round in 0..ROUNDS {
            // A process that is not known has to be asked for first.
            let line = format!("7 1 -{} @7fff00000(64) W\n", 100_000 + round / 3);
            let gpu = round % 2;
            driver.emit(gpu, &line);
            let mut waiting = vec![&all, &sliced];
            waiting.extend((gpu == 1).then_some(&of_second));
            for hear in waiting {
                let Item::Event(event) = hear.recv().unwrap() else { panic!() };
                assert_eq!((event.gpu.index, event.seq), (gpu, u64::from(round / 2)));
            }
        }
        drop(monitor);
    });
}

/// More lines than are handed out at a time, in one read.
const BURST: usize = 600;
const THERMAL_LINE: &str = "2 400:7\n";

/// The subscriber that waits first, and so drains, wants nothing of a burst that others want, and then its end.
#[test]
fn a_burst_reaches_all_whoever_drains_it() {
    let driver = Driver::new(2, NEW);
    let monitor = Monitor::start(&driver.machine).unwrap();
    let second = GpuSelector::from(monitor.gpus()[1].id);
    let faults = Filter::new().types([EventType::VmFault], false);
    let of_second = Filter::new().gpus([second]);
    std::thread::scope(|scope| {
        let excluded =
            [faults.clone(), faults.clone().gpus([second]), faults].map(|f| monitor.subscribe(f));
        let [of_any, of_second_only, sliced] = excluded;
        let everything = take(scope, monitor.subscribe(Filter::new()), |items| items.wait(None));
        let polled = take(scope, monitor.subscribe(of_second), |items| {
            while !items.is_finished() {
                if let Some(item) = items.try_next() {
                    return Some(item);
                }
                std::thread::yield_now();
            }
            None
        });
        let of_any = take(scope, of_any, |items| items.wait(None));
        let of_second_only = take(scope, of_second_only, |items| items.wait(None));
        let sliced = take(scope, sliced, wait_in_slices);
        for round in 0..40 {
            let gpu = round % 2;
            driver.emit(gpu, THERMAL_LINE.repeat(BURST));
            let burst = everything.iter().filter(|item| matches!(item, Item::Event(_)));
            assert_eq!(burst.take(BURST).count(), BURST, "round {round}");
            if gpu == 1 {
                let burst = polled.iter().filter(|item| matches!(item, Item::Event(_)));
                assert_eq!(burst.take(BURST).count(), BURST, "round {round}");
            }
        }
        // What matters stands at the end of a burst that nobody else gets.
        for _ in 0..20 {
            driver.emit(1, THERMAL_LINE.repeat(400) + "1 1234:python3\n");
            for heard in [&of_any, &of_second_only, &sliced] {
                let fault = heard.iter().find(|item| matches!(item, Item::Event(_))).unwrap();
                assert_eq!(crate::driver::raw(&fault), "1 1234:python3");
            }
        }
        drop(monitor);
        assert_eq!(everything.iter().chain(polled).count(), 2 * 20 * 401, "to the end");
    });
}

#[test]
fn the_end_of_a_burst_reaches_the_only_subscriber_that_wants_nothing_else() {
    let driver = Driver::new(1, NEW);
    for _ in 0..40 {
        let monitor = Monitor::start(&driver.machine).unwrap();
        let mut faults = monitor.subscribe(Filter::new().types([EventType::VmFault], false));
        std::thread::scope(|scope| {
            let waiting = scope.spawn(move || faults.find(|item| matches!(item, Item::Event(_))));
            driver.emit(0, THERMAL_LINE.repeat(400) + "1 1234:python3\n");
            assert!(waiting.join().unwrap().is_some());
        });
    }
}

/// A read that fills the buffer may have left something, and then has not: nobody reads for ever.
#[test]
fn a_read_that_took_all_to_the_last_byte_of_room_is_the_last() {
    const LINE: &str = "2 400:7\n";
    let driver = Driver::new(1, NEW);
    let monitor = Monitor::start(&driver.machine).unwrap();
    let mut items = monitor.subscribe(Filter::new());
    for _ in 0..20 {
        driver.emit(0, LINE.repeat(16 * 1024 / LINE.len()));
        let events = (&mut items).filter(|item| matches!(item, Item::Event(_)));
        assert_eq!(events.take(16 * 1024 / LINE.len()).count(), 2048);
    }
    drop(monitor);
}

#[test]
fn a_gap_that_another_thread_tells_wakes_who_waits() {
    let driver = Driver::new(1, NEW);
    let monitor = Monitor::start(&driver.machine).unwrap();
    let subscriptions = [(); 2].map(|()| monitor.subscribe(Filter::new()));
    std::thread::scope(|scope| {
        let heard = subscriptions.map(|items| take(scope, items, |items| items.wait(None)));
        for _ in 0..ROUNDS {
            monitor.release();
            monitor.resume().unwrap();
            for hear in &heard {
                let Item::Gap(gap) = hear.recv().unwrap() else { panic!() };
                assert_eq!(gap.cause, GapCause::Yielded);
            }
        }
        drop(monitor);
    });
}

#[test]
fn the_end_wakes_who_waits() {
    let driver = Driver::new(1, NEW);
    for _ in 0..ROUNDS / 4 {
        let monitor = Monitor::start(&driver.machine).unwrap();
        let subscriptions = [(); 3].map(|()| monitor.subscribe(Filter::new()));
        std::thread::scope(|scope| {
            let (tell, hear) = mpsc::channel();
            let sleepers = subscriptions.map(|mut items| -> ScopedJoinHandle<'_, _> {
                let tell = tell.clone();
                scope.spawn(move || {
                    tell.send(()).unwrap();
                    (items.wait(None).is_none(), items.is_finished())
                })
            });
            sleepers.iter().for_each(|_| hear.recv().unwrap());
            drop(monitor);
            for sleeper in sleepers {
                assert_eq!(sleeper.join().unwrap(), (true, true));
            }
        });
    }
}

#[test]
fn events_for_others_do_not_keep_a_wait_from_its_end() {
    let sim = SimMachine::builder().gpus(2).build().unwrap();
    let monitor = Monitor::start(&machine_of(&sim)).unwrap();
    let second = monitor.gpus()[1].id;
    let mut items = monitor.subscribe(Filter::new().gpus([second]));
    let (stop, stopped) = mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let sim = &sim;
        scope.spawn(move || {
            while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
                sim.emit(0, &THERMAL);
            }
        });
        for _ in 0..20 {
            assert!(items.wait(Some(Duration::from_millis(2))).is_none());
        }
        drop(stop);
        assert!(!items.is_finished());
    });
}
