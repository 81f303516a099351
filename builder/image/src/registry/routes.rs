//! Which hosts answer for a name, and how they are trusted: `registries.conf`, as containers-registries.conf(5) has it
//! in its second version. Short names are docker's, whatever the file says of searching.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::reference::DEFAULT_REGISTRY;
use crate::{Error, Reference, Result};

/// Bytes of one configuration file, at most.
const FILE_LIMIT: u64 = 4 << 20;

/// One place where a repository can be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Route {
    /// `registry.example:5000`.
    pub(super) host: String,
    /// What the repository is called there.
    pub(super) repository: String,
    /// Plain HTTP and invalid certificates are taken.
    pub(super) insecure: bool,
}

/// What the configuration says of registries; nothing, when there is none.
#[derive(Debug, Default)]
pub(super) struct Registries {
    entries: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
struct File {
    #[serde(default)]
    registry: Vec<Entry>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Entry {
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    blocked: bool,
    #[serde(default)]
    mirror_by_digest_only: bool,
    #[serde(default)]
    mirror: Vec<Mirror>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Mirror {
    location: String,
    #[serde(default)]
    insecure: bool,
    #[serde(default)]
    pull_from_mirror: Pulls,
}

/// What a mirror is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Pulls {
    #[default]
    All,
    DigestOnly,
    TagOnly,
}

impl Registries {
    /// The user's configuration, or else the machine's, and the files beside it, later ones before earlier ones.
    pub(super) fn load() -> Result<Self> {
        let mut registries = Self::default();
        for path in files()? {
            registries.add(&read(&path)?, &path)?;
        }
        Ok(registries)
    }

    fn add(&mut self, text: &str, path: &Path) -> Result<()> {
        let wrong = |reason: String| Error::invalid(path.display().to_string(), reason);
        let file: File = toml::from_str(text).map_err(|error| wrong(error.to_string()))?;
        for mut entry in file.registry {
            if entry.prefix.is_empty() {
                entry.prefix.clone_from(&entry.location);
            }
            if entry.prefix.is_empty() {
                return Err(wrong("a [[registry]] has neither prefix nor location".to_owned()));
            }
            self.entries.retain(|known| known.prefix != entry.prefix);
            self.entries.push(entry);
        }
        Ok(())
    }

    /// The entry whose prefix is the longest that the name begins with.
    fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().filter(|entry| entry.covers(name)).max_by_key(|entry| entry.prefix.len())
    }

    /// Where a reference is pulled from: the mirrors in their order, then the registry itself.
    pub(super) fn of_pull(&self, reference: &Reference) -> Result<Vec<Route>> {
        let name = reference.name();
        let Some(entry) = self.entry(&name) else { return Ok(vec![Route::direct(reference)]) };
        entry.refuse_if_blocked(&name)?;
        let by_digest = reference.digest().is_some();
        let asked = |mirror: &&Mirror| match mirror.pull_from_mirror {
            Pulls::All => by_digest || !entry.mirror_by_digest_only,
            Pulls::DigestOnly => by_digest,
            Pulls::TagOnly => !by_digest,
        };
        let mirrors = entry.mirror.iter().filter(asked);
        let mut routes =
            mirrors.map(|mirror| entry.route(&name, &mirror.location, mirror.insecure)).collect::<Result<Vec<_>>>()?;
        routes.push(entry.route(&name, &entry.location, entry.insecure)?);
        Ok(routes)
    }

    /// Where a reference is pushed to, deleted and listed.
    pub(super) fn of_push(&self, reference: &Reference) -> Result<Route> {
        let name = reference.name();
        let Some(entry) = self.entry(&name) else { return Ok(Route::direct(reference)) };
        entry.refuse_if_blocked(&name)?;
        entry.route(&name, &entry.location, entry.insecure)
    }

    /// Whether a registry as a whole is taken without a valid certificate.
    pub(super) fn is_insecure(&self, host: &str) -> bool {
        self.entry(host).is_some_and(|entry| entry.insecure)
    }
}

impl Route {
    /// Where else what docker.io has is asked for: `HOST[/PATH]` each.
    pub(super) fn of_mirrors(reference: &Reference, mirrors: &[String]) -> impl Iterator<Item = Self> {
        let mirrors = if reference.registry() == DEFAULT_REGISTRY { mirrors } else { &[] };
        mirrors.iter().map(|mirror| {
            let mirror = mirror.trim_end_matches('/');
            let (host, path) =
                mirror.split_once('/').map_or((mirror, String::new()), |(host, path)| (host, format!("{path}/")));
            let repository = format!("{path}{}", reference.repository());
            Self { host: host.to_owned(), repository, insecure: false }
        })
    }

