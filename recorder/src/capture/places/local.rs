//! What container runtimes and Kubernetes keep on a machine, as far as names can be read from it.
//!
//! | whose | where | what is taken |
//! | --- | --- | --- |
//! | Kubernetes | `/var/log/containers/POD_NAMESPACE_CONTAINER-ID.log` | the container's name |
//! | Kubernetes | `/var/log/pods/NAMESPACE_POD_UID/` | the pod's name |
//! | Docker | `/var/lib/docker/containers/ID/config.v2.json` | `Name` |
//! | podman, of root | `/var/lib/containers/storage/overlay-containers/*containers.json` | `names` |
//! | `ip netns` | `/run/netns/NAME` | the network namespace bound there |
//!
//! Only root writes these. What is not there, or not as expected, names nothing.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::container::{Called, Container, Runtime};

/// Larger files are no runtime's, or not worth the memory.
const LARGEST: u64 = 64 << 20;

/// The names that are found without knowing the id.
pub struct Names {
    root: PathBuf,
    kubernetes: Vec<Called>,
    podman: Vec<Called>,
}

impl Names {
    /// Reads what there is below a root, `/` but for tests.
    pub fn read(root: &Path) -> Self {
        let entries = |folder: &str| {
            let entries = fs::read_dir(root.join(folder)).into_iter().flatten().flatten();
            entries.filter_map(|entry| entry.file_name().into_string().ok())
        };
        let containers = entries("var/log/containers");
        let containers = containers.filter_map(|name| kubernetes_container(&name));
        let pods = entries("var/log/pods").filter_map(|name| kubernetes_pod(&name));
        Self {
            root: root.to_owned(),
            kubernetes: containers.chain(pods).collect(),
            podman: podman(&root.join("var/lib/containers/storage/overlay-containers")),
        }
    }

    /// The names of a container and of its pod.
    pub fn of(&self, container: &Container) -> Vec<Called> {
        let find = |names: &[Called], id: &str| {
            names.iter().find(|called| !id.is_empty() && called.id == id).cloned()
        };
        let own = find(&self.kubernetes, &container.id).or_else(|| match container.runtime {
            Some(Runtime::Podman) => find(&self.podman, &container.id),
            // Kubernetes' containers have other names in Docker than people give them.
            Some(Runtime::Docker) | None if container.pod.is_empty() => self.docker(&container.id),
            _ => None,
        });
        own.into_iter().chain(find(&self.kubernetes, &container.pod)).collect()
    }

    fn docker(&self, id: &str) -> Option<Called> {
        #[derive(Deserialize)]
        struct Config {
            #[serde(rename = "Name")]
            name: String,
        }
        if id.is_empty() || id.contains(['/', '.']) {
            return None;
        }
        let folder = self.root.join("var/lib/docker/containers").join(id);
        let config: Config = json(&folder.join("config.v2.json"))?;
        called(id, config.name.trim_start_matches('/'))
    }
}

fn called(id: &str, name: &str) -> Option<Called> {
    (!name.is_empty()).then(|| Called { id: id.to_owned(), name: name.to_owned() })
}

fn json<T: for<'a> Deserialize<'a>>(path: &Path) -> Option<T> {
    if fs::metadata(path).ok()?.len() > LARGEST {
        return None;
    }
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

/// `web-0_shop_nginx-3f4b….log`: neither of the three names may hold an underscore.
fn kubernetes_container(file: &str) -> Option<Called> {
    let (names, id) = file.strip_suffix(".log")?.rsplit_once('-')?;
    let [_pod, _namespace, container] = names.split('_').collect::<Vec<_>>()[..] else {
        return None;
    };
    called(id, container)
}

/// `shop_web-0_5b3c0e4e-3f8e-11e9-8d3c-0a580af40123`.
fn kubernetes_pod(folder: &str) -> Option<Called> {
    let [namespace, pod, uid] = folder.split('_').collect::<Vec<_>>()[..] else { return None };
    called(uid, &format!("{namespace}/{pod}"))
}

/// Containers that outlive the boot, and those that do not.
fn podman(folder: &Path) -> Vec<Called> {
    #[derive(Deserialize)]
    struct Entry {
        id: String,
        #[serde(default)]
        names: Vec<String>,
    }
    let files = ["containers.json", "volatile-containers.json"].map(|file| folder.join(file));
    let entries = files.iter().filter_map(|file| json::<Vec<Entry>>(file)).flatten();
    entries.filter_map(|entry| called(&entry.id, entry.names.first()?)).collect()
}

/// Namespaces that are bound to a file of a folder: inode and name.
pub fn bound_namespaces(folder: &Path) -> Vec<(u32, String)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let named = entries.filter_map(|entry| {
        let inode = fs::metadata(entry.path()).ok()?.ino();
        Some((u32::try_from(inode).ok()?, entry.file_name().into_string().ok()?))
    });
    named.collect()
}

