//! `gpuev agent`: the node service.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use gpuev::Machine;
use gpuev::keeper::KeeperSource;
use gpuev_agent::control::{Served, Server};
use gpuev_agent::http::HttpServer;
use gpuev_agent::sandbox::Plan;
use gpuev_agent::yielding::{Hold, Yielder};
use gpuev_agent::{Agent, Config, panics};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::args::SourceArgs;
use crate::exit::{Exit, Failure, Outcome, say};
use crate::signals::not_ignored;
use crate::source::Source;
use crate::watching::own_keeper;

/// Who starts keepers may be started at the same time. GPUs that cannot be opened at the start are tried again, but are an
/// alert until then, and the gap of theirs begins with the start.
const KEEPER_MAY_TAKE: Duration = Duration::from_secs(30);

/// Watch the GPUs as a service: history, alerts, metrics, an HTTP API
///
/// Runs until SIGTERM or Ctrl-C. SIGHUP has it read its configuration again.
#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// The configuration; /etc/gpuev/agent.toml if there is one
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Only say whether the configuration makes sense
    #[arg(long)]
    check: bool,
    /// Deliver a test alert to this sink of the configuration, and print what its receiver answers
    #[arg(long, value_name = "NAME", conflicts_with = "check")]
    test_sink: Option<String>,
}

pub(crate) fn run(args: &AgentArgs, source: &SourceArgs) -> Outcome {
    let mut config = args.read()?;
    if args.check {
        Agent::check(&gpuev::Machine::host(), &config)
            .and_then(|_rules| HttpServer::check(&config.http))
            .map_err(|error| Failure::Usage(error.to_string()))?;
        say("the configuration makes sense");
        return Ok(Exit::Success);
    }
    if let Some(name) = &args.test_sink {
        return test_sink(name, &config);
    }
    panics::end_the_process();
    let simulated = source.source != "host";
    let source = Source::open(source)?;
    let scratch = Scratch::unless_set(simulated, &mut config)?;
    // First, so that GPUs do not take the descriptors that ending takes.
    let mut signals = Signals::new(not_ignored(&[SIGINT, SIGTERM, SIGHUP]))
        .map_err(|error| gpuev::Error::io("listen for signals", error))?;
    let (machine, keeper, sandbox) = if simulated {
        (source.machine.clone(), None, None)
    } else {
        let keeper = keeper(&config)?;
        let plan = give_up_the_rest(&config)?;
        if told_to_end_before(&keeper, &mut signals) {
            return Ok(Exit::Success);
        }
        (Machine::host().with_event_source(keeper.clone()), Some(keeper), plan)
    };
    let agent = Agent::start(&machine, &config)?;
    let control = serve(&agent, keeper, &config)?;
    let _feeding = source.begin()?;
    for signal in signals.forever() {
        if signal != SIGHUP {
            break;
        }
        if let Err(failure) = args.reload(&agent, &scratch, sandbox.as_ref()) {
            failure.report();
            say("it goes on by the configuration of before");
        }
    }
    drop(control);
    agent.stop()?;
    Ok(Exit::Success)
}

/// Tells a sink's receiver once, from inside the sandbox where the agent would be in it.
fn test_sink(name: &str, config: &Config) -> Outcome {
    if config.agent.sandbox && !config.keeper.socket.as_os_str().is_empty() {
        Plan::for_agent(config).in_force().enter()?;
    }
    let sink = Agent::test_sink(&gpuev::Machine::host(), config, name)?;
    say(&format!("sink {sink}: its receiver took the test alert"));
    Ok(Exit::Success)
}

/// Who opens event files: the one whom the configuration names, or this program again.
fn keeper(config: &Config) -> Result<KeeperSource, Failure> {
    let socket = &config.keeper.socket;
    let keeper =
        if socket.as_os_str().is_empty() { own_keeper()? } else { KeeperSource::at_socket(socket) };
    Ok(if config.keeper.partial { keeper.accept_partial() } else { keeper })
}

