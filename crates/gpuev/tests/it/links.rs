//! Links between nodes of KFD's topology.

use gpuev::{LinkKind, Machine};

use crate::tree::{Node, Tree, node_dir};

/// Writes link number `place` of a node.
fn link(tree: &Tree, node: u32, dir: &str, place: u32, (kind, to, weight): (u32, u32, u32)) {
    let properties = format!(
        "type {kind}\nversion_major 0\nnode_from {node}\nnode_to {to}\nweight {weight}\nmin_bandwidth 50000\n\
         max_bandwidth 64000\nflags 1\n"
    );
    tree.write(format!("{}/{dir}/{place}/properties", node_dir(node)), properties);
}

/// Two CPUs (0, 1) and three GPUs: 2 and 3 are joined by XGMI and are at CPU 0, 4 is at CPU 1.
fn machine() -> (Tree, Machine) {
    let tree = Tree::new();
    tree.cpu(0);
    tree.cpu(1);
    for node in 2..5 {
        tree.node(Node {
            node,
            gpu_id: 1000 + node,
            location_id: node << 8,
            render_minor: 126 + node,
            unique_id: u64::from(node),
        });
    }
    link(&tree, 0, "io_links", 0, (2, 1, 12));
    link(&tree, 2, "io_links", 0, (2, 0, 20));
    link(&tree, 2, "io_links", 1, (11, 3, 15));
    link(&tree, 3, "io_links", 0, (2, 1, 40));
    link(&tree, 3, "io_links", 1, (2, 0, 20));
    link(&tree, 4, "io_links", 0, (2, 1, 20));
    link(&tree, 2, "p2p_links", 0, (2, 4, 52));
    let machine = tree.machine();
    (tree, machine)
}

#[test]
fn the_way_is_direct_or_by_way_of_cpus() {
    let (tree, machine) = machine();
    let gpus = machine.gpus().unwrap();
    let route = |from: usize, to: usize| {
        let route = machine.route(&gpus[from], &gpus[to])?;
        Some((route.kind, route.hops, route.weight))
    };
    assert_eq!(route(0, 1), Some((LinkKind::Xgmi, 1, Some(15))));
    assert_eq!(route(1, 0), Some((LinkKind::Pcie, 2, Some(40))), "each direction has its own link");
    assert_eq!(
        route(0, 2),
        Some((LinkKind::Pcie, 3, Some(52))),
        "p2p_links do not shorten the way"
    );
    assert_eq!(
        route(2, 0),
        Some((LinkKind::Pcie, 4, None)),
        "from CPU 1 to CPU 0 no link is shown"
    );
    assert_eq!(route(0, 0), None);
    tree.remove(format!("{}/io_links", node_dir(4)));
    assert_eq!(route(0, 2), None);
}

#[test]
fn links_say_what_they_can_do() {
    let (_tree, machine) = machine();
    let links = machine.links(2);
    assert_eq!(links.iter().map(|link| link.to).collect::<Vec<_>>(), [0, 3, 4]);
    assert_eq!(links.iter().map(|link| link.peer).collect::<Vec<_>>(), [false, false, true]);
    assert_eq!(
        (links[1].min_bandwidth, links[1].max_bandwidth, links[1].flags),
        (50_000, 64_000, 1)
    );
    assert_eq!(machine.nearest_cpu(3).map(|link| link.to), Some(0), "by weight, not by number");
    assert_eq!(machine.links(99), []);
}

#[test]
fn nonsense_is_no_link() {
    let (tree, machine) = machine();
    for text in ["", "type\n", "type x\nnode_to 0\n", "type 2\nnode_to -1\n", "type 2\n"] {
        tree.write(format!("{}/io_links/0/properties", node_dir(4)), text);
        assert_eq!(machine.links(4), [], "{text:?}");
    }
}
