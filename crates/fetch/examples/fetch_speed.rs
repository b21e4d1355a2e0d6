//! Fetches one file into a new home and says how long it took and how much memory: `fetch_speed URL DIR [DIGEST]`.
//! For comparison with `curl -o`.

use std::time::Instant;

use firepot_fetch::{FileSpec, Http, fetch_file};
use firepot_store::{Access, Home};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut words = std::env::args().skip(1);
    let (Some(url), Some(dir)) = (words.next(), words.next()) else {
        return Err("usage: fetch_speed URL DIR [sha256:DIGEST]".into());
    };
    let digest = words.next().map(|digest| digest.parse()).transpose()?;
    let home = Home::open(dir.as_ref(), Access::ReadWrite)?;
    let http = Http::new()?;
    let idle_bytes = resident_bytes("VmRSS:");
    let spec = FileSpec {
        url: url.parse()?,
        size_bytes: None,
        digest,
        authorization: None,
        label: "a file".to_owned(),
    };
    let begin = Instant::now();
    let arrived = std::sync::Mutex::new(begin);
    let blob = fetch_file(&http, &home, spec, |_| {
        if let Ok(mut arrived) = arrived.lock() {
            *arrived = Instant::now();
        }
    })
    .await?;
    let arrived = arrived.into_inner()? - begin;
    let above_idle_bytes = resident_bytes("VmHWM:").saturating_sub(idle_bytes);
    println!(
        "{} {} bytes, all there after {:.3} s, hashed and synced after {:.3} s, {above_idle_bytes} bytes of memory above idle",
        blob.digest,
        blob.size_bytes,
        arrived.as_secs_f64(),
        begin.elapsed().as_secs_f64(),
    );
    Ok(())
}

fn resident_bytes(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).and_then(|kib| kib.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
