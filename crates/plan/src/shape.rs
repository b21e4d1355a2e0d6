//! Context, cells and parallel answers in a given room.

use crate::{
    Want,
    budget::{Room, trained},
    error::cells_for,
    footprint::Footprint,
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
    /// The best shape in this room; `None` where it is too small.
    pub fn fit(footprint: &Footprint<'_>, want: &Want, room: &Room) -> Option<Self> {
        let parallel = footprint.params.parallel;
        if room.cells_max < CELLS_STEP.into() {
            return None;
        }
        let (ctx, ctx_why) = match want.ctx {
            Some(ctx) => (wished_ctx(ctx, room)?, "asked for".to_owned()),
            None => default_ctx(footprint, want, room)?,
        };
        let (cells, cells_why) = cells(ctx, want, parallel, room);
        let (parallel, parallel_why) = answers(want, parallel, ctx, cells);
        Some(Self { ctx, ctx_why, cells, cells_why, parallel, parallel_why })
    }
}

fn wished_ctx(ctx: u32, room: &Room) -> Option<u32> {
    (cells_for(ctx.into()) <= room.cells_max).then_some(ctx)
}

/// The largest candidate of which the default room has as many as were asked for, or one where answers share the
/// cells; never less than the least that was asked for.
fn default_ctx(footprint: &Footprint<'_>, want: &Want, room: &Room) -> Option<(u32, String)> {
    let least = match want.least_ctx() {
        Some(least) => Some(wished_ctx(least, room)?),
        None => None,
    };
    let floor = room.ctx_floor.max(least.unwrap_or(0));
    let full =
        want.parallel.unwrap_or(if room.available_bytes.is_some() { 1 } else { footprint.params.parallel });
    let fits = |ctx: u32| cells_for(u64::from(ctx) * u64::from(full)) <= room.cells_default;
    if let Some(ctx) = candidates(room.ctx_cap, floor).find(|&ctx| fits(ctx)) {
        return Some((ctx, fitting_why(footprint, ctx, room)));
    }
    if let Some(least) = least {
        return Some((least, "the least that was asked for, and memory is short".to_owned()));
    }
    if cells_for(floor.into()) <= room.cells_max {
        return Some((floor, format!("memory is short; a context below {floor} tokens is of little use")));
    }
    // Fewer cells than the floor's, so fewer tokens than the model was trained with.
    Some((room.cells_max as u32, "memory is short: this is all that fits beside the weights".to_owned()))
}

/// The cap, then powers of two below it, largest first, and the floor.
fn candidates(cap: u32, floor: u32) -> impl Iterator<Item = u32> {
    let powers = (0..u32::BITS).rev().map(|bit| 1 << bit).filter(move |&power| power < cap && power > floor);
    [cap.max(floor)].into_iter().chain(powers).chain([floor])
}

fn fitting_why(footprint: &Footprint<'_>, ctx: u32, room: &Room) -> String {
    let trained = trained(footprint.layout);
    if room.available_bytes.is_none() {
        return "the machine's memory is not known; a careful default".to_owned();
    }
    match ctx {
        _ if ctx == trained => "all that the model was trained with".to_owned(),
        CTX_DEFAULT_MAX if room.ctx_cap == ctx => {
            format!("a longer one takes longer to start; the model was trained with {trained}")
        }
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
