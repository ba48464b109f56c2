//! The expressions that a rule is made of, between their bytes and an enum.
//!
//! An expression loads something into a register, changes or judges a register, or says what becomes of the
//! packet. Only the forms that `rule` writes, and those that `foreign` must recognise, have a variant; any
//! other, and any form with an attribute that we would not write, is [`Expr::Other`]. So a decoded
//! expression never says less than the kernel would do.

#[allow(clippy::wildcard_imports, reason = "this file speaks of most of the numbers")]
use super::number::*;
use super::wire::{Attrs, Read};
use crate::netlink::Writer;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Expr {
    /// `key` is `NFT_META_…`.
    Meta {
        key: u32,
    },
    /// `len` octets at `offset` of the network header.
    Network {
        offset: u32,
        len: u32,
    },
    /// The same, into the register behind the first: the second part of a concatenation whose first is a link's name.
    NetworkBeside {
        offset: u32,
        len: u32,
    },
    /// Whether the way back to the source is by the link that the packet came in by.
    ReversePath,
    /// Keeps the bits of the mask.
    Mask(Vec<u8>),
    /// Goes on when the register holds these octets.
    Equal(Vec<u8>),
    NotEqual(Vec<u8>),
    InSet(String),
    NotInSet(String),
    Verdict(Code),
    /// `NF_NAT_RANGE_…`
    Masquerade {
        flags: u32,
    },
    Reject,
    /// Judges nothing: a counter, a log line, a comment of `iptables`.
    Neutral,
    Other,
}

/// `NF_…` and `NFT_…` verdicts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    Drop,
    Accept,
    Return,
    Jump(String),
    Goto(String),
}

impl Expr {
    /// Writes the expression as one `NFTA_LIST_ELEM`. What we never write ourselves leaves no trace.
    pub(crate) fn write(&self, list: &mut Writer<'_>) {
        let Some(name) = self.name() else { return };
        list.nest(NFTA_LIST_ELEM, |elem| {
            elem.str(NFTA_EXPR_NAME, name).nest(NFTA_EXPR_DATA, |data| self.write_data(data));
        });
    }

    fn name(&self) -> Option<&'static str> {
        Some(match self {
            Self::Meta { .. } => "meta",
            Self::Network { .. } | Self::NetworkBeside { .. } => "payload",
            Self::ReversePath => "fib",
            Self::Mask(_) => "bitwise",
            Self::Equal(_) | Self::NotEqual(_) => "cmp",
            Self::InSet(_) | Self::NotInSet(_) => "lookup",
            Self::Verdict(_) => "immediate",
            Self::Masquerade { .. } => "masq",
            Self::Reject | Self::Neutral | Self::Other => return None,
        })
    }

    fn write_data(&self, data: &mut Writer<'_>) {
        match self {
            Self::Meta { key } => {
                data.u32_be(NFTA_META_KEY, *key).u32_be(NFTA_META_DREG, NFT_REG_1);
            }
            Self::Network { offset, len } => write_payload(data, NFT_REG_1, *offset, *len),
            Self::NetworkBeside { offset, len } => write_payload(data, NFT_REG_2, *offset, *len),
            Self::ReversePath => {
                data.u32_be(NFTA_FIB_DREG, NFT_REG_1)
                    .u32_be(NFTA_FIB_RESULT, NFT_FIB_RESULT_OIF)
                    .u32_be(NFTA_FIB_FLAGS, REVERSE_PATH);
            }
            Self::Mask(mask) => write_mask(data, mask),
            Self::Equal(value) => write_cmp(data, NFT_CMP_EQ, value),
            Self::NotEqual(value) => write_cmp(data, NFT_CMP_NEQ, value),
            Self::InSet(set) => write_lookup(data, set, 0),
            Self::NotInSet(set) => write_lookup(data, set, NFT_LOOKUP_F_INV),
            Self::Verdict(code) => write_verdict(data, code),
            Self::Masquerade { flags: 0 } | Self::Reject | Self::Neutral | Self::Other => {}
            Self::Masquerade { flags } => {
                data.u32_be(NFTA_MASQ_FLAGS, *flags);
            }
        }
    }
}

