//! kiln in an environment of its own: home, store, account.

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    account::Account,
    binary::kiln_binary,
    command::{Outcome, run, run_with_input},
    fixtures::{busybox_tar, debian_tar},
    image_archive::{ArchivedImage, read_archive},
    layer::Filesystem,
};

/// The configuration that both base images get, in docker and in kiln.
pub(crate) const BASE_PATH: &str = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A kiln with an empty home and an empty store, removed when it is dropped.
pub struct Kiln {
    account: Account,
    binary: PathBuf,
    home: TempDir,
    environment: Vec<(String, String)>,
}

/// A build context (or any directory of files) that the account of a [`Kiln`] owns.
pub struct Context {
    directory: TempDir,
    account: Account,
}

/// A container that runs in the background; killed when it is dropped.
pub struct Run {
    child: std::process::Child,
}

impl Default for Kiln {
    fn default() -> Self {
        Self::new()
    }
}

impl Kiln {
    /// For whoever runs the tests.
    pub fn new() -> Self {
        Self::of(Account::current())
    }

    /// For this account.
    pub fn of(account: Account) -> Self {
        let home = directory("kiln-home-", &account);
        let runtime = home.path().join("runtime");
        fs::create_dir(&runtime).expect("a directory can be made");
        fs::set_permissions(&runtime, fs::Permissions::from_mode(0o700)).expect("its mode can be set");
        account.take(&runtime);
        let mut binary = kiln_binary();
        if !account.is_current() {
            // A copy that the account can reach, whatever the permissions of the checkout are.
            let copy = runtime.join("kiln");
            fs::copy(&binary, &copy).expect("the binary can be copied");
            account.take(&copy);
            binary = copy;
        }
        Self { account, binary, home, environment: Vec::new() }
    }

    /// With `busybox:latest` in its store.
    pub fn with_busybox() -> Self {
        Self::new().import_busybox()
    }

