//! How long one step of `true` takes, from spawn to wait: `step <root file system> [count]`, as root or as a user.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use kiln_sandbox::process::Stdio;
use kiln_sandbox::spec::{Network, Root, Security};
use kiln_sandbox::{Sandbox, Spec, user_namespace};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    kiln_sandbox::init();
    let identity = user_namespace::enter()?;
    let mut arguments = std::env::args().skip(1);
    let lower = PathBuf::from(arguments.next().ok_or("usage: step <root file system> [count]")?);
    let count: usize = arguments.next().map_or(Ok(200), |count| count.parse())?;
    let place = std::env::temp_dir().join(format!("kiln-step-{}", std::process::id()));
    let mut times = Vec::new();
    for number in 0..count {
        let spec = spec(&lower, &place.join(number.to_string()))?;
        let start = Instant::now();
        let mut sandbox = Sandbox::spawn(&spec, Stdio::Null, Stdio::Null, Stdio::Inherit)?;
        let exit = sandbox.wait()?;
        times.push(start.elapsed());
        if exit != kiln_sandbox::Exit::Code(0) {
            return Err(format!("{exit:?}").into());
        }
    }
    std::fs::remove_dir_all(&place)?;
    times.sort();
    let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or_default();
    let line = format!("{identity:?}: {count} steps, median {:?}, 90% {:?}, least {:?}", at(50), at(90), at(0));
    std::io::Write::write_all(&mut std::io::stdout(), (line + "\n").as_bytes())?;
    Ok(())
}

fn spec(lower: &Path, place: &Path) -> std::io::Result<Spec> {
    let directory = |name: &str| {
        let path = place.join(name);
        std::fs::create_dir_all(&path).map(|()| path)
    };
    Ok(Spec {
        root: Root {
            lower: vec![lower.to_owned()],
            upper: directory("upper")?,
            work: directory("work")?,
            stubs: directory("stubs")?,
            readonly: false,
            volatile: true,
        },
        mounts: Vec::new(),
        args: vec!["true".to_owned()],
        env: vec!["PATH=/bin".to_owned()],
        cwd: PathBuf::from("/"),
        uid: 0,
        gid: 0,
        groups: Vec::new(),
        hostname: "step".to_owned(),
        network: Network::Host,
        resolv_conf: Some("nameserver 127.0.0.1\n".to_owned()),
        hosts: Some("127.0.0.1 localhost\n".to_owned()),
        shm_size: None,
        security: Security::default(),
        rlimits: BTreeMap::new(),
        terminal: false,
        terminal_size: None,
        init: false,
        program: None,
        devices: Vec::new(),
        cgroups: Vec::new(),
        kernel: kiln_sandbox::spec::Kernel::default(),
    })
}
