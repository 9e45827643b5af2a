//! Which tests run in which guest: a group is one boot.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;

use super::image::Image;

/// A set of tests that share a boot.
struct Group {
    name: &'static str,
    /// The test binary, and which of its tests: those whose names contain that.
    binary: &'static str,
    only: &'static [&'static str],
    /// Left out: names, and why they make no sense in a guest.
    without: &'static [(&'static str, &'static str)],
    cpus: u32,
    /// The first kernel that they are for.
    since: [u32; 2],
    /// Run once for each family of hooks.
    by_family: bool,
    /// On which kernels it belongs to what is tested after each change. The others take an hour.
    daily: Daily,
    /// Words for the kernel's command line.
    parameters: &'static str,
}

/// What is tested after each change. It must not take more than 20 minutes where two guests run at a time.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Daily {
    Never,
    /// On the newest kernel.
    Newest,
    /// On the kernels that are made here.
    Own,
    /// On every kernel; of the families, on a distribution's only the one that is chosen there.
    Everywhere,
}

/// Three times what the longest takes where both processors are busy: a guest that stands still must not hold up the rest.
const DAILY_LIMIT: Duration = Duration::from_mins(8);

const LONG_LIMIT: Duration = Duration::from_hours(1);

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

/// A test for each hook, and for each thing of the kernel's that the probes or the recorder ask for.
const HOOKS: [&str; 22] = [
    "tcp::connect_and_close_are_their_threads_and_established_is_the_kernels",
    "tcp::a_close_with_unread_bytes_is_an_abort_and_a_reset",
    "tcp::a_received_reset_is_the_receivers_kernels",
    "tcp::a_segment_that_is_sent_again_is_the_senders_kernels",
    "tcp::a_refused_connection_is_an_error_of_the_clients_end",
    "task::a_thread_begins_and_ends_and_the_last_of_a_process_is_told",
    "task::another_program_is_an_exec_and_bears_its_name",
    "task::a_thread_that_renames_itself_is_called_so_from_then_on",
    "signal::a_kill_names_the_sender_and_the_thread_that_dies",
    "signal::a_kill_for_memory_names_its_victim",
    "container::a_process_that_goes_into_a_container_and_out_again",
    "datagram::the_peer_of_an_unconnected_socket_is_what_the_call_names",
    "local::a_stream_is_counted_from_its_first_byte",
    "names::a_connection_of_a_process_older_than_the_recorder",
    "uring::the_submitters_own_call_is_its_event",
    "scope::a_process_is_recorded_with_its_threads_and_the_children_it_has",
    "family::the_thread_that_accepts_is_known",
    "ring::what_a_slow_reader_loses_is_counted_to_the_event",
    "detail::calls::calls_are_told_as_the_program_made_them",
    "detail::wakes::a_crowd_keeps_every_rule",
    "dropped::dropped_packets_are_seen_while_they_are_asked_for",
    "told::each_rule_that_asks_for_it_is_told_beside_the_others",
];

/// The same of injected faults: each injector, at its work.
const INJECTORS: [&str; 9] = [
    "fault::the_third_connect_is_refused_for_the_victim_and_nobody_else",
    "fault::overridden::a_call_returns_what_it_is_told_without_being_made",
    "fault::destroyed::the_third_receive_s_connection_breaks_at_both_ends_and_no_other",
    "fault::lost::the_third_packet_that_is_sent_is_lost_and_sent_again",
    "fault::hole::from_the_event_on_a_connection_is_silent_until_it_heals",
    "fault::partition::one_way_is_one_way",
    "fault::pause::a_pause_stops_the_process_for_its_time_and_nobody_else",
    "fault::restarted::the_same_program_comes_back_with_the_same_everything",
    "fault::armed::a_killed_recorder_leaves_no_lie",
];

/// What every group is unless it says otherwise.
const PLAIN: Group = Group {
    name: "",
    binary: "",
    only: &[],
    without: &[],
    cpus: 1,
    since: [0, 0],
    by_family: false,
    daily: Daily::Never,
    parameters: "",
};

/// Tests of faults by what the faults strike: each starts and arms the recorder, which takes an emulated machine some
/// twenty seconds of computing, so that about twenty of them are a boot.
const PACKETS: [&str; 2] = ["fault::lost::", "fault::hole::"];
const CUTS: [&str; 2] = ["fault::partition::", "fault::crash::"];
const PROCESSES: [&str; 2] = ["fault::pause::", "fault::restarted::"];

