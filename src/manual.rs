//! The command line described for others: completions for shells, and manual pages.

use std::path::Path;

use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;
use lookbook::error::{Error, Result};
use lookbook::files;

/// The script that completes commands, flags and their values in a shell.
pub(crate) fn completions(mut program: Command, shell: Shell) -> String {
    let mut script = Vec::new();
    let name = program.get_name().to_owned();
    clap_complete::generate(shell, &mut program, name, &mut script);
    String::from_utf8(script).expect("made of text")
}

/// The manual page of the program itself, in roff.
pub(crate) fn page(program: Command) -> String {
    let mut page = Vec::new();
    Man::new(program).render(&mut page).expect("memory takes it");
    String::from_utf8(page).expect("made of text")
}

/// Writes the manual pages of the program and of every command into `folder`, as `lookbook-train.1`.
///
/// # Errors
/// [`Error::Io`].
pub(crate) fn write_pages(program: Command, folder: &Path) -> Result<()> {
    files::create_folder(folder)?;
    clap_mangen::generate_to(program, folder).map_err(Error::io("write the manual pages to", folder))
}