    /// Imports `busybox:latest`.
    pub fn import_busybox(self) -> Self {
        self.import(&busybox_tar(), r#"CMD ["sh"]"#, "busybox:latest")
    }

    /// Imports `debian:12`.
    pub fn import_debian(self) -> Self {
        self.import(&debian_tar(), r#"CMD ["bash"]"#, "debian:12")
    }

    fn import(self, tar: &Path, command: &str, name: &str) -> Self {
        // Through standard input: an ordinary user may not be able to read root's cache.
        let bytes = fs::read(tar).expect("the base tar is readable");
        let import = self.command(["import", "--change", command, "--change", BASE_PATH, "-", name]);
        run_with_input(import, &bytes).success();
        self
    }

    /// Sets a variable for every command from now on.
    pub fn with_env(mut self, key: &str, value: &str) -> Self {
        self.environment.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Its store.
    pub fn root(&self) -> PathBuf {
        self.home.path().join("store")
    }

    /// Its home directory.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Its account.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// A kiln command line, ready to run.
    pub fn command<I, S>(&self, arguments: I) -> Command
    where
        I: IntoIterator<Item = S>,
        S: AsRef<str>,
    {
        let mut command = Command::new(&self.binary);
        command.args(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        command
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.home.path())
            .env("XDG_RUNTIME_DIR", self.home.path().join("runtime"))
            .env("KILN_ROOT", self.root())
            .env("LANG", "C.UTF-8")
            .envs(self.environment.iter().map(|(key, value)| (key, value)))
            .current_dir(self.home.path());
        if !self.account.is_current() {
            command.uid(self.account.uid).gid(self.account.gid);
        }
        command
    }

    /// Runs it, whatever comes of it.
    #[track_caller]
    pub fn try_run<I, S>(&self, arguments: I) -> Outcome
    where
        I: IntoIterator<Item = S>,
        S: AsRef<str>,
    {
        run(self.command(arguments)).no_panic()
    }

    /// Runs it; it must succeed.
    #[track_caller]
    pub fn run<I, S>(&self, arguments: I) -> Outcome
    where
        I: IntoIterator<Item = S>,
        S: AsRef<str>,
    {
        self.try_run(arguments).success()
    }

    /// An empty directory of its account.
    pub fn directory(&self) -> Context {
        Context { directory: directory("kiln-context-", &self.account), account: self.account.clone() }
    }

    /// A directory with these files: path and text.
    pub fn context(&self, files: &[(&str, &str)]) -> Context {
        let context = self.directory();
        for (path, text) in files {
            context.write(path, text);
        }
        context
    }

    /// Builds a context under a name, with plain progress, whatever comes of it.
    #[track_caller]
    pub fn try_build(&self, context: &Context, name: &str, options: &[&str]) -> Outcome {
        let mut arguments = vec!["build", "--progress=plain", "-t", name];
        arguments.extend(options);
        let path = context.path().to_str().expect("a temporary path is text").to_owned();
        arguments.push(&path);
        self.try_run(arguments)
    }

    /// Builds a context under a name.
    #[track_caller]
    pub fn build(&self, context: &Context, name: &str, options: &[&str]) -> Outcome {
        self.try_build(context, name, options).success()
    }

    /// Builds a Dockerfile that needs no other file.
    #[track_caller]
    pub fn build_text(&self, dockerfile: &str, name: &str) -> Outcome {
        self.build(&self.context(&[("Dockerfile", dockerfile)]), name, &[])
    }

    /// Runs a command in a container of the image, on the host's network, and gives what it wrote.
    #[track_caller]
    pub fn output(&self, image: &str, arguments: &[&str]) -> String {
        let mut line = vec!["run", "--rm", "--network=host", image];
        line.extend(arguments);
        self.run(line).stdout
    }

    /// `inspect` of one image.
    #[track_caller]
    pub fn inspect(&self, image: &str) -> Value {
        let outcome = self.run(["inspect", image]);
        let mut images: Vec<Value> =
            serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}:\n{outcome}"));
        assert_eq!(images.len(), 1, "{outcome}");
        images.remove(0)
    }

    /// The image's id.
    #[track_caller]
    pub fn image_id(&self, image: &str) -> String {
        self.inspect(image)["Id"].as_str().expect("an image has an id").to_owned()
    }

    /// What `save` writes, taken apart.
    #[track_caller]
    pub fn saved(&self, image: &str) -> ArchivedImage {
        let archive = self.run(["save", image]).bytes;
        let mut images = read_archive(&archive).unwrap_or_else(|error| panic!("what save wrote of {image}: {error}"));
        assert_eq!(images.len(), 1, "{image} is one image");
        images.remove(0)
    }

    /// The flattened file system of an image.
    #[track_caller]
    pub fn filesystem(&self, image: &str) -> Filesystem {
        self.saved(image).filesystem().unwrap_or_else(|error| panic!("the layers of {image}: {error}"))
    }

    /// The paths that the image has and its base has not.
    #[track_caller]
    pub fn added(&self, image: &str, base: &str) -> Vec<String> {
        let (root, below) = (self.filesystem(image), self.filesystem(base));
        root.paths().filter(|path| below.get(path).is_none()).map(str::to_owned).collect()
    }

    /// Starts a container of the image in the background, on the host's network.
    pub fn start(&self, image: &str, options: &[&str]) -> Run {
        let mut line = vec!["run", "--rm", "--network=host"];
        line.extend(options);
        line.push(image);
        let log = fs::File::create(self.home.path().join("container.log")).expect("a log file");
        let mut command = self.command(line);
        command.stdin(std::process::Stdio::null()).stderr(log.try_clone().expect("a file can be shared")).stdout(log);
        Run { child: command.spawn().expect("kiln starts") }
    }
}

impl Drop for Kiln {
    /// No container outlives its store.
    fn drop(&mut self) {
        let containers = fs::read_dir(self.root().join("containers")).into_iter().flatten().flatten();
        let ids = containers.filter_map(|entry| entry.file_name().into_string().ok()).filter(|id| id.len() == 64);
        let line: Vec<String> = ["rm".to_owned(), "-f".to_owned()].into_iter().chain(ids).collect();
        if line.len() > 2 {
            let mut command = self.command(&line);
            let _ = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).status();
        }
    }
}

impl Run {
    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The process.
    pub fn child(&mut self) -> &mut std::process::Child {
        &mut self.child
    }

    /// Ends it as a terminal would.
    pub fn stop(mut self) {
        crate::service::stop(&mut self.child);
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        crate::service::stop(&mut self.child);
    }
}

impl Context {
    /// Its path.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Writes a file and the directories above it.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let file = self.path().join(path);
        let mut parent = self.path().to_owned();
        for part in Path::new(path).parent().into_iter().flat_map(Path::components) {
            parent.push(part);
            if !parent.exists() {
                fs::create_dir(&parent).expect("a directory can be made");
                self.account.take(&parent);
            }
        }
        fs::write(&file, content).expect("a file can be written");
        self.account.take(&file);
        file
    }

    /// Runs a shell script inside, as whoever runs the tests.
    #[track_caller]
    pub fn shell(&self, script: &str) {
        let mut command = crate::command::command("sh", ["-euc", script]);
        command.current_dir(self.path());
        run(command).success();
    }
}

/// A temporary directory that every account may enter and that the account owns.
fn directory(prefix: &str, account: &Account) -> TempDir {
    let directory = tempfile::Builder::new()
        .prefix(prefix)
        .permissions(fs::Permissions::from_mode(0o755))
        .tempdir()
        .expect("a temporary directory can be made");
    account.take(directory.path());
    directory
}
