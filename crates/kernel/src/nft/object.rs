//! Tables, chains, rules, sets and elements: the requests that make and remove them, and what the kernel
//! tells of them.
//!
//! Each function writes one message. `commit` joins them into a transaction; which ones are needed is
//! decided by `plan` and `foreign`.

use russet_desired::{BaseChain, ChainType, Flag, Hook, SetKind};
use russet_net::Family;

#[allow(clippy::wildcard_imports, reason = "this file speaks of most of the numbers")]
use super::number::*;
use super::{
    expr::{Expr, read_exprs},
    wire::{Attrs, NFGEN_LEN, Read, nfgen},
};
use crate::netlink::{Batch, Message, Writer, flags};

/// A table: its family as the kernel counts it, and its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TableRef<'a> {
    pub(crate) family: u8,
    pub(crate) name: &'a str,
}

impl TableRef<'_> {
    /// Our table of a family.
    pub(crate) fn ours(family: Family) -> TableRef<'static> {
        TableRef { family: family_number(family), name: OUR_TABLE }
    }
}

/// The name of our tables.
pub(crate) const OUR_TABLE: &str = "russet";

pub(crate) fn family_number(family: Family) -> u8 {
    match family {
        Family::V4 => NFPROTO_IPV4,
        Family::V6 => NFPROTO_IPV6,
    }
}

pub(crate) fn family_of(number: u8) -> Option<Family> {
    Family::BOTH.into_iter().find(|family| family_number(*family) == number)
}

// ---- requests

fn push(batch: &mut Batch, message: u16, flags: u16, family: u8) -> Writer<'_> {
    batch.push(NFNL_SUBSYS_NFTABLES << 8 | message, flags, &nfgen(family, 0))
}

pub(crate) fn new_table(batch: &mut Batch, table: TableRef<'_>, flags: u32) {
    push(batch, NFT_MSG_NEWTABLE, flags::CREATE, table.family)
        .str(NFTA_TABLE_NAME, table.name)
        .u32_be(NFTA_TABLE_FLAGS, flags);
}

pub(crate) fn del_table(batch: &mut Batch, table: TableRef<'_>) {
    push(batch, NFT_MSG_DELTABLE, 0, table.family).str(NFTA_TABLE_NAME, table.name);
}

/// Makes a chain; with the policy accept when it is a base chain.
pub(crate) fn new_chain(
    batch: &mut Batch,
    table: TableRef<'_>,
    name: &str,
    base: Option<BaseChain>,
) {
    let mut message = push(batch, NFT_MSG_NEWCHAIN, flags::CREATE, table.family);
    message.str(NFTA_CHAIN_TABLE, table.name).str(NFTA_CHAIN_NAME, name);
    let Some(base) = base else { return };
    message
        .str(NFTA_CHAIN_TYPE, type_name(base.kind))
        .nest(NFTA_CHAIN_HOOK, |hook| {
            hook.u32_be(NFTA_HOOK_HOOKNUM, hook_number(base.hook))
                .u32_be(NFTA_HOOK_PRIORITY, base.priority.cast_unsigned());
        })
        .u32_be(NFTA_CHAIN_POLICY, NF_ACCEPT.cast_unsigned());
}

pub(crate) fn del_chain(batch: &mut Batch, table: TableRef<'_>, name: &str) {
    push(batch, NFT_MSG_DELCHAIN, 0, table.family)
        .str(NFTA_CHAIN_TABLE, table.name)
        .str(NFTA_CHAIN_NAME, name);
}

/// Removes every rule of a chain.
pub(crate) fn flush_chain(batch: &mut Batch, table: TableRef<'_>, name: &str) {
    push(batch, NFT_MSG_DELRULE, 0, table.family)
        .str(NFTA_RULE_TABLE, table.name)
        .str(NFTA_RULE_CHAIN, name);
}

