//! What a link and an upstream say to each other, and its bytes.
