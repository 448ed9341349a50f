//! The agent's configuration: one TOML file in which every key is optional, and environment variables over
//! it. `docs/agent.md` documents each key.

mod error;
mod events;
mod rules;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use gpuev::{EventType, Severity};
use serde::{Deserialize, Serialize};

use crate::quantity::{Period, Size};
use crate::sink;

pub use error::ConfigError;
pub use events::{EventMode, Events};
pub use rules::RuleSettings;

/// Where the configuration is looked for if nobody says.
pub const DEFAULT_FILE: &str = "/etc/gpuev/agent.toml";

/// Environment variables with this prefix go over the file: `GPUEV_AGENT_HTTP_LISTEN` is `http.listen`.
pub const ENV_PREFIX: &str = "GPUEV_AGENT_";

/// All that can be set.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The agent itself.
    pub agent: AgentSettings,
    /// What is kept on disk.
    pub history: HistorySettings,
    /// How events are told, by type.
    pub events: Events,
    /// When GPUs are asked how they are doing.
    pub health: HealthSettings,
    /// What is wrong.
    pub rules: RuleSettings,
    /// Where signals and alerts go: `docs/sinks.md`.
    pub sinks: sink::Settings,
    /// The HTTP API.
    pub http: HttpSettings,
    /// The local socket.
    pub control: ControlSettings,
    /// Who opens event files.
    pub keeper: KeeperSettings,
}

/// `[agent]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AgentSettings {
    /// The folder of what outlives a restart; by default the one that systemd made for the service
    /// (`STATE_DIRECTORY`), else `/var/lib/gpuev`.
    pub state_dir: PathBuf,
    /// How many bytes of events may wait before they are lost (and a gap says so).
    pub queue: Size,
    /// Whether it gives up what it does not need. Only with a keeper that others start.
    pub sandbox: bool,
}

impl Default for AgentSettings {
    fn default() -> Self {
        Self { state_dir: PathBuf::from("/var/lib/gpuev"), queue: Size(16 << 20), sandbox: true }
    }
}

/// `[keeper]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeeperSettings {
    /// Where keepers are had; empty: the agent starts its own, with its own privileges.
    pub socket: PathBuf,
    /// Whether a keeper without `CAP_SYS_ADMIN` will do: of processes it shows only what the driver shows to anybody.
    pub partial: bool,
}

/// `[history]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HistorySettings {
    /// Whether events are kept on disk.
    pub enabled: bool,
    /// The file; below `agent.state_dir` unless it begins with `/`.
    pub file: PathBuf,
    /// What is older goes.
    pub max_age: Period,
    /// The oldest goes while the file is larger.
    pub max_size: Size,
    /// How many bytes of events may wait for the disk before they are lost (and a gap says so).
    pub queue: Size,
}

impl Default for HistorySettings {
    fn default() -> Self {
        Self {
            enabled: true,
            file: PathBuf::from("history.db"),
            max_age: Period::from_secs(30 * 86_400),
            max_size: Size(2 << 30),
            queue: Size(16 << 20),
        }
    }
}

/// `[health]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthSettings {
    /// Between two periodic readings of a GPU; 0 is never.
    pub interval: Period,
    /// An event at least this severe has the GPU read at once.
    pub on_events: OnEvents,
    /// A reading that is younger is taken again.
    pub fresh: Period,
    /// How long an event waits for a reading; a GPU that answers later is told without.
    pub wait: Period,
}

impl Default for HealthSettings {
    fn default() -> Self {
        Self {
            interval: Period::from_secs(30),
            on_events: OnEvents::Warning,
            fresh: Period::from_millis(250),
            wait: Period::from_millis(200),
        }
    }
}

/// Which events have a GPU read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnEvents {
    /// None.
    Off,
    /// All.
    Info,
    /// Warnings and what is worse.
    Warning,
    /// Critical ones.
    Critical,
}

impl OnEvents {
    /// Whether an event of this severity has the GPU read.
    #[must_use]
    pub fn includes(self, severity: Severity) -> bool {
        match self {
            Self::Off => false,
            Self::Info => true,
            Self::Warning => severity >= Severity::Warning,
            Self::Critical => severity >= Severity::Critical,
        }
    }
}

/// `[http]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpSettings {
    /// Address and port; empty: no HTTP. Anything but loopback needs `tls_cert`, `tls_key` and `token_file`.
    pub listen: String,
    /// A file with the token that every request must bring; empty: none is asked for.
    pub token_file: PathBuf,
    /// A PEM file with the certificate and those above it.
    pub tls_cert: PathBuf,
    /// A PEM file with the certificate's key.
    pub tls_key: PathBuf,
    /// Host names by which the agent may be asked, beside `localhost` and the address that it listens on.
    pub allowed_hosts: Vec<String>,
    /// Origins (`https://page.example`) whose pages may ask; the agent's own may.
    pub allowed_origins: Vec<String>,
    /// Connections at a time.
    pub max_clients: u32,
    /// Live streams at a time, of these connections.
    pub max_streams: u32,
    /// How many bytes of the live stream are kept for those who reconnect.
    pub stream_buffer: Size,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:9470".to_owned(),
            token_file: PathBuf::new(),
            tls_cert: PathBuf::new(),
            tls_key: PathBuf::new(),
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            max_clients: 256,
            max_streams: 128,
            stream_buffer: Size(4 << 20),
        }
    }
}

