//! SPDY/3.1 as far as Kubernetes' streams need it: frames to and from bytes (SPDY Protocol Draft 3.1, section 2). PURE.
//!
//! Header blocks are not looked into here (see `headers`). Bodies are plain.

use bytes::{Buf as _, Bytes, BytesMut};

/// A frame that matters here; all others are skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    SynStream {
        id: u32,
        fin: bool,
        block: Vec<u8>,
    },
    SynReply {
        id: u32,
        fin: bool,
        block: Vec<u8>,
    },
    Headers {
        id: u32,
        fin: bool,
        block: Vec<u8>,
    },
    RstStream {
        id: u32,
    },
    Ping {
        id: u32,
    },
    GoAway,
    /// A piece of a data frame, as it comes; the end is said with the last one.
    Data {
        id: u32,
        fin: bool,
        bytes: Bytes,
    },
    Other,
}

const VERSION: u16 = 0x8003;
const FIN: u8 = 1;
/// Frames other than data are short; what sends longer ones is no SPDY.
const CONTROL_LIMIT_BYTES: usize = 16 << 10;

/// Status of an RST_STREAM (section 2.6.3).
pub const PROTOCOL_ERROR: u32 = 1;
pub const REFUSED_STREAM: u32 = 3;

/// Takes frames out of bytes as they come. Holds no more than one short frame and what was pushed last.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
    /// Of the data frame whose head was read: stream, whether it ends with it, bytes to come.
    data: Option<(u32, bool, usize)>,
}

impl Decoder {
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// `None`: more bytes are needed.
    ///
    /// # Errors
    /// The bytes are no SPDY.
    pub fn take(&mut self) -> Result<Option<Frame>, &'static str> {
        if self.data.is_none() {
            let Some(head) = self.buffer.first_chunk::<8>().copied() else { return Ok(None) };
            let length = usize::from(head[5]) << 16 | usize::from(head[6]) << 8 | usize::from(head[7]);
            if head[0] & 0x80 != 0 {
                return self.control(&head, length);
            }
            self.buffer.advance(8);
            self.data = Some((word(&head, 0).unwrap_or(0) & 0x7fff_ffff, head[4] & FIN != 0, length));
        }
        Ok(self.piece())
    }

    fn piece(&mut self) -> Option<Frame> {
        let (id, fin, left) = self.data?;
        if self.buffer.is_empty() && left > 0 {
            return None;
        }
        // Copied: it holds on to nothing else.
        let bytes = Bytes::copy_from_slice(self.buffer.get(..left.min(self.buffer.len()))?);
        self.buffer.advance(bytes.len());
        let left = left - bytes.len();
        self.data = (left > 0).then_some((id, fin, left));
        Some(Frame::Data { id, fin: fin && left == 0, bytes })
    }

    fn control(&mut self, head: &[u8; 8], length: usize) -> Result<Option<Frame>, &'static str> {
        if u16::from_be_bytes([head[0], head[1]]) != VERSION {
            return Err("this is not SPDY/3.1");
        }
        if length > CONTROL_LIMIT_BYTES {
            return Err("a SPDY frame is too long");
        }
        if self.buffer.len() < 8 + length {
            return Ok(None);
        }
        self.buffer.advance(8);
        let body = self.buffer.split_to(length);
        let short = "a SPDY frame is cut short";
        let at = |offset| word(&body, offset).map(|word| word & 0x7fff_ffff).ok_or(short);
        let fin = head[4] & FIN != 0;
        let block = |from| body.get(from..).map(<[u8]>::to_vec).ok_or(short);
        let frame = match u16::from_be_bytes([head[2], head[3]]) {
            1 => Frame::SynStream { id: at(0)?, fin, block: block(10)? },
            2 => Frame::SynReply { id: at(0)?, fin, block: block(4)? },
            3 => Frame::RstStream { id: at(0)? },
            6 => Frame::Ping { id: word(&body, 0).ok_or(short)? },
            7 => Frame::GoAway,
            8 => Frame::Headers { id: at(0)?, fin, block: block(4)? },
            _ => Frame::Other,
        };
        Ok(Some(frame))
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_be_bytes)
}

