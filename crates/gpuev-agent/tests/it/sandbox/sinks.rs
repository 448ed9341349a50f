//! Every kind of sink delivers from inside: by a configuration's own plan, entered, and nothing more.

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use gpuev_agent::sandbox::Plan;
use gpuev_agent::sink::Sinks;
use gpuev_agent::{AlertState, Config};

use super::{enter, inside};
use crate::receiver::{Does, Receiver};
use crate::servers::has;
use crate::sink::fixture::{Told, change, context, until};
use crate::sink::smtp::Mailer;

/// What scripts that page or drain do: run programs, in pipes, substitutions and the background, with files.
const SCRIPT: &str = r#"
set -e
here=$1
/bin/cat > "$here/record"
day=$(/bin/date +%Y)
/usr/bin/env | /usr/bin/sort | /bin/grep GPUEV_RULE > "$here/rule"
/bin/mkdir -p "$here/made" && /bin/ls -l "$here" > "$here/made/list"
/bin/cp "$here/rule" "$here/made/rule"
/usr/bin/mkfifo "$here/made/pipe"
(/bin/echo "in the background $day" > "$here/made/pipe") &
/bin/cat "$here/made/pipe" > "$here/heard"
wait
cd "$here/made"
/bin/sh -c '/bin/echo "from $PWD" > ../done'
"#;

fn script(folder: &Path, shell: &str) -> String {
    let path = folder.join("page");
    fs::create_dir_all(folder).unwrap();
    fs::write(&path, format!("#!{shell}\n{SCRIPT}")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

fn exec(name: &str, folder: &Path, shell: &str) -> String {
    let script = script(folder, shell);
    format!("[sinks.exec.{name}]\ncommand = [{script:?}, {folder:?}]\nfolder = {folder:?}\n")
}

#[test]
fn every_kind_of_sink_delivers_from_inside() {
    let Some(dir) = inside() else {
        return enter("sinks::every_kind_of_sink_delivers_from_inside");
    };
    let state = dir.join("state");
    let (hook, manager, collector) = (receiver(), receiver(), receiver());
    let mailer = Mailer::new(None);
    let journal = state.join("journal");
    let journal_socket = UnixDatagram::bind(&journal).unwrap();
    journal_socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut text = format!(
        "[agent]\nstate_dir = {state:?}\n[http]\nlisten = \"\"\n\
         [sinks.webhook.w]\nurl = \"{}\"\n\
         [sinks.alertmanager.a]\nurls = [\"{}\"]\n\
         [sinks.otlp.o]\nurl = \"{}\"\n\
         [sinks.smtp.m]\nhost = \"localhost\"\nport = {}\ntls = \"none\"\nfrom = \"a@node7.example\"\nto = [\"b@example.org\"]\n\
         [sinks.file.f]\npath = {:?}\n\
         [sinks.journald.j]\nsocket = {journal:?}\n",
        hook.url(),
        manager.url(),
        collector.url(),
        mailer.port,
        state.join("alerts.ndjson"),
    );
    text += &exec("sh", &state.join("sh"), "/bin/sh");
    if has("bash") {
        text += &exec("bash", &state.join("bash"), "/bin/bash");
    }
    let config = Config::parse(&text, "test", []).unwrap();
    let taken = Plan::for_agent(&config).in_force().enter().unwrap();
    assert!(!taken.files || fs::read_dir("/root").is_err(), "it is inside");

    let told = Told::default();
    let sinks = Sinks::start(&config.sinks, context(&state, &told)).unwrap();
    sinks.change(&change("a1", AlertState::Firing));
    let number = sinks.stats().len();
    assert_eq!(number, if has("bash") { 8 } else { 7 });
    until("all delivered", || {
        assert_eq!(told.all(), [], "nothing fails");
        sinks.stats().iter().all(|stats| stats.delivered == 1)
    });
    for receiver in [&hook, &manager, &collector] {
        assert!(receiver.taken().iter().any(|request| request.body.contains("a1")));
    }
    assert_eq!(mailer.mails().len(), 1);
    let mut entry = vec![0; 64 << 10];
    let length = journal_socket.recv(&mut entry).unwrap();
    assert!(String::from_utf8_lossy(&entry[..length]).contains("a1.1"));
    assert!(fs::read_to_string(state.join("alerts.ndjson")).unwrap().contains("\"a1\""));
    for shell in ["sh", "bash"].into_iter().filter(|shell| *shell == "sh" || has(shell)) {
        let read = |name: &str| fs::read_to_string(state.join(shell).join(name)).unwrap();
        assert!(read("record").contains("\"a1\""), "{shell}");
        assert_eq!(read("rule"), "GPUEV_RULE=vmfault\n", "{shell}");
        assert!(read("heard").starts_with("in the background 2"), "{shell}");
        assert!(read("done").starts_with("from /"), "{shell}");
    }
}

fn receiver() -> Receiver {
    Receiver::new(Does::Answers(200))
}

/// The plan lets programs run, and still no namespace is made, no device node, no other user.
#[test]
fn a_program_that_is_run_has_no_more_than_programs_need() {
    let Some(dir) = inside() else {
        return enter("sinks::a_program_that_is_run_has_no_more_than_programs_need");
    };
    let state = dir.join("state");
    let text = format!(
        "[agent]\nstate_dir = {state:?}\n[http]\nlisten = \"\"\n\
         [sinks.exec.e]\ncommand = [\"/bin/sh\"]\n"
    );
    let config = Config::parse(&text, "test", []).unwrap();
    Plan::for_agent(&config).in_force().enter().unwrap();
    let refused = |command: &str| {
        let mut child = Command::new("/bin/sh")
            .args(["-c", command])
            .current_dir(&state)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        let ended = child.wait().unwrap();
        assert!(!ended.success() && said.contains("ermitted"), "{command}: {ended} {said}");
    };
    refused("/usr/bin/unshare --user /bin/true");
    refused("/bin/mknod null c 1 3");
}