/// Adds a rule behind the others.
pub(crate) fn append_rule(batch: &mut Batch, table: TableRef<'_>, chain: &str, exprs: &[Expr]) {
    let flags = flags::CREATE | flags::APPEND;
    let mut message = push(batch, NFT_MSG_NEWRULE, flags, table.family);
    write_rule_body(&mut message, table, chain, exprs);
}

/// Puts a rule before the others, with a comment.
pub(crate) fn insert_rule(
    batch: &mut Batch,
    (table, chain): (TableRef<'_>, &str),
    place: Place,
    exprs: &[Expr],
    comment: &str,
) {
    let flags = match place {
        Place::Head => flags::CREATE,
        Place::End => flags::CREATE | flags::APPEND,
    };
    let mut message = push(batch, NFT_MSG_NEWRULE, flags, table.family);
    write_rule_body(&mut message, table, chain, exprs);
    message.bytes(NFTA_RULE_USERDATA, &write_comment(comment));
}

/// Where in a chain a rule is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Head,
    End,
}

fn write_rule_body(message: &mut Writer<'_>, table: TableRef<'_>, chain: &str, exprs: &[Expr]) {
    message
        .str(NFTA_RULE_TABLE, table.name)
        .str(NFTA_RULE_CHAIN, chain)
        .nest(NFTA_RULE_EXPRESSIONS, |list| exprs.iter().for_each(|expr| expr.write(list)));
}

pub(crate) fn del_rule(batch: &mut Batch, table: TableRef<'_>, chain: &str, handle: u64) {
    push(batch, NFT_MSG_DELRULE, 0, table.family)
        .str(NFTA_RULE_TABLE, table.name)
        .str(NFTA_RULE_CHAIN, chain)
        .u64_be(NFTA_RULE_HANDLE, handle);
}

/// Makes a set of addresses of the table's family.
pub(crate) fn new_set(batch: &mut Batch, family: Family, name: &str, kind: SetKind) {
    let table = TableRef::ours(family);
    // The number by which a rule of the same transaction could name the set. Ours use the name, but the
    // kernel insists on a number.
    let id = u32::try_from(batch.len()).unwrap_or(u32::MAX);
    let mut message = push(batch, NFT_MSG_NEWSET, flags::CREATE, table.family);
    message
        .str(NFTA_SET_TABLE, table.name)
        .str(NFTA_SET_NAME, name)
        .u32_be(NFTA_SET_FLAGS, set_flags(kind))
        .u32_be(NFTA_SET_KEY_TYPE, key_type(family, kind))
        .u32_be(NFTA_SET_KEY_LEN, key_parts(family, kind).iter().sum())
        .u32_be(NFTA_SET_ID, id);
    if kind == SetKind::LinkPrefixes {
        message.nest(NFTA_SET_DESC, |desc| {
            desc.nest(NFTA_SET_DESC_CONCAT, |parts| {
                for len in key_parts(family, kind) {
                    parts.nest(NFTA_LIST_ELEM, |part| _ = part.u32_be(NFTA_SET_FIELD_LEN, *len));
                }
            });
        });
    }
}

/// How `nft` shows the elements.
fn key_type(family: Family, kind: SetKind) -> u32 {
    let address = match family {
        Family::V4 => TYPE_IPADDR,
        Family::V6 => TYPE_IP6ADDR,
    };
    match kind {
        SetKind::LinkPrefixes => TYPE_IFNAME << TYPE_BITS | address,
        SetKind::Addresses | SetKind::Prefixes => address,
    }
}

/// The lengths of a key's parts, in octets: a link's name where there is one, then an address.
pub(crate) const fn key_parts(family: Family, kind: SetKind) -> &'static [u32] {
    match (kind, family) {
        (SetKind::LinkPrefixes, Family::V4) => &[16, 4],
        (SetKind::LinkPrefixes, Family::V6) => &[16, 16],
        (SetKind::Addresses | SetKind::Prefixes, Family::V4) => &[4],
        (SetKind::Addresses | SetKind::Prefixes, Family::V6) => &[16],
    }
}

