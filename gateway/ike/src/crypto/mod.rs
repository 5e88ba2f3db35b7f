//! What runs the algorithms.
