//! SPDY's header blocks: names and values to and from bytes (SPDY Protocol Draft 3.1, section 2.6.10). PURE.
//!
//! The blocks of one direction are one zlib stream with SPDY's dictionary. Ours hold a few words each: they are
//! put into it as they are (stored blocks, RFC 1951, section 3.2.4), so nothing has to be kept for them.

use flate2::{Decompress, FlushDecompress};

use super::dictionary::dictionary;

/// Names in small letters, and values.
pub type Headers = Vec<(String, String)>;

/// What a block may become. Kubernetes' have three short headers.
const BLOCK_LIMIT_BYTES: usize = 16 << 10;
const HEADERS_LIMIT: u32 = 64;
/// A zlib stream with a window of 32 KiB and a dictionary (RFC 1950, section 2.2), and the dictionary's checksum.
const BEGINNING: [u8; 6] = [0x78, 0xbb, 0xe3, 0xc6, 0xa7, 0xc2];
/// An empty stored block: whoever reads has everything before it.
const FLUSH: [u8; 5] = [0, 0, 0, 0xff, 0xff];

/// Reads the blocks of one direction.
pub struct Inflate {
    state: Decompress,
    has_dictionary: bool,
}

impl Default for Inflate {
    fn default() -> Self {
        Self { state: Decompress::new(true), has_dictionary: false }
    }
}

impl Inflate {
    /// # Errors
    /// The block cannot be decompressed, is too long or cut short.
    pub fn read(&mut self, block: &[u8]) -> Result<Headers, &'static str> {
        pairs(&self.inflate(block)?)
    }

    fn inflate(&mut self, block: &[u8]) -> Result<Vec<u8>, &'static str> {
        let broken = "a SPDY header block cannot be decompressed";
        let mut out = Vec::with_capacity(BLOCK_LIMIT_BYTES + 1);
        let before = self.state.total_in();
        loop {
            let used = usize::try_from(self.state.total_in() - before).unwrap_or(block.len());
            let rest = block.get(used..).unwrap_or_default();
            match self.state.decompress_vec(rest, &mut out, FlushDecompress::Sync) {
                Ok(_) if out.len() > BLOCK_LIMIT_BYTES => return Err("a SPDY header block is too long"),
                Ok(_) => return Ok(out),
                Err(error) if error.needs_dictionary().is_some() && !self.has_dictionary => {
                    self.has_dictionary = true;
                    self.state.set_dictionary(&dictionary()).map_err(|_| broken)?;
                }
                Err(_) => return Err(broken),
            }
        }
    }
}

const SHORT: &str = "a SPDY header block is cut short";

fn number(rest: &mut &[u8]) -> Result<u32, &'static str> {
    let (first, after) = rest.split_first_chunk::<4>().ok_or(SHORT)?;
    *rest = after;
    Ok(u32::from_be_bytes(*first))
}

fn text(rest: &mut &[u8]) -> Result<String, &'static str> {
    let length = usize::try_from(number(rest)?).map_err(|_| SHORT)?;
    let (text, after) = rest.split_at_checked(length).ok_or(SHORT)?;
    *rest = after;
    Ok(String::from_utf8_lossy(text).into_owned())
}

fn pairs(mut block: &[u8]) -> Result<Headers, &'static str> {
    let count = number(&mut block)?;
    if count > HEADERS_LIMIT {
        return Err("a SPDY header block has too many headers");
    }
    (0..count).map(|_| Ok((text(&mut block)?.to_ascii_lowercase(), text(&mut block)?))).collect()
}

/// Writes the blocks of one direction.
#[derive(Debug, Default)]
pub struct Deflate {
    begun: bool,
}

impl Deflate {
    /// Names are in small letters; all together is less than 64 KiB.
    pub fn write(&mut self, headers: &[(&str, &str)]) -> Vec<u8> {
        let size = |text: usize| u32::try_from(text).unwrap_or(0).to_be_bytes();
        let mut block = size(headers.len()).to_vec();
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            block.extend(size(text.len()));
            block.extend(text.as_bytes());
        }
        let length = u16::try_from(block.len()).unwrap_or(0);
        let mut out = Vec::with_capacity(block.len() + 16);
        if !std::mem::replace(&mut self.begun, true) {
            out.extend(BEGINNING);
        }
        out.push(0);
        out.extend(length.to_le_bytes());
        out.extend((!length).to_le_bytes());
        out.extend(block);
        out.extend(FLUSH);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compress, Compression, FlushCompress};

    fn words(all: &[(&str, &str)]) -> Headers {
        all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn header_blocks_survive_the_way() {
        let (mut to, mut from) = (Deflate::default(), Inflate::default());
        for headers in [&[("streamtype", "data"), ("port", "8080")][..], &[], &[("streamtype", "error")]] {
            assert_eq!(from.read(&to.write(headers)).unwrap(), words(headers));
        }
    }

    /// As Go's and everybody else's compressors write them.
    struct Zlib(Compress);

    impl Zlib {
        fn new() -> Self {
            let mut compress = Compress::new(Compression::default(), true);
            compress.set_dictionary(&dictionary()).unwrap();
            Self(compress)
        }

        fn write(&mut self, block: &[u8]) -> Vec<u8> {
            let mut out = Vec::with_capacity(block.len() + 1024);
            self.0.compress_vec(block, &mut out, FlushCompress::Sync).unwrap();
            out
        }
    }

    #[test]
    fn compressed_blocks_are_read() {
        let (mut to, mut from) = (Zlib::new(), Inflate::default());
        for _ in 0..3 {
            let mut block = 1u32.to_be_bytes().to_vec();
            for text in ["StreamType", "data"] {
                block.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
                block.extend(text.as_bytes());
            }
            assert_eq!(from.read(&to.write(&block)).unwrap(), words(&[("streamtype", "data")]));
        }
    }

    #[test]
    fn bombs_and_scraps_are_refused() {
        let bomb = Zlib::new().write(&vec![0; 8 << 20]);
        assert!(bomb.len() < 16 << 10, "it comes through as a frame");
        assert_eq!(Inflate::default().read(&bomb), Err("a SPDY header block is too long"));
        let longest = |length: usize| Inflate::default().inflate(&Zlib::new().write(&vec![b'a'; length])).map(|block| block.len());
        assert_eq!(longest(BLOCK_LIMIT_BYTES), Ok(BLOCK_LIMIT_BYTES));
        assert_eq!(longest(BLOCK_LIMIT_BYTES + 1), Err("a SPDY header block is too long"));
        let many = Zlib::new().write(&[&65u32.to_be_bytes()[..], &[0; 520]].concat());
        assert_eq!(Inflate::default().read(&many), Err("a SPDY header block has too many headers"));
        assert!(Inflate::default().read(b"no zlib at all").is_err());
        assert!(pairs(&[0, 0, 0, 1, 0, 0, 0, 9, b'a']).is_err());
        assert!(pairs(&[0, 0]).is_err());
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = pairs(&bytes);
            let _ = Inflate::default().read(&bytes);
        }
    }
}
