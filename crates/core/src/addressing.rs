//! Who hands out pod addresses. `node_subnet` is the value that is there: a lease per node.

pub mod node_subnet;
