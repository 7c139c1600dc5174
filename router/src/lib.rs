//! The router: composition root, the Zenoh seam, one driver per subsystem, command line, admin.

pub mod session;
