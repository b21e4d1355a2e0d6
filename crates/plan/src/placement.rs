//! Main memory or GPUs.

use firepot_gguf::Layout;
use firepot_machine::{Gpu, Machine};

use crate::{
    GpuUse, PlanError, Want,
    budget::{Budget, Room, fits, trained},
    error::{cells_for, mib, mib_up},
    footprint::{Device, Footprint, Params, Placing},
    limits::CTX_GPU_MIN,
    shape::Shape,
};

/// Where the model goes, and its shape there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    pub placing: Placing,
    pub params: Params,
    pub shape: Shape,
    /// GPUs that it is on, with their shares; of replicas, the GPU of each.
    pub gpus: Vec<(usize, u64)>,
    /// How often it is loaded, each time on one of the GPUs.
    pub replicas: u32,
    pub replicas_why: &'static str,
    pub gpu_why: String,
}

/// A model that looks for its place.
#[derive(Clone, Copy, Debug)]
pub struct Search<'a> {
    pub layout: &'a Layout,
    pub machine: &'a Machine,
    pub want: &'a Want,
    pub params: Params,
}

impl Search<'_> {
    /// Its place; else why there is none, and the nearest that would have one.
    pub fn place(&self) -> Result<Placed, PlanError> {
        self.find().ok_or_else(|| self.refused())
    }

    /// One GPU that holds the whole model, and a replica on each further one like it; else several GPUs; else GPUs with
    /// experts or layers left in main memory; else main memory.
    pub(crate) fn find(&self) -> Option<Placed> {
        let budget = Budget::of(self.machine, self.want);
        let gpus = match self.usable_gpus(&budget) {
            Ok(gpus) => gpus,
            Err(why) => return self.on_host(&budget, why),
        };
        if let Some(layers) =
            self.want.gpu_layers.filter(|&layers| layers as usize <= self.layout.layers.len())
        {
            return self.asked_for(&budget, &gpus, layers);
        }
        let found = [Self::whole, Self::split, Self::without_experts, Self::some_layers];
        let on_gpus = found.into_iter().find_map(|place| place(self, &budget, &gpus));
        on_gpus.or_else(|| self.on_host(&budget, self.too_large_for(&budget, gpus[0].0)))
    }

    pub(crate) fn footprint<'a>(&'a self, placing: &'a Placing) -> Footprint<'a> {
        Footprint { layout: self.layout, placing, params: self.params }
    }

    /// GPUs of which the free memory is known, the roomiest first, or why there is none.
    fn usable_gpus(&self, budget: &Budget) -> Result<Vec<(usize, u64)>, String> {
        match self.want.gpu {
            GpuUse::Never => return Err("no GPU: asked for".to_owned()),
            GpuUse::NoBackend => return Err(without_backend(self.machine)),
            GpuUse::Auto if self.want.gpu_layers == Some(0) => {
                return Err("no layers on a GPU: asked for".to_owned());
            }
            GpuUse::Auto => {}
        }
        let free = budget.gpu_bytes.iter().enumerate();
        let mut gpus: Vec<(usize, u64)> =
            free.filter_map(|(index, bytes)| Some((index, (*bytes)?))).collect();
        gpus.sort_by_key(|&(index, bytes)| (std::cmp::Reverse(bytes), index));
        if gpus.is_empty() { Err(without_gpu(self.machine)) } else { Ok(gpus) }
    }

    /// What GPUs that may be used have together.
    pub(crate) fn gpu_bytes(&self, budget: &Budget) -> u64 {
        let gpus = self.usable_gpus(budget).unwrap_or_default();
        gpus.iter().fold(0, |sum, gpu| sum.saturating_add(gpu.1))
    }

    fn on_host(&self, budget: &Budget, gpu_why: String) -> Option<Placed> {
        self.shaped(budget, Placing::host(self.layout), Vec::new(), gpu_why)
    }

    fn shaped(
        &self,
        budget: &Budget,
        placing: Placing,
        gpus: Vec<(usize, u64)>,
        gpu_why: String,
    ) -> Option<Placed> {
        let footprint = self.footprint(&placing);
        let shape = Shape::fit(&footprint, self.want, &Room::of(&footprint, budget))?;
        let replicas_why = if gpus.is_empty() { IN_MAIN_MEMORY } else { NO_SECOND };
        Some(Placed { placing, params: self.params, shape, gpus, replicas: 1, replicas_why, gpu_why })
    }

    /// Whether the model fits with the context that was asked for, or with a useful one.
    fn useful(&self, budget: &Budget, placing: &Placing) -> bool {
        fits(&self.footprint(placing), budget, cells_for(self.useful_ctx().into()))
    }

    fn useful_ctx(&self) -> u32 {
        self.want.least_ctx().unwrap_or_else(|| CTX_GPU_MIN.min(trained(self.layout)))
    }

    fn all_layers(&self) -> u32 {
        self.layout.layers.len() as u32 + 1
    }

    fn whole(&self, budget: &Budget, gpus: &[(usize, u64)]) -> Option<Placed> {
        let on = |gpu: (usize, u64)| Placing::on_gpus(self.layout, self.all_layers(), &[gpu], 0);
        let fitting: Vec<(usize, u64)> =
            gpus.iter().copied().filter(|&gpu| self.useful(budget, &on(gpu))).collect();
        let first = *fitting.first()?;
        let alike: Vec<(usize, u64)> =
            fitting.iter().copied().filter(|gpu| self.alike(first.0, gpu.0)).collect();
        (1..=alike.len()).rev().find_map(|count| {
            // Replicas are loaded alike, so the last, which has the least room, decides.
            let tightest = alike[count - 1];
            let why = self.whole_why(tightest, count);
            let placed = self.shaped(budget, on(tightest), alike[..count].to_vec(), why)?;
            let replicas_why = match count {
                1 if alike.len() == 1 => NO_SECOND,
                _ if count < alike.len() => NO_HOST_MEMORY,
                _ => ONE_EACH,
            };
            let placed = Placed { replicas: count as u32, replicas_why, ..placed };
            (count == 1 || self.hosts_runners(budget, &placed)).then_some(placed)
        })
    }

    fn whole_why(&self, tightest: (usize, u64), count: usize) -> String {
        let (name, available) = (self.name(tightest.0), mib(tightest.1));
        match count {
            1 => format!("{name} has {available} MiB for the model, which holds all of it"),
            _ => format!(
                "{count} × {name}, each with {available} MiB or more for the model: one replica on each serves more \
                 answers than one model split over them"
            ),
        }
    }

    /// Whether main memory has room for the runners of all replicas.
    fn hosts_runners(&self, budget: &Budget, placed: &Placed) -> bool {
        let host_bytes = placed.host_bytes(self.layout, self.want, self.params);
        budget.host_bytes.is_none_or(|available| host_bytes <= available)
    }

    /// Same name, capability and size.
    fn alike(&self, one: usize, other: usize) -> bool {
        let what = |gpu: &Gpu| (gpu.name.clone(), gpu.compute_capability.clone(), gpu.total_bytes.clone());
        let gpus = &self.machine.gpus.devices;
        one == other || gpus.get(one).map(what) == gpus.get(other).map(what)
    }

    fn split(&self, budget: &Budget, gpus: &[(usize, u64)]) -> Option<Placed> {
        if gpus.len() < 2 {
            return None;
        }
        let placing = Placing::on_gpus(self.layout, self.all_layers(), gpus, 0);
        let why = || format!("no single GPU holds the model; {} of them do, layer by layer", gpus.len());
        self.useful(budget, &placing).then(|| self.shaped(budget, placing, gpus.to_vec(), why()))?
    }

    /// The experts of as few layers as possible in main memory: a token reads few of them.
    fn without_experts(&self, budget: &Budget, gpus: &[(usize, u64)]) -> Option<Placed> {
        let layers = self.layout.layers.iter().enumerate().filter(|(_, layer)| layer.experts.bytes() > 0);
        let most = layers.map(|(index, _)| index as u32 + 1).max()?;
        let on = |experts: u32| Placing::on_gpus(self.layout, self.all_layers(), gpus, experts);
        let least = (1..=most).find(|&experts| self.useful(budget, &on(experts)))?;
        let why = format!("the GPUs hold all but the experts of {least} layers, which main memory holds");
        self.shaped(budget, on(least), gpus.to_vec(), why)
    }

    fn some_layers(&self, budget: &Budget, gpus: &[(usize, u64)]) -> Option<Placed> {
        let on = |layers: u32| Placing::on_gpus(self.layout, layers, gpus, 0);
        let most = (1..self.all_layers()).rev().find(|&layers| self.useful(budget, &on(layers)))?;
        let all = self.all_layers();
        let why = format!(
            "the GPUs hold {most} of {all} layers; main memory holds the others, and slows every token"
        );
        self.shaped(budget, on(most), gpus.to_vec(), why)
    }

    fn asked_for(&self, budget: &Budget, gpus: &[(usize, u64)], layers: u32) -> Option<Placed> {
        let (gpu, available_bytes) = gpus[0];
        let placing = Placing::on_gpus(self.layout, layers, &gpus[..1], 0);
        let cells = cells_for(self.useful_ctx().into());
        let part = mib_up(self.footprint(&placing).on(Device::Gpu(gpu), cells).total());
        let name = self.name(gpu);
        if self.useful(budget, &placing) {
            let why = format!("asked for; about {part} MiB of {name}");
            return self.shaped(budget, placing, vec![gpus[0]], why);
        }
        let available = mib(available_bytes);
        let why =
            format!("{layers} were asked for, and need about {part} MiB of {name}, which has {available}");
        self.on_host(budget, why)
    }

    fn too_large_for(&self, budget: &Budget, gpu: usize) -> String {
        let placing = Placing::on_gpus(self.layout, self.all_layers(), &[(gpu, 1)], 0);
        let device = Device::Gpu(gpu);
        let needs = mib_up(self.footprint(&placing).on(device, cells_for(self.useful_ctx().into())).total());
        let available = mib(budget.on(device).unwrap_or(0));
        let name = self.name(gpu);
        format!("{name} has {available} MiB for the model, which needs {needs} MiB with a useful context")
    }

    fn name(&self, gpu: usize) -> &str {
        self.machine.gpus.devices.get(gpu).map_or("a GPU", |gpu| gpu.name.as_str())
    }
}

