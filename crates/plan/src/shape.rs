//! Context, cells and parallel answers in a given room.

use firepot_gguf::ModelMeta;

use crate::{
    PlanError, Want,
    budget::{Room, trained},
    cost::Cost,
    error::cells_for,
    limits::{ANSWER_CELLS_MIN, CELLS_STEP, CTX_DEFAULT_MAX},
};

/// Context, cells and parallel answers, each with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    pub ctx: u32,
    pub ctx_why: String,
    pub cells: u32,
    pub cells_why: String,
    pub parallel: u32,
    pub parallel_why: String,
}

impl Shape {
    /// The best shape for `parallel` answers in this room.
    pub fn fit(
        meta: &ModelMeta,
        want: &Want,
        parallel: u32,
        cost: &Cost,
        room: &Room,
    ) -> Result<Self, PlanError> {
        if room.cells_max < CELLS_STEP.into() {
            return Err(PlanError::ModelTooLarge {
                needs_bytes: cost.total_bytes(CELLS_STEP.into()),
                weights_bytes: cost.weights_bytes,
                available_bytes: room.available_bytes.unwrap_or(0),
            });
        }
        let (ctx, ctx_why) = match want.ctx {
            Some(ctx) => (wished_ctx(meta, ctx, cost, room)?, "asked for".to_owned()),
            None => default_ctx(meta, want, parallel, room),
        };
        let (cells, cells_why) = cells(ctx, want, parallel, room);
        let (parallel, parallel_why) = answers(want, parallel, ctx, cells);
        Ok(Self { ctx, ctx_why, cells, cells_why, parallel, parallel_why })
    }
}

fn wished_ctx(meta: &ModelMeta, ctx: u32, cost: &Cost, room: &Room) -> Result<u32, PlanError> {
    let cells = cells_for(ctx.into());
    if cells <= room.cells_max {
        return Ok(ctx);
    }
    Err(PlanError::CtxTooLarge {
        wanted: ctx,
        needs_bytes: cost.total_bytes(cells),
        available_bytes: room.available_bytes.unwrap_or(0),
        fits_ctx: room.cells_max.min(trained(meta).into()) as u32,
    })
}

/// The largest candidate of which the default room has `parallel` answers, or one where answers share the cells.
fn default_ctx(meta: &ModelMeta, want: &Want, parallel: u32, room: &Room) -> (u32, String) {
    let floor = room.ctx_floor;
    let full = if shared_cells(want, room).is_some() { 1 } else { parallel };
    let fits = |ctx: u32| cells_for(u64::from(ctx) * u64::from(full)) <= room.cells_default;
    if let Some(ctx) = candidates(meta, floor).find(|&ctx| fits(ctx)) {
        return (ctx, fitting_why(meta, ctx, room));
    }
    if cells_for(floor.into()) <= room.cells_max {
        return (floor, format!("memory is short; a context below {floor} tokens is of little use"));
    }
    // Fewer cells than the floor's, so fewer tokens than the model was trained with.
    (room.cells_max as u32, "memory is short: this is all that fits beside the weights".to_owned())
}

/// The cap, then powers of two below it, largest first, and the floor.
fn candidates(meta: &ModelMeta, floor: u32) -> impl Iterator<Item = u32> {
    let cap = CTX_DEFAULT_MAX.min(trained(meta));
    let powers = (0..u32::BITS).rev().map(|bit| 1 << bit).filter(move |&power| power < cap && power > floor);
    [cap].into_iter().chain(powers).chain([floor])
}

fn fitting_why(meta: &ModelMeta, ctx: u32, room: &Room) -> String {
    if room.available_bytes.is_none() {
        return "the machine's memory is not known; a careful default".to_owned();
    }
    match ctx {
        _ if ctx == trained(meta) => "all that the model was trained with".to_owned(),
        CTX_DEFAULT_MAX => format!("a default; the model was trained with {}", trained(meta)),
        _ => format!("the cells for it fit in {}", room.part),
    }
}

/// Cells that are enough when answers share them: they do in main memory, unless their number was asked for.
fn shared_cells(want: &Want, room: &Room) -> Option<u64> {
    room.cells_shared.filter(|_| want.parallel.is_none())
}

/// Always one answer's context; beyond it, cells for all answers at once or enough to share, as far as the default
/// room has them.
fn cells(ctx: u32, want: &Want, parallel: u32, room: &Room) -> (u32, String) {
    let (one, all) = (cells_for(ctx.into()), cells_for(u64::from(ctx) * u64::from(parallel)));
    let shared = shared_cells(want, room);
    let cells = one.max(all.min(shared.unwrap_or(all)).min(room.cells_default));
    let why = if cells == all {
        format!("{parallel} answers of {ctx} tokens")
    } else if shared.is_some() {
        format!("shared by {parallel} answers, of which few need {ctx} tokens; --parallel N makes room for N")
    } else {
        let (part, default) = (room.part, room.cells_default);
        format!("{parallel} full answers need {all}, and {part} holds {default}; answers wait for free cells")
    };
    (cells as u32, why)
}

fn answers(want: &Want, parallel: u32, ctx: u32, cells: u32) -> (u32, String) {
    let useful = (cells / ctx.clamp(1, ANSWER_CELLS_MIN)).max(1);
    let asked = if want.parallel.is_some() { "asked for" } else { "a default" };
    if useful < parallel {
        (useful, format!("{parallel} is {asked}, but {cells} cells serve no more answers well"))
    } else {
        (parallel, asked.to_owned())
    }
}
