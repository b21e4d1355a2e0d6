//! The probe: what is measured, in which order, and for how long.

use std::{
    io,
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use firepot_engine::DecodeError;
use firepot_gguf::TensorType;
use firepot_measure::read_bandwidth;

use crate::{
    Attention, Calibration, DeviceRates, Rates, Stamp, Threads, reckon, threads,
    timed::{Load, Probe, Scale, Wide, remove_left_behind},
};

/// The probe begins no type that nobody asked for after so long; a type takes about two seconds.
const PROBE_TIME: Duration = Duration::from_secs(6);
/// Numbers of the types that models have, the most usual first: `Q4_K`, `Q6_K`, `Q8_0`, `Q4_0`, `Q5_K`, `F16`.
pub const USUAL_KINDS: [u32; 6] = [12, 14, 8, 2, 13, 1];
/// The type of the narrow model.
const SMALL_KIND: u32 = 8;

/// The machine could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum CalibrateError {
    /// A probe's model could not be written.
    #[error("a model for the probe cannot be written: {0}")]
    Write(#[from] io::Error),
    /// A probe's model could not be loaded.
    #[error("a model for the probe cannot be loaded: {0}")]
    Load(String),
    /// It could not be computed.
    #[error("the probe cannot be computed: {0}")]
    Decode(#[from] DecodeError),
    /// The times contradict each other.
    #[error("the probe's times contradict each other, as those of a machine do that is very busy")]
    Unusable,
}

/// What is to be measured.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Whether with models in main memory.
    pub cpu: bool,
    /// Numbers of threads that may be faster there than the usual one.
    pub threads: Vec<u32>,
    /// With models on these GPUs, one of each name.
    pub gpus: Vec<Gpu>,
    /// Types that are measured however long it takes.
    pub kinds: Vec<TensorType>,
    /// Types of which as many are measured as there is time for.
    pub more: Vec<TensorType>,
}

/// A GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// Its name, which others like it have too.
    pub name: String,
    /// llama.cpp's name for it (`CUDA0`).
    pub device: String,
}

/// Measures what is asked for and `known`, rates of the same machine at about the same time, has not. Models are written to `dir`, about
/// 130 MB at a time, or 400 for a GPU, and removed; so are those of an earlier probe that was killed.
///
/// # Errors
/// [`CalibrateError`].
pub fn measure(
    stamp: Stamp,
    asked: &Asked,
    known: Option<Calibration>,
    dir: &Path,
    load: &mut Load<'_>,
) -> Result<Calibration, CalibrateError> {
    remove_left_behind(dir);
    let mut campaign = Campaign { started: Instant::now(), threads: stamp.threads, asked, dir, load };
    let mut found = known.unwrap_or_else(|| Calibration::empty(stamp));
    if asked.cpu {
        let known = found.cpu.take();
        found.cpu = Some(campaign.cpu(known)?);
    }
    for gpu in &asked.gpus {
        let known = found.gpus.remove(&gpu.name);
        found.gpus.insert(gpu.name.clone(), campaign.gpu(gpu, known)?);
    }
    found.took_s = campaign.started.elapsed().as_secs_f64();
    Ok(found)
}

struct Campaign<'a, 'b> {
    started: Instant,
    threads: u32,
    asked: &'a Asked,
    dir: &'a Path,
    load: &'a mut Load<'b>,
}

