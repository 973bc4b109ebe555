"""The made-up network is one that the planner can plan."""

import unittest

import simulate
from twinseal_controller.topology import Topology


class Simulated(unittest.TestCase):
    def test_every_tenant_is_a_full_mesh_and_everybody_is_reached(self) -> None:
        for nodes in (10, 40):
            found = simulate.measure(nodes)
            self.assertEqual(found["circuits"], nodes // 10 * 45)
            self.assertEqual(found["unreachable"], 0)
            # Two keys a circuit or link, at both ends.
            self.assertEqual(found["keys"], 4 * (found["circuits"] + found["links"]))
            # Each node has two ports' worth, a route to each of ten sites, nine circuits and their labels at least.
            self.assertGreaterEqual(found["items"], nodes * (3 + 10 + 9 + 9))

    def test_the_same_every_time(self) -> None:
        self.assertEqual(simulate.network(30), simulate.network(30))
        self.assertEqual(len(Topology.parse(simulate.network(100)).nodes), 100)

    def test_other_numbers_are_refused(self) -> None:
        for nodes in (0, 5, 15):
            with self.assertRaises(ValueError):
                simulate.network(nodes)


if __name__ == "__main__":
    unittest.main()
