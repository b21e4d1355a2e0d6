//! `firepot create`: a model of another one, from a Modelfile.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use firepot_store::{CreateSpec, Defaults, Home, ModelName, ModelRef};
use firepot_wire::ollama::Modelfile;

use crate::{
    cli::Create,
    commands::pull::find_or_pull,
    exit::{Exit, Failure},
    settings::Settings,
};

/// Largest Modelfile that is read, in bytes.
const MODELFILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Makes the model. What the Modelfile names is brought into the store first: a file is copied, a model pulled.
pub async fn create(settings: &Settings, args: &Create) -> anyhow::Result<()> {
    let text = read(&args.file)?;
    let modelfile = Modelfile::parse(&text).map_err(|error| {
        let failure = Failure::new(Exit::Failed, format!("{}: {error}", args.file.display()));
        match error.hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    })?;
    for warning in &modelfile.warnings {
        eprintln!("warning: {warning}");
    }
    let home = settings.open_home()?;
    let name: ModelName = args.name.parse()?;
    let from = firepot_store::From::Model(base(settings, &home, &modelfile, &args.file, &name).await?);
    let spec = CreateSpec { from, defaults: defaults(modelfile) };
    let model = home.models().create(&name, &spec)?;
    eprintln!("created {}", model.name);
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<String> {
    let failed = |error| Failure::new(Exit::Failed, format!("{} cannot be read: {error}", path.display()));
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin().lock().take(MODELFILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    } else {
        let file = std::fs::File::open(path).map_err(|error| {
            failed(error).hint("name it with --file, or write one that begins with: FROM MODEL")
        })?;
        file.take(MODELFILE_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    }
    Ok(text)
}

/// The model that it is made of; a file becomes one under the new name.
async fn base(
    settings: &Settings,
    home: &Home,
    modelfile: &Modelfile,
    path: &Path,
    name: &ModelName,
) -> anyhow::Result<ModelName> {
    let [from] = &modelfile.from[..] else {
        return Err(Failure::new(Exit::Failed, "a model is made of one FROM")
            .hint("files of a split model come together: name the first one's repository in a pull")
            .into());
    };
    match from.parse::<ModelRef>()? {
        ModelRef::File(file) => {
            let file = beside(&file, path);
            home.models().import(&file, name, &mut |_| {})?;
            Ok(name.clone())
        }
        ModelRef::Name(_) | ModelRef::Url(_) => Ok(find_or_pull(settings, home, from).await?.name),
    }
}

/// A file that a Modelfile names: seen from the Modelfile, or from the user's home.
fn beside(file: &Path, modelfile: &Path) -> PathBuf {
    if let (Ok(rest), Some(home)) = (file.strip_prefix("~"), std::env::home_dir()) {
        return home.join(rest);
    }
    let folder = modelfile.parent().filter(|_| modelfile != Path::new("-"));
    folder.map_or_else(|| file.to_owned(), |folder| folder.join(file))
}

fn defaults(modelfile: Modelfile) -> Defaults {
    let Modelfile { parameters, system, template, messages, license, .. } = modelfile;
    let messages = messages.into_iter().map(|message| (message.role, message.content));
    Defaults::new(parameters, system, template, messages, license)
}
