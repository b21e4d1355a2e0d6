//! Sequences: shared, cut, saved and restored.

use firepot_engine::{Decoder, SeqId};

use crate::support::{QUESTION, batch, best, decoder, generate};

#[test]
fn a_shared_prefix_continues_as_if_computed() {
    let mut decoder = decoder();
    let prompt = decoder.tokenizer().tokenize(QUESTION, true, true).unwrap();
    let undisturbed = generate(&mut decoder, 0, 0, &prompt, 8);
    let half = prompt.len() as u32 / 2;
    decoder.share(SeqId(0), SeqId(1), half);
    assert_eq!((decoder.pos_min(SeqId(1)), decoder.pos_max(SeqId(1))), (Some(0), Some(half - 1)));
    assert_eq!(generate(&mut decoder, 1, half, &prompt[half as usize..], 8), undisturbed);
}

#[test]
fn sharing_takes_no_cells_and_outlives_its_source() {
    let mut decoder = decoder();
    let cells = decoder.info().kv_cells;
    let tokens = vec![100; 500];
    decoder.decode(&batch(0, 0, &tokens)).unwrap();
    for sequence in 1..decoder.info().max_sequences {
        decoder.share(SeqId(0), SeqId(sequence), 500);
    }
    decoder.remove(SeqId(0), 0, None);
    assert_eq!((decoder.pos_max(SeqId(0)), decoder.pos_max(SeqId(1))), (None, Some(499)));
    // Every other cell is still free.
    for chunk in 0..(cells - 500) / 500 {
        decoder.decode(&batch(0, chunk * 500, &tokens)).unwrap();
    }
}

#[test]
fn a_sequence_is_cut_at_its_end_and_in_its_middle() {
    let mut decoder = decoder();
    decoder.decode(&batch(0, 0, &[100; 50])).unwrap();
    assert!(decoder.remove(SeqId(0), 30, None));
    assert_eq!(decoder.pos_max(SeqId(0)), Some(29));
    assert!(decoder.remove(SeqId(0), 0, Some(10)));
    assert_eq!((decoder.pos_min(SeqId(0)), decoder.pos_max(SeqId(0))), (Some(10), Some(29)));
    assert!(decoder.remove(SeqId(0), 0, None));
    assert_eq!(decoder.pos_min(SeqId(0)), None);
    assert!(decoder.remove(SeqId(0), 0, None), "an empty sequence can be emptied");
}

#[test]
fn sequences_that_do_not_exist_are_empty_and_cannot_be_cut() {
    let mut decoder = decoder();
    let beyond = SeqId(decoder.info().max_sequences);
    decoder.decode(&batch(0, 0, &[100; 5])).unwrap();
    decoder.share(SeqId(0), beyond, 5);
    assert_eq!((decoder.pos_min(beyond), decoder.pos_max(beyond)), (None, None));
    assert!(!decoder.remove(beyond, 0, None));
    assert_eq!(decoder.state_bytes(beyond), 0);
    assert!(decoder.snapshot(beyond).is_err());
    assert!(decoder.restore(beyond, &[0; 64]).is_err());
}

#[test]
fn a_state_restored_elsewhere_gives_the_same_logits() {
    let mut decoder = decoder();
    let prompt = decoder.tokenizer().tokenize(QUESTION, true, true).unwrap();
    let (last, before) = prompt.split_last().unwrap();
    let position = before.len() as u32;
    decoder.decode(&batch(0, 0, before)).unwrap();
    let bytes = decoder.state_bytes(SeqId(0));
    let state = decoder.snapshot(SeqId(0)).unwrap();
    assert_eq!(state.len() as u64, bytes, "said before it is read");
    decoder.decode(&batch(0, position, &[*last])).unwrap();
    let expected = decoder.logits(0).to_vec();

    let mut other = self::decoder();
    other.restore(SeqId(3), &state).unwrap();
    assert_eq!((other.pos_min(SeqId(3)), other.pos_max(SeqId(3))), (Some(0), Some(position - 1)));
    other.decode(&batch(3, position, &[*last])).unwrap();
    assert_eq!(other.logits(0), expected);
    assert_eq!(best(other.logits(0)), best(&expected));
}

#[test]
fn a_cut_state_is_refused_and_leaves_the_sequence_empty() {
    let mut decoder = decoder();
    decoder.decode(&batch(0, 0, &[100; 50])).unwrap();
    let state = decoder.snapshot(SeqId(0)).unwrap();
    for length in [0, 1, 8, state.len() / 2, state.len() - 1] {
        assert!(decoder.restore(SeqId(4), &state[..length]).is_err(), "{length} bytes");
        assert_eq!(decoder.pos_max(SeqId(4)), None, "{length} bytes");
    }
    assert_eq!(decoder.pos_max(SeqId(0)), Some(49), "other sequences are left alone");
}
