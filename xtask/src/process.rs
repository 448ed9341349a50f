//! Runs programs: shows what they print as they print it, and reads the counts that test runners close with.

use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::process::{Command, Stdio};

use crate::Result;

/// How many tests ran and how they ended.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

/// What a program that ended has told.
#[derive(Debug, Default)]
pub(crate) struct Ran {
    pub(crate) ok: bool,
    pub(crate) counts: Counts,
    /// The closing lines of its test runners, those that ran at least one test.
    pub(crate) closing: Vec<String>,
    /// The lines that name a failure, each once and at most [`FAILURES`].
    pub(crate) failures: Vec<String>,
}

/// How many failures of one program are repeated in the summary.
const FAILURES: usize = 40;

/// Runs `command` to its end, its output shown.
///
/// # Errors
/// Where it cannot be started; a program that fails is not an error but `ok: false`.
pub(crate) fn run(command: &mut Command) -> Result<Ran> {
    println!("$ {}", shown(command));
    let failed = |error| format!("{}: {error}", shown(command));
    let (reader, writer) = std::io::pipe().map_err(failed)?;
    let for_errors = writer.try_clone().map_err(failed)?;
    if std::io::stdout().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    command.stdin(Stdio::null()).stdout(writer).stderr(for_errors);
    let child = command.spawn();
    // The command holds the pipe's other end: it must go for the pipe to end with the program.
    command.stdout(Stdio::inherit()).stderr(Stdio::inherit());
    let mut child = child.map_err(|error| format!("{}: {error}", shown(command)))?;
    let mut ran = Ran::default();
    show(reader, &mut ran);
    let status = child.wait().map_err(|error| format!("{}: {error}", shown(command)))?;
    ran.ok = status.success();
    Ok(ran)
}

/// What `command` prints on its standard output.
///
/// # Errors
/// Where it cannot be started or fails: with what it printed on its standard error.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("{}: {error}", shown(command)))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(format!("{}: {}\n{}", shown(command), output.status, errors.trim_end()))
}

/// Whether `command` can be run and succeeds; what it prints is not shown.
pub(crate) fn succeeds(command: &mut Command) -> bool {
    output(command).is_ok()
}

fn show(from: impl Read, ran: &mut Ran) {
    let mut lines = BufReader::new(from);
    let mut line = Vec::new();
    while matches!(lines.read_until(b'\n', &mut line), Ok(1..)) {
        let mut screen = std::io::stdout().lock();
        // A closed screen is no reason to stop the tests.
        let _closed = screen.write_all(&line).and_then(|()| screen.flush());
        let text = without_colours(&String::from_utf8_lossy(&line));
        if let Some(counts) = counts(&text) {
            ran.add(counts, &text);
        }
        if let Some(failure) = failure(&text) {
            ran.add_failure(failure);
        }
        line.clear();
    }
}

impl Ran {
    fn add(&mut self, counts: Counts, line: &str) {
        self.counts += counts;
        if counts.passed + counts.failed > 0 {
            self.closing.push(line.trim().to_owned());
        }
    }

    fn add_failure(&mut self, failure: &str) {
        if self.failures.len() < FAILURES && !self.failures.iter().any(|known| known == failure) {
            self.failures.push(failure.to_owned());
        }
    }
}

impl std::ops::AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

/// The line without its indentation, if it names a test or a step of a build that failed.
fn failure(line: &str) -> Option<&str> {
    let nextest = ["FAIL [", "TIMEOUT [", "ABORT [", "SIGSEGV [", "SIGABRT [", "SIGKILL ["];
    let others = ["FAILED ", "ERROR ", "error: ", "error["];
    let text = line.trim();
    let is_nextest = nextest.iter().any(|start| text.starts_with(start));
    let is_other = others.iter().any(|start| line.starts_with(start));
    (is_nextest || is_other).then_some(text)
}

