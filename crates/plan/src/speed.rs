//! What a token must read, and so how fast memory lets it be decoded at best.

use firepot_gguf::{Layer, Layout};

use crate::{
    Plan,
    footprint::{Device, Placing},
};

/// Bytes of weights that one token reads on each device, main memory (no number) and GPUs, at an empty cache: all but the
/// embedding, of which it reads a row, and the experts that are not in use. Of replicas, what one reads.
#[must_use]
pub fn bytes_per_token(layout: &Layout, plan: &Plan) -> Vec<(Option<usize>, u64)> {
    let placing = placing(layout, plan);
    let number = |device: Device| match device {
        Device::Host => None,
        Device::Gpu(gpu) => Some(gpu),
    };
    let on = |device: Device| {
        let layers = layout.layers.iter().zip(&placing.layers).enumerate();
        let layers = layers.map(|(index, (layer, &on))| {
            let experts_on = if (index as u32) < placing.host_experts { Device::Host } else { on };
            let dense = if on == device { layer.dense.bytes() } else { 0 };
            let experts = if experts_on == device { experts_read(layer) } else { 0 };
            if layer.computed { dense.saturating_add(experts) } else { 0 }
        });
        let output = if placing.output == device { output_read(layout) } else { 0 };
        layers.fold(output, u64::saturating_add)
    };
    let devices = placing.devices().into_iter().map(|device| (number(device), on(device)));
    devices.filter(|&(_, bytes)| bytes > 0).collect()
}

fn placing(layout: &Layout, plan: &Plan) -> Placing {
    let shares: Vec<(usize, u64)> = plan.gpus.iter().copied().zip(plan.gpu_shares.iter().copied()).collect();
    let shares = if plan.replicas > 1 { &shares[..1] } else { &shares[..] };
    let layers = u32::try_from(plan.gpu_layers).unwrap_or(u32::MAX);
    Placing::on_gpus(layout, layers, shares, plan.host_experts)
}

fn experts_read(layer: &Layer) -> u64 {
    let all = u128::from(layer.experts.bytes());
    let read = all * u128::from(layer.experts_used) / u128::from(layer.experts_count.max(1));
    read.min(all) as u64
}

fn output_read(layout: &Layout) -> u64 {
    let embedding = if layout.tied { layout.input.bytes() } else { 0 };
    layout.output.bytes().saturating_add(embedding)
}

/// Tokens per second that one answer has at best when each device reads at its bandwidth, in bytes per second; devices
/// work one after the other. `None` where a bandwidth is not known.
#[must_use]
pub fn decode_at_most(
    bytes: &[(Option<usize>, u64)],
    bandwidth: impl Fn(Option<usize>) -> Option<f64>,
) -> Option<f64> {
    let times = bytes.iter().map(|&(device, bytes)| Some(bytes as f64 / bandwidth(device)?));
    let seconds: f64 = times.sum::<Option<f64>>()?;
    (seconds > 0.0).then(|| 1.0 / seconds)
}
