//! Where a history lies if nobody says.

use std::path::{Path, PathBuf};

/// Where the service records, and root.
const OF_SYSTEM: &str = "/var/lib/gpuev";
const NAME: &str = "history.db";

/// Where this user records: `/var/lib/gpuev/history.db` as root and in a service, else
/// `$XDG_STATE_HOME/gpuev/history.db`, i.e. `~/.local/state/gpuev/history.db`.
#[must_use]
pub fn default_history() -> PathBuf {
    if let Some(folders) = std::env::var_os("STATE_DIRECTORY") {
        // systemd.exec(5): folders of the service, separated by colons.
        if let Some(folder) = std::env::split_paths(&folders).find(|folder| folder.is_absolute()) {
            return folder.join(NAME);
        }
    }
    let of_user = match rustix::process::geteuid().is_root() {
        true => None,
        false => state_home(),
    };
    of_user.map_or_else(|| PathBuf::from(OF_SYSTEM), |home| home.join("gpuev")).join(NAME)
}

/// The history to read: that of [`default_history`], or, where there is none, that of the system's service.
#[must_use]
pub fn default_history_to_read() -> PathBuf {
    let of_user = default_history();
    let of_system = Path::new(OF_SYSTEM).join(NAME);
    if !of_user.exists() && of_system.exists() { of_system } else { of_user }
}

/// Relative paths are to be passed over, says the XDG Base Directory Specification.
fn state_home() -> Option<PathBuf> {
    let folder = |name: &str| {
        let folder = PathBuf::from(std::env::var_os(name)?);
        folder.is_absolute().then_some(folder)
    };
    folder("XDG_STATE_HOME").or_else(|| Some(folder("HOME")?.join(".local/state")))
}
