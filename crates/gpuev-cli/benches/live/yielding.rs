//! How long `gpuev yield` takes until every GPU is let go: the agent's event files closed, its keeper gone.

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use gpuev_sim::SimMachine;
use gpuev_sim::run::Run;

use crate::figure;
use crate::subject::GPUEV;

const TIMES: u32 = 20;
const GPUS: usize = 8;
/// How long an agent may take to open what it watches.
const PATIENCE: Duration = Duration::from_secs(30);

type Failure = Box<dyn std::error::Error>;

/// From the start of the program to its end, which is when a command given to it would begin.
pub(crate) fn measure() -> Result<(), Failure> {
    let machine = SimMachine::builder().gpus(GPUS).build()?;
    let folder = tempfile::tempdir()?;
    let (config, socket) = (folder.path().join("agent.toml"), folder.path().join("agent.sock"));
    let state = folder.path().join("state");
    let text =
        format!("agent.state_dir = {state:?}\nhttp.listen = \"\"\ncontrol.socket = {socket:?}\n");
    std::fs::write(&config, text)?;
    let mut agent = Command::new(GPUEV);
    agent.args(["agent", "--config"]).arg(&config).stdin(Stdio::null());
    let mut running = Run::new(&machine).spawn(agent)?;
    let mut times = Vec::new();
    for _ in 0..TIMES {
        wait_until_watched(&machine)?;
        let began = Instant::now();
        let yielded =
            Command::new(GPUEV).args(["yield", "--for", "1m", "--socket"]).arg(&socket).output()?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
        if !yielded.status.success() {
            return Err(String::from_utf8_lossy(&yielded.stderr).into());
        }
        Command::new(GPUEV).args(["resume", "--socket"]).arg(&socket).output()?;
    }
    running.child().kill()?;
    figure::print("yield, 8 GPUs", "gpuev agent", &times, "ms");
    Ok(())
}

fn wait_until_watched(machine: &SimMachine) -> Result<(), Failure> {
    let began = Instant::now();
    let watched = || {
        let files = machine.event_files();
        files.iter().filter(|file| !file.closed && file.mask != 0).count()
    };
    while watched() < GPUS {
        if began.elapsed() > PATIENCE {
            return Err("the agent does not watch the GPUs".into());
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
