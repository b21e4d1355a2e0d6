//! The devices that llama.cpp finds (ggml's list), from what `firepot devices` prints, and which GPU each is.

use serde::{Deserialize, Serialize};

use crate::{Gpu, Machine, Reading, limits::COMPUTE_DEVICES_MAX, pci::normal_address};

/// A device that this build of llama.cpp can compute on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComputeDevice {
    /// Name by which llama.cpp is told to use it: `CUDA0`, `CPU`.
    pub name: String,
    /// What its driver calls it: `Tesla T4`.
    pub description: String,
    /// What it is.
    pub kind: ComputeKind,
    /// What drives it: `CUDA`, `Vulkan`, `CPU`.
    pub backend: Reading<String>,
    /// Its memory, as the backend may use it.
    pub total_bytes: Reading<u64>,
    /// What is free of it.
    pub free_bytes: Reading<u64>,
    /// Its PCI address as the kernel writes it: `0000:00:04.0`.
    pub id: Reading<String>,
}

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ComputeKind {
    /// The processor.
    Cpu,
    /// A graphics card with its own memory.
    Gpu,
    /// Graphics that share the system's memory.
    IntegratedGpu,
    /// Something that helps the CPU (BLAS, AMX), or a kind that is not known here.
    Accelerator,
}

/// What `firepot devices` prints; other fields are not of interest here.
#[derive(Deserialize)]
struct Report {
    devices: Vec<Printed>,
}

#[derive(Deserialize)]
struct Printed {
    name: String,
    #[serde(default)]
    description: String,
    kind: ComputeKind,
    backend: Option<String>,
    total_bytes: u64,
    free_bytes: u64,
    id: Option<String>,
}

impl ComputeDevice {
    /// The devices in the JSON that `firepot devices` prints, in llama.cpp's order; absent when it is none.
    #[must_use]
    pub fn parse_report(json: &str) -> Reading<Vec<Self>> {
        match serde_json::from_str::<Report>(json) {
            Ok(report) if report.devices.len() > COMPUTE_DEVICES_MAX => {
                Reading::absent(format!("llama.cpp lists {} devices", report.devices.len()))
            }
            Ok(report) => Reading::Known(report.devices.into_iter().map(Self::from_printed).collect()),
            Err(error) => Reading::absent(format!("llama.cpp's list of devices cannot be read: {error}")),
        }
    }

    /// llama.cpp says 0 bytes where a backend does not tell.
    fn from_printed(printed: Printed) -> Self {
        let told = |bytes: u64| {
            if printed.total_bytes == 0 {
                Reading::absent("its backend does not tell")
            } else {
                Reading::Known(bytes)
            }
        };
        let id = printed.id.as_deref().ok_or_else(|| "llama.cpp gives no PCI address".to_owned());
        let address = |id: &str| normal_address(id).ok_or_else(|| format!("{id:?} is no PCI address"));
        Self {
            total_bytes: told(printed.total_bytes),
            free_bytes: told(printed.free_bytes),
            backend: printed.backend.ok_or_else(|| "llama.cpp does not tell".to_owned()).into(),
            id: id.and_then(address).into(),
            name: printed.name,
            description: printed.description,
            kind: printed.kind,
        }
    }

    /// Older reports have no backend; ggml's CUDA devices have always been called `CUDA0` and so on.
    pub(crate) fn is_cuda(&self) -> bool {
        self.backend.known().map_or_else(|| self.name.starts_with("CUDA"), |backend| backend == "CUDA")
    }

    /// Whether nothing speaks against this CUDA device being that GPU, where at least one says no address.
    fn may_be(&self, gpu: &Gpu) -> bool {
        let both_say = self.id.known().is_some() && gpu.pci_address.known().is_some();
        self.is_cuda() && !both_say && (self.description.is_empty() || self.description == gpu.name)
    }
}