impl Placed {
    /// What all replicas take of main memory; the mapped file they share.
    pub fn host_bytes(&self, layout: &Layout, want: &Want, params: Params) -> u64 {
        let footprint = Footprint { layout, placing: &self.placing, params };
        let each_bytes = footprint.taken(Device::Host, self.shape.cells.into());
        let mapped = want.mmap.unwrap_or(true);
        let shared_bytes = if mapped { footprint.on(Device::Host, 0).weights_bytes } else { 0 };
        let own_bytes = each_bytes.saturating_sub(shared_bytes);
        own_bytes.saturating_mul(self.replicas.into()).saturating_add(shared_bytes)
    }
}

const IN_MAIN_MEMORY: &str = "in main memory, one is enough";
const NO_SECOND: &str = "no second GPU like it holds the model too";
const ONE_EACH: &str = "one for each GPU";
const NO_HOST_MEMORY: &str = "there are more GPUs like it, and main memory has no room for further runners";

fn without_backend(machine: &Machine) -> String {
    match machine.gpus.devices.first() {
        Some(gpu) => format!("{} is there, but this program was built without a GPU backend", gpu.name),
        None => "this program was built without a GPU backend".to_owned(),
    }
}

fn without_gpu(machine: &Machine) -> String {
    let gpus = &machine.gpus;
    if let Some(gpu) = gpus.unusable().first() {
        return format!("{} cannot be used: {}", gpu.name, gpu.reason);
    }
    let listed = "the GPU's free memory cannot be read".to_owned();
    gpus.absent.as_ref().map_or(listed, |absent| format!("no usable GPU: {absent}"))
}
