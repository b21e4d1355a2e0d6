//! What would fit where a model does not: looked for by planning it, so that it holds for main memory and GPUs alike.

use firepot_gguf::{Layer, Layout, Weights};

use crate::{
    PlanError, Want,
    budget::{Budget, trained},
    error::cells_for,
    footprint::Placing,
    limits::CELLS_STEP,
    placement::Search,
};

/// Parts of a model's weights in which the largest file that fits is told.
const PARTS: u64 = 4096;

impl Search<'_> {
    /// Why there is no place, with the nearest that has one, wherever that is: a shorter context, else a smaller model.
    pub(crate) fn refused(&self) -> PlanError {
        let budget = Budget::of(self.machine, self.want);
        let available = (budget.host_bytes.unwrap_or(0), self.gpu_bytes(&budget));
        let placing = Placing::host(self.layout);
        let host = self.footprint(&placing);
        let wanted = self.want.least_ctx().unwrap_or(0);
        let fits_ctx = self.fits_ctx(wanted);
        if fits_ctx > 0 {
            let needs_bytes = host.total(cells_for(wanted.into()));
            let kv_type = self.params.kv_types.0;
            return PlanError::CtxTooLarge { wanted, needs_bytes, available, kv_type, fits_ctx };
        }
        let needs_bytes = host.total(CELLS_STEP.into());
        let weights_bytes = self.layout.weights_bytes();
        PlanError::ModelTooLarge { needs_bytes, weights_bytes, available, fits_bytes: self.fits_bytes() }
    }

    /// The largest context below `wanted`; 0 where there is none.
    fn fits_ctx(&self, wanted: u32) -> u32 {
        let fits = |step: u64| {
            let want = Want { ctx: Some(self.ctx_of(step)), ctx_min: None, think_tokens: None, ..*self.want };
            Search { want: &want, ..*self }.find().is_some()
        };
        self.ctx_of(most(u64::from(wanted).div_ceil(CELLS_STEP.into()), fits))
    }

    fn ctx_of(&self, step: u64) -> u32 {
        (step * u64::from(CELLS_STEP)).min(trained(self.layout).into()) as u32
    }

    /// Bytes of the largest model of this shape for which there is room; 0 where there is none for the smallest.
    fn fits_bytes(&self) -> u64 {
        let fits = |parts| Search { layout: &scaled(self.layout, parts), ..*self }.find().is_some();
        scaled(self.layout, most(PARTS, fits)).weights_bytes()
    }
}

/// The most below `bound` that fits; 0 where nothing does.
fn most(bound: u64, fits: impl Fn(u64) -> bool) -> u64 {
    let (mut enough, mut too_many) = (0, bound.max(1));
    while too_many - enough > 1 {
        let middle = u64::midpoint(enough, too_many);
        if fits(middle) { enough = middle } else { too_many = middle }
    }
    enough
}

/// The same model with so many of [`PARTS`] of its weights.
fn scaled(layout: &Layout, parts: u64) -> Layout {
    let part = |bytes: u64| (u128::from(bytes) * u128::from(parts) / u128::from(PARTS)) as u64;
    let weights =
        |weights: &Weights| Weights::of(weights.parts().iter().map(|&(kind, bytes)| (kind, part(bytes))));
    let layer = |layer: &Layer| Layer {
        dense: weights(&layer.dense),
        experts: weights(&layer.experts),
        ..layer.clone()
    };
    Layout {
        layers: layout.layers.iter().map(layer).collect(),
        input: weights(&layout.input),
        output: weights(&layout.output),
        ..layout.clone()
    }
}
