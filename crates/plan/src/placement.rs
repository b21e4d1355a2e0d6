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
    /// One GPU that holds the whole model, and a replica on each further one like it; else several GPUs; else GPUs with
    /// experts or layers left in main memory; else main memory.
    pub fn place(&self) -> Result<Placed, PlanError> {
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
        if let Some(placed) = found.into_iter().find_map(|place| place(self, &budget, &gpus)) {
            return placed;
        }
        let why = self.too_large_for(&budget, gpus[0].0);
        self.on_host(&budget, why)
    }

    fn footprint<'a>(&'a self, placing: &'a Placing) -> Footprint<'a> {
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

    fn on_host(&self, budget: &Budget, gpu_why: String) -> Result<Placed, PlanError> {
        self.shaped(budget, Placing::host(self.layout), Vec::new(), gpu_why)
    }

    fn shaped(
        &self,
        budget: &Budget,
        placing: Placing,
        gpus: Vec<(usize, u64)>,
        gpu_why: String,
    ) -> Result<Placed, PlanError> {
        let footprint = self.footprint(&placing);
        let shape = Shape::fit(&footprint, self.want, &Room::of(&footprint, budget))?;
        Ok(Placed { placing, params: self.params, shape, gpus, replicas: 1, gpu_why })
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

    fn whole(&self, budget: &Budget, gpus: &[(usize, u64)]) -> Option<Result<Placed, PlanError>> {
        let on = |gpu: (usize, u64)| Placing::on_gpus(self.layout, self.all_layers(), &[gpu], 0);
        let fitting: Vec<(usize, u64)> =
            gpus.iter().copied().filter(|&gpu| self.useful(budget, &on(gpu))).collect();
        let first = *fitting.first()?;
        let alike: Vec<(usize, u64)> =
            fitting.iter().copied().filter(|gpu| self.alike(first.0, gpu.0)).collect();
        // Replicas are loaded alike, so the one with the least room decides.
        let tightest = alike.iter().copied().min_by_key(|gpu| gpu.1).unwrap_or(first);
        let name = self.name(first.0);
        let why = match alike.len() {
            1 => format!("{name} has {} MiB for the model, which holds all of it", mib(first.1)),
            count => format!(
                "{count} × {name}, each with {} MiB or more for the model: one replica on each serves more answers \
                 than one model split over them",
                mib(tightest.1)
            ),
        };
        let placed = self.shaped(budget, on(tightest), alike.clone(), why);
        Some(placed.map(|placed| Placed { replicas: alike.len() as u32, ..placed }))
    }

    /// Same name, capability and size.
    fn alike(&self, one: usize, other: usize) -> bool {
        let what = |gpu: &Gpu| (gpu.name.clone(), gpu.compute_capability.clone(), gpu.total_bytes.clone());
        let gpus = &self.machine.gpus.devices;
        one == other || gpus.get(one).map(what) == gpus.get(other).map(what)
    }

    fn split(&self, budget: &Budget, gpus: &[(usize, u64)]) -> Option<Result<Placed, PlanError>> {
        if gpus.len() < 2 {
            return None;
        }
        let placing = Placing::on_gpus(self.layout, self.all_layers(), gpus, 0);
        let why = || format!("no single GPU holds the model; {} of them do, layer by layer", gpus.len());
        self.useful(budget, &placing).then(|| self.shaped(budget, placing, gpus.to_vec(), why()))
    }

    /// The experts of as few layers as possible in main memory: a token reads few of them.
    fn without_experts(&self, budget: &Budget, gpus: &[(usize, u64)]) -> Option<Result<Placed, PlanError>> {
        let layers = self.layout.layers.iter().enumerate().filter(|(_, layer)| layer.experts.bytes() > 0);
        let most = layers.map(|(index, _)| index as u32 + 1).max()?;
        let on = |experts: u32| Placing::on_gpus(self.layout, self.all_layers(), gpus, experts);
        let least = (1..=most).find(|&experts| self.useful(budget, &on(experts)))?;
        let why = format!("the GPUs hold all but the experts of {least} layers, which main memory holds");
        Some(self.shaped(budget, on(least), gpus.to_vec(), why))
    }

    fn some_layers(&self, budget: &Budget, gpus: &[(usize, u64)]) -> Option<Result<Placed, PlanError>> {
        let on = |layers: u32| Placing::on_gpus(self.layout, layers, gpus, 0);
        let most = (1..self.all_layers()).rev().find(|&layers| self.useful(budget, &on(layers)))?;
        let all = self.all_layers();
        let why = format!(
            "the GPUs hold {most} of {all} layers; main memory holds the others, and slows every token"
        );
        Some(self.shaped(budget, on(most), gpus.to_vec(), why))
    }

    fn asked_for(&self, budget: &Budget, gpus: &[(usize, u64)], layers: u32) -> Result<Placed, PlanError> {
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
