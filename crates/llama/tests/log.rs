//! llama.cpp's log, seen by a subscriber. In a program of its own: `tracing` decides once for each event whether
//! anybody listens, and threads of other tests would have it decide otherwise.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};

use firepot_engine::LoadSpec;
use firepot_llama::{LOG_TARGET, LoadError, dry_run};

/// What a subscriber wrote.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn spec(path: &std::path::Path) -> LoadSpec {
    LoadSpec {
        ctx_per_answer: 256,
        kv_cells: 256,
        parallel: 1,
        sequences: 64,
        batch_tokens: 256,
        ubatch_tokens: 256,
        threads: 1,
        threads_batch: 1,
        ..LoadSpec::small(path.to_owned())
    }
}

#[test]
fn errors_reach_tracing_and_the_caller() {
    let written = Written::default();
    let writer = written.clone();
    tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).init();

    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"GGUF\x03\0\0\0cut").unwrap();
    let error = dry_run(&spec(file.path())).unwrap_err();
    let LoadError::Damaged { reason, .. } = error else { panic!("damaged, not {error}") };

    let bytes = written.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let log = String::from_utf8(bytes).unwrap();
    let errors: Vec<&str> = log.lines().filter(|line| line.contains("ERROR")).collect();
    assert!(!errors.is_empty());
    assert!(errors.iter().all(|line| line.contains(&format!("ERROR {LOG_TARGET}: "))), "{log}");
    let first = reason.split("; ").next().unwrap();
    assert!(errors[0].ends_with(first), "{first:?} is in {:?}", errors[0]);
}
