//! The side that is shipped to: it answers what it has, and remembers nothing.
