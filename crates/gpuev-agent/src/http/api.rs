//! What was and what is: events, spans, alerts, GPUs, and how the agent is.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Query, State};
use axum::http::header::ACCEPT;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use gpuev::json::{self, Object};
use gpuev::span::{Limits, SpanKind, Spans};
use gpuev::time::{Anchor, Rfc3339, boot_now_ns};
use gpuev::{Bdf, EventType, Filter, Gpu, GpuId, Severity};
use gpuev_store::{History, unix_ns_of};
use serde::Deserialize;

use super::answer::{held_json, json, refused, with_type};
use super::{OPENAPI, Site};
use crate::metrics::Exposition;
use crate::signal::GpuChange;

/// Records in an answer, unless `limit` says.
const RECORDS: usize = 100;
const MOST_RECORDS: usize = 1000;

/// Items that one question may look at; it is told where to go on.
const MOST_LOOKED_AT: usize = 500_000;

/// What of the history is wanted.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Asked {
    from: Option<String>,
    to: Option<String>,
    after: Option<i64>,
    limit: Option<usize>,
    gpu: Option<String>,
    r#type: Option<String>,
    severity: Option<String>,
    pid: Option<u32>,
}

/// What makes no sense, in words.
type Nonsense = String;

pub(super) async fn events(State(site): State<Site>, Query(asked): Query<Asked>) -> Response {
    from_history(&site, move |history, known| {
        let query = asked.query(known, true)?;
        let limit = asked.limit();
        let mut list = Listed::default();
        let mut items = history.items(&query);
        while list.count < limit {
            let Some((place, item)) = items.next_placed().map_err(|e| e.to_string())? else {
                break;
            };
            list.next = place.item;
            list.add(|object| {
                object.number("item", place.item);
                object.value("record", |out| json::write_item(out, &item));
            });
        }
        Ok(list.end("events"))
    })
    .await
}

pub(super) async fn spans(State(site): State<Site>, Query(asked): Query<Asked>) -> Response {
    from_history(&site, move |history, known| {
        let kind = asked.span_kind()?;
        let query = asked.query(known, false)?;
        let limit = asked.limit();
        let mut pairing = Spans::new(Limits::default());
        let mut list = Listed::default();
        let (mut looked_at, mut session) = (0, None);
        let mut items = history.items(&query);
        while looked_at < MOST_LOOKED_AT && list.count < limit {
            let Some((place, item)) = items.next_placed().map_err(|e| e.to_string())? else {
                break;
            };
            // Another run of the recorder: what was open there is not closed here.
            if session.replace(place.session).is_some_and(|before| before != place.session) {
                pairing = Spans::new(Limits::default());
            }
            (looked_at, list.next) = (looked_at + 1, place.item);
            pairing.push(&item, |span| {
                let wanted = kind.is_none_or(|kind| span.kind() == kind)
                    && asked.pid.is_none_or(|pid| span.pid == Some(pid) || span.tid == Some(pid));
                if wanted {
                    list.add(|object| object.value("record", |out| json::write_span(out, &span)));
                }
            });
        }
        Ok(list.end("spans"))
    })
    .await
}

/// A list of records and where to go on.
#[derive(Default)]
struct Listed {
    text: String,
    count: usize,
    next: i64,
}

impl Listed {
    fn add(&mut self, write: impl FnOnce(&mut Object<'_>)) {
        if self.count > 0 {
            self.text.push(',');
        }
        self.count += 1;
        let mut object = Object::nested(&mut self.text);
        write(&mut object);
        object.end();
    }

    fn end(self, name: &str) -> String {
        let mut text = String::with_capacity(self.text.len() + 64);
        let mut object = Object::nested(&mut text);
        object.raw(name, &format!("[{}]", self.text));
        object.optional("next", (self.next > 0).then_some(self.next));
        object.end();
        text
    }
}

impl Asked {
    fn limit(&self) -> usize {
        self.limit.unwrap_or(RECORDS).clamp(1, MOST_RECORDS)
    }

