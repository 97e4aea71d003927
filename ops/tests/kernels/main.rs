//! The kernels with every instruction set that the processor supports: that they compute what is defined, and that they
//! stay within their buffers.

mod bounds;
mod definitions;
mod guarded;
