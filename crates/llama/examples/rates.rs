//! Temporary.
use firepot_engine::*;
use firepot_llama::*;
use std::time::*;
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let spec = LoadSpec {
        path: a[1].clone().into(),
        ctx_per_answer: 2048,
        kv_cells: 4096,
        parallel: 4,
        batch_tokens: 512,
        ubatch_tokens: 512,
        threads: 2,
        threads_batch: 2,
        flash_attention: true,
        kv_type_k: KvType::F16,
        kv_type_v: KvType::F16,
        gpu_layers: 0,
        devices: vec![],
        tensor_split: vec![],
        mmap: true,
        mlock: false,
        repack: a[2] == "repack",
        check_tensors: false,
        warmup: false,
    };
    let t = Instant::now();
    let mut d = LlamaDecoder::load(&spec, &mut LoadControl { progress: &mut |_| true }).unwrap();
    let load = t.elapsed();
    let n = 512usize;
    let mut pre = vec![];
    let mut dec = vec![];
    for round in 0..3 {
        let items = (0..n)
            .map(|i| BatchItem {
                token: 100 + i as i32,
                position: i as u32,
                sequence: SeqId(0),
                logits: i + 1 == n,
            })
            .collect();
        let dt = d.decode(&Batch { items }).unwrap();
        pre.push(n as f64 / dt.as_secs_f64());
        let steps = 64;
        let t = Instant::now();
        for i in 0..steps {
            d.decode(&Batch {
                items: vec![BatchItem {
                    token: 200 + i,
                    position: (n as i32 + i) as u32,
                    sequence: SeqId(0),
                    logits: true,
                }],
            })
            .unwrap();
            std::hint::black_box(d.logits(0)[0]);
        }
        dec.push(steps as f64 / t.elapsed().as_secs_f64());
        d.remove(SeqId(0), 0, None);
        let _ = round;
    }
    println!("{} load {:?} prefill {:.0?} decode {:.1?}", a[2], load, pre, dec);
    let c = d.tokenizer().constraint(&firepot_chat::Format::Json).unwrap();
    let mut c = c.unwrap();
    let t = Instant::now();
    let mut l = vec![0.0f32; d.info().vocab_size as usize];
    c.mask(&mut l);
    println!("mask {:?}", t.elapsed());
    let t = Instant::now();
    for _ in 0..100 {
        std::hint::black_box(c.allows(5));
    }
    println!("allows {:?}", t.elapsed() / 100);
    let t = Instant::now();
    let _ = d.tokenizer().constraint(&firepot_chat::Format::Json).unwrap();
    println!("constraint {:?}", t.elapsed());
    println!("{:?} {}", d.info().memory, d.info().max_sequences);
}
