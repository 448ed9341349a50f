//! Memory stays bounded whatever comes from outside, and nothing of this library's runs foreign code under its locks.

use allocation_counter::measure;
use gpuev::{EventType, Filter, Gap, GapCause, Item, Monitor};

use crate::driver::{Driver, NEW};

#[test]
fn a_stuck_subscriber_holds_no_more_than_its_limit_gaps_included() {
    const LIMIT: usize = 1000;
    const FAULT: &str = "7 1234567890123 -0 @7f0000000000(5a21) W\n";
    let driver = Driver::new(1, NEW);
    let monitor = Monitor::start(&driver.machine).unwrap();
    let mut stuck = monitor.subscribe_with_limit(Filter::new(), LIMIT);
    let mut other = monitor.subscribe(Filter::new());
    let lines = 8192 / FAULT.len();
    let mut told = Vec::new();
    for _ in 0..300 {
        // To the brim: something may be missing behind it.
        driver.emit(0, FAULT.repeat(lines));
        let mut events = 0;
        while events < lines || told.last().is_none_or(|gap: &Gap| gap.count.is_some()) {
            match other.wait(None).unwrap() {
                Item::Event(_) => events += 1,
                Item::Gap(gap) => told.push(gap),
            }
        }
    }
    assert!(told.len() >= 300 && told.iter().all(|gap| gap.cause == GapCause::DriverFifoFull));
    drop(monitor);
    let (mut events, mut gaps) = (0, Vec::new());
    for item in stuck.by_ref() {
        match item {
            Item::Event(_) => events += 1,
            Item::Gap(gap) => gaps.push(gap),
        }
    }
    assert!(gaps.len() * 36 <= LIMIT, "{} gaps", gaps.len());
    let lost: u64 = gaps.iter().filter_map(|gap| gap.count).sum();
    assert_eq!(events + lost, 300 * lines as u64, "each event came or is counted");
    for gap in told {
        let is_covered = gaps.iter().any(|wider| {
            wider.cause == gap.cause
                && wider.from_boot_ns <= gap.from_boot_ns
                && gap.to_boot_ns <= wider.to_boot_ns
        });
        assert!(is_covered, "{gap:?} is in none of {gaps:?}");
    }
}

#[test]
fn subscriptions_that_are_gone_leave_nothing() {
    let driver = Driver::new(1, NEW);
    let monitor = Monitor::start(&driver.machine).unwrap();
    let _all = monitor.subscribe(Filter::new());
    let wanted = || Filter::new().types([EventType::VmFault], false);
    drop(monitor.subscribe(wanted()));
    let info = measure(|| (0..1000).for_each(|_| drop(monitor.subscribe(wanted()))));
    assert!(info.bytes_current <= 0, "{info:?}");
}

/// A waker that uses the library, as an executor may that drops or starts a task at once.
#[cfg(feature = "tokio")]
mod wakers {
    use std::pin::Pin;
    use std::sync::{Arc, Mutex, mpsc};
    use std::task::{Context, Wake, Waker};

    use futures_core::Stream;
    use gpuev::Subscription;

    use super::*;

    struct Busy {
        monitor: Arc<Monitor>,
        kept: Mutex<Option<Subscription>>,
        woken: mpsc::Sender<()>,
    }

    impl Busy {
        fn work(&self) {
            let anew = self.monitor.subscribe(Filter::new());
            drop(self.kept.lock().unwrap().replace(anew));
        }
    }

    impl Wake for Busy {
        fn wake(self: Arc<Self>) {
            self.work();
            self.woken.send(()).unwrap();
        }
    }

    impl Drop for Busy {
        fn drop(&mut self) {
            self.work();
        }
    }

    #[test]
    fn a_waker_may_do_anything() {
        let driver = Driver::new(1, NEW);
        let monitor = Arc::new(Monitor::start(&driver.machine).unwrap());
        let mut stream = monitor.subscribe(Filter::new()).into_stream();
        let (tell, hear) = mpsc::channel();
        for gone in [false, false, true] {
            // The last reference is the queue's: a waker that replaces it drops it there.
            let kept = Mutex::new(Some(monitor.subscribe(Filter::new())));
            let woken = tell.clone();
            let busy = Arc::new(Busy { monitor: Arc::clone(&monitor), kept, woken });
            let waker = Waker::from(busy);
            assert!(Pin::new(&mut stream).poll_next(&mut Context::from_waker(&waker)).is_pending());
            drop(waker);
            if gone {
                monitor.release();
            } else {
                driver.emit(0, "2 400:7\n");
            }
            if gone {
                monitor.resume().unwrap();
            }
            hear.recv().unwrap();
            while stream.try_next().is_some() {}
        }
        let kept = Mutex::new(None);
        let busy = Arc::new(Busy { monitor: Arc::clone(&monitor), kept, woken: tell });
        let waker = Waker::from(busy);
        assert!(Pin::new(&mut stream).poll_next(&mut Context::from_waker(&waker)).is_pending());
        drop(waker);
        drop(stream);
    }
}
