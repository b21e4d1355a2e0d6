//! The server's planner: reads the model's header, looks at the machine, and asks `firepot-plan`.

#[cfg(test)]
mod tests;

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use firepot_calibrate::{Answer, On, Threads, Way};
use firepot_catalogue::{Found, find};
use firepot_chat::{Timings, Usage};
use firepot_engine::{DeviceLimit, DeviceMemory, KvType, LoadSpec};
use firepot_gguf::{Gguf, GgufError, Layout};
use firepot_link::LoadFailureKind;
use firepot_machine::{DeviceNames, Environment, Machine};
use firepot_plan::{
    CTX_FLOOR, DeviceBytes, Fastest, GpuUse, Plan, PlanError, Taken, Want, available_bytes, plan, with_freed,
};
use firepot_server::pool::{
    Beside, Decision, FitFailure, FitModel, FitQuestion, Held, Holder, Placement, PlanFailure, Planned,
    Planner, Wishes, decide,
};
use firepot_store::Model;
use serde_json::Value;

use crate::{
    calibrated,
    fit::{Fit, PROMPT, Place},
    gpu::{self, Answers, Asked},
};

/// Plans for this machine, whose free memory is read anew for each plan.
#[derive(Debug)]
pub struct LocalPlanner {
    /// Where the home lies; its disk is part of the machine.
    pub home: PathBuf,
    /// What the environment says of the platform.
    pub environment: Environment,
    /// Whether this build can use a GPU.
    pub gpu: GpuUse,
    /// What llama.cpp says of this machine's devices.
    pub asked: Answers,
    /// When an answer was compared with its prediction last.
    pub observed_at: Mutex<Option<Instant>>,
}

/// From one such answer to the next at least: each reads the model's header again.
const OBSERVE_EVERY: Duration = Duration::from_secs(10);

impl LocalPlanner {
    /// The plan for a model, with every reason, and llama.cpp's names of the GPUs that it counts.
    ///
    /// # Errors
    /// When the header cannot be read, the wishes cannot be met, or memory does not suffice.
    pub fn plan_model(
        &self,
        model: &Model,
        wishes: &Wishes,
        others: &[&Holder],
    ) -> Result<(Plan, DeviceNames), PlanFailure> {
        let beside = Beside { stay: others.to_vec(), leave: Vec::new() };
        let look = self.look_for(model)?;
        let plan = look.plan(self, wishes, &beside)?;
        Ok((plan, look.names))
    }

    /// What a model is, and the machine as it is now.
    fn look_for(&self, model: &Model) -> Result<Look, PlanFailure> {
        let (layout, (machine, names)) = (read_layout(model)?, self.for_plans());
        let fastest = calibrated::fastest(&self.home, &machine, &layout);
        Ok(Look { layout, machine, names, fastest })
    }

    /// Wishes as the planner takes them, beside runners that are loaded.
    pub fn want(&self, wishes: &Wishes, others: &[&Holder]) -> Want {
        Want {
            ctx: wishes.ctx,
            parallel: wishes.parallel,
            threads: wishes.threads,
            batch_tokens: wishes.batch_tokens,
            gpu_layers: wishes.gpu_layers,
            mmap: wishes.mmap,
            mlock: wishes.mlock,
            kv_type: wishes.kv_type.map(wished_kv_type),
            memory_bytes: wishes.memory_bytes,
            gpu: self.gpu,
            // The memory of GPUs is taken when a model is loaded.
            taken: Taken {
                host_bytes: others.iter().map(|other| other.promised_bytes()).sum(),
                gpu_bytes: 0,
            },
            ..Want::default()
        }
    }

    /// Predicted time from one token to the next after a usual prompt; `None` without a calibration.
    fn predicted_tpot(&self, layout: &Layout, plan: &Plan) -> Option<Duration> {
        let speeds = Place::here(self).speeds(layout, plan, PROMPT).ok()?;
        Duration::try_from_secs_f64(1.0 / speeds.decode.predicted).ok()
    }

