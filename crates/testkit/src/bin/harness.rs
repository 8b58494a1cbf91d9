//! A small client of the library, made to fail: see `pilotlight_testkit::processes`.

use std::process::ExitCode;

use pilotlight_testkit::processes::program;

fn main() -> ExitCode {
    program::main(std::env::args_os()).into()
}
