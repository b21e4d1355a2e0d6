//! `firepot create`: a model of another one, from a Modelfile.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
};

use firepot_store::{CreateSpec, DefaultMessage, Defaults, Home, ModelName, ModelRef};
use firepot_wire::ollama::Modelfile;

use crate::{
    cli::Create,
    exit::{Exit, Failure},
    settings::Settings,
};

/// Largest Modelfile that is read, in bytes.
const MODELFILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Makes the model. A file that the Modelfile names is copied into the store first.
pub fn create(settings: &Settings, args: &Create) -> anyhow::Result<()> {
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
    let from = firepot_store::From::Model(base(&home, &modelfile, &args.file, &name)?);
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
fn base(home: &Home, modelfile: &Modelfile, path: &Path, name: &ModelName) -> anyhow::Result<ModelName> {
    let [from] = &modelfile.from[..] else {
        return Err(Failure::new(Exit::Failed, "a model is made of one FROM")
            .hint("files of a split model come together: name the first one's repository in a pull")
            .into());
    };
    match from.parse::<ModelRef>()? {
        ModelRef::Name(base) => Ok(base),
        ModelRef::Url(url) => Err(Failure::new(Exit::Failed, format!("FROM {url} is not in the store"))
            .hint(format!("pull it first: firepot pull {url}"))
            .into()),
        ModelRef::File(file) => {
            let folder = path.parent().filter(|_| file.is_relative() && path != Path::new("-"));
            let file: PathBuf = folder.map_or_else(|| file.clone(), |folder| folder.join(&file));
            home.models().import(&file, name, &mut |_| {})?;
            Ok(name.clone())
        }
    }
}

fn defaults(modelfile: Modelfile) -> Defaults {
    let message = |message: firepot_wire::ollama::ModelfileMessage| DefaultMessage {
        role: message.role,
        content: message.content,
    };
    let mut defaults = Defaults {
        parameters: modelfile.parameters,
        system: modelfile.system,
        messages: modelfile.messages.into_iter().map(message).collect(),
        license: modelfile.license,
        ..Defaults::default()
    };
    if let Some(template) = modelfile.template {
        defaults.set_template(template);
    }
    defaults
}
