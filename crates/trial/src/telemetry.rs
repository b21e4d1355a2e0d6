//! The sampler: one thread that looks at processes and machine more than ten times a second and writes each reading at once.
//!
//! It can be left out (`--no-telemetry`), so that its own cost can be measured. What a machine does not show is told once.

use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use firepot_machine::{CpuMoment, CpuWatch, GpuMoment, GpuWatch, process_memory};
use firepot_measure::bundle::{GpuTelemetry, Telemetry};

use crate::{clock::Clock, fault::runners, limits::TELEMETRY_INTERVAL};

/// Whose processes are looked at: of each target on this machine, by its id, the server, where it is known, and its runners.
pub type Watched = BTreeMap<String, Option<u32>>;

/// A running sampler. It ends when it is dropped.
#[derive(Debug)]
pub struct Sampler {
    stop: Arc<AtomicBool>,
    late: Arc<AtomicU64>,
    absent: Vec<(&'static str, String)>,
    thread: Option<JoinHandle<()>>,
}

impl Sampler {
    /// Begins. `write` is given each reading; when it fails, the sampler ends by itself.
    pub fn start(
        clock: Clock,
        watched: Watched,
        write: impl Fn(&Telemetry) -> bool + Send + 'static,
    ) -> Self {
        let cpu = CpuWatch::open();
        let gpus = GpuWatch::open();
        let mut absent: Vec<(&'static str, String)> = cpu
            .absent()
            .into_iter()
            .map(|(name, why)| {
                let field = match name {
                    "mhz" => "telemetry.cpu_mhz",
                    "celsius" => "telemetry.cpu_celsius",
                    "throttled" => "telemetry.cpu_throttled",
                    _ => "telemetry.cpu_watts",
                };
                (field, why)
            })
            .collect();
        if let Err(why) = &gpus {
            absent.push(("telemetry.gpus", why.clone()));
        }
        let (stop, late) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let eyes = Eyes { clock, watched, cpu, gpus: gpus.ok(), before: None, own: BTreeMap::new() };
        let (stop_too, late_too) = (Arc::clone(&stop), Arc::clone(&late));
        let thread = thread::Builder::new()
            .name("telemetry".to_owned())
            .spawn(move || eyes.look(&stop_too, &late_too, write))
            .ok();
        Self { stop, late, absent, thread }
    }

    /// What this machine does not show, by field, and why.
    #[must_use]
    pub fn absent(&self) -> &[(&'static str, String)] {
        &self.absent
    }

    /// How often it came so late that a reading is missing.
    #[must_use]
    pub fn late(&self) -> u64 {
        self.late.load(Ordering::Relaxed)
    }
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // One that panicked has left its lines.
            let _ = thread.join();
        }
    }
}

struct Eyes {
    clock: Clock,
    watched: Watched,
    cpu: CpuWatch,
    gpus: Option<GpuWatch>,
    before: Option<(Instant, CpuMoment)>,
    /// CPU ticks of each target's processes at the reading before.
    own: BTreeMap<String, (Instant, u64)>,
}

impl Eyes {
    fn look(mut self, stop: &AtomicBool, late: &AtomicU64, write: impl Fn(&Telemetry) -> bool) {
        let mut due = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            if !self.read().iter().all(&write) {
                return;
            }
            due += TELEMETRY_INTERVAL;
            let now = Instant::now();
            if due < now {
                late.fetch_add(1, Ordering::Relaxed);
                due = now;
            }
            thread::sleep(due - now);
        }
    }

    /// A line for each target; the first one has the machine's values too.
    fn read(&mut self) -> Vec<Telemetry> {
        let now = Instant::now();
        let at_us = self.clock.us();
        let cpu = self.cpu.read();
        let before = self.before.replace((now, cpu));
        let gpus = self.gpus.as_ref().map(GpuWatch::read).unwrap_or_default();
        self.watched
            .clone()
            .into_iter()
            .map(|(target, server)| {
                let processes: Vec<u32> = server
                    .into_iter()
                    .flat_map(|server| std::iter::once(server).chain(runners(server)))
                    .collect();
                let memory: Vec<_> = processes.iter().filter_map(|pid| process_memory(*pid).ok()).collect();
                let known = !memory.is_empty();
                Telemetry {
                    at_us,
                    cpu_percent: self.own_percent(&target, &processes, now),
                    target,
                    rss_bytes: known.then(|| memory.iter().map(|of| of.resident_bytes).sum()),
                    anonymous_bytes: known.then(|| memory.iter().map(|of| of.anonymous_bytes).sum()),
                    machine_percent: before.and_then(|(_, before)| machine_percent(&before, &cpu)),
                    cpu_mhz: cpu.mhz.map(tenths),
                    cpu_celsius: cpu.celsius.map(tenths),
                    cpu_throttled: cpu.throttled,
                    cpu_watts: before.and_then(|(at, before)| watts(&before, &cpu, now - at)),
                    gpus: gpus.iter().map(gpu).collect(),
                }
            })
            .collect()
    }

