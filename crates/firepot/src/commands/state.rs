//! `firepot state`: taking chats, presets and trials along to another machine.

use std::path::Path;

use firepot_store::{
    Home,
    state::{Imported, Onto, StateModel, export, import},
};

use crate::{cli::State, settings::Settings, table};

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Writes or takes in a state.
pub fn state(settings: &Settings, what: &State) -> anyhow::Result<()> {
    let home = settings.open_home()?;
    match what {
        State::Export { file } => write(&home, file),
        State::Import { file, merge, replace } => {
            let onto = match (merge, replace) {
                (true, _) => Onto::Merge,
                (_, true) => Onto::Replace,
                _ => Onto::Empty,
            };
            println!("{}", told(&import(&home, file, onto)?));
            Ok(())
        }
    }
}

fn write(home: &Home, file: &Path) -> anyhow::Result<()> {
    let written = export(home, file, VERSION)?;
    let (chats, models) = (written.manifest.chats, written.manifest.models.len());
    println!(
        "wrote {} ({}): {chats} chats, and the names of {models} models, whose files stay here",
        file.display(),
        table::bytes(written.size_bytes),
    );
    Ok(())
}

/// What was taken in, and what is still to be fetched.
pub fn told(imported: &Imported) -> String {
    let Imported { chats, kept, trials, missing, backup, manifest } = imported;
    let mut lines = vec![format!(
        "took in {chats} chats and {trials} trials of {}",
        manifest.created_at.strftime("%Y-%m-%d %H:%M UTC")
    )];
    if *kept > 0 {
        lines.push(format!("{kept} chats were here already and stayed as they were"));
    }
    lines.extend(backup.iter().map(|backup| format!("what there was before is in {}", backup.display())));
    lines.extend(missing.iter().map(fetch));
    lines.join("\n")
}

fn fetch(model: &StateModel) -> String {
    let StateModel { name, size_bytes, .. } = model;
    format!("the model {name} ({}) is not here as it was: firepot pull {name}", table::bytes(*size_bytes))
}
