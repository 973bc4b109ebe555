"""Topology, paths and plans: what can be judged without a node. `python -m unittest discover -s tests`."""

import copy
import unittest
from pathlib import Path

import yaml

from twinseal_controller import plan as planning
from twinseal_controller import state_file
from twinseal_controller.controller import difference
from twinseal_controller.keys import Keyring
from twinseal_controller.protocol import pb
from twinseal_controller.topology import Topology, TopologyError

EXAMPLE = Path(__file__).resolve().parents[1] / "example.yaml"


def example() -> dict:
    return yaml.safe_load(EXAMPLE.read_text(encoding="utf-8"))


def grid(size: int) -> dict:
    """A square of nodes, each with a site of one tenant, joined to its neighbours."""
    names = {(x, y): f"n{x}-{y}" for x in range(size) for y in range(size)}
    document = {"nodes": {}, "links": {}, "tenants": {"red": {}}}
    for (x, y), name in names.items():
        site = {"netdev": "eth0", "vrf": "red", "prefixes": [f"10.{x}.{y}.0/24"]}
        document["nodes"][name] = {"target": f"unix:/{name}", "underlays": {"wan": {"netdev": "eth1"}}, "sites": {"lan": site}}
        for other in ((x + 1, y), (x, y + 1)):
            if other in names:
                end = {"port": "wan", "address": "192.0.2.1"}
                document["links"][f"{name}.{names[other]}"] = {"a": {"node": name, **end}, "b": {"node": names[other], **end}}
    return document


def follow(plan: planning.Plan, topology: Topology, node: str, circuit: str) -> list[str]:
    """The nodes that a packet into a circuit passes, by the labels alone."""
    entry = plan.items[node]["circuit", circuit].circuit
    link, label, passed = entry.link, entry.label, [node]
    while True:
        node = topology.links[link].other(node)
        passed.append(node)
        action = plan.items[node]["label", link, label].label
        if action.WhichOneof("action") == "egress":
            assert action.egress.circuit == circuit
            return passed
        link, label = action.swap.link, action.swap.label


