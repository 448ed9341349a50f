//! Our own JSON, one object a line (`docs/event-schema.md`).

use std::fmt::Write as _;
use std::io::{self, Write};

use gpuev::Filter;
use gpuev::json::{self, Object};
use gpuev::time::{Anchor, Rfc3339};

use super::{Buffered, Record};
use crate::filter_text::FilterText;
use crate::note::RecordedNote;
use crate::session::Session;

pub(super) struct Ndjson<W>(Buffered<W>);

impl<W: Write> Ndjson<W> {
    pub(super) fn new(out: W) -> Self {
        Self(Buffered::new(out))
    }

    /// `wanted` is what is written of it.
    pub(super) fn session(&mut self, session: &Session, wanted: &Filter) -> io::Result<()> {
        write_session(&mut self.0.text, session, wanted);
        self.end_line()
    }

    /// `item` is its number in the session.
    pub(super) fn push(&mut self, record: Record<'_>, item: Option<i64>) -> io::Result<()> {
        let out = &mut self.0.text;
        match record {
            Record::Event(event, record) => json::write_decoded(out, event, record),
            Record::Gap(gap) => json::write_gap(out, gap),
            Record::Span(span) => {
                json::write_span(out, span);
                return self.end_line();
            }
        }
        self.number(item);
        self.end_line()
    }

    pub(super) fn note(&mut self, note: &RecordedNote, item: Option<i64>) -> io::Result<()> {
        self.0.text.push_str(&note.json);
        self.number(item);
        self.end_line()
    }

    /// Adds the number of the item to the object that was written.
    fn number(&mut self, item: Option<i64>) {
        let out = &mut self.0.text;
        if let Some(item) = item
            && out.pop() == Some('}')
        {
            // Writing to memory cannot fail.
            let _infallible = write!(out, ",\"item\":{item}}}");
        }
    }

    pub(super) fn finish(self) -> io::Result<W> {
        self.0.finish()
    }

    fn end_line(&mut self) -> io::Result<()> {
        self.0.text.push('\n');
        self.0.write_if_full()
    }
}

fn write_session(out: &mut String, session: &Session, wanted: &Filter) {
    let mut json = Object::begin(out, "session");
    json.text("uid", session.uid);
    text(&mut json, "host", session.host.as_deref());
    text(&mut json, "boot_id", session.boot_id.as_deref());
    text(&mut json, "kernel", session.kernel.as_deref());
    json.text("recorder", &session.recorder);
    text(&mut json, "scope", session.scope.as_deref());
    let gpus = session.gpus.iter().map(|(gpu, _)| *gpu);
    match FilterText::of_both(&session.filter, wanted, gpus) {
        Some(filter) => json.raw("filter", &filter.to_json()),
        None => json.null("filter"),
    }
    anchor(&mut json, "started", Some(session.started));
    anchor(&mut json, "alive", session.alive);
    anchor(&mut json, "ended", session.ended);
    json.value("gpus", |out| {
        out.push('[');
        for (index, (gpu, name)) in session.gpus.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            let mut json = Object::nested(out);
            json.value("gpu", |out| json::write_gpu(out, *gpu));
            json.number("kfd_id", gpu.kfd_id);
            text(&mut json, "name", name.as_deref());
            if let Some((_, since)) = session.came_later.iter().find(|(later, _)| later == gpu) {
                json.number("since_boot_ns", since);
            }
            json.end();
        }
        out.push(']');
    });
    json.end();
}

fn text(json: &mut Object<'_>, key: &str, text: Option<&str>) {
    match text {
        Some(text) => json.text(key, text),
        None => json.null(key),
    }
}

fn anchor(json: &mut Object<'_>, key: &str, anchor: Option<Anchor>) {
    json.value(key, |out| match anchor {
        Some(Anchor { boot_ns, unix_ns }) => {
            let mut json = Object::nested(out);
            json.text("time", Rfc3339(unix_ns));
            json.number("boot_ns", boot_ns);
            json.end();
        }
        None => out.push_str("null"),
    });
}
