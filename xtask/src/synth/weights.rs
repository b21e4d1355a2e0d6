//! Random weights in ggml's block formats (`ggml-common.h`), with mean 0 and the standard deviation 1/√(inputs), which keeps
//! activations about as large as they came.

use std::io::{self, Write};

use fastrand::Rng;
use firepot_catalogue::{Storage, TensorSpec, Values};
use half::f16;

/// Fills blocks that together hold weights of this standard deviation.
///
/// The quants are uniform bits, so types with an even number of steps are off centre by half a step. The scale follows from the standard deviation that a block's formula gives them:
///
/// | type | weight | deviation at `d` = 1 |
/// |---|---|---|
/// | `Q4_0`, `Q5_0`, `Q8_0` | d · (q − centre), q of 4, 5, 8 bits | 4.6, 9.2, 73.9 |
/// | `Q4_K` | d · s · q − 7.5 · d · m; s, m of 6 bits, q of 4 | 256 |
/// | `Q6_K` | d · s · (q − 32); s from 1 to 32, q of 6 bits | 349 |
fn fill(storage: Storage, blocks: &mut [u8], deviation: f32, rng: &mut Rng) {
    rng.fill(blocks);
    let scale = |at_one: f32| f16::from_f32(deviation / at_one).to_le_bytes();
    let (_, block_bytes) = storage.block();
    for block in blocks.chunks_exact_mut(block_bytes as usize) {
        match storage {
            Storage::F32 => block.copy_from_slice(&uniform(deviation, rng).to_le_bytes()),
            Storage::F16 => block.copy_from_slice(&f16::from_f32(uniform(deviation, rng)).to_le_bytes()),
            Storage::Q4_0 => block[..2].copy_from_slice(&scale(4.6)),
            Storage::Q5_0 => block[..2].copy_from_slice(&scale(9.2)),
            Storage::Q8_0 => block[..2].copy_from_slice(&scale(73.9)),
            // As Q5_0, with an offset that centres quants of 0 to 31.
            Storage::Q5_1 => {
                block[..2].copy_from_slice(&scale(9.2));
                block[2..4].copy_from_slice(&scale(-9.2 / 15.5));
            }
            // Signed scales of 6 bits (deviation 18.5) times quants of 3 (2.35).
            Storage::Q3K => block[108..].copy_from_slice(&scale(43.3)),
            Storage::Q4K => {
                block[..2].copy_from_slice(&scale(256.0));
                block[2..4].copy_from_slice(&scale(256.0 / 7.5));
            }
            // As Q4_K, with quants of 5 bits.
            Storage::Q5K => {
                block[..2].copy_from_slice(&scale(512.0));
                block[2..4].copy_from_slice(&scale(512.0 / 15.5));
            }
            // Quants stand for 0 to 6 (deviation 3.04), times a power of two of which the block has the exponent.
            Storage::Mxfp4 => block[0] = (127.0 + (deviation / 3.04).log2().round()) as u8,
            Storage::Q6K => {
                for sub_scale in &mut block[192..208] {
                    *sub_scale = *sub_scale % 32 + 1;
                }
                block[208..].copy_from_slice(&scale(349.0));
            }
        }
    }
}

/// A draw of this standard deviation from a uniform distribution.
fn uniform(deviation: f32, rng: &mut Rng) -> f32 {
    (rng.f32() - 0.5) * 12.0_f32.sqrt() * deviation
}

