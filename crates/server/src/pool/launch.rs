//! Starting a runner: a child process that has one end of a socket pair as its standard input.

use std::{
    fmt, fs, io,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::Stdio,
};

use firepot_store::ModelName;
use tokio::process::{Child, Command};

use crate::{limits, settings::RunnerCommand};

/// Starts runners.
pub trait Launcher: fmt::Debug + Send + Sync + 'static {
    /// Starts a runner for a model.
    ///
    /// # Errors
    /// When it cannot be started.
    fn launch(&self, model: &ModelName) -> io::Result<Launched>;
}

/// A runner that was started.
#[derive(Debug)]
pub struct Launched {
    /// Our end of the link.
    pub link: UnixStream,
    /// Its process; `None` when it is a thread of this one, in tests.
    pub process: Option<Child>,
}

/// Starts the runner's program.
#[derive(Clone, Debug)]
pub struct ProcessLauncher {
    command: RunnerCommand,
    log_dir: PathBuf,
}

impl ProcessLauncher {
    /// A launcher of `command`, whose standard error goes to files in `log_dir`.
    #[must_use]
    pub const fn new(command: RunnerCommand, log_dir: PathBuf) -> Self {
        Self { command, log_dir }
    }
}

impl Launcher for ProcessLauncher {
    fn launch(&self, model: &ModelName) -> io::Result<Launched> {
        let (ours, theirs) = UnixStream::pair()?;
        let process = Command::new(&self.command.program)
            .args(&self.command.args)
            .envs(self.command.libc_tunables.iter().map(|tunables| ("GLIBC_TUNABLES", tunables)))
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(open_log(&self.log_dir, model)?)
            // Ctrl-C in a terminal is for the server, which lets answers end first.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        Ok(Launched { link: ours, process: Some(process) })
    }
}

/// Opens the log file of a model's runners for appending; one that has grown too long is set aside first.
fn open_log(dir: &Path, model: &ModelName) -> io::Result<fs::File> {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let name: String = model.to_string().chars().map(safe).collect();
    let path = dir.join(format!("runner-{name}.log"));
    if fs::metadata(&path).is_ok_and(|metadata| metadata.len() >= limits::MAX_LOG_BYTES) {
        fs::rename(&path, path.with_extension("log.1"))?;
    }
    fs::File::options().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_log_file_is_continued_until_it_is_too_long_and_then_set_aside() {
        let dir = tempfile::tempdir().unwrap();
        let model: ModelName = "hf.co/a/b:c".parse().unwrap();
        let path = dir.path().join("runner-hf.co_a_b_c.log");
        for _ in 0..2 {
            open_log(dir.path(), &model).unwrap().write_all(b"line\n").unwrap();
        }
        assert_eq!(fs::read(&path).unwrap(), b"line\nline\n");
        open_log(dir.path(), &model).unwrap().set_len(limits::MAX_LOG_BYTES).unwrap();
        open_log(dir.path(), &model).unwrap().write_all(b"new\n").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new\n");
        assert_eq!(fs::metadata(path.with_extension("log.1")).unwrap().len(), limits::MAX_LOG_BYTES);
    }

    #[tokio::test]
    async fn the_child_has_the_link_on_its_standard_input_and_its_end_is_end_of_file() {
        use tokio::io::AsyncReadExt as _;
        let dir = tempfile::tempdir().unwrap();
        // `cat` copies the link back into it.
        let args = ["-c".into(), "echo started >&2; exec cat >&0".into()].to_vec();
        let command = RunnerCommand { program: "/bin/sh".into(), args, libc_tunables: None };
        let launcher = ProcessLauncher::new(command, dir.path().to_owned());
        let mut started = launcher.launch(&"m".parse().unwrap()).unwrap();
        started.link.write_all(b"hello").unwrap();
        started.link.set_nonblocking(true).unwrap();
        let mut link = tokio::net::UnixStream::from_std(started.link).unwrap();
        let mut echoed = [0; 5];
        link.read_exact(&mut echoed).await.unwrap();
        assert_eq!(&echoed, b"hello");
        let mut process = started.process.unwrap();
        process.start_kill().unwrap();
        assert_eq!(link.read(&mut echoed).await.unwrap_or(0), 0);
        process.wait().await.unwrap();
        assert_eq!(fs::read(dir.path().join("runner-m_latest.log")).unwrap(), b"started\n");
    }
}