/// Whether a runtime rather than a person chose the name: `cni-5b3c0e4e-…`, `netns-5b3c0e4e-…`, or the bare uuid.
pub fn is_made_up(name: &str) -> bool {
    let bare = name.strip_prefix("cni-").or_else(|| name.strip_prefix("netns-")).unwrap_or(name);
    bare.split('-').map(str::len).eq([8, 4, 4, 4, 12])
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f4b1c2d5e6f70819a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f7081";
    const UID: &str = "5b3c0e4e-3f8e-11e9-8d3c-0a580af40123";

    /// A root with these files in it.
    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("it lies in the root")).expect("a folder");
            fs::write(path, text).expect("a file");
        }
        root
    }

    fn names(root: &tempfile::TempDir, container: &Container) -> Vec<(String, String)> {
        let found = Names::read(root.path()).of(container);
        found.into_iter().map(|called| (called.id, called.name)).collect()
    }

    fn container(runtime: Option<Runtime>, pod: &str) -> Container {
        Container { runtime, id: ID.into(), pod: pod.into(), ..Container::default() }
    }

    #[test]
    fn kubernetes() {
        let root = root(&[
            (&format!("var/log/containers/web-0_shop_nginx-{ID}.log"), ""),
            (&format!("var/log/pods/shop_web-0_{UID}/nginx/0.log"), ""),
            ("var/log/pods/what is this", ""),
        ]);
        let expected = [(ID, "nginx"), (UID, "shop/web-0")].map(|(a, b)| (a.into(), b.into()));
        assert_eq!(names(&root, &container(Some(Runtime::Containerd), UID)), expected);
        assert_eq!(names(&root, &container(Some(Runtime::Containerd), "other")), expected[..1]);
        let pod = Container { id: String::new(), ..container(None, UID) };
        assert_eq!(names(&root, &pod), expected[1..]);
    }

    #[test]
    fn docker_and_podman() {
        let root = root(&[
            (
                &format!("var/lib/docker/containers/{ID}/config.v2.json"),
                r#"{"State":{"Pid":7},"ID":"…","Name":"/web"}"#,
            ),
            (
                "var/lib/containers/storage/overlay-containers/containers.json",
                &format!(r#"[{{"id":"{ID}","names":["db","alias"],"layer":"x"}},{{"id":"y"}}]"#),
            ),
            ("var/lib/containers/storage/overlay-containers/volatile-containers.json", "not JSON"),
        ]);
        for (runtime, name) in
            [(Some(Runtime::Docker), "web"), (None, "web"), (Some(Runtime::Podman), "db")]
        {
            assert_eq!(names(&root, &container(runtime, "")), [(ID.to_owned(), name.to_owned())]);
        }
        assert_eq!(names(&root, &container(Some(Runtime::Docker), UID)), []);
        assert_eq!(names(&root, &container(Some(Runtime::CriO), "")), []);
        let climber = Container { id: "../x".into(), ..container(None, "") };
        assert_eq!(names(&root, &climber), []);
    }

    #[test]
    fn nothing_there_names_nothing() {
        assert_eq!(names(&root(&[]), &container(None, UID)), []);
        assert_eq!(bound_namespaces(Path::new("/no/such")), []);
    }

    #[test]
    fn names_that_runtimes_make_up() {
        for name in [UID.to_owned(), format!("cni-{UID}"), format!("netns-{UID}")] {
            assert!(is_made_up(&name), "{name}");
        }
        for name in ["red", "cni-x", "my-net", "netns-1"] {
            assert!(!is_made_up(name), "{name}");
        }
    }
}
