//! The documentation works: each command that it shows runs, each link has a target, each page stands in the book.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use gpuev_sim::SimMachine;
use rustix::process::Signal;

use crate::machine::possible;
use crate::program::{PROGRAM, Running, command, ended, runtime_dir, untouched};

/// Other programs in the pages. Their commands are not run here: packages, wheels and the service have tests of their own.
const OTHERS: [&str; 11] = [
    "apt",
    "cargo",
    "curl",
    "git",
    "journalctl",
    "kubectl",
    "openssl",
    "pip",
    "podman",
    "python",
    "systemctl",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The pages, by their path from the root.
fn pages() -> Vec<String> {
    let mut pages: Vec<String> =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "packaging/README.md"]
            .map(str::to_owned)
            .into();
    pages.extend(book().into_iter().map(|name| format!("docs/{name}")));
    pages
}

/// The files of the book.
fn book() -> BTreeSet<String> {
    let entries = fs::read_dir(root().join("docs")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".md")).collect()
}

fn text(page: &str) -> String {
    fs::read_to_string(root().join(page)).unwrap()
}

/// A block of code: its language, the name of the file that it is where it has one, its text.
struct Block {
    language: String,
    file: Option<String>,
    text: String,
}

/// The blocks of code of a page, and the lines outside of them.
fn parts(page: &str) -> (Vec<Block>, Vec<String>) {
    let (mut blocks, mut prose) = (Vec::new(), Vec::new());
    let mut open: Option<Block> = None;
    for line in text(page).lines() {
        match (&mut open, line.strip_prefix("```")) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => block.text.extend([line, "\n"]),
            (None, Some(info)) => {
                let mut words = info.split_whitespace().map(str::to_owned);
                let language = words.next().unwrap_or_default();
                open = Some(Block { language, file: words.next(), text: String::new() });
            }
            (None, None) => prose.push(line.to_owned()),
        }
    }
    assert!(open.is_none(), "{page}: a block of code does not end");
    (blocks, prose)
}

/// The commands of a page without their comments; a line that ends with a backslash goes on.
fn commands(blocks: &[Block]) -> Vec<String> {
    let shell = blocks.iter().filter(|block| block.language == "sh");
    let joined = shell.map(|block| block.text.replace("\\\n", " ")).collect::<String>();
    let lines =
        joined.lines().map(|line| line.split(" #").next().unwrap_or(line).trim().to_owned());
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

/// What a test does with a command.
#[derive(Debug, PartialEq)]
enum Plan {
    /// Run it: it simulates its machine or needs none.
    Run(String),
    /// Run it on a simulated machine, for it looks at the machine that it is on.
    OnMachine(String),
    /// Ask for its help: that it takes these arguments is all that can be told.
    Parse(String),
    /// It is not gpuev's.
    Other,
}

fn plan(line: &str) -> Plan {
    let line = line.replace("cargo run --release -- ", "gpuev ");
    let first = line.split(' ').next().unwrap_or_default();
    // Behind `sudo`, `srun` and the like stands the program, maybe behind a user of its name.
    let at = if first == "gpuev" { Some(0) } else { line.rfind(" gpuev ").map(|at| at + 1) };
    let Some(at) = at.filter(|_| !OTHERS.contains(&first)) else {
        return Plan::Other;
    };
    let ours = &line[at..];
    let name = ours.split(' ').nth(1).unwrap_or_default();
    let runs = match name {
        // They ask an agent, or change what other programs hold.
        "yield" | "resume" | "keeper" | "status" | "alerts" | "ack" | "silence" => false,
        "agent" => ours.contains("--check") && ours.contains("--config"),
        // What is imported elsewhere is a file of the reader's.
        "import" => ours.contains(" run."),
        _ => at == 0,
    };
    if !runs {
        let end = [" -- ", " | ", " > ", " & "].iter().filter_map(|stop| ours.find(stop)).min();
        return Plan::Parse(format!("{} --help", &ours[..end.unwrap_or(ours.len())]));
    }
    let looks = ["list", "watch", "record", "doctor"].contains(&name);
    match looks && !ours.contains("--source") {
        true => Plan::OnMachine(bounded(ours)),
        false => Plan::Run(bounded(ours)),
    }
}

/// The command so that it ends soon: no longer than a moment, and with a program that every machine has.
fn bounded(command: &str) -> String {
    let mut text = command.to_owned();
    for endless in ["gpuev watch", "gpuev record"] {
        let ends = [" --for ", " --count ", " -- "].iter().any(|end| text.contains(end));
        let inside = text.starts_with("gpuev sim run");
        if text.contains(endless) && (inside || !ends) {
            text = text.replace(endless, &format!("{endless} --for 300ms"));
        }
    }
    if let Some((before, after)) = text.split_once(" --for ") {
        let rest = after.split_once(' ').map_or("", |(_, rest)| rest);
        text = format!("{before} --for 300ms {rest}").trim_end().to_owned();
    }
    match text.split_once(" -- ") {
        Some((_, program))
            if ["ls", "gpuev", "sh"].contains(&program.split(' ').next().unwrap_or("")) =>
        {
            text
        }
        Some((before, _)) => format!("{before} -- true"),
        None => text,
    }
}

/// A folder in which the commands of a page run, with the files that the page shows and a recording, `run.db`.
struct Reader {
    folder: tempfile::TempDir,
}

impl Reader {
    fn of(blocks: &[Block]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("bin")).unwrap();
        symlink(PROGRAM, folder.path().join("bin/gpuev")).unwrap();
        for block in blocks {
            if let Some(file) = &block.file {
                fs::write(folder.path().join(file), &block.text).unwrap();
            }
        }
        let reader = Self { folder };
        for file in ["", "-o run.db "] {
            reader.run(&format!("gpuev record {file}--source sim:mixed,gpus=2 --for 300ms"), None);
        }
        reader
    }

    /// Runs a line of the shell, on this machine or on a simulated one; it has to end well.
    fn run(&self, line: &str, machine: Option<&str>) {
        let mut shell = untouched("sh");
        match machine {
            Some(gpus) => {
                shell = untouched(PROGRAM);
                shell.args(["sim", "run", "--gpus", gpus, "--", "sh", "-ec", line])
            }
            None => shell.args(["-ec", line]),
        };
        let folder = self.folder.path();
        let path = std::env::var("PATH").unwrap_or_default();
        shell.env("PATH", format!("{}:{path}", folder.join("bin").display()));
        for name in ["HOME", "STATE_DIRECTORY", "XDG_STATE_HOME"] {
            shell.env(name, folder);
        }
        shell.env("GPUEV_RUNTIME_DIR", runtime_dir()).current_dir(folder);
        let ended = ended(shell.stdin(std::process::Stdio::null()));
        assert_eq!(ended.code, Some(0), "{line}: {ended:?}");
    }
}

