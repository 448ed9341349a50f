//! `gpuev status`, `alerts`, `ack` and `silence`: what an operator asks the agent of this machine.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use clap::Args;
use gpuev::message::Printable;
use gpuev::time::{Anchor, Rfc3339};
use gpuev::{Error, ErrorKind};
use gpuev_agent::Alert;
use gpuev_agent::agent::Overview;
use gpuev_agent::alert::{NewSilence, Silence};
use gpuev_agent::control::{Client, Request, Response};

use crate::args::duration;
use crate::cmd::yielding::SocketArgs;
use crate::exit::{Exit, Failure, Outcome, say};
use crate::output::standard;

/// The agent answers from memory.
const PATIENCE: Duration = Duration::from_secs(5);
/// As much of an id as tells alerts apart for people.
const SHORT_ID: usize = 8;

/// Show how the agent is: GPUs, history, sinks, and what a person should look at
///
/// Exit code 0: the agent runs and has no problem. 1: it has problems, or no agent answers.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    socket: SocketArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// List the alerts that are not over, the worst first, and the silences
#[derive(Debug, Args)]
pub(crate) struct AlertsArgs {
    #[command(flatten)]
    socket: SocketArgs,
    /// List also the last alerts that are over
    #[arg(long)]
    all: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Acknowledge an alert: you know of it, and nobody is reminded of it again
#[derive(Debug, Args)]
pub(crate) struct AckArgs {
    #[command(flatten)]
    socket: SocketArgs,
    /// The id of the alert, or as much of it as names one
    #[arg(value_name = "ID")]
    id: String,
    /// Who acknowledges it; your login name unless said
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Take the acknowledgement back
    #[arg(long, conflicts_with = "by")]
    undo: bool,
}

/// Silence alerts by their labels for a while: nobody is told of them
///
/// It prints the alerts that the silence covers now. gpuev alerts lists labels and silences.
#[derive(Debug, Args)]
pub(crate) struct SilenceArgs {
    #[command(flatten)]
    socket: SocketArgs,
    /// LABEL=VALUE; alerts with all of them are covered. A VALUE that ends in * stands for all that begin so
    #[arg(value_name = "MATCHER", required_unless_present = "end", conflicts_with = "end")]
    matchers: Vec<String>,
    /// How long it holds
    #[arg(long = "for", value_name = "DURATION", value_parser = duration, default_value = "2h")]
    length: Duration,
    /// Why
    #[arg(long, value_name = "TEXT", required_unless_present_any = ["end", "dry_run"])]
    comment: Option<String>,
    /// Who silences them; your login name unless said
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Print what it covers now, and do not make it
    #[arg(long)]
    dry_run: bool,
    /// End the silence with this number
    #[arg(long, value_name = "NUMBER")]
    end: Option<u64>,
}

/// Asks the agent.
fn ask(socket: &SocketArgs, request: &Request) -> Result<Response, Failure> {
    let path = socket.path();
    let Some(mut client) = Client::connect(&path)? else {
        let what = format!("no agent runs at {}", path.display());
        let error = Error::new(ErrorKind::Io, what);
        let hint = "start it, or name its socket with --socket";
        return Err(Failure::Gpu(error.with_hint(hint)));
    };
    client.answer_within(PATIENCE)?;
    Ok(client.ask(request)?)
}

fn odd_answer() -> Failure {
    let error = Error::new(ErrorKind::Io, "the answer is to another question");
    Failure::Gpu(error.with_hint("are the agent and this program of one release?"))
}

fn print(text: &str) -> Result<(), Failure> {
    standard().write_all(text.as_bytes()).map_err(Failure::Output)
}

fn print_json(value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| Failure::Output(std::io::Error::other(error)))?;
    print(&format!("{text}\n"))
}

pub(crate) fn status(args: &StatusArgs) -> Outcome {
    let Response::Status { overview, .. } = ask(&args.socket, &Request::Status {})? else {
        return Err(odd_answer());
    };
    if args.json {
        print_json(&overview)?;
    } else {
        print(&described(&overview))?;
    }
    Ok(if overview.problems.is_empty() { Exit::Success } else { Exit::Failure })
}

fn described(overview: &Overview) -> String {
    let Overview { status, version, started, .. } = overview;
    let mut text = format!("agent     {status}, version {version}, since {started}\n");
    for gpu in &overview.gpus {
        let partition =
            if gpu.partition > 0 { format!("/{}", gpu.partition) } else { String::new() };
        let released = if overview.released { ", released" } else { "" };
        let _infallible =
            writeln!(text, "GPU       {}{partition}: {}{released}", gpu.gpu, gpu.state);
    }
    let history = match overview.recording {
        None => "off".to_owned(),
        Some(false) => "not recording".to_owned(),
        Some(true) => {
            let mib = overview.history_bytes / (1 << 20);
            format!("recording, {} events since the start, {mib} MiB", overview.recorded_events)
        }
    };
    let _infallible = writeln!(text, "history   {history}");
    for sink in &overview.sinks {
        let state = sink.failing.as_ref().map_or("reached", |_| "not reached");
        let _infallible = writeln!(
            text,
            "sink      {}: {state}, {} delivered, {} waiting, {} set aside",
            sink.sink, sink.delivered, sink.waiting, sink.set_aside
        );
    }
    if overview.sinks.is_empty() {
        text.push_str("sink      none: alerts are written to the agent's log\n");
    }
    let Overview { firing, pending, silences, .. } = overview;
    let _infallible =
        writeln!(text, "alerts    {firing} firing, {pending} pending; {silences} silences");
    for problem in &overview.problems {
        let _infallible = writeln!(text, "problem   {}", Printable(problem.as_bytes()));
    }
    text
}

