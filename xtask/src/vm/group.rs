//! Which tests run in which guest: a group is one boot.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use super::image::Image;

/// A set of tests that share a boot.
struct Group {
    name: &'static str,
    /// The test binary, and which of its tests: those whose names begin so.
    binary: &'static str,
    only: &'static [&'static str],
    /// Left out: names, and why they make no sense in a guest.
    without: &'static [(&'static str, &'static str)],
    cpus: u32,
    /// Run once for each family of hooks.
    by_family: bool,
    /// Words for the kernel's command line.
    parameters: &'static str,
    limit: Duration,
}

/// The families by which sends and receives can be seen, each with the first kernel that has it.
const FAMILIES: [(&str, [u32; 2]); 3] =
    [("tracepoint", [6, 3]), ("trampoline", [5, 5]), ("kprobe", [4, 1])];

/// Threads that meet in the kernel.
const RACES: [&str; 5] = [
    "many_readers_racing",
    "many_readers_waiting",
    "many_writers_racing",
    "thread_pool",
    "waitall",
];

/// What every group is unless it says otherwise.
const PLAIN: Group = Group {
    name: "",
    binary: "",
    only: &[],
    without: &[],
    cpus: 1,
    by_family: false,
    parameters: "",
    limit: Duration::from_secs(900),
};

const GROUPS: [Group; 7] = [
    Group {
        name: "kernel",
        binary: "kernel",
        without: &[
            (
                "load::",
                "programs under load do not keep their own limits of time in an emulated machine",
            ),
            ("hosts::", "whole networks of namespaces take minutes there, and are about merging"),
            ("readme::", "the demo's programs do not either"),
            ("daemon::soak", "is about long use; minutes of it would be an hour there"),
            ("fault::overridden", "has its own boot"),
            ("fault::targeted", "has its own boot"),
        ],
        ..PLAIN
    },
    Group { name: "override", binary: "kernel", only: &["fault::overridden"], ..PLAIN },
    Group { name: "targeted", binary: "kernel", only: &["fault::targeted"], ..PLAIN },
    Group {
        name: "truth",
        binary: "truth",
        without: &[
            ("every_case_has_its_test", "looks at no kernel"),
            ("the_comparison_finds_every_flaw", "looks at no kernel"),
            ("past_4gib", "4 GiB take minutes in an emulated machine"),
        ],
        by_family: true,
        ..PLAIN
    },
    Group { name: "races", binary: "truth", only: &RACES, cpus: 2, by_family: true, ..PLAIN },
    Group {
        name: "switched-off",
        binary: "guest",
        without: &[("locked_down", "has its own boot")],
        ..PLAIN
    },
    Group {
        name: "lockdown",
        binary: "guest",
        only: &["locked_down"],
        parameters: "lockdown=confidentiality",
        ..PLAIN
    },
];

/// One boot: a kernel and what it runs.
pub struct Job {
    pub image: Image,
    pub group: &'static str,
    pub family: Option<&'static str>,
    /// Whether this kernel has the family: only then may tests say that they cannot run.
    pub must_run: bool,
    pub cpus: u32,
    pub parameters: &'static str,
    pub limit: Duration,
    /// A shell script.
    pub command: String,
}

impl Job {
    /// Group and family.
    pub fn name(&self) -> String {
        self.family.map_or(self.group.to_owned(), |family| format!("{}-{family}", self.group))
    }

    pub fn title(&self) -> String {
        format!("{} {}", self.image.name, self.name())
    }
}

/// Every group on every kernel.
pub fn jobs(images: &[Image], tests: &dyn Fn(&str) -> Result<PathBuf>) -> Result<Vec<Job>> {
    let mut jobs = Vec::new();
    for group in &GROUPS {
        let binary = tests(group.binary)?;
        for image in images {
            for (family, since) in FAMILIES {
                jobs.push(Job {
                    image: image.clone(),
                    group: group.name,
                    family: group.by_family.then_some(family),
                    must_run: image.is_own() && image.since(since),
                    cpus: group.cpus,
                    parameters: group.parameters,
                    limit: group.limit,
                    command: group.script(&binary, group.by_family.then_some(family)),
                });
                if !group.by_family {
                    break;
                }
            }
        }
    }
    Ok(jobs)
}

impl Group {
    fn script(&self, binary: &Path, family: Option<&str>) -> String {
        let mut script = String::from("export WHEREFORE_TEST_SLOWNESS=20\n");
        if let Some(family) = family {
            writeln!(script, "export WHEREFORE_HOOKS={family}").expect("strings grow");
        }
        write!(script, "exec '{}' --test-threads=1 --show-output", binary.display())
            .expect("strings grow");
        for (name, _) in self.without {
            write!(script, " --skip {name}").expect("strings grow");
        }
        for name in self.only {
            write!(script, " {name}").expect("strings grow");
        }
        script + "\n"
    }
}