/// Writes a tensor's data.
pub fn write(out: &mut impl Write, tensor: &TensorSpec, rng: &mut Rng) -> io::Result<()> {
    let (elements, bytes) = tensor.storage.block();
    let row_bytes = (tensor.dimensions[0] / elements * bytes) as usize;
    let mut row = vec![0; row_bytes];
    for _ in 0..tensor.bytes() / row_bytes as u64 {
        match tensor.values {
            Values::Random => {
                fill(tensor.storage, &mut row, 1.0 / (tensor.dimensions[0] as f32).sqrt(), rng);
            }
            Values::All(value) => {
                for element in row.chunks_exact_mut(4) {
                    element.copy_from_slice(&value.to_le_bytes());
                }
            }
        }
        out.write_all(&row)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The weights of a block, as `ggml-quants.c` computes them.
    fn weights(storage: Storage, block: &[u8]) -> Vec<f32> {
        let half = |at: usize| f32::from(f16::from_le_bytes([block[at], block[at + 1]]));
        match storage {
            Storage::Q4_0 => block[2..]
                .iter()
                .flat_map(|byte| [byte & 15, byte >> 4])
                .map(|q| half(0) * (f32::from(q) - 8.0))
                .collect(),
            Storage::Q5_1 => (0..32)
                .map(|n| {
                    let high = block[4 + n / 8] >> (n % 8) & 1;
                    let low = if n < 16 { block[8 + n] & 15 } else { block[8 + n - 16] >> 4 };
                    half(0) * f32::from(low | high << 4) + half(2)
                })
                .collect(),
            Storage::Q3K => (0..256)
                .map(|n| {
                    let (scales, j) = (&block[96..108], n / 16);
                    let low = if j < 8 { scales[j] & 15 } else { scales[j - 8] >> 4 };
                    let scale = low | (scales[8 + j % 4] >> (2 * (j / 4)) & 3) << 4;
                    let quant = block[32 + n / 128 * 32 + n % 32] >> (2 * (n % 128 / 32)) & 3;
                    let below = if block[n % 32] >> (n / 32) & 1 == 0 { 4.0 } else { 0.0 };
                    half(108) * (f32::from(scale) - 32.0) * (f32::from(quant) - below)
                })
                .collect(),
            Storage::Q8_0 => block[2..].iter().map(|&q| half(0) * f32::from(q as i8)).collect(),
            Storage::Q4K => {
                let scales = &block[4..16];
                let pair = |j: usize| {
                    if j < 4 {
                        (scales[j] & 63, scales[j + 4] & 63)
                    } else {
                        let high = |at: usize| scales[at] >> 6 << 4;
                        (scales[j + 4] & 15 | high(j - 4), scales[j + 4] >> 4 | high(j))
                    }
                };
                (0..8)
                    .flat_map(|j| {
                        let (scale, min) = pair(j);
                        let quants = &block[16 + j / 2 * 32..][..32];
                        quants
                            .iter()
                            .map(move |byte| (if j % 2 == 0 { byte & 15 } else { byte >> 4 }, scale, min))
                    })
                    .map(|(q, s, m)| half(0) * f32::from(s) * f32::from(q) - half(2) * f32::from(m))
                    .collect()
            }
            Storage::F16 => block.chunks(2).map(|b| f32::from(f16::from_le_bytes([b[0], b[1]]))).collect(),
            _ => unreachable!("not looked at here"),
        }
    }

    #[test]
    fn weights_have_mean_zero_and_the_deviation_that_was_asked_for() {
        for storage in [Storage::Q4_0, Storage::Q5_1, Storage::Q8_0, Storage::Q3K, Storage::Q4K, Storage::F16]
        {
            let (elements, bytes) = storage.block();
            let blocks = 100_000 / elements;
            let mut data = vec![0; (blocks * bytes) as usize];
            fill(storage, &mut data, 0.02, &mut Rng::with_seed(7));
            let all: Vec<f32> =
                data.chunks(bytes as usize).flat_map(|block| weights(storage, block)).collect();
            let mean = all.iter().sum::<f32>() / all.len() as f32;
            let variance = all.iter().map(|w| (w - mean).powi(2)).sum::<f32>() / all.len() as f32;
            assert!(mean.abs() < 0.003, "{storage:?}: mean {mean}");
            assert!((variance.sqrt() / 0.02 - 1.0).abs() < 0.1, "{storage:?}: deviation {}", variance.sqrt());
        }
    }
}
