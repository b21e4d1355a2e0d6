//! A program that ends with the process that started it, however that one ended.

use std::{
    ffi::OsString,
    io,
    process::{Command, Stdio},
    sync::mpsc::{RecvTimeoutError, channel},
    thread,
    time::Duration,
};

/// Exit code when the program is not there, as a shell's.
pub const NOT_FOUND: u8 = 127;

/// Exit code of a program that a signal ended, or that was ended here.
const ENDED: u8 = 1;

/// How often is looked whether the program still runs.
const LOOK: Duration = Duration::from_millis(200);

/// Runs a program until it ends, or standard input does: then whoever started this is gone, and the program is killed. It has
/// our outputs and no input. Gives an exit code, the program's where it has one.
///
/// # Errors
/// When the program cannot be started, for another reason than that it is not there.
pub fn tether(words: &[OsString]) -> io::Result<u8> {
    let Some((program, args)) = words.split_first() else { return Ok(NOT_FOUND) };
    let mut child = match Command::new(program).args(args).stdin(Stdio::null()).spawn() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(NOT_FOUND),
        child => child?,
    };
    let (input_ended, ended) = channel();
    thread::spawn(move || {
        let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
        let _ = input_ended.send(());
    });
    loop {
        if ended.recv_timeout(LOOK) != Err(RecvTimeoutError::Timeout) {
            child.kill()?;
            child.wait()?;
            return Ok(ENDED);
        }
        if let Some(status) = child.try_wait()? {
            return Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(ENDED));
        }
    }
}