    fn direct(reference: &Reference) -> Self {
        let (host, repository) = (reference.registry().to_owned(), reference.repository().to_owned());
        Self { host, repository, insecure: false }
    }
}

impl Entry {
    /// The beginning of `name` that the prefix stands for: whole components, or a host below `*.`.
    fn matched<'a>(&self, name: &'a str) -> Option<&'a str> {
        if let Some(domain) = self.prefix.strip_prefix('*') {
            let host = name.split('/').next().unwrap_or(name);
            let named = host.split(':').next().unwrap_or(host);
            return (named.ends_with(domain) || host.ends_with(domain)).then_some(host);
        }
        let rest = name.strip_prefix(&self.prefix)?;
        (rest.is_empty() || rest.starts_with('/')).then_some(&name[..self.prefix.len()])
    }

    fn covers(&self, name: &str) -> bool {
        self.matched(name).is_some()
    }

    fn refuse_if_blocked(&self, name: &str) -> Result<()> {
        if !self.blocked {
            return Ok(());
        }
        let message = format!("registries.conf blocks {}", self.prefix);
        Err(Error::Denied { what: name.to_owned(), message })
    }

    /// The name with `location` in the prefix's place.
    fn route(&self, name: &str, location: &str, insecure: bool) -> Result<Route> {
        let matched = self.matched(name).unwrap_or_default();
        let location = if location.is_empty() { matched } else { location.trim_end_matches('/') };
        let there = format!("{location}{}", &name[matched.len()..]);
        let wrong = || Error::invalid("registries.conf", format!("{location:?} gives no repository for {name}"));
        let (host, repository) = there.split_once('/').ok_or_else(wrong)?;
        Ok(Route { host: host.to_owned(), repository: repository.to_owned(), insecure })
    }
}

/// The main file and the ones beside it, in the order in which they count.
fn files() -> Result<Vec<PathBuf>> {
    if let Some(path) = std::env::var_os("CONTAINERS_REGISTRIES_CONF").filter(|path| !path.is_empty()) {
        return Ok(vec![PathBuf::from(path)]);
    }
    let home = std::env::var_os("HOME").map(|home| Path::new(&home).join(".config"));
    let own = std::env::var_os("XDG_CONFIG_HOME").filter(|path| !path.is_empty()).map(PathBuf::from).or(home);
    let places: Vec<PathBuf> =
        own.into_iter().chain([PathBuf::from("/etc")]).map(|place| place.join("containers")).collect();
    let main = places.iter().map(|place| place.join("registries.conf")).find(|path| path.is_file());
    let mut files: Vec<PathBuf> = main.into_iter().collect();
    for place in places.iter().rev() {
        files.extend(beside(&place.join("registries.conf.d"))?);
    }
    Ok(files)
}

/// `*.conf` of a directory, sorted.
fn beside(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(Error::io("list", directory)(error)),
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<Vec<_>>>();
    let mut paths = paths.map_err(Error::io("list", directory))?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "conf"));
    paths.sort();
    Ok(paths)
}

fn read(path: &Path) -> Result<String> {
    let size = std::fs::metadata(path).map_err(Error::io("read", path))?.len();
    if size > FILE_LIMIT {
        return Err(Error::invalid(path.display().to_string(), format!("longer than {FILE_LIMIT} bytes")));
    }
    std::fs::read_to_string(path).map_err(Error::io("read", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registries(text: &str) -> Registries {
        let mut registries = Registries::default();
        registries.add(text, Path::new("registries.conf")).expect("configuration");
        registries
    }

    fn routes(registries: &Registries, name: &str) -> Vec<String> {
        let routes = registries.of_pull(&Reference::parse(name).expect(name)).expect(name);
        let shown =
            |route: Route| format!("{}/{}{}", route.host, route.repository, if route.insecure { " !" } else { "" });
        routes.into_iter().map(shown).collect()
    }

    #[test]
    fn mirrors_come_first_and_the_longest_prefix_decides() {
        let registries = registries(
            r#"
            unqualified-search-registries = ["example.com"]
            [[registry]]
            location = "docker.io"
            [[registry.mirror]]
            location = "mirror.lan:5000/hub"
            insecure = true
            [[registry.mirror]]
            location = "by-digest.lan"
            pull-from-mirror = "digest-only"
            [[registry]]
            prefix = "docker.io/library/secret"
            location = "vault.lan/secret"
            [[registry]]
            prefix = "*.example.com"
            insecure = true
            "#,
        );
        let hub = ["mirror.lan:5000/hub/library/busybox !", "docker.io/library/busybox"];
        assert_eq!(routes(&registries, "busybox"), hub);
        let digest = kiln_store::Digest::of(b"x");
        assert_eq!(routes(&registries, &format!("busybox@{digest}"))[1], "by-digest.lan/library/busybox");
        assert_eq!(routes(&registries, "secret"), ["vault.lan/secret"]);
        assert_eq!(routes(&registries, "secrets").len(), 2, "a prefix ends where a component does");
        assert_eq!(routes(&registries, "a.example.com/x"), ["a.example.com/x !"]);
        assert_eq!(routes(&registries, "example.com/x"), ["example.com/x"]);
        assert!(registries.is_insecure("b.example.com:5000") && !registries.is_insecure("docker.io"));
        let pushed = registries.of_push(&Reference::parse("busybox").expect("name")).expect("route");
        assert_eq!(pushed.host, "docker.io", "nothing is pushed to a mirror");
    }

    #[test]
    fn what_is_blocked_or_wrong_is_said() {
        let registries = registries("[[registry]]\nlocation = \"bad.lan\"\nblocked = true\n");
        let blocked = registries.of_pull(&Reference::parse("bad.lan/x").expect("name")).expect_err("blocked");
        assert!(blocked.to_string().contains("registries.conf blocks bad.lan"), "{blocked}");
        let nameless = Registries::default().add("[[registry]]\ninsecure = true\n", Path::new("r.conf"));
        assert!(nameless.expect_err("nameless").to_string().contains("r.conf"));
        assert!(Registries::default().add("[[registry]\n", Path::new("r.conf")).is_err());
    }
}
