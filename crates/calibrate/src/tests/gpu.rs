//! A simulated machine with GPUs.

use firepot_machine::{Gpu, Gpus};
use firepot_plan::{GpuUse, Plan};

use super::*;

const T4: &str = "Tesla T4";
const L4: &str = "NVIDIA L4";

/// What a GPU does so many times as fast as main memory.
fn on_gpu(times: f64) -> DeviceRates {
    let mut rates = on_cpu();
    for kind in &mut rates.kinds {
        kind.plain.decode_bytes *= times;
        kind.plain.prefill_macs *= times * 3.0;
        kind.repacked = kind.plain;
    }
    let attention = Attention { decode_s: 0.0, score_s: 0.02e-9, mac_s: 0.1e-12 };
    DeviceRates { element_s: 0.0, layer_s: 60e-6, plain: attention, flash: attention, ..rates }
}

fn stamp() -> Stamp {
    Stamp { gpus: [T4, L4, T4].map(str::to_owned).to_vec(), ..truth().stamp }
}

fn gpus(names: &[(&str, &str)]) -> Vec<crate::Gpu> {
    let gpu =
        |&(name, device): &(&str, &str)| crate::Gpu { name: name.to_owned(), device: device.to_owned() };
    names.iter().map(gpu).collect()
}

/// Loads what it is asked for on the device that it is asked for.
fn load(spec: &LoadSpec) -> Result<Box<dyn Decoder>, String> {
    let device = spec.devices.first().map(String::as_str);
    assert_eq!(spec.gpu_layers, if device.is_some() { -1 } else { 0 });
    assert!(device.is_none() || (spec.flash_attention && !spec.repack));
    let truth = match device {
        None => on_cpu(),
        Some("CUDA0") => on_gpu(10.0),
        Some("CUDA1") => on_gpu(20.0),
        Some(other) => return Err(format!("{other} is not there")),
    };
    Ok(Box::new(Simulated::load(&truth, spec)))
}

fn measured(asked: &Asked, known: Option<Calibration>) -> Calibration {
    let dir = tempfile::tempdir().unwrap();
    measure(stamp(), asked, known, dir.path(), &mut load).unwrap()
}

fn planned(layout: &Layout, machine: &Machine) -> Plan {
    plan(layout, machine, &Want { gpu: GpuUse::Auto, ..Want::default() }).unwrap()
}

#[test]
fn each_kind_of_gpu_is_measured_by_itself_and_main_memory_only_when_it_is_asked_for() {
    let both = gpus(&[(T4, "CUDA0"), (L4, "CUDA1")]);
    let asked = Asked { cpu: false, gpus: both, ..asked(&[8], &[]) };
    let found = measured(&asked, None);
    assert_eq!(found.cpu, None);
    for (name, truth) in [(T4, on_gpu(10.0)), (L4, on_gpu(20.0))] {
        let found = &found.gpus[name];
        let (rates, truth_of) = (found.kind("Q8_0").unwrap(), truth.kind("Q8_0").unwrap().plain);
        assert!(near(rates.plain.decode_bytes, truth_of.decode_bytes, 5.0), "{name} {rates:?}");
        assert!(near(rates.plain.prefill_macs, truth_of.prefill_macs, 5.0), "{name} {rates:?}");
        assert_eq!(rates.plain, rates.repacked);
        assert!(near(found.layer_s, truth.layer_s, 10.0), "{name} {}", found.layer_s);
        assert!(found.bandwidth >= found.kind("Q8_0").unwrap().plain.decode_bytes);
    }
    // Main memory is measured beside what is known of GPUs.
    let cpu = Asked { cpu: true, gpus: Vec::new(), ..asked };
    let more = measured(&cpu, Some(found.clone()));
    assert!(more.cpu.is_some() && more.gpus == found.gpus);
}

#[test]
fn a_model_wholly_on_gpus_of_one_kind_is_predicted_by_their_rates() {
    let layout = layout(Sizes::wide(4));
    let card = |name: &str| Gpu::of(name, (7, 5), 15 << 30, 14 << 30);
    let here =
        |names: &[&str]| Machine { gpus: Gpus::of(names.iter().copied().map(card).collect()), ..machine() };
    let mut known = Calibration { stamp: stamp(), ..truth() };
    known.gpus.insert(T4.to_owned(), on_gpu(10.0));
    let work = Work::of(&layout);
    let odd = Correction { decode: 0.1, prefill: 0.1, answers: 3 };
    let predict = |plan: &Plan, correction| known.predict(&work, plan, 512, correction);

    let on_t4 = planned(&layout, &here(&[T4]));
    assert_eq!((on_t4.gpu_layers, &on_t4.gpus[..]), (-1, &[0][..]));
    let speeds = predict(&on_t4, Correction::default()).unwrap();
    let in_memory = Plan { gpu_layers: 0, gpus: Vec::new(), flash_attention: false, ..on_t4.clone() };
    let slower = predict(&in_memory, Correction::default()).unwrap();
    assert!(speeds.decode.predicted > 5.0 * slower.decode.predicted, "{speeds:?} {slower:?}");
    assert!(speeds.ttft.predicted < slower.ttft.predicted / 5.0, "{speeds:?} {slower:?}");
    // Answers from main memory say nothing about it.
    assert_eq!(predict(&on_t4, odd).unwrap(), speeds);

    let on = |gpus: &[usize], gpu_layers, host_experts| Plan {
        gpus: gpus.to_vec(),
        gpu_layers,
        host_experts,
        ..on_t4.clone()
    };
    assert!(predict(&on(&[0, 2], -1, 0), odd).is_ok());
    for (plan, why) in [
        (on(&[1], -1, 0), "NVIDIA L4 was not measured yet: firepot calibrate"),
        (on(&[7], -1, 0), "GPU 7 is not calibrated"),
        (on(&[0, 1], -1, 0), "GPU 1 is of another kind than GPU 0"),
        (on(&[0], 3, 0), "a model that a GPU and main memory share is not calibrated"),
        (on(&[0], -1, 2), "a model that a GPU and main memory share is not calibrated"),
    ] {
        assert_eq!(predict(&plan, odd).unwrap_err(), why);
    }
}