pub(crate) fn alerts(args: &AlertsArgs) -> Outcome {
    let answer = ask(&args.socket, &Request::Alerts {})?;
    let Response::Alerts { alerts, total, ended, silences, .. } = &answer else {
        return Err(odd_answer());
    };
    if args.json {
        let ended: &[Alert] = if args.all { ended } else { &[] };
        print_json(&Listed { alerts, total: *total, ended, silences })?;
        return Ok(Exit::Success);
    }
    let mut text = String::new();
    alerts.iter().for_each(|alert| write_alert(&mut text, alert));
    if *total > alerts.len() {
        let _infallible = writeln!(text, "... and {} more", total - alerts.len());
    }
    if *total == 0 {
        text.push_str("no alert fires or is pending\n");
    }
    if args.all {
        ended.iter().for_each(|alert| write_alert(&mut text, alert));
    }
    silences.iter().for_each(|silence| write_silence(&mut text, silence));
    print(&text)?;
    Ok(Exit::Success)
}

#[derive(serde::Serialize)]
struct Listed<'a> {
    alerts: &'a [Alert],
    total: usize,
    ended: &'a [Alert],
    silences: &'a [Silence],
}

fn write_alert(text: &mut String, alert: &Alert) {
    let id = alert.id.get(..SHORT_ID).unwrap_or(&alert.id);
    let (state, severity) = (alert.state.name(), alert.severity.name());
    let since = to_the_second(alert.started_unix_ns);
    let summary = Printable(alert.summary.as_bytes());
    let _infallible =
        writeln!(text, "{id}  {state:<8} {severity:<8} {since}  {}: {summary}", alert.rule);
    if let Some(by) = &alert.acknowledged_by {
        let _infallible = writeln!(text, "          acknowledged by {}", Printable(by.as_bytes()));
    }
    if alert.silenced {
        text.push_str("          silenced\n");
    }
    let _infallible = writeln!(text, "          {}", Printable(pairs(&alert.labels).as_bytes()));
}

fn write_silence(text: &mut String, silence: &Silence) {
    let NewSilence { labels, until_unix_ns, by, comment, .. } = &silence.what;
    let line = format!("{} by {by}: {comment}", pairs(labels));
    let (id, until) = (silence.id, to_the_second(*until_unix_ns));
    let _infallible = writeln!(text, "silence {id} until {until}: {}", Printable(line.as_bytes()));
}

fn pairs(labels: &BTreeMap<String, String>) -> String {
    let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join(" ")
}

/// `2026-12-01T03:22:21Z`
fn to_the_second(unix_ns: i64) -> String {
    let time = Rfc3339(unix_ns).to_string();
    format!("{}Z", time.get(..19).unwrap_or(&time))
}

/// Who asks, as others are to read it.
fn login() -> String {
    let name = ["LOGNAME", "USER"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()));
    name.unwrap_or_else(|| format!("uid {}", rustix::process::getuid().as_raw()))
}

pub(crate) fn acknowledge(args: &AckArgs) -> Outcome {
    let by = (!args.undo).then(|| args.by.clone().unwrap_or_else(login));
    let request = Request::Acknowledge { id: args.id.clone(), by };
    let Response::Done { done, .. } = ask(&args.socket, &request)? else {
        return Err(odd_answer());
    };
    say(&format!("{done} is {}", if args.undo { "not acknowledged" } else { "acknowledged" }));
    Ok(Exit::Success)
}

pub(crate) fn silence(args: &SilenceArgs) -> Outcome {
    if let Some(id) = args.end {
        ask(&args.socket, &Request::EndSilence { id })?;
        say(&format!("silence {id} has ended"));
        return Ok(Exit::Success);
    }
    let length = i64::try_from(args.length.as_nanos()).unwrap_or(i64::MAX);
    let what = NewSilence {
        labels: matchers(&args.matchers)?,
        until_unix_ns: Anchor::now().unix_ns.saturating_add(length),
        by: args.by.clone().unwrap_or_else(login),
        comment: args.comment.clone().unwrap_or_default(),
    };
    let request = Request::Silence { what, dry: args.dry_run };
    let Response::Silenced { silence, covers, .. } = ask(&args.socket, &request)? else {
        return Err(odd_answer());
    };
    let mut text = String::new();
    covers.iter().for_each(|alert| write_alert(&mut text, alert));
    print(&text)?;
    let now = match covers.len() {
        0 => "no alert of now".to_owned(),
        1 => "1 alert of now".to_owned(),
        count => format!("{count} alerts of now"),
    };
    match silence {
        Some(silence) => {
            say(&format!(
                "silence {} covers {now}, and those to come; gpuev silence --end {0} ends it",
                silence.id
            ));
        }
        None => say(&format!("it would cover {now}")),
    }
    Ok(Exit::Success)
}

fn matchers(texts: &[String]) -> Result<BTreeMap<String, String>, Failure> {
    let mut labels = BTreeMap::new();
    for text in texts {
        let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
        let Some((name, value)) = pair else {
            let what = format!("{text:?} is no matcher: write LABEL=VALUE, as in rule=gpu-lost");
            return Err(Failure::Usage(what));
        };
        if labels.insert(name.to_owned(), value.to_owned()).is_some() {
            return Err(Failure::Usage(format!("the label {name} is named twice")));
        }
    }
    Ok(labels)
}