/// Reads `NFTA_RULE_EXPRESSIONS`.
pub(crate) fn read_exprs(list: Attrs<'_>) -> Vec<Expr> {
    list.map(|elem| read_expr(&elem.attrs()).unwrap_or(Expr::Other)).collect()
}

fn read_expr(elem: &Attrs<'_>) -> Option<Expr> {
    let data = elem.nest(NFTA_EXPR_DATA).unwrap_or(Attrs::new(&[]));
    let data = &data;
    match elem.text(NFTA_EXPR_NAME)? {
        "meta" => read_meta(data),
        "payload" => read_payload(data),
        "fib" => read_fib(data),
        "bitwise" => read_mask(data),
        "cmp" => read_cmp(data),
        "lookup" => read_lookup(data),
        "immediate" => read_verdict(data),
        "masq" => read_masq(data),
        "reject" => Some(Expr::Reject),
        "counter" | "log" => Some(Expr::Neutral),
        "match" => (data.text(NFTA_MATCH_NAME)? == "comment").then_some(Expr::Neutral),
        "target" => (data.text(NFTA_TARGET_NAME)? == "REJECT").then_some(Expr::Reject),
        _ => None,
    }
}

/// An expression that has other attributes than these says more than we would.
fn only(data: &Attrs<'_>, known: &[u16]) -> Option<()> {
    data.clone().all(|attr| known.contains(&attr.kind)).then_some(())
}

fn reads_register(data: &Attrs<'_>, attr: u16) -> Option<()> {
    (data.be32(attr)? == NFT_REG_1).then_some(())
}

fn read_meta(data: &Attrs<'_>) -> Option<Expr> {
    only(data, &[NFTA_META_DREG, NFTA_META_KEY])?;
    reads_register(data, NFTA_META_DREG)?;
    Some(Expr::Meta { key: data.be32(NFTA_META_KEY)? })
}

fn read_fib(data: &Attrs<'_>) -> Option<Expr> {
    only(data, &[NFTA_FIB_DREG, NFTA_FIB_RESULT, NFTA_FIB_FLAGS])?;
    reads_register(data, NFTA_FIB_DREG)?;
    let is_ours = data.be32(NFTA_FIB_RESULT)? == NFT_FIB_RESULT_OIF
        && data.be32(NFTA_FIB_FLAGS)? == REVERSE_PATH;
    is_ours.then_some(Expr::ReversePath)
}

/// `fib saddr . iif oif present`
const REVERSE_PATH: u32 = NFTA_FIB_F_SADDR | NFTA_FIB_F_IIF | NFTA_FIB_F_PRESENT;

fn read_payload(data: &Attrs<'_>) -> Option<Expr> {
    only(data, &[NFTA_PAYLOAD_DREG, NFTA_PAYLOAD_BASE, NFTA_PAYLOAD_OFFSET, NFTA_PAYLOAD_LEN])?;
    let (offset, len) = (data.be32(NFTA_PAYLOAD_OFFSET)?, data.be32(NFTA_PAYLOAD_LEN)?);
    if data.be32(NFTA_PAYLOAD_BASE)? != NFT_PAYLOAD_NETWORK_HEADER {
        return None;
    }
    match data.be32(NFTA_PAYLOAD_DREG)? {
        NFT_REG_1 => Some(Expr::Network { offset, len }),
        NFT_REG_2 => Some(Expr::NetworkBeside { offset, len }),
        _ => None,
    }
}

fn write_payload(data: &mut Writer<'_>, register: u32, offset: u32, len: u32) {
    data.u32_be(NFTA_PAYLOAD_DREG, register)
        .u32_be(NFTA_PAYLOAD_BASE, NFT_PAYLOAD_NETWORK_HEADER)
        .u32_be(NFTA_PAYLOAD_OFFSET, offset)
        .u32_be(NFTA_PAYLOAD_LEN, len);
}

fn write_mask(data: &mut Writer<'_>, mask: &[u8]) {
    let len = u32::try_from(mask.len()).unwrap_or(u32::MAX);
    data.u32_be(NFTA_BITWISE_SREG, NFT_REG_1)
        .u32_be(NFTA_BITWISE_DREG, NFT_REG_1)
        .u32_be(NFTA_BITWISE_LEN, len);
    write_value(data, NFTA_BITWISE_MASK, mask);
    write_value(data, NFTA_BITWISE_XOR, &vec![0; mask.len()]);
}

