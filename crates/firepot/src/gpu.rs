//! Whether a GPU that is here is used, and what is said when it is not.

use std::process::{Command, Stdio};

use firepot_machine::Machine;

/// This build has a backend for GPUs.
pub const BUILT: bool = cfg!(any(feature = "cuda", feature = "vulkan"));

/// What `firepot devices` prints. It is a process of its own, since a driver may end it.
///
/// # Errors
/// When it ends early.
pub fn ask_llama() -> anyhow::Result<String> {
    let mut command = Command::new(std::env::current_exe()?);
    let output = command.arg("devices").stdin(Stdio::null()).stderr(Stdio::null()).output()?;
    anyhow::ensure!(output.status.success(), "the probe ended with {}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// How the machine's GPUs and this build go together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is none.
    None,
    /// There is one and this build can use it.
    Usable,
    /// There is one that cannot be used; why, and the way out.
    Unused {
        /// Why.
        reason: String,
        /// What to do.
        hint: &'static str,
    },
}

/// Judges a machine.
pub fn judge(machine: &Machine) -> Verdict {
    if let Some(card) = machine.gpus.unusable().first() {
        let reason = format!("{} is here and cannot be used: {}", card.name, card.reason);
        return Verdict::Unused { reason, hint: "install its driver" };
    }
    match machine.gpus.devices.first() {
        None => Verdict::None,
        Some(_) if BUILT => Verdict::Usable,
        Some(card) => Verdict::Unused {
            reason: format!("{} is here and this build has no backend for it", card.name),
            hint: "build again with `make build`, which picks the backend",
        },
    }
}
