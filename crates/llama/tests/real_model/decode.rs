//! Batches, logits, aborts.

use std::{sync::atomic::Ordering, thread, time::Duration};

use firepot_chat::TokenId;
use firepot_engine::{Batch, BatchItem, DecodeError, Decoder, KvType, LoadSpec, SeqId};

use crate::support::{QUESTION, batch, best, decoder, generate, load, spec};

#[test]
fn it_knows_the_capital_of_france() {
    let mut decoder = decoder();
    let prompt = decoder.tokenizer().tokenize(QUESTION, true, true).unwrap();
    let answer = generate(&mut decoder, 0, 0, &prompt, 16);
    assert!(answer.contains("Paris"), "{answer}");
    assert!(decoder.progress().load(Ordering::Relaxed) > 100, "graph nodes are counted");
}

#[test]
fn every_way_to_hold_the_model_gives_an_answer() {
    let ways = [
        LoadSpec { repack: true, ..spec() },
        LoadSpec { mmap: false, check_tensors: true, ..spec() },
        LoadSpec { mlock: true, warmup: true, ..spec() },
        LoadSpec { kv_type_k: KvType::Q8_0, kv_type_v: KvType::Q8_0, ..spec() },
        LoadSpec { flash_attention: false, ubatch_tokens: 8, ..spec() },
        LoadSpec { threads: 1, threads_batch: 2, ..spec() },
    ];
    for spec in ways {
        let mut decoder = load(&spec).unwrap();
        assert_eq!(decoder.pos_max(SeqId(0)), None, "a warm-up leaves nothing behind");
        let prompt = decoder.tokenizer().tokenize(QUESTION, true, true).unwrap();
        let answer = generate(&mut decoder, 0, 0, &prompt, 16);
        assert!(answer.contains("Paris"), "{answer:?} with {spec:?}");
    }
}

#[test]
fn a_decoder_works_on_another_thread_than_it_was_loaded_on() {
    let mut decoder = decoder();
    let answer = thread::spawn(move || {
        let prompt = decoder.tokenizer().tokenize(QUESTION, true, true).unwrap();
        generate(&mut decoder, 0, 0, &prompt, 16)
    });
    assert!(answer.join().unwrap().contains("Paris"));
}

#[test]
fn sequences_in_one_batch_do_not_mix() {
    let mut decoder = decoder();
    let tokenizer = decoder.tokenizer();
    let prompts = ["The capital of France is", "The capital of Germany is", "2, 4, 6, 8,"];
    let prompts = prompts.map(|text| tokenizer.tokenize(text, true, true).unwrap());
    let alone = prompts.each_ref().map(|prompt| {
        decoder.decode(&batch(9, 0, prompt)).unwrap();
        let token = best(decoder.logits(prompt.len() - 1));
        decoder.remove(SeqId(9), 0, None);
        token
    });

    // The first sequence decodes its last token while the others are prefilled.
    let (last, before) = prompts[0].split_last().unwrap();
    decoder.decode(&batch(0, 0, before)).unwrap();
    let mut items = batch(0, before.len() as u32, &[*last]).items;
    let mut rows = vec![items.len() - 1];
    for (sequence, prompt) in prompts.iter().enumerate().skip(1) {
        items.extend(batch(sequence as u32, 0, prompt).items);
        rows.push(items.len() - 1);
    }
    decoder.decode(&Batch { items }).unwrap();
    let together: Vec<TokenId> = rows.into_iter().map(|row| best(decoder.logits(row))).collect();
    assert_eq!(together, alone);
}

#[test]
fn a_call_is_aborted_from_another_thread_and_goes_on_from_what_is_held() {
    let mut decoder = decoder();
    let tokens = vec![100; 500];
    let (handle, progress) = (decoder.abort_handle(), decoder.progress());
    let aborter = thread::spawn(move || {
        while progress.load(Ordering::Relaxed) < 50 {
            thread::sleep(Duration::from_millis(1));
        }
        handle.abort();
    });
    let outcome = decoder.decode(&batch(0, 0, &tokens));
    aborter.join().unwrap();
    assert_eq!(outcome, Err(DecodeError::Aborted));
    let held = decoder.pos_max(SeqId(0)).map_or(0, |last| last + 1);
    assert!(held < 500);
    decoder.decode(&batch(0, held, &tokens[held as usize..])).unwrap();
    assert_eq!(decoder.pos_max(SeqId(0)), Some(499));
}

#[test]
fn an_abort_between_calls_ends_the_next_one_only() {
    let mut decoder = decoder();
    decoder.abort_handle().abort();
    assert_eq!(decoder.decode(&batch(0, 0, &[1])), Err(DecodeError::Aborted));
    assert!(decoder.decode(&batch(0, 0, &[1])).is_ok());
}

#[test]
fn a_batch_without_cells_is_refused_and_changes_nothing() {
    let mut decoder = load(&LoadSpec { kv_cells: 256, ctx_per_answer: 256, ..spec() }).unwrap();
    decoder.decode(&batch(0, 0, &[100; 200])).unwrap();
    let outcome = decoder.decode(&batch(1, 0, &[100; 100]));
    assert_eq!(outcome, Err(DecodeError::NoCells { tokens: 100 }));
    assert_eq!((decoder.pos_max(SeqId(0)), decoder.pos_max(SeqId(1))), (Some(199), None));
}

#[test]
fn what_llama_cpp_would_abort_on_is_refused() {
    let mut decoder = decoder();
    let sequences = decoder.info().max_sequences;
    let item = BatchItem { token: 1, position: 0, sequence: SeqId(0), logits: true };
    let outputs = (0..=sequences).map(|position| BatchItem { position, ..item }).collect();
    let batches = [
        Batch::default(),
        batch(0, 0, &[1; 513]),
        batch(sequences, 0, &[1]),
        batch(0, 0, &[-1]),
        batch(0, 0, &[49_152]),
        Batch { items: vec![BatchItem { position: u32::MAX, ..item }] },
        Batch { items: outputs },
        // A gap in the positions.
        Batch { items: vec![item, BatchItem { position: 7, ..item }] },
    ];
    for batch in batches {
        assert_eq!(decoder.decode(&batch), Err(DecodeError::Failed { code: -1 }), "{batch:?}");
    }
    assert_eq!(decoder.pos_max(SeqId(0)), None);
    assert!(decoder.decode(&batch(0, 0, &[1])).is_ok());
}

#[test]
#[should_panic(expected = "batch item 0 has no logits")]
fn logits_that_nobody_asked_for_are_not_invented() {
    let mut decoder = decoder();
    decoder.decode(&batch(0, 0, &[1, 2])).unwrap();
    decoder.logits(0);
}