fn read_mask(data: &Attrs<'_>) -> Option<Expr> {
    let known = [NFTA_BITWISE_SREG, NFTA_BITWISE_DREG, NFTA_BITWISE_LEN, NFTA_BITWISE_MASK];
    only(data, &[known.as_slice(), &[NFTA_BITWISE_XOR, NFTA_BITWISE_OP]].concat())?;
    reads_register(data, NFTA_BITWISE_SREG)?;
    reads_register(data, NFTA_BITWISE_DREG)?;
    let mask = data.nest(NFTA_BITWISE_MASK)?.value(NFTA_DATA_VALUE)?;
    let xor = data.nest(NFTA_BITWISE_XOR)?.value(NFTA_DATA_VALUE)?;
    let len = usize::try_from(data.be32(NFTA_BITWISE_LEN)?).ok()?;
    // Kernels before 5.6 do not tell the operation: there is only this one.
    let masks = data.be32(NFTA_BITWISE_OP).unwrap_or_default() == NFT_BITWISE_MASK_XOR;
    (masks && len == mask.len() && xor.iter().all(|octet| *octet == 0))
        .then(|| Expr::Mask(mask.to_vec()))
}

fn write_cmp(data: &mut Writer<'_>, op: u32, value: &[u8]) {
    data.u32_be(NFTA_CMP_SREG, NFT_REG_1).u32_be(NFTA_CMP_OP, op);
    write_value(data, NFTA_CMP_DATA, value);
}

fn write_value(data: &mut Writer<'_>, attr: u16, value: &[u8]) {
    data.nest(attr, |data| {
        data.bytes(NFTA_DATA_VALUE, value);
    });
}

fn read_cmp(data: &Attrs<'_>) -> Option<Expr> {
    reads_register(data, NFTA_CMP_SREG)?;
    let value = data.nest(NFTA_CMP_DATA)?.value(NFTA_DATA_VALUE)?.to_vec();
    match data.be32(NFTA_CMP_OP)? {
        NFT_CMP_EQ => Some(Expr::Equal(value)),
        NFT_CMP_NEQ => Some(Expr::NotEqual(value)),
        _ => None,
    }
}

fn write_lookup(data: &mut Writer<'_>, set: &str, flags: u32) {
    data.str(NFTA_LOOKUP_SET, set)
        .u32_be(NFTA_LOOKUP_SREG, NFT_REG_1)
        .u32_be(NFTA_LOOKUP_FLAGS, flags);
}

fn read_lookup(data: &Attrs<'_>) -> Option<Expr> {
    only(data, &[NFTA_LOOKUP_SET, NFTA_LOOKUP_SREG, NFTA_LOOKUP_FLAGS])?;
    reads_register(data, NFTA_LOOKUP_SREG)?;
    let set = data.text(NFTA_LOOKUP_SET)?.to_owned();
    match data.be32(NFTA_LOOKUP_FLAGS).unwrap_or_default() {
        0 => Some(Expr::InSet(set)),
        NFT_LOOKUP_F_INV => Some(Expr::NotInSet(set)),
        _ => None,
    }
}

fn write_verdict(data: &mut Writer<'_>, code: &Code) {
    let (number, chain) = match code {
        Code::Drop => (NF_DROP, None),
        Code::Accept => (NF_ACCEPT, None),
        Code::Return => (NFT_RETURN, None),
        Code::Jump(chain) => (NFT_JUMP, Some(chain)),
        Code::Goto(chain) => (NFT_GOTO, Some(chain)),
    };
    data.u32_be(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT).nest(NFTA_IMMEDIATE_DATA, |data| {
        data.nest(NFTA_DATA_VERDICT, |verdict| {
            verdict.u32_be(NFTA_VERDICT_CODE, number.cast_unsigned());
            if let Some(chain) = chain {
                verdict.str(NFTA_VERDICT_CHAIN, chain);
            }
        });
    });
}

