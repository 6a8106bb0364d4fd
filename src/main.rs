//! argv to one `run` per verb; nothing else.

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};
use podbay::assemble;
use podbay::cli::args::{Cli, Verb};
use podbay::cli::{self, error::finish};

fn main() -> ExitCode {
    let verb = match Cli::try_parse_from(cli::oci::words(std::env::args_os())) {
        Ok(cli) => cli.verb,
        Err(error) => cli::words::told(error).exit(),
    };
    match verb {
        Verb::Oci(args) => assemble::oci(&args),
        Verb::InternalGitFetch => assemble::git_fetch_child(),
        Verb::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "podbay", &mut script);
            cli::output::print(&String::from_utf8_lossy(&script));
            ExitCode::SUCCESS
        }
        verb => finish(run(verb)),
    }
}

fn run(verb: Verb) -> cli::error::Outcome {
    match verb {
        Verb::Up(_) | Verb::Server(_) | Verb::Agent(_) | Verb::Down(_) | Verb::Reset(_) | Verb::Image(_) | Verb::Runtime(_) => {
            return assemble::run(verb);
        }
        _ => {}
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        match verb {
            Verb::Reconcile(args) => cli::reconcile::run(&args, &assemble::Host).await,
            Verb::Status(args) => cli::status::run(&args).await,
            Verb::Get(args) => cli::get::run(&args).await,
            Verb::Describe(args) => cli::describe::run(&args).await,
            Verb::Logs(args) => cli::logs::run(&args).await,
            Verb::Exec(args) => cli::exec::run(&args).await,
            Verb::Attach(args) => cli::attach::run(&args).await,
            Verb::Explain(args) => cli::explain::run(&args, &assemble::Host).await,
            Verb::Source(verb) => cli::source::run(&verb).await,
            Verb::Node(verb) => cli::node::run(&verb).await,
            Verb::Token(verb) => cli::token::run(&verb).await,
            Verb::Kubeconfig(args) => cli::kubeconfig::run(&args),
            Verb::Snapshot(args) => cli::snapshot::run(&args).await,
            Verb::Completions { .. }
            | Verb::InternalGitFetch
            | Verb::Up(_)
            | Verb::Server(_)
            | Verb::Agent(_)
            | Verb::Down(_)
            | Verb::Reset(_)
            | Verb::Runtime(_)
            | Verb::Oci(_)
            | Verb::Image(_) => unreachable!("these verbs are carried out above"),
        }
    });
    // A read of the terminal that nobody needs any more must not hold the process until Enter.
    runtime.shutdown_background();
    outcome
}