/// `[control]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ControlSettings {
    /// The socket; empty: none.
    pub socket: PathBuf,
}

impl Default for ControlSettings {
    fn default() -> Self {
        Self { socket: PathBuf::from("/run/gpuev/agent.sock") }
    }
}

impl Config {
    /// Reads the file, and the environment over it: `GPUEV_AGENT_SECTION_KEY`, and `STATE_DIRECTORY` as the default of
    /// `agent.state_dir`. Without a path the default file is read where it exists.
    ///
    /// # Errors
    /// Where the file cannot be read, or a key or value makes no sense; the error names the place.
    pub fn load(
        path: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let file = path.unwrap_or(Path::new(DEFAULT_FILE));
        let text = match std::fs::read_to_string(file) {
            Ok(text) => text,
            Err(error) if path.is_none() && error.kind() == std::io::ErrorKind::NotFound => {
                String::new()
            }
            Err(error) => return Err(ConfigError::unreadable(file, &error)),
        };
        Self::parse(&text, &file.display().to_string(), environment)
    }

    /// As [`load`](Self::load), of a text that is said to be from `origin`.
    ///
    /// # Errors
    /// Where a key or value makes no sense.
    pub fn parse(
        text: &str,
        origin: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut config: Self =
            toml::from_str(text).map_err(|error| ConfigError::of_text(origin, text, &error))?;
        let mut table: toml::Table =
            text.parse().map_err(|error| ConfigError::of_text(origin, text, &error))?;
        for (name, value) in environment {
            let wrong = |why: String| ConfigError::of_variable(&name, why);
            if put_variable(&mut table, &name, &value).map_err(wrong)? {
                let changed = table.clone().try_into();
                config = changed.map_err(|e: toml::de::Error| wrong(e.message().to_owned()))?;
            }
        }
        config.check(origin)?;
        Ok(config)
    }

    /// The file of the history.
    #[must_use]
    pub fn history_file(&self) -> PathBuf {
        self.agent.state_dir.join(&self.history.file)
    }

    /// What differs in `new` and is taken notice of at the next start only.
    #[must_use]
    pub fn restarts(&self, new: &Self) -> Vec<&'static str> {
        let off = |config: &Self| EventType::ALL.len() - config.events.wanted().count();
        let differs = [
            ("agent", self.agent != new.agent),
            ("history", self.history != new.history || off(self) != off(new)),
            ("http", self.http != new.http),
            ("control", self.control != new.control),
            ("keeper", self.keeper != new.keeper),
        ];
        differs.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect()
    }

    /// What each value says by itself is right; here, what they say together.
    fn check(&self, origin: &str) -> Result<(), ConfigError> {
        let http = &self.http;
        if http.tls_cert.as_os_str().is_empty() != http.tls_key.as_os_str().is_empty() {
            let why = "http.tls_cert and http.tls_key go together";
            return Err(ConfigError::whole(origin, why));
        }
        if http.max_streams >= http.max_clients {
            let why = "http.max_streams must be less than http.max_clients: \
                       else streams could take every connection";
            return Err(ConfigError::whole(origin, why));
        }
        Ok(())
    }
}

/// Puts the variable's value into `table`; `false` where the variable is none of the agent's.
fn put_variable(table: &mut toml::Table, name: &str, value: &str) -> Result<bool, String> {
    if let Some(key) = name.strip_prefix(ENV_PREFIX) {
        return put(table, key, value).map(|()| true);
    }
    if name != "STATE_DIRECTORY" {
        return Ok(false);
    }
    let agent = table.entry("agent").or_insert_with(|| toml::Table::new().into());
    let agent = agent.as_table_mut().ok_or("there is no such section")?;
    let folder =
        gpuev_store::state_folder(OsStr::new(value)).map(|path| path.display().to_string());
    let Some(folder) = folder.filter(|_| !agent.contains_key("state_dir")) else {
        return Ok(false);
    };
    agent.insert("state_dir".to_owned(), folder.into());
    Ok(true)
}

/// Sets `SECTION_KEY` of the environment: a TOML value, or else a bare word.
fn put(table: &mut toml::Table, name: &str, value: &str) -> Result<(), String> {
    let lower = name.to_ascii_lowercase();
    let Some((section, key)) = lower.split_once('_') else {
        return Err(format!("write {ENV_PREFIX}SECTION_KEY, as in {ENV_PREFIX}HTTP_LISTEN"));
    };
    // The names of event types are written in capitals.
    let key = if section == "events" { key.to_ascii_uppercase() } else { key.to_owned() };
    let parsed = format!("value = {value}").parse::<toml::Table>();
    let parsed = parsed.ok().and_then(|mut table| table.remove("value"));
    let section = table.entry(section).or_insert_with(|| toml::Table::new().into());
    let section = section.as_table_mut().ok_or("there is no such section")?;
    section.insert(key, parsed.unwrap_or_else(|| value.into()));
    Ok(())
}
