//! Third-party networks: any ONNX network that names the pixels of a photo (a parser) or turns it into a vector (an
//! embedder), described by a `parser.toml` beside it.
//!
//! In: a folder with both. Out: photos on the network's input ([`Layout::lay`]), its answers ([`Network::run`]) and, from
//! these, label maps of our categories ([`Layout::label_map`]) or embeddings ([`Embedder::run`]). `docs/parsers.md` says
//! how to declare one.

mod answer;
pub mod check;
mod declaration;
mod embedder;
mod external;
mod folder;
mod input;
mod layout;
mod network;

pub use answer::Answer;
pub use declaration::{DECLARATION_FILE, Declaration};
pub use embedder::Embedder;
pub use folder::{Parser, ParserFile};
pub use input::{Canvas, Values};
pub use layout::{Decided, Layout};
pub use network::Network;
