//! What nfnetlink adds to netlink: a small header of its own, and numbers in network order.

pub(crate) use crate::netlink::Attrs;

/// `sizeof(struct nfgenmsg)`.
pub(crate) const NFGEN_LEN: usize = 4;

/// `struct nfgenmsg`: the family, version 0, and a resource number in network order.
pub(crate) fn nfgen(family: u8, resource: u16) -> [u8; NFGEN_LEN] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

/// Attributes by number, where one that is missing or has the wrong length is none.
pub(crate) trait Read<'a> {
    fn value(&self, attr: u16) -> Option<&'a [u8]>;

    fn be32(&self, attr: u16) -> Option<u32> {
        self.value(attr)?.try_into().map(u32::from_be_bytes).ok()
    }

    fn be64(&self, attr: u16) -> Option<u64> {
        self.value(attr)?.try_into().map(u64::from_be_bytes).ok()
    }

    /// A string without its terminating zero.
    fn text(&self, attr: u16) -> Option<&'a str> {
        let raw = self.value(attr)?;
        str::from_utf8(raw.strip_suffix(&[0]).unwrap_or(raw)).ok()
    }

    fn nest(&self, attr: u16) -> Option<Attrs<'a>> {
        self.value(attr).map(Attrs::new)
    }
}

impl<'a> Read<'a> for Attrs<'a> {
    fn value(&self, attr: u16) -> Option<&'a [u8]> {
        self.clone().find(attr).map(|found| found.value)
    }
}