impl<'b> Campaign<'_, 'b> {
    fn cpu(&mut self, known: Option<DeviceRates>) -> Result<DeviceRates, CalibrateError> {
        let threads = known.as_ref().map_or(Threads::both(self.threads), |known| known.threads);
        let usual = self.threads as usize;
        let (asked, small) = (self.asked, small()?);
        let mut probe = self.probe(threads, None, Scale::CPU);
        let scale = probe.scale;
        let (mut found, mut wide_small) = if let Some(known) = known {
            (known, None)
        } else {
            let bandwidth = read_bandwidth(usual);
            probe.threads = threads::fastest(&mut probe, &asked.threads, small)?;
            let plain = [probe.narrow(small, 64, false)?, probe.narrow(small, 128, false)?];
            let flash = [probe.narrow(small, 64, true)?, probe.narrow(small, 128, true)?];
            let wide = probe.wide(small, false)?;
            let attention = reckon::attention(&plain, scale)?;
            let with_flash = reckon::attention(&flash, scale)?;
            let narrow = [(&plain, attention), (&flash, with_flash)];
            let found = DeviceRates {
                taken_at_s: now_s(),
                threads: probe.threads,
                bandwidth,
                kinds: Vec::new(),
                layer_s: reckon::layer_s(&probe.deep(small)?, &wide, attention, small, scale)?,
                element_s: reckon::element_s(narrow, (&wide, attention), small, scale)?,
                plain: attention,
                flash: with_flash,
            };
            (found, Some(wide))
        };
        self.kinds(&mut found, None, scale, |probe, kind, found| {
            // Half of the base's own type is timed already.
            let plain = match wide_small.take_if(|_| kind == small) {
                Some(timed) => timed,
                None => probe.wide(kind, false)?,
            };
            let repacked = probe.wide(kind, true)?;
            let of = |wide: &Wide| reckon::rates(wide, found, kind, scale);
            Ok((of(&plain)?, of(&repacked)?))
        })?;
        Ok(found)
    }

    /// Plans have flash attention on GPUs and repack nothing there. A token's attention is what it reads of the KV cache, at the fastest
    /// rate at which weights were read; what a prompt's token touches beside matrices is in their rate.
    fn gpu(&mut self, gpu: &Gpu, known: Option<DeviceRates>) -> Result<DeviceRates, CalibrateError> {
        let (small, scale) = (small()?, Scale::GPU);
        let threads = Threads::both(self.threads);
        let mut probe = self.probe(threads, Some(gpu), scale);
        let mut found = if let Some(known) = known {
            known
        } else {
            let flash = [probe.narrow(small, 64, true)?, probe.narrow(small, 128, true)?];
            let wide = probe.wide(small, false)?;
            let attention = Attention { decode_s: 0.0, ..reckon::attention(&flash, scale)? };
            let found = DeviceRates {
                taken_at_s: now_s(),
                threads,
                bandwidth: 0.0,
                kinds: Vec::new(),
                layer_s: reckon::layer_s(&probe.deep(small)?, &wide, attention, small, scale)?,
                element_s: 0.0,
                plain: attention,
                flash: attention,
            };
            let rates = reckon::rates(&wide, &found, small, scale)?;
            let kinds = vec![reckon::told_apart(small, rates, rates, scale)];
            DeviceRates { kinds, bandwidth: rates.decode_bytes, ..found }
        };
        self.kinds(&mut found, Some(gpu), scale, |probe, kind, found| {
            let rates = reckon::rates(&probe.wide(kind, false)?, found, kind, scale)?;
            Ok((rates, rates))
        })?;
        let read = found.kinds.iter().map(|kind| kind.plain.decode_bytes);
        found.bandwidth = read.fold(found.bandwidth, f64::max);
        Ok(found)
    }

    /// Measures the types that are asked for, and others while there is time.
    fn kinds(
        &mut self,
        found: &mut DeviceRates,
        gpu: Option<&Gpu>,
        scale: Scale,
        mut rates: impl FnMut(
            &mut Probe<'_, '_>,
            TensorType,
            &DeviceRates,
        ) -> Result<(Rates, Rates), CalibrateError>,
    ) -> Result<(), CalibrateError> {
        let (started, asked) = (self.started, self.asked);
        let mut probe = self.probe(found.threads, gpu, scale);
        for &kind in asked.kinds.iter().chain(&asked.more) {
            if found.kind(kind.name).is_some() {
                continue;
            }
            if !asked.kinds.contains(&kind) && started.elapsed() > PROBE_TIME {
                break;
            }
            let (plain, repacked) = rates(&mut probe, kind, found)?;
            found.kinds.push(reckon::told_apart(kind, plain, repacked, scale));
        }
        Ok(())
    }

    fn probe(&mut self, threads: Threads, gpu: Option<&Gpu>, scale: Scale) -> Probe<'_, 'b> {
        let gpu = gpu.map(|gpu| gpu.device.clone());
        Probe { dir: self.dir, threads, gpu, scale, load: &mut *self.load }
    }
}

fn small() -> Result<TensorType, CalibrateError> {
    TensorType::by_id(SMALL_KIND).ok_or(CalibrateError::Unusable)
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
