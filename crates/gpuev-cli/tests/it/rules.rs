//! Rules on the command line.

use std::fs;

use crate::history::record;
use crate::program::run;

#[test]
fn what_is_wrong_with_a_rule_file_is_told_by_line_and_column() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.toml");
    let path = file.to_str().unwrap();
    let rule = "[[rule]]\nname = \"hot\"\nseverity = \"warning\"\nevents = [\"THERMAL_THROTLE\"]\n\
                when = 'data.reasns.size() > 0'\nsummary = \"hot\"\n";
    fs::write(&file, rule).unwrap();
    let ended = run(["rules", "check", path]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for said in [
        format!("{path}:4:11: there is no event THERMAL_THROTLE; did you mean THERMAL_THROTTLE?"),
        format!("{path}:5:14: data has no field reasns; did you mean reasons?"),
    ] {
        assert!(ended.err.contains(&said), "{said}\n{}", ended.err);
    }
    fs::write(&file, rule.replace("THROTLE", "THROTTLE").replace("reasns", "reasons")).unwrap();
    let ended = run(["rules", "check", path]).good();
    assert_eq!(ended.out, format!("{path}: 1 rules, all right\n"));
}

#[test]
fn what_is_shown_is_a_rule_file() {
    let folder = tempfile::tempdir().unwrap();
    let mine = folder.path().join("mine.toml");
    fs::write(&mine, "[[rule]]\nname = \"vm-fault\"\nenabled = false\n").unwrap();
    let shown = run(["rules", "show", "--rules", mine.to_str().unwrap()]).good().out;
    assert!(!shown.contains("\"vm-fault\"") && shown.contains("\"vm-fault-storm\""));
    let again = folder.path().join("again.toml");
    fs::write(&again, &shown).unwrap();
    let args = ["rules", "show", "--no-builtin", "--rules", again.to_str().unwrap()];
    assert_eq!(run(args).good().out, shown);
    let names = run(["rules", "show", "--names"]).good().out;
    assert!(names.contains("critical  vm-fault\n"), "{names}");
}

#[test]
fn what_would_have_fired_on_a_recording_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("run.db");
    record(&path, "sim:reset,gpus=1,count=200,rate=100000,seed=7");
    let file = path.to_str().unwrap();
    let tested = run(["rules", "test", file]).good();
    assert!(tested.out.contains("critical  gpu-reset  fires: GPU 0000:"), "{}", tested.out);
    assert!(tested.out.contains("gpu-reset  is over: after 0 s, by opposite"), "{}", tested.out);
    assert!(tested.out.contains("critical  reset-loop  fires"), "{}", tested.out);
    assert!(tested.err.contains("on 200 events and gaps"), "{}", tested.err);
    let changes = run(["rules", "test", file, "--json"]).good().json();
    let fires = |change: &&serde_json::Value| {
        change["record"] == "alert" && change["state"] == "firing" && change["rule"] == "reset-loop"
    };
    let change = changes.iter().find(fires).unwrap();
    assert!(change["count"].as_u64().unwrap() >= 3, "{change}");
    let none = run(["rules", "test", file, "--no-builtin"]).good();
    assert_eq!(none.out, "");
}
