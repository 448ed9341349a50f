//! Shell completions and man pages, from the definition of the arguments.

use std::io;
use std::path::PathBuf;

use clap::{Args, CommandFactory, Subcommand};
use clap_complete::Shell;

use crate::args::Cli;
use crate::exit::{Exit, Outcome};

/// Write shell completions or man pages (for packagers)
#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Completions for a shell, to standard output
    Completions { shell: Shell },
    /// A man page for each command, into a folder
    Man { folder: PathBuf },
}

pub(crate) fn run(args: &GenerateArgs) -> Outcome {
    let mut command = Cli::command();
    match &args.what {
        What::Completions { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut command, "gpuev", &mut text);
            io::Write::write_all(&mut io::stdout(), &text)?;
        }
        What::Man { folder } => {
            std::fs::create_dir_all(folder)?;
            // Nobody types it, but its unit refers to its page.
            let command = command.mut_subcommand("keeper", |keeper| keeper.hide(false));
            clap_mangen::generate_to(command, folder)?;
        }
    }
    Ok(Exit::Success)
}
