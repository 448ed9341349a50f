//! What `packaging/` holds, against the programs that will read it.

use std::path::{Path, PathBuf};
use std::process::Command;

fn packaging(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging").join(name)
}

/// Runs a program to its end: whether it was content, and all it said. Passed over where there is none.
fn asked(command: &mut Command) -> Option<(bool, String)> {
    match command.output() {
        Ok(output) => {
            let said = [output.stdout, output.stderr].concat();
            Some((output.status.success(), String::from_utf8_lossy(&said).into_owned()))
        }
        Err(error) => {
            let program = command.get_program().to_string_lossy().into_owned();
            assert!(std::env::var_os("GPUEV_SIM_REQUIRE_ALL").is_none(), "{program}: {error}");
            eprintln!("passed over: {program}: {error}");
            None
        }
    }
}

/// Tenths of `systemd-analyze security`'s exposure, with room for versions that know more to ask for. Debian
/// 12's (252) says 1.6 and 0.9.
const EXPOSURE: [(&str, u32); 2] = [("gpuev-agent.service", 20), ("gpuev-keeper@.service", 15)];

#[test]
fn systemd_finds_the_units_confined() {
    for (unit, most) in EXPOSURE {
        let mut command = Command::new("systemd-analyze");
        command.args(["security", "--offline=true", &format!("--threshold={most}")]);
        command.arg(packaging("systemd").join(unit));
        let Some((content, said)) = asked(&mut command) else { return };
        assert!(content, "{unit}: {said}");
    }
}

#[test]
fn systemd_understands_the_units() {
    for unit in [
        "gpuev-agent.service",
        "gpuev-keeper@.service",
        "gpuev-keeper.socket",
        "gpuev-yield.service",
    ] {
        let mut command = Command::new("systemd-analyze");
        command.args(["verify", "--man=no"]).arg(packaging("systemd").join(unit));
        let Some((_, said)) = asked(&mut command) else { return };
        // That the program is not installed, it says too.
        let odd = |line: &&str| {
            let line = line.to_lowercase();
            ["unknown", "invalid", "failed to parse", "ignoring"]
                .iter()
                .any(|word| line.contains(word))
        };
        assert_eq!(said.lines().filter(odd).collect::<Vec<_>>(), Vec::<&str>::new(), "{unit}");
    }
}

#[test]
fn prometheus_takes_the_alert_rules_and_they_do_what_they_say() {
    for arguments in
        [["check", "rules", "gpuev-alerts.yml"], ["test", "rules", "gpuev-alerts.test.yml"]]
    {
        let mut command = Command::new("promtool");
        command.args(arguments).current_dir(packaging("prometheus"));
        let Some((content, said)) = asked(&mut command) else { return };
        assert!(content && said.contains("SUCCESS"), "{arguments:?}: {said}");
    }
}
