//! Reading a file back, and telling what a crash left unfinished from damage.
//!
//! A frame is only written after the one before it was on the disk. So at the first frame that is not
//! whole there are two cases. If a whole one comes later, the bad one *was* on the disk once, and somebody
//! was told so: that is damage. If none comes, it is what a crash interrupted: it is cut. The zeros that
//! are kept ahead make the end visible: a file that ends without them was cut short by somebody else.

use std::io;

use super::{
    disk::DiskFile,
    frame::{ALIGN, FIRST_FRAME, FRAME_HEADER, FileHeader, HEADER, Head, Kind, read_file_header},
};

/// What reading found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Recovered {
    pub(crate) salt: u64,
    /// Where the next frame goes.
    pub(crate) end: u64,
    pub(crate) next_sequence: u64,
    pub(crate) frames: u64,
    /// What is there beyond the end and has to go.
    pub(crate) cut: Option<Cut>,
}

/// A part of the file that nobody was told about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

/// Why a file cannot be read to its end.
#[derive(Debug)]
pub(crate) enum Fault {
    Io(io::Error),
    Empty,
    Foreign(&'static str),
    Newer(u32),
    Damaged { offset: u64, reason: String },
}

/// What a payload is given to; it may find that the payload makes no sense.
pub(crate) type Visit<'a> = &'a mut dyn FnMut(&[u8]) -> Result<(), String>;

/// Reads a whole file, payload by payload.
pub(crate) fn read(file: &impl DiskFile, visit: Visit<'_>) -> Result<Recovered, Fault> {
    let mut blocks = Blocks::new(file)?;
    let salt = read_header(&mut blocks)?;
    let mut reader =
        Reader { blocks, salt, at: FIRST_FRAME, sequence: 1, complete: Progress::Base };
    loop {
        match reader.next()? {
            Step::Frame { kind, offset } => reader.take(kind, offset, visit)?,
            Step::Zero => return reader.end(None),
            Step::Bad(reason) => {
                reader.refuse_damage(reason)?;
                return reader.end(Some(()));
            }
        }
    }
}

fn read_header(blocks: &mut Blocks<'_, impl DiskFile>) -> Result<u64, Fault> {
    if blocks.len == 0 {
        return Err(Fault::Empty);
    }
    let bytes = blocks.get(0, u64::try_from(HEADER).unwrap_or(0))?;
    match read_file_header(bytes) {
        FileHeader::Ours { salt } => Ok(salt),
        FileHeader::Newer { format } => Err(Fault::Newer(format)),
        FileHeader::Damaged => {
            Err(Fault::Damaged { offset: 0, reason: "the header's checksum is wrong".to_owned() })
        }
        FileHeader::Foreign => Err(Fault::Foreign("it begins with something else")),
        FileHeader::Zeros => Err(Fault::Foreign("it begins with zeros")),
    }
}

struct Reader<'a, F> {
    blocks: Blocks<'a, F>,
    salt: u64,
    at: u64,
    sequence: u64,
    complete: Progress,
}

/// Whether what the file was begun with is behind us.
#[derive(PartialEq, Eq)]
enum Progress {
    Base,
    Complete,
}

enum Step {
    Frame {
        kind: Kind,
        offset: u64,
    },
    /// No frame begins here.
    Zero,
    Bad(&'static str),
}

impl<F: DiskFile> Reader<'_, F> {
    fn next(&mut self) -> Result<Step, Fault> {
        let at = self.at;
        let header = self.blocks.get(at, FRAME_HEADER)?;
        if header.len() < usize::try_from(FRAME_HEADER).unwrap_or(0) {
            return Err(self.damaged("the file was cut short"));
        }
        if header.iter().all(|byte| *byte == 0) {
            return Ok(Step::Zero);
        }
        let Some(head) = Head::read(header) else { return Ok(Step::Bad("no frame begins here")) };
        // The length is there with the magic or not at all, so this is not what a crash left.
        if self.blocks.len.saturating_sub(at) < head.size() {
            return Err(self.damaged("the file was cut short, or a length is wrong"));
        }
        if head.sequence != self.sequence {
            return Ok(Step::Bad("a frame is out of order"));
        }
        let payload = self.blocks.get(at + FRAME_HEADER, u64::from(head.len))?;
        match head.check(self.salt, payload) {
            Some(kind) => {
                self.at += head.size();
                self.sequence += 1;
                Ok(Step::Frame { kind, offset: at })
            }
            None => Ok(Step::Bad("a checksum is wrong")),
        }
    }

