//! Puts a program on a simulated machine with two GPUs, of which the first throttles over and
//! over: `cargo run -p gpuev-sim --example run -- rocm-smi --showevents`.

use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use gpuev_sim::run::{Run, exit_code};
use gpuev_sim::{DriverEvent, SimMachine, throttler};

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let Some(program) = arguments.next() else {
        eprintln!("usage: run PROGRAM [ARGUMENT...]");
        return Ok(ExitCode::from(2));
    };
    let mut command = Command::new(program);
    command.args(arguments);

    let machine = SimMachine::builder().gpus(2).build()?;
    let over = AtomicBool::new(false);
    let status = thread::scope(|scope| {
        let throttling = scope.spawn(|| {
            for count in 1.. {
                machine.emit(0, &DriverEvent::Thermal { throttlers: throttler::TEMP_EDGE, count });
                thread::park_timeout(Duration::from_secs(1));
                if over.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        let status = Run::new(&machine).foreground(command);
        over.store(true, Ordering::Relaxed);
        throttling.thread().unpark();
        status
    })?;
    Ok(ExitCode::from(exit_code(status)))
}
