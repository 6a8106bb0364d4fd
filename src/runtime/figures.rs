//! Files of a cgroup, and some of /proc, as figures. PURE.
//!
//! Formats: v2 of Documentation/admin-guide/cgroup-v2.rst, v1 of Documentation/admin-guide/cgroup-v1, pressure of
//! Documentation/accounting/psi.rst, /proc of proc(5).

use std::collections::BTreeMap;

use crate::cri::figures::Figure;

/// Texts by their files' names.
pub type Texts = BTreeMap<String, String>;

/// No more interfaces, or devices, of a pod are told: whoever may make them could make any number.
const EACH_LIMIT: usize = 32;

/// File, key in it (empty: it is one number), how many of its units are one of the metric's, metric, labels of its own.
type Row = (&'static str, &'static str, u64, &'static str, &'static [&'static str]);

/// Microseconds, nanoseconds and USER_HZ (which is 100 wherever Linux shows it) in a second.
const US: u64 = 1_000_000;
const NS: u64 = 1_000_000_000;
const HZ: u64 = 100;

const V2: [Row; 30] = [
    ("cpu.stat", "usage_usec", US, "cpu_usage_seconds_total", &["total"]),
    ("cpu.stat", "user_usec", US, "cpu_user_seconds_total", &[]),
    ("cpu.stat", "system_usec", US, "cpu_system_seconds_total", &[]),
    ("cpu.stat", "nr_periods", 1, "cpu_cfs_periods_total", &[]),
    ("cpu.stat", "nr_throttled", 1, "cpu_cfs_throttled_periods_total", &[]),
    ("cpu.stat", "throttled_usec", US, "cpu_cfs_throttled_seconds_total", &[]),
    ("memory.stat", "file", 1, "memory_cache", &[]),
    ("memory.stat", "anon", 1, "memory_rss", &[]),
    ("memory.stat", "file_mapped", 1, "memory_mapped_file", &[]),
    ("memory.stat", "kernel", 1, "memory_kernel_usage", &[]),
    ("memory.stat", "pgfault", 1, "memory_failures_total", &["pgfault", "container"]),
    ("memory.stat", "pgfault", 1, "memory_failures_total", &["pgfault", "hierarchy"]),
    ("memory.stat", "pgmajfault", 1, "memory_failures_total", &["pgmajfault", "container"]),
    ("memory.stat", "pgmajfault", 1, "memory_failures_total", &["pgmajfault", "hierarchy"]),
    ("memory.current", "", 1, "memory_usage_bytes", &[]),
    ("memory.peak", "", 1, "memory_max_usage_bytes", &[]),
    ("memory.swap.current", "", 1, "memory_swap", &[]),
    ("memory.events", "max", 1, "memory_failcnt", &[]),
    ("memory.events", "oom_kill", 1, "oom_events_total", &[]),
    ("memory.min", "", 1, "spec_memory_reservation_limit_bytes", &[]),
    ("pids.current", "", 1, "threads", &[]),
    ("pids.max", "", 1, "threads_max", &[]),
    ("cpu.pressure", "some", US, "pressure_cpu_waiting_seconds_total", &[]),
    ("cpu.pressure", "full", US, "pressure_cpu_stalled_seconds_total", &[]),
    ("io.pressure", "some", US, "pressure_io_waiting_seconds_total", &[]),
    ("io.pressure", "full", US, "pressure_io_stalled_seconds_total", &[]),
    ("memory.pressure", "some", US, "pressure_memory_waiting_seconds_total", &[]),
    ("memory.pressure", "full", US, "pressure_memory_stalled_seconds_total", &[]),
    // For what is made of them below.
    ("io.stat", "", 1, "", &[]),
    ("memory.stat", "inactive_file", 1, "", &[]),
];

const V1: [Row; 24] = [
    ("cpuacct.usage", "", NS, "cpu_usage_seconds_total", &["total"]),
    ("cpuacct.stat", "user", HZ, "cpu_user_seconds_total", &[]),
    ("cpuacct.stat", "system", HZ, "cpu_system_seconds_total", &[]),
    ("cpu.stat", "nr_periods", 1, "cpu_cfs_periods_total", &[]),
    ("cpu.stat", "nr_throttled", 1, "cpu_cfs_throttled_periods_total", &[]),
    ("cpu.stat", "throttled_time", NS, "cpu_cfs_throttled_seconds_total", &[]),
    ("memory.stat", "total_cache", 1, "memory_cache", &[]),
    ("memory.stat", "total_rss", 1, "memory_rss", &[]),
    ("memory.stat", "total_mapped_file", 1, "memory_mapped_file", &[]),
    ("memory.stat", "total_swap", 1, "memory_swap", &[]),
    ("memory.stat", "pgfault", 1, "memory_failures_total", &["pgfault", "container"]),
    ("memory.stat", "total_pgfault", 1, "memory_failures_total", &["pgfault", "hierarchy"]),
    ("memory.stat", "pgmajfault", 1, "memory_failures_total", &["pgmajfault", "container"]),
    ("memory.stat", "total_pgmajfault", 1, "memory_failures_total", &["pgmajfault", "hierarchy"]),
    ("memory.kmem.usage_in_bytes", "", 1, "memory_kernel_usage", &[]),
    ("memory.usage_in_bytes", "", 1, "memory_usage_bytes", &[]),
    ("memory.max_usage_in_bytes", "", 1, "memory_max_usage_bytes", &[]),
    ("memory.failcnt", "", 1, "memory_failcnt", &[]),
    ("memory.oom_control", "oom_kill", 1, "oom_events_total", &[]),
    ("pids.current", "", 1, "threads", &[]),
    ("pids.max", "", 1, "threads_max", &[]),
    ("memory.stat", "total_inactive_file", 1, "", &[]),
    (SERVICE_BYTES, "", 1, "", &[]),
    (SERVICED, "", 1, "", &[]),
];
const SERVICE_BYTES: &str = "blkio.throttle.io_service_bytes_recursive";
const SERVICED: &str = "blkio.throttle.io_serviced_recursive";

/// What older kernels of v2 count instead of `kernel` (before 5.18).
const KERNEL_PARTS: [&str; 4] = ["kernel_stack", "pagetables", "percpu", "slab"];

/// v2's key, metric, and for bytes the operation.
const IO: [(&str, &str, &str); 4] = [
    ("rbytes", "fs_reads_bytes_total", "Read"),
    ("wbytes", "fs_writes_bytes_total", "Write"),
    ("rios", "fs_reads_total", ""),
    ("wios", "fs_writes_total", ""),
];

/// Columns of /proc/PID/net/dev.
const NETWORK: [(usize, &str); 8] = [
    (0, "network_receive_bytes_total"),
    (1, "network_receive_packets_total"),
    (2, "network_receive_errors_total"),
    (3, "network_receive_packets_dropped_total"),
    (8, "network_transmit_bytes_total"),
    (9, "network_transmit_packets_total"),
    (10, "network_transmit_errors_total"),
    (11, "network_transmit_packets_dropped_total"),
];

fn rows(unified: bool) -> &'static [Row] {
    if unified { &V2 } else { &V1 }
}

/// The files of huge pages of one size (`2MB`), with their metrics; v2 keeps no maximum.
fn of_pages(unified: bool, size: &str) -> [(String, &'static str); 2] {
    let (usage, most) = if unified { ("current", "") } else { ("usage_in_bytes", "max_usage_in_bytes") };
    [(usage, "hugetlb_usage_bytes"), (most, "hugetlb_max_usage_bytes")].map(|(end, metric)| (format!("hugetlb.{size}.{end}"), metric))
}

/// The files [`of_cgroup`] wants, each once.
pub fn files(unified: bool, page_sizes: &[String]) -> Vec<String> {
    let pages = page_sizes.iter().flat_map(|size| of_pages(unified, size)).map(|(file, _)| file);
    let mut all: Vec<String> = rows(unified).iter().map(|row| row.0.to_owned()).chain(pages).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// The number of a file, or the last one of the line that begins with a key.
pub fn number(text: &str, key: &str) -> Option<u64> {
    if key.is_empty() {
        return text.trim().parse().ok();
    }
    let rest = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))?;
    rest.rsplit([' ', '=']).next()?.parse().ok()
}

/// Those of a cgroup. `name` gives the name of the device `MAJOR:MINOR`.
pub fn of_cgroup(unified: bool, texts: &Texts, page_sizes: &[String], name: &dyn Fn(&str) -> String) -> Vec<Figure> {
    let read = |file: &str, key: &str| number(texts.get(file)?, key);
    let known = rows(unified).iter().filter(|row| !row.3.is_empty());
    let mut all: Vec<Figure> =
        known.filter_map(|(file, key, units, metric, labels)| Some(Figure::new(metric, labels, read(file, key)? / units))).collect();
    let (usage, inactive) = if unified { ("memory.current", "inactive_file") } else { ("memory.usage_in_bytes", "total_inactive_file") };
    if let Some(usage) = read(usage, "") {
        let dropped = read("memory.stat", inactive).unwrap_or(0);
        all.push(Figure::new("memory_working_set_bytes", &[], usage.saturating_sub(dropped)));
    }
    if unified && texts.contains_key("memory.stat") && read("memory.stat", "kernel").is_none() {
        let parts = KERNEL_PARTS.iter().filter_map(|key| read("memory.stat", key));
        all.push(Figure::new("memory_kernel_usage", &[], parts.sum()));
    }
    for size in page_sizes {
        let figures = of_pages(unified, size).map(|(file, metric)| Figure::new(metric, &[size], read(&file, "").unwrap_or(0)));
        all.extend(figures);
    }
    for (device, key, count) in if unified { io_of_v2(texts) } else { io_of_v1(texts) } {
        let (Some((major, minor)), Some((_, metric, operation))) = (device.split_once(':'), IO.iter().find(|one| one.0 == key)) else {
            continue;
        };
        let device = name(device);
        all.push(Figure::new(metric, &[&device], count));
        if !operation.is_empty() {
            all.push(Figure::new("blkio_device_usage_total", &[&device, major, minor, operation], count));
        }
    }
    all
}

/// (device, key of v2, count)
fn io_of_v2(texts: &Texts) -> Vec<(&str, &str, u64)> {
    let Some(text) = texts.get("io.stat") else { return Vec::new() };
    let lines = text.lines().take(EACH_LIMIT).filter_map(|line| line.split_once(' '));
    let pairs = lines.flat_map(|(device, rest)| rest.split(' ').filter_map(move |word| Some((device, word.split_once('=')?))));
    pairs.filter_map(|(device, (key, count))| Some((device, key, count.parse().ok()?))).collect()
}

fn io_of_v1(texts: &Texts) -> Vec<(&str, &str, u64)> {
    let mut all = Vec::new();
    for (file, read, write) in [(SERVICE_BYTES, "rbytes", "wbytes"), (SERVICED, "rios", "wios")] {
        let lines = texts.get(file).map(String::as_str).unwrap_or_default().lines();
        let counts = lines.filter_map(|line| {
            let mut words = line.split(' ');
            let (device, operation, count) = (words.next()?, words.next()?, words.next()?.parse().ok()?);
            let key = [("Read", read), ("Write", write)].into_iter().find(|one| one.0 == operation)?.1;
            Some((device, key, count))
        });
        all.extend(counts.take(2 * EACH_LIMIT));
    }
    all
}

/// The interfaces of /proc/PID/net/dev and their counters, loopback left out.
pub fn interfaces(text: &str) -> impl Iterator<Item = (&str, Vec<u64>)> {
    let all = text.lines().filter_map(|line| line.split_once(':'));
    let numbers = |text: &str| text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    all.map(move |(name, rest)| (name.trim(), numbers(rest))).filter(|(name, _)| *name != "lo")
}

/// Those of /proc/PID/net/dev.
pub fn of_network(text: &str) -> Vec<Figure> {
    let of = |(name, numbers): (&str, Vec<u64>)| {
        NETWORK.map(|(column, metric)| Figure::new(metric, &[name], numbers.get(column).copied().unwrap_or(0)))
    };
    interfaces(text).take(EACH_LIMIT).flat_map(of).collect()
}

/// How many files a process may have open, of /proc/PID/limits.
pub fn open_files(text: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// `2MB`, as a cgroup's files are named, of a name in /sys/kernel/mm/hugepages (`hugepages-2048kB`).
pub fn page_size(name: &str) -> Option<String> {
    let kib: u64 = name.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
    Some(match kib {
        0..1024 => format!("{kib}KB"),
        1024..0x10_0000 => format!("{}MB", kib >> 10),
        _ => format!("{}GB", kib >> 20),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY_STAT_V2: &str = "anon 5033984\nfile 20316160\nkernel 1531904\nkernel_stack 98304\npagetables 245760\nsec_pagetables 0\n\
        percpu 1440\nsock 0\nvmalloc 0\nshmem 12288\nfile_mapped 9326592\nfile_dirty 0\nswapcached 0\ninactive_anon 5029888\n\
        active_anon 16384\ninactive_file 14168064\nactive_file 6135808\nslab_reclaimable 631504\nslab_unreclaimable 284840\n\
        slab 916344\npgfault 7212\npgmajfault 59\npgrefill 0\n";
    const V2_TEXTS: [(&str, &str); 14] = [
        (
            "cpu.stat",
            "usage_usec 12987654\nuser_usec 9000000\nsystem_usec 3987654\nnice_usec 0\nnr_periods 340\nnr_throttled 33\n\
             throttled_usec 4200000\nnr_bursts 0\nburst_usec 0\n",
        ),
        ("memory.stat", MEMORY_STAT_V2),
        ("memory.current", "27000832\n"),
        ("memory.peak", "31457280\n"),
        ("memory.swap.current", "8192\n"),
        ("memory.events", "low 0\nhigh 0\nmax 17\noom 2\noom_kill 1\noom_group_kill 1\n"),
        ("memory.min", "4194304\n"),
        ("pids.current", "9\n"),
        ("pids.max", "4096\n"),
        (
            "cpu.pressure",
            "some avg10=97.45 avg60=94.77 avg300=89.09 total=24170031926\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=3500000\n",
        ),
        ("io.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=2000001\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=999999\n"),
        ("memory.pressure", "some avg10=0.00 avg60=0.12 avg300=0.00 total=6000000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5000000\n"),
        (
            "io.stat",
            "254:0 rbytes=20168704 wbytes=8192 rios=512 wios=2 dbytes=0 dios=0\n\
             7:0 \n253:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n",
        ),
        ("hugetlb.2MB.current", "4194304\n"),
    ];

    const MEMORY_STAT_V1: &str = "cache 10940416\nrss 14024704\nrss_huge 0\nshmem 9084928\nmapped_file 7503872\nswap 0\npgpgin 422100\n\
        pgpgout 416336\npgfault 628346\npgmajfault 3\ninactive_file 77824\nactive_file 1777664\n\
        hierarchical_memory_limit 9223372036854771712\ntotal_cache 13286875136\ntotal_rss 6733049856\ntotal_rss_huge 964689920\n\
        total_mapped_file 1122906112\ntotal_swap 4096\ntotal_pgfault 1845152848\ntotal_pgmajfault 401896\ntotal_inactive_file 7485026304\n";
    const V1_TEXTS: [(&str, &str); 14] = [
        ("cpuacct.usage", "88409560000000\n"),
        ("cpuacct.stat", "user 7715610\nsystem 1125520\n"),
        ("cpu.stat", "nr_periods 12\nnr_throttled 4\nthrottled_time 2500000000\nnr_bursts 0\nburst_time 0\n"),
        ("memory.stat", MEMORY_STAT_V1),
        ("memory.kmem.usage_in_bytes", "1048576\n"),
        ("memory.usage_in_bytes", "20019924992\n"),
        ("memory.max_usage_in_bytes", "21000000000\n"),
        ("memory.failcnt", "6\n"),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"),
        ("pids.current", "3\n"),
        ("pids.max", "max\n"),
        (
            "blkio.throttle.io_service_bytes_recursive",
            "254:0 Read 4096\n254:0 Write 8192\n254:0 Sync 12288\n254:0 Async 0\n254:0 Discard 0\n254:0 Total 12288\nTotal 12288\n",
        ),
        ("blkio.throttle.io_serviced_recursive", "254:0 Read 1\n254:0 Write 2\n254:0 Total 3\nTotal 3\n"),
        ("hugetlb.2MB.max_usage_in_bytes", "2097152\n"),
    ];

    fn texts(all: &[(&str, &str)]) -> Texts {
        all.iter().map(|(file, text)| ((*file).to_owned(), (*text).to_owned())).collect()
    }

    /// As `metric label,label value`.
    fn shown(all: &[Figure]) -> Vec<String> {
        let one = |figure: &Figure| match figure.labels.as_slice() {
            [] => format!("{} {}", figure.metric, figure.value),
            labels => format!("{} {} {}", figure.metric, labels.join(","), figure.value),
        };
        all.iter().map(one).collect()
    }

    fn of(unified: bool, all: &[(&str, &str)]) -> Vec<String> {
        let sizes = ["1GB", "2MB"].map(str::to_owned);
        let name = |numbers: &str| if numbers == "254:0" { "/dev/vda".to_owned() } else { numbers.to_owned() };
        let wanted = files(unified, &sizes);
        assert!(all.iter().all(|(file, _)| wanted.iter().any(|one| one == file)), "{wanted:?}");
        shown(&of_cgroup(unified, &texts(all), &sizes, &name))
    }

    #[test]
    fn files_of_v2_are_figures() {
        let want = [
            "cpu_usage_seconds_total total 12",
            "cpu_user_seconds_total 9",
            "cpu_system_seconds_total 3",
            "cpu_cfs_periods_total 340",
            "cpu_cfs_throttled_periods_total 33",
            "cpu_cfs_throttled_seconds_total 4",
            "memory_cache 20316160",
            "memory_rss 5033984",
            "memory_mapped_file 9326592",
            "memory_kernel_usage 1531904",
            "memory_failures_total pgfault,container 7212",
            "memory_failures_total pgfault,hierarchy 7212",
            "memory_failures_total pgmajfault,container 59",
            "memory_failures_total pgmajfault,hierarchy 59",
            "memory_usage_bytes 27000832",
            "memory_max_usage_bytes 31457280",
            "memory_swap 8192",
            "memory_failcnt 17",
            "oom_events_total 1",
            "spec_memory_reservation_limit_bytes 4194304",
            "threads 9",
            "threads_max 4096",
            "pressure_cpu_waiting_seconds_total 24170",
            "pressure_cpu_stalled_seconds_total 3",
            "pressure_io_waiting_seconds_total 2",
            "pressure_io_stalled_seconds_total 0",
            "pressure_memory_waiting_seconds_total 6",
            "pressure_memory_stalled_seconds_total 5",
            "memory_working_set_bytes 12832768",
            "hugetlb_usage_bytes 1GB 0",
            "hugetlb_max_usage_bytes 1GB 0",
            "hugetlb_usage_bytes 2MB 4194304",
            "hugetlb_max_usage_bytes 2MB 0",
            "fs_reads_bytes_total /dev/vda 20168704",
            "blkio_device_usage_total /dev/vda,254,0,Read 20168704",
            "fs_writes_bytes_total /dev/vda 8192",
            "blkio_device_usage_total /dev/vda,254,0,Write 8192",
            "fs_reads_total /dev/vda 512",
            "fs_writes_total /dev/vda 2",
            "fs_reads_bytes_total 253:0 4096",
            "blkio_device_usage_total 253:0,253,0,Read 4096",
            "fs_writes_bytes_total 253:0 0",
            "blkio_device_usage_total 253:0,253,0,Write 0",
            "fs_reads_total 253:0 1",
            "fs_writes_total 253:0 0",
        ];
        assert_eq!(of(true, &V2_TEXTS), want);
    }

    #[test]
    fn files_of_v1_are_figures() {
        let want = [
            "cpu_usage_seconds_total total 88409",
            "cpu_user_seconds_total 77156",
            "cpu_system_seconds_total 11255",
            "cpu_cfs_periods_total 12",
            "cpu_cfs_throttled_periods_total 4",
            "cpu_cfs_throttled_seconds_total 2",
            "memory_cache 13286875136",
            "memory_rss 6733049856",
            "memory_mapped_file 1122906112",
            "memory_swap 4096",
            "memory_failures_total pgfault,container 628346",
            "memory_failures_total pgfault,hierarchy 1845152848",
            "memory_failures_total pgmajfault,container 3",
            "memory_failures_total pgmajfault,hierarchy 401896",
            "memory_kernel_usage 1048576",
            "memory_usage_bytes 20019924992",
            "memory_max_usage_bytes 21000000000",
            "memory_failcnt 6",
            "oom_events_total 5",
            "threads 3",
            "memory_working_set_bytes 12534898688",
            "hugetlb_usage_bytes 1GB 0",
            "hugetlb_max_usage_bytes 1GB 0",
            "hugetlb_usage_bytes 2MB 0",
            "hugetlb_max_usage_bytes 2MB 2097152",
            "fs_reads_bytes_total /dev/vda 4096",
            "blkio_device_usage_total /dev/vda,254,0,Read 4096",
            "fs_writes_bytes_total /dev/vda 8192",
            "blkio_device_usage_total /dev/vda,254,0,Write 8192",
            "fs_reads_total /dev/vda 1",
            "fs_writes_total /dev/vda 2",
        ];
        assert_eq!(of(false, &V1_TEXTS), want);
    }

    #[test]
    fn an_older_kernels_own_memory_is_the_sum_of_its_parts() {
        let without = MEMORY_STAT_V2.replace("kernel 1531904\n", "");
        let got = of(true, &[("memory.stat", &without)]);
        assert!(got.contains(&format!("memory_kernel_usage {}", 98304 + 245_760 + 1440 + 916_344)), "{got:?}");
    }

    #[test]
    fn what_is_no_figure_is_none() {
        for (file, text) in [
            ("cpu.stat", ""),
            ("cpu.stat", "usage_usec\nuser_usec -1\nsystem_usec 99999999999999999999\n"),
            ("memory.events", "maximum 3\n"),
            ("cpu.pressure", "some\n"),
            ("io.stat", "254:0\nno-device rbytes=1\n254:0 rbytes=x\n"),
            ("pids.max", "max\n"),
        ] {
            let none = "hugetlb_usage_bytes 1GB 0|hugetlb_max_usage_bytes 1GB 0|hugetlb_usage_bytes 2MB 0|hugetlb_max_usage_bytes 2MB 0";
            assert_eq!(of(true, &[(file, text)]).join("|"), none, "{text:?}");
        }
        let many: String = (0..1000).map(|minor| format!("7:{minor} rbytes=1\n")).collect();
        assert_eq!(of(true, &[("io.stat", &many)]).len(), 4 + 2 * EACH_LIMIT);
    }

    #[test]
    fn a_pods_interfaces_are_counted() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
            face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    \
            lo: 5798018002 1109843    0    0    0     0          0         0 5798018002 1109843    0    0    0     0       0          0\n  \
            eth0: 1538098585   69422    1    2    0     0          0         0  3991126   40134    3    4    0     0       0          0\n";
        let want = [
            "network_receive_bytes_total eth0 1538098585",
            "network_receive_packets_total eth0 69422",
            "network_receive_errors_total eth0 1",
            "network_receive_packets_dropped_total eth0 2",
            "network_transmit_bytes_total eth0 3991126",
            "network_transmit_packets_total eth0 40134",
            "network_transmit_errors_total eth0 3",
            "network_transmit_packets_dropped_total eth0 4",
        ];
        assert_eq!(shown(&of_network(text)), want);
        let many: String = (0..1000).map(|number| format!("veth{number}: 1 1\n")).collect();
        assert_eq!(of_network(&many).len(), NETWORK.len() * EACH_LIMIT);
        assert_eq!(of_network(""), []);
    }

    #[test]
    fn limits_and_page_sizes_are_read() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
            Max processes             96365                96365                processes \n\
            Max open files            1024                 20000                files     \n";
        assert_eq!([open_files(text), open_files("Max open files  unlimited unlimited files"), open_files("")], [Some(1024), None, None]);
        let sizes = ["hugepages-64kB", "hugepages-2048kB", "hugepages-1048576kB", "hugepages-kB", "other"].map(page_size);
        assert_eq!(sizes, [Some("64KB"), Some("2MB"), Some("1GB"), None, None].map(|size| size.map(str::to_owned)));
    }
}