    fn take(&mut self, kind: Kind, offset: u64, visit: Visit<'_>) -> Result<(), Fault> {
        match kind {
            Kind::Complete => self.complete = Progress::Complete,
            Kind::Seal => {}
            Kind::Data => {
                visit(self.blocks.last()).map_err(|reason| Fault::Damaged { offset, reason })?;
            }
        }
        Ok(())
    }

    /// Refuses what was on the disk once.
    fn refuse_damage(&mut self, reason: &str) -> Result<(), Fault> {
        let later = self.later_frame()?;
        if later { Err(self.damaged(reason)) } else { Ok(()) }
    }

    fn damaged(&self, reason: &str) -> Fault {
        Fault::Damaged { offset: self.at, reason: reason.to_owned() }
    }

    /// Looks for a whole frame behind the place where one is not.
    fn later_frame(&mut self) -> Result<bool, Fault> {
        let mut at = self.at + ALIGN;
        while at + FRAME_HEADER <= self.blocks.len {
            let header = self.blocks.get(at, FRAME_HEADER)?;
            if let Some(head) = Head::read(header)
                && head.sequence >= self.sequence
                && head.size() <= self.blocks.len - at
            {
                let payload = self.blocks.get(at + FRAME_HEADER, u64::from(head.len))?;
                if head.check(self.salt, payload).is_some() {
                    return Ok(true);
                }
            }
            at += ALIGN;
        }
        Ok(false)
    }

    /// Ends at the first place where no frame is: with what is behind it, which is zeros when all is well.
    fn end(mut self, bad: Option<()>) -> Result<Recovered, Fault> {
        if self.complete == Progress::Base {
            return Err(self.damaged("what the file begins with is not complete"));
        }
        let last = self.last_byte()?;
        if bad.is_none() && last.is_some() {
            self.refuse_damage("there are zeros in the place of a frame")?;
        }
        let cut = last.map(|last| Cut { offset: self.at, bytes: last + 1 - self.at });
        let (end, next_sequence) = (self.at, self.sequence);
        let frames = next_sequence - 1;
        Ok(Recovered { salt: self.salt, end, next_sequence, frames, cut })
    }

    /// Returns where the last byte is that is not zero, from here on.
    fn last_byte(&mut self) -> Result<Option<u64>, Fault> {
        let (mut at, mut last) = (self.at, None);
        while at < self.blocks.len {
            let block = self.blocks.get(at, BLOCK.min(self.blocks.len - at))?;
            if let Some(position) = block.iter().rposition(|byte| *byte != 0) {
                last = Some(at + u64::try_from(position).unwrap_or(0));
            }
            at += BLOCK;
        }
        Ok(last)
    }
}

/// Reads in blocks, however small what is asked for.
struct Blocks<'a, F> {
    file: &'a F,
    len: u64,
    start: u64,
    buffer: Vec<u8>,
    /// What was asked for last, within the buffer.
    last: std::ops::Range<usize>,
}

impl<'a, F: DiskFile> Blocks<'a, F> {
    fn new(file: &'a F) -> Result<Self, Fault> {
        let len = file.len().map_err(Fault::Io)?;
        Ok(Self { file, len, start: 0, buffer: Vec::new(), last: 0..0 })
    }

    /// Returns `len` bytes, or fewer at the end of the file.
    fn get(&mut self, at: u64, len: u64) -> Result<&[u8], Fault> {
        let len = len.min(self.len.saturating_sub(at));
        let held = u64::try_from(self.buffer.len()).unwrap_or(0);
        if at < self.start || at + len > self.start + held {
            self.fill(at, len.max(BLOCK).min(self.len.saturating_sub(at)))?;
        }
        let from = usize::try_from(at - self.start).unwrap_or(usize::MAX);
        self.last = from..from.saturating_add(usize::try_from(len).unwrap_or(0));
        Ok(self.last())
    }

    fn last(&self) -> &[u8] {
        self.buffer.get(self.last.clone()).unwrap_or_default()
    }

    fn fill(&mut self, at: u64, len: u64) -> Result<(), Fault> {
        self.start = at;
        self.buffer.resize(usize::try_from(len).unwrap_or(0), 0);
        let read = self.file.read_at(&mut self.buffer, at).map_err(Fault::Io)?;
        self.buffer.truncate(read);
        Ok(())
    }
}

/// How much is read at a time.
const BLOCK: u64 = 1 << 20;
