//! What recurrent layers (Mamba, arXiv 2312.00752) do along a sequence: a short causal convolution
//! and a scan, each with the state that stands for everything before. How many rows a call has
//! changes no bit: one token after the other gives what all at once give.

mod convolution;
mod scan;

pub use convolution::CausalConvolution;
pub use scan::{ScanRows, SelectiveScan};