pub(crate) fn del_set(batch: &mut Batch, table: TableRef<'_>, name: &str) {
    push(batch, NFT_MSG_DELSET, 0, table.family)
        .str(NFTA_SET_TABLE, table.name)
        .str(NFTA_SET_NAME, name);
}

/// One element as the kernel keeps it: a key, or the key that follows the last of an interval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RawElement {
    pub(crate) key: Vec<u8>,
    pub(crate) end: Flag,
    /// The last key of an interval of pairs, which is one element.
    pub(crate) last: Option<Vec<u8>>,
}

/// Adds elements, as many as fit one message.
pub(crate) fn new_elements(
    batch: &mut Batch,
    table: TableRef<'_>,
    set: &str,
    elements: &[RawElement],
) {
    let message = push(batch, NFT_MSG_NEWSETELEM, flags::CREATE, table.family);
    write_elements(message, table, set, elements);
}

pub(crate) fn del_elements(
    batch: &mut Batch,
    table: TableRef<'_>,
    set: &str,
    elements: &[RawElement],
) {
    write_elements(push(batch, NFT_MSG_DELSETELEM, 0, table.family), table, set, elements);
}

fn write_elements(
    mut message: Writer<'_>,
    table: TableRef<'_>,
    set: &str,
    elements: &[RawElement],
) {
    message.str(NFTA_SET_ELEM_LIST_TABLE, table.name).str(NFTA_SET_ELEM_LIST_SET, set).nest(
        NFTA_SET_ELEM_LIST_ELEMENTS,
        |list| {
            for element in elements {
                list.nest(NFTA_LIST_ELEM, |elem| write_element(elem, element));
            }
        },
    );
}

fn write_element(elem: &mut Writer<'_>, element: &RawElement) {
    elem.nest(NFTA_SET_ELEM_KEY, |key| {
        key.bytes(NFTA_DATA_VALUE, &element.key);
    });
    if let Some(last) = &element.last {
        elem.nest(NFTA_SET_ELEM_KEY_END, |key| {
            key.bytes(NFTA_DATA_VALUE, last);
        });
    }
    if element.end.is_on() {
        elem.u32_be(NFTA_SET_ELEM_FLAGS, NFT_SET_ELEM_INTERVAL_END);
    }
}

pub(crate) fn get_tables(batch: &mut Batch) {
    push(batch, NFT_MSG_GETTABLE, 0, NFPROTO_UNSPEC);
}

/// All chains of all tables: the kernel has no filter for them.
pub(crate) fn get_chains(batch: &mut Batch) {
    push(batch, NFT_MSG_GETCHAIN, 0, NFPROTO_UNSPEC);
}

pub(crate) fn get_rules(batch: &mut Batch, table: TableRef<'_>) {
    push(batch, NFT_MSG_GETRULE, 0, table.family).str(NFTA_RULE_TABLE, table.name);
}

pub(crate) fn get_chain_rules(batch: &mut Batch, table: TableRef<'_>, chain: &str) {
    push(batch, NFT_MSG_GETRULE, 0, table.family)
        .str(NFTA_RULE_TABLE, table.name)
        .str(NFTA_RULE_CHAIN, chain);
}

pub(crate) fn get_sets(batch: &mut Batch, table: TableRef<'_>) {
    push(batch, NFT_MSG_GETSET, 0, table.family).str(NFTA_SET_TABLE, table.name);
}

pub(crate) fn get_elements(batch: &mut Batch, table: TableRef<'_>, set: &str) {
    push(batch, NFT_MSG_GETSETELEM, 0, table.family)
        .str(NFTA_SET_ELEM_LIST_TABLE, table.name)
        .str(NFTA_SET_ELEM_LIST_SET, set);
}

