//! A runner with the fake decoder, for tests of the server.

use std::process::ExitCode;

use firepot_runner::{AtEnd, FakeLoader, serve, stdin_link};

fn main() -> ExitCode {
    let served =
        stdin_link().map_err(Into::into).and_then(|link| serve(link, &mut FakeLoader, AtEnd::ExitProcess));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
