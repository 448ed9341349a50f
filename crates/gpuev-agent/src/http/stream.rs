//! The live stream as server-sent events: each with an id, resumed by `Last-Event-ID`, and with a word about
//! what was missed.

use std::convert::Infallible;
use std::fmt::Write;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use gpuev::Severity;
use http_body::Frame;
use serde::Deserialize;
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::time::timeout;

use super::Site;
use super::answer::{refused, with_type};
use super::connection::Streams;
use crate::live::{Missed, Portion, Position};

/// Entries that are written at once.
const PORTION: usize = 64;

/// Pieces that wait for a slow client; the stream itself is the buffer.
const PIECES: usize = 2;

/// So often a quiet stream shows that it lives.
const ALIVE: Duration = Duration::from_secs(15);

/// `?after=ID&record=event,alert&severity=warning`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    after: Option<String>,
    record: Option<String>,
    severity: Option<String>,
}

/// Which entries a client wants.
struct Choice {
    records: Option<Vec<String>>,
    least: Severity,
}

pub(super) async fn stream(
    State(site): State<Site>,
    Extension(streams): Extension<Streams>,
    headers: HeaderMap,
    Query(wanted): Query<Wanted>,
) -> Response {
    let Some(least) = wanted.severity.as_deref().map_or(Some(Severity::Info), Severity::from_name)
    else {
        return refused(StatusCode::BAD_REQUEST, "severity is info, warning or critical");
    };
    let resumed = headers.get("last-event-id").and_then(|id| id.to_str().ok()).map(str::to_owned);
    let position = match resumed.or(wanted.after).as_deref().map(Position::parse) {
        None => site.agent.live.now(),
        Some(Some(position)) => position,
        Some(None) => {
            return refused(StatusCode::BAD_REQUEST, "no such id: give one of the stream's");
        }
    };
    let Ok(place) = std::sync::Arc::clone(&site.streams).try_acquire_owned() else {
        return refused(StatusCode::SERVICE_UNAVAILABLE, "too many streams: http.max_streams");
    };
    streams.begin();
    let records =
        wanted.record.map(|names| names.split(',').map(|name| name.trim().to_owned()).collect());
    let (pieces, body) = mpsc::channel(PIECES);
    tokio::spawn(async move {
        feed(&site, position, &Choice { records, least }, &pieces).await;
        drop(place);
    });
    with_type(StatusCode::OK, "text/event-stream", Body::new(Pieces(body)))
}

/// Sends what happens behind `position` until the client or the agent is gone.
async fn feed(site: &Site, mut position: Position, choice: &Choice, pieces: &Sender<Bytes>) {
    let live = &site.agent.live;
    let mut hello = String::from(": gpuev\n\n");
    loop {
        let portion = live.after(position, PORTION);
        position = portion.position;
        let mut text = std::mem::take(&mut hello);
        write(&mut text, &portion, choice);
        if !text.is_empty() && pieces.send(text.into()).await.is_err() {
            return;
        }
        if portion.closed {
            return;
        }
        let quiet = timeout(ALIVE, async {
            tokio::select! {
                () = live.changed_after(position) => {}
                () = pieces.closed() => {}
            }
        });
        if quiet.await.is_err() {
            // Also brings the reader's position to where the stream is, though nothing of it is for him.
            let _infallible = write!(hello, "event: alive\nid: {position}\ndata: {{}}\n\n");
        }
        if pieces.is_closed() {
            return;
        }
    }
}

fn write(text: &mut String, portion: &Portion, choice: &Choice) {
    let first = portion.entries.first().map_or(portion.position, |e| portion.position.before(e));
    let count = match portion.missed {
        Missed::Nothing => None,
        Missed::Entries(count) => Some(count.to_string()),
        Missed::Unknown => Some("null".to_owned()),
    };
    if let Some(count) = count {
        let _infallible =
            write!(text, "event: missed\nid: {first}\ndata: {{\"count\":{count}}}\n\n");
    }
    for entry in portion.entries.iter().filter(|entry| choice.wants(entry.kind, entry.severity)) {
        let id = portion.position.at(entry);
        // JSON has no newline of its own.
        let _infallible = write!(text, "event: {}\nid: {id}\ndata: {}\n\n", entry.kind, entry.json);
    }
}

impl Choice {
    fn wants(&self, record: &str, severity: Severity) -> bool {
        severity >= self.least
            && self.records.as_ref().is_none_or(|records| records.iter().any(|r| r == record))
    }
}

/// What is sent, piece by piece.
struct Pieces(Receiver<Bytes>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}
