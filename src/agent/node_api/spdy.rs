//! As much of SPDY/3.1 as port-forward in a WebSocket needs: frames to and from bytes. PURE.
//!
//! Header blocks are zlib streams with SPDY's dictionary, one compressor a direction for the whole
//! connection. Bodies are plain.

/// A frame that matters here; all others are skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// The header block is still compressed.
    SynStream {
        id: u32,
        fin: bool,
        headers: Vec<u8>,
    },
    RstStream {
        id: u32,
    },
    Ping {
        id: u32,
    },
    GoAway,
    WindowUpdate {
        id: u32,
        delta: u32,
    },
    Data {
        id: u32,
        fin: bool,
        bytes: Vec<u8>,
    },
    Other,
}

const VERSION: u16 = 0x8003;
const FIN: u8 = 1;
/// Nobody sends longer ones; what does is no SPDY.
const LONGEST: usize = 1 << 20;

/// Takes one frame off the front of `buffer`; `None`: more bytes are needed.
///
/// # Errors
/// The bytes are no SPDY.
pub fn take(buffer: &mut Vec<u8>) -> Result<Option<Frame>, &'static str> {
    let Some(head) = buffer.first_chunk::<8>().copied() else { return Ok(None) };
    let length = usize::from(head[5]) << 16 | usize::from(head[6]) << 8 | usize::from(head[7]);
    if length > LONGEST {
        return Err("a SPDY frame is too long");
    }
    if buffer.len() < 8 + length {
        return Ok(None);
    }
    let body: Vec<u8> = buffer.drain(..8 + length).skip(8).collect();
    let flags = head[4];
    if head[0] & 0x80 == 0 {
        let id = word(&head, 0).unwrap_or(0) & 0x7fff_ffff;
        return Ok(Some(Frame::Data { id, fin: flags & FIN != 0, bytes: body }));
    }
    if u16::from_be_bytes([head[0], head[1]]) != VERSION {
        return Err("this is not SPDY/3.1");
    }
    let short = "a SPDY frame is cut short";
    let at = |offset| word(&body, offset).ok_or(short);
    let frame = match u16::from_be_bytes([head[2], head[3]]) {
        1 => {
            let headers = body.get(10..).ok_or(short)?.to_vec();
            Frame::SynStream { id: at(0)? & 0x7fff_ffff, fin: flags & FIN != 0, headers }
        }
        3 => Frame::RstStream { id: at(0)? & 0x7fff_ffff },
        6 => Frame::Ping { id: at(0)? },
        7 => Frame::GoAway,
        9 => Frame::WindowUpdate { id: at(0)? & 0x7fff_ffff, delta: at(4)? & 0x7fff_ffff },
        _ => Frame::Other,
    };
    Ok(Some(frame))
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|four| four.try_into().ok()).map(u32::from_be_bytes)
}

fn control(kind: u16, flags: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + body.len());
    out.extend_from_slice(&VERSION.to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    push_length(&mut out, flags, body.len());
    out.extend_from_slice(body);
    out
}

fn push_length(out: &mut Vec<u8>, flags: u8, length: usize) {
    let length = u32::try_from(length).unwrap_or(0) & 0x00ff_ffff;
    out.extend_from_slice(&(u32::from(flags) << 24 | length).to_be_bytes());
}

/// Answers a SynStream. `headers` is a compressed, empty header block.
pub fn syn_reply(id: u32, headers: &[u8]) -> Vec<u8> {
    control(2, 0, &[&id.to_be_bytes()[..], headers].concat())
}

pub fn rst_stream(id: u32, status: u32) -> Vec<u8> {
    control(3, 0, &[id.to_be_bytes(), status.to_be_bytes()].concat())
}

pub fn ping(id: u32) -> Vec<u8> {
    control(6, 0, &id.to_be_bytes())
}

pub fn window_update(id: u32, delta: u32) -> Vec<u8> {
    control(9, 0, &[id.to_be_bytes(), delta.to_be_bytes()].concat())
}

pub fn data(id: u32, fin: bool, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(8 + bytes.len());
    out.extend_from_slice(&id.to_be_bytes());
    push_length(&mut out, u8::from(fin), bytes.len());
    out.extend_from_slice(bytes);
    out
}

/// A header block's pairs, names in small letters.
///
/// # Errors
/// The block is cut short.
pub fn pairs(block: &[u8]) -> Result<Vec<(String, String)>, &'static str> {
    let short = "a SPDY header block is cut short";
    let mut at = 0;
    let number = |at: &mut usize| {
        let value = word(block, *at).ok_or(short)?;
        *at += 4;
        usize::try_from(value).map_err(|_| short)
    };
    let text = |at: &mut usize| {
        let length = number(at)?;
        let end = at.checked_add(length).ok_or(short)?;
        let text = String::from_utf8_lossy(block.get(*at..end).ok_or(short)?).into_owned();
        *at = end;
        Ok::<_, &'static str>(text)
    };
    let count = number(&mut at)?;
    let mut all = Vec::new();
    for _ in 0..count.min(64) {
        all.push((text(&mut at)?.to_ascii_lowercase(), text(&mut at)?));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_the_way() {
        let mut bytes = data(5, true, b"abc");
        bytes.extend(ping(3));
        bytes.extend(rst_stream(7, 1));
        bytes.extend(window_update(5, 64));
        let tail = bytes.split_off(bytes.len() - 3);
        let mut got = Vec::new();
        while let Some(frame) = take(&mut bytes).unwrap() {
            got.push(frame);
        }
        assert_eq!(got, [Frame::Data { id: 5, fin: true, bytes: b"abc".to_vec() }, Frame::Ping { id: 3 }, Frame::RstStream { id: 7 }]);
        bytes.extend(tail);
        assert_eq!(take(&mut bytes), Ok(Some(Frame::WindowUpdate { id: 5, delta: 64 })));
        assert!(bytes.is_empty());
    }

    #[test]
    fn what_is_no_spdy_is_refused() {
        assert!(take(&mut vec![0x80, 9, 0, 1, 0, 0, 0, 0]).is_err(), "another version");
        assert!(take(&mut vec![0, 0, 0, 1, 0, 0xff, 0xff, 0xff]).is_err(), "too long");
        assert!(take(&mut control(1, 0, &[0, 0])).is_err(), "cut short");
        assert!(pairs(&[0, 0, 0, 1, 0, 0, 0, 9, b'a']).is_err());
    }

    #[test]
    fn header_blocks_are_read() {
        let mut block = 2u32.to_be_bytes().to_vec();
        for text in ["StreamType", "data", "port", "8080"] {
            block.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
            block.extend(text.as_bytes());
        }
        let want = [("streamtype".to_owned(), "data".to_owned()), ("port".to_owned(), "8080".to_owned())];
        assert_eq!(pairs(&block).unwrap(), want);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = pairs(&bytes);
            while let Ok(Some(_)) = take(&mut bytes) {}
        }
    }
}