    /// What this machine is now.
    pub fn probe(&self) -> Machine {
        Machine::probe(&self.home, &self.environment)
    }

    /// The same with the GPUs that plans may use, and llama.cpp's names for them. Where there is a card and a backend, llama.cpp is asked.
    pub fn for_plans(&self) -> (Machine, DeviceNames) {
        let machine = self.probe();
        if self.gpu == GpuUse::Auto && gpu::worth_asking(&machine) {
            self.asked.on(&machine).for_plans(machine)
        } else {
            (machine, DeviceNames::default())
        }
    }

    /// The same with what llama.cpp finds, which takes a process of its own and some hundredths of a second.
    pub fn probe_whole(&self) -> Machine {
        Asked::now().on(self.probe())
    }
}

/// A model and the machine at one moment: what would be without some of what is loaded is asked of the same reading.
struct Look {
    layout: Layout,
    machine: Machine,
    names: DeviceNames,
    fastest: Option<Fastest>,
}

impl Look {
    fn decide(&self, planner: &LocalPlanner, model: &Model, wishes: &Wishes, held: &Held) -> Decision {
        decide(held, |beside| {
            let plan = self.plan(planner, wishes, beside)?;
            Ok(planned(model, &plan, &self.names, self.placement(wishes, &plan)))
        })
    }

    fn plan(
        &self,
        planner: &LocalPlanner,
        wishes: &Wishes,
        beside: &Beside<'_>,
    ) -> Result<Plan, PlanFailure> {
        let freed_bytes = beside.leave.iter().map(|holder| holder.gives_back_bytes()).sum();
        let on_gpus = beside.leave.iter().flat_map(|holder| holder.plan.on_gpus.iter().copied());
        let machine = with_freed(&self.machine, freed_bytes, &on_gpus.collect::<Vec<_>>());
        let want = Want { fastest: self.fastest, ..planner.want(wishes, &beside.stay) };
        plan(&self.layout, &machine, &want).map_err(|error| refuse(&error))
    }

    fn placement(&self, wishes: &Wishes, plan: &Plan) -> Placement {
        let useful_ctx = CTX_FLOOR.min(self.layout.ctx_train);
        match plan.gpu_layers {
            0 if wishes.ctx.is_none() && plan.ctx_per_answer < useful_ctx => Placement::Cramped,
            0 => Placement::Host,
            -1 if plan.host_experts == 0 => Placement::Whole,
            _ => Placement::Partly,
        }
    }
}

impl Planner for LocalPlanner {
    fn plan(&self, model: &Model, wishes: &Wishes, held: &Held) -> Decision {
        let look = match self.look_for(model) {
            Ok(look) => look,
            Err(failure) => return Decision::alone(Err(failure)),
        };
        let mut decision = look.decide(self, model, wishes, held);
        if let Ok(decided) = &mut decision.plan {
            let beside = Beside { stay: held.holders.iter().collect(), leave: Vec::new() };
            let plan = look.plan(self, wishes, &beside).ok();
            decided.predicted_tpot = plan.and_then(|plan| self.predicted_tpot(&look.layout, &plan));
        }
        decision
    }

    fn has_room(&self, plan: &Planned, held: &Held) -> Result<(), PlanFailure> {
        let others: Vec<&Holder> = held.holders.iter().collect();
        let ((machine, names), want) = (self.for_plans(), self.want(&Wishes::default(), &others));
        let host_bytes = plan.memory_bytes.saturating_sub(plan.gpu_bytes);
        let gpus = plan.on_gpus.iter().map(|&(gpu, bytes)| (Some(gpu), bytes));
        for (gpu, needs_bytes) in gpus.chain([(None, host_bytes)]) {
            let available_bytes = available_bytes(&machine, &want, gpu);
            if gpu.is_some() && available_bytes.is_none()
                || available_bytes.is_some_and(|bytes| bytes < needs_bytes)
            {
                let device = gpu.map_or_else(|| "main memory".to_owned(), |gpu| names.of(gpu));
                return Err(no_room(&device, needs_bytes, available_bytes));
            }
        }
        Ok(())
    }

