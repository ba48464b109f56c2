//! The bytes of the file: a header, then frames. Pure.
//!
//! ```text
//!  header   0  8  magic "RUSSETDB"        frame   0  4  magic
//!           8  4  format                          4  4  length of the payload
//!          12  4  zero                            8  8  sequence: 1, 2, 3 …
//!          16  8  salt                           16  4  kind
//!          24  4  CRC-32C of the above           20  4  CRC-32C of salt, the above and the payload
//!          28 36  zero                           24  …  payload, padded with zeros to 8 bytes
//! ```
//!
//! All numbers are little endian. The salt is random and never leaves the file, so nobody who stores a
//! value can make it look like a frame. The first eight bytes of a frame lie in one sector: they are
//! there together or not at all.

use super::error::FORMAT;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Has a payload.
    Data,
    /// What the file was begun with is complete.
    Complete,
    /// Everything before was on the disk when this was written.
    Seal,
}

/// A frame's header as it stands in the file, not checked yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) len: u32,
    pub(crate) sequence: u64,
    kind: u32,
    crc: u32,
}

/// What the first bytes of a file say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileHeader {
    Ours { salt: u64 },
    Newer { format: u32 },
    Damaged,
    Foreign,
    Zeros,
}

/// Returns the header of a new file.
pub(crate) fn file_header(salt: u64) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    put(&mut bytes, 0, FILE_MAGIC);
    put(&mut bytes, 8, &FORMAT.to_le_bytes());
    put(&mut bytes, 16, &salt.to_le_bytes());
    let crc = crc32c::crc32c(bytes.get(..24).unwrap_or_default());
    put(&mut bytes, 24, &crc.to_le_bytes());
    bytes
}

/// Reads the first bytes of a file.
pub(crate) fn read_file_header(bytes: &[u8]) -> FileHeader {
    if bytes.iter().all(|byte| *byte == 0) {
        return FileHeader::Zeros;
    }
    if !bytes.starts_with(FILE_MAGIC) {
        return FileHeader::Foreign;
    }
    let (format, crc) = (u32_at(bytes, 8), u32_at(bytes, 24));
    let covered = bytes.get(..24).unwrap_or_default();
    match (format, crc) {
        (Some(_), Some(crc)) if crc32c::crc32c(covered) != crc => FileHeader::Damaged,
        (Some(format), Some(_)) if format != FORMAT => FileHeader::Newer { format },
        (Some(_), Some(_)) => {
            u64_at(bytes, 16).map_or(FileHeader::Damaged, |salt| FileHeader::Ours { salt })
        }
        _ => FileHeader::Damaged,
    }
}

/// Appends a frame to a buffer.
///
/// A payload is far smaller than 4 GiB: requests, and the parts of an image, are bounded.
pub(crate) fn encode(salt: u64, sequence: u64, kind: Kind, payload: &[u8], out: &mut Vec<u8>) {
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let head = Head { len, sequence, kind: kind.number(), crc: 0 };
    let crc = head.checksum(salt, payload);
    out.extend(Head { crc, ..head }.bytes());
    out.extend(payload);
    out.resize(out.len() + padding(payload.len()), 0);
}

/// Returns the bytes that a frame with such a payload takes.
pub(crate) fn size(payload: u64) -> u64 {
    FRAME_HEADER + payload.next_multiple_of(ALIGN)
}

impl Head {
    /// Reads a header; `None` when these bytes are not one.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        if u32_at(bytes, 0)? != FRAME_MAGIC {
            return None;
        }
        let (len, sequence) = (u32_at(bytes, 4)?, u64_at(bytes, 8)?);
        Some(Self { len, sequence, kind: u32_at(bytes, 16)?, crc: u32_at(bytes, 20)? })
    }

    /// Returns the bytes that the whole frame takes.
    pub(crate) fn size(&self) -> u64 {
        size(u64::from(self.len))
    }

    /// Returns what the frame is, if this is its payload.
    pub(crate) fn check(&self, salt: u64, payload: &[u8]) -> Option<Kind> {
        Kind::of(self.kind).filter(|_| self.checksum(salt, payload) == self.crc)
    }

    fn checksum(&self, salt: u64, payload: &[u8]) -> u32 {
        let head = Self { crc: 0, ..*self }.bytes();
        let crc = crc32c::crc32c(&salt.to_le_bytes());
        let crc = crc32c::crc32c_append(crc, &head);
        crc32c::crc32c_append(crc, payload)
    }

    fn bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        put(&mut bytes, 0, &FRAME_MAGIC.to_le_bytes());
        put(&mut bytes, 4, &self.len.to_le_bytes());
        put(&mut bytes, 8, &self.sequence.to_le_bytes());
        put(&mut bytes, 16, &self.kind.to_le_bytes());
        put(&mut bytes, 20, &self.crc.to_le_bytes());
        bytes
    }
}

impl Kind {
    fn number(self) -> u32 {
        match self {
            Self::Data => 1,
            Self::Complete => 2,
            Self::Seal => 3,
        }
    }

    fn of(number: u32) -> Option<Self> {
        match number {
            1 => Some(Self::Data),
            2 => Some(Self::Complete),
            3 => Some(Self::Seal),
            _ => None,
        }
    }
}

fn padding(len: usize) -> usize {
    len.next_multiple_of(8) - len
}

fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    if let Some(room) = bytes.get_mut(at..at + what.len()) {
        room.copy_from_slice(what);
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*bytes))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u64::from_le_bytes(*bytes))
}

const FILE_MAGIC: &[u8; 8] = b"RUSSETDB";
const FRAME_MAGIC: u32 = 0x5246_5352;
/// Bytes of a frame before its payload.
pub(crate) const FRAME_HEADER: u64 = 24;
/// Every frame begins at a multiple of this.
pub(crate) const ALIGN: u64 = 8;
/// Bytes of the file before its first frame.
pub(crate) const HEADER: usize = 64;
pub(crate) const FIRST_FRAME: u64 = 64;
