//! `gpuev keeper`: opens event files for a client, so that the client need not open `/dev/kfd`.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::Args;
use gpuev::keeper::{self, Allowed};
use gpuev::{Error, KfdDevice};
use gpuev_agent::sandbox;
use signal_hook::consts::{SIGBUS, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::low_level::pipe;

use crate::exit::{Exit, Failure, Outcome, say};
use crate::signals::not_ignored;

/// Open event files for the client whose connection is the standard input, until it hangs up
///
/// gpuev watch, record and agent, programs with the gpuev library, and the service manager start it. It is the only part
/// of the agent that needs CAP_SYS_ADMIN, and the only one that opens /dev/kfd.
#[derive(Debug, Default, Args)]
pub(crate) struct KeeperArgs {
    /// Listen at this path instead, and run a keeper for each client that connects
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
        let why = "the standard input is no connection of a client; gpuev watch, record and agent, \
                   gpuev-keeper.socket and gpuev keeper --listen start it";
        return Err(Failure::Usage(why.to_owned()));
    }
    // Newer drivers end KFD processes by SIGBUS when a GPU is removed. A second one is a fault of our own.
    let end = readable_after(&[SIGBUS, SIGTERM])?;
    let second = Arc::new(AtomicBool::new(false));
    flag::register_conditional_default(SIGBUS, Arc::clone(&second))
        .and_then(|_| flag::register(SIGBUS, second))
        .map_err(|error| Error::io("listen for signals", error))?;
    Ok(keeper::serve(&stdin.as_fd(), &KfdDevice::at(Path::new("/")), allowed, &end)?)
}

/// A socket that has an end once one of these signals has come.
fn readable_after(signals: &[i32]) -> Result<UnixStream, Failure> {
    let failed = |error| Error::io("listen for signals", error);
    let (write, read) = UnixStream::pair().map_err(failed)?;
    for signal in not_ignored(signals) {
        pipe::register(signal, write.try_clone().map_err(failed)?).map_err(failed)?;
    }
    Ok(read)
}

fn listen(path: &std::path::Path, allowed: &Allowed) -> Result<(), Failure> {
    let stopped = readable_after(&[SIGINT, SIGTERM])?;
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
