//! Any bytes are a model, or an error that names what is wrong; never a panic, never much memory.

#![no_main]

use firepot_gguf::{Gguf, ModelMeta, write::raw_entries};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    drop(raw_entries(bytes));
    let Ok(gguf) = Gguf::read(bytes) else { return };
    drop(ModelMeta::from_gguf(&gguf));
    drop(gguf.layout());
});
