//! What packagers make of the program: completions and man pages.

use crate::program::run;

#[test]
fn completions_know_every_command_and_the_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let text = run(["generate", "completions", shell]).good().out;
        for word in ["list", "watch", "doctor", "severity", "source"] {
            assert!(text.contains(word), "{shell}: no {word}");
        }
    }
    assert_eq!(run(["generate", "completions", "no-such-shell"]).code, Some(2));
}

#[test]
fn every_command_has_a_man_page() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap();
    run(["generate", "man", path]).good();
    for page in ["gpuev", "gpuev-list", "gpuev-watch", "gpuev-doctor", "gpuev-sim-run"] {
        let text = std::fs::read_to_string(folder.path().join(format!("{page}.1"))).unwrap();
        assert!(text.contains(".SH NAME") && text.contains(".SH SYNOPSIS"), "{page}: {text}");
        assert!(text.len() > 300, "{page}");
    }
}
