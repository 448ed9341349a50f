//! What `packaging/` holds, against the programs that will read it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use gpuev_agent::Config;

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

fn text(name: &str) -> String {
    let path = packaging(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What the Debian package is made of: `[package.metadata.deb]` of the program's manifest.
fn deb() -> toml::Table {
    let manifest: toml::Table = text("../crates/gpuev-cli/Cargo.toml").parse().unwrap();
    manifest["package"]["metadata"]["deb"].as_table().unwrap().clone()
}

/// Its files: from where, to where, with which mode.
fn assets() -> Vec<[String; 3]> {
    let assets = deb()["assets"].as_array().unwrap().clone();
    assets.into_iter().map(|asset| asset.try_into().unwrap()).collect()
}

#[test]
fn what_the_debian_package_is_made_of_is_there() {
    let built = |from: &str| from.starts_with("target/") || from.contains("/target/package/");
    for [from, ..] in assets().iter().filter(|asset| !built(&asset[0])) {
        let path = packaging("../crates/gpuev-cli").join(from);
        let there = match from.strip_suffix("/*.md") {
            Some(_) => fs::read_dir(path.parent().unwrap()).unwrap().count() > 0,
            None => path.is_file(),
        };
        assert!(there, "{from}");
    }
    // Each unit is installed; that nothing else starts one that is not there.
    let installed: Vec<String> = assets().into_iter().map(|asset| asset[0].clone()).collect();
    for unit in fs::read_dir(packaging("systemd")).unwrap() {
        let name = unit.unwrap().file_name().into_string().unwrap();
        let ending = format!("/systemd/{name}");
        assert!(installed.iter().any(|from| from.ends_with(&ending)), "{name} is not installed");
    }
    for script in ["postinst", "prerm", "postrm"] {
        let text = text(&format!("debian/{script}"));
        let units = text.split(|c: char| c.is_whitespace() || c == '"' || c == ';');
        for unit in units.filter(|word| word.ends_with(".service") || word.ends_with(".socket")) {
            assert!(packaging("systemd").join(unit).exists(), "{script}: {unit}");
        }
    }
    let said = deb();
    let kept: Vec<&str> =
        said["conf-files"].as_array().unwrap().iter().map(|f| f.as_str().unwrap()).collect();
    for path in kept {
        let name = path.strip_prefix('/').unwrap();
        assert!(assets().iter().any(|asset| asset[1] == name), "{path} is not installed");
    }
    assert!(packaging("../crates/gpuev-cli").join(said["changelog"].as_str().unwrap()).exists());
    let maintainer = said["maintainer"].as_str().unwrap();
    assert!(maintainer.contains('@') && !maintainer.contains("localhost"), "{maintainer}");
}

#[test]
fn the_units_and_the_package_know_the_users() {
    let users = text("systemd/gpuev.sysusers");
    for (unit, user) in
        [("gpuev-agent.service", "gpuev"), ("gpuev-keeper@.service", "gpuev-keeper")]
    {
        assert!(text(&format!("systemd/{unit}")).contains(&format!("\nUser={user}\n")), "{unit}");
        assert!(users.lines().any(|line| line.starts_with(&format!("u {user} "))), "{user}");
    }
}

/// The value of a line `key: value` of YAML, all of them.
fn yaml_values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let key = format!("{key}: ");
    let found = text.match_indices(&key).map(|(at, _)| &text[at + key.len()..]);
    found.map(|rest| rest.split([',', '}', '\n']).next().unwrap().trim()).collect()
}

#[test]
fn the_containers_are_given_what_the_program_needs_and_no_more() {
    let image = text("container/Containerfile");
    let pods: String = text("kubernetes/daemonset.yaml")
        .lines()
        .filter(|line| !line.starts_with('#'))
        .flat_map(|line| [line, "\n"])
        .collect();
    let user = image.lines().find_map(|line| line.strip_prefix("USER ")).unwrap();
    let (uid, gid) = user.split_once(':').unwrap();
    // The keeper lets in the image's user, whom the agent runs as and to whom the state belongs.
    assert_eq!(yaml_values(&pods, "runAsUser"), ["0", uid]);
    assert_eq!(yaml_values(&pods, "runAsGroup"), [gid]);
    assert!(pods.contains(&format!("--allow-user, \"{uid}\"")), "{pods}");
    assert!(pods.contains(&format!("[chown, \"{uid}:{gid}\", ")), "{pods}");
    assert!(pods.contains("capabilities: {drop: [ALL], add: [CHOWN]}"));
    assert_eq!(yaml_values(&pods, "readOnlyRootFilesystem"), ["true"; 3]);
    assert_eq!(yaml_values(&pods, "automountServiceAccountToken"), ["false"]);
    assert_eq!(yaml_values(&pods, "hostPID"), ["true"]);
    // What is written to is mounted: the program's own paths.
    let config = pods.split_once("agent.toml: |\n").unwrap().1.split_once("---").unwrap().0;
    let config = Config::parse(config, "daemonset.yaml", []).unwrap();
    let mounts = yaml_values(&pods, "mountPath");
    for path in [&config.agent.state_dir, config.control.socket.parent().unwrap()] {
        assert!(mounts.contains(&path.to_str().unwrap()), "{}: {mounts:?}", path.display());
    }
    let socket = config.keeper.socket.to_str().unwrap();
    assert!(pods.contains(&format!("--listen, {socket},")), "{socket}");
    assert!(image.contains("VOLUME /var/lib/gpuev") && image.contains("\nFROM scratch\n"));
    // Debian's slim image has no certificates: the stage that they are taken from installs them.
    let (stage, result) = image.split_once("\nFROM scratch\n").unwrap();
    assert!(stage.contains(" AS certificates\n") && stage.contains(" ca-certificates\n"));
    assert!(result.contains("COPY --from=certificates /etc/ssl/certs/ca-certificates.crt "));
    // Only the keeper has the device.
    assert_eq!(mounts.iter().filter(|path| **path == "/dev/kfd").count(), 1);
}

#[test]
fn modprobe_has_the_agent_let_go_and_then_removes_the_driver() {
    let hook = text("modprobe.d/gpuev.conf");
    let command = hook.lines().find_map(|line| line.strip_prefix("remove amdgpu ")).unwrap();
    let (yielding, modprobe) = command.split_once(" -- ").unwrap();
    assert_eq!(yielding, "/usr/bin/gpuev yield");
    // Without it, modprobe would come back to this very line.
    assert!(modprobe.contains("--ignore-remove"), "{modprobe}");
}
