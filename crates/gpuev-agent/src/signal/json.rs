//! A signal as one JSON object: the documented record, and what the agent knows besides.

use gpuev::json::{self, Object};
use gpuev::time::Rfc3339;

use super::{Aggregate, GpuChange, RasIncrease, Signal, Victim, What};

impl Signal {
    /// Appends the signal as one JSON object, without a newline: the record of `docs/event-schema.md` with
    /// `job` (who it hit), `ambiguous` and `health` (how the GPU was doing) behind its own fields, each only
    /// where it is known.
    pub fn write_json(&self, out: &mut String) {
        match &self.what {
            What::Event(event) => json::write_event(out, event),
            What::Gap(gap) => json::write_gap(out, gap),
            What::Span(span) => json::write_span(out, span),
            What::Health => self.record(out, |_| {}),
            What::RasErrors(ras) => self.record(out, |object| ras_errors(object, ras)),
            What::Aggregate(aggregate) => {
                self.record(out, |object| write_aggregate(object, aggregate));
            }
            What::Gpu(change) => {
                self.record(out, |object| object.word("change", GpuChange::name(*change)));
            }
        }
        self.append_context(out);
    }

    /// A record of the agent's own: its head is that of an event.
    fn record(&self, out: &mut String, body: impl FnOnce(&mut Object<'_>)) {
        let mut object = Object::begin(out, self.kind());
        if let Some(name) = self.type_name() {
            object.word("type", name);
        }
        object.word("severity", self.severity().name());
        object.value("gpu", |out| json::write_gpu(out, self.gpu));
        object.text("time", Rfc3339(self.unix_ns));
        object.number("boot_ns", self.boot_ns);
        body(&mut object);
        object.end();
    }

    /// What is known besides goes before the record's closing brace.
    fn append_context(&self, out: &mut String) {
        let mut more = |key: &str, write: &dyn Fn(&mut String)| {
            out.pop();
            out.push_str(",\"");
            out.push_str(key);
            out.push_str("\":");
            write(out);
            out.push('}');
        };
        if let Some(process) = &self.process {
            more("job", &|out| json::write_process(out, process));
        }
        if self.ambiguous {
            more("ambiguous", &|out| out.push_str("true"));
        }
        if let Some(facts) = &self.reset {
            if let Some(hive) = facts.hive {
                more("hive", &|out| out.push_str(&format!("\"{hive:016x}\"")));
            }
            if let Some(victims) = &facts.victims {
                more("victims", &|out| write_victims(out, victims));
            }
        }
        if let Some(health) = &self.health {
            more("health", &|out| json::write_health(out, health));
        }
    }
}

/// Processes with their numbers, and who they are where that is known.
fn write_victims(out: &mut String, victims: &[Victim]) {
    out.push('[');
    for (index, victim) in victims.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        let mut object = Object::nested(out);
        object.number("pid", victim.pid);
        if let Some(process) = &victim.process {
            object.value("job", |out| json::write_process(out, process));
        }
        object.end();
    }
    out.push(']');
}

fn ras_errors(object: &mut Object<'_>, ras: &RasIncrease) {
    object.text("block", &ras.block);
    object.word("kind", ras.kind.name());
    object.number("increase", ras.increase);
    object.number("total", ras.total);
}

fn write_aggregate(object: &mut Object<'_>, aggregate: &Aggregate) {
    object.optional("pid", aggregate.pid);
    if let Some(tid) = aggregate.tid {
        object.number("tid", tid);
    }
    object.number("count", aggregate.count);
    object.number("bytes", aggregate.bytes);
    object.number("from_boot_ns", aggregate.from_boot_ns);
    object.number("to_boot_ns", aggregate.to_boot_ns);
    if let Some(latency) = aggregate.latency {
        object.value("latency", |out| {
            let mut object = Object::nested(out);
            object.number("count", latency.count);
            object.number("p50_ns", latency.p50_ns);
            object.number("p99_ns", latency.p99_ns);
            object.number("max_ns", latency.max_ns);
            object.number("sum_ns", latency.sum_ns);
            object.end();
        });
    }
    if aggregate.unpaired > 0 {
        object.number("unpaired", aggregate.unpaired);
    }
    object.value("examples", |out| {
        out.push('[');
        for (index, event) in aggregate.examples.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            json::write_event(out, event);
        }
        out.push(']');
    });
}
