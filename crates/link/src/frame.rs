//! Length-delimited frames.

use serde::{Serialize, de::DeserializeOwned};

/// Largest frame: a 1M-token prompt as ids with room to spare. A longer one ends the link.
pub const MAX_FRAME_BYTES: usize = 64 << 20;

const HEADER_BYTES: usize = 4;

/// A frame could not be made or read; the link cannot go on after it.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// Longer than [`MAX_FRAME_BYTES`].
    #[error("frame of {bytes} bytes is larger than {MAX_FRAME_BYTES}")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// Not a message of this type.
    #[error("frame is not a message")]
    Malformed(#[from] rmp_serde::decode::Error),
    /// A message that cannot be written.
    #[error("message cannot be encoded")]
    Unencodable(#[from] rmp_serde::encode::Error),
}

/// One message as a frame.
///
/// # Errors
/// When it is larger than [`MAX_FRAME_BYTES`].
pub fn encode<M: Serialize>(message: &M) -> Result<Vec<u8>, FrameError> {
    let mut frame = vec![0; HEADER_BYTES];
    message.serialize(&mut rmp_serde::Serializer::new(&mut frame).with_struct_map())?;
    let bytes = frame.len() - HEADER_BYTES;
    if bytes > MAX_FRAME_BYTES {
        return Err(FrameError::TooLarge { bytes });
    }
    frame[..HEADER_BYTES].copy_from_slice(&(bytes as u32).to_le_bytes());
    Ok(frame)
}

/// Cuts a byte stream into messages, however its bytes arrive.
#[derive(Debug, Default)]
pub struct FrameReader {
    buffer: Vec<u8>,
    start: usize,
}

impl FrameReader {
    /// An empty reader.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes that arrived.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// The next complete message; `None` until more bytes arrive.
    ///
    /// # Errors
    /// When the stream is not one of frames of `M`.
    #[expect(clippy::should_implement_trait, reason = "an iterator has one type of item and no errors")]
    pub fn next<M: DeserializeOwned>(&mut self) -> Result<Option<M>, FrameError> {
        let rest = &self.buffer[self.start..];
        let Some((header, body)) = rest.split_first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let bytes = u32::from_le_bytes(*header) as usize;
        if bytes > MAX_FRAME_BYTES {
            return Err(FrameError::TooLarge { bytes });
        }
        let Some(body) = body.get(..bytes) else { return Ok(None) };
        let message = rmp_serde::from_slice(body)?;
        self.start += HEADER_BYTES + bytes;
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use firepot_chat::{GenerateRequest, Prompt, Role, Tool};
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::{GenerationId, ToRunner};

    fn example() -> Vec<ToRunner> {
        let mut request = GenerateRequest::new(Prompt::Chat {
            messages: vec![firepot_chat::Message::text(Role::User, "wie geht's?")],
            tools: vec![Tool {
                name: "f".into(),
                description: None,
                parameters: json!({"z": 1, "a": [null, 2.5]}),
            }],
            tool_choice: firepot_chat::ToolChoice::Auto,
            context: vec![1, -2, 70_000],
            template: None,
        });
        request.sampling.seed = Some(u64::MAX);
        vec![
            ToRunner::Hello { protocol: crate::PROTOCOL },
            ToRunner::Generate { id: GenerationId(7), request: Box::new(request), client: 3, resume: None },
            ToRunner::Cancel { id: GenerationId(7) },
        ]
    }

    proptest! {
        #[test]
        fn a_stream_split_at_any_byte_gives_the_same_messages(cuts in proptest::collection::vec(0_usize..400, 0..12)) {
            let stream: Vec<u8> = example().iter().flat_map(|m| encode(m).unwrap()).collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(stream.len())).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let (mut reader, mut seen) = (FrameReader::new(), Vec::new());
            for pair in cuts.windows(2) {
                reader.push(&stream[pair[0]..pair[1]]);
                while let Some(message) = reader.next::<ToRunner>().unwrap() {
                    seen.push(message);
                }
            }
            prop_assert_eq!(seen, example());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
            let mut reader = FrameReader::new();
            reader.push(&bytes);
            while let Ok(Some(_)) = reader.next::<ToRunner>() {}
        }
    }

    #[test]
    fn a_frame_longer_than_the_limit_is_refused_before_it_arrives() {
        let mut reader = FrameReader::new();
        reader.push(&u32::MAX.to_le_bytes());
        assert!(matches!(reader.next::<ToRunner>(), Err(FrameError::TooLarge { .. })));
    }
}
