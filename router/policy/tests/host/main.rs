//! The host against real guests: each test loads modules, runs them, and looks at what came of it.

mod answers;
mod budgets;
mod faults;
mod guest;
mod loading;
mod resolving;
mod support;