    fn fit(
        &self,
        model: FitModel<'_>,
        question: &FitQuestion,
        others: &[Holder],
    ) -> Result<Value, FitFailure> {
        let place = Place::of(self, question.on.as_deref()).map_err(|unknown| {
            FitFailure::UnknownMachine { message: unknown.to_string(), hint: unknown.hint() }
        })?;
        let (name, layout) = match model {
            FitModel::Stored(model) => (model.name.to_string(), read_layout(model)),
            FitModel::Named(name) => (name.to_owned(), listed(name).ok_or(FitFailure::UnknownModel)?),
        };
        // What is loaded here takes nothing of a machine that is described.
        let others = if question.on.is_some() { &[] } else { others };
        let others: Vec<&Holder> = others.iter().collect();
        let want = place.want(&self.want(&question.wishes, &others), question);
        let fit = match layout {
            Ok(layout) => Fit::of(name, &layout, &place, &want).within(question, &layout, &place),
            Err(failure) => Fit::unread(name, &place, failure),
        };
        Ok(serde_json::to_value(fit).unwrap_or_default())
    }

    fn observe(&self, model: &Model, plan: &Planned, usage: &Usage, timings: &Timings) {
        let spec = &plan.spec;
        let in_f16 = spec.kv_type_k == KvType::F16 && spec.kv_type_v == KvType::F16;
        if spec.gpu_layers != 0 || !in_f16 {
            return;
        }
        // Held throughout, so that one at a time is written.
        let mut observed_at = self.observed_at.lock().unwrap_or_else(PoisonError::into_inner);
        if observed_at.is_some_and(|at| at.elapsed() < OBSERVE_EVERY) {
            return;
        }
        let Ok(layout) = read_layout(model) else { return };
        let threads = Threads { decode: spec.threads, prefill: spec.threads_batch };
        let way = Way { on: On::Cpu(threads), flash: spec.flash_attention, repack: spec.repack };
        let seconds = |us: u64| Duration::from_micros(us).as_secs_f64();
        let answer = Answer {
            prompt_tokens: usage.prompt_tokens,
            cached_tokens: usage.cached_tokens,
            emitted_tokens: usage.completion_tokens,
            prefill_s: seconds(timings.prefill_us),
            decode_s: seconds(timings.decode_us),
        };
        if let Err(error) = calibrated::observe(&self.home, &self.for_plans().0, &layout, way, &answer) {
            tracing::warn!(%error, "what an answer took is not kept");
        }
        *observed_at = Some(Instant::now());
    }

    fn machine(&self) -> Value {
        serde_json::to_value(self.probe_whole()).unwrap_or_default()
    }
}

/// What a model of the catalogue takes; `None` when it lists none of this name.
fn listed(name: &str) -> Option<Result<Layout, PlanFailure>> {
    let Found { model, quant } = find(name)?;
    let refused = |error: GgufError| PlanFailure {
        kind: LoadFailureKind::BadModel,
        message: format!("{name}: {error}"),
        hint: None,
    };
    Some(model.layout(quant).map_err(refused))
}

/// A plan as the pool takes it; what predicts its speed is not looked at.
fn planned(model: &Model, plan: &Plan, names: &DeviceNames, placement: Placement) -> Planned {
    let on_gpu = |&(gpu, bytes): &(usize, DeviceBytes)| (gpu, bytes.total());
    let first = Planned {
        placement,
        memory_bytes: plan.predicted.total_bytes(),
        gpu_bytes: plan.predicted.gpu_bytes(),
        mapped_bytes: plan.predicted.mapped_bytes,
        own_bytes: plan.predicted.own_bytes().saturating_add(plan.parked_bytes),
        on_gpus: plan.predicted.gpus.iter().map(on_gpu).collect(),
        memory: memory(plan, names),
        predicted_tpot: None,
        reasons: reasons(plan),
        spec: load_spec(model, plan, names),
        replicas: Vec::new(),
    };
    let further = if plan.replicas > 1 { &plan.gpus[1..] } else { &[] };
    let replicas = further.iter().map(|&gpu| replica_on(plan, &first, names, gpu)).collect();
    Planned { replicas, ..first }
}

