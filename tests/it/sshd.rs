//! OpenSSH's server on loopback, as a user without rights: the other end of a tunnel.

use std::{
    fs::{self, File, Permissions},
    io::Write as _,
    os::unix::fs::{PermissionsExt as _, chown},
    path::PathBuf,
    process::Command,
};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::{
    hub::{Process, free_port, tool},
    stack::{children, send},
};

/// The user of this number has no rights anywhere.
const NOBODY: u32 = 65_534;

/// A server that knows one user's key, and what that user's ssh needs.
pub struct Sshd {
    pub port: u16,
    dir: TempDir,
    process: Option<Process>,
}

impl Sshd {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
        let mut sshd = Self { port: free_port(), dir, process: None };
        sshd.make_key("user");
        sshd.make_host_key();
        sshd.trust("host");
        let at = |name: &str| sshd.path(name).display().to_string();
        sshd.write("authorized", &fs::read_to_string(sshd.path("user.pub")).unwrap());
        sshd.write(
            "sshd_config",
            &format!(
                "Port {}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM yes\n\
                 PasswordAuthentication no\nPidFile none\nAllowTcpForwarding remote\n",
                sshd.port,
                at("host"),
                at("authorized")
            ),
        );
        sshd.write(
            "ssh_config",
            &format!(
                "UserKnownHostsFile {}\nGlobalKnownHostsFile /dev/null\nIdentityFile {}\nIdentitiesOnly yes\n",
                at("known"),
                at("user")
            ),
        );
        sshd.bring_program();
        sshd.run();
        sshd
    }

    /// Copies the program and its library to where the user without rights may read them, which a build folder may not be.
    fn bring_program(&self) {
        let program = tool("sshd");
        fs::copy(&program, self.path("sshd")).unwrap();
        let libraries = program.ancestors().nth(2).unwrap().join("lib/x86_64-linux-gnu");
        // The one that `scripts/setup.sh` may have brought with it.
        let library = libraries.join("libwrap.so.0");
        if library.exists() {
            fs::copy(library, self.path("libwrap.so.0")).unwrap();
        }
    }

    /// `--public` for it.
    pub fn via(&self) -> String {
        let user = Command::new("id").arg("-un").output().unwrap();
        let user = String::from_utf8(user.stdout).unwrap();
        let user = if is_root() { "nobody" } else { user.trim() };
        format!("ssh:{user}@127.0.0.1:{}", self.port)
    }

    /// `--ssh-config` for it.
    pub fn config(&self) -> String {
        self.path("ssh_config").display().to_string()
    }

    /// Ends it, with what it holds open.
    pub fn end(&mut self) {
        let Some(mut process) = self.process.take() else { return };
        // A session goes on without the server that accepted it.
        let mut sessions = children(process.pid());
        sessions.extend(sessions.clone().into_iter().flat_map(children));
        process.end();
        for session in sessions {
            send(session, Signal::KILL);
        }
    }

    /// Starts it again.
    pub fn run(&mut self) {
        let program = self.path("sshd");
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        command
            .env("LD_LIBRARY_PATH", self.dir.path())
            .args(["-D", "-e", "-f"])
            .arg(self.path("sshd_config"));
        self.process = Some(Process::start(&mut command, self.port));
    }

    /// Makes it another server, whose key nobody knows.
    pub fn make_host_key(&self) {
        let _ = fs::remove_file(self.path("host"));
        self.make_key("host");
        if is_root() {
            chown(self.path("host"), Some(NOBODY), Some(NOBODY)).unwrap();
        }
    }

    /// Makes the key of this name the one that the user's ssh knows of the server.
    pub fn trust(&self, name: &str) {
        let key = fs::read_to_string(self.path(&format!("{name}.pub"))).unwrap();
        self.write("known", &format!("[127.0.0.1]:{} {key}", self.port));
    }

    /// Makes a pair of keys.
    pub fn make_key(&self, name: &str) {
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-f"])
            .arg(self.path(name))
            .status()
            .expect("ssh-keygen is missing; run: scripts/setup.sh test");
        assert!(made.success());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, content: &str) {
        File::create(self.path(name)).unwrap().write_all(content.as_bytes()).unwrap();
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.end();
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