/// The counts in the closing line of nextest, `cargo test` or pytest.
fn counts(line: &str) -> Option<Counts> {
    // nextest indents the output of a failed test, and with it libtest's closing line for that one test.
    if line.starts_with(' ') && line.trim_start().starts_with("test result: ") {
        return None;
    }
    let line = line.trim();
    let pytest = line.starts_with("==") && line.ends_with("==") && line.contains(" in ");
    if !(pytest || line.starts_with("Summary [") || line.starts_with("test result: ")) {
        return None;
    }
    let words: Vec<&str> = line
        .split(|c: char| c.is_whitespace() || c == ',' || c == ';')
        .filter(|word| !word.is_empty())
        .collect();
    let mut counts = Counts::default();
    for pair in words.windows(2) {
        let Ok(number) = pair[0].parse::<u64>() else { continue };
        match pair[1] {
            "passed" => counts.passed += number,
            // nextest: "1 timed out", "1 exec failed"; pytest: "1 error", "2 errors".
            "failed" | "timed" | "exec" | "error" | "errors" => counts.failed += number,
            "skipped" | "ignored" => counts.skipped += number,
            _ => {}
        }
    }
    Some(counts)
}

fn without_colours(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c == '\u{1b}' {
            rest.by_ref().find(char::is_ascii_alphabetic);
        } else {
            plain.push(c);
        }
    }
    plain
}

fn shown(command: &Command) -> String {
    let mut text = String::new();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            text += &format!("{}={:?} ", name.display(), value.to_string_lossy());
        }
    }
    text += &command.get_program().to_string_lossy();
    for argument in command.get_args() {
        text.push(' ');
        text += &argument.to_string_lossy();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Option<(u64, u64, u64)> {
        counts(&without_colours(line)).map(|c| (c.passed, c.failed, c.skipped))
    }

    #[test]
    fn closing_lines_of_every_runner_are_counted() {
        let nextest = "     Summary [   1.2s] 9 tests run: 6 passed (1 slow), 2 failed, 1 timed out, 4 skipped";
        assert_eq!(read(nextest), Some((6, 3, 4)));
        let coloured = "\u{1b}[32;1m Summary\u{1b}[0m [ 0.1s] \u{1b}[1m2\u{1b}[0m tests run: \u{1b}[1m2\u{1b}[0m passed, 0 skipped";
        assert_eq!(read(coloured), Some((2, 0, 0)));
        let libtest = "test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!(read(libtest), Some((3, 1, 2)));
        let pytest = "======= 1 failed, 5 passed, 1 skipped, 2 errors in 0.12s =======";
        assert_eq!(read(pytest), Some((5, 3, 1)));
    }

    #[test]
    fn lines_that_name_a_failure_are_told_apart() {
        let nextest = "        FAIL [   0.601s] (435/991) gpuev-cli::it ends::colours";
        assert_eq!(failure(nextest), Some(nextest.trim()));
        for told in [
            "     TIMEOUT [ 300.0s] (1/9) gpuev-cli::it chaos::strikes",
            "FAILED tests/test_read.py::test_drops - AssertionError",
            "error[E0425]: cannot find value `x` in this scope",
        ] {
            assert_eq!(failure(told), Some(told.trim()));
        }
        for other in ["    error: as a test printed it", "    test a ... FAILED", "a PASS [ 1s] b"]
        {
            assert_eq!(failure(other), None, "{other}");
        }
    }

    #[test]
    fn other_lines_count_nothing() {
        assert_eq!(read("    test result: FAILED. 0 passed; 1 failed; 0 ignored"), None);
        assert_eq!(read("a log says that 5 passed"), None);
        assert_eq!(read("==== test session starts ===="), None);
    }

    #[test]
    fn a_failing_program_is_told_apart_from_a_missing_one() {
        assert!(!run(&mut Command::new("false")).expect("false should start").ok);
        assert!(run(&mut Command::new("no-such-program-here")).is_err());
    }

    #[test]
    fn what_a_program_prints_on_either_output_is_counted() {
        let script =
            "echo 'Summary [ 0s] 1 tests run: 1 passed'; echo 'test result: ok. 2 passed;' >&2";
        let ran = run(Command::new("sh").args(["-c", script])).expect("sh should start");
        assert_eq!((ran.ok, ran.counts.passed, ran.closing.len()), (true, 3, 2));
    }

    #[test]
    fn a_failure_that_is_printed_twice_is_kept_once() {
        let script = "echo '  FAIL [ 1s] a'; echo '  FAIL [ 1s] a'; echo 'FAILED b'; exit 1";
        let ran = run(Command::new("sh").args(["-c", script])).expect("sh should start");
        assert_eq!((ran.ok, ran.failures), (false, vec!["FAIL [ 1s] a".into(), "FAILED b".into()]));
    }
}