fn no_room(device: &str, needs_bytes: u64, available_bytes: Option<u64>) -> PlanFailure {
    let (needs, available) = (needs_bytes.div_ceil(1 << 20), available_bytes.unwrap_or(0) >> 20);
    PlanFailure {
        kind: LoadFailureKind::OutOfMemory,
        message: format!(
            "a further runner needs {needs} MiB of {device}, of which {available} are available"
        ),
        hint: None,
    }
}

/// One line for each decision.
pub fn reasons(plan: &Plan) -> Vec<String> {
    plan.reasons
        .iter()
        .map(|reason| format!("{} = {}: {}", reason.parameter, reason.value, reason.why))
        .collect()
}

/// What the model's files say of its size.
///
/// # Errors
/// When they cannot be read, are damaged, or are of an architecture that is not known.
pub fn read_layout(model: &Model) -> Result<Layout, PlanFailure> {
    let bad = |message: String, hint: &str| PlanFailure {
        kind: LoadFailureKind::BadModel,
        message: format!("{}: {message}", model.name),
        hint: Some(hint.to_owned()),
    };
    let paths: Vec<&Path> =
        std::iter::once(&model.blob_path).chain(&model.shards).map(PathBuf::as_path).collect();
    read_files(&paths).map_err(|(message, hint)| bad(message, hint))
}

/// What GGUF files say of a model's size: one, or all of a split model. An error has a hint beside it.
pub fn read_files(paths: &[&Path]) -> Result<Layout, (String, &'static str)> {
    let open = |path: &&Path| {
        File::open(path).map_err(|error| (format!("the model file cannot be opened: {error}"), DAMAGED))
    };
    let files: Vec<File> = paths.iter().map(open).collect::<Result<_, _>>()?;
    let layout = Gguf::read_split(&files).and_then(|gguf| gguf.layout());
    layout.map_err(|error| {
        let hint = match error {
            GgufError::Architecture { .. } | GgufError::UnknownType { .. } => NEWER,
            GgufError::RemovedType { .. } => OLDER,
            _ => DAMAGED,
        };
        (error.to_string(), hint)
    })
}

const DAMAGED: &str = "the file may be damaged; import it again";
const OLDER: &str = "get a newer file of the model, or make one of it anew";
const NEWER: &str = "the model may be newer than this version of Firepot";

fn refuse(error: &PlanError) -> PlanFailure {
    let kind = if error.is_memory() { LoadFailureKind::OutOfMemory } else { LoadFailureKind::BadParameters };
    PlanFailure { kind, message: error.to_string(), hint: Some(error.hint()) }
}

fn load_spec(model: &Model, plan: &Plan, names: &DeviceNames) -> LoadSpec {
    LoadSpec {
        path: model.blob_path.clone(),
        shards: model.shards.clone(),
        ctx_per_answer: plan.ctx_per_answer,
        kv_cells: plan.kv_cells,
        parallel: plan.parallel,
        sequences: plan.sequences,
        batch_tokens: plan.batch_tokens,
        ubatch_tokens: plan.ubatch_tokens,
        threads: plan.threads,
        threads_batch: plan.threads_batch,
        flash_attention: plan.flash_attention,
        kv_type_k: kv_type(plan.kv_type_k),
        kv_type_v: kv_type(plan.kv_type_v),
        gpu_layers: plan.gpu_layers,
        host_experts: plan.host_experts,
        limits: limits(plan, names),
        devices: devices(plan, names),
        tensor_split: shares(plan),
        mmap: plan.mmap,
        mlock: plan.mlock,
        repack: plan.repack,
        check_tensors: plan.check_tensors,
        warmup: plan.warmup,
        parked_bytes_max: plan.parked_bytes,
    }
}