impl Machine {
    /// For each GPU that NVML lists, llama.cpp's device: the one at the same PCI address (CUDA's before Vulkan's);
    /// where one of the two says no address, the next CUDA device that bears the GPU's name. `None` where llama.cpp cannot use the GPU, or was
    /// not asked.
    #[must_use]
    pub fn match_devices(&self) -> Vec<Option<&ComputeDevice>> {
        let devices = self.compute.known().map(Vec::as_slice).unwrap_or_default();
        let mut rest: Vec<&ComputeDevice> =
            devices.iter().filter(|device| device.kind == ComputeKind::Gpu).collect();
        rest.sort_by_key(|device| !device.is_cuda());
        let mut take = |is_it: &dyn Fn(&ComputeDevice) -> bool| {
            let at = rest.iter().position(|device| is_it(device))?;
            Some(rest.remove(at))
        };
        let mut matched: Vec<Option<&ComputeDevice>> = (self.gpus.devices.iter())
            .map(|gpu| {
                let address = gpu.pci_address.known()?;
                take(&|device| device.id.known() == Some(address))
            })
            .collect();
        for (found, gpu) in matched.iter_mut().zip(&self.gpus.devices) {
            *found = found.or_else(|| take(&|device| device.may_be(gpu)));
        }
        matched
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Gpus;

    /// As `firepot devices` prints it without a GPU.
    const ON_CPU: &str = r#"{"build":"b0 (0)","system":"CPU : SSE3 = 1 | REPACK = 1 | ","devices":[{"name":"CPU",
        "description":"Intel(R) Xeon(R) Processor @ 2.80GHz","kind":"cpu","total_bytes":25276510208,
        "free_bytes":24803139584,"backend":"CPU"}]}"#;

    fn cuda(name: &str, description: &str, id: Option<&str>) -> serde_json::Value {
        serde_json::json!({"name": name, "description": description, "kind": "gpu", "backend": "CUDA",
            "total_bytes": 15_636_365_312_u64, "free_bytes": 15_528_361_984_u64, "id": id})
    }

    fn machine(gpus: &[(&str, Option<&str>)], devices: &[serde_json::Value]) -> Machine {
        let gpu = |&(name, address): &(&str, Option<&str>)| Gpu {
            pci_address: address.map(str::to_owned).ok_or_else(|| "not told".to_owned()).into(),
            ..Gpu::of(name, (7, 5), 15 << 30, 14 << 30)
        };
        let report = serde_json::json!({"build": "b", "system": "s", "devices": devices}).to_string();
        Machine {
            gpus: Gpus::of(gpus.iter().map(gpu).collect()),
            compute: ComputeDevice::parse_report(&report),
            ..Machine::unread("not looked at")
        }
    }

    fn check(machine: &Machine, expected: &[Option<&str>]) {
        let names: Vec<Option<&str>> =
            machine.match_devices().iter().map(|device| device.map(|device| device.name.as_str())).collect();
        assert_eq!(names, expected);
    }

    #[test]
    fn a_report_of_a_cpu_is_read() {
        let devices = ComputeDevice::parse_report(ON_CPU);
        let cpu = &devices.known().unwrap()[0];
        assert_eq!((cpu.name.as_str(), cpu.kind), ("CPU", ComputeKind::Cpu));
        assert_eq!(cpu.free_bytes, Reading::Known(24_803_139_584));
        assert_eq!(cpu.id.reason(), Some("llama.cpp gives no PCI address"));
    }

    #[test]
    fn what_a_backend_does_not_tell_is_absent() {
        let json =
            r#"{"devices":[{"name":"BLAS","kind":"accelerator","total_bytes":0,"free_bytes":0,"id":"x"}]}"#;
        let devices = ComputeDevice::parse_report(json);
        let blas = &devices.known().unwrap()[0];
        assert_eq!(blas.total_bytes.reason(), Some("its backend does not tell"));
        assert_eq!(blas.free_bytes.reason(), Some("its backend does not tell"));
        assert_eq!(blas.id.reason(), Some(r#""x" is no PCI address"#));
        assert_eq!(blas.backend.reason(), Some("llama.cpp does not tell"));
    }

    #[test]
    fn what_is_no_report_is_absent_with_a_reason() {
        for json in ["", "{}", r#"{"devices":[{"name":"CPU"}]}"#, r#"{"devices":null}"#] {
            let reading = ComputeDevice::parse_report(json);
            assert!(reading.reason().unwrap().starts_with("llama.cpp's list of devices cannot be read: "));
        }
    }

    #[test]
    fn addresses_decide_where_both_say_one() {
        let gpus = [("Tesla T4", Some("0000:00:04.0")), ("Tesla T4", Some("0000:00:05.0"))];
        let swapped = [
            cuda("CUDA0", "Tesla T4", Some("0000:00:05.0")),
            cuda("CUDA1", "Tesla T4", Some("0000:00:04.0")),
        ];
        check(&machine(&gpus, &swapped), &[Some("CUDA1"), Some("CUDA0")]);
        check(&machine(&gpus, &swapped[..1]), &[None, Some("CUDA0")]);
        check(&machine(&gpus, &[cuda("CUDA0", "Tesla T4", Some("0000:00:09.0"))]), &[None, None]);
    }

    #[test]
    fn without_addresses_the_order_among_those_of_the_same_name_decides() {
        let gpus = [("Tesla T4", Some("0000:00:04.0")), ("Tesla P100", None), ("Tesla T4", None)];
        let devices = [
            serde_json::json!({"name": "CPU", "kind": "cpu", "total_bytes": 1, "free_bytes": 1}),
            cuda("CUDA0", "Tesla P100", None),
            cuda("CUDA1", "Tesla T4", None),
            cuda("CUDA2", "Tesla T4", None),
        ];
        check(&machine(&gpus, &devices), &[Some("CUDA1"), Some("CUDA0"), Some("CUDA2")]);
        check(&machine(&gpus, &devices[..2]), &[None, Some("CUDA0"), None]);
        check(&machine(&gpus, &[cuda("CUDA0", "", None)]), &[Some("CUDA0"), None, None]);
    }

    #[test]
    fn a_vulkan_device_is_taken_by_its_address_where_cuda_has_none() {
        let vulkan = |id| {
            serde_json::json!({"name": "Vulkan0", "description": "Tesla T4", "kind": "gpu",
            "backend": "Vulkan", "total_bytes": 1, "free_bytes": 1, "id": id})
        };
        let gpus = [("Tesla T4", Some("0000:00:04.0"))];
        check(&machine(&gpus, &[vulkan(Some("0000:00:04.0"))]), &[Some("Vulkan0")]);
        check(&machine(&gpus, &[vulkan(None)]), &[None]);
        let both = [vulkan(Some("0000:00:04.0")), cuda("CUDA0", "Tesla T4", Some("0000:00:04.0"))];
        check(&machine(&gpus, &both), &[Some("CUDA0")]);
    }

    #[test]
    fn where_llama_cpp_was_not_asked_nothing_matches() {
        check(&Machine { gpus: Gpus::of(vec![Gpu::unread(0, "T4", "x")]), ..Machine::unread("x") }, &[None]);
    }

    proptest! {
        #[test]
        fn no_device_is_two_gpus(
            gpus in proptest::collection::vec(("(A|B)", proptest::option::of("0000:00:0[0-3].0")), 0..5),
            devices in proptest::collection::vec(("(A|B|)", proptest::option::of("0000:00:0[0-3].0")), 0..5),
        ) {
            let gpus: Vec<_> = gpus.iter().map(|(name, at)| (name.as_str(), at.as_deref())).collect();
            let devices: Vec<_> = (devices.iter().enumerate())
                .map(|(index, (name, at))| cuda(&format!("CUDA{index}"), name, at.as_deref()))
                .collect();
            let machine = machine(&gpus, &devices);
            let matched: Vec<_> = machine.match_devices().into_iter().flatten().map(|found| &found.name).collect();
            let distinct: std::collections::HashSet<_> = matched.iter().collect();
            prop_assert_eq!(distinct.len(), matched.len());
            prop_assert!(matched.len() <= gpus.len().min(devices.len()));
        }
    }
}
