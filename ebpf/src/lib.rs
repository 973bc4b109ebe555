//! The XDP steering program: its object, its map layout and its loader.
