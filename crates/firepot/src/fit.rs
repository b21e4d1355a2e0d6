//! Whether a model fits a machine, how, and what would change that.

use firepot_gguf::Layout;
use firepot_machine::Machine;
use firepot_plan::{Explanation, Plan, Want, explain, plan};
use firepot_server::pool::PlanFailure;
use serde::Serialize;

/// What this machine is called beside machines that are described.
pub const THIS_MACHINE: &str = "this machine";

/// How a model goes with a machine.
#[derive(Debug, Serialize)]
pub struct Fit {
    /// As it was named.
    pub model: String,
    /// Which machine.
    pub machine: String,
    /// Whether it can be loaded.
    pub fits: bool,
    /// Where it would be, in words.
    pub place: Option<String>,
    /// How it would be loaded; its memory is predicted.
    pub plan: Option<Plan>,
    /// What limits it.
    pub explanation: Option<Explanation>,
    /// Why it does not fit.
    pub refused: Option<Refused>,
}

/// Why a model does not fit.
#[derive(Debug, Serialize)]
pub struct Refused {
    /// Why.
    pub message: String,
    /// The nearest thing that fits, or what else can be done.
    pub hint: Option<String>,
}

impl Fit {
    /// Plans `model` for a machine.
    pub fn of(model: String, layout: &Layout, name: &str, machine: &Machine, want: &Want) -> Self {
        match plan(layout, machine, want) {
            Ok(plan) => Self {
                model,
                machine: name.to_owned(),
                fits: true,
                place: Some(place(&plan, machine)),
                explanation: Some(explain(layout, machine, want, &plan)),
                plan: Some(plan),
                refused: None,
            },
            Err(error) => {
                Self::refused(model, name, Refused { message: error.to_string(), hint: Some(error.hint()) })
            }
        }
    }

    /// A model that cannot be planned at all.
    pub fn unread(model: String, name: &str, failure: PlanFailure) -> Self {
        Self::refused(model, name, Refused { message: failure.message, hint: failure.hint })
    }

    fn refused(model: String, name: &str, refused: Refused) -> Self {
        let machine = name.to_owned();
        Self {
            model,
            machine,
            fits: false,
            place: None,
            plan: None,
            explanation: None,
            refused: Some(refused),
        }
    }
}

fn place(plan: &Plan, machine: &Machine) -> String {
    let Some(&first) = plan.gpus.first() else { return "main memory".to_owned() };
    let name = machine.gpus.devices.get(first).map_or("GPU", |gpu| gpu.name.as_str());
    let count = plan.gpus.len();
    let gpus = if count > 1 { format!("{count} × {name}") } else { name.to_owned() };
    match (plan.replicas, plan.gpu_layers, plan.host_experts) {
        (2.., ..) => format!("each of {gpus}"),
        (_, -1, 0) => gpus,
        (_, -1, _) => format!("{gpus}, experts in main memory"),
        (_, layers, _) => format!("{gpus} ({layers} layers), main memory"),
    }
}
