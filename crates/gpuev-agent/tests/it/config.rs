//! The configuration: all keys optional, mistakes told with their place, the environment over the file.

use std::path::Path;

use gpuev::EventType;
use gpuev_agent::Config;
use gpuev_agent::config::{EventMode, OnEvents};
use gpuev_agent::quantity::Size;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, "agent.toml", []).map_err(|error| error.to_string())
}

fn with(name: &str, value: &str) -> Result<Config, String> {
    let variable = (name.to_owned(), value.to_owned());
    Config::parse("[http]\nlisten = \"127.0.0.1:1\"", "agent.toml", [variable])
        .map_err(|error| error.to_string())
}

#[test]
fn nothing_has_to_be_set() {
    assert_eq!(parse("").unwrap(), Config::default());
    let text = toml::to_string(&Config::default()).unwrap();
    assert_eq!(parse(&text).unwrap(), Config::default(), "what is shown can be read back");
}

#[test]
fn values_are_taken() {
    let config = parse(
        "[events]\nVMFAULT = \"aggregate\"\nPROCESS_END = \"off\"\n\
         MIGRATE_END = { aggregate_above = 5 }\n[health]\non_events = \"critical\"\n\
         [history]\nmax_size = \"500M\"",
    )
    .unwrap();
    assert_eq!(config.events.mode(EventType::VmFault), EventMode::Aggregate { above: 0 });
    assert_eq!(config.events.mode(EventType::ProcessEnd), EventMode::Off);
    assert_eq!(config.events.mode(EventType::MigrateEnd), EventMode::Aggregate { above: 5 });
    assert_eq!(config.events.mode(EventType::GpuPreReset), EventMode::Full);
    assert_eq!(config.health.on_events, OnEvents::Critical);
    assert_eq!(config.history.max_size, Size(500 << 20));
    assert_eq!(config.history_file(), Path::new("/var/lib/gpuev/history.db"));
}

#[test]
fn mistakes_are_told_with_line_and_column() {
    for (text, place, what) in [
        ("[http]\nlissen = \"\"", "agent.toml:2:1: ", "lissen"),
        ("\n[histroy]\n", "agent.toml:2:2: ", "histroy"),
        ("[history]\nmax_age = \"soon\"", "agent.toml:2:11: ", "write it as"),
        ("[history]\n  enabled = 3", "agent.toml:2:13: ", "boolean"),
        ("[events]\nVMFALT = \"full\"", "agent.toml:2:1: ", "VMFAULT"),
        ("[events]\nVMFAULT = \"some\"", "agent.toml:2:11: ", "aggregate_above"),
        ("[http]\nlisten = \"", "agent.toml:2:", ""),
    ] {
        let told = parse(text).unwrap_err();
        assert!(told.starts_with(place) && told.contains(what), "{told}");
    }
    let told = parse("[http]\ntls_cert = \"/a\"").unwrap_err();
    assert!(told.contains("tls_key"), "{told}");
}

#[test]
fn the_environment_goes_over_the_file() {
    assert_eq!(with("GPUEV_AGENT_HTTP_LISTEN", "[::1]:2").unwrap().http.listen, "[::1]:2");
    assert_eq!(with("GPUEV_AGENT_HTTP_MAX_CLIENTS", "999").unwrap().http.max_clients, 999);
    let off = with("GPUEV_AGENT_EVENTS_PROCESS_START", "off").unwrap();
    assert_eq!(off.events.mode(EventType::ProcessStart), EventMode::Off);
    let hosts = with("GPUEV_AGENT_HTTP_ALLOWED_HOSTS", "[\"a\", \"b\"]").unwrap();
    assert_eq!(hosts.http.allowed_hosts, ["a", "b"]);
    assert_eq!(with("HOME", "/root").unwrap().http.listen, "127.0.0.1:1");
    for (name, value) in [
        ("GPUEV_AGENT_HTTP_LISSEN", "x"),
        ("GPUEV_AGENT_HTTP", "x"),
        ("GPUEV_AGENT_HTTP_MAX_CLIENTS", "many"),
        ("GPUEV_AGENT_FOO_BAR", "1"),
    ] {
        let told = with(name, value).unwrap_err();
        assert!(told.starts_with(&format!("${name}: ")), "{told}");
    }
}

#[test]
fn the_services_folder_is_where_its_state_is() {
    let of = |text: &str, variables: &[(&str, &str)]| {
        let variables = variables.iter().map(|(name, value)| (name.to_string(), value.to_string()));
        Config::parse(text, "agent.toml", variables).unwrap().agent.state_dir
    };
    let service = ("STATE_DIRECTORY", "relative:/srv/state/gpuev:/srv/other");
    let variable = ("GPUEV_AGENT_AGENT_STATE_DIR", "/srv/variable");
    let file = "[agent]\nstate_dir = \"/srv/file\"";
    assert_eq!(of("", &[service]), Path::new("/srv/state/gpuev"));
    assert_eq!(of("", &[("STATE_DIRECTORY", "")]), Path::new("/var/lib/gpuev"));
    assert_eq!(of(file, &[service]), Path::new("/srv/file"));
    assert_eq!(of("", &[service, variable]), Path::new("/srv/variable"));
    assert_eq!(of("", &[variable, service]), Path::new("/srv/variable"));
}

#[test]
fn a_file_that_is_named_must_be_there() {
    let missing = Path::new("/nonexistent/agent.toml");
    let told = Config::load(Some(missing), []).unwrap_err().to_string();
    assert!(told.contains("/nonexistent/agent.toml") && told.contains("--config"), "{told}");
}