class Plans(unittest.TestCase):
    def test_what_drains_is_left_where_there_is_another_way(self) -> None:
        document = grid(2)
        for backup in (False, True):
            document["tenants"]["red"]["backup"] = backup
            topology = Topology.parse(document)

            def used(**without: list[str]) -> set[str]:
                plan = planning.make(topology, **without)
                routes = (item.route.circuit for item in plan.items["n0-0"].values() if item.WhichOneof("item") == "route")
                circuits = [plan.items["n0-0"]["circuit", name].circuit for name in routes if name]
                return {circuit.link for circuit in circuits}

            self.assertEqual(used(), {"n0-0.n0-1", "n0-0.n1-0"})
            self.assertEqual(used(draining=["n0-0.n0-1"]), {"n0-0.n1-0"})
            # With no other way it is used on: draining loses nothing.
            self.assertEqual(used(draining=["n0-0.n0-1"], down=["n0-0.n1-0"]), {"n0-0.n0-1"})

    def test_every_circuit_arrives_both_ways(self) -> None:
        topology = Topology.parse(grid(4))
        plan = planning.make(topology)
        circuits = [owner for owner in plan.owners.values() if owner.kind == "circuit"]
        self.assertEqual(len(circuits), 16 * 15 // 2)
        for owner in circuits:
            there = follow(plan, topology, owner.a, owner.name)
            back = follow(plan, topology, owner.b, owner.name)
            self.assertEqual(there, back[::-1])
            self.assertEqual((there[0], there[-1]), (owner.a, owner.b))

    def test_every_site_has_a_route_to_every_other(self) -> None:
        document = grid(3)
        for tenant in ({}, {"pattern": "hub-and-spoke", "hub": "n1-1"}):
            document["tenants"]["red"] = tenant
            plan = planning.make(Topology.parse(document))
            for node, items in plan.items.items():
                routes = [key for key in items if key[0] == "route"]
                self.assertEqual(len(routes), 9, node)

    def test_a_backup_shares_no_link_and_takes_over(self) -> None:
        topology = Topology.load(str(EXAMPLE))
        plan = planning.make(topology)
        self.assertEqual(follow(plan, topology, "a", "red.a.b"), ["a", "b"])
        self.assertEqual(follow(plan, topology, "a", "red.a.b.backup"), ["a", "t", "b"])
        key = ("route", "red", "10.2.0.0/24")
        self.assertEqual(plan.items["a"][key].route.circuit, "red.a.b")
        broken = planning.make(topology, ["ab"])
        self.assertEqual(broken.items["a"][key].route.circuit, "red.a.b.backup")
        # Nothing but routes moved.
        for node in plan.items:
            changed = [key[0] for key in plan.items[node] if plan.items[node][key] != broken.items[node][key]]
            self.assertLessEqual(set(changed), {"route"}, node)
        self.assertEqual(planning.make(topology, ["ab", "tb"]).unreachable, [("red", "a", "b")])

    def test_without_a_backup_the_circuit_itself_moves(self) -> None:
        document = example()
        document["tenants"]["red"] = {}
        topology = Topology.parse(document)
        moved = planning.make(topology, ["ab"])
        self.assertEqual(follow(moved, topology, "b", "red.a.b"), ["b", "t", "a"])
        old = planning.make(topology)
        step = difference(moved.items["a"], old.items["a"])
        # New labels first, then what uses them, then the old ones go.
        self.assertEqual([change.set.WhichOneof("item") for change in step.new], ["label"])
        self.assertEqual([change.set.WhichOneof("item") for change in step.changed], ["circuit"])
        self.assertEqual([change.delete.WhichOneof("item") for change in step.gone], ["label"])

    def test_what_a_node_tells_back_is_as_it_was_planned(self) -> None:
        plan = planning.make(Topology.load(str(EXAMPLE)))
        want = plan.items["a"]
        # A node says what it filled in, so nothing is left out that it would fill in otherwise.
        link, circuit = want["link", "ab"].link, want["circuit", "red.a.b"].circuit
        self.assertEqual((link.local_port, link.remote_port, circuit.hop_limit), (21591, 21591, 64))
        step = difference(want, {key: pb.Item.FromString(item.SerializeToString()) for key, item in want.items()})
        self.assertEqual((step.new, step.changed, step.gone), ([], [], []))

    def test_a_plan_is_a_state_file(self) -> None:
        plan = planning.make(Topology.load(str(EXAMPLE)))
        told = yaml.safe_load(state_file.text(plan.items["a"].values()))
        self.assertEqual(told["vrfs"], [{"name": "red"}])
        self.assertIn({"name": "to-b", "role": "underlay", "af_xdp": {"netdev": "eth1"}}, told["ports"])
        link = told["links"][0]
        self.assertEqual((link["end"], link["local_port"]), ("a", 21591))
        self.assertIsInstance(told["circuits"][0]["id"], int)
        self.assertIn({"vrf": "red", "prefix": "10.2.0.0/24", "circuit": "red.a.b"}, told["routes"])
        self.assertTrue(any("egress" in label for label in told["labels"]))
        key = pb.Key(link="ab", direction=pb.DIRECTION_B_TO_A, epoch=1)
        told = yaml.safe_load(state_file.text([pb.Item(key=key)]))
        self.assertEqual(told, {"keys": [{"link": "ab", "direction": "b-to-a", "epoch": 1}]})

    def test_a_new_node_changes_no_label_of_others(self) -> None:
        small, large = grid(3), grid(4)
        before, after = planning.make(Topology.parse(small)), planning.make(Topology.parse(large))
        # The corner's circuits keep their paths, and so their labels.
        key = ("circuit", "red.n0-0.n0-1")
        self.assertEqual(before.items["n0-0"][key], after.items["n0-0"][key])


class Files(unittest.TestCase):
    def wrong(self, change) -> str:
        document = copy.deepcopy(example())
        change(document)
        with self.assertRaises(TopologyError) as caught:
            Topology.parse(document)
        return str(caught.exception)

    def test_all_that_is_wrong_is_told_at_once_with_its_place(self) -> None:
        def change(document: dict) -> None:
            document["links"]["ab"]["a"]["port"] = "nowhere"
            document["links"]["at"]["cost"] = 0
            document["nodes"]["a"]["sites"]["lan"]["prefixes"] = ["10.1.0.1/24"]
            document["tenants"]["red"] = {"pattern": "star"}
            document["extra"] = 1

        told = self.wrong(change)
        for part in (
            "links.ab.a.port: node 'a' has no underlay 'nowhere'",
            "links.at.cost: 0 is no whole number",
            "nodes.a.sites.lan.prefixes[0]: 10.1.0.1/24 has host bits set",
            "tenants.red.pattern: 'star' is none of full-mesh, hub-and-spoke",
            "extra: there is no such field",
        ):
            self.assertIn(part, told)

    def test_what_is_reached_over_tcp_needs_certificates(self) -> None:
        def tcp(document: dict) -> None:
            document["nodes"]["a"]["target"] = "192.0.2.1:7443"

        self.assertIn("nodes.a.target: '192.0.2.1:7443' wants TLS", self.wrong(tcp))

        def half(document: dict) -> None:
            document["tls"] = {"ca": "ca.pem"}

        self.assertIn("tls.key: this field is needed", self.wrong(half))
        document = example()
        tcp(document)
        document["nodes"]["a"]["tls_name"] = "a.example.org"
        document["tls"] = {"ca": "ca.pem", "certificate": "c.pem", "key": "c.key"}
        topology = Topology.parse(document)
        self.assertEqual((topology.nodes["a"].tls_name, topology.tls.key), ("a.example.org", "c.key"))

    def test_what_is_no_table_is_told(self) -> None:
        for document in (None, [], "x", {"nodes": []}, {"nodes": {"a": None}}, {"nodes": {"a b": {"target": "x"}}}):
            with self.assertRaises(TopologyError, msg=document):
                Topology.parse(document)


class Keys(unittest.TestCase):
    OWNER = planning.Owner("link", "ab", "a", "b")

    def state(self, direction: int, epoch: int, transmitting: bool, index: int) -> pb.KeyState:
        key = pb.KeyRef(link="ab", direction=direction, epoch=epoch)
        return pb.KeyState(key=key, transmitting=transmitting, receiver_index=index)

    def test_an_owner_is_good_if_each_end_has_what_the_other_transmits_with(self) -> None:
        there, back = pb.DIRECTION_A_TO_B, pb.DIRECTION_B_TO_A
        a = pb.GetResponse(keys=[self.state(there, 2, True, 7), self.state(back, 2, False, 8)])
        b = pb.GetResponse(keys=[self.state(there, 2, False, 7), self.state(back, 2, True, 8)])
        self.assertTrue(Keyring({"a": a, "b": b}).is_good(self.OWNER))
        old = pb.GetResponse(keys=[self.state(there, 1, False, 7), self.state(back, 2, True, 8)])
        self.assertFalse(Keyring({"a": a, "b": old}).is_good(self.OWNER))
        self.assertFalse(Keyring({"a": a, "b": pb.GetResponse()}).is_good(self.OWNER))

    def test_new_keys_have_a_new_epoch_and_a_free_index(self) -> None:
        a = pb.GetResponse(keys=[self.state(pb.DIRECTION_A_TO_B, 4, True, 7)])
        install, transmit, retire = Keyring({"a": a, "b": pb.GetResponse()}).rotate([self.OWNER])
        keys = [change.set.key for change in install["a"]]
        self.assertEqual(install["a"], install["b"])
        self.assertEqual([key.epoch for key in keys], [5, 5])
        self.assertEqual(len({bytes(key.secret) for key in keys}), 2)
        # Each is free at the node that receives by it: b has none, a has 7.
        self.assertEqual([key.receiver_index for key in keys], [1, 8])
        self.assertEqual({change.set.transmit.epoch for node in transmit.values() for change in node}, {5})
        self.assertEqual([change.delete.key.epoch for change in retire["a"]], [4])
        self.assertNotIn("b", retire)


if __name__ == "__main__":
    unittest.main()
