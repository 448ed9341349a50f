//! A recording beside a program: it is made as well as it can be, and nothing of the program depends on it.

use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::Duration;

use gpuev_store::Progress;

use super::{RecordArgs, Started, summary};
use crate::args::SourceArgs;
use crate::exit::{Failure, say};

/// The driver takes a process apart in a worker (`kfd_process_wq_release`), and tells of its end after it.
const LAST_EVENTS: Duration = Duration::from_millis(200);
/// A program does not wait longer for a disk or a driver that hangs.
const BEGIN_WITHIN: Duration = Duration::from_secs(2);
/// After the program's end nobody waits longer for them.
const FINISH_WITHIN: Duration = Duration::from_secs(10);

/// A recording in threads of its own.
pub(super) struct Background {
    /// Dropped, it ends the recording.
    end: Sender<()>,
    news: Receiver<News>,
    over: bool,
}

enum News {
    Begun,
    NotBegun(Failure),
    Ended(Result<Progress, gpuev::Error>, PathBuf),
}

impl Background {
    /// Begins to record. Gives the reason where that has failed by the time that a program may wait for it; where it
    /// takes longer, it goes on trying.
    pub(super) fn begin(args: &RecordArgs, source: &SourceArgs) -> Result<Self, Failure> {
        let (end, ended) = mpsc::channel();
        let (tell, news) = mpsc::channel();
        let (args, source, strict) = (args.clone(), source.clone(), args.strict);
        std::thread::Builder::new()
            .name("gpuev-recording".to_owned())
            .spawn(move || record(&args, &source, &tell, ended))
            .map_err(|error| gpuev::Error::io("start a thread", error))?;
        let first = match strict {
            true => news.recv().map_err(|_| RecvTimeoutError::Disconnected),
            false => news.recv_timeout(BEGIN_WITHIN),
        };
        match first {
            Ok(News::NotBegun(failure)) => return Err(failure),
            Err(RecvTimeoutError::Timeout) => say(
                "the recording has not begun after 2 s (a disk or driver that hangs?): the program starts now, and \
                 what happens until the recording begins is not in it",
            ),
            _ => {}
        }
        Ok(Self { end, news, over: false })
    }

    /// Tells at once what becomes of the recording while `run` runs the program, and how it ended afterwards.
    pub(super) fn beside<T>(self, program: &str, run: impl FnOnce() -> T) -> T {
        let Self { end, news, over } = self;
        let (done, is_done) = mpsc::channel::<()>();
        let name = program.to_owned();
        let teller = std::thread::Builder::new().name("gpuev-news".to_owned()).spawn(move || {
            let mut over = over;
            while !over && let Ok(news) = news.recv() {
                over = tell(news, &name);
            }
            drop(done);
        });
        let ran = run();
        drop(end);
        match teller {
            Ok(_) if is_done.recv_timeout(FINISH_WITHIN) == Err(RecvTimeoutError::Timeout) => {
                say(
                    "the recording is not finished after 10 s (a disk that hangs?): its last events may be missing",
                );
            }
            Ok(_) => {}
            Err(error) => {
                say(&format!("how the recording ended is not known: start a thread: {error}"));
            }
        }
        ran
    }
}

/// Whether that was the last.
fn tell(news: News, program: &str) -> bool {
    match news {
        News::Begun => return false,
        News::NotBegun(failure) => say(&format!("{program} runs on unrecorded: {failure}")),
        News::Ended(Ok(progress), path) => say(&summary(&progress, &path)),
        News::Ended(Err(error), path) => say(&format!(
            "{program} runs on, its recording to {} has failed: {error}",
            path.display()
        )),
    }
    true
}

/// Records until `ended` is closed, or for as long as was asked.
fn record(args: &RecordArgs, source: &SourceArgs, tell: &Sender<News>, ended: Receiver<()>) {
    let Started { monitor, recorder, source, path } = match super::start_recording(args, source) {
        Ok(started) => started,
        Err(failure) => return drop(tell.send(News::NotBegun(failure))),
    };
    // Nobody is interested any more where the program has ended.
    let _told = tell.send(News::Begun);
    let feeding = source.begin();
    let length = args.duration;
    let ending = std::thread::Builder::new().name("gpuev-end".to_owned()).spawn(move || {
        let by_program = match length {
            Some(length) => ended.recv_timeout(length) == Err(RecvTimeoutError::Disconnected),
            None => ended.recv().is_err(),
        };
        if by_program {
            std::thread::sleep(LAST_EVENTS);
        }
        drop(monitor);
    });
    let result = match (ending, feeding) {
        (Err(error), _) => Err(gpuev::Error::io("start a thread", error)),
        (_, Err(Failure::Gpu(error))) => Err(error),
        _ => recorder.finish(),
    };
    let _told = tell.send(News::Ended(result, path));
}