    /// Time of a runner that has ended meanwhile is not seen; then there is no value.
    fn own_percent(&mut self, target: &str, processes: &[u32], now: Instant) -> Option<f64> {
        if processes.is_empty() {
            return None;
        }
        let ticks = processes.iter().filter_map(|pid| cpu_ticks(*pid)).sum();
        let (at, before) = self.own.insert(target.to_owned(), (now, ticks))?;
        let per_s = rustix::param::clock_ticks_per_second() as f64;
        let seconds = ticks.checked_sub(before)? as f64 / per_s;
        let passed = (now - at).as_secs_f64();
        (passed > 0.0).then(|| tenths(seconds / passed * 100.0))
    }
}

fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

fn machine_percent(before: &CpuMoment, now: &CpuMoment) -> Option<f64> {
    let busy = now.busy_ticks?.checked_sub(before.busy_ticks?)?;
    let total = now.total_ticks?.checked_sub(before.total_ticks?)?;
    (total > 0).then(|| tenths(busy as f64 / total as f64 * 100.0))
}

/// A counter that began anew gives no value.
fn watts(before: &CpuMoment, now: &CpuMoment, passed: Duration) -> Option<f64> {
    let joules = now.energy_uj?.checked_sub(before.energy_uj?)? as f64 / 1e6;
    (!passed.is_zero()).then(|| tenths(joules / passed.as_secs_f64()))
}

fn gpu(moment: &GpuMoment) -> GpuTelemetry {
    GpuTelemetry {
        index: moment.index,
        used_bytes: moment.used_bytes,
        target_bytes: None,
        busy_percent: moment.busy_percent.map(f64::from),
        sm_mhz: moment.sm_mhz.map(f64::from),
        memory_mhz: moment.memory_mhz.map(f64::from),
        celsius: moment.temperature_c.map(f64::from),
        watts: moment.milliwatts.map(|milliwatts| f64::from(milliwatts) / 1000.0),
        throttled: moment.throttled.clone(),
    }
}

/// User and system time of a process, in clock ticks (`/proc/PID/stat`, proc(5)).
fn cpu_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    Some(fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn processes_and_machine_are_looked_at_until_the_sampler_is_dropped() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let watched = Watched::from([("a".to_owned(), Some(std::process::id()))]);
        let kept = Arc::clone(&lines);
        let sampler = Sampler::start(Clock::start(), watched, move |line| {
            kept.lock().unwrap().push(line.clone());
            true
        });
        let end = Instant::now() + Duration::from_secs(20);
        while lines.lock().unwrap().len() < 3 && Instant::now() < end {
            thread::sleep(Duration::from_millis(10));
        }
        let absent = sampler.absent().to_vec();
        drop(sampler);
        let lines = lines.lock().unwrap().clone();
        let last = lines.last().unwrap();
        assert!(last.rss_bytes.unwrap() > 1 << 20 && last.machine_percent.is_some(), "{last:?}");
        assert_eq!(last.cpu_mhz.is_none(), absent.iter().any(|(field, _)| *field == "telemetry.cpu_mhz"));
        assert!(lines.windows(2).all(|two| two[0].at_us < two[1].at_us));
    }

    #[test]
    fn a_sampler_that_cannot_write_ends() {
        let sampler = Sampler::start(Clock::start(), Watched::from([("a".to_owned(), None)]), |_| false);
        let end = Instant::now() + Duration::from_secs(20);
        while !sampler.thread.as_ref().is_none_or(JoinHandle::is_finished) {
            assert!(Instant::now() < end, "it goes on");
            thread::sleep(Duration::from_millis(5));
        }
    }
}
