//! Whose events an event file shows.
//!
//! The driver decides when the file is opened, by the opener's process and `CAP_SYS_ADMIN`
//! (`kfd_smi_events.c: kfd_smi_ev_enabled`), and kernels differ: up to 6.15 bit 63 of the mask must be set as
//! well, which gpuev always does; up to 7.2 memory faults of all processes reach everybody.

use std::path::Path;

use gpuev_kfd::KfdVersion;

/// Whose events are seen, and why. Events of no process (throttling, resets) reach everybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// Events of all processes; else only those of the process that opened the file.
    pub all_processes: bool,
    /// Memory faults, process starts and ends of all processes.
    pub faults_of_all_processes: bool,
    /// Why, in one sentence.
    pub reason: String,
}

impl Scope {
    /// Everything, because `reason`.
    #[must_use]
    pub fn everything(reason: impl Into<String>) -> Self {
        Self { all_processes: true, faults_of_all_processes: true, reason: reason.into() }
    }

    /// That of files which this process opens now, on the machine at `root`.
    #[must_use]
    pub fn of_this_process(root: &Path, version: Option<KfdVersion>) -> Self {
        let status = std::fs::read_to_string(root.join("proc/self/status")).unwrap_or_default();
        let release =
            std::fs::read_to_string(root.join("proc/sys/kernel/osrelease")).unwrap_or_default();
        let initial_namespace = is_initial_user_namespace(root);
        match (has_sys_admin(&status), initial_namespace) {
            (true, true) => Self::everything("this process has CAP_SYS_ADMIN"),
            (true, false) => {
                Self::own(&release, version, "CAP_SYS_ADMIN here is only that of a user namespace")
            }
            (false, _) => Self::own(&release, version, "this process has no CAP_SYS_ADMIN"),
        }
    }

    fn own(release: &str, version: Option<KfdVersion>, why: &str) -> Self {
        let hides_faults = hides_faults_of_others(release);
        let has_process_events = version.is_some_and(|v| v > KfdVersion { major: 1, minor: 17 });
        let others = match (hides_faults, has_process_events) {
            (true, _) => "events of other processes are hidden",
            (false, true) => "of other processes only memory faults, starts and ends are shown",
            (false, false) => "of other processes only memory faults are shown",
        };
        Self {
            all_processes: false,
            faults_of_all_processes: !hides_faults,
            reason: format!("{why}: {others}"),
        }
    }
}

/// Linux 7.3 filters memory faults and process events as all others; the ioctl version does not tell.
fn hides_faults_of_others(release: &str) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) => (major, minor) >= (7, 3),
        _ => false,
    }
}

/// Whether the effective capabilities in `/proc/self/status` hold `CAP_SYS_ADMIN` (bit 21).
fn has_sys_admin(status: &str) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective
        .and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok())
        .is_some_and(|bits| bits >> 21 & 1 == 1)
}

/// The driver asks for the capability in the initial user namespace, which maps all ids to themselves.
fn is_initial_user_namespace(root: &Path) -> bool {
    let map = std::fs::read_to_string(root.join("proc/self/uid_map")).unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capability_bit_21_is_sys_admin() {
        assert!(has_sys_admin("Name:\tx\nCapEff:\t000001ffffffffff\n"));
        assert!(!has_sys_admin("CapEff:\t0000000000000000\n"));
        assert!(!has_sys_admin(""));
    }

    #[test]
    fn faults_are_hidden_from_7_3_on() {
        for (release, hidden) in
            [("6.12.95+deb12-amd64", false), ("7.2.13", false), ("7.3.4+deb13", true), ("", false)]
        {
            assert_eq!(hides_faults_of_others(release), hidden, "{release}");
        }
    }
}
