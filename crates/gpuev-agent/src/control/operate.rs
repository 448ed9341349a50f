//! What operators ask the agent: how it is, what is wrong, and that they know.

use gpuev::time::Anchor;
use gpuev::{Error, ErrorKind};

use super::Response;
use crate::agent::{Shared, for_people};
use crate::alert::NewSilence;

/// Alerts in an answer.
const MOST_ALERTS: usize = 500;
/// Alerts of late in an answer.
const MOST_ENDED: usize = 100;

pub(super) fn status(agent: &Shared) -> Response {
    Response::Status { ok: true, overview: Box::new(agent.overview()) }
}

pub(super) fn alerts(agent: &Shared) -> Response {
    let (alerts, ended) = (agent.book.alerts(), agent.book.ended());
    Response::Alerts {
        ok: true,
        total: alerts.len(),
        alerts: for_people(alerts.iter(), MOST_ALERTS),
        ended: ended.iter().take(MOST_ENDED).map(|alert| alert.without_example()).collect(),
        silences: agent.book.silences(),
    }
}

/// Notes that `by` knows of the alert whose id begins with `id`; with `None`, that nobody does.
pub(super) fn acknowledge(agent: &Shared, id: &str, by: Option<&str>) -> gpuev::Result<Response> {
    let wrong = |what: String| {
        Error::new(ErrorKind::InvalidInput, what).with_hint("gpuev alerts lists them")
    };
    let alerts = agent.book.alerts();
    let mut found = alerts.iter().filter(|alert| !id.is_empty() && alert.id.starts_with(id));
    let Some(alert) = found.next() else {
        return Err(wrong(format!("there is no alert {id:?} that is not over")));
    };
    if found.next().is_some() && alert.id != id {
        return Err(wrong(format!("several alerts begin with {id:?}")));
    }
    if !agent.book.acknowledge(&alert.id, by, Anchor::now().unix_ns) {
        return Err(wrong(format!("the alert {id:?} is over")));
    }
    Ok(Response::Done { ok: true, done: alert.id.clone() })
}

/// Makes a silence, unless it is only to be seen what it would cover.
pub(super) fn silence(agent: &Shared, what: NewSilence, dry: bool) -> gpuev::Result<Response> {
    let now = Anchor::now().unix_ns;
    let alerts = agent.book.alerts();
    let covered = alerts.iter().filter(|alert| what.covers(&alert.labels));
    let covers = for_people(covered, MOST_ALERTS);
    let silence = if dry {
        what.check(now)?;
        None
    } else {
        Some(agent.book.silence(what, now)?)
    };
    Ok(Response::Silenced { ok: true, silence, covers })
}

pub(super) fn end_silence(agent: &Shared, id: u64) -> gpuev::Result<Response> {
    if agent.book.end_silence(id) {
        return Ok(Response::Done { ok: true, done: id.to_string() });
    }
    Err(Error::new(ErrorKind::InvalidInput, format!("there is no silence {id}"))
        .with_hint("gpuev alerts lists them"))
}
