//! What follows from stored figures, pinned to its number; headers that lie.

use firepot_gguf::{Attention, Layer, Weights};

use super::*;

/// Files are told apart by [`RECKONING`] alone. Whoever changes what is predicted from the same file raises it, and pins the new figures.
#[test]
fn predictions_from_one_file_change_only_with_the_reckoning() {
    let work = Work::of(&layout(Sizes::wide(4)));
    let at = |way, tokens| {
        let found = truth().rates(&work, way, tokens).unwrap();
        format!("{:.4} {:.3}", found.decode, found.prefill)
    };
    let figures = [
        at(USUAL, 128),
        at(USUAL, 2048),
        at(Way { flash: true, ..USUAL }, 2048),
        at(Way { repack: true, ..USUAL }, 512),
    ];
    assert_eq!(
        (RECKONING, figures.join(", ").as_str()),
        (4, "64.0159 1059.594, 45.5469 740.298, 28.5291 788.606, 75.0977 609.228")
    );
}

#[test]
fn another_reckoning_or_an_older_form_is_not_read() {
    let mut stored = serde_json::to_value(truth()).unwrap();
    stored["stamp"]["reckoning"] = (RECKONING - 1).into();
    let read: Calibration = serde_json::from_value(stored.clone()).unwrap();
    assert_ne!(read.stamp, truth().stamp);
    stored["stamp"].as_object_mut().unwrap().remove("reckoning");
    assert!(serde_json::from_value::<Calibration>(stored).is_err());
}

#[test]
fn every_chunk_passes_over_all_experts_and_only_the_last_token_reads_the_end() {
    let mixture = |experts_used| Layer {
        experts: Weights::of([(kind(8), 34 << 20)]),
        experts_count: 32,
        experts_used,
        computed: true,
        ..Layer::default()
    };
    let whole = Layout {
        layers: vec![mixture(8); 3],
        output: Weights::of([(kind(8), 34 << 10)]),
        input: Weights::default(),
        tied: false,
        ..layout(Sizes::narrow(2, 64))
    };
    let work = Work::of(&whole);
    let [experts] = &work.kinds[..] else { panic!("{work:?}") };
    // Two layers of three: the last one's experts see the last token alone.
    let elements = f64::from(32 << 20);
    assert_eq!((experts.pass_elements, experts.prefill_macs), (2.0 * elements, 2.0 * elements / 4.0));
    assert!(near(experts.last_bytes, f64::from(34 << 20) / 4.0 + f64::from(34 << 10), 1e-6));
    let (device, rates) = (on_cpu(), on_cpu().kind("Q8_0").unwrap().plain);
    let beside = 128.0 * work.elements * device.element_s + 3.0 * device.layer_s;
    let last = experts.last_bytes / rates.decode_bytes;
    let chunk = elements / rates.prefill_macs * (128.0 / 2.0 + rates.pass_tokens * 2.0);
    let prefill = truth().rates(&work, USUAL, 128).unwrap().prefill;
    assert!(near(128.0 * 0.99 / prefill, chunk + beside + last, 0.01), "{prefill}");
}

#[test]
fn a_header_that_lies_about_its_sizes_neither_panics_nor_wraps() {
    let honest = layout(Sizes::narrow(2, 64));
    let lie = Attention {
        query_heads: u32::MAX,
        kv_heads: u32::MAX,
        key_length: u32::MAX,
        value_length: u32::MAX,
        window: Some(u32::MAX),
        cached: true,
    };
    let layer = Layer {
        dense: Weights::of([(kind(12), u64::MAX), (kind(8), u64::MAX)]),
        experts: Weights::of([(kind(12), u64::MAX)]),
        experts_used: u32::MAX,
        feed_forward_length: u32::MAX,
        attention: Some(lie),
        computed: true,
        ..Layer::default()
    };
    let lying = Layout { embedding_length: u32::MAX, layers: vec![layer; 3], ..honest };
    let work = Work::of(&lying);
    let looked = work.attention(u32::MAX);
    assert!(looked.macs > 1e20 && looked.bytes > 1e20 && looked.bytes.is_finite(), "{looked:?}");
    assert!(work.elements > 1e19 && work.kinds[0].prefill_macs > 1e20, "{work:?}");
    assert!(!work.key().is_empty() && !Work::kinds_that_matter(&lying).is_empty());
    let found = truth().rates(&work, USUAL, 1 << 20).unwrap();
    assert!(found.decode > 0.0 && found.prefill > 0.0, "{found:?}");
    let deepest = on_cpu().decode_s(&work, USUAL, u32::MAX).unwrap();
    assert!(deepest.is_finite() && deepest > 0.0);
}
