//! What `firepot-measure` promises, written down: docs/statistics.md from simulations, docs/schema/ from its types.

use std::path::Path;

use anyhow::ensure;
use firepot_measure::{schema, simulation};
use firepot_store::write_atomic;

/// Publishes the schemas.
pub fn schemas() -> anyhow::Result<()> {
    Ok(schema::publish(Path::new("docs/schema"))?)
}

/// Simulates, writes docs/statistics.md, and fails when a figure is not reached.
pub fn statistics() -> anyhow::Result<()> {
    let (page, missed) = simulation::document();
    write_atomic(Path::new("docs/statistics.md"), page.as_bytes())?;
    print!("{page}");
    ensure!(missed.is_empty(), "not reached: {}", missed.join("; "));
    Ok(())
}
