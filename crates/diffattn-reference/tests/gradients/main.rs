//! Gradients of every operator: against the reference cases, and against central differences.

mod attention;
mod cases;
mod gradcheck;
mod losses;
mod operators;
mod semantics;
mod support;
