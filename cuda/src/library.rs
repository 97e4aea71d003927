//! Functions of NVIDIA's libraries, which are looked up when the first of them is called: most machines have none.

use std::ffi::c_void;
use std::sync::OnceLock;

/// What their functions take and give: handles, descriptors, numbers on the device.
pub(crate) type Pointer = *mut c_void;

/// A struct of a library's functions, and how it is loaded.
macro_rules! functions {
    ($of:ident, $library:expr; $($name:ident($($takes:ty),*) -> $gives:ty;)*) => {
        #[expect(non_snake_case, reason = "their own names")]
        struct $of {
            $($name: unsafe extern "C" fn($($takes),*) -> $gives,)*
        }

        impl $of {
            fn load() -> ort::Result<Self> {
                let failed = |cause: libloading::Error| ort::Error::new(format!("{} cannot be used: {cause}", $library));
                // SAFETY: loading NVIDIA's libraries has no conditions.
                let library = unsafe { libloading::Library::new($library) }.map_err(failed)?;
                let functions = Self {
                    // SAFETY: the types are those of its headers.
                    $($name: *unsafe { library.get(stringify!($name).as_bytes()) }.map_err(failed)?,)*
                };
                // It stays loaded, as its functions do.
                std::mem::forget(library);
                Ok(functions)
            }
        }
    };
}
pub(crate) use functions;

/// What is made once, or why it could not be.
pub(crate) fn once<T>(
    place: &'static OnceLock<Result<T, String>>,
    make: impl FnOnce() -> ort::Result<T>,
) -> ort::Result<&'static T> {
    let made = place.get_or_init(|| make().map_err(|cause| cause.to_string()));
    made.as_ref().map_err(ort::Error::new)
}