fn control(kind: u16, flags: u8, body: &[&[u8]]) -> Bytes {
    let length = body.iter().map(|part| part.len()).sum();
    let mut out = BytesMut::with_capacity(8 + length);
    out.extend_from_slice(&VERSION.to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    push_length(&mut out, flags, length);
    body.iter().for_each(|part| out.extend_from_slice(part));
    out.freeze()
}

fn push_length(out: &mut BytesMut, flags: u8, length: usize) {
    let length = u32::try_from(length).unwrap_or(0) & 0x00ff_ffff;
    out.extend_from_slice(&(u32::from(flags) << 24 | length).to_be_bytes());
}

/// Opens a stream; it belongs to no other and has no priority.
pub fn syn_stream(id: u32, block: &[u8]) -> Bytes {
    control(1, 0, &[&id.to_be_bytes(), &[0; 6], block])
}

/// Answers a SynStream.
pub fn syn_reply(id: u32, block: &[u8]) -> Bytes {
    control(2, 0, &[&id.to_be_bytes(), block])
}

pub fn rst_stream(id: u32, status: u32) -> Bytes {
    control(3, 0, &[&id.to_be_bytes(), &status.to_be_bytes()])
}

pub fn ping(id: u32) -> Bytes {
    control(6, 0, &[&id.to_be_bytes()])
}

/// No stream after this one was taken; nothing is wrong.
pub fn go_away(last: u32) -> Bytes {
    control(7, 0, &[&last.to_be_bytes(), &[0; 4]])
}

pub fn window_update(id: u32, delta: u32) -> Bytes {
    control(9, 0, &[&id.to_be_bytes(), &delta.to_be_bytes()])
}

/// A byte more for the whole connection (section 2.6.8): nobody answers it, and windows are not waited for. A ping would be
/// answered, by a caller that may be unable to before it is read from.
pub fn nothing() -> Bytes {
    window_update(0, 1)
}

pub fn data(id: u32, fin: bool, bytes: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(8 + bytes.len());
    out.extend_from_slice(&id.to_be_bytes());
    push_length(&mut out, u8::from(fin), bytes.len());
    out.extend_from_slice(bytes);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(decoder: &mut Decoder) -> Vec<Frame> {
        std::iter::from_fn(|| decoder.take().unwrap()).collect()
    }

    fn piece(id: u32, fin: bool, bytes: &'static [u8]) -> Frame {
        Frame::Data { id, fin, bytes: Bytes::from_static(bytes) }
    }

    #[test]
    fn frames_survive_the_way() {
        let mut decoder = Decoder::default();
        decoder.push(&data(5, true, b"abc"));
        decoder.push(&data(5, true, b""));
        decoder.push(&ping(3));
        decoder.push(&rst_stream(7, PROTOCOL_ERROR));
        decoder.push(&window_update(5, 64));
        decoder.push(&go_away(7));
        let syn = syn_stream(9, b"block");
        decoder.push(&syn[..syn.len() - 3]);
        let rest = [Frame::Ping { id: 3 }, Frame::RstStream { id: 7 }, Frame::Other, Frame::GoAway];
        assert_eq!(all(&mut decoder), [&[piece(5, true, b"abc"), piece(5, true, b"")], &rest[..]].concat());
        decoder.push(&syn[syn.len() - 3..]);
        decoder.push(&syn_reply(9, b"b"));
        let syn = Frame::SynStream { id: 9, fin: false, block: b"block".to_vec() };
        assert_eq!(all(&mut decoder), [syn, Frame::SynReply { id: 9, fin: false, block: b"b".to_vec() }]);
        assert!(decoder.buffer.is_empty());
    }

    #[test]
    fn long_data_comes_in_pieces() {
        let mut decoder = Decoder::default();
        let frame = data(1, true, &[7; 100]);
        decoder.push(&frame[..20]);
        assert_eq!(all(&mut decoder), [Frame::Data { id: 1, fin: false, bytes: vec![7; 12].into() }]);
        assert!(decoder.buffer.is_empty(), "nothing is kept");
        decoder.push(&frame[20..]);
        assert_eq!(all(&mut decoder), [Frame::Data { id: 1, fin: true, bytes: vec![7; 88].into() }]);
    }

    #[test]
    fn what_is_no_spdy_is_refused() {
        let take = |bytes: &[u8]| {
            let mut decoder = Decoder::default();
            decoder.push(bytes);
            decoder.take()
        };
        assert!(take(&[0x80, 9, 0, 1, 0, 0, 0, 0]).is_err(), "another version");
        assert!(take(&[0x80, 3, 0, 1, 0, 0xff, 0xff, 0xff]).is_err(), "too long");
        assert!(take(&control(1, 0, &[&[0, 0]])).is_err(), "cut short");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.take() {}
        }
    }
}