    /// The part of the history; `filtered` by what only events have.
    fn query(&self, known: &[GpuId], filtered: bool) -> Result<gpuev_store::Query, Nonsense> {
        let now = Anchor::now();
        let moment = |text: &String| unix_ns_of(text, now).map_err(|error| error.to_string());
        let mut query = gpuev_store::Query::new();
        if let Some(from) = &self.from {
            query = query.from_unix_ns(moment(from)?);
        }
        if let Some(to) = &self.to {
            query = query.to_unix_ns(moment(to)?);
        }
        if let Some(after) = self.after {
            query = query.after_item(after);
        }
        let mut filter = Filter::new();
        if let Some(gpu) = &self.gpu {
            let bdf: Bdf = gpu.parse().map_err(|error: gpuev::Error| error.to_string())?;
            let named = known.iter().copied().filter(|id| id.bdf == bdf);
            filter = filter.gpus(named);
        }
        if filtered {
            filter = self.filter_events(filter)?;
        }
        Ok(query.filter(filter))
    }

    fn filter_events(&self, mut filter: Filter) -> Result<Filter, Nonsense> {
        if let Some(names) = &self.r#type {
            let names: Vec<&str> = names.split(',').map(str::trim).collect();
            let (unknown, known): (Vec<&str>, Vec<&str>) =
                names.into_iter().partition(|name| *name == "UNKNOWN");
            let find = |name: &str| {
                EventType::from_name(name).ok_or_else(|| {
                    let all = EventType::ALL.map(EventType::name).join(", ");
                    format!("no such type: {name}; there are {all}, UNKNOWN")
                })
            };
            let known: Vec<EventType> =
                known.into_iter().map(find).collect::<Result<_, Nonsense>>()?;
            filter = filter.types(known, !unknown.is_empty());
        }
        if let Some(name) = &self.severity {
            let least = Severity::from_name(name)
                .ok_or_else(|| format!("no such severity: {name}; info, warning or critical"))?;
            filter = filter.severity(least);
        }
        Ok(match self.pid {
            Some(pid) => filter.pids([pid]),
            None => filter,
        })
    }

    fn span_kind(&self) -> Result<Option<SpanKind>, Nonsense> {
        let Some(name) = &self.r#type else { return Ok(None) };
        SpanKind::from_name(name).map(Some).ok_or_else(|| {
            let all = SpanKind::ALL.map(SpanKind::name).join(", ");
            format!("no such type: {name}; there are {all}")
        })
    }
}

/// Answers from the history, in a thread that may wait for the disk.
async fn from_history(
    site: &Site,
    answer: impl FnOnce(&History, &[GpuId]) -> Result<String, Nonsense> + Send + 'static,
) -> Response {
    let Some(path) = site.agent.history.clone() else {
        return refused(StatusCode::NOT_FOUND, "no history is kept: history.enabled");
    };
    let Ok(place) = Arc::clone(&site.answers).acquire_owned().await else {
        return refused(StatusCode::SERVICE_UNAVAILABLE, "the agent is ending");
    };
    let looked_up = tokio::task::spawn_blocking(move || {
        let history = History::open(&path).map_err(|error| (true, error.to_string()))?;
        let sessions = history.sessions().map_err(|error| (true, error.to_string()))?;
        let gpus = sessions.iter().flat_map(|s| s.session.gpus.iter().map(|(gpu, _)| *gpu));
        let known: Vec<GpuId> = gpus.collect();
        answer(&history, &known).map_err(|error| (false, error))
    });
    match looked_up.await {
        Ok(Ok(text)) => held_json(text, place),
        Ok(Err((false, error))) => refused(StatusCode::BAD_REQUEST, &error),
        Ok(Err((true, error))) => refused(StatusCode::SERVICE_UNAVAILABLE, &error),
        Err(_) => refused(StatusCode::INTERNAL_SERVER_ERROR, "the history could not be read"),
    }
}

