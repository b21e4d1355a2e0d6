//! What `firepot verify` knows that the trial itself does not: this machine, its calibration, the model's file, the plan, and
//! the program.

mod evidence;
mod ground;
mod model;
mod perplexity;
mod progress;
mod proof;
mod resume;
mod sides;

pub use evidence::{ELSEWHERE, calibration, elsewhere, machine, plan, tool};
pub use ground::{ground, time_left};
pub use perplexity::perplexity;
pub use progress::{Bars, Lines};
pub use proof::prove;
pub use resume::differences;
pub use sides::{Keys, Sides, Wanted};
