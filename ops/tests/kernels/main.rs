//! The kernels with every instruction set that the processor supports: that they compute what is defined, and that they
//! stay within their buffers.

#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
mod bf16_encoder;
#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
mod bf16_gradients;
mod bounds;
mod definitions;
mod guarded;
#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
mod int8;
mod inverted;
#[path = "../../../tests/it/skip.rs"]
mod skip;
mod up_skip;
mod winograd;

use lookbook_ops::Instructions;

/// What the kernels are tried with; says what a processor does not have, so that it was not tried.
fn instructions() -> Vec<Instructions> {
    let found = Instructions::available();
    for name in ["avx2", "avx512"] {
        if !found.iter().any(|it| it.name() == name) {
            skip::skip(&format!("this processor (or build) has no {name}"));
        }
    }
    found
}
