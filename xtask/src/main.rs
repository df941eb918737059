//! `cargo xtask …`: all automation for developers and CI. This file is only the table of commands; each command's
//! room does the work. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 this machine lacks something (the message says
//! what to type); `vm`, `run` and `bench` pass on the exit code of what they ran.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Result;
use clap::{Args, Parser, Subcommand};

use crate::{
    guest::{Guest, Root},
    kernel::Kernel,
    place::{Cache, Profile, Workspace},
    setup::Purpose,
    test::Scope,
};

mod apt;
mod dependencies;
mod ebpf;
mod field;
mod guest;
mod kernel;
mod markdown;
mod place;
mod process;
mod progress;
mod run;
mod setup;
mod structure;
mod suite;
mod test;
mod toolchain;
mod tools;

#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", about = "Developer and CI automation of guard")]
struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build guard and look at this machine: live with a terminal, a 10 s report without
    Run {
        /// Arguments for guard instead of the ones chosen here
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Run all checks and tests, on this machine and in booted PREEMPT_RT kernels
    Test(TestArgs),
    /// Measure what guard costs and how well it agrees with its peers
    Bench {
        /// Names of benches and their options; none runs all
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Boot a kernel and run a command in it as root, on this machine's file system
    Vm(VmArgs),
    /// Boot a Debian with systemd, Docker, podman and containerd, and run a command in it as root
    Field(FieldArgs),
    /// Rebuild the eBPF object from source
    Ebpf {
        /// Only see whether source and committed object agree
        #[arg(long)]
        check: bool,
    },
    /// Wrap all Markdown at its one width
    Wrap {
        /// Only see whether it is wrapped so
        #[arg(long)]
        check: bool,
    },
    /// See whether files import each other in circles, and rooms otherwise than docs/design.md lists
    Structure,
    /// Install what is missing, or say how to
    Setup {
        /// What it is for
        #[arg(long = "for", value_name = "PURPOSE", default_value = "all")]
        purpose: Purpose,
    },
}

/// Each kernel is booted twice: on this machine's file system, and as field guest with systemd and container runtimes.
#[derive(Args)]
struct TestArgs {
    /// Leave out all guests
    #[arg(long, conflicts_with_all = ["kernel", "no_field", "field_only"])]
    host_only: bool,
    /// Leave out the field guests
    #[arg(long)]
    no_field: bool,
    /// Leave out everything but the field guests
    #[arg(long, conflicts_with = "no_field")]
    field_only: bool,
    /// A kernel to boot instead of those of the default suite; repeat for more
    #[arg(long)]
    kernel: Vec<Kernel>,
}

impl TestArgs {
    fn scope(self) -> Result<Scope> {
        let chosen = |default: &[&str], wanted: bool| -> Result<Vec<Kernel>> {
            match (wanted, self.kernel.is_empty()) {
                (false, _) => Ok(Vec::new()),
                (true, false) => Ok(self.kernel.clone()),
                (true, true) => default.iter().map(|name| name.parse().map_err(anyhow::Error::msg)).collect(),
            }
        };
        Ok(Scope {
            host: !self.field_only,
            guests: chosen(&kernel::TESTED, !self.host_only && !self.field_only)?,
            whole: !self.kernel.is_empty(),
            field: chosen(&kernel::FIELD_TESTED, !self.host_only && !self.no_field)?,
        })
    }
}

/// The guest's file system is this machine's. What it writes is lost with it, except in shared directories.
#[derive(Args)]
struct VmArgs {
    /// Newest Debian kernel of a series (6.1-rt, 6.12-rt, 7.2-rt, 6.1, 6.12), or a path: an image, or a directory with boot/ and lib/modules/
    #[arg(long)]
    kernel: Kernel,
    /// A NUMA node, such as 1G,cpus=0-1; repeat for each
    #[arg(long)]
    numa: Vec<String>,
    #[command(flatten)]
    guest: GuestArgs,
}

/// The guest has systemd as first process; Docker and containerd are there, and start when the command starts them. What
/// the guest writes is lost with it, except in shared directories.
#[derive(Args)]
struct FieldArgs {
    /// Newest Debian kernel of a series (6.12-rt, 7.2-rt), or a path: an image, or a directory with boot/ and lib/modules/
    #[arg(long, default_value = "6.12-rt")]
    kernel: Kernel,
    #[command(flatten)]
    guest: GuestArgs,
}

#[derive(Args)]
struct GuestArgs {
    /// Number of CPUs
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// Memory; 2G if not given, for a field guest 3G
    #[arg(long)]
    mem: Option<String>,
    /// An option for the kernel's command line; repeat for more
    #[arg(long)]
    append: Vec<String>,
    /// Bound of boot and command together; exit code 124 when reached
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    timeout: u64,
    /// A directory that the command may write to, at the same path; repeat for more
    #[arg(long, value_name = "DIR")]
    share: Vec<PathBuf>,
    /// Put the release binaries on the search path, not the debug ones
    #[arg(long)]
    release: bool,
    /// Do not build guard first
    #[arg(long)]
    no_build: bool,
    /// The command and its arguments
    #[arg(required = true, last = true)]
    command: Vec<String>,
}

fn main() -> ExitCode {
    match execute(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::from(if error.is::<apt::Missing>() { 3 } else { 1 })
        }
    }
}

