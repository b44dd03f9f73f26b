//! The program: continuous SQL over Kafka from the command line.
//!
//! Everything that it does is the library's; here is only what people see: flags ([`cli`]) and the shell ([`repl`]).

mod cli;
mod repl;

fn main() {
    cli::main()
}
