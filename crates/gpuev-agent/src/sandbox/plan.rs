//! What the agent needs: what its configuration names.

use std::path::{Path, PathBuf};

use toml::Value;

use super::Plan;
use crate::Config;

/// Where interpreters, libraries and other programs are that a program of an `exec` sink runs.
const PROGRAMS: [&str; 5] = ["/bin", "/lib", "/lib64", "/sbin", "/usr"];

impl Plan {
    /// What an agent with this configuration needs. What another configuration names after a reload and this
    /// one does not, is out of reach until a restart: [`lacks`](Self::lacks) tells.
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

    /// What of another configuration, to be gone over to by a reload, is out of reach: files of rules and of
    /// sinks. The other sections wait for a restart anyway. `self` is to be [`in_force`](Self::in_force).
    #[must_use]
    pub fn lacks(&self, later: &Config) -> Vec<PathBuf> {
        let mut needs = Self::new();
        if let Ok(Value::Table(all)) = Value::try_from(later) {
            let now = all.iter().filter(|(key, _)| matches!(key.as_str(), "rules" | "sinks"));
            now.for_each(|(key, value)| needs.add(key, value));
        }
        let within = |path: &PathBuf, folders: &[&Vec<PathBuf>]| {
            let path = real(path);
            folders.iter().copied().flatten().any(|folder| path.starts_with(real(folder)))
        };
        // Of rules, what is not there is passed over; what a sink lacks it says itself.
        let read = needs.read.into_iter().filter(|path| {
            path.exists() && !within(path, &[&self.read, &self.write, &self.execute])
        });
        let write = needs.write.into_iter().filter(|path| !within(path, &[&self.write]));
        let execute = needs.execute.into_iter().filter(|path| !within(path, &[&self.execute]));
        read.chain(write).chain(execute).collect()
    }

    /// The part of it that the kernel can hold to now: what does not exist cannot be allowed, also when it
    /// exists later.
    #[must_use]
    pub fn in_force(mut self) -> Self {
        for paths in [&mut self.read, &mut self.write, &mut self.execute] {
            paths.retain(|path| path.exists());
        }
        self
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
                    // Where programs run that need no folder: they are to write nowhere.
                    "folder" if text == "/" => {}
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

/// The path without links, as far as it exists.
fn real(path: &Path) -> PathBuf {
    let found = path.ancestors().find_map(|part| Some((part, part.canonicalize().ok()?)));
    let Some((part, real)) = found else { return path.to_owned() };
    // `join` of nothing would add a slash.
    let rest = path.strip_prefix(part).unwrap_or(path);
    if rest.as_os_str().is_empty() { real } else { real.join(rest) }
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
        let exec = format!("{text}[sinks.exec.one]\ncommand = [\"/opt/page\"]\n");
        let plan = Plan::for_agent(&Config::parse(&exec, "test", []).unwrap());
        assert!(has(&plan.execute, "/opt/page") && !has(&plan.write, "/"), "{plan:?}");
    }
    #[test]
    fn what_a_reload_adds_is_out_of_reach_but_below_folders_of_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        for folder in ["state", "rules.d", "other"] {
            std::fs::create_dir(path(folder)).unwrap();
        }
        std::fs::write(path("other/mine.toml"), "").unwrap();
        std::fs::write(path("token"), "x").unwrap();
        std::os::unix::fs::symlink(path("rules.d"), path("link")).unwrap();
        let config = |rules: &str, sinks: &str| {
            let state = path("state");
            let rules = path(rules);
            let text = format!(
                "agent.state_dir = {state:?}\nrules.files = [{rules:?}, \"/etc/gpuev/rules.d\"]\n{sinks}"
            );
            Config::parse(&text, "test", []).unwrap()
        };
        let mut before = Plan::for_agent(&config("rules.d", "")).in_force();
        // This test's own folder lies in it.
        before.write.retain(|folder| *folder != folder_of_sqlite());
        let lacks = |later: &Config| -> Vec<PathBuf> {
            let here = |lacked: &PathBuf| lacked.starts_with(dir.path().canonicalize().unwrap());
            let lacked = before.lacks(later);
            assert!(lacked.iter().all(|path| here(&real(path))), "{lacked:?}");
            lacked
        };
        let nothing: [&str; 0] = [];
        assert_eq!(lacks(&config("rules.d", "")), nothing.map(PathBuf::from));
        assert_eq!(lacks(&config("link", "")), nothing.map(PathBuf::from));
        assert_eq!(lacks(&config("not/there", "")), nothing.map(PathBuf::from));
        assert_eq!(lacks(&config("other", "")), [PathBuf::from(path("other"))]);
        let file = |name: &str| format!("[sinks.file.one]\npath = {:?}\n", path(name));
        assert_eq!(
            lacks(&config("rules.d", &file("state/new/a.ndjson"))),
            nothing.map(PathBuf::from)
        );
        assert_eq!(
            lacks(&config("rules.d", &file("logs/a.ndjson"))),
            [PathBuf::from(path("logs"))]
        );
        let exec = "[sinks.exec.one]\ncommand = [\"/bin/true\"]\n";
        assert_eq!(before.lacks(&config("rules.d", exec)), [PathBuf::from("/bin/true")]);
    }
}
