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
    let mut pages: Vec<String> =
        ["", "-list", "-watch", "-doctor", "-sim-run"].map(|name| format!("gpuev{name}")).into();
    let units = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging/systemd");
    for unit in std::fs::read_dir(units).unwrap() {
        let text = std::fs::read_to_string(unit.unwrap().path()).unwrap();
        let named = text.lines().filter_map(|line| line.strip_prefix("Documentation=man:"));
        pages.extend(named.map(|page| page.strip_suffix("(1)").unwrap().to_owned()));
    }
    assert!(pages.iter().any(|page| page == "gpuev-keeper"), "{pages:?}");
    for page in pages {
        let text = std::fs::read_to_string(folder.path().join(format!("{page}.1"))).unwrap();
        assert!(text.contains(".SH NAME") && text.contains(".SH SYNOPSIS"), "{page}: {text}");
        assert!(text.len() > 300, "{page}");
    }
}
