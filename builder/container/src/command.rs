//! What a container runs: the image's config and the command line together, by docker's rules.

use kiln_image::config::RunConfig;

use crate::{Error, Result};

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// ENTRYPOINT and CMD, each replaced by what was given. An entry point that was given resets the image's CMD.
pub(crate) fn arguments(
    config: &RunConfig,
    entrypoint: Option<&[String]>,
    args: &[String],
) -> Result<(Vec<String>, Vec<String>)> {
    let given = |words: &Option<Vec<String>>| words.clone().unwrap_or_default();
    let (entrypoint, default) = match entrypoint {
        Some(entrypoint) => (entrypoint.to_vec(), Vec::new()),
        None => (given(&config.entrypoint), given(&config.cmd)),
    };
    let cmd = if args.is_empty() { default } else { args.to_vec() };
    if entrypoint.is_empty() && cmd.is_empty() {
        return Err(Error::Invalid("no command: the image has none, and none was given".to_owned()));
    }
    Ok((entrypoint, cmd))
}

/// PATH, HOSTNAME, TERM, HOME, then the container's own environment, which wins.
pub(crate) fn environment(hostname: &str, home: &str, tty: bool, own: &[String]) -> Vec<String> {
    let mut all: Vec<String> = vec![DEFAULT_PATH.to_owned(), format!("HOSTNAME={hostname}")];
    if tty {
        all.push("TERM=xterm".to_owned());
    }
    all.push(format!("HOME={home}"));
    merge(&mut all, own);
    all
}

/// Adds variables; one that is there gets the new value where it is. A name without `=` takes it away.
pub(crate) fn merge(env: &mut Vec<String>, given: &[String]) {
    let name = |line: &str| line.split_once('=').map_or(line.to_owned(), |(name, _)| name.to_owned());
    for line in given {
        let key = name(line);
        match env.iter().position(|known| name(known) == key) {
            Some(at) if line.contains('=') => env[at].clone_from(line),
            Some(at) => drop(env.remove(at)),
            None if line.contains('=') => env.push(line.clone()),
            None => {}
        }
    }
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
            let (mut found, rest) = arguments(&config(entrypoint, cmd), new.as_deref(), &words(args)).unwrap();
            found.extend(rest);
            assert_eq!(found, words(expected));
        }
        assert!(arguments(&RunConfig::default(), None, &[]).is_err());
    }

    #[test]
    fn later_variables_win() {
        let mut own = vec!["PATH=/bin".to_owned(), "A=1".to_owned()];
        merge(&mut own, &["A=2".into(), "B=3".into(), "C".into()]);
        let env = environment("h", "/root", false, &own);
        assert_eq!(env, ["PATH=/bin", "HOSTNAME=h", "HOME=/root", "A=2", "B=3"]);
    }
}
