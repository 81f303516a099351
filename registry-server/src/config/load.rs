//! Reading `registry.toml`, and what the environment says instead.

use std::fs;
use std::path::Path;

use toml::Table;

use super::{Config, environment, keys};
use crate::error::Error;

/// Keys that are refused at once, at most.
const MOST_UNKNOWN: usize = 10;

impl Config {
    /// Reads a file, if there is one, and the environment's `KILN_REGISTRY_…`.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read, [`Error::Config`] when it says something that cannot be meant.
    pub fn load(file: Option<&Path>, variables: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let (text, place) = match file {
            Some(path) => {
                let text = fs::read_to_string(path).map_err(Error::io("read", path))?;
                (text, path.display().to_string())
            }
            None => (String::new(), "the configuration".to_owned()),
        };
        let invalid = |reason: String| Error::Config { place: place.clone(), reason };
        // The file alone first: then an error can show its line.
        let mut config = parse(&text).map_err(invalid)?;
        let mut table: Table = text.parse().map_err(|error: toml::de::Error| invalid(error.to_string()))?;
        let used = environment::overlay(&mut table, variables)?;
        if !used.is_empty() {
            let place = used.join(", ");
            config = table
                .try_into()
                .map_err(|error: toml::de::Error| Error::Config { place, reason: error.message().to_owned() })?;
        }
        config.check().map_err(invalid)?;
        Ok(config)
    }

    /// What no type can say.
    fn check(&self) -> Result<(), String> {
        if self.tls.certificate.is_some() != self.tls.key.is_some() {
            return Err("`tls` needs both `certificate` and `key`".to_owned());
        }
        if self.tls.certificate.is_none() && self.tls != super::Tls::default() {
            return Err("`tls` needs `certificate` and `key`".to_owned());
        }
        let service = &self.token_service;
        let own = self.access.users.is_some() || self.access.htpasswd.is_some();
        if service.keys.is_some() && own {
            return Err("`token_service` and users of its own (`access`) exclude each other".to_owned());
        }
        if service.keys.is_some() && (service.realm.is_none() || service.service.is_none() || service.issuer.is_none())
        {
            return Err("`token_service` needs `realm`, `service`, `issuer` and `keys`".to_owned());
        }
        if service.keys.is_none() && *service != super::TokenService::default() {
            return Err("`token_service` needs `keys`".to_owned());
        }
        if self.limits.head.0 < 8 << 10 {
            return Err("`limits.head` must be at least 8KiB".to_owned());
        }
        if self.limits.manifest.0 > 64 << 20 {
            return Err("`limits.manifest` must be at most 64MiB".to_owned());
        }
        if self.limits.uploads == 0 || self.limits.connections == 0 {
            return Err("`limits.uploads` and `limits.connections` must be at least 1".to_owned());
        }
        for webhook in &self.webhooks {
            if let Some(event) = webhook.events.iter().find(|event| !["push", "delete"].contains(&event.as_str())) {
                return Err(format!("`webhook.events` may have \"push\" and \"delete\", not {event:?}"));
            }
            if webhook.url.is_empty() {
                return Err("`webhook` needs `url`".to_owned());
            }
        }
        for upstream in &self.upstreams {
            if upstream.url.is_empty() || upstream.prefix.is_empty() {
                return Err("`upstream` needs `url` and `prefix`".to_owned());
            }
        }
        Ok(())
    }
}

fn parse(text: &str) -> Result<Config, String> {
    let mut unknown = Vec::new();
    let document = toml::Deserializer::parse(text).map_err(|error| error.to_string())?;
    let config = serde_ignored::deserialize(document, |path| unknown.push(path.to_string()))
        .map_err(|error: toml::de::Error| error.to_string())?;
    if unknown.is_empty() {
        return Ok(config);
    }
    let lines = unknown.iter().take(MOST_UNKNOWN).map(|path| match keys::nearest(path) {
        Some(meant) => format!("`{path}` is no key of the configuration; did you mean `{meant}`?"),
        None => format!("`{path}` is no key of the configuration; `kiln registry config` prints all there are"),
    });
    Err(lines.collect::<Vec<_>>().join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Size;

    fn load(text: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("registry.toml");
        fs::write(&file, text).unwrap();
        let find = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Config::load(Some(&file), find).map_err(|error| error.to_string())
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let text = "[http]\nlisten = [\"127.0.0.1:1\"]\n[limits]\nmanifest = \"1MiB\"\n";
        let variables = [
            ("KILN_REGISTRY_HTTP_LISTEN", "127.0.0.1:2, [::1]:3"),
            ("KILN_REGISTRY_LIMITS_UPLOADS", "7"),
            ("KILN_REGISTRY_PAGE_ENABLED", "false"),
            ("KILN_REGISTRY_DATA", "/data"),
        ];
        let config = load(text, &variables).unwrap();
        assert_eq!(config.http.listen, ["127.0.0.1:2".parse().unwrap(), "[::1]:3".parse().unwrap()]);
        assert_eq!((config.limits.uploads, config.limits.manifest), (7, Size(1 << 20)));
        assert_eq!((config.page.enabled, config.data.to_str()), (false, Some("/data")));
        let wrong = load(text, &[("KILN_REGISTRY_LIMITS_UPLOADS", "many")]).unwrap_err();
        assert!(wrong.contains("KILN_REGISTRY_LIMITS_UPLOADS") && wrong.contains("many"), "{wrong}");
        let wrong = load(text, &[("KILN_REGISTRY_HTTP_DRAIN", "soon")]).unwrap_err();
        assert!(wrong.contains("KILN_REGISTRY_HTTP_DRAIN") && wrong.contains("soon"), "{wrong}");
    }

    #[test]
    fn what_cannot_be_meant_is_refused_where_it_stands() {
        let unknown = load("[http]\nlistn = []\n[[webhook]]\nurl = \"u\"\nheader = 1\n", &[]).unwrap_err();
        assert!(unknown.contains("`http.listn`") && unknown.contains("did you mean `listen`?"), "{unknown}");
        let wrong = load("\n[limits]\nmanifest = \"4 MibB\"\n", &[]).unwrap_err();
        assert!(wrong.contains("line 3") && wrong.contains("is no size"), "{wrong}");
        for (text, reason) in [
            ("[tls]\ncertificate = \"x\"", "both"),
            ("[tls]\nclient_authorities = \"x\"", "`certificate`"),
            ("[token_service]\nrealm = \"x\"", "`keys`"),
            ("[limits]\nhead = 1", "8KiB"),
            ("[[webhook]]\nurl = \"x\"\nevents = [\"pull\"]", "\"pull\""),
            ("[[upstream]]\nurl = \"x\"", "`prefix`"),
            ("data = ", "line 1"),
        ] {
            let error = load(text, &[]).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
