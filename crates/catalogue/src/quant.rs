//! How tensors are stored, and the mixes of llama.cpp's quantizer (`llama-quant.cpp`).

use std::str::FromStr;

use firepot_gguf::TensorType;

/// How a tensor's elements are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// 4-bit blocks of 32.
    Q4_0,
    /// 5-bit blocks of 32.
    Q5_0,
    /// 5-bit blocks of 32 with an offset.
    Q5_1,
    /// 8-bit blocks of 32.
    Q8_0,
    /// 3-bit super-blocks of 256.
    Q3K,
    /// 4-bit super-blocks of 256.
    Q4K,
    /// 5-bit super-blocks of 256.
    Q5K,
    /// 6-bit super-blocks of 256.
    Q6K,
    /// 4-bit floats in blocks of 32 with a common exponent.
    Mxfp4,
}

impl Storage {
    /// Number of the type in a file.
    #[must_use]
    pub const fn id(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q5_0 => 6,
            Self::Q5_1 => 7,
            Self::Q8_0 => 8,
            Self::Q3K => 11,
            Self::Q4K => 12,
            Self::Q5K => 13,
            Self::Q6K => 14,
            Self::Mxfp4 => 39,
        }
    }

    /// Elements and bytes of a block.
    #[must_use]
    pub fn block(self) -> (u64, u64) {
        let kind = TensorType::by_id(self.id());
        kind.map_or((1, 0), |kind| (kind.block_elements.into(), kind.block_bytes.into()))
    }

    /// What the quantizer takes for rows that are no multiple of the block (`tensor_type_fallback`).
    #[must_use]
    pub const fn for_rows_of(self, length: u64) -> Self {
        match self {
            Self::Q3K if !length.is_multiple_of(256) => Self::Q4_0,
            Self::Q4K if !length.is_multiple_of(256) => Self::Q5_0,
            Self::Q5K if !length.is_multiple_of(256) => Self::Q5_1,
            Self::Q6K if !length.is_multiple_of(256) => Self::Q8_0,
            storage => storage,
        }
    }
}

/// Mixes of tensor types, as the quantizer names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Quant {
    /// 4-bit super-blocks, more bits for a half of the V and FFN-down tensors and for the output.
    Q4KM,
    /// 5-bit super-blocks, with the same exceptions.
    Q5KM,
    /// 3-bit super-blocks, more bits for V, FFN-down and attention-output tensors and for the output.
    Q3KM,
    /// 6-bit super-blocks.
    Q6K,
    /// 4-bit blocks.
    Q4_0,
    /// 8-bit blocks.
    Q8_0,
    /// 16-bit floats.
    F16,
    /// Experts in 4-bit floats, the rest in 8-bit blocks.
    Mxfp4,
}

impl Quant {
    /// All of them, the usual middle way first.
    pub const ALL: [Self; 8] =
        [Self::Q4KM, Self::Q5KM, Self::Q3KM, Self::Q6K, Self::Q8_0, Self::Q4_0, Self::F16, Self::Mxfp4];

