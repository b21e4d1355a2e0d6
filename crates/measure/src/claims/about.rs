//! Which machines and models claims are about.

use serde::Deserialize;

use crate::bundle::{MachineRecord, Model};

/// Which machines; what is not said does not matter.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineIs {
    /// Part of the processor's name.
    pub cpu: Option<String>,
    /// Logical cores.
    pub cores: Option<u32>,
    /// Part of each GPU's name.
    pub gpu: Option<String>,
    /// Number of GPUs.
    pub gpus: Option<usize>,
    /// The platform.
    pub platform: Option<String>,
}

/// Which models; what is not said does not matter.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelIs {
    /// Part of the name, in small letters.
    pub name: Option<String>,
    /// Fewest parameters.
    pub parameters_min: Option<u64>,
    /// Most parameters.
    pub parameters_max: Option<u64>,
    /// Beginning of the quantization's name, e.g. `Q4`.
    pub quantization: Option<String>,
}

impl MachineIs {
    /// Why something is another one; `None` when it is not.
    pub(super) fn mismatch(&self, machine: &MachineRecord) -> Option<String> {
        let told = |text: Option<&String>| text.cloned().unwrap_or_else(|| "unknown".to_owned());
        let has = |wanted: &Option<String>, there: Option<&String>| {
            wanted.as_ref().is_none_or(|wanted| there.is_some_and(|there| there.contains(wanted.as_str())))
        };
        let gpus = machine.gpus.known().map_or(&[][..], Vec::as_slice);
        if !has(&self.cpu, machine.cpu.known()) {
            return Some(format!("the trial ran on another processor: {}", told(machine.cpu.known())));
        }
        if self.cores.is_some_and(|cores| machine.cores.known() != Some(&cores)) {
            return Some("the trial ran on another number of cores".to_owned());
        }
        let alike = self.gpu.as_ref().is_none_or(|wanted| {
            !gpus.is_empty() && gpus.iter().all(|gpu| gpu.name.contains(wanted.as_str()))
        });
        if !alike || self.gpus.is_some_and(|count| count != gpus.len()) {
            let names: Vec<&str> = gpus.iter().map(|gpu| gpu.name.as_str()).collect();
            let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            return Some(format!("the trial ran on other GPUs: {names}"));
        }
        if !has(&self.platform, machine.platform.known()) {
            return Some(format!("the trial ran on another platform: {}", told(machine.platform.known())));
        }
        None
    }
}

impl ModelIs {
    /// Why something is another one; `None` when it is not.
    pub(super) fn mismatch(&self, model: Option<&Model>) -> Option<String> {
        let Some(model) = model else { return Some("the trial does not say of which model".to_owned()) };
        let named = self.name.as_ref().is_none_or(|name| model.name.to_lowercase().contains(name.as_str()));
        let quantized = self.quantization.as_ref().is_none_or(|wanted| {
            model.quantization.known().is_some_and(|there| there.starts_with(wanted.as_str()))
        });
        let parameters = model.parameters.known();
        let large = self.parameters_min.is_none_or(|least| parameters.is_some_and(|&count| count >= least));
        let small = self.parameters_max.is_none_or(|most| parameters.is_some_and(|&count| count <= most));
        let fits = named && quantized && large && small;
        (!fits).then(|| format!("the trial was of another model: {}", model.name))
    }
}