/// The replica of a plan on another GPU, which is loaded like the first. Its mapped file is the first one's.
fn replica_on(plan: &Plan, first: &Planned, names: &DeviceNames, gpu: usize) -> Planned {
    let (here, there) = (names.of(plan.gpus[0]), names.of(gpu));
    let moved = |device: &String| if *device == here { there.clone() } else { device.clone() };
    let memory = first.memory.iter().map(|on| DeviceMemory { device: moved(&on.device), ..on.clone() });
    let limits = first.spec.limits.iter().map(|on| DeviceLimit { device: moved(&on.device), ..on.clone() });
    let each = plan.replicas.max(1);
    Planned {
        placement: first.placement,
        own_bytes: first.own_bytes,
        on_gpus: first.on_gpus.iter().map(|&(_, bytes)| (gpu, bytes)).collect(),
        memory_bytes: first.memory_bytes.saturating_sub(first.mapped_bytes) / u64::from(each),
        gpu_bytes: first.gpu_bytes / u64::from(each),
        mapped_bytes: 0,
        memory: memory.collect(),
        predicted_tpot: first.predicted_tpot,
        reasons: first.reasons.clone(),
        spec: LoadSpec { devices: vec![there.clone()], limits: limits.collect(), ..first.spec.clone() },
        replicas: Vec::new(),
    }
}

/// Beyond this share of what a device has, llama.cpp is asked before anything is loaded.
const TIGHT_PERCENT: u64 = 85;

/// What the devices have where the load takes most of it.
fn limits(plan: &Plan, names: &DeviceNames) -> Vec<DeviceLimit> {
    let predicted = memory(plan, names);
    let limit = |&(gpu, bytes): &(Option<usize>, u64)| {
        let device = gpu.map_or_else(|| HOST.to_owned(), |gpu| names.of(gpu));
        let takes = predicted.iter().find(|memory| memory.device == device)?.total_bytes();
        (takes > bytes / 100 * TIGHT_PERCENT).then_some(DeviceLimit { device, bytes })
    };
    let loaded = plan
        .available
        .iter()
        .filter(|&&(gpu, _)| plan.replicas == 1 || gpu.is_none_or(|gpu| gpu == plan.gpus[0]));
    loaded.filter_map(limit).collect()
}

/// What is predicted by device, under llama.cpp's names.
fn memory(plan: &Plan, names: &DeviceNames) -> Vec<DeviceMemory> {
    let on = |device: String, bytes: DeviceBytes| DeviceMemory {
        device,
        weights_bytes: bytes.weights_bytes,
        kv_bytes: bytes.kv_bytes,
        compute_bytes: bytes.compute_bytes,
    };
    let gpus = plan.predicted.gpus.iter().map(|&(gpu, bytes)| on(names.of(gpu), bytes));
    std::iter::once(on(HOST.to_owned(), plan.predicted.host)).chain(gpus).collect()
}

/// llama.cpp's name for main memory.
const HOST: &str = "CPU";

/// The first GPU of replicas, else all of the plan's.
fn devices(plan: &Plan, names: &DeviceNames) -> Vec<String> {
    let used = if plan.replicas > 1 { 1 } else { plan.gpus.len() };
    plan.gpus.iter().take(used).map(|&gpu| names.of(gpu)).collect()
}

fn shares(plan: &Plan) -> Vec<f32> {
    let split = plan.replicas == 1 && plan.gpus.len() > 1;
    if split { plan.gpu_shares.iter().map(|&share| share as f32).collect() } else { Vec::new() }
}

const fn wished_kv_type(kind: KvType) -> firepot_plan::KvType {
    match kind {
        KvType::F16 => firepot_plan::KvType::F16,
        KvType::Q8_0 => firepot_plan::KvType::Q8_0,
        KvType::Q4_0 => firepot_plan::KvType::Q4_0,
    }
}

const fn kv_type(kind: firepot_plan::KvType) -> KvType {
    match kind {
        firepot_plan::KvType::F16 => KvType::F16,
        firepot_plan::KvType::Q8_0 => KvType::Q8_0,
        firepot_plan::KvType::Q4_0 => KvType::Q4_0,
    }
}
