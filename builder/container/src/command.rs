//! What a container runs: the image's config and the command line together, by docker's rules.

use kiln_image::config::RunConfig;

use crate::{Error, Result};

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// ENTRYPOINT and CMD, each replaced by what was given. An entry point that was given resets the image's CMD.
pub(crate) fn arguments(config: &RunConfig, entrypoint: Option<&[String]>, args: &[String]) -> Result<Vec<String>> {
    let given = |words: &Option<Vec<String>>| words.clone().unwrap_or_default();
    let (mut words, default) = match entrypoint {
        Some(entrypoint) => (entrypoint.to_vec(), Vec::new()),
        None => (given(&config.entrypoint), given(&config.cmd)),
    };
    words.extend(if args.is_empty() { default } else { args.to_vec() });
    if words.is_empty() {
        return Err(Error::Invalid("no command: the image has none, and none was given".to_owned()));
    }
    Ok(words)
}

/// PATH, HOSTNAME, TERM, HOME, then the image's environment, then what was given; a later one wins.
pub(crate) fn environment(config: &RunConfig, hostname: &str, home: &str, tty: bool, given: &[String]) -> Vec<String> {
    let mut all: Vec<String> = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={hostname}")];
    if tty {
        all.push("TERM=xterm".to_owned());
    }
    all.push(format!("HOME={home}"));
    all.extend(config.env.iter().flatten().cloned());
    all.extend(given.iter().cloned());
    let name = |line: &str| line.split_once('=').map_or(line.to_owned(), |(name, _)| name.to_owned());
    let mut merged: Vec<String> = Vec::with_capacity(all.len());
    for line in all {
        let key = name(&line);
        match merged.iter_mut().find(|known| name(known) == key) {
            Some(known) => *known = line,
            None => merged.push(line),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn entrypoint_and_cmd() {
        let config = |entrypoint: &str, cmd: &str| RunConfig {
            entrypoint: Some(words(entrypoint)),
            cmd: Some(words(cmd)),
            ..RunConfig::default()
        };
        let table = [
            ("", "a b", None, "", "a b"),
            ("e", "a b", None, "", "e a b"),
            ("e", "a b", None, "x", "e x"),
            ("e", "a b", Some("n"), "", "n"),
            ("e", "a b", Some("n"), "x", "n x"),
            ("e", "a b", Some(""), "x", "x"),
        ];
        for (entrypoint, cmd, new, args, expected) in table {
            let new = new.map(words);
            let found = arguments(&config(entrypoint, cmd), new.as_deref(), &words(args)).unwrap();
            assert_eq!(found, words(expected));
        }
        assert!(arguments(&RunConfig::default(), None, &[]).is_err());
    }

    #[test]
    fn later_variables_win() {
        let config = RunConfig { env: Some(vec!["PATH=/bin".into(), "A=1".into()]), ..RunConfig::default() };
        let env = environment(&config, "h", "/root", false, &["A=2".into(), "B=3".into()]);
        assert_eq!(env, ["PATH=/bin", "HOSTNAME=h", "HOME=/root", "A=2", "B=3"]);
    }
}