/// Runs the commands of a page, in their order.
fn works(page: &str, simulates: bool) {
    let (blocks, _) = parts(page);
    let plans: Vec<(String, Plan)> =
        commands(&blocks).into_iter().map(|line| (line.clone(), plan(&line))).collect();
    if plans.iter().all(|(_, plan)| *plan == Plan::Other) {
        return;
    }
    let reader = Reader::of(&blocks);
    for (line, plan) in plans {
        match plan {
            Plan::Run(text) if text.contains(".parquet") && !cfg!(feature = "parquet") => {}
            Plan::Run(text) if simulates || !text.starts_with("gpuev sim run") => {
                reader.run(&text, None);
            }
            Plan::OnMachine(text) if simulates => reader.run(&text, Some("2")),
            Plan::Run(_) | Plan::OnMachine(_) => {}
            Plan::Parse(text) => reader.run(&text, None),
            Plan::Other => {
                let program = line.split(' ').next().unwrap_or_default();
                let known = OTHERS.contains(&program);
                assert!(known, "{page}: nobody knows whether `{line}` works");
            }
        }
    }
}

#[test]
fn every_command_runs() {
    let sim = SimMachine::builder().build().unwrap();
    let simulates = possible(&sim);
    std::thread::scope(|scope| {
        for page in pages() {
            scope.spawn(move || works(&page, simulates));
        }
    });
}

#[test]
fn the_first_command_shows_an_event() {
    let mut running = Running::start(["watch", "--source", "sim"]);
    assert!(!running.line().is_empty());
    running.signal(Signal::TERM);
    assert_eq!(running.rest().code, Some(0));
}

#[test]
fn a_command_that_does_not_exist_is_found() {
    let wrong = [
        "gpuev wach",
        "gpuev watch --jsn",
        "gpuev rules tst run.db",
        "sudo gpuev yield --until 5m",
    ];
    for line in wrong {
        let (Plan::Run(text) | Plan::OnMachine(text) | Plan::Parse(text)) = plan(line) else {
            panic!("{line} is not run");
        };
        let arguments = text.split(' ').skip(1);
        assert_eq!(ended(&mut command(arguments)).code, Some(2), "{line}");
    }
    assert_eq!(
        plan("gpuev watch --for 10s --json"),
        Plan::OnMachine("gpuev watch --for 300ms --json".into())
    );
    assert_eq!(plan("sudo gpuev yield -- rmmod amdgpu"), Plan::Parse("gpuev yield --help".into()));
    let as_user = plan("runuser -u gpuev -- gpuev agent --test-sink slack");
    assert_eq!(as_user, Plan::Parse("gpuev agent --test-sink slack --help".into()));
}

/// The links of a page: their targets, without those to other sites.
fn links(page: &str) -> Vec<String> {
    let prose = parts(page).1.join("\n");
    // Code in a line holds no links.
    let outside: String = prose.split('`').step_by(2).collect::<Vec<_>>().join("` `");
    let targets = outside.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    targets.filter(|target| !target.contains("://")).map(str::to_owned).collect()
}

/// The anchors of a page, as GitHub and mdBook make them of its headings.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = parts(page).1.into_iter().filter(|line| line.starts_with('#'));
    let slug = |line: String| {
        let kept = line.trim_start_matches('#').trim().to_lowercase();
        let kept = kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.collect::<String>().replace(' ', "-")
    };
    headings.map(slug).collect()
}

#[test]
fn every_link_has_a_target() {
    for page in pages() {
        for link in links(&page) {
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let folder = Path::new(&page).parent().unwrap().to_str().unwrap();
            let target = match file {
                "" => page.clone(),
                _ if folder.is_empty() => file.to_owned(),
                _ => format!("{folder}/{file}"),
            };
            assert!(root().join(&target).exists(), "{page}: {link}");
            assert!(anchor.is_empty() || anchors(&target).contains(anchor), "{page}: {link}");
            // The book and the packages have nothing but the book.
            assert!(
                folder != "docs" || !file.starts_with(".."),
                "{page}: {link} leads out of the book"
            );
        }
    }
}

#[test]
fn every_page_is_in_the_book_once() {
    let mut listed = links("docs/SUMMARY.md");
    listed.sort();
    let mut there: Vec<String> = book().into_iter().collect();
    there.retain(|name| name != "SUMMARY.md");
    assert_eq!(listed, there);
    assert!(text("docs/book.toml").contains("\nsrc = \".\"\n"));
}
