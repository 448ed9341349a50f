//! The way of an event allocates nothing, once the first ones have come through.

use allocation_counter::measure;
use gpuev::{Filter, Monitor};

use crate::driver::{Driver, NEW, all};

/// What a burst costs after the buffers have grown to it.
fn fault(number: u64) -> String {
    format!("7 {} -4242 @7fff0{:04x}(64) W\n", 40_507_688_414_784 + number, number)
}

#[test]
fn a_reader_allocates_nothing_for_an_event() {
    let driver = Driver::new(1, NEW);
    driver.name_process(4242, b"python3");
    let mut reader = driver.reader();
    let burst: String = (0..100).map(fault).collect();
    driver.emit(0, &burst);
    assert_eq!(all(&mut reader).len(), 100);

    driver.emit(0, &burst);
    let mut events = 0;
    let info = measure(|| {
        while reader.next().unwrap().is_some() {
            events += 1;
        }
    });
    assert_eq!((events, info.count_total), (100, 0));
}

#[test]
fn a_subscriber_allocates_nothing_for_an_event() {
    let driver = Driver::new(1, NEW);
    driver.name_process(4242, b"python3");
    let monitor = Monitor::start(&driver.machine).unwrap();
    let mut subscription = monitor.subscribe(Filter::new());
    let burst: String = (0..100).map(fault).collect();
    driver.emit(0, &burst);
    (0..100).for_each(|_| drop(subscription.wait(None)));

    driver.emit(0, &burst);
    let info = measure(|| (0..100).for_each(|_| drop(subscription.wait(None))));
    // The queue hands what it holds over in one piece, the other is filled meanwhile.
    assert!(info.count_total <= 2, "{info:?}");
}
