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
    /// Variables of the environment, beside those of all groups.
    variables: &'static [(&'static str, &'static str)],
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
    variables: &[],
    parameters: "",
    limit: Duration::from_secs(900),
};

/// Tests of faults by what the faults strike: each starts and arms the recorder, which takes an emulated machine some
/// twenty seconds of computing, so that about twenty of them are a boot.
const PACKETS: [&str; 2] = ["fault::lost::", "fault::hole::"];
const CUTS: [&str; 2] = ["fault::partition::", "fault::crash::"];
const PROCESSES: [&str; 2] = ["fault::pause::", "fault::restarted::"];

const OWN_BOOT: &str = "has its own boot";

/// Why tests are left out that are about what is built upon recordings and faults. A guest runs what asks the kernel for
/// something: a hook, a map, a system call. What stands upon it alone is the same on every kernel where that works.
const BUILT_UPON: &str = "asks the kernel for nothing that tests of its own do not";

const GROUPS: [Group; 13] = [
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
            ("fault_files::", "nor do databases; the faults of these files have their own tests"),
            ("confirm::", BUILT_UPON),
            ("daemon::", BUILT_UPON),
            ("fault::", OWN_BOOT),
        ],
        ..PLAIN
    },
    // What a daemon attaches besides.
    Group { name: "watched", binary: "kernel", only: &["daemon::watched::"], ..PLAIN },
    Group {
        name: "faults",
        binary: "kernel",
        only: &["fault::"],
        without: &[
            ("fault::lost::", OWN_BOOT),
            ("fault::hole::", OWN_BOOT),
            ("fault::partition::", OWN_BOOT),
            ("fault::crash::", OWN_BOOT),
            ("fault::pause::", OWN_BOOT),
            ("fault::restarted::", OWN_BOOT),
            ("fault::killed::", OWN_BOOT),
            ("fault::overridden::", OWN_BOOT),
            ("fault::targeted::", OWN_BOOT),
        ],
        ..PLAIN
    },
    Group { name: "packets", binary: "kernel", only: &PACKETS, ..PLAIN },
    Group { name: "cuts", binary: "kernel", only: &CUTS, ..PLAIN },
    Group { name: "processes", binary: "kernel", only: &PROCESSES, ..PLAIN },
    Group { name: "killed", binary: "kernel", only: &["fault::killed::"], ..PLAIN },
    Group { name: "override", binary: "kernel", only: &["fault::overridden::"], ..PLAIN },
    Group { name: "targeted", binary: "kernel", only: &["fault::targeted::"], ..PLAIN },
    Group {
        name: "truth",
        binary: "truth",
        without: &[
            ("every_case_has_its_test", "looks at no kernel"),
            ("the_comparison_finds_every_flaw", "looks at no kernel"),
            ("past_4gib", "4 GiB take minutes in an emulated machine"),
        ],
        by_family: true,
        variables: &[("WHEREFORE_TRUTH_TOGETHER", "1")],
        ..PLAIN
    },
    Group { name: "races", binary: "truth", only: &RACES, cpus: 2, by_family: true, ..PLAIN },
    Group { name: "switched-off", binary: "guest", without: &[("locked_down", OWN_BOOT)], ..PLAIN },
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
    /// Whether this kernel has the family: then not all tests may say that they cannot run.
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
        for (name, value) in self.variables {
            writeln!(script, "export {name}={value}").expect("strings grow");
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    /// A group that leaves tests to another's boot, and no such boot, would lose them.
    #[test]
    fn what_has_its_own_boot_has_one() {
        for group in &GROUPS {
            for (name, _) in group.without.iter().filter(|(_, why)| *why == OWN_BOOT) {
                let own = |other: &&Group| {
                    let named = other.only.iter().any(|only| only.starts_with(name));
                    other.binary == group.binary && other.name != group.name && named
                };
                assert!(GROUPS.iter().any(|other| own(&other)), "{name} of {}", group.name);
            }
        }
    }
}
