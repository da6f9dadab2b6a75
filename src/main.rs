//! The program `ctmatch`.

mod cli;

fn main() -> std::process::ExitCode {
    cli::run()
}