/// These tests record within their own process, each in a thread of its own, which is taken into scope by a descriptor.
const THREADS_BY_DESCRIPTOR: [u32; 2] = [6, 9];

/// Faults strike at the socket tracepoints.
const INJECTING: [u32; 2] = [6, 3];

const OWN_BOOT: &str = "has its own boot";

/// Why tests are left out that are about what is built upon recordings and faults. A guest runs what asks the kernel for
/// something: a hook, a map, a system call. What stands upon it alone is the same on every kernel where that works.
const BUILT_UPON: &str = "asks the kernel for nothing that tests of its own do not";

const GROUPS: [Group; 15] = [
    Group {
        name: "truth",
        binary: "truth",
        without: &[
            ("every_case_has_its_test", "looks at no kernel"),
            ("the_comparison_finds_every_flaw", "looks at no kernel"),
            ("past_4gib", "4 GiB take minutes in an emulated machine"),
        ],
        by_family: true,
        daily: Daily::Everywhere,
        ..PLAIN
    },
    Group {
        name: "hooks",
        binary: "kernel",
        only: &HOOKS,
        since: THREADS_BY_DESCRIPTOR,
        daily: Daily::Own,
        ..PLAIN
    },
    Group {
        name: "injectors",
        binary: "kernel",
        only: &INJECTORS,
        since: INJECTING,
        daily: Daily::Own,
        ..PLAIN
    },
    Group {
        name: "switched-off",
        binary: "guest",
        without: &[("locked_down", OWN_BOOT)],
        daily: Daily::Everywhere,
        ..PLAIN
    },
    Group {
        name: "lockdown",
        binary: "guest",
        only: &["locked_down"],
        parameters: "lockdown=confidentiality",
        daily: Daily::Everywhere,
        ..PLAIN
    },
    Group {
        name: "races",
        binary: "truth",
        only: &RACES,
        cpus: 2,
        by_family: true,
        daily: Daily::Newest,
        ..PLAIN
    },
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
        since: THREADS_BY_DESCRIPTOR,
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
];

/// One boot: a kernel and what it runs.
pub struct Job {
    pub image: Image,
    pub group: &'static str,
    pub family: Option<&'static str>,
    /// What its tests' names contain, if not all are run.
    pub only: &'static [&'static str],
    pub daily: bool,
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

/// Every group on every kernel. `everywhere`: what is daily on one kernel is so on all.
pub fn jobs(
    images: &[Image],
    everywhere: bool,
    tests: &dyn Fn(&str) -> Result<PathBuf>,
) -> Result<Vec<Job>> {
    let mut jobs = Vec::new();
    let mut binaries = BTreeMap::new();
    for group in &GROUPS {
        let binary = match binaries.entry(group.binary) {
            Entry::Occupied(built) => built.into_mut(),
            Entry::Vacant(place) => place.insert(tests(group.binary)?),
        };
        for (place, image) in images.iter().enumerate().filter(|(_, i)| i.since(group.since)) {
            let chosen_there = FAMILIES.iter().find(|(_, since)| image.since(*since));
            for (family, since) in FAMILIES {
                let is_chosen = chosen_there.is_some_and(|(chosen, _)| *chosen == family);
                jobs.push(Job {
                    image: image.clone(),
                    group: group.name,
                    family: group.by_family.then_some(family),
                    only: group.only,
                    daily: match group.daily {
                        Daily::Never => false,
                        _ if everywhere => true,
                        Daily::Newest => place == 0,
                        Daily::Own => image.is_own(),
                        Daily::Everywhere => image.is_own() || !group.by_family || is_chosen,
                    },
                    must_run: image.is_own() && image.since(since),
                    cpus: group.cpus,
                    parameters: group.parameters,
                    limit: if group.daily == Daily::Never { LONG_LIMIT } else { DAILY_LIMIT },
                    command: group.script(binary, group.by_family.then_some(family)),
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
            let cases = if self.only.is_empty() { "all".to_owned() } else { self.only.join(" ") };
            writeln!(script, "export WHEREFORE_TRUTH_TOGETHER='{cases}'").expect("strings grow");
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