// ---- replies

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RawTable {
    pub(crate) family: u8,
    pub(crate) name: String,
    pub(crate) flags: u32,
    /// The port id of the socket that owns the table.
    pub(crate) owner: Option<u32>,
}

pub(crate) fn read_table(reply: &Message<'_>) -> Option<RawTable> {
    let attrs = &reply.attrs(NFGEN_LEN);
    Some(RawTable {
        family: reply.u8(0),
        name: attrs.text(NFTA_TABLE_NAME)?.to_owned(),
        flags: attrs.be32(NFTA_TABLE_FLAGS).unwrap_or_default(),
        owner: attrs.be32(NFTA_TABLE_OWNER),
    })
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RawChain {
    pub(crate) family: u8,
    pub(crate) table: String,
    pub(crate) name: String,
    pub(crate) base: Option<RawBase>,
}

/// What makes a chain a base chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RawBase {
    pub(crate) kind: String,
    /// `NF_INET_…`
    pub(crate) hook: u32,
    pub(crate) priority: i32,
    /// `NF_ACCEPT` or `NF_DROP`.
    pub(crate) policy: i32,
}

impl RawChain {
    pub(crate) fn is_of(&self, table: TableRef<'_>) -> bool {
        self.family == table.family && self.table == table.name
    }
}

pub(crate) fn read_chain(reply: &Message<'_>) -> Option<RawChain> {
    let attrs = &reply.attrs(NFGEN_LEN);
    Some(RawChain {
        family: reply.u8(0),
        table: attrs.text(NFTA_CHAIN_TABLE)?.to_owned(),
        name: attrs.text(NFTA_CHAIN_NAME)?.to_owned(),
        base: attrs.nest(NFTA_CHAIN_HOOK).and_then(|hook| read_base(attrs, &hook)),
    })
}

fn read_base(attrs: &Attrs<'_>, hook: &Attrs<'_>) -> Option<RawBase> {
    Some(RawBase {
        kind: attrs.text(NFTA_CHAIN_TYPE)?.to_owned(),
        hook: hook.be32(NFTA_HOOK_HOOKNUM)?,
        priority: hook.be32(NFTA_HOOK_PRIORITY)?.cast_signed(),
        policy: attrs.be32(NFTA_CHAIN_POLICY)?.cast_signed(),
    })
}