pub(super) async fn alerts(State(site): State<Site>) -> Response {
    let text = serde_json::json!({
        "alerts": site.agent.book.alerts(),
        "ended": site.agent.book.ended(),
        "silences": site.agent.book.silences(),
    });
    json(text.to_string())
}

pub(super) async fn gpus(State(site): State<Site>) -> Response {
    let status = site.agent.status();
    let mut text = String::new();
    let mut object = Object::nested(&mut text);
    let mut list = String::from("[");
    for gpu in &status.gpus {
        let is_silent = status.states.contains(&(gpu.id, GpuChange::Silent));
        let state = if is_silent { "silent" } else { "watched" };
        write_gpu(&mut list, &site, gpu, (state, None));
    }
    for (gpu, why) in &status.unreadable {
        write_gpu(&mut list, &site, gpu, ("unreadable", Some(why)));
    }
    for (gpu, _) in status.states.iter().filter(|(_, state)| *state == GpuChange::Lost) {
        write_missing(&mut list, *gpu);
    }
    list.push(']');
    object.raw("gpus", &list);
    object.end();
    json(text)
}

/// A GPU that was there and is not.
fn write_missing(list: &mut String, gpu: GpuId) {
    if list.len() > 1 {
        list.push(',');
    }
    let mut object = Object::nested(list);
    object.value("gpu", |out| json::write_gpu(out, gpu));
    object.text("name", "");
    object.word("state", "missing");
    object.end();
}

fn write_gpu(
    list: &mut String,
    site: &Site,
    gpu: &Gpu,
    (state, why): (&'static str, Option<&str>),
) {
    if list.len() > 1 {
        list.push(',');
    }
    let mut object = Object::nested(list);
    object.value("gpu", |out| json::write_gpu(out, gpu.id));
    object.text("name", &gpu.name);
    object.word("state", state);
    if let Some(why) = why {
        object.text("why", why);
    }
    if let Some((at, health)) = site.agent.health(gpu.id) {
        object.text("health_time", Rfc3339(at.unix_ns));
        object.value("health", |out| json::write_health(out, &health));
    }
    object.end();
}

/// How the agent is, and what a person should look at.
pub(super) async fn health(State(site): State<Site>) -> Response {
    let status = site.agent.status();
    let problems = site.agent.problems(&status, &site.agent.sinks());
    let mut text = String::new();
    let mut object = Object::nested(&mut text);
    object.word("status", if problems.is_empty() { "ok" } else { "degraded" });
    object.text("version", env!("CARGO_PKG_VERSION"));
    object.text("started", Rfc3339(site.agent.started.unix_ns));
    object.number("gpus", status.gpus.len());
    object.number("signals", status.signals);
    object.number("recorded_events", status.recorded.events);
    object.number("recorded_gaps", status.recorded.gaps);
    object.number("history_bytes", status.recorded.bytes);
    object.optional("yielded_since_boot_ns", status.yielded_since_boot_ns);
    object.text("stream", site.agent.live.now());
    object.raw("problems", &serde_json::json!(problems).to_string());
    object.end();
    json(text)
}

/// Whether the agent works: else who started it is to start it again.
pub(super) async fn live(State(site): State<Site>) -> Response {
    probed(site.agent.is_alive(boot_now_ns()))
}

/// Whether the agent has looked at the GPUs.
pub(super) async fn ready(State(site): State<Site>) -> Response {
    probed(site.agent.is_ready() && site.agent.is_alive(boot_now_ns()))
}

fn probed(well: bool) -> Response {
    let status = if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    with_type(status, "text/plain", Body::from(if well { "ok\n" } else { "no\n" }))
}

/// For Prometheus, in the format that it asks for.
pub(super) async fn metrics(State(site): State<Site>, headers: HeaderMap) -> Response {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let exposition = Exposition::accepted(accept);
    let text = site.agent.metrics.encode(exposition, &site.agent.sinks());
    with_type(StatusCode::OK, exposition.content_type(), Body::from(text))
}

pub(super) async fn openapi() -> Response {
    json(OPENAPI.to_owned())
}
