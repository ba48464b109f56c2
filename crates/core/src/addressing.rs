//! Who hands out pod addresses: `node_subnet` (a lease per node), or `blocks` (small blocks with affinity to
//! a node, each address recorded in the store).

pub mod blocks;
pub mod node_subnet;