fn read_verdict(data: &Attrs<'_>) -> Option<Expr> {
    let verdict = data.nest(NFTA_IMMEDIATE_DATA)?.nest(NFTA_DATA_VERDICT)?;
    let code = verdict.value(NFTA_VERDICT_CODE)?.try_into().map(i32::from_be_bytes).ok()?;
    let chain = || verdict.text(NFTA_VERDICT_CHAIN).map(str::to_owned);
    Some(Expr::Verdict(match code {
        NF_DROP => Code::Drop,
        NF_ACCEPT => Code::Accept,
        NFT_RETURN => Code::Return,
        NFT_JUMP => Code::Jump(chain()?),
        NFT_GOTO => Code::Goto(chain()?),
        _ => return None,
    }))
}

fn read_masq(data: &Attrs<'_>) -> Option<Expr> {
    only(data, &[NFTA_MASQ_FLAGS])?;
    Some(Expr::Masquerade { flags: data.be32(NFTA_MASQ_FLAGS).unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::{Batch, Messages};

    /// What is read of the list that `fill` writes.
    fn read_back(fill: impl FnOnce(&mut Writer<'_>)) -> Vec<Expr> {
        let mut batch = Batch::new();
        fill(&mut batch.push(0, 0, &[]));
        read_exprs(Messages::new(batch.bytes()).next().unwrap().attrs(0))
    }

    fn elem(list: &mut Writer<'_>, name: &str, fill: impl FnOnce(&mut Writer<'_>)) {
        list.nest(NFTA_LIST_ELEM, |elem| {
            elem.str(NFTA_EXPR_NAME, name).nest(NFTA_EXPR_DATA, fill);
        });
    }

    #[test]
    fn every_expression_that_we_write_reads_back_as_itself() {
        let all = [
            Expr::Meta { key: NFT_META_MARK },
            Expr::Network { offset: 12, len: 4 },
            Expr::NetworkBeside { offset: 8, len: 16 },
            Expr::Mask(vec![255, 255, 0, 0]),
            Expr::Equal(vec![10, 50, 0, 0]),
            Expr::NotEqual(vec![0; 16]),
            Expr::InSet("pods".into()),
            Expr::NotInSet("pods".into()),
            Expr::Verdict(Code::Drop),
            Expr::Verdict(Code::Accept),
            Expr::Verdict(Code::Return),
            Expr::Verdict(Code::Jump("next".into())),
            Expr::Verdict(Code::Goto("next".into())),
            Expr::Masquerade { flags: 0 },
            Expr::Masquerade { flags: NF_NAT_RANGE_PROTO_RANDOM_FULLY },
        ];
        assert_eq!(read_back(|list| all.iter().for_each(|expr| expr.write(list))), all);
    }

    #[test]
    fn a_form_that_we_would_not_write_is_other() {
        let other = |name: &str, fill: fn(&mut Writer<'_>)| {
            let exprs = read_back(|list| elem(list, name, fill));
            assert_eq!(exprs, [Expr::Other], "{name}");
        };
        // `meta mark set`, a map lookup, a comparison by order, a masquerade to ports.
        other("meta", |data| _ = data.u32_be(NFTA_META_KEY, 3).u32_be(3, 1));
        other("lookup", |data| {
            write_lookup(data, "map", 0);
            data.u32_be(NFTA_LOOKUP_DREG, 0);
        });
        other("cmp", |data| write_cmp(data, 2, &[1]));
        other("masq", |data| _ = data.u32_be(NFTA_MASQ_REG_PROTO_MIN, 1));
        other("limit", |_| {});
    }

    #[test]
    fn what_says_nothing_of_the_packet_is_neutral() {
        let exprs = read_back(|list| {
            elem(list, "counter", |_| {});
            elem(list, "match", |data| _ = data.str(NFTA_MATCH_NAME, "comment"));
            elem(list, "match", |data| _ = data.str(NFTA_MATCH_NAME, "conntrack"));
            elem(list, "target", |data| _ = data.str(NFTA_TARGET_NAME, "REJECT"));
        });
        assert_eq!(exprs, [Expr::Neutral, Expr::Neutral, Expr::Other, Expr::Reject]);
    }
}
