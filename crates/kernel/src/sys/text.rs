//! Which pages of its own program a process has mapped.
//!
//! A page of a program is one copy for all who run it, in the kernel's cache of files; a process only maps it. A kernel whose
//! cache has large folios maps 2 MB at one touch, and what the start alone passed through stays mapped for good. So a process
//! that is to be small asks for small steps before it does anything, and forgets what it has mapped when its start is done:
//! what it still uses comes back by a fault, which reads no disk while the cache has it. A breakpoint that a debugger or a
//! tracer has put into the program goes with what is forgotten.

use std::{ffi::c_void, io, ptr};

/// Has pages of the program mapped a few at a time.
///
/// # Errors
///
/// When the kernel does not do it for one of the program's segments.
pub fn map_sparsely() -> io::Result<()> {
    advise(libc::MADV_NOHUGEPAGE)
}

/// Forgets which pages of the program are mapped. It costs a fault for each few that are used again.
///
/// # Errors
///
/// When the kernel does not do it for one of the program's segments.
pub fn unmap() -> io::Result<()> {
    advise(libc::MADV_DONTNEED)
}

fn advise(advice: libc::c_int) -> io::Result<()> {
    let mut segments: Vec<(usize, usize)> = Vec::new();
    // SAFETY: `collect` is called before this returns, with the pointer that is given here and no other.
    unsafe { libc::dl_iterate_phdr(Some(collect), (&raw mut segments).cast::<c_void>()) };
    for (from, to) in segments {
        // SAFETY: these are pages that lie wholly within a segment that the program cannot write to, mapped from its file: what
        // it reads there is in the file, so it is the same when the kernel maps it again.
        let done =
            unsafe { libc::madvise(ptr::with_exposed_provenance_mut(from), to - from, advice) };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Notes the segments of the program, and of the libraries that come from a file, that are mapped and not to be written to.
///
/// # Safety
///
/// `info` and `segments` point to what [`libc::dl_iterate_phdr`] says, and to a `Vec<(usize, usize)>` that nobody else uses.
unsafe extern "C" fn collect(
    info: *mut libc::dl_phdr_info,
    _: libc::size_t,
    segments: *mut c_void,
) -> libc::c_int {
    // SAFETY: as above, and each object has as many headers as it says.
    let (info, segments, headers) = unsafe {
        let info = &*info;
        let headers = std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum));
        (info, &mut *segments.cast::<Vec<(usize, usize)>>(), headers)
    };
    // SAFETY: a name is a text that ends with a zero, or none.
    let first = unsafe { info.dlpi_name.as_ref().map_or(0, |first| first.cast_unsigned()) };
    // The program itself has no name, and what the kernel lends it is no file.
    if first != 0 && first != b'/' {
        return 0;
    }
    let page = rustix::param::page_size();
    for header in headers {
        if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
            continue;
        }
        let at = |offset: u64| usize::try_from(offset).unwrap_or_default();
        let from = at(info.dlpi_addr) + at(header.p_vaddr);
        let (first, end) =
            (from.next_multiple_of(page), (from + at(header.p_filesz)) / page * page);
        if first < end {
            segments.push((first, end));
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_goes_on_when_its_pages_are_unmapped_and_has_fewer_mapped() {
        map_sparsely().unwrap();
        let before = mapped();
        unmap().unwrap();
        let after = mapped();
        assert!(after < before, "{before} kB before, {after} kB after");
        // Constants, code that has not run yet, and another thread's code.
        let text = std::thread::spawn(|| format!("{:?}", [1.5, 2.5])).join().unwrap();
        assert_eq!(text, "[1.5, 2.5]");
    }

    /// What is mapped of files, in kB.
    fn mapped() -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("RssFile")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}
