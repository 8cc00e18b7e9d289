//! The Merkle tree of RFC 6962 section 2.1, grown one leaf at a time.

use ring::digest::{Context, SHA256};

/// SHA-256(0x00 || body).
pub fn leaf_hash(body: &[u8]) -> [u8; 32] {
    hash(&[&[0], body])
}

fn node_hash(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    hash(&[&[1], left, right])
}

fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    parts.iter().for_each(|part| context.update(part));
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

/// The frontier of a tree: the roots of its perfect subtrees, largest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    size: u64,
    frontier: Vec<[u8; 32]>,
}

impl Tree {
    pub fn size(&self) -> u64 {
        self.size
    }

    pub fn push(&mut self, leaf: [u8; 32]) {
        let mut node = leaf;
        for _ in 0..self.size.trailing_ones() {
            // INVARIANT: a tree of `size` leaves has one frontier entry for each set bit.
            let left = self.frontier.pop().expect("one entry for each set bit of the size");
            node = node_hash(&left, &node);
        }
        self.frontier.push(node);
        self.size += 1;
    }

    /// The tree hash; of the empty tree, the hash of the empty string.
    pub fn root(&self) -> [u8; 32] {
        let mut nodes = self.frontier.iter().rev();
        match nodes.next() {
            Some(last) => nodes.fold(*last, |right, left| node_hash(left, &right)),
            None => hash(&[]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The definition of RFC 6962 section 2.1, written as it stands there.
    fn by_definition(leaves: &[[u8; 32]]) -> [u8; 32] {
        match leaves {
            [] => hash(&[]),
            [leaf] => *leaf,
            _ => {
                let split = leaves.len().next_power_of_two() / 2;
                node_hash(&by_definition(&leaves[..split]), &by_definition(&leaves[split..]))
            }
        }
    }

    #[test]
    fn grows_to_what_the_definition_says() {
        let mut tree = Tree::default();
        let mut leaves = Vec::new();
        for number in 0u8..70 {
            assert_eq!(tree.root(), by_definition(&leaves));
            let leaf = leaf_hash(&[number]);
            tree.push(leaf);
            leaves.push(leaf);
        }
        assert_eq!(tree.size(), 70);
    }

    /// Test vectors of the certificate-transparency project (merkletree tests).
    #[test]
    fn known_vectors() {
        assert_eq!(hex(&Tree::default().root()), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(hex(&leaf_hash(b"")), "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d");
        let mut tree = Tree::default();
        tree.push(leaf_hash(b""));
        tree.push(leaf_hash(&[0]));
        assert_eq!(hex(&tree.root()), "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125");
    }
}