    /// Its name in file names.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Q4KM => "Q4_K_M",
            Self::Q5KM => "Q5_K_M",
            Self::Q3KM => "Q3_K_M",
            Self::Q6K => "Q6_K",
            Self::Q4_0 => "Q4_0",
            Self::Q8_0 => "Q8_0",
            Self::F16 => "F16",
            Self::Mxfp4 => "MXFP4",
        }
    }

    /// `general.file_type`: llama.cpp's `llama_ftype`.
    #[must_use]
    pub const fn file_type(self) -> u32 {
        match self {
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q8_0 => 7,
            Self::Q3KM => 12,
            Self::Q4KM => 15,
            Self::Q5KM => 17,
            Self::Q6K => 18,
            Self::Mxfp4 => 38,
        }
    }

    /// Types of most matrices, and of those that the mix spares.
    pub(crate) const fn pair(self) -> (Storage, Storage) {
        match self {
            Self::Q4KM => (Storage::Q4K, Storage::Q6K),
            Self::Q5KM => (Storage::Q5K, Storage::Q6K),
            Self::Q3KM => (Storage::Q3K, Storage::Q6K),
            Self::Q6K => (Storage::Q6K, Storage::Q6K),
            Self::Q4_0 => (Storage::Q4_0, Storage::Q6K),
            Self::Q8_0 | Self::Mxfp4 => (Storage::Q8_0, Storage::Q8_0),
            Self::F16 => (Storage::F16, Storage::F16),
        }
    }

    /// Of values, in a layer of so many.
    pub(crate) const fn values(self, layer: u64, layers: u64) -> Storage {
        match self {
            Self::Q4KM | Self::Q5KM if more_bits(layer, layers) => self.pair().1,
            Self::Q3KM if layer < 2 => Storage::Q5K,
            Self::Q3KM => Storage::Q4K,
            other => other.pair().0,
        }
    }

    /// Of the way down, in a layer of so many.
    pub(crate) const fn down(self, layer: u64, layers: u64) -> Storage {
        match self {
            Self::Q4KM | Self::Q5KM if more_bits(layer, layers) => self.pair().1,
            Self::Q3KM if layer < layers / 16 => Storage::Q5K,
            Self::Q3KM => Storage::Q4K,
            other => other.pair().0,
        }
    }

    /// Of attention's output.
    pub(crate) const fn attention_output(self) -> Storage {
        if matches!(self, Self::Q3KM) { Storage::Q4K } else { self.pair().0 }
    }

    /// Of queries, keys and values in one matrix, as in the published files of Phi-4. The pinned quantizer has counted such
    /// a matrix among the values since, which makes a file 0.1 % larger.
    pub(crate) const fn joined(self) -> Storage {
        match self {
            Self::Q4KM => Storage::Q5K,
            Self::Q5KM => Storage::Q6K,
            Self::Q3KM => Storage::Q4K,
            other => other.pair().0,
        }
    }

    /// Of experts.
    pub(crate) const fn experts(self, usual: Storage) -> Storage {
        if matches!(self, Self::Mxfp4) { Storage::Mxfp4 } else { usual }
    }
}

/// `use_more_bits` in `llama-quant.cpp`.
const fn more_bits(layer: u64, layers: u64) -> bool {
    let eighth = layers / 8;
    layer < eighth || layer >= 7 * layers / 8 || (layer - eighth) % 3 == 2
}

impl FromStr for Quant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|quant| quant.name().eq_ignore_ascii_case(text));
        let names = || Self::ALL.map(Self::name).join(", ");
        found.ok_or_else(|| format!("{text:?} is none of {}", names()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_blocks_do_not_divide_fall_back_as_llama_cpp_does() {
        assert_eq!(Storage::Q3K.for_rows_of(576), Storage::Q4_0);
        assert_eq!(Storage::Q4K.for_rows_of(1152), Storage::Q5_0);
        assert_eq!(Storage::Q5K.for_rows_of(576), Storage::Q5_1);
        assert_eq!(Storage::Q6K.for_rows_of(1152), Storage::Q8_0);
        assert_eq!(Storage::Q4K.for_rows_of(3584), Storage::Q4K);
    }

    #[test]
    fn every_storage_is_a_type_of_gguf_files() {
        use Storage::{F16, F32, Mxfp4, Q3K, Q4_0, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
        for storage in [F32, F16, Q4_0, Q5_0, Q5_1, Q8_0, Q3K, Q4K, Q5K, Q6K, Mxfp4] {
            assert!(storage.block().1 > 0, "{storage:?}");
        }
    }

    #[test]
    fn names_are_read_in_any_case() {
        assert_eq!("q4_k_m".parse(), Ok(Quant::Q4KM));
        assert_eq!("q3_k_m".parse(), Ok(Quant::Q3KM));
        assert!("IQ3_M".parse::<Quant>().unwrap_err().contains("Q4_K_M, Q5_K_M"));
    }
}
