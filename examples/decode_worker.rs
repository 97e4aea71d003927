//! Decoding of JPEG photos as a contestant of `scripts/peers/decode.py`, in a process of its own.
//!
//! ```text
//! decode_worker lookbook FOLDER    as lookbook decodes a photo at its own size
//! decode_worker fitted FOLDER      as `lookbook segment` does, fitted into 400 x 600
//! decode_worker library FOLDER     libjpeg-turbo alone, as it comes
//! ```
//!
//! Speaks by lines: `round` decodes all photos of FOLDER, which are in memory, on one thread and answers
//! `{"secs": ..., "sum": ...}` with the sum of all bytes of all pixels. Ends with its input.

use std::error::Error;
use std::time::Instant;

use lookbook::photo::{self, Decoding, FIT_HEIGHT_PX, FIT_WIDTH_PX, MAX_PIXELS};
use turbojpeg::{Decompressor, Image, PixelFormat};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [form, folder] = &arguments[..] else {
        return Err("usage: decode_worker lookbook|fitted|library FOLDER".into());
    };
    let decode: fn(&[u8]) -> Result<Vec<u8>> = match form.as_str() {
        "lookbook" => |bytes| decoded(bytes, None),
        "fitted" => |bytes| decoded(bytes, Some((FIT_WIDTH_PX, FIT_HEIGHT_PX))),
        "library" => library,
        _ => return Err(format!("there is no {form}").into()),
    };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        paths.push(entry?.path());
    }
    paths.sort();
    let photos = paths.iter().map(std::fs::read).collect::<std::io::Result<Vec<_>>>()?;
    for line in std::io::stdin().lines() {
        if line? == "round" {
            let start = Instant::now();
            let mut sum = 0_u64;
            let mut summing = 0.0;
            for bytes in &photos {
                let pixels = decode(bytes)?;
                let before = Instant::now();
                sum += pixels.iter().map(|&byte| u64::from(byte)).sum::<u64>();
                summing += before.elapsed().as_secs_f64();
            }
            println!("{}", serde_json::json!({ "secs": start.elapsed().as_secs_f64() - summing, "sum": sum }));
        }
    }
    Ok(())
}

fn decoded(bytes: &[u8], fit: Option<(u32, u32)>) -> Result<Vec<u8>> {
    let decoded = photo::decode_with(bytes, Decoding { max_pixels: MAX_PIXELS, fit });
    Ok(decoded.map_err(|problem| problem.detail)?.photo.rgb)
}

fn library(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut decoder = Decompressor::new()?;
    let header = decoder.read_header(bytes)?;
    let (width, height, format) = (header.width, header.height, PixelFormat::RGB);
    let mut pixels = vec![0; width * height * format.size()];
    let image = Image { pixels: &mut *pixels, width, pitch: width * format.size(), height, format };
    decoder.decompress(bytes, image)?;
    Ok(pixels)
}
