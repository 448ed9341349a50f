//! Event files that cannot be opened, for now or for good, and opening that takes long.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};

use gpuev::{
    DEFAULT_LIMIT, Error, ErrorKind, EventSource, Filter, GapCause, Gpu, Item, KfdVersion, Monitor,
    OnOpened, OpenedFiles, Result, Scope,
};

use crate::driver::{Driver, NEW};

/// A source that asks the test before it opens anything.
#[derive(Debug)]
struct Asking<F> {
    before: F,
    opened: Arc<Mutex<Vec<UnixStream>>>,
}

impl<F> Asking<F> {
    fn new(before: F) -> (Self, Arc<Mutex<Vec<UnixStream>>>) {
        let opened = Arc::default();
        (Self { before, opened: Arc::clone(&opened) }, opened)
    }
}

struct Shown<F>(F);

impl<F> std::fmt::Debug for Shown<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a function")
    }
}

impl<F> EventSource for Asking<Shown<F>>
where
    F: Fn(&[Gpu]) -> Result<()> + Send + Sync,
{
    fn version(&self) -> Result<KfdVersion> {
        Ok(NEW)
    }

    fn open(&self, gpu: &Gpu) -> Result<OwnedFd> {
        self.open_all(std::slice::from_ref(gpu), &|_, _| {})?.into_files().remove(0)
    }

    fn scope(&self) -> Scope {
        Scope::everything("a test")
    }

    fn open_all(&self, gpus: &[Gpu], _each: OnOpened<'_>) -> Result<OpenedFiles> {
        (self.before.0)(gpus)?;
        let open = |_: &Gpu| {
            let (driver, file) = UnixStream::pair().map_err(|e| Error::io("socketpair", e))?;
            file.set_nonblocking(true).map_err(|e| Error::io("fcntl", e))?;
            self.opened.lock().unwrap().push(driver);
            Ok(OwnedFd::from(file))
        };
        Ok(OpenedFiles::new(NEW, self.scope(), gpus.iter().map(open).collect()))
    }
}

fn cause(item: Option<Item>) -> Option<GapCause> {
    match item {
        Some(Item::Gap(gap)) => Some(gap.cause),
        _ => None,
    }
}

fn locked() -> Error {
    Error::new(ErrorKind::Locked, "open /dev/kfd").with_hint("KFD is locked")
}

/// A reset of any GPU locks KFD for all, for some seconds: nobody has to announce that it is over.
#[test]
fn a_locked_kfd_is_told_and_tried_again_without_being_asked() {
    let driver = Driver::new(2, NEW);
    let tries = Arc::new(AtomicUsize::new(0));
    let tried = Arc::clone(&tries);
    let (source, _files) = Asking::new(Shown(move |_: &[Gpu]| {
        if tried.fetch_add(1, Ordering::Relaxed) < 3 { Err(locked()) } else { Ok(()) }
    }));
    let machine = driver.machine.clone().with_event_source(source);
    let started = Monitor::builder(&machine).start_with(Filter::new(), DEFAULT_LIMIT);
    let (monitor, mut items) = started.expect("it is no error: it passes");
    // Each GPU is told of once, however often it is tried, and then that it is back.
    let causes: Vec<_> = (0..4).map(|_| cause(items.next()).unwrap()).collect();
    assert_eq!(causes[..2], [GapCause::Locked; 2]);
    assert_eq!(causes[2..], [GapCause::Reopened; 2]);
    assert_eq!((monitor.gpus().len(), monitor.failures().len()), (2, 0));
    assert_eq!(tries.load(Ordering::Relaxed), 4);
}

#[test]
fn a_gpu_that_this_process_cannot_see_is_told_in_the_stream() {
    let driver = Driver::new(1, NEW);
    let (source, _files) = Asking::new(Shown(|gpus: &[Gpu]| {
        let is_new = gpus.iter().any(|gpu| gpu.id.kfd_id == 101);
        let later = || Error::new(ErrorKind::AppearedLater, "SMI_EVENTS");
        if is_new { Err(later()) } else { Ok(()) }
    }));
    let machine = driver.machine.clone().with_event_source(source);
    let builder = Monitor::builder(&machine);
    let (monitor, mut items) = builder.start_with(Filter::new(), DEFAULT_LIMIT).unwrap();
    driver.add_gpu(1);
    driver.announce();
    let Some(Item::Gap(gap)) = items.next() else { panic!("it should be told") };
    assert_eq!((gap.cause, gap.gpu.index), (GapCause::AppearedLater, 1));
    assert_eq!(monitor.failures().len(), 1);
    assert_eq!(monitor.gpus().len(), 1);
}

/// `open` of the real device waits for the clean-up of compute processes, which may take seconds.
#[test]
fn nobody_waits_for_an_open_that_takes_long() {
    let driver = Driver::new(1, NEW);
    let (entered, has_entered): (Sender<()>, Receiver<()>) = mpsc::channel();
    let (go_on, may_go_on): (Sender<()>, Receiver<()>) = mpsc::channel();
    let may_go_on = Mutex::new(may_go_on);
    let (source, files) = Asking::new(Shown(move |gpus: &[Gpu]| {
        if gpus.iter().any(|gpu| gpu.id.kfd_id == 101) {
            entered.send(()).unwrap();
            may_go_on.lock().unwrap().recv().unwrap();
        }
        Ok(())
    }));
    let machine = driver.machine.clone().with_event_source(source);
    let builder = Monitor::builder(&machine);
    let (monitor, mut items) = builder.start_with(Filter::new(), DEFAULT_LIMIT).unwrap();
    driver.add_gpu(1);
    driver.announce();
    has_entered.recv().unwrap();
    assert_eq!((monitor.gpus().len(), monitor.failures().len()), (1, 0));
    assert!(monitor.scope().all_processes);
    monitor.release();
    assert_eq!(monitor.gpus().len(), 0);
    // What is open by then is closed, not watched.
    go_on.send(()).unwrap();
    monitor.settle();
    for file in files.lock().unwrap().iter_mut() {
        assert_eq!(file.read(&mut [0; 64]).and_then(|_| file.read(&mut [0; 64])).unwrap(), 0);
    }
    assert!(items.try_next().is_none());
    drop(monitor);
}

#[test]
fn what_is_left_out_is_known() {
    let driver = Driver::new(1, NEW);
    driver.write("sys/class/kfd/kfd/topology/nodes/7/gpu_id", "800\n");
    driver.write("sys/class/kfd/kfd/topology/nodes/7/properties", "nonsense\n");
    let monitor = Monitor::start(&driver.machine).unwrap();
    let left_out = monitor.left_out();
    assert!(left_out.iter().any(|one| one.contains("KFD node 7 is left out")), "{left_out:?}");
}