/// What the base of a chain of ours is, when it is one that we could have made.
pub(crate) fn our_base(raw: &RawBase) -> Option<BaseChain> {
    if raw.policy != NF_ACCEPT {
        return None;
    }
    let kinds = [ChainType::Filter, ChainType::Nat];
    let hooks = [Hook::Prerouting, Hook::Input, Hook::Forward, Hook::Output, Hook::Postrouting];
    Some(BaseChain {
        kind: kinds.into_iter().find(|kind| type_name(*kind) == raw.kind)?,
        hook: hooks.into_iter().find(|hook| hook_number(*hook) == raw.hook)?,
        priority: raw.priority,
    })
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RawRule {
    pub(crate) chain: String,
    pub(crate) handle: u64,
    pub(crate) exprs: Vec<Expr>,
    pub(crate) comment: Option<String>,
}

pub(crate) fn read_rule_reply(reply: &Message<'_>) -> Option<RawRule> {
    let attrs = &reply.attrs(NFGEN_LEN);
    Some(RawRule {
        chain: attrs.text(NFTA_RULE_CHAIN)?.to_owned(),
        handle: attrs.be64(NFTA_RULE_HANDLE)?,
        exprs: read_exprs(attrs.nest(NFTA_RULE_EXPRESSIONS).unwrap_or(Attrs::new(&[]))),
        comment: attrs.value(NFTA_RULE_USERDATA).and_then(read_comment),
    })
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RawSet {
    pub(crate) name: String,
    pub(crate) flags: u32,
    pub(crate) key_len: u32,
}

pub(crate) fn read_set(reply: &Message<'_>) -> Option<RawSet> {
    let attrs = &reply.attrs(NFGEN_LEN);
    Some(RawSet {
        name: attrs.text(NFTA_SET_NAME)?.to_owned(),
        flags: attrs.be32(NFTA_SET_FLAGS).unwrap_or_default(),
        key_len: attrs.be32(NFTA_SET_KEY_LEN)?,
    })
}

/// What a set of ours holds, when it is one that we could have made.
pub(crate) fn our_kind(family: Family, raw: &RawSet) -> Option<SetKind> {
    let kinds = [SetKind::Addresses, SetKind::Prefixes, SetKind::LinkPrefixes];
    kinds.into_iter().find(|kind| {
        set_flags(*kind) == raw.flags && key_parts(family, *kind).iter().sum::<u32>() == raw.key_len
    })
}

/// The elements of one message; `None` when one has more to it than a key.
pub(crate) fn read_elements(reply: &Message<'_>) -> Option<Vec<RawElement>> {
    let list = reply.attrs(NFGEN_LEN).nest(NFTA_SET_ELEM_LIST_ELEMENTS);
    list.unwrap_or(Attrs::new(&[])).map(|elem| read_element(&elem.attrs())).collect()
}

fn read_element(elem: &Attrs<'_>) -> Option<RawElement> {
    let flags = elem.be32(NFTA_SET_ELEM_FLAGS).unwrap_or_default();
    let plain = elem.clone().all(|attr| {
        matches!(
            attr.kind,
            NFTA_SET_ELEM_KEY
                | NFTA_SET_ELEM_KEY_END
                | NFTA_SET_ELEM_FLAGS
                | NFTA_SET_ELEM_USERDATA
        )
    });
    let last = elem.nest(NFTA_SET_ELEM_KEY_END);
    let last = last.and_then(|last| last.value(NFTA_DATA_VALUE).map(<[u8]>::to_vec));
    (plain && flags & !NFT_SET_ELEM_INTERVAL_END == 0).then_some(RawElement {
        key: elem.nest(NFTA_SET_ELEM_KEY)?.value(NFTA_DATA_VALUE)?.to_vec(),
        end: Flag::from(flags & NFT_SET_ELEM_INTERVAL_END != 0),
        last,
    })
}

// ---- numbers and comments

fn hook_number(hook: Hook) -> u32 {
    match hook {
        Hook::Prerouting => NF_INET_PRE_ROUTING,
        Hook::Input => NF_INET_LOCAL_IN,
        Hook::Forward => NF_INET_FORWARD,
        Hook::Output => NF_INET_LOCAL_OUT,
        Hook::Postrouting => NF_INET_POST_ROUTING,
    }
}

fn type_name(kind: ChainType) -> &'static str {
    match kind {
        ChainType::Filter => "filter",
        ChainType::Nat => "nat",
    }
}

fn set_flags(kind: SetKind) -> u32 {
    match kind {
        SetKind::Addresses => 0,
        SetKind::Prefixes => NFT_SET_INTERVAL,
        SetKind::LinkPrefixes => NFT_SET_INTERVAL | NFT_SET_CONCAT,
    }
}

/// The form of libnftnl, which `nft` and `iptables` show. A comment of ours is short.
fn write_comment(comment: &str) -> Vec<u8> {
    let len = u8::try_from(comment.len() + 1).unwrap_or(u8::MAX);
    [&[NFTNL_UDATA_RULE_COMMENT, len], comment.as_bytes(), &[0]].concat()
}

fn read_comment(mut userdata: &[u8]) -> Option<String> {
    while let &[kind, len, ref rest @ ..] = userdata {
        let value = rest.get(..usize::from(len))?;
        if kind == NFTNL_UDATA_RULE_COMMENT {
            let text = value.strip_suffix(&[0]).unwrap_or(value);
            return String::from_utf8(text.to_vec()).ok();
        }
        userdata = rest.get(usize::from(len)..)?;
    }
    None
}
