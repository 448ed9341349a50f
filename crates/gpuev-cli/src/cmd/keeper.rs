//! `gpuev keeper`: opens event files for the agent, so that the agent needs no privileges.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;

use clap::Args;
use gpuev::keeper::{self, Allowed};
use gpuev::{Error, Machine};
use gpuev_agent::sandbox;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

use crate::exit::{Exit, Failure, Outcome, say};

/// Open event files for the agent whose connection is the standard input, until it hangs up
///
/// The agent and the service manager start it. It is the only part that needs CAP_SYS_ADMIN, and the only one
/// that opens /dev/kfd.
#[derive(Debug, Args)]
pub(crate) struct KeeperArgs {
    /// Listen at this path instead, and run a keeper for each agent that connects
    #[arg(long, value_name = "PATH")]
    listen: Option<PathBuf>,
    /// Who may have event files, beside root and the keeper's own user; may be repeated
    #[arg(long, value_name = "USER", value_parser = user)]
    allow_user: Vec<u32>,
}

/// A number, or a name of `/etc/passwd`.
fn user(text: &str) -> Result<u32, String> {
    if let Ok(uid) = text.parse() {
        return Ok(uid);
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let uid_of = |line: &str| {
        let mut fields = line.split(':');
        let named = fields.next() == Some(text);
        fields.nth(1).filter(|_| named)?.parse().ok()
    };
    users.lines().find_map(uid_of).ok_or_else(|| "/etc/passwd has no such user".to_owned())
}

pub(crate) fn run(args: &KeeperArgs) -> Outcome {
    sandbox::keep_only_sys_admin()?;
    let allowed = Allowed::users(args.allow_user.iter().copied());
    match &args.listen {
        Some(path) => listen(path, &allowed)?,
        None => serve(&allowed)?,
    }
    Ok(Exit::Success)
}

fn serve(allowed: &Allowed) -> Result<(), Failure> {
    let stdin = io::stdin();
    let kind = rustix::net::sockopt::socket_type(&stdin);
    if kind != Ok(rustix::net::SocketType::SEQPACKET) {
        let why = "the standard input is no connection of an agent; gpuev agent, \
                   gpuev-keeper.socket and gpuev keeper --listen start it";
        return Err(Failure::Usage(why.to_owned()));
    }
    Ok(keeper::serve(&stdin.as_fd(), &Machine::host(), allowed)?)
}

fn listen(path: &std::path::Path, allowed: &Allowed) -> Result<(), Failure> {
    let failed = |error| Error::io("listen for signals", error);
    let (stop, stopped) = UnixStream::pair().map_err(failed)?;
    for signal in [SIGINT, SIGTERM] {
        let stop = stop.try_clone().map_err(failed)?;
        pipe::register(signal, stop).map_err(failed)?;
    }
    let program = std::env::current_exe()
        .map_err(|error| Error::io("find this program in /proc/self/exe", error))?;
    // Whom to let in has been decided by then; each is served by this user.
    let keeper = || {
        let mut command = Command::new(&program);
        command.arg("keeper");
        for uid in allowed.uids() {
            command.args(["--allow-user", &uid.to_string()]);
        }
        command
    };
    Ok(keeper::listen(path, allowed, keeper, &stopped, |error| say(&error.to_string()))?)
}
