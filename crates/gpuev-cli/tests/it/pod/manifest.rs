//! What `packaging/kubernetes/daemonset.yaml` says, as a kubelet and a container runtime take it.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

pub(super) fn packaging(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging").join(name)
}

pub(super) fn text(name: &str) -> String {
    let path = packaging(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The objects of the file.
pub(super) struct Manifest(Vec<Value>);

impl Manifest {
    pub(super) fn read() -> Self {
        let text = text("kubernetes/daemonset.yaml");
        Self(text.split("\n---\n").map(|one| serde_norway::from_str(one).unwrap()).collect())
    }

    pub(super) fn object(&self, kind: &str) -> &Value {
        self.0.iter().find(|object| object["kind"] == kind).unwrap()
    }

    /// The template of the pod: its metadata and its spec.
    pub(super) fn template(&self) -> &Value {
        &self.object("DaemonSet")["spec"]["template"]
    }

    pub(super) fn pod(&self) -> &Value {
        &self.template()["spec"]
    }

    pub(super) fn container(&self, name: &str) -> Container<'_> {
        let all =
            ["initContainers", "containers"].into_iter().flat_map(|key| list(self.pod(), key));
        let spec = all.into_iter().find(|container| container["name"] == name).unwrap();
        Container { pod: self.pod(), spec }
    }
}

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

pub(super) fn words(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().map(|word| word.as_str().unwrap()).collect()
}

/// One container of the pod.
#[derive(Clone, Copy)]
pub(super) struct Container<'a> {
    pod: &'a Value,
    pub(super) spec: &'a Value,
}

impl<'a> Container<'a> {
    fn security(&self) -> &'a Value {
        &self.spec["securityContext"]
    }

    pub(super) fn name(&self) -> &'a str {
        self.spec["name"].as_str().unwrap()
    }

    pub(super) fn is_privileged(&self) -> bool {
        self.security()["privileged"] == true
    }

    pub(super) fn has_read_only_root(&self) -> bool {
        self.security()["readOnlyRootFilesystem"] == true
    }

    pub(super) fn may_not_gain(&self) -> bool {
        self.security()["allowPrivilegeEscalation"] == false
    }

    /// User and group. Who is not named is the image's: root, in those that name none.
    pub(super) fn ids(&self) -> [u64; 2] {
        ["runAsUser", "runAsGroup"].map(|key| self.security()[key].as_u64().unwrap_or(0))
    }

    /// Groups beside that.
    pub(super) fn groups(&self) -> Vec<u64> {
        let pod = &self.pod["securityContext"];
        let others = list(pod, "supplementalGroups").iter().chain(pod.get("fsGroup"));
        others.map(|group| group.as_u64().unwrap()).collect()
    }

    /// What root may at most; `None`: all.
    pub(super) fn capabilities(&self) -> Option<Vec<&'a str>> {
        if self.is_privileged() {
            return None;
        }
        let said = &self.security()["capabilities"];
        // What a runtime gives by itself depends on the runtime.
        assert_eq!(words(&said["drop"]), ["ALL"], "{}", self.name());
        Some(words(&said["add"]))
    }

    /// What is executed: the image's program unless another is named.
    pub(super) fn command(&self) -> Vec<&'a str> {
        let command = words(&self.spec["command"]);
        let program = if command.is_empty() { vec!["/usr/bin/gpuev"] } else { command };
        [program, words(&self.spec["args"])].concat()
    }

    /// Its environment in a pod with this address.
    pub(super) fn environment(&self, pod_address: &str) -> Vec<(&'a str, String)> {
        let mut known: Vec<(&str, String)> = Vec::new();
        for variable in list(self.spec, "env") {
            let mut value = match variable["valueFrom"]["fieldRef"]["fieldPath"].as_str() {
                Some("status.podIP") => pod_address.to_owned(),
                Some(other) => panic!("{other} is not known here"),
                None => variable["value"].as_str().unwrap().to_owned(),
            };
            for (name, text) in &known {
                value = value.replace(&format!("$({name})"), text);
            }
            known.push((variable["name"].as_str().unwrap(), value));
        }
        known
    }

    /// The port of this name.
    pub(super) fn port(&self, name: &str) -> u64 {
        let port = list(self.spec, "ports").iter().find(|port| port["name"] == name).unwrap();
        port["containerPort"].as_u64().unwrap()
    }

    /// What is mounted: the volume, where, and whether only to be read.
    pub(super) fn mounts(&self) -> Vec<(&'a Value, &'a str, bool)> {
        let mounted = |mount: &'a Value| {
            let volume = list(self.pod, "volumes").iter().find(|one| one["name"] == mount["name"]);
            (volume.unwrap(), mount["mountPath"].as_str().unwrap(), mount["readOnly"] == true)
        };
        list(self.spec, "volumeMounts").iter().map(mounted).collect()
    }
}
