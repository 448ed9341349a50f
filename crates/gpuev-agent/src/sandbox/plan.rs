//! What the agent needs: what its configuration names.

use std::path::{Path, PathBuf};

use toml::Value;

use super::Plan;
use crate::Config;

/// Where interpreters, libraries and other programs are that a program of an `exec` sink runs.
const PROGRAMS: [&str; 5] = ["/bin", "/lib", "/lib64", "/sbin", "/usr"];

impl Plan {
    /// What an agent with this configuration needs. What another configuration names after a reload and this
    /// one does not, is out of reach until a restart.
    #[must_use]
    pub fn for_agent(config: &Config) -> Self {
        let mut plan = Self::new().with_system_files().write(folder_of_sqlite());
        let port = config.http.listen.rsplit(':').next().and_then(|port| port.parse::<u16>().ok());
        plan.bind.extend(port);
        if let Ok(Value::Table(all)) = Value::try_from(config) {
            all.iter().for_each(|(key, value)| plan.add(key, value));
        }
        if !plan.execute.is_empty() {
            plan.execute.extend(PROGRAMS.map(PathBuf::from));
        }
        plan
    }

    /// Absolute paths of the configuration, by what their keys say: files of secrets, rules and templates are
    /// read; what the agent makes, it makes and replaces in a folder; a command is run.
    fn add(&mut self, key: &str, value: &Value) {
        match value {
            Value::Table(table) => table.iter().for_each(|(key, value)| self.add(key, value)),
            Value::Array(list) => list.iter().for_each(|value| self.add(key, value)),
            Value::String(text) if text.starts_with('/') => {
                let path = Path::new(text);
                let folder = || path.parent().unwrap_or(path).to_owned();
                match key {
                    "state_dir" | "folder" => self.write.push(path.to_owned()),
                    "path" | "socket" | "file" => self.write.push(folder()),
                    "command" | "program" => self.execute.push(path.to_owned()),
                    _ => self.read.push(path.to_owned()),
                }
            }
            _ => {}
        }
    }
}

/// Where SQLite puts what a large query does not keep in memory.
fn folder_of_sqlite() -> PathBuf {
    std::env::var_os("SQLITE_TMPDIR").map_or_else(std::env::temp_dir, PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_says_what_is_needed() {
        let text = r#"
            [agent]
            state_dir = "/srv/gpuev"
            [history]
            file = "/data/gpu/history.db"
            [http]
            listen = "127.0.0.1:9999"
            token_file = "/run/secrets/token"
            [control]
            socket = "/run/gpuev/agent.sock"
        "#;
        let plan = Plan::for_agent(&Config::parse(text, "test", []).unwrap());
        let has = |list: &[PathBuf], path: &str| list.contains(&PathBuf::from(path));
        for folder in ["/srv/gpuev", "/data/gpu", "/run/gpuev"] {
            assert!(has(&plan.write, folder), "{folder}: {plan:?}");
        }
        assert!(has(&plan.read, "/run/secrets/token"), "{plan:?}");
        assert_eq!(plan.bind, [9999]);
        assert!(plan.execute.is_empty());
    }
}
