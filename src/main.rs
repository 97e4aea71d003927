//! The command-line program: parse, start logging, run, print the error, set the exit code.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use lookbook_ops::process::{Memory, limit_heaps};

mod cli;
mod manual;

#[global_allocator]
static MEMORY: Memory = Memory;

fn main() -> ExitCode {
    limit_heaps();
    let cli = cli::Cli::parse();
    cli.start_logging();
    match lookbook::stop::listen().and_then(|()| cli.run()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            cli.print_error(&error);
            ExitCode::from(error.exit_code())
        }
    }
}