fn execute(task: Task) -> Result<ExitCode> {
    let workspace = Workspace::find()?;
    let cache = Cache::open()?;
    match task {
        Task::Run { args } => run::guard(&workspace, args),
        Task::Test(args) => test::all(&workspace, &cache, &args.scope()?),
        Task::Bench { args } => run::bench(&workspace, &cache, args),
        Task::Vm(args) => vm(&workspace, &cache, args),
        Task::Field(args) => field(&workspace, &cache, args),
        Task::Ebpf { check: false } => ebpf::build(&workspace, &cache).map(|()| ExitCode::SUCCESS),
        Task::Ebpf { check: true } => ebpf::check(&workspace).map(|()| ExitCode::SUCCESS),
        Task::Wrap { check: false } => markdown::rewrite(&workspace).map(|()| ExitCode::SUCCESS),
        Task::Wrap { check: true } => markdown::check(&workspace).map(|()| ExitCode::SUCCESS),
        Task::Structure => structure::check(&workspace).map(|()| ExitCode::SUCCESS),
        Task::Setup { purpose } => setup::setup(&cache, purpose).map(|()| ExitCode::SUCCESS),
    }
}

fn vm(workspace: &Workspace, cache: &Cache, args: VmArgs) -> Result<ExitCode> {
    setup::ensure(cache, Purpose::Vm)?;
    args.guest.run(workspace, cache, args.kernel, args.numa, Root::Host)
}

fn field(workspace: &Workspace, cache: &Cache, args: FieldArgs) -> Result<ExitCode> {
    setup::ensure(cache, Purpose::Field)?;
    let root = Root::Image(field::image(cache)?);
    args.guest.run(workspace, cache, args.kernel, Vec::new(), root)
}

impl GuestArgs {
    fn run(
        self,
        workspace: &Workspace,
        cache: &Cache,
        kernel: Kernel,
        numa: Vec<String>,
        root: Root,
    ) -> Result<ExitCode> {
        let profile = if self.release { Profile::Release } else { Profile::Dev };
        if !self.no_build {
            run::build(workspace, profile, &["guard", "guard-tests"])?;
        }
        let memory = self.mem.unwrap_or_else(|| root.memory().to_owned());
        let guest = Guest {
            kernel,
            root,
            cpus: self.cpus,
            memory,
            numa,
            append: self.append,
            timeout: Duration::from_secs(self.timeout),
            shares: self.share,
            binaries: workspace.binaries(profile),
        };
        guest.run(cache, &self.command, false).map(ExitCode::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn words_after_two_dashes_belong_to_the_guests_command() {
        let cli = Cli::try_parse_from(["xtask", "vm", "--kernel", "6.1-rt", "--", "sh", "-c", "exit 3", "--kernel"])
            .expect("it is valid");
        let Task::Vm(args) = cli.command else { panic!("not vm") };
        assert_eq!(args.guest.command, ["sh", "-c", "exit 3", "--kernel"]);
    }

    fn scope(words: &[&str]) -> [Vec<String>; 2] {
        let cli = Cli::try_parse_from(["xtask", "test"].iter().chain(words)).expect("it is valid");
        let Task::Test(args) = cli.command else { panic!("not test") };
        let scope = args.scope().expect("the default kernels are named well");
        [scope.guests, scope.field].map(|kernels| kernels.iter().map(Kernel::to_string).collect())
    }

    #[test]
    fn tests_boot_the_default_kernels_unless_told_otherwise() {
        assert_eq!(scope(&[]), [vec!["6.1-rt", "6.12-rt", "7.2-rt"], vec!["6.12-rt", "7.2-rt"]]);
        assert_eq!(scope(&["--kernel", "6.1"]), [vec!["6.1"], vec!["6.1"]]);
    }

    #[test]
    fn parts_of_the_tests_can_be_left_out() {
        let none: [&str; 0] = [];
        assert_eq!(scope(&["--host-only"]), [none, none]);
        assert_eq!(scope(&["--no-field", "--kernel", "6.1"]), [vec!["6.1"], vec![]]);
        assert_eq!(scope(&["--field-only", "--kernel", "7.2-rt"]), [vec![], vec!["7.2-rt"]]);
        assert!(Cli::try_parse_from(["xtask", "test", "--no-field", "--field-only"]).is_err());
    }
}