/// Waits for who starts keepers, and tells whether the agent was told to end meanwhile. Without one it goes on: it
/// has a history to tell of, and says what it cannot read.
fn told_to_end_before(keeper: &KeeperSource, signals: &mut Signals) -> bool {
    let mut ends = false;
    keeper.wait(KEEPER_MAY_TAKE, || {
        ends = signals.pending().any(|signal| signal != SIGHUP);
        !ends
    });
    ends
}

/// From here on, only what the configuration names is in reach. An agent that starts keepers itself needs all
/// that they need. Gives what is in reach, where the kernel holds it to that.
fn give_up_the_rest(config: &Config) -> Result<Option<Plan>, Failure> {
    if !config.agent.sandbox || config.keeper.socket.as_os_str().is_empty() {
        say("without keeper.socket and agent.sandbox it keeps all privileges that it has");
        return Ok(None);
    }
    let folder = &config.agent.state_dir;
    if let Err(error) = std::fs::create_dir_all(folder) {
        say(&format!("create {}: {error}; the agent works without it", folder.display()));
    }
    let plan = Plan::for_agent(config).in_force();
    let taken = plan.enter()?;
    say(&taken.to_string());
    Ok(taken.files.then_some(plan))
}

/// Answers on the local socket, unless there is to be none.
fn serve(
    agent: &Agent,
    keeper: Option<KeeperSource>,
    config: &Config,
) -> Result<Option<Server>, Failure> {
    let socket = &config.control.socket;
    if socket.as_os_str().is_empty() {
        return Ok(None);
    }
    let hold = Hold::of(agent.shared(), keeper);
    let yielder = Yielder::start(hold, |told| say(&told.to_string()))?;
    let shared = Arc::clone(agent.shared());
    let tell = move |error: Option<&gpuev::Error>| {
        match error {
            Some(error) => say(&format!("{error}; trying again every 10 s")),
            None => say("the local socket is there"),
        }
        shared.lacks("the local socket", error.map(ToString::to_string));
    };
    Ok(Some(Server::start_when_possible(
        socket,
        Arc::new(Served { yielder, agent: Some(Arc::clone(agent.shared())) }),
        tell,
    )?))
}

impl AgentArgs {
    fn reload(
        &self,
        agent: &Agent,
        scratch: &Scratch,
        sandbox: Option<&Plan>,
    ) -> Result<(), Failure> {
        let mut config = self.read()?;
        scratch.put_into(&mut config);
        let lacks = sandbox.map(|plan| plan.lacks(&config)).unwrap_or_default();
        if !lacks.is_empty() {
            let lacks: Vec<String> = lacks.iter().map(|path| path.display().to_string()).collect();
            let what = format!(
                "its sandbox has no {}: it was fixed at the start; restart the agent, or use a folder that the \
                 configuration named then",
                lacks.join(", ")
            );
            return Err(Failure::Usage(what));
        }
        let later = agent.shared().reload(&config)?;
        let later: String = later.iter().map(|name| format!("; [{name}] at restart")).collect();
        say(&format!("the configuration was read again{later}"));
        Ok(())
    }

    fn read(&self) -> Result<Config, Failure> {
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        Config::load(self.config.as_deref(), environment)
            .map_err(|error| Failure::Usage(error.to_string()))
    }
}

/// Where the agent of a simulated machine keeps what it keeps, unless its configuration says: it is to be tried
/// by anybody, beside the one that serves.
struct Scratch(Option<tempfile::TempDir>);

impl Scratch {
    fn unless_set(simulated: bool, config: &mut Config) -> Result<Self, Failure> {
        let folder = if simulated && config.agent == Config::default().agent {
            let folder = tempfile::Builder::new().prefix("gpuev-agent-").tempdir()?;
            say(&format!("state and history are in {} until the end", folder.path().display()));
            Some(folder)
        } else {
            None
        };
        let scratch = Self(folder);
        scratch.put_into(config);
        Ok(scratch)
    }

    fn put_into(&self, config: &mut Config) {
        if let Some(folder) = &self.0 {
            config.agent.state_dir = folder.path().to_owned();
            config.control.socket = folder.path().join("agent.sock");
        }
    }
}
