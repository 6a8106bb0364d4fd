//! What a cgroup's files say of its use. PURE.

use super::figures::number;
use crate::cri::{Pressure, Stall, Usage};

/// A cgroup's files, by name, as they are read; `None`: there is no such file.
pub type Read<'a> = &'a dyn Fn(&str) -> Option<String>;

/// On a v2 host (Documentation/admin-guide/cgroup-v2.rst).
pub fn unified(read: Read<'_>) -> Usage {
    let pressure = |controller: &str| pressure(&read(&format!("{controller}.pressure"))?);
    Usage {
        cpu_nanos: number(&read("cpu.stat").unwrap_or_default(), "usage_usec").unwrap_or(0) * 1000,
        swap_bytes: read("memory.swap.current").and_then(|text| number(&text, "")),
        cpu_pressure: pressure("cpu"),
        memory_pressure: pressure("memory"),
        io_pressure: pressure("io"),
        ..memory(read, "memory.current", ["inactive_file", "anon", "pgfault", "pgmajfault"])
    }
}

/// On a v1 host (Documentation/admin-guide/cgroup-v1/memory.rst, cpuacct.rst).
pub fn of_v1(read: Read<'_>) -> Usage {
    Usage {
        cpu_nanos: read("cpuacct.usage").and_then(|text| number(&text, "")).unwrap_or(0),
        swap_bytes: number(&read("memory.stat").unwrap_or_default(), "total_swap"),
        ..memory(read, "memory.usage_in_bytes", ["total_inactive_file", "total_rss", "total_pgfault", "total_pgmajfault"])
    }
}

fn memory(read: Read<'_>, used: &str, names: [&str; 4]) -> Usage {
    let stat = read("memory.stat").unwrap_or_default();
    let [inactive, rss, faults, major] = names.map(|name| number(&stat, name).unwrap_or(0));
    let used = read(used).and_then(|text| number(&text, "")).unwrap_or(0);
    Usage {
        memory_working_set_bytes: used.saturating_sub(inactive),
        memory_usage_bytes: used,
        memory_rss_bytes: rss,
        page_faults: faults,
        major_page_faults: major,
        pids: read("pids.current").and_then(|text| number(&text, "")).unwrap_or(0),
        ..Usage::default()
    }
}

/// How long work has stood still for want of something (Documentation/accounting/psi.rst). A line that is missing is none:
/// older kernels have no `full` for the CPU.
fn pressure(text: &str) -> Option<Pressure> {
    let stall = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind))?;
        let value = |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name));
        let hundredths = |name: &str| {
            let (whole, part) = value(name)?.split_once('.')?;
            part.get(..2).and_then(|part| format!("{whole}{part}").parse::<u32>().ok())
        };
        let micros = value("total=")?.parse::<u64>().ok()?;
        let [ten, minute, five] = ["avg10=", "avg60=", "avg300="].map(|name| hundredths(name).unwrap_or(0));
        Some(Stall { total_nanos: micros.saturating_mul(1000), average_10: ten, average_60: minute, average_300: five })
    };
    let some = stall("some ")?;
    Some(Pressure { some, full: stall("full ").unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reads(files: &[(&str, &str)]) -> impl Fn(&str) -> Option<String> {
        let files: std::collections::BTreeMap<String, String> =
            files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        move |file: &str| files.get(file).cloned()
    }

    #[test]
    fn both_versions_say_the_same_in_their_own_words() {
        let stat = "anon 5\ninactive_file 30\npgfault 7\npgmajfault 2\nswap 1\n";
        let v2 = [
            ("cpu.stat", "usage_usec 12\nuser_usec 1\n"),
            ("memory.stat", stat),
            ("memory.current", "100\n"),
            ("memory.swap.current", "9\n"),
            ("pids.current", "3\n"),
        ];
        let stat = "rss 1\ntotal_rss 5\ntotal_inactive_file 30\ntotal_pgfault 7\ntotal_pgmajfault 2\nswap 1\ntotal_swap 9\n";
        let v1 = [("cpuacct.usage", "12000\n"), ("memory.stat", stat), ("memory.usage_in_bytes", "100\n"), ("pids.current", "3\n")];
        let wanted = Usage {
            cpu_nanos: 12_000,
            memory_working_set_bytes: 70,
            memory_usage_bytes: 100,
            memory_rss_bytes: 5,
            page_faults: 7,
            major_page_faults: 2,
            pids: 3,
            swap_bytes: Some(9),
            ..Usage::default()
        };
        assert_eq!((unified(&reads(&v2)), of_v1(&reads(&v1))), (wanted, wanted));
        assert_eq!((unified(&reads(&[])), of_v1(&reads(&[]))), (Usage::default(), Usage::default()), "nothing is known");
    }

    #[test]
    fn pressure_is_read_as_the_kernel_writes_it() {
        let text = "some avg10=1.25 avg60=0.07 avg300=100.00 total=1234\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n";
        let got = unified(&reads(&[("io.pressure", text), ("cpu.pressure", "some avg10=0.50 avg60=0.00 avg300=0.00 total=8\n")]));
        let some = Stall { total_nanos: 1_234_000, average_10: 125, average_60: 7, average_300: 10_000 };
        assert_eq!(got.io_pressure, Some(Pressure { some, full: Stall { total_nanos: 5000, ..Stall::default() } }));
        assert_eq!(got.cpu_pressure.map(|cpu| (cpu.some.average_10, cpu.full)), Some((50, Stall::default())));
        assert_eq!(got.memory_pressure, None);
        for odd in ["", "some", "some avg10=x total=-1", "some avg10=1 total=1x"] {
            assert_eq!(pressure(odd), None, "{odd:?}");
        }
    }
}
