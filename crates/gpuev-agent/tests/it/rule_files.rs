//! Rule files: what they may say, and what is said of their mistakes.

use gpuev_agent::rule::RuleSet;
use proptest::prelude::*;

const HEAD: &str = "[[rule]]\nname = \"mine\"\nseverity = \"warning\"\nsummary = \"s\"\n";

/// What is wrong with a rule of these lines, as `line:column: text`.
fn wrong(lines: &str) -> Vec<String> {
    let problems = RuleSet::parse(&format!("{HEAD}{lines}"), "f").unwrap_err();
    problems.0.iter().map(|problem| problem.to_string()[2..].to_owned()).collect()
}

fn right(lines: &str) -> RuleSet {
    RuleSet::parse(&format!("{HEAD}{lines}"), "f").unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn the_built_in_rules_have_the_documented_severities() {
    let rules = RuleSet::builtin();
    let severity = |name| rules.iter().find(|rule| rule.name() == name).unwrap().severity().name();
    let all = ["vm-fault", "thermal-throttle", "gpu-reset", "gpu-reset-by-user"].map(severity);
    assert_eq!(all, ["critical", "warning", "critical", "warning"]);
}

#[test]
fn every_mistake_is_told_with_its_place() {
    for (lines, said) in [
        ("events = [\"VMFALT\"]", "5:11: there is no event VMFALT; did you mean VMFAULT?"),
        ("spans = \"RESETS\"", "5:9: there is no span RESETS; did you mean RESET?"),
        ("records = [\"gaps\"]", "5:12: there is no record gaps; did you mean gap?"),
        ("event = [\"VMFAULT\"]", "5:1: there is no key event; did you mean events?"),
        ("events = 7", "5:10: events must be a text, not a number; write it in quotes"),
        (
            "events = \"VMFAULT\"\nby = [\"gpus\"]",
            "6:7: nothing can be grouped by gpus; did you mean gpu?",
        ),
        (
            "events = \"VMFAULT\"\ncount = 0",
            "6:9: count must be a whole number from 1 to 1000000000",
        ),
        (
            "events = \"VMFAULT\"\ncount = 3",
            "6:9: count needs a time to count in; say within = \"10s\", or what resolves it",
        ),
        ("events = \"VMFAULT\"\nwithin = \"soon\"", "6:10: within: \"soon\" is not a time"),
        ("events = \"VMFAULT\"\nfor = \"0s\"", "6:7: for: it must be at least 1ms"),
        ("events = \"VMFAULT\"\nfor = \"1m\"", "6:7: with this for, one match would be enough"),
        (
            "events = \"VMFAULT\"\nlabels = { gpu = \"x\" }",
            "6:18: the label gpu has a value of its own",
        ),
        ("events = \"VMFAULT\"\nlabels = { \"a-b\" = \"x\" }", "6:20: \"a-b\" is no label"),
        ("events = \"VMFAULT\"\nresolve.when = 'true'", "6:16: resolve looks at nothing"),
        (
            "events = \"VMFAULT\"\nresolve = { events = \"PROCESS_END\", each = \"VMFAULT\" }",
            "6:44: VMFAULT is not among the events of resolve",
        ),
        ("events = \"VMFAULT\"\nenabled = 1", "6:11: enabled must be true or false"),
        ("events = \"VMFAULT\"\nresolve = 1", "6:11: resolve must be a table"),
        ("", "1:1: the rule looks at nothing"),
        ("events = [\"VMFAULT\"", "5:20: this is no TOML"),
    ] {
        let found = wrong(lines);
        assert!(found.iter().any(|problem| problem.starts_with(said)), "{lines}: {found:?}");
    }
}

#[test]
fn mistakes_in_conditions_are_told_with_their_place() {
    for (lines, said) in [
        ("when = 'pidd == 7'", "6:9: there is no variable pidd; did you mean pid?"),
        ("when = 'pid == 7 && job.usr == \"x\"'", "6:25: job has no field usr; did you mean user?"),
        ("when = 'gpu.bdf.x == 7'", "6:17: gpu.bdf has no field x; it is not a map"),
        (
            "when = 'process.startWith(\"x\")'",
            "6:26: there is no function startWith; did you mean startsWith?",
        ),
        ("when = 'pid = 7'", "6:13: the condition is no CEL"),
        ("when = \"\"\"\npid == 7 &&\n  pidd == 8\"\"\"", "8:3: there is no variable pidd"),
        ("when = 'pid'", "6:8: the condition cannot work: it gives int, not true or false"),
        ("when = 'message > 7'", "6:8: the condition cannot work: found no matching overload"),
    ] {
        let found = wrong(&format!("events = \"VMFAULT\"\n{lines}"));
        assert!(found.iter().any(|problem| problem.starts_with(said)), "{lines}: {found:?}");
    }
    let long = format!("events = \"VMFAULT\"\nwhen = '{} true'", "true &&".repeat(1000));
    assert!(wrong(&long)[0].contains("at most 4096 bytes"));
}

#[test]
fn mistakes_in_texts_are_told() {
    let text = "[[rule]]\nname = \"a b\"\nseverity = \"bad\"\nevents = \"VMFAULT\"\nsummary = \"{gpus}\"\n\
                [[rule]]\nname = \"x\"\nenabled = false\n[[rule]]\nname = \"x\"\n[rules]\n";
    let problems = RuleSet::parse(text, "mine.toml").unwrap_err().to_string();
    for said in [
        "mine.toml:2:8: this is no name for a rule",
        "mine.toml:3:12: there is no severity bad; there are info, warning, critical",
        "mine.toml:5:11: the summary has no {gpus}; did you mean gpu?",
        "mine.toml:10:8: a second rule x in one file",
        "mine.toml:11:2: there is no key rules; did you mean rule?",
    ] {
        assert!(problems.contains(said), "{said}\n{problems}");
    }
    let problems = RuleSet::parse("[[rule]]\nevents = \"VMFAULT\"\n", "f").unwrap_err().to_string();
    for key in ["name", "severity", "summary"] {
        assert!(problems.contains(&format!("f:1:1: {key} is missing")), "{problems}");
    }
    let none = RuleSet::read(std::path::Path::new("/no/such/file")).unwrap_err().to_string();
    assert!(none.starts_with("/no/such/file:1:1: cannot be read"), "{none}");
}

#[test]
fn a_file_is_laid_over_another() {
    let names =
        |rules: &RuleSet| rules.iter().map(|rule| rule.name().to_owned()).collect::<Vec<_>>();
    let first = RuleSet::builtin();
    let more = right("events = \"VMFAULT\"\n[[rule]]\nname = \"vm-fault\"\nenabled = false\n");
    let mut expected = names(&first);
    expected.retain(|name| name != "vm-fault");
    expected.push("mine".to_owned());
    let both = first.with(more);
    assert_eq!(names(&both), expected);
    let milder = right("events = \"VMFAULT\"\n").with(both);
    assert_eq!(names(&milder)[0], "mine", "it keeps its place");
}

#[test]
fn what_is_shown_is_read_as_the_same_rules() {
    let all = right(
        "events = [\"VMFAULT\", \"UNKNOWN\"]\nspans = \"RESET\"\nrecords = \"health\"\nwhen = 'pid == 7'\n\
         by = [\"gpu\", \"job\"]\ncount = 3\nwithin = \"90s\"\nfor = \"1500ms\"\nsurvives_boot = true\n\
         action = \"say \\\"no\\\"\"\nlabels = { team = \"hw\" }\nnotify = { at_most = 2, within = \"1h\", remind = \"4h\" }\n\
         resolve = { events = [\"PROCESS_END\"], each = [\"PROCESS_END\"], when = 'pid == 7', quiet = \"1d\" }\n",
    );
    for rules in [RuleSet::builtin(), all] {
        let shown = rules.to_toml();
        let again = RuleSet::parse(&shown, "shown").unwrap_or_else(|p| panic!("{p}\n{shown}"));
        assert_eq!(again.to_toml(), shown);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever somebody writes, he is told; nothing falls over.
    #[test]
    fn any_file_is_read_or_refused(text in "[\\[\\]a-z=\"'{}.0-9\n -]{0,200}") {
        let _told = RuleSet::parse(&text, "f");
    }

    #[test]
    fn any_condition_is_read_or_refused(when in "[a-z.()\\[\\]{}<>=!&|?:,+*/%\"0-9 -]{0,80}") {
        let text = format!("{HEAD}events = \"VMFAULT\"\nwhen = '{when}'\n");
        let _told = RuleSet::parse(&text, "f");
    }

    #[test]
    fn any_letters_make_a_condition_or_not(when in "\\PC{0,60}") {
        let text = format!("{HEAD}events = \"VMFAULT\"\nwhen = {}\n", serde_json::Value::from(when));
        let _told = RuleSet::parse(&text, "f");
    }

    #[test]
    fn deep_conditions_do_not_end_the_program(depth in 1..1000_usize, open in "[(!\\[-]") {
        let when = open.repeat(depth);
        let text = format!("{HEAD}events = \"VMFAULT\"\nwhen = '{when}'\n");
        prop_assert!(RuleSet::parse(&text, "f").is_err());
    }
}
