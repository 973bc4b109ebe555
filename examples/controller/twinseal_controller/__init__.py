"""A controller for Twinseal nodes: computes circuits from a topology, loads them, rotates keys, and mends what breaks."""
